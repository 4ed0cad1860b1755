"""What the parts ask of the issuer: typed requests as JSON over mTLS, each judged by who asks, recorded, then done.

| request | who | what |
|---|---|---|
| `POST /v1/pods`, `GET /v1/pods`, `DELETE /v1/pods/UID` | node | whose processes get which identity |
| `POST /v1/persons` | admin | an X.509-SVID of a person, over their own public key |
| `POST /v1/tokens` | admin | a JWT-SVID of a person |
| `POST /v1/signatures` | control | a bundle over a typed statement |
| `POST /v1/checkpoints` | registry | a signed checkpoint that follows the last |
| `GET /v1/trust-root` | anyone known | what to verify by |
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote

from cryptography.hazmat.primitives.serialization import Encoding

from wharfinger.bootstrap.notary import Notary
from wharfinger.core.clock import SECOND, Span
from wharfinger.core.digests import sha256
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import (
    Denied,
    Invalid,
    Malformed,
    NotFound,
    TooLarge,
    Unauthenticated,
    WharfingerError,
    excerpt,
)
from wharfinger.identity.bundledocument import encode_jwks
from wharfinger.identity.issuer.authority import Authority
from wharfinger.identity.issuerclient import PodRegistration, pod_json, pod_of
from wharfinger.identity.serve import Receive, Scope, Send, peer_of
from wharfinger.identity.spiffeid import Person, SpiffeId
from wharfinger.identity.x509svid import certificates_to_pem
from wharfinger.local.api.faults import failure
from wharfinger.policy.decision import Verdict
from wharfinger.policy.issuance import READ_TRUST_ROOT, judge
from wharfinger.supply.publickey import decode_base64
from wharfinger.supply.tlog.checkpoint import Checkpoint

LARGEST_BODY: Final = 48 * 1024 * 1024
"""Bytes of a request: a statement that names every file of a large model."""
LARGEST_TREE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the journal holds it: `what` in words, `facts` without secrets."""

    request: str
    what: str = ""
    facts: Mapping[str, Json] = field(default_factory=dict)


class Record(Protocol):
    """Where each request is recorded before it is done."""

    def __call__(self, who: SpiffeId | None, asked: Asked, verdict: Verdict) -> Awaitable[None]:
        """Return when it is on disk. Raises `HostUnfit`: then nothing is done."""
        ...


class Pods(Protocol):
    """Where pods are registered and their sockets made."""

    async def register(self, pod: PodRegistration) -> Path:
        """Have the pod known and its socket made; return the socket."""
        ...

    async def forget(self, uid: str) -> None:
        """Have the pod forgotten."""
        ...

    def known(self) -> list[PodRegistration]:
        """Return the pods that are known."""
        ...


_Done: TypeAlias = Callable[[], Awaitable[Json]]
_Reading: TypeAlias = tuple[Asked, _Done]
_POD: Final = re.compile(r"/v1/pods/([^/]+)", re.ASCII)


class Requests:
    """The ASGI application of the issuer's typed requests."""

    def __init__(self, authority: Authority, notary: Notary, pods: Pods, record: Record) -> None:
        self._authority = authority
        self._notary = notary
        self._pods = pods
        self._record = record
        self._routes: Mapping[tuple[str, str], tuple[str, Callable[[Any], _Reading]]] = {
            ("POST", "/v1/pods"): ("register pod", self._register),
            ("GET", "/v1/pods"): ("list pods", self._list),
            ("POST", "/v1/persons"): ("issue person", self._person),
            ("POST", "/v1/tokens"): ("issue token", self._token),
            ("POST", "/v1/signatures"): ("sign statement", self._signature),
            ("POST", "/v1/checkpoints"): ("sign checkpoint", self._checkpoint),
            ("GET", "/v1/trust-root"): (READ_TRUST_ROOT, self._trust_root),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, answer = 200, None
        try:
            answer = await self._answer(scope, receive)
        except WharfingerError as error:
            status, answer = error.status, failure(error)
        body = canonical(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Json:
        who, method, path = peer_of(scope), scope["method"], scope["path"]
        pod = _POD.fullmatch(path) if method == "DELETE" else None
        route = ("forget pod", self._forget) if pod is not None else self._routes.get((method, path))
        if route is None:
            raise NotFound(f"no request {excerpt(method)} {excerpt(path)}")
        request, read = route
        verdict = judge(str(who) if who is not None else None, request)
        if not verdict.allowed:
            await self._record(who, Asked(request), verdict)
            raise (Unauthenticated if who is None else Denied)(verdict.reason)
        asked, do = read(unquote(pod[1]) if pod is not None else await _body(receive) if method == "POST" else None)
        await self._record(who, asked, verdict)
        return await do()

    def _register(self, value: Json) -> _Reading:
        pod = pod_of(value)

        async def do() -> Json:
            return {"socket": str(await self._pods.register(pod))}

        return Asked("register pod", f"pod {pod.uid} as {pod.spiffe_id}", pod_json(pod)), do

    def _forget(self, uid: Json) -> _Reading:
        async def do() -> Json:
            await self._pods.forget(uid)
            return {}

        return Asked("forget pod", f"pod {excerpt(uid)}", {"uid": uid}), do

    def _list(self, _: Json) -> _Reading:
        async def do() -> Json:
            return {"pods": [pod_json(pod) for pod in self._pods.known()]}

        return Asked("list pods"), do

    def _person(self, value: Json) -> _Reading:
        holder = SpiffeId.person(self._authority.trust_domain, _text(value, "tenant"), _text(value, "user"))
        pem, life = _text(value, "publicKeyPem").encode(), _span(value, "ttlSeconds")

        async def do() -> Json:
            return {"certificates": certificates_to_pem([self._authority.person(holder, pem, life)]).decode("ascii")}

        facts = {"spiffeId": str(holder), "ttlSeconds": life // SECOND, "publicKey": sha256(pem)}
        return Asked("issue person", f"a certificate of {holder}", facts), do

    def _token(self, value: Json) -> _Reading:
        holder = self._holder(value)
        audience, life = _text(value, "audience"), _span(value, "ttlSeconds")

        async def do() -> Json:
            return {"token": self._authority.token(holder, (audience,), life)}

        facts = {"spiffeId": str(holder), "ttlSeconds": life // SECOND, "audience": audience}
        return Asked("issue token", f"a token of {holder} for {excerpt(audience)}", facts), do

    def _signature(self, value: Json) -> _Reading:
        signer = SpiffeId(_text(value, "signer"))
        statement = _object(value).get("statement")
        kind = statement.get("predicateType") if isinstance(statement, dict) else None
        facts = {"signer": str(signer), "predicateType": str(kind), "statement": sha256(canonical(statement))}

        async def do() -> Json:
            _, bundle = await asyncio.to_thread(self._notary.statement, statement, signer)
            return {"bundle": bundle.to_json()}

        return Asked("sign statement", f"{excerpt(kind)} by {signer}", facts), do

    def _checkpoint(self, value: Json) -> _Reading:
        size, hashes = _object(value).get("size"), value.get("proof")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST_TREE:
            raise Invalid(f"size: expected a number from 0, got {excerpt(size)}")
        if not isinstance(hashes, list) or len(hashes) > 128:
            raise Invalid(f"proof: expected a list of at most 128 hashes, got {excerpt(hashes)}")
        new = Checkpoint(_text(value, "origin"), size, decode_base64(value.get("root"), "root"))
        proof = [decode_base64(text, "proof") for text in hashes]

        async def do() -> Json:
            return {"note": (await asyncio.to_thread(self._notary.checkpoint, new, proof)).decode()}

        facts = {"origin": new.origin, "size": size, "root": str(value.get("root"))}
        return Asked("sign checkpoint", f"the checkpoint of {excerpt(new.origin)} with {size} entries", facts), do

    def _trust_root(self, _: Json) -> _Reading:
        async def do() -> Json:
            bundle = self._authority.bundles[self._authority.trust_domain]
            return {
                "trustDomain": str(bundle.trust_domain),
                "x509Authorities": [c.public_bytes(Encoding.PEM).decode() for c in bundle.x509_authorities],
                "logKey": str(self._notary.log_key),
                "logCheckpoint": self._notary.last().decode(),
                "jwtAuthorities": parse_json(encode_jwks(bundle.jwt_authorities)),
            }

        return Asked(READ_TRUST_ROOT), do

    def _holder(self, value: Json) -> SpiffeId:
        """Return the person whom a token is asked for: by name, or by SPIFFE ID."""
        if "spiffeId" in _object(value):
            holder = SpiffeId(_text(value, "spiffeId"))
        else:
            holder = SpiffeId.person(self._authority.trust_domain, _text(value, "tenant"), _text(value, "user"))
        if not isinstance(holder.kind, Person) or not holder.member_of(self._authority.trust_domain):
            raise Invalid(f"expected a person of {self._authority.trust_domain}, got {holder}")
        return holder


async def _body(receive: Receive) -> Json:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Malformed("the request ended early")
        data += message.get("body", b"")
        if len(data) > LARGEST_BODY:
            raise TooLarge(f"expected a request of at most {LARGEST_BODY} bytes")
        if not message.get("more_body"):
            return parse_json(bytes(data), limit=LARGEST_BODY)


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise Malformed(f"expected an object, got {excerpt(value)}")
    return value


def _text(value: Json, field: str) -> str:
    text = _object(value).get(field)
    if not isinstance(text, str) or not text:
        raise Invalid(f"{field}: expected a text, got {excerpt(text)}")
    return text


def _span(value: Json, field: str) -> Span:
    seconds = _object(value).get(field, 0)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds <= 10**9:
        raise Invalid(f"{field}: expected a number of seconds, got {excerpt(seconds)}")
    return seconds * SECOND
