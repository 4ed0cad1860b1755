"""Admission: what an object must be, beyond its schema, for the platform to take it.

One set of pure functions, handed to the local API server and called by an admission webhook in a cluster. A
rule reads other objects only through the port `Lookup`, and returns the problems it finds; nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from wharfinger.core.document import Json
from wharfinger.core.errors import Conflict, Denied, FieldProblem, Invalid, excerpt
from wharfinger.gpu import berths
from wharfinger.kinds.kind import GROUP

Lookup: TypeAlias = Callable[[str, str, str], Mapping[str, Json] | None]
"""`(plural, namespace, name)` to the object there is; the namespace is empty for cluster-wide kinds.

With an empty name it returns `{"items": [...]}` of all objects there.
"""

SYSTEM_NAMESPACES = frozenset({"default", "wharfinger-system", "kube-system", "kube-public", "kube-node-lease"})
_DEVICE_VARIABLES = frozenset({"NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "LD_PRELOAD"})
_RESERVED = "wharfinger.io/"
_OURS = ("WHARF_", "SPIFFE_")
_SECRET_FIELDS = frozenset({"secretKeyRef", "secretRef", "secretName"})
_RUN = frozenset({("", "pods"), ("apps", "deployments"), ("batch", "jobs"), (GROUP, "inferenceservices")})
_LONGEST_SERVICE = 46


def admit(
    operation: str,
    plural: str,
    group: str,
    new: Mapping[str, Json],
    old: Mapping[str, Json] | None,
    who: str,
    lookup: Lookup,
) -> None:
    """Judge a CREATE or UPDATE of an object of `plural.group` by the SPIFFE ID `who`, or a write of its STATUS.

    Raises `Invalid` with every field that is wrong, `Denied` when the caller may not do it this way, `Conflict` when a
    claim would get silicon that is another's or that its tenant's quota does not allow.
    """
    if operation == "STATUS":
        if (group, plural) == ("resource.k8s.io", "resourceclaims") and berths.gains(new, old):
            refusal = berths.refusal(
                new, *(_all(lookup, kind) for kind in ("resourceclaims", "resourceslices", "tenants"))
            )
            if refusal:
                raise Conflict(f"resourceclaims {excerpt(str(new['metadata']['name']))}: {refusal}")
        return
    namespace = str(new.get("metadata", {}).get("namespace", ""))
    if group == GROUP and namespace and operation == "CREATE":
        _in_a_tenant(namespace, plural, lookup)
    if not _is_platform(who):
        _reserved_names(new, old)
        if (group, plural) in _RUN:
            _handed_secrets(new, old, who, lookup)
    rule = _RULES.get((group, plural))
    if rule is None:
        return
    problems = list(rule(new, who, lookup))
    if problems:
        name = new.get("metadata", {}).get("name", "")
        raise Invalid(f"{plural} {excerpt(str(name))}: {'; '.join(map(str, problems))}", fields=problems)


def _in_a_tenant(namespace: str, plural: str, lookup: Lookup) -> None:
    for tenant in _all(lookup, "tenants"):
        if namespace in tenant.get("spec", {}).get("namespaces", ()):
            return
    raise Denied(
        f"namespace {namespace} belongs to no tenant: {plural} live in a tenant's namespace",
        hint=f"add {namespace} to a Tenant's spec.namespaces",
    )


def _reserved_names(new: Mapping[str, Json], old: Mapping[str, Json] | None) -> None:
    """Refuse what only the control plane may say of an object, or of the objects that it will make of a template."""
    for where, mine, theirs in (
        ("metadata", new.get("metadata"), (old or {}).get("metadata")),
        ("spec.template.metadata", _template_metadata(new), _template_metadata(old or {})),
        ("spec.metadata", _inner_metadata(new), _inner_metadata(old or {})),
    ):
        for field in ("labels", "annotations"):
            wanted, held = ((told or {}).get(field) or {} for told in (mine, theirs))
            for key in sorted({*wanted, *held}):
                if key.startswith(_RESERVED) and wanted.get(key) != held.get(key):
                    raise Denied(f"{where}.{field}: {key} is the control plane's to set")


def _handed_secrets(new: Mapping[str, Json], old: Mapping[str, Json] | None, who: str, lookup: Lookup) -> None:
    """Refuse a Secret to what somebody starts who may not read it: it would be read to them, by a log or an endpoint.

    What an admin gave it stays with what it was given to, as long as that does not change.
    """
    match who.removeprefix("spiffe://").split("/")[1:]:
        case ["tenant", tenant, "user", user]:
            running = _running(new)
            if not _names_secret(running) or (old is not None and running == _running(old)):
                return
            for known in _all(lookup, "tenants"):
                if known["metadata"]["name"] == tenant and user in known["spec"].get("admins", ()):
                    return
            raise Denied(f"only admins of {tenant} may hand a Secret to what runs", hint="ask one to apply it")


def _running(o: Mapping[str, Any]) -> Any:
    """Return the part of a workload that says what runs."""
    spec = o.get("spec") or {}
    return spec.get("runtime") or (spec.get("template") or {}).get("spec") or spec


def _names_secret(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(
            (key in _SECRET_FIELDS and bool(child)) or (key == "secret" and isinstance(child, Mapping))
            or _names_secret(child)
            for key, child in value.items()
        )  # fmt: skip
    return isinstance(value, list) and any(map(_names_secret, value))


def _template_metadata(o: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata that a workload's pods get."""
    template = (o.get("spec") or {}).get("template")
    return (template.get("metadata") or {}) if isinstance(template, Mapping) else {}


def _inner_metadata(o: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata that a claim template's claims get."""
    found = (o.get("spec") or {}).get("metadata")
    return found if isinstance(found, Mapping) else {}


def _tenant(new: Mapping[str, Json], _who: str, lookup: Lookup) -> Iterator[FieldProblem]:
    wanted = new["spec"].get("namespaces", ())
    for other in _all(lookup, "tenants"):
        if other["metadata"]["name"] == new["metadata"]["name"]:
            continue
        for index, namespace in enumerate(wanted):
            if namespace in other["spec"].get("namespaces", ()):
                yield FieldProblem(
                    f"spec.namespaces[{index}]",
                    f"{namespace} belongs to tenant {other['metadata']['name']}",
                    "FieldValueDuplicate",
                )
    for index, namespace in enumerate(wanted):
        if namespace in SYSTEM_NAMESPACES:
            yield FieldProblem(f"spec.namespaces[{index}]", f"{namespace} is the system's", "FieldValueForbidden")


def _artifact(new: Mapping[str, Json], _who: str, _lookup: Lookup) -> Iterator[FieldProblem]:
    namespace = new["metadata"].get("namespace", "")
    repository = new["spec"]["artifact"]["repository"]
    if not repository.startswith(f"{namespace}/"):
        yield FieldProblem(
            "spec.artifact.repository",
            f"expected a repository below {namespace}/, got {excerpt(repository)}",
            "FieldValueForbidden",
        )


def _pipeline_run(new: Mapping[str, Json], _who: str, _lookup: Lookup) -> Iterator[FieldProblem]:
    for step in ("train", "evaluate"):
        yield from _environment((new["spec"].get(step) or {}).get("env"), f"spec.{step}.env")
    code = new["spec"].get("code")
    namespace = new["metadata"].get("namespace", "")
    if code and not code["repository"].startswith(f"{namespace}/"):
        yield FieldProblem(
            "spec.code.repository",
            f"expected a repository below {namespace}/, got {excerpt(code['repository'])}",
            "FieldValueForbidden",
        )


def _inference_service(new: Mapping[str, Json], _who: str, lookup: Lookup) -> Iterator[FieldProblem]:
    spec = new["spec"]
    if len(new["metadata"].get("name", "")) > _LONGEST_SERVICE:
        yield FieldProblem(
            "metadata.name", f"expected at most {_LONGEST_SERVICE} characters: replicas are named after it"
        )
    yield from _environment((spec.get("runtime") or {}).get("env"), "spec.runtime.env")
    scaling = spec.get("scaling")
    if scaling and spec.get("replicas", 1) > scaling.get("maxReplicas", 1):
        yield FieldProblem(
            "spec.replicas",
            f"expected at most scaling.maxReplicas {scaling.get('maxReplicas', 1)}, got {spec['replicas']}",
        )
    profile = spec.get("gpuProfile")
    if profile and lookup("gpuprofiles", "", profile) is None:
        yield FieldProblem("spec.gpuProfile", f"no GPUProfile {excerpt(profile)}", "FieldValueNotFound")


def _environment(variables: Any, where: str) -> Iterator[FieldProblem]:
    """Yield the variables that are the platform's: they say what a pod was given, and may not say otherwise."""
    for index, variable in enumerate(variables or ()):
        name = str(variable.get("name", ""))
        if name.startswith(_OURS) or name in _DEVICE_VARIABLES:
            yield FieldProblem(
                f"{where}[{index}].name", f"{excerpt(name)} is the platform's to set", "FieldValueForbidden"
            )


def _pod(new: Mapping[str, Json], who: str, _lookup: Lookup) -> Iterator[FieldProblem]:
    if _is_platform(who):
        return
    yield from _pod_spec(new.get("spec", {}), "spec")


def _workload(new: Mapping[str, Json], who: str, _lookup: Lookup) -> Iterator[FieldProblem]:
    if _is_platform(who):
        return
    yield from _pod_spec(new.get("spec", {}).get("template", {}).get("spec", {}), "spec.template.spec")


def _pod_spec(spec: Mapping[str, Any], where: str) -> Iterator[FieldProblem]:
    for index, volume in enumerate(spec.get("volumes") or ()):
        if "hostPath" in volume:
            yield FieldProblem(f"{where}.volumes[{index}].hostPath", "the platform's alone", "FieldValueForbidden")
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield FieldProblem(f"{where}.{field}", "the platform's alone", "FieldValueForbidden")
    for group in ("containers", "initContainers"):
        for number, container in enumerate(spec.get(group) or ()):
            if (container.get("securityContext") or {}).get("privileged"):
                yield FieldProblem(
                    f"{where}.{group}[{number}].securityContext.privileged", "never allowed", "FieldValueForbidden"
                )
            for index, variable in enumerate(container.get("env") or ()):
                if variable.get("name") in _DEVICE_VARIABLES:
                    yield FieldProblem(
                        f"{where}.{group}[{number}].env[{index}].name",
                        f"{variable['name']} would go around the claim: GPUs come by resourceClaims",
                        "FieldValueForbidden",
                    )


def _all(lookup: Lookup, plural: str) -> list[Mapping[str, Any]]:
    found = lookup(plural, "", "")
    return list(found.get("items", ())) if found else []


def _is_platform(who: str) -> bool:
    path = who.removeprefix("spiffe://").split("/")[1:]
    return len(path) == 2 and path[0] == "wharfinger"


_Rule: TypeAlias = Callable[[Mapping[str, Json], str, Lookup], Iterator[FieldProblem]]
_RULES: Mapping[tuple[str, str], _Rule] = {
    (GROUP, "tenants"): _tenant,
    (GROUP, "datasets"): _artifact,
    (GROUP, "models"): _artifact,
    (GROUP, "pipelineruns"): _pipeline_run,
    (GROUP, "inferenceservices"): _inference_service,
    ("", "pods"): _pod,
    ("apps", "deployments"): _workload,
    ("batch", "jobs"): _workload,
}
