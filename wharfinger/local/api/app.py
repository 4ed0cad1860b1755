"""The API server as an ASGI application: who asks, may they, what for, and the answer.

The path of a request is short on purpose: no routing library, one look at the path, one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import orjson

from wharfinger.core.clock import Clock
from wharfinger.core.document import Json
from wharfinger.core.errors import Denied, Malformed, NotFound, Throttled, TooLarge, WharfingerError, excerpt
from wharfinger.identity.serve import Receive, Scope, Send
from wharfinger.local.api import answer, body, discovery, negotiation, request, reviews
from wharfinger.local.api.answer import Answer, Stream
from wharfinger.local.api.audit import Record, shown
from wharfinger.local.api.commit import Committer
from wharfinger.local.api.faults import DEFECTS, Defect, MethodNotAllowed, NoPage, failure, not_found
from wharfinger.local.api.metrics import Metrics
from wharfinger.local.api.openapi import Documents
from wharfinger.local.api.reading import Reading
from wharfinger.local.api.request import Query, Target
from wharfinger.local.api.reviews import Authorize, Caller
from wharfinger.local.api.served import Catalogue, Resource
from wharfinger.local.api.store import Key, Store
from wharfinger.local.api.writing import Writing
from wharfinger.policy.authorization import WRITE, Attempt

_log = logging.getLogger(__name__)

KUBERNETES_MINOR: Final = "37"
"""The minor version of Kubernetes whose API this is."""

Authenticate = Callable[[Scope, str], Caller]
"""The port of authentication: the ASGI scope and the Authorization header; raises `Unauthenticated`."""


class PodLogs(Protocol):
    """The port to where pods' logs are: the node."""

    async def open(self, pod: Json, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Return the log of `pod` in parts, as the query parameters of `/log` ask. Raises `WharfingerError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, read: everything but its body."""

    method: str
    path: str
    query: Query
    headers: Mapping[bytes, str]
    caller: Caller

    def header(self, name: bytes) -> str:
        return self.headers.get(name, "")


class Api:
    """The application. `__call__` is ASGI."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        store: Store,
        committer: Committer,
        reading: Reading,
        writing: Writing,
        authenticate: Authenticate,
        authorize: Authorize,
        clock: Clock,
        version: str,
        metrics: Metrics,
        logs: PodLogs | None = None,
        rule_changes: Callable[[], int] = lambda: 0,
    ) -> None:
        """Answer from these parts; `rule_changes` grows when what was allowed may be so no more."""
        self._catalogue = catalogue
        self._store = store
        self._committer = committer
        self._reading = reading
        self._writing = writing
        self._authenticate = authenticate
        self._authorize = authorize
        self._clock = clock
        self._logs = logs
        self._metrics = metrics
        self._rule_changes = rule_changes
        self._documents = Documents(catalogue)
        self._version = orjson.dumps(
            {
                "major": "1",
                "minor": KUBERNETES_MINOR,
                "gitVersion": f"v1.{KUBERNETES_MINOR}.0+wharfinger.{version}",
                "gitCommit": "",
                "gitTreeState": "",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "",
                "compiler": "cpython",
                "platform": "linux/amd64",
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        target: Target | None = None
        try:
            path = scope["raw_path"].decode("ascii")
            caller = self._authenticate(scope, headers.get(b"authorization", ""))
            if b"impersonate-user" in headers:
                raise Denied(
                    f"users {excerpt(headers[b'impersonate-user'])} is forbidden: User {excerpt(caller.shown)} cannot"
                    ' impersonate resource "users": nobody acts as another here'
                )
            asked = _Asked(scope["method"], path, request.query(scope["query_string"]), headers, caller)
            target = request.target(path)
            if target is None:
                given: Answer | Stream = self._elsewhere(asked)
            else:
                given = await self._resource(asked, target, receive)
        except WharfingerError as error:
            given = self._failed(error, target)
        except DEFECTS as defect:
            _log.exception("a request failed by a defect of ours", extra={"fields": {"path": scope["path"]}})
            given = self._failed(Defect(f"the server failed: {type(defect).__name__}"), target)
        resource = target.resource if target is not None and target in self._catalogue else ""
        self._metrics.answered(scope["method"], resource, given.status)
        if isinstance(given, Stream):
            await _stream(given, receive, send)
        else:
            await _whole(given, send, bodiless=scope["method"] == "HEAD")

    def _failed(
        self, error: WharfingerError, target: Target | None, named: str = "", warnings: Sequence[str] = ()
    ) -> Answer:
        if isinstance(error, NoPage):
            return answer.of_text(404, b"404 page not found\n")
        at = target or Target("", "", "")
        status = failure(error, group=at.group, plural=at.plural, name=at.name or named)
        made = answer.of_value(error.status, status, warnings=warnings)
        if isinstance(error, Throttled):
            return Answer(made.status, made.body, (*made.headers, (b"retry-after", b"%d" % error.retry_after)))
        return made

    # What is not a resource

    def _elsewhere(self, asked: _Asked) -> Answer:
        if asked.method not in {"GET", "HEAD"}:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        parts = asked.path.strip("/").split("/")
        match parts:
            case ["api"] | ["apis"] if negotiation.wants_aggregated(asked.header(b"accept")):
                found = discovery.aggregated(self._catalogue, core=parts == ["api"])
                media = b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                return Answer(200, orjson.dumps(found), ((b"content-type", media), (b"vary", b"Accept")))
            case ["api"]:
                return answer.of_value(200, discovery.api_versions(asked.header(b"host")))
            case ["apis"]:
                return answer.of_value(200, discovery.group_list(self._catalogue))
            case ["api", version]:
                return self._found(discovery.resource_list(self._catalogue, "", version))
            case ["apis", group]:
                versions = discovery.group_versions(self._catalogue).get(group) if group else None
                entry = discovery.group_of(group, versions) if versions else None
                return self._found(entry and {"kind": "APIGroup", "apiVersion": "v1", **entry})
            case ["apis", group, version]:
                return self._found(discovery.resource_list(self._catalogue, group, version))
            case ["version"]:
                return answer.of_bytes(200, self._version)
            case ["healthz"]:
                return answer.of_text(200, b"ok")
            case ["openapi", "v3"]:
                return answer.of_bytes(200, self._documents.index)
            case ["openapi", "v3", *rest]:
                document = self._documents.document("/".join(rest))
                return answer.of_bytes(200, document) if document is not None else self._found(None)
            case ["audit", "v1", "records"]:
                return self._audit(asked)
            case _:
                return self._found(None)

    def _found(self, value: Json | None) -> Answer:
        if value is None:
            raise NoPage("404 page not found")
        return answer.of_value(200, value)

    def _audit(self, asked: _Asked) -> Answer:
        """Answer with the audit trail after the record `after`, a record a line."""
        verdict = self._authorize(asked.caller.name, Attempt("list", "", "auditrecords"))
        if not verdict.allowed:
            raise Denied(f"the audit trail is forbidden: {verdict.reason}")
        limit = min(asked.query.number("limit") or 1000, 10_000)
        records = self._store.audit(asked.query.number("after") or 0, limit)
        lines = b"".join(orjson.dumps(shown(number, record)) + b"\n" for number, record in records)
        return Answer(200, lines, ((b"content-type", b"application/jsonl"),))

    # Resources

    async def _resource(self, asked: _Asked, target: Target, receive: Receive) -> Answer | Stream:
        review = discovery.REVIEWS.get((target.group, target.version), {}).get(target.plural)
        if review is not None:
            return await self._review(asked, target, receive)
        resource = self._catalogue.at(target.group, target.version, target.plural)
        self._check_place(resource, target)
        verb = request.verb(asked.method, target, asked.query)
        if target.subresource and target.subresource not in resource.subresources:
            if target.subresource in {"status", "scale"} and not resource.builtin:
                raise not_found(target.plural, target.group, target.name)
            raise NotFound("the server could not find the requested resource")
        if target.subresource and verb not in discovery.VERBS_OF[target.subresource]:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        await self._allow(asked, verb, target, resource)
        form = negotiation.accepted(asked.header(b"accept")) if verb != "watch" else _watch_form(asked)
        match verb:
            case "get":
                return await self._get(asked, resource, target, form)
            case "list" | "watch":
                options = request.list_options(asked.query, watch=verb == "watch")
                if verb == "watch":
                    changes = self._reading.changes(resource, target, form, asked.query, options)
                    return self._while_allowed(asked, verb, target, changes)
                return await self._reading.many(resource, target, form, asked.query, options)
        return await self._write(asked, verb, resource, target, form, receive)

    def _while_allowed(self, asked: _Asked, verb: str, target: Target, stream: Stream) -> Stream:
        """Return the stream, which ends before its next part when the caller may see it no more."""

        async def parts() -> AsyncIterator[bytes]:
            seen = self._rule_changes()
            async with contextlib.aclosing(stream.parts) as inner:  # type: ignore[type-var]
                async for part in inner:
                    if self._rule_changes() != seen:
                        seen = self._rule_changes()
                        if not self._authorize(asked.caller.name, _attempt(verb, target)).allowed:
                            return
                    yield part

        return replace(stream, parts=parts())

    def _check_place(self, resource: Resource, target: Target) -> None:
        """Refuse paths that name a namespace for a cluster-wide kind, or none where one is needed."""
        if target.namespace and not resource.kind.namespaced:
            raise NotFound("the server could not find the requested resource")
        if resource.kind.namespaced and target.name and not target.namespace:
            raise NotFound("the server could not find the requested resource")

    async def _get(self, asked: _Asked, resource: Resource, target: Target, form: negotiation.Form) -> Answer | Stream:
        if asked.query.flag("watch"):
            options = request.narrowed(request.list_options(asked.query, watch=True), target.name)
            changes = self._reading.changes(resource, target, form, asked.query, options)
            return self._while_allowed(asked, "get", target, changes)
        if target.subresource == "log":
            return self._while_allowed(asked, "get", target, await self._log_of(asked, resource, target))
        if target.subresource == "scale":
            stored = self._store.get(Key(resource.number, target.namespace, target.name))
            return answer.of_value(200, self._writing.scale_of(stored, target, resource), form)
        return self._reading.one(resource, target, form, asked.query)

    async def _write(
        self, asked: _Asked, verb: str, resource: Resource, target: Target, form: negotiation.Form, receive: Receive
    ) -> Answer:
        content_type = asked.header(b"content-type")
        apply = verb == "patch" and negotiation.patch_type(content_type) == "apply"
        query = asked.query if verb not in {"delete", "deletecollection"} else Query({})
        agent = asked.header(b"user-agent")
        call = self._writing.call(asked.caller, verb, target, resource, query, agent, apply=apply)
        if resource.kind.namespaced and not target.namespace:
            if verb == "create":
                raise Malformed("an object of a namespaced kind is created in a namespace: expected one in the path")
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        data = await _body(receive)
        step = {
            "create": self._writing.create,
            "update": self._writing.update,
            "patch": self._writing.patch,
            "delete": self._writing.delete,
            "deletecollection": self._writing.delete_many,
        }[verb]
        try:
            return await step(call, data, content_type, form, asked.query)
        except Denied as error:
            await self._record_refusal(asked, verb, target, resource, call.named, error.message)
            return self._failed(error, target, call.named, call.warnings)
        except WharfingerError as error:
            return self._failed(error, target, call.named, call.warnings)

    async def _allow(self, asked: _Asked, verb: str, target: Target, resource: Resource) -> None:
        """Raise `Denied` unless the caller may; an attempt to write is recorded before it is answered."""
        attempt = _attempt(verb, target)
        verdict = self._authorize(asked.caller.name, attempt)
        if verdict.allowed:
            return
        if verb in WRITE:
            await self._record_refusal(asked, verb, target, resource, "", verdict.reason)
        where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
        named = f' "{target.name}"' if target.name else ""
        raise Denied(
            f'{target.resource}{named} is forbidden: User "{asked.caller.shown}" cannot {verb} resource '
            f'"{attempt.target}" in API group "{target.group}"{where}: {verdict.reason}'
        )

    async def _record_refusal(
        self, asked: _Asked, verb: str, target: Target, resource: Resource, named: str, reason: str
    ) -> None:
        """Record an attempt to write that was refused: it stands in the audit trail before it is answered."""
        record = Record(
            at=self._clock.now(),
            who=asked.caller.shown,
            verb=verb,
            resource=resource.kind.resource,
            subresource=target.subresource,
            namespace=target.namespace,
            name=target.name or named,
            uid="",
            before="",
            after="",
            code=Denied.status,
            reason=reason,
        )
        await self._committer.run(lambda transaction: transaction.record(record))

    async def _review(self, asked: _Asked, target: Target, receive: Receive) -> Answer:
        if asked.method != "POST" or target.name:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        value, _ = body.read(await _body(receive), negotiation.body_syntax(asked.header(b"content-type")))
        match target.plural:
            case "selfsubjectreviews":
                made = reviews.who_am_i(value, asked.caller, self._clock.now())
            case "selfsubjectaccessreviews":
                made = reviews.may_i(value, asked.caller, self._authorize)
            case _:
                made = reviews.what_may_i(value, asked.caller, self._authorize, self._catalogue)
        return answer.of_value(201, made, negotiation.accepted(asked.header(b"accept")))

    async def _log_of(self, asked: _Asked, resource: Resource, target: Target) -> Stream:
        stored = self._store.get(Key(resource.number, target.namespace, target.name))
        if stored is None:
            raise NotFound(f'pods "{target.name}" not found')
        if self._logs is None:
            raise NotFound("the server could not find the requested resource")
        pod = orjson.loads(stored)
        options = {name: values[0] for name, values in asked.query.values.items()}
        _check_container(pod, options.get("container", ""))
        return Stream(await self._logs.open(pod, options), ((b"content-type", b"text/plain"),))


def _attempt(verb: str, target: Target) -> Attempt:
    return Attempt(verb, target.group, target.plural, target.subresource, target.namespace, target.name)


def _check_container(pod: Json, wanted: str) -> None:
    spec = pod.get("spec") or {}
    known = [each["name"] for name in ("initContainers", "containers") for each in spec.get(name) or []]
    name = pod["metadata"]["name"]
    if wanted and wanted not in known:
        raise Malformed(f"container {excerpt(wanted)} is not valid for pod {name}")
    if not wanted and len(spec.get("containers") or []) > 1:
        raise Malformed(f"a container name must be specified for pod {name}, choose one of: {known}")


def _watch_form(asked: _Asked) -> negotiation.Form:
    """Return the form of a watch: `application/json;stream=watch` is JSON, and YAML is not streamed."""
    form = negotiation.accepted(asked.header(b"accept"))
    return negotiation.Form(form.shape, "json")


async def _body(receive: Receive) -> bytes:
    """Return the whole body. Raises `TooLarge` over the limit, without reading on."""
    message = await receive()
    data: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return data
    parts, size = [data], len(data)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > body.LIMIT:
            raise TooLarge(f"expected a body of at most {body.LIMIT} bytes, got more")
    return b"".join(parts)


async def _whole(given: Answer, send: Send, *, bodiless: bool) -> None:
    headers = [*given.headers, (b"content-length", b"%d" % len(given.body))]
    await send({"type": "http.response.start", "status": given.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if bodiless else given.body})


async def _stream(given: Stream, receive: Receive, send: Send) -> None:
    """Send the parts as they come, until they end or the caller has gone."""
    await send({"type": "http.response.start", "status": given.status, "headers": list(given.headers)})
    sending = asyncio.create_task(_parts(given.parts, send))
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, gone):
            task.cancel()
        for task in (sending, gone):
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if not gone.done() or gone.cancelled():
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _parts(parts: AsyncIterator[bytes], send: Send) -> None:
    try:
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    finally:
        close: Callable[[], Awaitable[None]] | None = getattr(parts, "aclose", None)
        if close is not None:
            await close()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
