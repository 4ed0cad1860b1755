"""The process of a model's replica: pulls its model under its grant, verifies it, serves it to the gateway alone.

Its environment: `WHARF_MODEL_REPOSITORY`, `WHARF_MODEL_DIGEST` and `WHARF_MODEL_NAME` say what to serve, `WHARF_API`
and `WHARF_REGISTRY` where the platform is, `WHARF_NAMESPACE`, `WHARF_POD`, `WHARF_POD_IP` and `WHARF_PORT` who and
where it is, `WHARF_DEVICES` the UUIDs of its silicon, `WHARF_TRUST_DOMAIN` whose parts it believes, `WHARF_JOURNAL`
where its decisions go, `SPIFFE_ENDPOINT_SOCKET` where its identity comes from. `RUNTIME_PACE`, a user's to set, is a
pause after each token, in seconds.

With a command behind `--` it serves through that server instead of itself (`runtime.fronted`), for example
`python -m wharfinger.inference.runtime -- vllm serve {model} --served-model-name {name} --uds {socket}`.

It listens once the model is loaded: a port that answers is a replica that is ready. What keeps it from that goes to the
termination log and to stderr, by the error's code, and the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import uvloop

from wharfinger.cluster.client import Client, Resource
from wharfinger.cluster.endpoint import Endpoint
from wharfinger.cluster.informer import Informer
from wharfinger.core import logs
from wharfinger.core.errors import Denied, HostUnfit, Invalid, Unavailable, WharfingerError, excerpt
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.identity.tls import client_context, server_context
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.inference.language import LanguageModel
from wharfinger.inference.listener import Listener, bind
from wharfinger.inference.runtime.door import RuntimeDoor
from wharfinger.inference.runtime.fronted import Server, place, private_folder
from wharfinger.inference.runtime.loading import pull
from wharfinger.inference.runtime.server import Runtime
from wharfinger.kinds.grant import KIND as GRANT
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal
from wharfinger.supply.artifact import pull_folder
from wharfinger.supply.registry.client import RegistryClient

TERMINATION_LOG: Final = Path("/dev/termination-log")
"""Where a container's last words go (Kubernetes' default terminationMessagePath)."""
PATIENCE: Final = 60
"""How often, a second apart, the registry is asked for a model that it does not hand out yet."""
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the replica is told."""

    repository: str
    digest: str
    model: str
    namespace: str
    pod: str
    host: str
    port: int
    api: tuple[str, int]
    registry: tuple[str, int]
    trust_domain: TrustDomain
    device: str | None
    journal: Path
    pace: float


def setting(environment: Mapping[str, str]) -> Setting:
    """Return what `environment` says. Raises `Invalid` naming the variable that is missing or wrong."""
    try:
        return Setting(
            repository=environment["WHARF_MODEL_REPOSITORY"],
            digest=environment["WHARF_MODEL_DIGEST"],
            model=environment["WHARF_MODEL_NAME"],
            namespace=environment["WHARF_NAMESPACE"],
            pod=environment["WHARF_POD"],
            host=environment["WHARF_POD_IP"],
            port=int(environment["WHARF_PORT"]),
            api=_address(environment["WHARF_API"]),
            registry=_address(environment["WHARF_REGISTRY"]),
            trust_domain=TrustDomain.of(environment["WHARF_TRUST_DOMAIN"]),
            device=environment.get("WHARF_DEVICES", "").partition(",")[0] or None,
            journal=Path(environment["WHARF_JOURNAL"]),
            pace=float(environment.get("RUNTIME_PACE") or 0),
        )
    except KeyError as error:
        raise Invalid(f"expected {error.args[0]} in the environment, got nothing") from error
    except ValueError as error:
        raise Invalid(f"expected a number in WHARF_PORT and RUNTIME_PACE: {error}") from error


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None or parts.port is None:
        raise Invalid(f"expected https://HOST:PORT, got {excerpt(url)}")
    return parts.hostname, parts.port


def load(told: Setting, source: SvidSource, take: Callable[[RegistryClient], _T]) -> _T:
    """Return what `take` makes of the registry; asks again while that is away or does not know of the grant yet."""
    expect = SpiffeId.part(told.trust_domain, "registry")
    client = RegistryClient(*told.registry, source, expect=expect)
    try:
        for attempt in range(1, PATIENCE + 1):
            try:
                return take(client)
            except (Denied, Unavailable) as error:
                if attempt == PATIENCE:
                    raise
                _log.info("the model is not to be had yet", extra={"fields": {"error": str(error)}})
                threading.Event().wait(1.0)
    finally:
        client.close()
    raise Unavailable("the registry was not asked")


def _files(told: Setting, client: RegistryClient) -> Path:
    folder = private_folder()
    pull_folder(client, told.repository, told.digest, folder)
    return folder


def grants(told: Setting, source: SvidSource) -> Informer:
    """Return what keeps the grants of the namespace current."""
    context = client_context(source, expect=SpiffeId.part(told.trust_domain, "api"))
    client = Client(Endpoint(*told.api, context), user_agent="wharfinger-runtime")
    resource = Resource(GRANT.group, GRANT.version, GRANT.plural, GRANT.name, GRANT.namespaced)
    return Informer(client, resource, told.namespace)


async def serve(
    told: Setting, source: SvidSource, informer: Informer, model: LanguageModel | None, server: Server | None
) -> None:
    """Serve until SIGTERM. Raises `Unavailable` when another server that does the work ends."""
    clock, ids = SystemClock(), SystemIds()
    journal = Journal(told.journal)
    door = RuntimeDoor(
        Doorkeeper("runtime", journal, clock, ids),
        lambda: [g["spec"] for g in informer.list(told.namespace) if g["spec"].get("pod") == told.pod],
        clock,
        gateway=SpiffeId.part(told.trust_domain, "gateway"),
        who=source.material().svid.id.text,
        what=told.digest,
        device=told.device,
    )
    runtime = Runtime(told.model, door, clock, ids, pace=told.pace)
    if model is not None:
        runtime.load(model)
    if server is not None:
        await server.ready()
        runtime.front(server.answer)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    def changed(_kind: str, _grant: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(runtime.judge_again)

    informer.on_change(changed)
    context = server_context(source, client_certs="required")
    front = Listener(runtime.handle, bind(told.host, told.port), context)
    await front.start()
    _log.info("serving", extra={"fields": {"model": told.model, "digest": told.digest, "port": told.port}})
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), 1.0)
        runtime.judge_again()
        if server is not None and server.ended:
            raise Unavailable(server.ended)
    await front.stop()
    informer.stop()
    journal.close()


def last_words(error: WharfingerError) -> None:
    """Say why this process ends, where the platform looks for it."""
    words = f"{error.code}: {error.message}"
    with contextlib.suppress(OSError):
        TERMINATION_LOG.write_text(words[:4000], encoding="utf-8")
    print(words, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit status."""
    logs.to_stderr("runtime")
    words = list(arguments[1:]) if arguments[:1] == ["--"] else []
    server: Server | None = None
    try:
        told = setting(os.environ)
        source = WorkloadSource.of_environment(os.environ)
        source.material()
        informer = grants(told, source)
        informer.start()
        model = None if words else load(told, source, lambda client: pull(client, told.repository, told.digest))
        if words:
            files = load(told, source, lambda client: _files(told, client))
            server = Server(place(files, told.model, private_folder(), told.host), words, os.environ)
        if not informer.synced(30.0):
            raise Unavailable("the API server does not tell the grants of this namespace")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(told, source, informer, model, server))
    except WharfingerError as error:
        last_words(error)
        return error.exit_code
    except MemoryError:
        last_words(HostUnfit("the model does not fit into memory"))
        return 2
    finally:
        if server is not None:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
