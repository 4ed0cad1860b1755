"""The version converters that Kubernetes' server-side apply cases name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wharfinger.core.errors import Malformed
from wharfinger.local.merge import fieldpath
from wharfinger.local.merge.fieldpath import EMPTY, FieldSet
from wharfinger.local.merge.ownership import UnknownVersion
from wharfinger.local.merge.schema import Type

Convert = Callable[[Any, str, str], Any]


class CaseVersions:
    """The versions of one case: `types` compiles a type of the schema in use by its name."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.types: Callable[[str], Type] = lambda name: Type()
        self.accepted: list[str] | None = None
        self._named = row["type"]
        self._kind = row["converter"]
        ignored = row.get("ignoreFilter") or row.get("ignoredFields") or {}
        self._ignored: Mapping[str, FieldSet] = {name: fieldpath.parse(one) for name, one in ignored.items()}

    def name_of(self, version: str) -> str:
        """Return the name of the type of objects of a version."""
        if isinstance(self._named, dict):
            return self._named[version]
        return self._named or version

    def type_of(self, version: str) -> Type:
        """Return the type of objects of a version."""
        self._known(version)
        return self.types(self.name_of(version))

    def ownable(self, version: str, fields: FieldSet) -> FieldSet:
        """Return the fields that are not ignored."""
        return fieldpath.without(fields, self._ignored.get(version, EMPTY))

    def convert(self, value: Any, source: str, target: str) -> Any:
        """Convert an object."""
        self._known(target)
        if source == target or value is None:
            return value
        match self._kind:
            case "renaming":
                return _renamed(value, source, target)
            case "repeating":
                return {key: _repeated(child, int(target[1:])) for key, child in value.items()}
            case "reliantFields" | "reliantFieldsTypename":
                return _reliant(value, target)
        return value

    def _known(self, version: str) -> None:
        if self.accepted is not None and version not in self.accepted:
            raise UnknownVersion(f"expected a version of {self.accepted}, got {version}")
        if self._kind == "repeating" and not (version[:1] == "v" and version[1:].isdigit()):
            raise UnknownVersion(f"expected a version such as v2, got {version}")


def _renamed(value: Any, source: str, target: str) -> Any:
    if isinstance(value, dict):
        return {
            key.removesuffix(source) + target if key.endswith(source) else key: _renamed(child, source, target)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_renamed(child, source, target) for child in value]
    return value


def _repeated(value: Any, times: int) -> Any:
    if not isinstance(value, dict) or not value:
        return None
    # Names that become equal: the last one counts.
    return {key[0] * times: _repeated(value[key], times) for key in sorted(value)}


def _reliant(value: dict[str, Any], target: str) -> Any:
    names = {
        "v1": ("required_field_bar", "field_foo_rely_on_bar"),
        "v2": ("field_foo_rely_on_bar", "required_field_bar"),
    }
    there, here = names[target]
    if target == "v1" and there not in value:
        raise Malformed(f"expected the field {there}, got none")
    return {here if key == there else key: child for key, child in value.items()}
