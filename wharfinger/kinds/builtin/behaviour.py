"""What a kind does beyond its schema, as pure functions that the API server calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from wharfinger.core import names
from wharfinger.core.clock import Instant
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.kinds.kind import Column, Kind

Prepare: TypeAlias = Callable[[Json, "Json | None"], None]
"""Changes a new object in place, given the stored one (None on creation)."""

Check: TypeAlias = Callable[[Json, "Json | None"], list[FieldProblem]]
"""Returns what is wrong with a new object, given the stored one (None on creation)."""


def _leave(_new: Json, _old: Json | None) -> None:
    """Change nothing."""


def _approve(_new: Json, _old: Json | None) -> list[FieldProblem]:
    return []


@dataclass(frozen=True, slots=True)
class Rows:
    """What `get` prints of a kind when JSONPath columns cannot say it: the columns, and an object's cells."""

    columns: tuple[Column, ...]
    cells: Callable[[Json, Instant], Sequence[Json]]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a built-in kind does.

    `name` checks `metadata.name`. `generation` says that the server counts changes of the spec,
    `counts_annotations` that it counts those of annotations too.
    `graceful` says that a deletion first asks the object to end (pods). `prepare` runs before
    defaulting on writes of the object itself, `prepare_status` on writes of its status; `default` fills
    in what the schema's defaults cannot express; `check` validates beyond the schema.
    """

    name: Callable[[str], list[str]] = names.dns_subdomain
    generation: bool = False
    counts_annotations: bool = False
    graceful: bool = False
    create_on_update: bool = False
    prepare: Prepare = _leave
    prepare_status: Prepare = _leave
    default: Callable[[Json], None] = field(default=lambda _: None)
    check: Check = _approve
    rows: Rows | None = None


@dataclass(frozen=True, slots=True)
class Builtin:
    """A built-in kind: what it is and what it does."""

    kind: Kind
    behaviour: Behaviour
