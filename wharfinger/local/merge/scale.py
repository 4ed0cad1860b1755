"""The scale subresource's view of who owns the replicas, and the way back to the object's entries.

Kubernetes, "Server-Side Apply", subresources: who sets `.spec.replicas` through `/scale` owns the
object's own replicas field, and so takes it from others.
"""

from __future__ import annotations

from wharfinger.core.document import Json
from wharfinger.local.merge import fieldpath
from wharfinger.local.merge.fieldpath import Path
from wharfinger.local.merge.managed import Key, Managers
from wharfinger.local.merge.ownership import Owned

SCALE_VERSION = "autoscaling/v1"
SCALE_REPLICAS: Path = ("f:spec", "f:replicas")


def entries_of_scale(entries: list[Json], replicas: Path) -> list[Json]:
    """Return the managedFields of the Scale of an object that has `entries`; `replicas` is its field's path."""
    parent, scale = Managers(entries), Managers()
    for key, owned in parent.owned.items():
        if _owns(owned, replicas):
            scale.owned[_as_version(key, SCALE_VERSION)] = Owned(
                SCALE_VERSION, fieldpath.of_path(SCALE_REPLICAS), owned.applied
            )
            scale.times[_as_version(key, SCALE_VERSION)] = parent.times[key]
    return scale.encode()


def entries_of_parent(entries: list[Json], scale_entries: list[Json], version: str, replicas: Path) -> list[Json]:
    """Return `entries` of an object of `version` after its Scale came to have `scale_entries`.

    Who lost the replicas there loses them here; who gained them gains them.
    """
    parent, scale = Managers(entries), Managers(scale_entries)
    field = fieldpath.of_path(replicas)
    holders = {_as_version(key, version): key for key, owned in scale.owned.items() if _owns(owned, SCALE_REPLICAS)}
    for key, owned in list(parent.owned.items()):
        if not _owns(owned, replicas):
            continue
        if holders.pop(key, None) is None:
            left = fieldpath.difference(owned.fields, field)
            if left:
                parent.owned[key] = Owned(owned.version, left, owned.applied)
            else:
                del parent.owned[key]
    for key, held in holders.items():
        before = parent.owned.get(key)
        fields = field if before is None else fieldpath.union(before.fields, field)
        parent.owned[key] = Owned(version, fields, scale.owned[held].applied)
        parent.times[key] = scale.times[held]
    return parent.encode()


def _owns(owned: Owned, path: Path) -> bool:
    return bool(fieldpath.intersection(owned.fields, fieldpath.of_path(path)))


def _as_version(key: Key, version: str) -> Key:
    return key._replace(version=version) if key.version else key
