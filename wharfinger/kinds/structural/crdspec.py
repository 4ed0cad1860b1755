"""The parts of a CustomResourceDefinition's spec: versions, names, subresources, printer columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from wharfinger.core import names
from wharfinger.core.causes import child, invalid, item, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.kinds.structural import crdschema
from wharfinger.kinds.structural.crdschema import Demands

LONGEST_WARNING: Final = 256
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS: Final = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")


def version_problems(spec: dict[str, Any], demands: Demands) -> Iterator[FieldProblem]:
    """Yield what is wrong with the versions of a spec in its internal form."""
    versions = spec["versions"]
    per_version = any(version.get("subresources") is not None for version in versions)
    for index, version in enumerate(versions):
        at, name = item("spec.versions", index), version.get("name") or ""
        wrong = names.dns_1035_label(name)
        if wrong:
            yield invalid(child(at, "name"), name, ",".join(wrong))
        holder = version if per_version else spec
        status = "status" in (holder.get("subresources") or {})
        yield from _version_problems(version, at, demands, status=status)
    called = [version.get("name") or "" for version in versions]
    if len(set(called)) < len(called):
        yield invalid("spec.versions", versions, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid("spec.versions", versions, "must have exactly one version marked as storage version")
    if spec.get("version"):
        wrong = names.dns_1035_label(spec["version"])
        if wrong:
            yield invalid("spec.version", spec["version"], ",".join(wrong))


def _version_problems(version: Json, path: str, demands: Demands, *, status: bool) -> Iterator[FieldProblem]:
    warning = version.get("deprecationWarning")
    for text in warning_problems(warning, deprecated=bool(version.get("deprecated"))):
        yield invalid(child(path, "deprecationWarning"), warning, text)
    holder = version.get("schema") or {}
    document = holder.get("openAPIV3Schema")
    yield from crdschema.problems(document, child(path, "schema"), demands, status=status)
    yield from subresource_problems(version.get("subresources"), child(path, "subresources"))
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        yield from column_problems(column, item(child(path, "additionalPrinterColumns"), index))
    fields, at = version.get("selectableFields"), child(path, "selectableFields")
    if not fields:
        return
    if document is None:
        yield invalid(at, "", "may only be set when `version.schema.openAPIV3Schema` is not included")
        return
    try:
        yield from crdschema.selectable_problems(fields, document, at, demands, version.get("name") or "")
    except Malformed as error:
        yield invalid(child(path, "schema.openAPIV3Schema"), "", error.message)


def warning_problems(warning: str | None, *, deprecated: bool) -> list[str]:
    """Return what is wrong with the warning that users of a deprecated version get."""
    if warning is None:
        return []
    if not deprecated:
        return ["can only be set for deprecated versions"]
    problems = []
    if len(warning.encode("utf-8", "surrogatepass")) > LONGEST_WARNING:
        problems.append(f"must be <= {LONGEST_WARNING} characters long")
    if not warning:
        problems.append("must not be an empty string")
    for index, char in enumerate(warning):
        if not char.isprintable():
            before = len(warning[:index].encode("utf-8", "surrogatepass"))
            text = f"must only contain printable UTF-8 characters; non-printable character found at index {before}"
            problems.append(text)
            break
    return problems


def name_problems(called: Json, path: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with the names of a kind."""
    for name in ("plural", "singular", "kind", "listKind"):
        text = called.get(name) or ""
        mixed = name in {"kind", "listKind"}
        wrong = names.dns_1035_label(text.lower() if mixed else text) if text else []
        if wrong:
            start = "may have mixed case, but should otherwise match: " if mixed else ""
            yield invalid(child(path, name), text, start + ",".join(wrong))
    for name in ("shortNames", "categories"):
        for index, text in enumerate(called.get(name) or ()):
            wrong = names.dns_1035_label(text)
            if wrong:
                yield invalid(item(child(path, name), index), text, ",".join(wrong))
    if called.get("kind") and called.get("kind") == called.get("listKind"):
        yield invalid(child(path, "listKind"), called["listKind"], "kind and listKind may not be the same")


def column_problems(column: Json, path: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with a printer column."""
    kind, form, where = column.get("type") or "", column.get("format") or "", column.get("jsonPath") or ""
    if not column.get("name"):
        yield required(child(path, "name"))
    if kind not in _COLUMN_TYPES:
        text = f"must be one of {','.join(_COLUMN_TYPES)}"
        yield invalid(child(path, "type"), kind, text) if kind else required(child(path, "type"), text)
    if form and form not in _COLUMN_FORMATS:
        yield invalid(child(path, "format"), form, f"must be one of {','.join(_COLUMN_FORMATS)}")
    if not where:
        yield required(child(path, "JSONPath"))
    else:
        yield from _path_problems(where, child(path, "JSONPath"))


def _path_problems(where: str, path: str) -> Iterator[FieldProblem]:
    if not where.startswith("."):
        yield invalid(path, where, "must be a simple json path starting with .")


def subresource_problems(subresources: Json, path: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with the paths of the scale subresource."""
    scale = (subresources or {}).get("scale")
    if scale is None:
        return
    for name, under in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        where, at = scale.get(name) or "", child(path, f"scale.{name}")
        if not where:
            yield required(at)
        elif not where.startswith("."):
            yield from _path_problems(where, at)
        elif not where.startswith(under):
            yield invalid(at, where, f"should be a json path under {under.removesuffix('.')}")
    where = scale.get("labelSelectorPath") or ""
    at = child(path, "scale.labelSelectorPath")
    if where and not where.startswith("."):
        yield from _path_problems(where, at)
    elif where and not where.startswith((".spec.", ".status.")):
        yield invalid(at, where, "should be a json path under either .spec or .status")
