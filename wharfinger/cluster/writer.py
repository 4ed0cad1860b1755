"""Writes objects as one part of the platform: the verbs that reconcilers and the node use, named by plural."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from wharfinger.cluster.client import MERGE, Client, Object, Resource
from wharfinger.core.clock import Clock, rfc3339_micro
from wharfinger.core.errors import AlreadyExists, Invalid, NotFound, WharfingerError
from wharfinger.core.ids import Ids


class ObjectWriter:
    """Writes through one client as the field manager `manager`. Every method raises the error family."""

    def __init__(self, client: Client, resources: Sequence[Resource], manager: str, clock: Clock, ids: Ids) -> None:
        self._client = client
        self._by_plural = {resource.plural: resource for resource in resources}
        self._by_kind = {(resource.api_version, resource.kind): resource for resource in resources}
        self._manager = manager
        self._clock = clock
        self._ids = ids

    def apply(self, desired: Mapping[str, Any]) -> Object:
        """Server-side apply `desired`, taking fields over from others."""
        return self._client.apply(self._of(desired), desired, manager=self._manager, force=True)

    def create(self, desired: Mapping[str, Any]) -> Object:
        """Create; raises `AlreadyExists`."""
        return self._client.create(self._of(desired), desired, manager=self._manager)

    def patch(self, plural: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Object:
        """JSON merge patch of an object; raises `NotFound`, `Conflict`."""
        return self._client.patch(self._by_plural[plural], namespace, name, patch, kind=MERGE, manager=self._manager)

    def status(self, plural: str, namespace: str, name: str, status: Mapping[str, Any], *, version: str = "") -> Object:
        """Merge `status` into an object's status; fields set to None go.

        With a `version` only into the object of that resourceVersion: raises `Conflict` when it has changed since.
        """
        patch: Object = {"status": status}
        if version:
            patch["metadata"] = {"resourceVersion": version}
        return self._client.patch(
            self._by_plural[plural], namespace, name, patch, kind=MERGE, subresource="status", manager=self._manager
        )

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind the pod of that uid to `node`. Raises `Conflict` when it is bound already, or is another by now."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        self._client.create_subresource(self._by_plural["pods"], namespace, name, "binding", binding, self._manager)

    def delete(self, plural: str, namespace: str, name: str, uid: str = "", grace: int | None = None) -> None:
        """Delete, of that uid alone when one is given; absent is fine."""
        with contextlib.suppress(NotFound):
            self._client.delete(self._by_plural[plural], namespace, name, uid=uid, grace=grace)

    def event(self, about: Mapping[str, Any], reason: str, message: str, *, warning: bool) -> None:
        """Record an Event about an object; one that cannot be written is not worth failing for."""
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        now = rfc3339_micro(self._clock.now())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name'][:200]}.{self._ids.uid()[:13]}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": about.get("apiVersion", ""), "kind": about.get("kind", ""), "name": meta["name"],
                "namespace": meta.get("namespace", ""), "uid": meta.get("uid", ""),
            },
            "reason": reason,
            "message": message[:1000],
            "type": "Warning" if warning else "Normal",
            "source": {"component": self._manager},
            "firstTimestamp": now[:19] + "Z",
            "lastTimestamp": now[:19] + "Z",
            "count": 1,
        }  # fmt: skip
        with contextlib.suppress(AlreadyExists, NotFound, Invalid, WharfingerError):
            self._client.create(self._by_plural["events"], event, manager=self._manager)

    def _of(self, desired: Mapping[str, Any]) -> Resource:
        try:
            return self._by_kind[desired["apiVersion"], desired["kind"]]
        except KeyError as error:
            raise Invalid(f"expected a kind that this part writes, got {error}") from error
