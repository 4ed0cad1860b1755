"""Formats: what the `format` of a schema asks of a text (kube-openapi, validation/strfmt).

A format that is not known is not checked. Names are compared without dashes: `date-time` is `datetime`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import date
from email.utils import parseaddr
from typing import Final

import re2

from wharfinger.core import addresses, names
from wharfinger.kinds.structural.node import Node

Version = tuple[int, int]
"""A minor version of Kubernetes: (1, 36)."""

LATEST: Final[Version] = (1, 37)

INTRODUCED: Final[dict[str, Version]] = dict.fromkeys(
    (
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "duration",
        "datetime",
    ),
    (1, 0),
) | {"k8sshortname": (1, 34), "k8slongname": (1, 34)}
"""The formats of texts, and since which version of Kubernetes they are checked."""

_NUMBER_FORMATS: Final = {"integer": ("int32", "int64"), "number": ("float", "double")}


def normal(name: str) -> str:
    """Return the name of a format as it is compared."""
    return name.replace("-", "")


def effective(node: Node, version: Version = LATEST) -> str:
    """Return the format of `node` that is checked at `version`: empty if it is not known or does not fit."""
    name = node.format
    if not name:
        return ""
    kind = node.types[0] if len(node.types) == 1 else ""
    if kind in {"", "string"}:
        introduced = INTRODUCED.get(normal(name))
        return name if introduced is not None and version >= introduced else ""
    return name if name in _NUMBER_FORMATS.get(kind, ()) else ""


def settle(node: Node, version: Version = LATEST, *, typed: bool = False) -> None:
    """Forget the formats of `node` and below that are not checked at `version`; note whether values are `typed`."""
    node.format, node.typed = effective(node, version), typed
    for part in node.parts():
        settle(part, version, typed=typed)


def unrecognized(node: Node, version: Version = LATEST) -> list[str]:
    """Return the format of `node` when it is not checked at `version`."""
    return [node.format] if node.format and not effective(node, version) else []


def check_of(name: str) -> Callable[[str], bool] | None:
    """Return the check of texts of the format `name`; None where anything goes."""
    return _CHECKS.get(normal(name))


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _uuid(version: str, variant: str = "[0-9a-f]") -> Callable[[str], bool]:
    group = "[0-9a-f]"
    return _matches(f"(?i:{group}{{8}}-?{group}{{4}}-?{version}{group}{{3}}-?{variant}{group}{{3}}-?{group}{{12}})")


_LETTERS: Final = r"a-zA-Z0-9\p{S}\p{L}"
_hostname = re2.compile(
    rf"^([{_LETTERS}]((-?[{_LETTERS}]{{0,62}})?)"
    rf"|([{_LETTERS}](([{_LETTERS}-]{{0,61}}[{_LETTERS}])?)(\.)){{1,}}([a-zA-Z\p{{L}}]){{2,63}})\z"
)


def _is_hostname(text: str) -> bool:
    fits = len(text.encode("utf-8", "replace")) <= 255 and all(len(part.encode()) <= 63 for part in text.split("."))
    return fits and _hostname.match(text) is not None


def _is_date(text: str) -> bool:
    if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is None:
        return False
    try:
        date(max(int(text[:4]), 1), int(text[5:7]), int(text[8:]))
    except ValueError:
        return False
    return True


_time = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|[+-][0-9]{2}:[0-9]{2})")


def _is_datetime(text: str) -> bool:
    parts = text.lower().split("t")
    if len(parts) < 2 or not _is_date(parts[0]):
        return False
    match = _time.fullmatch(parts[1])
    return match is not None and match[1] <= "23" and match[2] <= "59" and match[3] <= "59"


_go_duration = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)")
_loose_duration = re2.compile("[0-9]+\\s*([A-Za-z\u00b5]+)")
_UNITS: Final = frozenset({"ns", "us", "\u00b5s", "ms", "s", "m", "h", "hr", "d", "w", "wk"})
_LONG_UNITS: Final = ("nano", "micro", "milli", "sec", "min", "hour", "day", "week")


def _is_duration(text: str) -> bool:
    if _go_duration.fullmatch(text) is not None:
        return True
    units = [unit.lower() for unit in _loose_duration.findall(text)]
    return any(unit in _UNITS or unit.startswith(_LONG_UNITS) for unit in units)


def _is_ipv6(text: str) -> bool:
    if "%" in text:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_mac(text: str) -> bool:
    return any(
        re.fullmatch(rf"[0-9a-fA-F]{{{width}}}(?:{mark}[0-9a-fA-F]{{{width}}}){{{count - 1}}}", text) is not None
        for width, mark, counts in ((2, "[:]", (6, 8, 20)), (2, "-", (6, 8, 20)), (4, r"\.", (3, 4, 10)))
        for count in counts
    )


def _is_isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text, flags=re.ASCII)
    if re.fullmatch("[0-9]{9}[0-9X]", digits) is None:
        return False
    last = 10 if digits[9] == "X" else int(digits[9])
    return (sum((at + 1) * int(digits[at]) for at in range(9)) + 10 * last) % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text, flags=re.ASCII)
    if re.fullmatch("[0-9]{13}", digits) is None:
        return False
    total = sum(int(digits[at]) * (1, 3)[at % 2] for at in range(12))
    return int(digits[12]) == (10 - total % 10) % 10


_card = re.compile(
    r"4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}"
)


def _is_card(text: str) -> bool:
    digits = re.sub("[^0-9]+", "", text)
    if _card.fullmatch(digits) is None:
        return False
    doubled = [int(digit) * (2 if at % 2 else 1) for at, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


_LONGEST_EMAIL: Final = 1024


def _is_email(text: str) -> bool:
    if len(text) > _LONGEST_EMAIL:
        return False
    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    if not (at and local and domain) or any(char in address for char in " \t\r\n<>,"):
        return False
    return bool(name) or text.strip(" \t").removeprefix("<").removesuffix(">") == address


def _is_uri(text: str) -> bool:
    """Check an absolute URI or an absolute path, as an HTTP request names it."""
    if not text or any(char <= " " or char == "\x7f" for char in text):
        return False
    scheme, colon, rest = text.partition(":")
    absolute = bool(colon) and re.fullmatch("[a-zA-Z][a-zA-Z0-9+.-]*", scheme) is not None and rest != ""
    if not absolute and not text.startswith("/"):
        return text == "*"
    if re.search("%(?![0-9a-fA-F]{2})", text.partition("?")[0]) is not None:
        return False
    authority = re.match("//([^/?#]*)", rest if absolute else "")
    return authority is None or _is_authority(authority[1])


def _is_authority(text: str) -> bool:
    host = text.rpartition("@")[2]
    if host.startswith("["):
        address, closed, port = host[1:].partition("]")
        return bool(closed) and _is_ipv6(address.partition("%25")[0]) and re.fullmatch("(?::[0-9]*)?", port) is not None
    name, _, port = host.partition(":")
    return re.fullmatch("[0-9]*", port) is not None and not any(char in '<>"{}|\\^`' for char in name)


_COLOR: Final = r"(?:0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])"

_CHECKS: Final[dict[str, Callable[[str], bool]]] = {
    "bsonobjectid": _matches("[0-9a-fA-F]{24}"),
    "uri": _is_uri,
    "email": _is_email,
    "hostname": _is_hostname,
    "ipv4": lambda text: "." in text and not addresses.legacy_address(text, strict=False),
    "ipv6": _is_ipv6,
    "cidr": lambda text: not addresses.legacy_prefix(text, strict=False),
    "mac": _is_mac,
    "uuid": _uuid("[0-9a-f]"),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89ab]"),
    "uuid5": _uuid("5", "[89ab]"),
    "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "creditcard": _is_card,
    "ssn": lambda text: len(text) == 11 and re.fullmatch("[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}", text) is not None,
    "hexcolor": _matches("#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _matches(rf"rgb\(\s*{_COLOR}\s*,\s*{_COLOR}\s*,\s*{_COLOR}\s*\)"),
    # The empty text too: it is nothing in base64, as the API server's own kinds have it.
    "byte": _matches("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
    "date": _is_date,
    "datetime": _is_datetime,
    "duration": _is_duration,
    "k8sshortname": lambda text: not names.dns_label(text),
    "k8slongname": lambda text: not names.dns_subdomain(text),
}
