"""CEL's front end: what types and functions an environment declares to the parser and type checker.

The only module that touches cel-expr-python. Its configuration takes any extension name in silence, so the names
are checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wharfinger.core.errors import Invalid, excerpt

LIBRARIES: Final = frozenset({"bindings", "strings", "quantity", "semver"})
"""What an environment can offer beyond the standard functions: `cel.bind`, strings, and Kubernetes' two."""

_SIMPLE: Final = frozenset({"bool", "int", "uint", "double", "string", "bytes", "dyn", "quantity", "semver"})


def _parts(text: str) -> tuple[str, list[str]]:
    """Split `map(string, dyn)` into its name and its parameters."""
    name, bracket, rest = text.partition("(")
    if not bracket or not rest.endswith(")"):
        return text.strip(), []
    parts, depth = [""], 0
    for character in rest[:-1]:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return name.strip(), [part.strip() for part in parts]


def check_type(name: str, text: str) -> None:
    """Raise `Invalid` unless `text` is the type that variable `name` may have."""
    kind, parameters = _parts(text)
    if kind in _SIMPLE and not parameters:
        return
    if (kind, len(parameters)) not in (("list", 1), ("map", 2)):
        raise Invalid(f"variable {excerpt(name)}: expected a CEL type, got {excerpt(text)}")
    for parameter in parameters:
        check_type(name, parameter)


_Declaration = tuple[str, bool, tuple[str, ...], str]


def _ordered(kind: str) -> list[_Declaration]:
    return [
        ("isLessThan", True, (kind, kind), "bool"),
        ("isGreaterThan", True, (kind, kind), "bool"),
        ("compareTo", True, (kind, kind), "int"),
    ]


_DECLARATIONS: Final[dict[str, list[_Declaration]]] = {
    "quantity": [
        ("quantity", False, ("string",), "quantity"),
        ("isQuantity", False, ("string",), "bool"),
        ("isInteger", True, ("quantity",), "bool"),
        ("asInteger", True, ("quantity",), "int"),
        ("asApproximateFloat", True, ("quantity",), "double"),
        ("sign", True, ("quantity",), "int"),
        ("add", True, ("quantity", "quantity"), "quantity"),
        ("add", True, ("quantity", "int"), "quantity"),
        ("sub", True, ("quantity", "quantity"), "quantity"),
        ("sub", True, ("quantity", "int"), "quantity"),
        *_ordered("quantity"),
    ],
    "semver": [
        ("semver", False, ("string",), "semver"),
        ("semver", False, ("string", "bool"), "semver"),
        ("isSemver", False, ("string",), "bool"),
        ("isSemver", False, ("string", "bool"), "bool"),
        ("major", True, ("semver",), "int"),
        ("minor", True, ("semver",), "int"),
        ("patch", True, ("semver",), "int"),
        *_ordered("semver"),
    ],
}
"""Kubernetes' functions as the type checker sees them: name, method or not, parameters, result."""


def front_end(variables: Mapping[str, str], libraries: frozenset[str]) -> Any:
    """Return a `cel_expr_python.cel.Env` with these variables and libraries, both checked before."""
    # Loaded when the first expression is compiled: 30 MB that most processes do not need.
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_strings

    quantity, semver = cel.Type.AbstractType("kubernetes.Quantity"), cel.Type.AbstractType("kubernetes.Semver")
    simple = {"quantity": quantity, "semver": semver}

    def declared(text: str) -> Any:
        kind, parameters = _parts(text)
        match kind:
            case "list":
                return cel.Type.List(declared(parameters[0]))
            case "map":
                return cel.Type.Map(declared(parameters[0]), declared(parameters[1]))
        return simple[kind] if kind in simple else getattr(cel.Type, kind.upper())

    functions: dict[str, list[Any]] = {}
    for library, rows in _DECLARATIONS.items():
        for name, member, parameters, result in rows if library in libraries else ():
            overloads = functions.setdefault(name, [])
            overloads.append(
                cel.Overload(
                    f"{library}_{name}_{'_'.join(parameters)}",
                    declared(result),
                    [declared(parameter) for parameter in parameters],
                    is_member=member,
                )
            )
    extensions = {"bindings": ext_bindings.ExtBindings, "strings": ext_strings.ExtStrings}
    return cel.NewEnv(
        variables={name: declared(text) for name, text in variables.items()},
        extensions=[extension() for name, extension in extensions.items() if name in libraries],
        functions=[cel.FunctionDecl(name, overloads) for name, overloads in functions.items()],
    )
