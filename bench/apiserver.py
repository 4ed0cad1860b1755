"""What the local API server costs beside kube-apiserver and etcd: same objects, same client, same run, fsync on both.

    python -m bench apiserver                       (needs `make neighbours` for the peer)
    BENCH_OBJECTS=2000 python -m bench apiserver    (a shorter list)

Objects are InferenceServices of some 700 bytes with schema, defaults, rules in CEL and managedFields, created one by
one by POST over kept-alive TLS. CPU is user and system time of all of a server's processes (/proc/PID/stat), client
not counted; memory is their resident set after the list of all objects. Ready is the time from starting the processes
to the first 200 of /readyz. Creation without fsync, on both, is shown apart. Caveats: client and server share this
machine, so wall times hold for it alone and are bounded by its disk's fsync; theirs verifies a bearer token and RBAC,
ours a client certificate and tenancy; etcd's compaction and ours come later than this run. Raw figures go to
out/apiserver.json.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("tests", "tests/contract")]

from authority import Authority  # noqa: E402
from kube_apiserver import KubeApiserver, neighbour  # noqa: E402
from local_api import CONTROL  # noqa: E402
from servers import Api, Kubernetes  # noqa: E402

from bench.raw import keep  # noqa: E402
from wharfinger.cluster.endpoint import Endpoint  # noqa: E402

OBJECTS = int(os.environ.get("BENCH_OBJECTS", "10000"))
SEQUENTIAL = 300
CLIENTS, EACH = 15, 60
WATCHERS, TOLD = 100, 50
TICK = os.sysconf("SC_CLK_TCK")
PATH = "/apis/wharfinger.io/v1alpha1/namespaces/bench/inferenceservices"


def body(name: str) -> bytes:
    """Return an InferenceService as JSON."""
    spec = {
        "model": "pydoc-small",
        "modelDigest": "sha256:" + "ab" * 32,
        "runtime": {"type": "Builtin", "env": [{"name": "LOG", "value": "info"}, {"name": "PORT", "value": "8080"}]},
        "gpuProfile": "slice-1g",
        "serviceAccountName": "assistant",
        "callers": ["spiffe://wharfinger.local/ns/team-a/sa/web", "spiffe://wharfinger.local/ns/team-a/sa/batch"],
        "replicas": 2,
        "scaling": {"minReplicas": 1, "maxReplicas": 4, "tokensInFlight": 512, "scaleDownSeconds": 60},
    }
    metadata = {"name": name, "labels": {"app": name, "tier": "gold"}}
    made = {"apiVersion": "wharfinger.io/v1alpha1", "kind": "InferenceService", "metadata": metadata, "spec": spec}
    return json.dumps(made).encode()


class Server(Protocol):
    """A server under measurement."""

    name: str
    seconds_to_ready: float

    def endpoint(self) -> Endpoint:
        """Return how to reach it."""
        ...

    def pids(self) -> list[int]:
        """Return its processes."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Ours:
    """The local API server, in a process of its own."""

    name = "ours"

    def __init__(self, folder: Path, authority: Authority, *, fsync: bool) -> None:
        for path, name in (("wharfinger/api", "api"), (CONTROL, "control")):
            certificate, key = authority.pem(path)
            (folder / f"{name}.crt").write_bytes(certificate)
            (folder / f"{name}.key").write_bytes(key)
        (folder / "ca.crt").write_bytes(authority.bundle)
        began = time.monotonic()
        command = [sys.executable, "-m", "bench.apiserver", "serve", str(folder), "FULL" if fsync else "OFF"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(folder / "ca.crt")
        context.load_cert_chain(folder / "control.crt", folder / "control.key")
        self._endpoint = Endpoint("127.0.0.1", port, context)
        _await_ready(self._endpoint)
        self.seconds_to_ready = time.monotonic() - began

    def endpoint(self) -> Endpoint:
        """Return how to reach it as the control plane."""
        return self._endpoint

    def pids(self) -> list[int]:
        """Return its one process."""
        return [self._process.pid]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)


class Theirs:
    """kube-apiserver and etcd."""

    name = "kube-apiserver + etcd"

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self._kubernetes = Kubernetes(folder, fsync=fsync)
        self.running: KubeApiserver = self._kubernetes.running
        self.seconds_to_ready = self.running.seconds_to_ready

    def endpoint(self) -> Endpoint:
        """Return how to reach it as a cluster admin."""
        return self._kubernetes.endpoint()

    def pids(self) -> list[int]:
        """Return both processes."""
        return [process.pid for process in self.running.processes]

    def stop(self) -> None:
        """End both."""
        self._kubernetes.stop()


def _await_ready(endpoint: Endpoint) -> None:
    while True:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPSConnection(endpoint.host, endpoint.port, context=endpoint.context, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                connection.close()
                return
        time.sleep(0.005)


class Connection:
    """One kept-alive connection of the bench's client."""

    def __init__(self, server: Server) -> None:
        endpoint = server.endpoint()
        self.http = http.client.HTTPSConnection(endpoint.host, endpoint.port, context=endpoint.context, timeout=120)
        self.headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "bench"}
        if endpoint.token is not None:
            self.headers["Authorization"] = f"Bearer {endpoint.token()}"

    def create(self, name: str) -> None:
        """Create one object."""
        self.http.request("POST", PATH, body=body(name), headers=self.headers)
        answer = self.http.getresponse()
        data = answer.read()
        assert answer.status == 201, data

    def list(self) -> tuple[float, int]:
        """List everything; return seconds and bytes."""
        began = time.perf_counter()
        self.http.request("GET", PATH, headers=self.headers)
        data = self.http.getresponse().read()
        return time.perf_counter() - began, len(data)


def cpu(server: Server) -> float:
    """Return the CPU seconds that the server's processes have used."""
    total = 0.0
    for pid in server.pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def resident(server: Server) -> float:
    """Return the MiB that are resident."""
    total = 0
    for pid in server.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return total / 1024


def measured(server: Server, count: int, work: Callable[[], None]) -> dict[str, float]:
    """Run `work`, which makes `count` objects; return CPU and wall time of each, in milliseconds."""
    used, began = cpu(server), time.perf_counter()
    work()
    wall = time.perf_counter() - began
    return {"cpu_ms": 1000 * (cpu(server) - used) / count, "wall_ms": 1000 * wall / count}


def creations(server: Server, prefix: str, clients: int, each: int) -> Callable[[], None]:
    """Return what creates `each` objects by each of `clients` at once."""
    connections = [Connection(server) for _ in range(clients)]

    def one(number: int) -> None:
        for index in range(each):
            connections[number].create(f"{prefix}-{number:02}-{index:05}")

    def all_of_them() -> None:
        threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return all_of_them


def watching(server: Server) -> dict[str, float]:
    """Have 100 watchers see 50 creations; return CPU and wall milliseconds of each creation seen by all."""
    streams = [Connection(server) for _ in range(WATCHERS)]
    left = threading.Semaphore(0)

    def follow(connection: Connection) -> None:
        connection.http.request("GET", f"{PATH}?watch=1&resourceVersion={version}", headers=connection.headers)
        answer = connection.http.getresponse()
        left.release()
        for _ in range(TOLD):
            answer.readline()
        left.release()

    creator = Connection(server)
    creator.http.request("GET", f"{PATH}?limit=1", headers=creator.headers)
    version = json.loads(creator.http.getresponse().read())["metadata"]["resourceVersion"]
    threads = [threading.Thread(target=follow, args=(stream,), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    for _ in streams:
        left.acquire()

    def work() -> None:
        for index in range(TOLD):
            creator.create(f"watched-{index}")
        for _ in streams:
            left.acquire()

    found = measured(server, TOLD, work)
    for stream in streams:
        stream.http.close()
    return found


def create(server: Server) -> dict[str, Any]:
    """Return what creating costs on one server."""
    api = Api(server)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
    assert api.call("POST", "/api/v1/namespaces", namespace).status == 201
    creations(server, "warm", 1, 30)()
    found: dict[str, Any] = {"idle_mib": resident(server)}
    found["create, one client"] = measured(server, SEQUENTIAL, creations(server, "one", 1, SEQUENTIAL))
    found["create, 15 clients"] = measured(server, CLIENTS * EACH, creations(server, "many", CLIENTS, EACH))
    return found


def measure(server: Server) -> dict[str, Any]:
    """Return all figures of one server."""
    found = {"ready_s": server.seconds_to_ready, **create(server)}
    found["watch, 100 watchers"] = watching(server)
    missing = OBJECTS - SEQUENTIAL - CLIENTS * EACH - TOLD - 30
    if missing > 0:
        creations(server, "fill", CLIENTS, missing // CLIENTS)()
    lister = Connection(server)
    used, times = cpu(server), []
    for _ in range(5):
        seconds, size = lister.list()
        times.append(seconds)
    found["list"] = {"objects": OBJECTS, "best_s": min(times), "mb": size / 1e6, "cpu_s": (cpu(server) - used) / 5}
    found["full_mib"] = resident(server)
    return found


@contextlib.contextmanager
def running(which: str, *, fsync: bool = True) -> Iterator[Server]:
    """Run a server for a block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        server: Server = Ours(place, Authority(), fsync=fsync) if which == "ours" else Theirs(place, fsync=fsync)
        try:
            yield server
        finally:
            server.stop()


def serve(folder: Path, synchronous: str) -> None:
    """Be the server under measurement: as `wharfinger.bootstrap.api`, with certificates from files."""
    import asyncio

    from wharfinger.core.errors import Unauthenticated
    from wharfinger.core.systemclock import SystemClock
    from wharfinger.core.systemids import SystemIds
    from wharfinger.identity import serve as front
    from wharfinger.identity.source import from_files
    from wharfinger.identity.spiffeid import SpiffeId
    from wharfinger.local.api.authn import Authenticator
    from wharfinger.local.api.server import ApiServer

    def nobody(_token: str) -> SpiffeId:
        raise Unauthenticated("expected a certificate")

    async def main() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        source = from_files(folder / "api.crt", folder / "api.key", folder / "ca.crt")
        api = ApiServer(
            folder / "objects.db", authenticate=Authenticator(nobody), admit=lambda *_: None, clock=SystemClock(),
            ids=SystemIds(), who=str(source.material().svid.id), version="bench",
        )  # fmt: skip
        api.store.writer.execute(f"PRAGMA synchronous={synchronous}")
        listener = front.bind(0)
        server = front.Server(api.app, source, listener, ready=api.why_not_ready)
        await api.start()
        await server.start()
        print(listener.getsockname()[1], flush=True)
        await stopping.wait()
        api.end_watches()
        await server.stop()
        await api.stop()

    front.run(main)


def show(figures: dict[str, dict[str, Any]]) -> None:
    """Print the figures side by side."""
    rows = [
        ("ready, s", lambda f: f["ready_s"]),
        ("CPU per create, one client, ms", lambda f: f["create, one client"]["cpu_ms"]),
        ("  wall, ms", lambda f: f["create, one client"]["wall_ms"]),
        ("CPU per create, 15 clients, ms", lambda f: f["create, 15 clients"]["cpu_ms"]),
        ("  wall, ms", lambda f: f["create, 15 clients"]["wall_ms"]),
        ("CPU per create without fsync, one client, ms", lambda f: f["no fsync"]["create, one client"]["cpu_ms"]),
        ("CPU per create without fsync, 15 clients, ms", lambda f: f["no fsync"]["create, 15 clients"]["cpu_ms"]),
        ("CPU per create seen by 100 watchers, ms", lambda f: f["watch, 100 watchers"]["cpu_ms"]),
        (f"list of {OBJECTS}, s", lambda f: f["list"]["best_s"]),
        ("  CPU, s", lambda f: f["list"]["cpu_s"]),
        ("  size, MB", lambda f: f["list"]["mb"]),
        ("resident after start, MiB", lambda f: f["idle_mib"]),
        ("resident after the list, MiB", lambda f: f["full_mib"]),
    ]
    print(f"{'':46}" + "".join(f"{name:>24}" for name in figures))
    for title, of in rows:
        print(f"{title:46}" + "".join(f"{of(found):24.2f}" for found in figures.values()))


def main() -> None:
    """Measure ours, and theirs where it is built."""
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), sys.argv[3])
        return
    figures: dict[str, dict[str, Any]] = {}
    both = neighbour("etcd") is not None and neighbour("kube-apiserver") is not None
    only = os.environ.get("BENCH_ONLY", "")
    for which in ("ours", "theirs"):
        if (which == "theirs" and not both) or only not in {"", which}:
            print(f"{which}: left out", file=sys.stderr)
            continue
        with running(which) as server:
            figures[server.name] = measure(server)
        with running(which, fsync=False) as server:
            figures[server.name]["no fsync"] = create(server)
    show(figures)
    keep("apiserver", {"objects": OBJECTS, "servers": figures})


if __name__ == "__main__":
    main()
