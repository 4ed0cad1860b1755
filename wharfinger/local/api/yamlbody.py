"""YAML in and out, as Kubernetes means it: JSON's values in another dress. Pure.

Apart from `body` because PyYAML is slow to import and few requests need it. Times stay texts, tags
other than YAML's own are refused, and so are aliases that would unfold into more than the body's own limit.
"""

from __future__ import annotations

import math
from typing import Any, Final

import yaml

from wharfinger.core.document import Json, check_depth
from wharfinger.core.errors import Malformed, excerpt

_MOST_NODES: Final = 200_000
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Reader(_Loader):  # type: ignore[misc]
    """A safe loader that notices repeated names and leaves times as texts."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.repeated: list[str] = []

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        made: dict[Any, Any] = {}
        for name_node, value_node in node.value:
            name = self.construct_object(name_node, deep=True)
            if isinstance(name, bool | int | float):
                name = name_node.value
            if not isinstance(name, str):
                raise Malformed(f"expected texts as names of a YAML mapping, got {excerpt(name)}")
            if name in made:
                self.repeated.append(name)
            made[name] = self.construct_object(value_node, deep=deep)
        return made


_Reader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read(data: bytes) -> tuple[Json, list[str]]:
    """Return the value of the one YAML document in `data`, and a message for each repeated name.

    Raises `Malformed` for anything else, and for what JSON could not hold.
    """
    reader = None
    try:
        reader = _Reader(data)
        value = reader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"expected YAML: {excerpt(str(error), 300)}") from error
    finally:
        if reader is not None:
            reader.dispose()
    _check(value)
    check_depth(value)
    return value, [f'duplicate field "{name}"' for name in reader.repeated]


def write(value: Json) -> bytes:
    """Return `value` as a YAML document."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=True, allow_unicode=True, default_flow_style=False)
    return str(text).encode()


def _check(value: Json) -> None:
    """Refuse what JSON has no word for, and documents that unfold without end."""
    left = _MOST_NODES
    waiting = [value]
    while waiting:
        left -= 1
        if left < 0:
            raise Malformed(f"expected a YAML document of at most {_MOST_NODES} nodes, aliases unfolded")
        node = waiting.pop()
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, float) and not math.isfinite(node):
            raise Malformed(f"expected a finite number, got {node}")
        elif isinstance(node, int) and not isinstance(node, bool) and not -(2**63) <= node < 2**63:
            raise Malformed("expected an integer of 64 bits")
        elif node is not None and not isinstance(node, str | int | float):
            raise Malformed(f"expected a value that JSON has, got {type(node).__name__}")
