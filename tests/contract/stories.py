"""Stories made by chance: requests about a few objects by a few managers, sensible and not, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from scripts import JSON, MERGE, STRATEGIC, Step, apply, create, delete, get, of, patch, put

from wharfinger.kinds.kind import Kind
from wharfinger.kinds.registry import KINDS

MANAGERS = ("kubectl", "one", "two", "wharfinger-control")
_TEXTS = ("a", "b", "small", "", "x" * 64, "Not A Name", "1", "a.b", "a/b")
_NUMBERS = (0, 1, 2, 3, 1000, 1001, -1, 1.5, "2", True, None)
_CALLERS = ("spiffe://a/b", "spiffe://c/*", "spiffe://d/e", "nonsense")


def _value(draw: random.Random, depth: int = 0) -> Any:
    """Return a value of any sort."""
    sort = draw.randrange(8 if depth < 2 else 6)
    if sort == 6:
        return [item for _ in range(draw.randrange(3)) if (item := _value(draw, depth + 1)) is not None]
    if sort == 7:
        return {draw.choice(("a", "b", "model", "name")): _value(draw, depth + 1) for _ in range(draw.randrange(3))}
    return (draw.choice(_TEXTS), draw.choice(_NUMBERS), None, True, draw.choice(_TEXTS), draw.choice(_NUMBERS))[sort]


def _env(draw: random.Random) -> Any:
    return [{"name": draw.choice("ABC"), "value": draw.choice("xyz")} for _ in range(draw.randrange(3))]


def _spec(draw: random.Random, oddness: float) -> Any:
    """Return the spec of an InferenceService; `oddness` is how often a field is not what it should be."""
    made: dict[str, Any] = {"model": "small"}
    fields: dict[str, Any] = {
        "model": lambda: draw.choice(("small", "large")),
        "replicas": lambda: draw.randrange(4),
        "gpuProfile": lambda: draw.choice(("slice", "whole")),
        "callers": lambda: draw.sample(_CALLERS[:3], draw.randrange(4)),
        "runtime": lambda: {"type": draw.choice(("Builtin", "Command")), "command": ["serve"], "env": _env(draw)},
        "scaling": lambda: {"minReplicas": draw.randrange(3), "maxReplicas": draw.randrange(1, 4)},
        "slo": lambda: {"ttftMilliseconds": draw.choice((1, 500))},
        "serviceAccountName": lambda: draw.choice(("default", "robot")),
    }
    for name in draw.sample(list(fields), draw.randrange(1, 6)):
        made[name] = _value(draw) if draw.random() < oddness else fields[name]()
    if draw.random() < oddness:
        made[draw.choice(("surprise", "replica"))] = _value(draw)
    if draw.random() < oddness / 2:
        del made["model"]
    return made


def _metadata(draw: random.Random, name: str, oddness: float) -> Any:
    made: dict[str, Any] = {"name": name}
    if draw.random() < 0.5:
        made["labels"] = {draw.choice("xyz"): draw.choice(("1", "2", "")) for _ in range(draw.randrange(3))}
    if draw.random() < 0.3:
        made["annotations"] = {draw.choice("xyz"): draw.choice(("1", "two words"))}
    if draw.random() < oddness:
        made[draw.choice(("labels", "annotations", "finalizers", "surprise", "generation"))] = _value(draw)
    return made


def service(draw: random.Random, name: str, oddness: float) -> Any:
    """Return an InferenceService."""
    made = of("wharfinger.io/v1alpha1", "InferenceService", name, spec=_spec(draw, oddness))
    made["metadata"] = _metadata(draw, name, oddness)
    return made


def deployment(draw: random.Random, name: str, oddness: float) -> Any:
    """Return a Deployment."""
    containers = [
        {"name": each, "image": draw.choice(("i:1", "i:2", "i"))} | ({"env": _env(draw)} if draw.random() < 0.4 else {})
        for each in draw.sample(("web", "side", "more"), draw.randrange(1, 3))
    ]
    if draw.random() < 0.4:
        containers[0]["ports"] = [{"containerPort": port} for port in draw.sample((80, 443, 8080), 2)]
    if draw.random() < 0.3:
        containers[0]["resources"] = {"limits": {"cpu": draw.choice(("1", "500m", 2)), "memory": "1Gi"}}
    if draw.random() < oddness:
        containers[0][draw.choice(("image", "name", "command", "surprise", "ports"))] = _value(draw)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}},
    }
    if draw.random() < 0.6:
        spec["replicas"] = _value(draw) if draw.random() < oddness else draw.randrange(3)
    if draw.random() < 0.3:
        spec["strategy"] = {"type": draw.choice(("Recreate", "RollingUpdate"))}
    made = of("apps/v1", "Deployment", name, spec=spec)
    made["metadata"] = _metadata(draw, name, oddness)
    return made


def job(draw: random.Random, name: str, oddness: float) -> Any:
    """Return a Job."""
    container: dict[str, Any] = {"name": "main", "image": draw.choice(("i:1", "i")), "command": ["true"]}
    if draw.random() < 0.4:
        container["env"] = _env(draw)
    spec: dict[str, Any] = {
        "template": {
            "spec": {"containers": [container], "restartPolicy": draw.choice(("Never", "OnFailure", "Always"))}
        }
    }
    for field in draw.sample(
        ("completions", "parallelism", "backoffLimit", "activeDeadlineSeconds"), draw.randrange(3)
    ):
        spec[field] = _value(draw) if draw.random() < oddness else draw.randrange(1, 4)
    if draw.random() < 0.2:
        spec["suspend"] = draw.choice((True, False))
    made = of("batch/v1", "Job", name, spec=spec)
    made["metadata"] = _metadata(draw, name, oddness)
    return made


def config_map(draw: random.Random, name: str, oddness: float) -> Any:
    """Return a ConfigMap."""
    made = of("v1", "ConfigMap", name)
    made["metadata"] = _metadata(draw, name, oddness)
    if draw.random() < 0.8:
        made["data"] = {draw.choice("klm"): draw.choice(("1", "two words", "")) for _ in range(draw.randrange(3))}
    if draw.random() < 0.2:
        made["binaryData"] = {draw.choice("kb"): draw.choice(("aGk=", "not base64"))}
    if draw.random() < 0.1:
        made["immutable"] = draw.choice((True, False))
    if draw.random() < oddness:
        made[draw.choice(("data", "immutable", "surprise"))] = _value(draw)
    return made


def pod(draw: random.Random, name: str, oddness: float) -> Any:
    """Return a Pod."""
    containers = [
        {"name": each, "image": draw.choice(("i:1", "i", "i@sha256:" + "a" * 64))}
        for each in draw.sample(("main", "side"), draw.randrange(1, 3))
    ]
    if draw.random() < 0.4:
        containers[0]["env"] = _env(draw)
    if draw.random() < 0.3:
        containers[0]["resources"] = {
            draw.choice(("limits", "requests")): {"cpu": draw.choice(("1", "0.5", 2, "1500m"))}
        }
    if draw.random() < 0.3:
        containers[0]["readinessProbe"] = {draw.choice(("httpGet", "tcpSocket")): {"port": draw.choice((80, "http"))}}
    spec: dict[str, Any] = {"containers": containers, "serviceAccountName": "default"}
    if draw.random() < 0.3:
        spec["nodeName"] = "here"
    if draw.random() < 0.3:
        spec["volumes"] = [{"name": "v", draw.choice(("emptyDir", "configMap")): {}}]
    if draw.random() < 0.3:
        spec["restartPolicy"] = draw.choice(("Never", "Sometimes"))
    if draw.random() < oddness:
        containers[0][draw.choice(("image", "name", "surprise", "args"))] = _value(draw)
    made = of("v1", "Pod", name, spec=spec)
    made["metadata"] = _metadata(draw, name, oddness)
    return made


_SAMPLES = {
    "^spiffe": ("spiffe://a/b", "spiffe://c/*"),
    "^sha256": ("sha256:" + "a" * 64, "sha256:" + "b" * 64),
    "^https?": ("https://a.example", "http://127.0.0.1:8080"),
    "^\\+?": ("1", "80Gi", "500m"),
    "^[a-z0-9]": ("a", "b-c"),
}


def _of_schema(draw: random.Random, schema: Any, oddness: float, depth: int = 0) -> Any:
    """Return a value that fits a schema, more or less."""
    if draw.random() < oddness / 3:
        return _value(draw)
    if "enum" in schema:
        return draw.choice(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return draw.choice((1, "80Gi", "500m"))
    match schema.get("type"):
        case "object":
            fields = schema.get("properties") or {}
            wanted = set(schema.get("required") or ()) | set(draw.sample(list(fields), draw.randrange(len(fields) + 1)))
            if draw.random() < oddness / 2 and wanted:
                wanted.discard(draw.choice(sorted(wanted)))
            made = {field: _of_schema(draw, fields[field], oddness, depth + 1) for field in sorted(wanted)}
            if isinstance(schema.get("additionalProperties"), dict):
                made[draw.choice("abc")] = _of_schema(draw, schema["additionalProperties"], oddness, depth + 1)
            return made
        case "array":
            count = (
                draw.randrange(schema.get("minItems", 0), 3) if schema.get("minItems", 0) < 3 else schema["minItems"]
            )
            return [_of_schema(draw, schema["items"], oddness, depth + 1) for _ in range(count)]
        case "integer":
            low = max(schema.get("minimum", 0), schema.get("exclusiveMinimum", 0) if not isinstance(
                schema.get("exclusiveMinimum"), bool) else 0)  # fmt: skip
            return draw.choice((low, low + 1, low + 2))
        case "number":
            return draw.choice((0, 1, 0.5, 1.5))
        case "boolean":
            return draw.choice((True, False))
    if schema.get("format") == "date-time":
        return draw.choice(("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00"))
    pattern = schema.get("pattern", "")
    for start, samples in _SAMPLES.items():
        if pattern.startswith(start):
            return draw.choice(samples)
    return draw.choice(("a", "b", "true"))


def _maker(kind: Kind) -> Maker:
    """Return what makes objects of one of our kinds from its schema."""

    def make(draw: random.Random, name: str, oddness: float) -> Any:
        made = of(kind.api_version, kind.name, name, spec=_of_schema(draw, kind.schema["properties"]["spec"], oddness))
        made["metadata"] = _metadata(draw, name, oddness)
        return made

    return make


Maker = Callable[[random.Random, str, float], Any]
_OURS: dict[str, Maker] = {kind.plural: _maker(kind) for kind in KINDS if kind.namespaced}
_MAKERS: dict[str, Maker] = {
    **_OURS, "inferenceservices": service, "deployments": deployment, "jobs": job, "configmaps": config_map, "pods": pod,
}  # fmt: skip
_SCALED = ("deployments", "inferenceservices")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(child) for name, child in value.items() if child is not None}
    return [_without_nulls(child) for child in value] if isinstance(value, list) else value


def _changed(draw: random.Random, plural: str, oddness: float) -> Any:
    """Return a merge patch."""
    whole = _MAKERS[plural](draw, "a", oddness)
    if not isinstance(whole.get("spec"), dict):
        return {name: whole[name] for name in ("data", "metadata") if name in whole}
    spec = whole["spec"]
    if plural == "deployments":
        spec.pop("selector")
        spec["template"].pop("metadata")
    kept = draw.sample(list(spec), draw.randrange(len(spec) + 1))
    made: dict[str, Any] = {"spec": {name: (None if draw.random() < 0.15 else spec[name]) for name in kept}}
    if draw.random() < 0.5:
        made["metadata"] = {name: value for name, value in whole["metadata"].items() if name != "name"}
    return made


def _operations(draw: random.Random, plural: str) -> Any:
    """Return a JSON patch."""
    paths = (
        "/spec/replicas",
        "/metadata/labels",
        "/metadata/labels/x",
        "/spec/model",
        "/spec/callers/0",
        "/spec/none",
        "",
    )
    return [
        {"op": draw.choice(("add", "replace", "remove", "test")), "path": draw.choice(paths[: 7 if plural in _OURS else 4]),
         "value": _value(draw)}
        for _ in range(draw.randrange(1, 3))
    ]  # fmt: skip


def story(seed: int, oddness: float = 0.12, length: int = 12) -> list[Step]:
    """Return the requests of one story."""
    draw = random.Random(seed)
    plural = draw.choice((*_SCALED, *_SCALED, *sorted(_MAKERS)))
    steps: list[Step] = []
    for _ in range(length):
        name, manager = draw.choice("ab"), draw.choice(MANAGERS)
        at, query = f"{plural}/{name}", {"fieldManager": manager}
        if draw.random() < 0.2:
            query["fieldValidation"] = draw.choice(("Strict", "Ignore", "Warn"))
        if draw.random() < 0.1:
            query["dryRun"] = "All"
        match draw.randrange(10):
            case 0 | 1:
                steps.append(create(plural, _MAKERS[plural](draw, name, oddness), **query))
            case 2 | 3 | 4:
                force = {"force": "true"} if draw.random() < 0.4 else {}
                query.pop("fieldManager")
                config = _MAKERS[plural](draw, name, oddness)
                # A null in a configuration is nothing here and an error there.
                config = _without_nulls(config)
                config.setdefault("spec" if plural != "configmaps" else "data", {})
                steps.append(apply(at, config, manager, **query, **force))
            case 5 | 6:
                media = STRATEGIC if plural not in _OURS and draw.random() < 0.5 else MERGE
                steps.append(patch(at, _changed(draw, plural, oddness), media, **query))
            case 7:
                steps.append(patch(at, _operations(draw, plural), JSON, **query))
            case 8:
                if draw.random() < 0.5 and plural in _SCALED:
                    steps.append(patch(f"{at}/status", {"status": {"replicas": draw.randrange(3)}}, **query))
                elif plural not in _SCALED or (plural == "deployments" and draw.random() < 0.5):
                    steps.append(put(at, _MAKERS[plural](draw, name, oddness), **query))
                else:
                    # To another number each time: who owns replicas that a scaling to 0, or to what they were, has left
                    # is told by kube-apiserver one way now and another way when it reads the object again.
                    steps.append(patch(f"{at}/scale", {"spec": {"replicas": 10 + len(steps)}}, **query))
            case _:
                steps.append(delete(at, propagationPolicy="Background") if draw.random() < 0.5 else get(at))
    return steps
