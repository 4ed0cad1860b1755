"""What the console's pages show, as plain data: from objects and records to one dictionary per page.

Pure. The HTML page and its `.json` twin are rendered from the same dictionary, so that they cannot differ.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wharfinger.core.clock import MINUTE, Instant, parse_rfc3339, rfc3339
from wharfinger.core.errors import Malformed
from wharfinger.core.quantity import Quantity
from wharfinger.kinds.condition import find

Object = Mapping[str, Any]
Objects = Mapping[str, Sequence[Object]]
"""Plural to the objects of that kind."""

WATCHED = ("tenants", "datasets", "models", "pipelineruns", "inferenceservices", "gpuprofiles")
"""Kinds whose Ready or Succeeded condition the overview looks at."""
_DIGEST = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
_ID = re.compile(r"\bspiffe://[a-z0-9._-]+/")
PALETTE_SIZE = 8
COMPUTE_SLICES = 7
"""Into how many compute slices a GPU that can be partitioned divides (NVIDIA MIG)."""


def _by_a_part(record: Mapping[str, Any]) -> bool:
    return "/wharfinger/" in str(record.get("who", ""))


ONLY: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "": lambda _: True,
    "allowed": lambda record: bool(record.get("allowed")),
    "refused": lambda record: not record.get("allowed"),
    "tenants": lambda record: not _by_a_part(record),
}
"""Which decisions a page may be narrowed to."""


def overview(
    objects: Objects,
    decisions: Sequence[Mapping[str, Any]],
    tokens: Iterable[Mapping[str, Any]],
    faults: Sequence[str],
    now: Instant,
) -> dict[str, Any]:
    """Return how much of everything there is, and what needs attention: all that is not as it should be, and why."""
    attention = [
        {
            "kind": "evidence",
            "namespace": "",
            "name": fault,
            "reason": "Damaged",
            "message": "it is not read any further",
        }
        for fault in faults
    ]
    attention += [
        {"kind": kind, "namespace": meta(o).get("namespace", ""), "name": meta(o)["name"], **why}
        for kind in WATCHED
        for o in objects.get(kind, ())
        if (why := _trouble(o)) is not None
    ]
    attention += [
        {"kind": "pods", "namespace": meta(pod)["namespace"], "name": meta(pod)["name"], **why}
        for pod in objects.get("pods", ())
        if (why := _pod_trouble(pod)) is not None
    ]
    recent = [d for d in decisions if now - _when(d) < 15 * MINUTE]
    refused = [d for d in recent if not d.get("allowed")]
    silicon = [gpu for node in gpus(objects)["nodes"] for gpu in node["gpus"]]
    services = objects.get("inferenceservices", ())
    return {
        "title": "Overview",
        "command": "wharf get wharfinger -A",
        "at": rfc3339(now),
        "tiles": [
            _tile("tenants", "tenants", len(objects.get("tenants", ()))),
            _tile("models", "models ready", _ready(objects.get("models", ())), len(objects.get("models", ()))),
            _tile("models", "services serving", _ready(services), len(services)),
            _tile("gpus", "GPUs in use", sum(not gpu["free"] for gpu in silicon), len(silicon)),
            _tile("gpus", "grants that hold", sum(not g["spec"].get("revoked") for g in objects.get("grants", ()))),
            _tile("usage", "tokens, last minute", sum(int(r.get("tokens", 0)) for r in tokens if is_recent(r, now))),
            _tile("decisions", "allowed, 15 min", len(recent) - len(refused), mood="good"),
            _tile("decisions", "refused, 15 min", len(refused), mood="bad" if refused else ""),
        ],
        "attention": attention,
        "refusals": [_decision(d) for d in sorted(refused, key=lambda d: str(d.get("at")), reverse=True)[:5]],
    }


def gpus(objects: Objects) -> dict[str, Any]:
    """Return every node's GPUs with their slices: who holds which, what is free."""
    holders = _holders(objects)
    colours = {name: index % PALETTE_SIZE for index, name in enumerate(sorted(map(_name, objects.get("tenants", ()))))}
    nodes: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for resource_slice in objects.get("resourceslices", ()):
        spec = resource_slice["spec"]
        for device in spec.get("devices") or ():
            key = (spec["driver"], spec["pool"]["name"], device["name"])
            shown = _device(device, holders.get(key), colours)
            nodes[spec.get("nodeName") or spec["pool"]["name"]][shown["gpu"]].append(shown)
    return {
        "title": "GPUs",
        "command": "kubectl get resourceslices,resourceclaims -A",
        "tenants": [{"name": name, "colour": colour} for name, colour in colours.items()],
        "nodes": [
            {"name": node, "gpus": sorted((_gpu(u, devices) for u, devices in found.items()), key=lambda g: g["index"])}
            for node, found in sorted(nodes.items())
        ],
    }


def tenants(objects: Objects, tokens: Mapping[str, int]) -> dict[str, Any]:
    """Return each tenant with its quota and use; `tokens` maps tenants to tokens of the last minute."""
    shown = []
    for tenant in sorted(objects.get("tenants", ()), key=_name):
        name, spec = _name(tenant), tenant["spec"]
        quota = spec.get("quota") or {}
        gpu, used = quota.get("gpu") or {}, (tenant.get("status") or {}).get("used") or {}
        shown.append(
            {
                "name": name,
                "namespaces": list(spec["namespaces"]),
                "isolation": (spec.get("isolation") or {}).get("fromOthers", "slice"),
                "bars": [
                    _bar("GPU memory", _bytes(used.get("memory", 0)), _bytes(gpu.get("memory", 0)), "GiB", 2**30),
                    _bar("Compute slices", used.get("computeSlices", 0), gpu.get("computeSlices", 0), "", 1),
                    _bar("Tokens a minute", tokens.get(name, 0), quota.get("tokensPerMinute", 0), "", 1),
                ],
            }
        )
    return {"title": "Tenants", "command": "wharf get tenants", "tenants": shown}


def models(objects: Objects) -> dict[str, Any]:
    """Return each model with its papers: signer, builder, datasets, log entry, and who serves it."""
    serving: dict[tuple[str, str], list[str]] = defaultdict(list)
    for service in objects.get("inferenceservices", ()):
        serving[meta(service)["namespace"], service["spec"]["model"]].append(_name(service))
    shown = []
    for model in sorted(objects.get("models", ()), key=lambda m: (meta(m)["namespace"], _name(m))):
        status = model.get("status") or {}
        ready = find(status.get("conditions"), "Ready") or {}
        shown.append(
            {
                "namespace": meta(model)["namespace"],
                "name": _name(model),
                "digest": model["spec"]["artifact"]["digest"],
                "ready": ready.get("status") == "True",
                "reason": ready.get("message") or ready.get("reason") or "not looked at yet",
                "signature": status.get("signature"),
                "provenance": status.get("provenance"),
                "serving": serving[meta(model)["namespace"], _name(model)],
            }
        )
    return {"title": "Models", "command": "wharf get models -A -o wide", "models": shown}


def decisions(records: Iterable[Mapping[str, Any]], only: str = "", limit: int = 200) -> dict[str, Any]:
    """Return the newest `limit` decisions, newest first.

    `only` those that were `allowed` or `refused`, or those on `tenants`' people and workloads: what the platform's own
    parts do all day is left out there.
    """
    wanted = ONLY.get(only, ONLY[""])
    newest = sorted(filter(wanted, records), key=lambda r: str(r.get("at")), reverse=True)[:limit]
    return {
        "title": "Decisions",
        "command": "wharf get decisions",
        "only": only if only in ONLY else "",
        "filters": list(ONLY),
        "decisions": [_decision(record) for record in newest],
    }


def usage(records: Iterable[Mapping[str, Any]], now: Instant, minutes: int = 30) -> dict[str, Any]:
    """Return tokens a minute and the median time to the first token, a point a minute, oldest first.

    `records` are settled token accounts: `at`, `tokens`, `ttftMilliseconds`.
    """
    records = list(records)
    last = now // MINUTE
    tokens, first = [0] * minutes, [list[float]() for _ in range(minutes)]
    for record in records:
        index = minutes - 1 - (last - _when(record) // MINUTE)
        if 0 <= index < minutes:
            tokens[index] += int(record.get("tokens", 0))
            if record.get("ttftMilliseconds") is not None:
                first[index].append(float(record["ttftMilliseconds"]))
    return {
        "title": "Usage",
        "command": "wharf bill",
        "seconds": [(last - minutes + 1 + index) * 60 for index in range(minutes)],
        "tokens": tokens,
        "ttftMilliseconds": [sorted(values)[len(values) // 2] if values else None for values in first],
        "tenants": _by_tenant(r for r in records if 0 <= last - _when(r) // MINUTE < minutes),
    }


def brief(text: str) -> str:
    """Return `text` with digests cut to twelve digits and SPIFFE IDs to their paths: for tables, never for JSON."""
    return _ID.sub("", _DIGEST.sub(r"\1…", text))


def meta(o: Object) -> Mapping[str, Any]:
    """Return the metadata of `o`."""
    found: Mapping[str, Any] = o["metadata"]
    return found


def _name(o: Object) -> str:
    return str(o["metadata"]["name"])


def _when(record: Mapping[str, Any]) -> Instant:
    try:
        return parse_rfc3339(str(record.get("at", "")))
    except Malformed:
        return 0


def _trouble(o: Object) -> dict[str, str] | None:
    conditions = (o.get("status") or {}).get("conditions")
    for kind in ("Ready", "Succeeded"):
        found = find(conditions, kind)
        if found is not None and found.get("status") == "False":
            return {"reason": str(found.get("reason", "")), "message": str(found.get("message", ""))}
    return None


def _pod_trouble(pod: Object) -> dict[str, str] | None:
    status = pod.get("status") or {}
    scheduled = find(status.get("conditions"), "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return {"reason": str(scheduled.get("reason", "")), "message": str(scheduled.get("message", ""))}
    if status.get("phase") == "Failed":
        return {"reason": str(status.get("reason", "Failed")), "message": str(status.get("message", ""))}
    return None


def _tile(page: str, label: str, number: int, of: int | None = None, mood: str = "") -> dict[str, Any]:
    return {"page": page, "label": label, "number": number, "of": of, "mood": mood}


def _ready(found: Iterable[Object]) -> int:
    return sum((find((o.get("status") or {}).get("conditions"), "Ready") or {}).get("status") == "True" for o in found)


def _decision(record: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("id", "at", "part", "allowed", "element", "reason", "who", "verb", "what", "tenant")
    return {name: record.get(name, "") for name in fields}


def _by_tenant(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        name = str(record.get("tenant", ""))
        one = found.setdefault(name, {"tenant": name, "answers": 0, "prompt": 0, "completion": 0, "tokens": 0})
        one["answers"] += 1
        for field in ("prompt", "completion", "tokens"):
            one[field] += int(record.get(field, 0))
    return [found[name] for name in sorted(found)]


def _holders(objects: Objects) -> dict[tuple[str, str, str], dict[str, str]]:
    tenant_of = {ns: _name(t) for t in objects.get("tenants", ()) for ns in t["spec"].get("namespaces", ())}
    held: dict[tuple[str, str, str], dict[str, str]] = {}
    for claim in objects.get("resourceclaims", ()):
        status = claim.get("status") or {}
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        pods = ", ".join(r.get("name", "") for r in status.get("reservedFor") or ())
        namespace = meta(claim)["namespace"]
        for result in results:
            held[result["driver"], result["pool"], result["device"]] = {
                "tenant": tenant_of.get(namespace, ""),
                "holder": f"{namespace}/{pods or _name(claim)}",
            }
    return held


def _device(device: Object, holder: Mapping[str, str] | None, colours: Mapping[str, int]) -> dict[str, Any]:
    attributes = {
        name.rsplit("/", 1)[-1]: next(iter(value.values())) for name, value in device.get("attributes", {}).items()
    }
    capacity = {name.rsplit("/", 1)[-1]: value.get("value") for name, value in device.get("capacity", {}).items()}
    name = str(device["name"])
    parent = str(attributes.get("parentUUID") or attributes.get("parentIndex") or "")
    return {
        "name": name,
        "gpu": parent or str(attributes.get("uuid", name)),
        "uuid": str(attributes.get("uuid", "")),
        "product": str(attributes.get("productName", "")),
        "profile": str(attributes.get("profile", "")),
        "memory": str(capacity.get("memory", "")),
        "whole": not attributes.get("profile"),
        "index": int(attributes.get("index", 0)),
        "tenant": holder["tenant"] if holder else "",
        "holder": holder["holder"] if holder else "",
        "colour": colours.get(holder["tenant"]) if holder else None,
        "share": int(attributes.get("computeSlices", COMPUTE_SLICES)),
    }


def _gpu(gpu: str, devices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = next((d for d in devices if d["whole"]), None)
    first = whole or devices[0]
    held = [d for d in devices if d["holder"]]
    return {
        "uuid": gpu,
        "index": first["index"],
        "name": whole["name"] if whole else f"gpu-{first['index']}",
        "product": first["product"],
        "memory": whole["memory"] if whole else "",
        "held": held,
        "free": not held,
        "left": max(0, COMPUTE_SLICES - sum(d["share"] for d in held)),
        "layouts": len(devices) - bool(whole),
    }


def _bytes(quantity: object) -> int:
    return Quantity.parse(str(quantity or 0)).scaled()


def _bar(label: str, used: int, limit: int, unit: str, divisor: int) -> dict[str, Any]:
    return {
        "label": label,
        "used": _amount(used / divisor),
        "limit": _amount(limit / divisor),
        "unit": unit,
        "percent": min(100, round(100 * used / limit)) if limit else (100 if used else 0),
    }


def _amount(number: float) -> float:
    rounded = round(number, 1)
    return int(rounded) if rounded == int(rounded) else rounded


def is_recent(record: Mapping[str, Any], now: Instant) -> bool:
    """Say whether `record` is of the last minute."""
    return 0 <= now - _when(record) < MINUTE
