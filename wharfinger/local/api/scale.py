"""The scale subresource: an object's replicas as an autoscaling/v1 Scale. Pure."""

from __future__ import annotations

from functools import cache
from typing import Final

from wharfinger.core import selectors
from wharfinger.core.causes import invalid
from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed
from wharfinger.kinds.builtin.behaviour import Behaviour
from wharfinger.kinds.builtin.fields import int32, record, string, whole
from wharfinger.kinds.kind import Kind
from wharfinger.local.api.faults import InvalidObject
from wharfinger.local.api.served import Resource

SCALE: Final = Kind(
    group="autoscaling",
    version="v1",
    name="Scale",
    plural="scales",
    namespaced=True,
    description="How many replicas.",
    schema=whole(
        "autoscaling.v1.Scale",
        "How many replicas an object wants and has.",
        {
            "spec": record("autoscaling.v1.ScaleSpec", "What is wanted.", {"replicas": int32("How many.", minimum=0)}),
            "status": record(
                "autoscaling.v1.ScaleStatus",
                "What there is.",
                {"replicas!": int32("How many."), "selector": string("Selects them.")},
            ),
        },
    ),
)

RESOURCE: Final = Resource(SCALE, Behaviour(), -1, builtin=True)


@cache
def path_of(text: str) -> tuple[str, ...]:
    """Return the names in a simple JSONPath such as `.spec.replicas`."""
    return tuple(name for name in text.split(".") if name)


def of(kind: Kind, value: Json) -> Json:
    """Return the Scale of `value`, an object of `kind`, which has one. Raises `Invalid` when it has no replicas."""
    assert kind.scale is not None
    wanted = _at(value, kind.scale.spec_replicas)
    if wanted is None:
        raise Invalid(f"{kind.name}: expected replicas at {kind.scale.spec_replicas}, got none")
    metadata = {
        name: value["metadata"][name]
        for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if name in value["metadata"]
    }
    status: dict[str, Json] = {"replicas": _at(value, kind.scale.status_replicas) or 0}
    selector = _at(value, kind.scale.label_selector)
    if isinstance(selector, dict):
        selector = str(selectors.of_object(selector))
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": wanted} if wanted else {},
        "status": status,
    }


def scaled(kind: Kind, value: Json, scale: Json) -> Json:
    """Return `value` with the replicas that `scale` wants. Raises `Malformed` or `Invalid` for a wrong number."""
    assert kind.scale is not None
    if not isinstance(scale, dict) or scale.get("kind") != "Scale":
        raise Malformed(
            f"expected a Scale of autoscaling/v1, got {scale.get('kind') if isinstance(scale, dict) else scale}"
        )
    wanted = (scale.get("spec") or {}).get("replicas", 0)
    if type(wanted) is not int or wanted < 0:
        problem = invalid("spec.replicas", wanted, "must be greater than or equal to 0")
        name = value["metadata"]["name"]
        raise InvalidObject("Scale", "autoscaling", name, [problem])
    return _with(value, path_of(kind.scale.spec_replicas), wanted)


def as_scale_shows(kind: Kind, value: Json) -> Json:
    """Return `value` without its replicas when they are 0: a Scale leaves them out, so nobody comes to own them."""
    assert kind.scale is not None
    if _at(value, kind.scale.spec_replicas) != 0:
        return value
    *above, leaf = path_of(kind.scale.spec_replicas)
    inner = _at(value, ".".join(above))
    return _with(value, tuple(above), {name: child for name, child in inner.items() if name != leaf})


def is_owned(kind: Kind, entries: list[Json] | None) -> bool:
    """Say whether a managedFields entry owns the replicas.

    Where none does, the Scale is an object that nobody tracks, and scaling makes nobody an owner.
    """
    assert kind.scale is not None
    path = ".".join(f"f:{name}" for name in path_of(kind.scale.spec_replicas))
    return any(_at(entry.get("fieldsV1"), path) is not None for entry in entries or ())


def _at(value: Json, path: str) -> Json:
    for name in path_of(path):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _with(value: Json, path: tuple[str, ...], leaf: Json) -> Json:
    if not path:
        return leaf
    return {**value, path[0]: _with(value.get(path[0]) or {}, path[1:], leaf)}
