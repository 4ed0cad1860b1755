"""A small Kubernetes API client: the verbs that Wharfinger uses, on plain dictionaries.

Synchronous, on `http.client`, one kept-alive connection per thread; cheap enough to import for the command line.
`Status` answers become the error family, by their reason. A request that a broken kept-alive connection swallowed is
sent again only when that is safe: reads always, writes when the connection broke before the request was sent whole.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from wharfinger.cluster.endpoint import Endpoint
from wharfinger.core.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    FieldProblem,
    Gone,
    Invalid,
    Malformed,
    NotFound,
    Throttled,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WharfingerError,
    excerpt,
)

MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_JSON: Final = "application/json"
_ERRORS: Final[Mapping[str, type[WharfingerError]]] = {
    error.code: error
    for error in (
        AlreadyExists,
        Conflict,
        Denied,
        Gone,
        Invalid,
        Malformed,
        NotFound,
        TooLarge,
        Unauthenticated,
        Unavailable,
    )
}  # fmt: skip
_BY_STATUS: Final[Mapping[int, type[WharfingerError]]] = {
    400: Malformed, 401: Unauthenticated, 403: Denied, 404: NotFound, 409: Conflict, 410: Gone, 413: TooLarge,
    422: Invalid,
}  # fmt: skip
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the REST paths name it; `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of the collection, of one object, or of its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


class Client:
    """Speaks to one API server; threads share it, each over its own connection."""

    def __init__(self, endpoint: Endpoint, *, timeout: float = 30.0, user_agent: str = "wharf") -> None:
        self.endpoint = endpoint
        self._timeout = timeout
        self._user_agent = user_agent
        self._local = threading.local()

    def get(
        self, resource: Resource, namespace: str, name: str, *, subresource: str = "", accept: str = _JSON
    ) -> Object:
        """Return an object. Raises `NotFound` and the rest of the family."""
        return self._object("GET", resource.path(namespace, name, subresource), accept=accept)

    def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        resource_version: str = "",
        accept: str = _JSON,
    ) -> Object:
        """Return the list object, all pages of it; `limit` is the size of a page."""
        query = {
            "labelSelector": labels, "fieldSelector": fields, "limit": limit or "", "resourceVersion": resource_version,
        }  # fmt: skip
        whole = self._object("GET", resource.path(namespace), query=query, accept=accept)
        rows = "rows" if whole.get("kind") == "Table" else "items"
        token = (whole.get("metadata") or {}).get("continue")
        while token:
            page = self._object("GET", resource.path(namespace), query={**query, "continue": token}, accept=accept)
            whole[rows] = (whole.get(rows) or []) + (page.get(rows) or [])
            token = page["metadata"].get("continue")
            whole["metadata"] = page["metadata"]
        if whole.get(rows) is None:
            whole[rows] = []
        return whole

    def create(
        self, resource: Resource, body: Mapping[str, Any], *, dry_run: bool = False, manager: str = ""
    ) -> Object:
        """Create an object in its `metadata.namespace`. Raises `AlreadyExists`, `Invalid`, ..."""
        namespace = body.get("metadata", {}).get("namespace", "")
        query = {"dryRun": "All" if dry_run else "", "fieldManager": manager}
        return self._object("POST", resource.path(namespace), body=body, query=query)

    def create_subresource(
        self, resource: Resource, namespace: str, name: str, subresource: str, body: Mapping[str, Any], manager: str
    ) -> Object:
        """Create what a subresource of an object takes, such as the binding of a pod."""
        path = resource.path(namespace, name, subresource)
        return self._object("POST", path, body=body, query={"fieldManager": manager})

    def replace(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str = "", manager: str = ""
    ) -> Object:
        """Replace an object, or its subresource. Raises `Conflict` when its resourceVersion is old."""
        meta = body["metadata"]
        path = resource.path(meta.get("namespace", ""), meta["name"], subresource)
        return self._object("PUT", path, body=body, query={"fieldManager": manager})

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: object,
        *,
        kind: str = MERGE,
        subresource: str = "",
        manager: str = "",
        force: bool = False,
        dry_run: bool = False,
        strict: bool = False,
    ) -> Object:
        """Patch an object; `kind` is the patch's media type (server-side apply: `APPLY`, with `manager`).

        `strict` has the server refuse fields that it does not know.
        """
        query = {
            "fieldManager": manager, "force": "true" if force else "", "dryRun": "All" if dry_run else "",
            "fieldValidation": "Strict" if strict else "",
        }  # fmt: skip
        path = resource.path(namespace, name, subresource)
        return self._object("PATCH", path, body=patch, query=query, content_type=kind)

    def apply(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        manager: str,
        force: bool = False,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply `body` as `manager`.

        Raises `Conflict` naming the fields when others own them, `Malformed` for a field that the kind does not have.
        """
        meta = body["metadata"]
        return self.patch(
            resource, meta.get("namespace", ""), meta["name"], body,
            kind=APPLY, manager=manager, force=force, dry_run=dry_run, strict=True,
        )  # fmt: skip

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        propagation: str = "",
        grace: int | None = None,
    ) -> Object:
        """Delete an object, of that `uid` alone when one is given. Raises `NotFound`, `Conflict`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        return self._object("DELETE", resource.path(namespace, name), body=options)

    def raw(self, method: str, path: str, *, body: object = None, accept: str = _JSON) -> tuple[int, bytes]:
        """Send any request to the API server; return status and body. Raises `Unavailable`."""
        status, data, _ = self._send(method, path, _encode(body), _JSON, accept)
        return status, data

    def log(
        self, resource: Resource, namespace: str, name: str, *, query: Mapping[str, object] | None = None
    ) -> Iterator[bytes]:
        """Yield the chunks of a pod's log as they come."""
        connection, answer = self._stream(_query(resource.path(namespace, name, "log"), query or {}), timeout=None)
        try:
            while chunk := answer.read1(65536):
                yield chunk
        finally:
            connection.close()

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        labels: str = "",
        fields: str = "",
        timeout_seconds: int = 300,
        on_open: Any = None,
    ) -> Iterator[Event]:
        """Yield changes after `resource_version`, bookmarks included, until the server ends the watch.

        `on_open` gets the connection's socket, so that another thread can end the watch. Raises `Gone` when the history
        asked for is compacted, `Throttled`, `Unavailable` when the stream breaks.
        """
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version,
            "labelSelector": labels, "fieldSelector": fields, "timeoutSeconds": timeout_seconds,
        }  # fmt: skip
        connection, answer = self._stream(_query(resource.path(namespace), query), timeout=timeout_seconds + 30.0)
        try:
            if on_open is not None:
                on_open(connection.sock)
            while line := answer.readline():
                event = _decode(line)
                if event.get("type") == "ERROR":
                    raise error_of(event.get("object") or {}, 500)
                yield Event(event["type"], event["object"])
        except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
            raise Unavailable(f"watch of {resource.plural} broke: {type(error).__name__}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _object(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, object] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Object:
        status, data, headers = self._send(method, _query(path, query or {}), _encode(body), content_type, accept)
        if status >= 400:
            raise _refusal(status, data, headers)
        return _decode(data)

    def _send(
        self, method: str, path: str, body: bytes | None, content_type: str, accept: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        headers = self._headers(accept)
        if body is not None:
            headers["Content-Type"] = content_type
        for attempt in (1, 2):
            connection = getattr(self._local, "connection", None)
            if connection is not None and _has_hung_up(connection):
                self.close()
                connection = None
            fresh = connection is None
            if connection is None:
                connection = self._local.connection = self._connect(self._timeout)
            is_sent = False
            try:
                connection.request(method, path, body=body, headers=headers)
                is_sent = True
                answer = connection.getresponse()
                return answer.status, answer.read(), answer.headers
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or attempt == 2 or not (method == "GET" or not is_sent):
                    raise Unavailable(
                        f"API server {self.endpoint.host}:{self.endpoint.port}: {error or type(error).__name__}"
                    ) from error
        raise AssertionError("unreachable")

    def _stream(self, path: str, timeout: float | None) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connect(timeout)
        try:
            connection.request("GET", path, headers=self._headers(_JSON))
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _refusal(answer.status, answer.read(), answer.headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(f"API server {self.endpoint.host}:{self.endpoint.port}: {error}") from error
        except WharfingerError:
            connection.close()
            raise
        return connection, answer

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        endpoint = self.endpoint
        connection: http.client.HTTPConnection
        if endpoint.context is None:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=timeout, context=endpoint.context
            )
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise Unavailable(
                f"API server {endpoint.host}:{endpoint.port}: {error}", hint="wharf status shows what runs"
            ) from error
        return connection

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": self._user_agent}
        if self.endpoint.token is not None:
            headers["Authorization"] = f"Bearer {self.endpoint.token()}"
        return headers


def error_of(status: Mapping[str, Any], code: int, retry_after: int = 1) -> WharfingerError:
    """Return the error that a `Status` object (meta/v1) stands for."""
    code = int(status.get("code") or code)
    message = str(status.get("message") or f"HTTP status {code}")
    details = status.get("details") or {}
    if code == 429:
        return Throttled(message, retry_after=int(details.get("retryAfterSeconds") or retry_after))
    causes = [
        FieldProblem(str(c.get("field", "")), str(c.get("message", "")), str(c.get("reason", "FieldValueInvalid")))
        for c in details.get("causes") or ()
    ]
    kind = _ERRORS.get(str(status.get("reason"))) or _BY_STATUS.get(code) or Unavailable
    return kind(message, fields=causes)


def _refusal(status: int, data: bytes, headers: http.client.HTTPMessage) -> WharfingerError:
    after = headers.get("Retry-After", "1")
    retry = int(after) if after.isdigit() else 1
    try:
        told = json.loads(data)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("kind") != "Status":
        told = {"message": f"HTTP status {status}: {excerpt(data[:200].decode('utf-8', 'replace'))}"}
    return error_of(told, status, retry)


def _has_hung_up(connection: http.client.HTTPConnection) -> bool:
    """Say whether a kept connection has something to read before anything was asked: its end, as a rule."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _encode(body: object) -> bytes | None:
    return None if body is None else json.dumps(body, separators=(",", ":")).encode()


def _decode(data: bytes) -> Object:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Unavailable(
            f"expected JSON from the API server, got {excerpt(data[:80].decode('utf-8', 'replace'))}"
        ) from error
    if not isinstance(value, dict):
        raise Unavailable("expected a JSON object from the API server")
    return value


def _query(path: str, query: Mapping[str, object]) -> str:
    told = {name: str(value) for name, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(told)}" if told else path
