"""What identity costs: issuing, the Workload API's round trip, verifying SVIDs, a TLS handshake with them.

    python -m bench.identity [-o json]

Caveats first. Client and server share this process and this machine's cores. Issued SVIDs are not written to a journal
here; the issuer's process adds one shared `fdatasync` for each. `spiffe` (py-spiffe) verifies the same tokens: it reads
fewer rules, and checks no chains, so that certificates have no peer here. P-256 everywhere. The best of three runs.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import spiffe
from spiffe.bundle.jwt_bundle.jwt_bundle import JwtBundle
from trust_domain import CONTROL, DOMAIN, TRAINER, Domain, anyone

from bench.raw import keep
from wharfinger.core.clock import Span
from wharfinger.identity import workloadapi
from wharfinger.identity.bundledocument import encode_jwks
from wharfinger.identity.issuer.workloadserver import Pace
from wharfinger.identity.jwtsvid import verify as verify_token
from wharfinger.identity.tls import client_context, peer_id, server_context
from wharfinger.identity.workloadsource import _Connection
from wharfinger.identity.x509svid import verify

ROUNDS = 3
CALLS = 300


class Unhurried(Pace):
    """Lets every call through: the socket's limit is not what is measured."""

    def take(self, now: Span) -> None:
        """Take nothing."""


def microseconds(work: Callable[[], object], calls: int = CALLS) -> float:
    """Return the CPU time of one call in microseconds: this process's, the fastest of `ROUNDS` runs of `calls`."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(calls):
            work()
        best = min(best, time.process_time() - start)
    return best / calls * 1e6


def issuing(domain: Domain) -> dict[str, float]:
    """Return what issuing and verifying cost, beside what the peer needs for the same tokens."""
    svid, token = domain.authority.svid(TRAINER), domain.authority.token(TRAINER, ["door"])
    bundles, now = domain.authority.bundles, domain.clock.now()
    peer = JwtBundle.parse(spiffe.TrustDomain(DOMAIN.name), encode_jwks(bundles[DOMAIN].jwt_authorities))
    return {
        "issue X.509-SVID, key included": microseconds(lambda: domain.authority.svid(TRAINER)),
        "issue JWT-SVID": microseconds(lambda: domain.authority.token(TRAINER, ["door"])),
        "verify X.509-SVID": microseconds(lambda: verify(svid.certificates, bundles, now)),
        "verify JWT-SVID": microseconds(lambda: verify_token(token, bundles, "door", now)),
        "peer: spiffe verifies JWT-SVID": microseconds(
            lambda: spiffe.JwtSvid.parse_and_validate(token, peer, {"door"})
        ),
    }


def workload_api(domain: Domain, folder: Path) -> dict[str, float]:
    """Return what a call costs at a real socket, client and server together, attested by the kernel's word."""
    path = folder / "w.sock"
    domain.serve(path, anyone(TRAINER)).pace = Unhurried(0)
    request = workloadapi.JwtRequest(("door",)).encode()

    def ours() -> None:
        connection = _Connection(path)
        connection.call(workloadapi.FETCH_JWT_SVID, request)
        connection.close()

    found = {"FetchJWTSVID, connection included": microseconds(ours)}
    with spiffe.WorkloadApiClient(f"unix://{path}") as client:
        client.fetch_jwt_svid(audience={"door"})
        found["FetchJWTSVID by spiffe (grpcio), kept connection"] = microseconds(
            lambda: client.fetch_jwt_svid(audience={"door"})
        )
        found["FetchX509SVID by spiffe (grpcio), kept connection"] = microseconds(client.fetch_x509_svid)
    return found


def handshakes(domain: Domain) -> dict[str, float]:
    """Return what a handshake with SVIDs at both ends costs, both ends together, and the same by OpenSSL alone."""
    server = server_context(domain.source(CONTROL), client_certs="required")
    client = client_context(domain.source(TRAINER), expect=CONTROL)
    plain = _plain(domain)
    return {
        "TLS handshake, both ends, by SPIFFE ID": microseconds(lambda: _shake(server, client), 100),
        "TLS handshake, both ends, OpenSSL's chain check alone": microseconds(lambda: _shake(*plain), 100),
    }


def _plain(domain: Domain) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    contexts = []
    for spiffe_id, protocol in ((CONTROL, ssl.PROTOCOL_TLS_SERVER), (TRAINER, ssl.PROTOCOL_TLS_CLIENT)):
        context, svid = ssl.SSLContext(protocol), domain.authority.svid(spiffe_id)
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=domain.vault.root.public_bytes(workloadapi.Encoding.PEM).decode())
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(svid.key_pem() + svid.chain_pem())
            pair.flush()
            context.load_cert_chain(pair.name)
        contexts.append(context)
    return contexts[0], contexts[1]


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(ours, server_side=True) as end:
            end.sendall(end.recv(1))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(theirs, server_hostname="x") as end:
        end.sendall(b"x")
        end.recv(1)
        peer_id(end)
    thread.join()


def main() -> None:
    """Measure everything and print it."""
    with tempfile.TemporaryDirectory() as name:
        domain = Domain(Path(name))
        try:
            found = {**issuing(domain), **workload_api(domain, Path(name)), **handshakes(domain)}
        finally:
            domain.close()
    keep("identity", found)
    if sys.argv[1:] == ["-o", "json"]:
        print(json.dumps({"cores": os.cpu_count(), "microseconds": found}, indent=1))
        return
    for what, cost in found.items():
        print(f"{what:<58} {cost:9.0f} us CPU")


if __name__ == "__main__":
    main()
