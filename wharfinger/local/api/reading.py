"""Reading objects: get, list in pages or whole, and watch, in the form that the caller asked for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Final

import orjson

from wharfinger.core.clock import Clock
from wharfinger.core.document import Json
from wharfinger.core.errors import Gone, Malformed
from wharfinger.local.api import answer, watch
from wharfinger.local.api.answer import Answer, Stream
from wharfinger.local.api.faults import TooNew, not_found
from wharfinger.local.api.negotiation import Form
from wharfinger.local.api.request import ListOptions, Query, Target
from wharfinger.local.api.served import Resource
from wharfinger.local.api.store import Key, Store, Version
from wharfinger.local.api.table import Include, include_of, partial, table
from wharfinger.local.api.tokens import read_token, write_token
from wharfinger.local.api.watch import Hub, View

_SLICE: Final = 2000
"""Objects read at a time, so that a long list does not keep everybody else waiting."""
_SHORTEST_WATCH: Final = 1800.0
BOOKMARK_EVERY: Final = 60.0
"""Seconds between bookmarks of a watch on which nothing happens."""


class Reading:
    """Answers get (`one`), list (`many`) and watch (`changes`) from what is committed."""

    def __init__(self, store: Store, hub: Hub, clock: Clock, *, bookmark_every: float = BOOKMARK_EVERY) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._bookmark_every = bookmark_every

    def one(self, resource: Resource, target: Target, form: Form, query: Query) -> Answer:
        """Answer with one object. Raises `NotFound`."""
        body = self._store.get(Key(resource.number, target.namespace, target.name))
        if body is None:
            raise not_found(resource.kind.plural, resource.kind.group, target.name)
        if form.shape == "object" and form.syntax == "json":
            return answer.of_bytes(200, body)
        value = orjson.loads(body)
        return answer.of_value(200, self._shaped(resource, value, form, query), form)

    def shaped(self, resource: Resource, status: int, value: Json, form: Form, query: Query, told: list[str]) -> Answer:
        """Answer with an object that was just written, in the caller's form."""
        return answer.of_value(status, self._shaped(resource, value, form, query), form, told)

    def _shaped(self, resource: Resource, value: Json, form: Form, query: Query) -> Json:
        if form.shape == "table":
            metadata = {"resourceVersion": value["metadata"].get("resourceVersion", "")}
            include = include_of(query.text("includeObject"))
            return table(resource, [value], metadata, include, self._clock.now())
        return partial(value) if form.shape == "metadata" else value

    async def many(
        self, resource: Resource, target: Target, form: Form, query: Query, options: ListOptions
    ) -> Answer | Stream:
        """Answer with a list. Raises `Gone` for a page or version that is forgotten, `TooNew`, `Malformed`."""
        check_fields(resource, options)
        namespace = target.namespace if target.namespace else None
        exact = options.selection.fields.exact("metadata.namespace")
        if namespace is None and exact is not None and resource.kind.namespaced:
            namespace = exact
        at, after = self._start(options)
        one = options.selection.fields.exact("metadata.name")
        if one is not None and (namespace is not None or not resource.kind.namespaced) and not options.exact:
            return self._list_one(resource, namespace or "", one, form, query, options, at)
        if options.limit == 0 and form.shape == "object" and form.syntax == "json":
            first = self._store.page(resource.number, namespace, after, _SLICE, at)
            if len(first) < _SLICE:
                return _joined(resource, _at(at), self._chosen(resource, first, options))
            return Stream(self._streamed(resource, namespace, first, at, options))
        found, metadata = await self._page(resource, namespace, after, at, options)
        if form.shape == "object" and form.syntax == "json":
            return _joined(resource, metadata, found)
        values = [orjson.loads(version.body) for version in found]
        return self._of_values(resource, values, metadata, form, query)

    def _list_one(
        self, resource: Resource, namespace: str, name: str, form: Form, query: Query, options: ListOptions, at: int
    ) -> Answer:
        body = self._store.get(Key(resource.number, namespace, name))
        values = [orjson.loads(body)] if body else []
        view = View(resource, None, options.selection, None, _as_is)
        values = [value for value in values if view.sees(value)]
        return self._of_values(resource, values, {"resourceVersion": str(at)}, form, query)

    def _of_values(self, resource: Resource, values: list[Json], metadata: Json, form: Form, query: Query) -> Answer:
        kind = resource.kind
        if form.shape == "table":
            include = include_of(query.text("includeObject"))
            return answer.of_value(200, table(resource, values, metadata, include, self._clock.now()), form)
        if form.shape == "metadata":
            items = [partial(value) for value in values]
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
            return answer.of_value(200, {**head, "items": items}, form)
        head = {"kind": kind.list_name, "apiVersion": kind.api_version, "metadata": metadata}
        return answer.of_value(200, {**head, "items": values}, form)

    def _start(self, options: ListOptions) -> tuple[int, tuple[str, str]]:
        """Return the resourceVersion to list at and the key to go on after."""
        newest = self._store.newest()
        if options.resume:
            at, after = read_token(options.resume)
        elif options.exact and options.resource_version:
            at, after = options.resource_version, ("", "")
        else:
            at, after = newest, ("", "")
            if (options.resource_version or 0) > newest:
                raise TooNew(f"Too large resource version: {options.resource_version}, current: {newest}")
        if at > newest:
            raise TooNew(f"Too large resource version: {at}, current: {newest}")
        if at < self._store.floor:
            raise Gone(
                "The provided continue parameter is too old to display a consistent list result. You can start a new"
                " list without the continue parameter."
                if options.resume
                else f"The resourceVersion for the provided list is too old: {at} ({self._store.floor})"
            )
        return at, after

    def _chosen(self, resource: Resource, versions: list[Version], options: ListOptions) -> list[Version]:
        if options.selection.everything:
            return versions
        view = View(resource, None, options.selection, None, _as_is)
        return [version for version in versions if view.sees(orjson.loads(version.body))]

    async def _page(
        self, resource: Resource, namespace: str | None, after: tuple[str, str], at: int, options: ListOptions
    ) -> tuple[list[Version], Json]:
        """Return one page of objects and the list's metadata, with the token of the next page if there is one."""
        found: list[Version] = []
        metadata = _at(at)
        limit = options.limit or 2**31
        size = min(_SLICE, limit + 1) if options.selection.everything else _SLICE
        while True:
            part = self._store.page(resource.number, namespace, after, size, at)
            found += self._chosen(resource, part, options)
            if len(found) > limit or len(part) < size:
                break
            after = (part[-1].namespace, part[-1].name)
            await asyncio.sleep(0)
        if len(found) > limit:
            found = found[:limit]
            metadata["continue"] = write_token(at, (found[-1].namespace, found[-1].name))
            if options.selection.everything:
                left = self._store.count(resource.number, namespace) - limit
                if not options.resume and left > 0:
                    metadata["remainingItemCount"] = left
        return found, metadata

    async def _streamed(
        self, resource: Resource, namespace: str | None, part: list[Version], at: int, options: ListOptions
    ) -> AsyncIterator[bytes]:
        """Yield a long list in parts, all of it as it was at `at`."""
        yield _head(resource, _at(at))
        comma = b""
        while True:
            bodies = [version.body for version in self._chosen(resource, part, options)]
            if bodies:
                yield comma + b",".join(bodies)
                comma = b","
            if len(part) < _SLICE:
                break
            await asyncio.sleep(0)
            part = self._store.page(resource.number, namespace, (part[-1].namespace, part[-1].name), _SLICE, at)
        yield b"]}\n"

    def changes(self, resource: Resource, target: Target, form: Form, query: Query, options: ListOptions) -> Stream:
        """Answer with a stream of changes. Raises `Malformed` for a field that cannot be selected by."""
        check_fields(resource, options)
        include = include_of(query.text("includeObject"))
        namespace = target.namespace if target.namespace else None
        render = self._rendering(resource, form, include)
        view = View(resource, namespace, options.selection, (form, include), render)
        timeout = float(options.timeout) if options.timeout else _SHORTEST_WATCH * (1 + random.random())
        lines = watch.stream(
            self._store, self._hub, view, options, timeout=timeout, bookmark_every=self._bookmark_every
        )
        return Stream(lines)

    def _rendering(self, resource: Resource, form: Form, include: Include) -> watch.Render:
        if form.shape == "object":
            return _as_is

        def render(body: bytes, value: Json | None) -> bytes:
            value = orjson.loads(body) if value is None else value
            if form.shape == "metadata":
                return orjson.dumps(partial(value))
            metadata = {"resourceVersion": value["metadata"]["resourceVersion"]}
            return orjson.dumps(table(resource, [value], metadata, include, self._clock.now()))

        return render


def check_fields(resource: Resource, options: ListOptions) -> None:
    """Raise `Malformed` when a field selector names a field that objects of the kind cannot be selected by."""
    for requirement in options.selection.fields.requirements:
        if requirement.field not in resource.selectable:
            raise Malformed(f"field label not supported: {requirement.field}")


def _as_is(body: bytes, _value: Json | None) -> bytes:
    return body


def _at(version: int) -> dict[str, Json]:
    """Return the metadata of a list at a resourceVersion."""
    return {"resourceVersion": str(version)}


def _head(resource: Resource, metadata: Json) -> bytes:
    kind = resource.kind
    return b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[' % (
        kind.list_name.encode(),
        kind.api_version.encode(),
        orjson.dumps(metadata),
    )


def _joined(resource: Resource, metadata: Json, versions: list[Version]) -> Answer:
    """Answer with a list whose items are the bytes as they are stored."""
    bodies = b",".join([version.body for version in versions])
    return answer.of_bytes(200, b"%s%s]}\n" % (_head(resource, metadata), bodies))
