"""CEL names: property names as identifiers of CEL, and back (apiserver, cel Escape).

`a-b` is `a__dash__b`, a word that CEL keeps for itself is `__for__`; a name with other characters cannot be asked for.
"""

from __future__ import annotations

import re
from typing import Final

RESERVED: Final = frozenset(
    {
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    }
)
_ESCAPES: Final = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_PLAIN: Final = {"underscores": "__", "dot": ".", "dash": "-", "slash": "/"}
_NAME: Final = re.compile(r"[a-zA-Z_./-][a-zA-Z0-9_./-]*")
_SPECIAL: Final = re.compile(r"__|[-./]")
_SEQUENCE: Final = re.compile(r"_{2}([^_]+)_{2}")


def escape(name: str) -> str | None:
    """Return the identifier of a property; None when it has none."""
    if name in RESERVED:
        return f"__{name}__"
    if _NAME.fullmatch(name) is None:
        return None
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], name)


def unescape(identifier: str) -> str | None:
    """Return the property that an identifier stands for; None when it holds an escape that is none."""
    for match in _SEQUENCE.finditer(identifier):
        word = match[1]
        if word not in _PLAIN and not (word in RESERVED and match[0] == identifier):
            return None
    return _SEQUENCE.sub(lambda match: _PLAIN.get(match[1], match[1]), identifier)
