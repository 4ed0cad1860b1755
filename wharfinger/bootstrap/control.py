"""The process `control`: reconcilers, scheduler, verification and proofs; the one part that writes Grants and status.

Three loops: one for what is decided in milliseconds, one for what reads artifacts, one for what asks the gateway, so
that neither a large dataset nor a gateway that hangs keeps a revocation waiting. Its control surface gives out the
trust root and makes proofs.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wharfinger.bootstrap import apiclient, papers, part
from wharfinger.bootstrap.billing import Spending
from wharfinger.bootstrap.part import Setting
from wharfinger.bootstrap.proving import Prover
from wharfinger.cluster.informer import Informers
from wharfinger.cluster.writer import ObjectWriter
from wharfinger.controllers.autoscaler import Autoscaler
from wharfinger.controllers.dataset import DatasetReconciler
from wharfinger.controllers.deployment import DeploymentReconciler
from wharfinger.controllers.desk import Desk
from wharfinger.controllers.gpuprofile import GPUProfileReconciler
from wharfinger.controllers.grant import GrantReconciler
from wharfinger.controllers.inferenceservice import InferenceServiceReconciler
from wharfinger.controllers.job import JobReconciler
from wharfinger.controllers.loop import Loop
from wharfinger.controllers.model import ModelReconciler
from wharfinger.controllers.pipelinerun import PipelineRunReconciler
from wharfinger.controllers.policies import PolicyReconciler
from wharfinger.controllers.resourceclaim import ResourceClaimReconciler
from wharfinger.controllers.tenant import Spent, TenantReconciler
from wharfinger.controllers.world import Object, Reconciler
from wharfinger.core.clock import MILLISECOND, Clock, Span
from wharfinger.core.document import canonical, parse_json
from wharfinger.core.errors import Unauthenticated, Unavailable, WharfingerError
from wharfinger.core.ids import Ids
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.gpu import quota
from wharfinger.identity import serve
from wharfinger.identity.serve import peer_of
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.inference.scanner import Scanner
from wharfinger.local.scheduler.scheduler import Scheduler
from wharfinger.policy.cel import ACCESS, condition
from wharfinger.policy.journal import Journal, read

PLURALS: Final = (
    "tenants", "gpuprofiles", "trustpolicies", "accesspolicies", "datasets", "models", "pipelineruns",
    "inferenceservices", "inferencepolicies", "grants", "namespaces", "serviceaccounts", "nodes", "pods",
    "deployments", "jobs", "resourceslices", "resourceclaims", "resourceclaimtemplates", "deviceclasses",
)  # fmt: skip
SYNC_SECONDS: Final = 60.0
_GATEWAY_SECONDS: Final = 0.5
_LOAD_KEPT: Final[Span] = 500 * MILLISECOND
_log = logging.getLogger(__name__)


def main(setting: Setting) -> None:
    """Reconcile and serve until SIGTERM."""
    source = WorkloadSource(setting.workload_socket)
    source.material()
    clock, ids = SystemClock(), SystemIds()
    client = apiclient.client(setting, source, "control")
    informers = apiclient.informers(client, PLURALS)
    writer = apiclient.writer(client, "control", clock, ids)
    journal = Journal(setting.state.evidence / "control")
    desk = papers.desk(setting, source, clock)
    metered = read(setting.state.evidence / "control")
    spent = Spending(setting.state.evidence)
    load = GatewayLoad(setting, source, clock)
    loops = [
        Loop(informers, deciders(informers, writer, journal, setting.trust_domain, clock, ids, spent, metered), clock),
        Loop(informers, readers(informers, writer, desk), clock),
        Loop(informers, [Autoscaler(informers, writer, load)], clock, workers=1),
    ]
    workers: list[Loop | Scheduler] = [*loops, Scheduler(informers, writer, clock)]
    prover = Prover(setting.state.evidence, desk, informers, clock)
    informers.start()
    try:
        if not informers.synced(SYNC_SECONDS):
            raise Unavailable("control: the API server does not answer", hint="wharf logs --part api tells why")
        for running in workers:
            running.start()
        serve.run(lambda: _serve(setting, source, prover))
    finally:
        for running in reversed(workers):
            running.stop()
        informers.stop()
        journal.close()
        source.close()


def deciders(
    informers: Informers,
    writer: ObjectWriter,
    journal: Journal,
    trust_domain: str,
    clock: Clock,
    ids: Ids,
    spent: Spent,
    metered: Iterable[Mapping[str, Any]] = (),
) -> list[Reconciler]:
    """Return the reconcilers that read nothing but objects; `metered` are the journal's records so far."""
    return [
        TenantReconciler(informers, writer, used, spent),
        PolicyReconciler("accesspolicies", informers, writer, _check_access),
        PolicyReconciler("trustpolicies", informers, writer, _check_nothing),
        PolicyReconciler("inferencepolicies", informers, writer, _check_nothing),
        GPUProfileReconciler(informers, writer),
        ResourceClaimReconciler(informers, writer),
        DeploymentReconciler(informers, writer),
        JobReconciler(informers, writer),
        InferenceServiceReconciler(informers, writer, journal, ids, trust_domain, condition),
        GrantReconciler(informers, writer, journal, metered),
    ]


def readers(informers: Informers, writer: ObjectWriter, desk: Desk) -> list[Reconciler]:
    """Return the reconcilers that read artifacts and have papers signed: each may take a while."""
    return [
        DatasetReconciler(informers, writer, desk, scan()),
        ModelReconciler(informers, writer, desk),
        PipelineRunReconciler(informers, writer, desk),
    ]


def scan() -> Callable[[str], Sequence[tuple[str, str, int]]]:
    """Return what finds credentials and personal data in a text: the detectors of the gateway's guards."""
    scanner = Scanner(("secrets", "pii"))
    return lambda text: [(found.detector, found.family, found.start) for found in scanner.find(text)]


def used(claims: Iterable[Object], slices: Iterable[Object]) -> Mapping[str, Any]:
    """Return what claims hold, as a Tenant's status shows it: the port `controllers.tenant.Usage`."""
    amount = quota.held(claims, quota.silicon(slices))
    return {"memory": quota.written(amount), "computeSlices": amount.compute_slices}


class GatewayLoad:
    """Asks the gateway for tokens in flight by service; keeps the answer for half a second. Threads share it."""

    def __init__(self, setting: Setting, source: SvidSource, clock: Clock) -> None:
        self._port = setting.ports["gateway"]
        self._context = client_context(source, expect=SpiffeId(setting.identity("gateway")))
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[Span, Mapping[str, int] | None] | None = None
        self._connection: http.client.HTTPSConnection | None = None

    def __call__(self) -> Mapping[str, int] | None:
        """Return tokens in flight by `NAMESPACE/NAME`, None when the gateway does not answer."""
        with self._lock:
            now = self._clock.monotonic()
            if self._kept is None or now - self._kept[0] > _LOAD_KEPT:
                self._kept = (now, self._ask())
            return self._kept[1]

    def _ask(self) -> Mapping[str, int] | None:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                "127.0.0.1", self._port, timeout=_GATEWAY_SECONDS, context=self._context
            )
        try:
            self._connection.request("GET", "/admin/tokens-in-flight")
            answer = self._connection.getresponse()
            data = answer.read()
            told = parse_json(data) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, WharfingerError):
            self._connection.close()
            self._connection = None
            return None
        return {str(name): int(tokens) for name, tokens in told.items()} if isinstance(told, dict) else None


def application(prover: Prover) -> Starlette:
    """Return the control surface: `GET /v1/trust-root` for anyone who is known, `POST /v1/proofs/{decision}`."""

    async def trust_root(request: Request) -> Response:
        if peer_of(request.scope) is None:
            return refused(Unauthenticated("expected a client certificate"))
        return await _answer(prover.trust_root, "application/json")

    async def prove(request: Request) -> Response:
        peer, identifier = peer_of(request.scope), request.path_params["decision"]
        return await _answer(lambda: prover.prove(identifier, peer), "application/x-tar")

    return Starlette(
        routes=[
            Route("/v1/trust-root", trust_root, methods=["GET"]),
            Route("/v1/proofs/{decision}", prove, methods=["POST"]),
        ]
    )


def refused(error: WharfingerError) -> Response:
    """Return an error as a Kubernetes `Status`, with our hint beside it."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": error.message,
        "reason": error.code,
        "code": error.status,
        "hint": error.hint,
    }
    return Response(canonical(status), error.status, media_type="application/json")


async def _answer(work: Callable[[], bytes], media_type: str) -> Response:
    """Do `work`, which blocks, in a thread of its own."""
    try:
        return Response(await asyncio.to_thread(work), media_type=media_type)
    except WharfingerError as error:
        return refused(error)


def _check_access(spec: Object) -> None:
    if spec.get("condition"):
        ACCESS.compile(spec["condition"])


def _check_nothing(_spec: Object) -> None:
    """Accept: the schema says all that must hold."""


async def _serve(setting: Setting, source: WorkloadSource, prover: Prover) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    front = serve.Server(application(prover), source, serve.bind(setting.ports["control"]))
    await front.start()
    part.ready()
    await stopping.wait()
    await front.stop()


if __name__ == "__main__":
    part.run("control", main)
