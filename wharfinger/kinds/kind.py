"""A kind of object: its names, its schema, what `get` prints, which subresources it has.

The same value describes Wharfinger's own kinds and the built-in ones of Kubernetes that the local
API server serves. Custom resource definitions, discovery, OpenAPI and reference docs follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]
"""An OpenAPI v3 schema that is structural (Kubernetes apiextensions/v1, "structural schema")."""

GROUP = "wharfinger.io"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column: `path` is a JSONPath below the object, `type` string, integer, boolean or date.

    `priority` 0 is always shown, 1 only with `-o wide`.
    """

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource reads and writes (apiextensions/v1 CustomResourceSubresourceScale)."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    label_selector: str = ".status.selector"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version of one group (`group` is empty for Kubernetes' core group).

    `schema` is the whole object's; `status` says whether status is a subresource, written apart from
    the rest. `selectable` lists the field paths that a field selector may name besides
    `metadata.name` and `metadata.namespace`.
    """

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool
    schema: Schema = field(repr=False)
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    status: bool = True
    scale: Scale | None = None
    selectable: tuple[str, ...] = ()
    description: str = ""

    @property
    def singular(self) -> str:
        """The name in lower case, as `kubectl get` accepts it."""
        return self.name.lower()

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_name(self) -> str:
        """The kind of a list of these."""
        return self.name + "List"

    @property
    def resource(self) -> str:
        """`plural.group`, as a CRD and an audit record name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural
