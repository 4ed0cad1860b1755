"""Reconciles GPUProfiles: each becomes a DeviceClass of its name, and says how much of the fleet it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, everything, own, owner
from wharfinger.core.clock import Instant, Span
from wharfinger.core.errors import WharfingerError
from wharfinger.gpu.inventory import Inventory
from wharfinger.gpu.profiles import device_class, matching
from wharfinger.kinds.condition import condition


class GPUProfileReconciler:
    """DeviceClasses and status of GPUProfiles."""

    kind = "gpuprofiles"

    def __init__(self, cache: Cache, writer: Writer) -> None:
        self._cache = cache
        self._writer = writer

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return profiles, the classes made from them, and the devices that they may fit."""
        every = everything(self._cache, self.kind)
        return {self.kind: own, "deviceclasses": owner("GPUProfile"), "resourceslices": every, "nodes": every}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Make the profile's class and count what it fits."""
        profile = self._cache.get(self.kind, "", key.name)
        if profile is None or deleting(profile):
            return None
        status = profile.get("status") or {}
        fits = 0
        try:
            wanted = class_of(profile)
            fits = matching(profile, Inventory(self._cache.list("resourceslices")), self._cache.list("nodes"))
            told = self._make(profile, wanted)
        except WharfingerError as error:
            told = (False, "Invalid", error.message)
        if told[0] and not fits:
            told = (True, "NothingMatches", "the class is there, but no device or slice of the fleet matches")
        fresh: dict[str, Any] = {
            "matching": fits,
            "conditions": condition(
                status.get("conditions"), "Ready", *told, profile["metadata"].get("generation", 0), now
            ),
        }
        if told[0]:
            fresh["deviceClass"] = key.name
        if {**status, **fresh} != status:
            self._writer.status(self.kind, "", key.name, fresh)
        return None

    def _make(self, profile: Object, wanted: Mapping[str, Any]) -> tuple[bool, str, str]:
        """Have the class there as `wanted`; return whether it is, with reason and message."""
        name = profile["metadata"]["name"]
        held = self._cache.get("deviceclasses", "", name)
        owners = [o.get("uid") for o in (held or {}).get("metadata", {}).get("ownerReferences") or ()]
        if held is not None and profile["metadata"]["uid"] not in owners:
            return (
                False,
                "NameTaken",
                f"DeviceClass {name} is somebody else's: delete it, or name the profile otherwise",
            )
        if held is None or held["spec"].get("selectors") != wanted["spec"]["selectors"]:
            self._writer.apply(wanted)
        return True, "Ready", f"DeviceClass {name} says what a device must be"


def class_of(profile: Object) -> dict[str, Any]:
    """Return the DeviceClass of a profile, which goes with it. Raises `Invalid`."""
    made: dict[str, Any] = device_class(profile)
    made["metadata"]["ownerReferences"] = [
        {
            "apiVersion": profile["apiVersion"], "kind": profile["kind"], "name": profile["metadata"]["name"],
            "uid": profile["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
        }
    ]  # fmt: skip
    return made
