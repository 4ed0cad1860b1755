"""What the console's pages show, as plain data: from objects and records to one dictionary per page.

Pure. The HTML page and its `.json` twin are rendered from the same dictionary, so that they cannot differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
PALETTE_SIZE = 8


def overview(objects: Objects, decisions: Sequence[Mapping[str, Any]], now: Instant) -> dict[str, Any]:
    """Return counts, and what needs attention: everything that is not as it should be, with its reason."""
    attention = [
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
    return {
        "title": "Overview",
        "command": "wharf get all -A",
        "at": rfc3339(now),
        "counts": {kind: len(objects.get(kind, ())) for kind in (*WATCHED, "grants", "pods", "nodes")},
        "decisions": {"minutes": 15, "allowed": len(recent) - len(refused), "refused": len(refused)},
        "attention": attention,
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
            {"name": node, "gpus": [_gpu(gpu, devices) for gpu, devices in sorted(found.items())]}
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


def decisions(records: Iterable[Mapping[str, Any]], limit: int = 200) -> dict[str, Any]:
    """Return the newest `limit` decisions, newest first."""
    newest = sorted(records, key=lambda r: str(r.get("at")), reverse=True)[:limit]
    fields = ("id", "at", "part", "allowed", "element", "reason", "who", "verb", "what", "tenant")
    return {
        "title": "Decisions",
        "command": "wharf get decisions",
        "decisions": [{name: record.get(name, "") for name in fields} for record in newest],
    }


def usage(records: Iterable[Mapping[str, Any]], now: Instant, minutes: int = 30) -> dict[str, Any]:
    """Return tokens a minute and the median time to the first token, a point a minute, oldest first.

    `records` are settled token accounts: `at`, `tokens`, `ttftMilliseconds`.
    """
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
    }


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
        "tenant": holder["tenant"] if holder else "",
        "holder": holder["holder"] if holder else "",
        "colour": colours.get(holder["tenant"]) if holder else None,
    }


def _gpu(gpu: str, devices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = next((d for d in devices if d["whole"]), devices[0])
    held = [d for d in devices if d["holder"]]
    return {
        "uuid": gpu,
        "name": whole["name"],
        "product": whole["product"],
        "memory": whole["memory"],
        "held": held,
        "free": not held,
        "layouts": len(devices) - 1,
    }


def _bytes(quantity: object) -> int:
    return Quantity.parse(str(quantity or 0)).scaled()


def _bar(label: str, used: int, limit: int, unit: str, divisor: int) -> dict[str, Any]:
    return {
        "label": label,
        "used": round(used / divisor, 1),
        "limit": round(limit / divisor, 1),
        "unit": unit,
        "percent": min(100, round(100 * used / limit)) if limit else (100 if used else 0),
    }


def is_recent(record: Mapping[str, Any], now: Instant) -> bool:
    """Say whether `record` is of the last minute."""
    return 0 <= now - _when(record) < MINUTE
