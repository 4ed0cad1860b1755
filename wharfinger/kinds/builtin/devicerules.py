"""ResourceSlice, ResourceClaim, ResourceClaimTemplate, DeviceClass: what they do beyond their schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wharfinger.core import names
from wharfinger.core.causes import child, duplicate, invalid, item, key_of, not_supported, required, too_many
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.kinds.builtin.behaviour import Behaviour
from wharfinger.kinds.builtin.corerules import immutable

MOST_REQUESTS: Final = 32
MOST_RESULTS: Final = 32
MOST_CONSUMERS: Final = 256
MOST_DEVICES: Final = 128
_PLACES: Final = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")


def _default_requests(devices: Json) -> None:
    for request in (devices or {}).get("requests") or []:
        for asked in [request.get("exactly"), *(request.get("firstAvailable") or [])]:
            if asked and asked.get("allocationMode", "ExactCount") == "ExactCount" and not asked.get("count"):
                asked["count"] = 1


def _default_claim(new: Json) -> None:
    _default_requests((new.get("spec") or {}).get("devices"))


def _default_template(new: Json) -> None:
    _default_requests(((new.get("spec") or {}).get("spec") or {}).get("devices"))


def _check_devices(devices: Json, at: str) -> Iterator[FieldProblem]:
    requests = (devices or {}).get("requests") or []
    if len(requests) > MOST_REQUESTS:
        yield too_many(child(at, "requests"), len(requests), MOST_REQUESTS)
    known: set[str] = set()
    for index, request in enumerate(requests):
        path, name = item(child(at, "requests"), index), request.get("name", "")
        yield from _check_name(name, child(path, "name"), known)
        exactly, first = request.get("exactly"), request.get("firstAvailable")
        if (exactly is None) == (not first):
            yield required(path, "exactly one of `exactly` or `firstAvailable` is required")
        if exactly is not None:
            yield from _check_request(exactly, child(path, "exactly"))
        inner: set[str] = set()
        for number, asked in enumerate(first or []):
            below = item(child(path, "firstAvailable"), number)
            yield from _check_name(asked.get("name", ""), child(below, "name"), inner)
            yield from _check_request(asked, below)
        known |= {f"{name}/{sub}" for sub in inner}
    for kind in ("constraints", "config"):
        for index, entry in enumerate((devices or {}).get(kind) or []):
            for number, name in enumerate(entry.get("requests") or []):
                if name not in known:
                    where = item(child(item(child(at, kind), index), "requests"), number)
                    yield invalid(where, name, "must be the name of a request in the claim")


def _check_name(name: str, at: str, known: set[str]) -> Iterator[FieldProblem]:
    if not name:
        yield required(at)
    for wrong in names.dns_label(name) if name else ():
        yield invalid(at, name, wrong)
    if name in known:
        yield duplicate(at, name)
    known.add(name)


def _check_request(asked: Json, at: str) -> Iterator[FieldProblem]:
    if not asked.get("deviceClassName"):
        yield required(child(at, "deviceClassName"))
    else:
        for wrong in names.dns_subdomain(asked["deviceClassName"]):
            yield invalid(child(at, "deviceClassName"), asked["deviceClassName"], wrong)
    mode, count = asked.get("allocationMode"), asked.get("count")
    if mode not in {"ExactCount", "All"}:
        yield not_supported(child(at, "allocationMode"), mode, ("All", "ExactCount"))
    elif mode == "All" and count:
        yield invalid(child(at, "count"), count, "must not be specified when allocationMode is 'All'")
    elif mode == "ExactCount" and (count or 0) <= 0:
        yield invalid(child(at, "count"), count, "must be greater than zero")
    yield from _check_selectors(asked, at)


def _check_selectors(asked: Json, at: str) -> Iterator[FieldProblem]:
    for index, selector in enumerate(asked.get("selectors") or []):
        path = item(child(at, "selectors"), index)
        if not (selector.get("cel") or {}).get("expression"):
            yield required(child(path, "cel"))


def _check_claim(new: Json, old: Json | None) -> list[FieldProblem]:
    spec = new.get("spec") or {}
    problems = list(_check_devices(spec.get("devices"), "spec.devices"))
    if old is not None:
        problems += immutable("spec", spec, old.get("spec") or {})
    status, before = new.get("status") or {}, (old or {}).get("status") or {}
    given = status.get("allocation")
    if given and before.get("allocation"):
        problems += immutable("status.allocation", given, before["allocation"])
    results = ((given or {}).get("devices") or {}).get("results") or []
    if len(results) > MOST_RESULTS:
        problems.append(too_many("status.allocation.devices.results", len(results), MOST_RESULTS))
    consumers = status.get("reservedFor") or []
    if len(consumers) > MOST_CONSUMERS:
        problems.append(too_many("status.reservedFor", len(consumers), MOST_CONSUMERS))
    if consumers and not given:
        problems.append(invalid("status.reservedFor", consumers, "may not be set without `status.allocation`"))
    return problems


def _prepare_claim(new: Json, old: Json | None) -> None:
    if old is None:
        new["status"] = {}


def _check_template(new: Json, old: Json | None) -> list[FieldProblem]:
    spec = new.get("spec") or {}
    problems = list(_check_devices((spec.get("spec") or {}).get("devices"), "spec.spec.devices"))
    if old is not None:
        problems += immutable("spec", spec, old.get("spec") or {})
    return problems


def _check_class(new: Json, _old: Json | None) -> list[FieldProblem]:
    return list(_check_selectors(new.get("spec") or {}, "spec"))


def _check_slice(new: Json, old: Json | None) -> list[FieldProblem]:
    spec = new.get("spec") or {}
    problems: list[FieldProblem] = []
    if not spec.get("driver"):
        problems.append(required("spec.driver"))
    else:
        problems += [invalid("spec.driver", spec["driver"], wrong) for wrong in names.dns_subdomain(spec["driver"])]
    pool = spec.get("pool") or {}
    if not pool.get("name"):
        problems.append(required("spec.pool.name"))
    if pool.get("resourceSliceCount", 0) <= 0:
        problems.append(
            invalid("spec.pool.resourceSliceCount", pool.get("resourceSliceCount"), "must be greater than zero")
        )
    chosen = [place for place in _PLACES if spec.get(place)]
    if len(chosen) != 1:
        text = f"exactly one of {', '.join(f'`{place}`' for place in _PLACES)} is required"
        problems.append(invalid("spec", f"{{{', '.join(chosen)}}}", text) if chosen else required("spec", text))
    devices = spec.get("devices") or []
    if len(devices) > MOST_DEVICES:
        problems.append(too_many("spec.devices", len(devices), MOST_DEVICES))
    seen: set[str] = set()
    for index, device in enumerate(devices):
        problems += _check_device(device, item("spec.devices", index), seen)
    if old is not None:
        before = old.get("spec") or {}
        for field in ("driver", "nodeName"):
            problems += immutable(f"spec.{field}", spec.get(field), before.get(field))
        problems += immutable("spec.pool.name", pool.get("name"), (before.get("pool") or {}).get("name"))
    return problems


def _check_device(device: Json, at: str, seen: set[str]) -> Iterator[FieldProblem]:
    yield from _check_name(device.get("name", ""), child(at, "name"), seen)
    for name, attribute in (device.get("attributes") or {}).items():
        path = key_of(child(at, "attributes"), name)
        yield from _check_qualified(name, path)
        if len(attribute) != 1:
            yield invalid(path, attribute, "exactly one value must be specified")
    for name in device.get("capacity") or {}:
        yield from _check_qualified(name, key_of(child(at, "capacity"), name))


def _check_qualified(name: str, at: str) -> Iterator[FieldProblem]:
    domain, slash, word = name.rpartition("/")
    if slash:
        for wrong in names.dns_subdomain(domain):
            yield invalid(at, domain, wrong)
    for wrong in names.c_identifier(word):
        yield invalid(at, word, wrong)
    if len(word) > 32:
        yield invalid(at, word, "must be at most 32 characters")


RESOURCE_CLAIM: Final = Behaviour(prepare=_prepare_claim, default=_default_claim, check=_check_claim)
RESOURCE_CLAIM_TEMPLATE: Final = Behaviour(default=_default_template, check=_check_template)
DEVICE_CLASS: Final = Behaviour(generation=True, check=_check_class)
RESOURCE_SLICE: Final = Behaviour(generation=True, check=_check_slice)
