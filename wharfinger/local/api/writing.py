"""Writing: from a request's body to a mutation, and from its outcome to an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import orjson

from wharfinger.core.clock import Clock
from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.local.api import answer, body, negotiation, scale
from wharfinger.local.api.answer import Answer
from wharfinger.local.api.commit import Committer, Transaction
from wharfinger.local.api.faults import not_found, success
from wharfinger.local.api.negotiation import Form
from wharfinger.local.api.objects import Call, Objects, Written
from wharfinger.local.api.patching import patched
from wharfinger.local.api.reading import Reading, check_fields
from wharfinger.local.api.request import (
    DeleteOptions,
    Query,
    Target,
    delete_options,
    list_options,
    write_options,
)
from wharfinger.local.api.reviews import Caller
from wharfinger.local.api.served import Resource
from wharfinger.local.api.store import Key
from wharfinger.local.api.watch import View
from wharfinger.local.merge.managed import manager_name


class Writing:
    """Answers create, update, patch, delete and deletecollection."""

    def __init__(self, objects: Objects, committer: Committer, reading: Reading, clock: Clock) -> None:
        self._objects = objects
        self._committer = committer
        self._reading = reading
        self._clock = clock

    def call(
        self,
        caller: Caller,
        verb: str,
        target: Target,
        resource: Resource,
        query: Query,
        agent: str,
        *,
        apply: bool = False,
    ) -> Call:
        """Return the write that a request asks for. Raises `Invalid` for options that make no sense."""
        options = write_options(query, _OPTIONS.get(verb, "PatchOptions"), apply=apply)
        manager = manager_name(options.manager, agent)
        return Call(caller.shown, verb, target, resource, options, manager, self._clock.now())

    async def create(self, call: Call, data: bytes, content_type: str, form: Form, query: Query) -> Answer:
        """Create the object in the body. Raises what `Objects.create` raises."""
        value = self._value(call, data, content_type)
        if call.target.subresource == "binding":
            written = await self._committer.run(lambda tx: self._objects.bind(tx, call, value))
            return answer.of_value(201, success(group="", plural="pods", name=call.target.name, uid=_uid(written)))
        written = await self._committer.run(lambda tx: self._objects.create(tx, call, value))
        return self._answered(call, written, form, query)

    async def update(self, call: Call, data: bytes, content_type: str, form: Form, query: Query) -> Answer:
        """Replace the object by the one in the body. Raises what `Objects.update` raises."""
        value = self._value(call, data, content_type)
        if call.target.subresource == "scale":
            return await self._scaled(call, lambda _old: value, form)
        if call.target.subresource == "finalize":
            written = await self._committer.run(lambda tx: self._objects.finalize(tx, call, value))
        else:
            written = await self._committer.run(lambda tx: self._objects.update(tx, call, value))
        return self._answered(call, written, form, query)

    async def patch(self, call: Call, data: bytes, content_type: str, form: Form, query: Query) -> Answer:
        """Patch the object, or apply the body to it. Raises what `Objects.patch` and `apply` raise."""
        kind = negotiation.patch_type(content_type)
        value, repeated = body.read(data, "yaml" if kind == "apply" and not data.lstrip().startswith(b"{") else "json")
        call.repeated = repeated
        if call.target.subresource == "scale":
            if kind == "apply":
                return await self._scaled(call, None, form, value)
            return await self._scaled(call, lambda old: patched(scale.RESOURCE, kind, old, value), form)
        if kind == "apply":
            written = await self._committer.run(lambda tx: self._objects.apply(tx, call, value))
        else:
            resource = call.resource

            def make(old: Json) -> Json:
                # A copy: what follows changes in place what a patch may share with the stored object.
                return orjson.loads(orjson.dumps(patched(resource, kind, old, value)))

            written = await self._committer.run(lambda tx: self._objects.patch(tx, call, make))
        return self._answered(call, written, form, query)

    async def delete(self, call: Call, data: bytes, content_type: str, form: Form, query: Query) -> Answer:
        """Delete the object, as the options in the body or the query say. Raises what `Objects.delete` raises."""
        options = self._delete_options(data, content_type, query)
        written = await self._committer.run(lambda tx: self._objects.delete(tx, call, options))
        kind = call.resource.kind
        if written.gone and form.shape == "object" and kind.resource not in _ANSWERED_WITH_THE_OBJECT:
            uid = _uid(written)
            return answer.of_value(
                200, success(group=kind.group, plural=kind.plural, name=call.target.name, uid=uid), form
            )
        return self._reading.shaped(call.resource, 200, written.held.value, form, query, call.warnings)

    async def delete_many(self, call: Call, data: bytes, content_type: str, form: Form, query: Query) -> Answer:
        """Delete every object that is selected, some at a time; answer with what they were. Raises as `delete`."""
        selected = list_options(Query({k: v for k, v in query.values.items() if k not in _DELETE_ONLY}), watch=False)
        options = replace(self._delete_options(data, content_type, query), uid=None, resource_version=None)
        resource, namespace = call.resource, call.target.namespace or None
        check_fields(resource, selected)
        view = View(resource, None, selected.selection, None, lambda stored, _: stored)

        def step(keys: list[Key], transaction: Transaction) -> tuple[list[Json], int]:
            made = []
            for key in keys:
                held = transaction.get(key)
                if held is not None and (selected.selection.everything or view.sees(held.value)):
                    transaction.dry = options.dry_run
                    made.append(self._objects.delete_held(transaction, call, held, options).held.value)
            return made, transaction.rv

        keys = await self._committer.run(lambda transaction: transaction.keys(resource.number, namespace))
        gone: list[Json] = []
        version = 0
        for start in range(0, max(len(keys), 1), _AT_ONCE):
            some, version = await self._committer.run(partial(step, keys[start : start + _AT_ONCE]))
            gone += some
        kind = resource.kind
        head = {"kind": kind.list_name, "apiVersion": kind.api_version, "metadata": {"resourceVersion": str(version)}}
        return answer.of_value(200, {**head, "items": gone}, form)

    async def _scaled(
        self, call: Call, make: Callable[[Json], Json] | None, form: Form, config: Json | None = None
    ) -> Answer:
        """Write the replicas through the scale subresource: `make` the new Scale of the old, or apply `config`."""

        def step(transaction: Transaction) -> Json:
            return self._objects.scale(transaction, call, make, config)

        return answer.of_value(200, await self._committer.run(step), form, call.warnings)

    def scale_of(self, stored: bytes | None, target: Target, resource: Resource) -> Json:
        """Return the Scale of a stored object. Raises `NotFound`."""
        if stored is None:
            raise not_found(resource.kind.plural, resource.kind.group, target.name)
        return scale.of(resource.kind, orjson.loads(stored))

    def _value(self, call: Call, data: bytes, content_type: str) -> Json:
        value, call.repeated = body.read(data, negotiation.body_syntax(content_type))
        if not isinstance(value, dict):
            raise Malformed(f"expected an object, got {excerpt(value)}")
        if not isinstance(value.setdefault("metadata", {}), dict):
            raise Malformed(f"expected metadata to be an object, got {excerpt(value['metadata'])}")
        return value

    def _delete_options(self, data: bytes, content_type: str, query: Query) -> DeleteOptions:
        if not data.strip():
            return delete_options(query, None)
        value, _ = body.read(data, negotiation.body_syntax(content_type))
        if not isinstance(value, dict):
            raise Malformed(f"expected a DeleteOptions object, got {excerpt(value)}")
        return delete_options(query, value)

    def _answered(self, call: Call, written: Written, form: Form, query: Query) -> Answer:
        status = 201 if written.created else 200
        if form.shape == "object" and form.syntax == "json":
            return answer.of_bytes(status, written.held.body, call.warnings)
        return self._reading.shaped(call.resource, status, written.held.value, form, query, call.warnings)


_AT_ONCE: Final = 100
"""Objects of a collection that are deleted in one mutation, so that others need not wait for all."""
_OPTIONS: Final = {"create": "CreateOptions", "update": "UpdateOptions"}
_ANSWERED_WITH_THE_OBJECT: Final = frozenset(
    {
        "deviceclasses.resource.k8s.io", "pods", "resourceclaims.resource.k8s.io",
        "resourceclaimtemplates.resource.k8s.io", "resourceslices.resource.k8s.io", "serviceaccounts", "services",
    }
)  # fmt: skip
"""Kinds whose deletion is answered with what was deleted."""
_DELETE_ONLY: Final = frozenset({"dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"})


def _uid(written: Written) -> str:
    return str(written.held.value["metadata"]["uid"])
