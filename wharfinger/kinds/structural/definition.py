"""A CustomResourceDefinition itself: what a new one must be, and what of a stored one may change.

The v1 form is judged in the form that the API server keeps: what all versions share stands at the top of the spec,
and messages name it there (apis/apiextensions/validation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from wharfinger.core import names
from wharfinger.core.causes import child, invalid, item, key_of, not_supported, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.kinds.kind import Schema
from wharfinger.kinds.structural import crdschema, defaults, metadata, structure
from wharfinger.kinds.structural.conversion import conversion_problems, has_bad_bundle, is_recognized
from wharfinger.kinds.structural.crdschema import Demands
from wharfinger.kinds.structural.crdspec import column_problems, name_problems, subresource_problems, version_problems
from wharfinger.kinds.structural.formats import check_of
from wharfinger.kinds.structural.rules import Compile

Spec = dict[str, Any]

APPROVAL: Final = "api-approved.kubernetes.io"
_SHARED: Final = {
    "schema": "validation",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}
"""What a version says of itself, and what it is called at the top of the spec where all versions say the same."""


def validate_create(definition: Json, rules: Compile | None = None) -> list[FieldProblem]:
    """Return what is wrong with a new definition; `rules` compiles its validation rules, else none is compiled."""
    crd = _defaulted(definition)
    spec, status = internal(crd.get("spec") or {}), crd.get("status") or {}
    wanted = f"{(spec.get('names') or {}).get('plural') or ''}.{spec.get('group') or ''}"

    def name_check(name: str) -> list[str]:
        wrong = names.dns_subdomain(name)
        return wrong if name == wanted else [*wrong, 'must be spec.names.plural+"."+spec.group']

    own = crd.get("metadata") or {}
    problems = metadata.problems_on_create(own, namespaced=False, name=name_check)
    problems += _spec_problems(spec, Demands(rules=rules), recognized=True, any_bundle=True)
    problems += _status_problems(status, spec)
    problems += _approval_problems(crd, None)
    return problems + _preserve_problems(spec, None)


def validate_update(definition: Json, old: Json, rules: Compile | None = None) -> list[FieldProblem]:
    """Return what is wrong with a definition that replaces `old`. What `old` did not keep is not asked for now."""
    crd, stored = _defaulted(definition), _defaulted(old)
    spec, before = internal(crd.get("spec") or {}), internal(stored.get("spec") or {})
    established = any(
        condition.get("type") == "Established" and condition.get("status") == "True"
        for condition in (stored.get("status") or {}).get("conditions") or ()
    )
    problems = metadata.problems_on_update(crd.get("metadata") or {}, stored.get("metadata") or {})
    conversion = before.get("conversion") or {}
    problems += _spec_problems(
        spec,
        _kept_demands(before, spec, rules),
        recognized=is_recognized(conversion.get("conversionReviewVersions") or []),
        any_bundle=not established or has_bad_bundle(conversion),
        asked=_asks_for_schemas(before),
    )
    fixed = [("group", "group"), ("names.plural", "plural")]
    if established:
        fixed += [("scope", "scope"), ("names.kind", "kind")]
    for path, name in fixed:
        new, was = ((each.get("names") or {} if "." in path else each).get(name) or "" for each in (spec, before))
        if new != was:
            problems.append(invalid(f"spec.{path}", new, metadata.IMMUTABLE))
    problems += _status_problems(crd.get("status") or {}, spec)
    problems += _approval_problems(crd, stored)
    return problems + _preserve_problems(spec, before)


def _defaulted(definition: Json) -> Json:
    """Return a definition with v1's defaults."""
    spec = dict(definition.get("spec") or {})
    called = dict(spec.get("names") or {})
    kind = called.get("kind") or ""
    called["singular"] = called.get("singular") or kind.lower()
    called["listKind"] = called.get("listKind") or (f"{kind}List" if kind else "")
    spec["names"] = called
    spec.setdefault("conversion", {"strategy": "None"})
    status = dict(definition.get("status") or {})
    if not status.get("storedVersions"):
        stored = [version.get("name") or "" for version in spec.get("versions") or () if version.get("storage")]
        status["storedVersions"] = stored[:1]
    return {**definition, "spec": spec, "status": status}


def internal(spec: Spec) -> Spec:
    """Return a v1 spec in the form that the API server keeps."""
    made = {name: value for name, value in spec.items() if name != "versions"}
    versions = [dict(version) for version in spec.get("versions") or ()]
    conversion = dict(spec.get("conversion") or {})
    webhook = conversion.pop("webhook", None) or {}
    if webhook.get("clientConfig") is not None:
        conversion["webhookClientConfig"] = webhook["clientConfig"]
    if webhook.get("conversionReviewVersions"):
        conversion["conversionReviewVersions"] = webhook["conversionReviewVersions"]
    made["conversion"] = conversion
    made["versions"] = versions
    if versions:
        made["version"] = versions[0].get("name") or ""
        for name, top in _SHARED.items():
            value = versions[0].get(name)
            if all(version.get(name) == value for version in versions):
                if value is not None:
                    made[top] = value
                for version in versions:
                    version.pop(name, None)
    return made


def schemas(spec: Spec) -> Iterator[Schema]:
    """Yield the schemas of an internal spec."""
    for holder in (spec.get("validation"), *(version.get("schema") for version in spec.get("versions") or ())):
        document = (holder or {}).get("openAPIV3Schema")
        if document is not None:
            yield document


def _asks_for_schemas(before: Spec) -> bool:
    """Tell whether every version of a stored definition has a schema."""
    if ((before.get("validation") or {}).get("openAPIV3Schema")) is not None:
        return True
    return all((version.get("schema") or {}).get("openAPIV3Schema") is not None for version in before["versions"])


def _kept_demands(before: Spec, spec: Spec, rules: Compile | None) -> Demands:
    """Return the demands that a stored definition met."""
    old = list(schemas(before))
    return Demands(
        valid_types=not any(crdschema.has(each, _has_odd_type) for each in old),
        structural=not any(map(_is_unstructured, old)),
        pruned_defaults=not any(map(_has_unpruned, old)),
        atomic_sets=not any(crdschema.has(each, crdschema.is_non_atomic_set) for each in old),
        sound_keys=not any(crdschema.has(each, lambda part: any(crdschema.unsound_keys(part))) for each in old),
        rules=rules,
        many_selectable=frozenset(_too_many_before(before, spec)),
    )


def _too_many_before(before: Spec, spec: Spec) -> Iterator[str]:
    old = {version.get("name"): version for version in before["versions"]}
    pairs = [("", before, spec), *((v.get("name") or "", old.get(v.get("name"), {}), v) for v in spec["versions"])]
    for name, was, new in pairs:
        fields = was.get("selectableFields") or []
        if len(fields) > crdschema.MOST_SELECTABLE and fields == new.get("selectableFields"):
            yield name


def _has_odd_type(document: Schema) -> bool:
    return (document.get("type") or "object") not in {"array", "boolean", "integer", "number", "object", "string"}


def _is_unstructured(document: Schema) -> bool:
    try:
        return bool(structure.problems(document))
    except Malformed:
        return True


def _has_unpruned(document: Schema) -> bool:
    if _is_unstructured(document):
        return False
    try:
        return defaults.pruned_document(document) != document
    except Malformed:
        return False


def _has_extension(document: Schema) -> bool:
    return (
        bool(document.get(structure.EMBEDDED) or document.get(structure.INT_OR_STRING))
        or bool(document.get(crdschema.MAP_KEYS) or document.get(crdschema.RULES))
        or any(document.get(name) is not None for name in (structure.PRESERVE, crdschema.LIST_TYPE))
    )


def _spec_problems(
    spec: Spec, demands: Demands, *, recognized: bool, any_bundle: bool, asked: bool = True
) -> Iterator[FieldProblem]:
    preserve = bool(spec.get("preserveUnknownFields"))
    all_schemas = list(schemas(spec))
    yield from _group_problems(spec)
    if not preserve or any(crdschema.has(each, _has_extension) for each in all_schemas):
        demands = replace(demands, structural=True)
    yield from _missing_schemas(spec, asked=asked, preserve=preserve)
    if any(crdschema.has(each, lambda part: part.get("default") is not None) for each in all_schemas):
        demands = replace(demands, structural=True)
        if preserve:
            text = "must be false in order to use defaults in the schema"
            yield invalid("spec.preserveUnknownFields", True, text)
    yield from version_problems(spec, demands)
    yield from _required_names(spec)
    yield from name_problems(spec.get("names") or {}, "spec.names")
    status = any("status" in (each.get("subresources") or {}) for each in (spec, *spec["versions"]))
    holder = spec.get("validation") or {}
    yield from crdschema.problems(holder.get("openAPIV3Schema"), "spec.validation", demands, status=status)
    yield from subresource_problems(spec.get("subresources"), "spec.subresources")
    for index, column in enumerate(spec.get("additionalPrinterColumns") or ()):
        yield from column_problems(column, item("spec.additionalPrinterColumns", index))
    fields = spec.get("selectableFields")
    if fields and not holder:
        yield invalid("spec.selectableFields", "", "may only be set when validations.schema is included")
    elif fields:
        document = holder.get("openAPIV3Schema") or {}
        try:
            yield from crdschema.selectable_problems(fields, document, "spec.selectableFields", demands, "")
        except Malformed as error:
            yield invalid("spec.schema.openAPIV3Schema", "", error.message)
    if (spec["conversion"].get("strategy") or "") != "None" and preserve:
        text = "must be None if spec.preserveUnknownFields is true"
        yield invalid("spec.conversion.strategy", spec["conversion"].get("strategy") or "", text)
    yield from conversion_problems(spec["conversion"], recognized=recognized, any_bundle=any_bundle)


def _group_problems(spec: Spec) -> Iterator[FieldProblem]:
    group, scope = spec.get("group") or "", spec.get("scope") or ""
    wrong = names.dns_subdomain(group) if group else []
    if not group:
        yield required("spec.group")
    elif wrong:
        yield invalid("spec.group", group, ",".join(wrong))
    elif "." not in group:
        yield invalid("spec.group", group, "should be a domain with at least one dot")
    if not scope:
        yield required("spec.scope")
    elif scope not in {"Cluster", "Namespaced"}:
        yield not_supported("spec.scope", scope, ("Cluster", "Namespaced"))


def _missing_schemas(spec: Spec, *, asked: bool, preserve: bool) -> Iterator[FieldProblem]:
    if ((spec.get("validation") or {}).get("openAPIV3Schema")) is not None or (preserve and not asked):
        return
    for index, version in enumerate(spec["versions"]):
        if ((version.get("schema") or {}).get("openAPIV3Schema")) is None and (asked or version.get("served")):
            at = child(item("spec.versions", index), "schema.openAPIV3Schema")
            yield required(at, "" if asked else "because otherwise all fields are pruned")


def _required_names(spec: Spec) -> Iterator[FieldProblem]:
    for name in ("plural", "singular", "kind", "listKind"):
        if not (spec.get("names") or {}).get(name):
            yield required(f"spec.names.{name}")


def _status_problems(status: Json, spec: Spec) -> Iterator[FieldProblem]:
    yield from name_problems(status.get("acceptedNames") or {}, "status.acceptedNames")
    yield from stored_version_problems(status.get("storedVersions") or [], spec["versions"])


def stored_version_problems(stored: list[str], versions: list[Json]) -> Iterator[FieldProblem]:
    """Yield what is wrong with `status.storedVersions`, given the versions of the spec."""
    path = "status.storedVersions"
    if not stored:
        yield invalid(path, stored, "must have at least one stored version")
        return
    named = {version.get("name") or "" for version in versions}
    for version in versions:
        name = version.get("name") or ""
        if version.get("storage") and name not in stored:
            yield invalid(path, stored, f"must have the storage version {name}")
    for index, name in enumerate(stored):
        if name not in named:
            text = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions"
                f" until a storage migration ensures no data remains persisted in {name} and removes {name} from"
                " status.storedVersions"
            )
            yield invalid(item(path, index), name, text)


def _approval(crd: Json) -> tuple[str, str]:
    """Return the state of a definition's approval by Kubernetes' own reviewers, and the reason."""
    said = ((crd.get("metadata") or {}).get("annotations") or {}).get(APPROVAL) or ""
    see = "see https://github.com/kubernetes/enhancements/pull/1111"
    if not said:
        return "missing", f'protected groups must have approval annotation "{APPROVAL}", {see}'
    if said.startswith("unapproved"):
        return "bypassed", ""
    is_uri = check_of("uri")
    if is_uri is not None and is_uri(said) and "://" in said and said.partition("://")[2].partition("/")[0]:
        return "approved", ""
    text = 'with either a URL or a reason starting with "unapproved"'
    return "invalid", f'protected groups must have approval annotation "{APPROVAL}" {text}, {see}'


def _approval_problems(crd: Json, old: Json | None) -> list[FieldProblem]:
    group = (crd.get("spec") or {}).get("group") or ""
    if not any(group == owner or group.endswith(f".{owner}") for owner in ("k8s.io", "kubernetes.io")):
        return []
    state, reason = _approval(crd)
    if (old is not None and _approval(old)[0] == state) or state in {"approved", "bypassed"}:
        return []
    at = key_of("metadata.annotations", APPROVAL)
    if state == "missing":
        return [required(at, reason)]
    return [invalid(at, crd["metadata"]["annotations"][APPROVAL], reason)]


def _preserve_problems(spec: Spec, before: Spec | None) -> list[FieldProblem]:
    if not spec.get("preserveUnknownFields") or (before is not None and before.get("preserveUnknownFields")):
        return []
    text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
    return [invalid("spec.preserveUnknownFields", True, text)]
