"""IP addresses and prefixes as Kubernetes' fields take them.

Every check returns what is wrong as a list of messages, empty when nothing is. Two readings exist:
`strict` is what new fields demand (RFC 4291 and RFC 5952 text, no leading zeros, no IPv4-mapped IPv6);
the other also takes what old fields have always taken, leading zeros read as decimal.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

from wharfinger.core.printed import quoted

Address: TypeAlias = IPv4Address | IPv6Address

_ZEROS: Final = re.compile(r"(?<![0-9A-Fa-f])0+(?=[0-9A-Fa-f])", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)
_NO_ADDRESS: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_NO_PREFIX: Final = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_NO_INTERFACE: Final = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"


def address(text: str) -> list[str]:
    """Return what keeps `text` from being an address in its one canonical form."""
    problems = legacy_address(text, strict=True)
    read = _read(text)
    if not problems and read is not None and text != str(read):
        problems.append(f"must be in canonical form ({quoted(str(read))})")
    return problems


def legacy_address(text: str, *, strict: bool) -> list[str]:
    """Return what keeps `text` from being an address, in canonical form or not."""
    read = _read(text)
    if read is None:
        return [_NO_ADDRESS]
    problems = []
    if strict and _ZEROS.search(_dotted(text)):
        problems.append("must not have leading 0s")
    if strict and ":" in text and _mapped(read) is not None:
        problems.append("must not be an IPv4-mapped IPv6 address")
    return problems


def prefix(text: str) -> list[str]:
    """Return what keeps `text` from being a network prefix (CIDR) in its one canonical form."""
    problems = legacy_prefix(text, strict=True)
    read = _read_prefix(text)
    if not problems and read is not None and text != _network(*read):
        problems.append(f"must be in canonical form ({quoted(_network(*read))})")
    return problems


def legacy_prefix(text: str, *, strict: bool) -> list[str]:
    """Return what keeps `text` from being a network prefix, in canonical form or not."""
    read = _read_prefix(text)
    if read is None:
        return [_NO_PREFIX]
    if not strict:
        return []
    host, _, length = text.partition("/")
    if _ZEROS.search(_dotted(host)) or _ZEROS.match(length):
        return ["must not have leading 0s in IP or prefix length"]
    found, bits = read
    if ":" in host and _mapped(found) is not None:
        return ["must not have an IPv4-mapped IPv6 address"]
    if _masked(found, bits) != found:
        return ["must not have bits set beyond the prefix length"]
    return []


def interface_address(text: str) -> list[str]:
    """Return what keeps `text` from being a host's address with its prefix length, in canonical form."""
    read = _read_prefix(text)
    if read is None:
        return [_NO_INTERFACE]
    canonical = _with_length(*read)
    return [] if text == canonical else [f"must be in canonical form ({quoted(canonical)})"]


def address_warnings(field: str, text: str) -> list[str]:
    """Return what a client should be told of a `text` that `legacy_address` let pass."""
    read = _read(text)
    if read is None:
        return []
    shown = str(_mapped(read) or read)
    if legacy_address(text, strict=True):
        return [f"{field}: non-standard IP address {quoted(text)} is invalid: use {quoted(shown)}"]
    if ":" in text and text != shown:
        return [f"{field}: IPv6 address {quoted(text)} should be in RFC 5952 canonical format ({quoted(shown)})"]
    return []


def prefix_warnings(field: str, text: str) -> list[str]:
    """Return what a client should be told of a `text` that `legacy_prefix` let pass."""
    read = _read_prefix(text)
    if read is None:
        return []
    found, bits = read
    network = _network(found, bits)
    warnings = []
    if _masked(found, bits) != found:
        alone = _with_length(found, found.max_prefixlen)
        warnings.append(
            f"{field}: CIDR value {quoted(text)} is ambiguous in this context "
            f"(should be {quoted(network)} or {quoted(alone)}?)"
        )
    host, _, length = text.partition("/")
    if _ZEROS.search(_dotted(host)) or _ZEROS.match(length) or (":" in host and _mapped(found)):
        warnings.append(f"{field}: non-standard CIDR value {quoted(text)} is invalid: use {quoted(network)}")
    if not warnings and ":" in host and text != network:
        warnings.append(
            f"{field}: IPv6 CIDR value {quoted(text)} should be in RFC 5952 canonical format ({quoted(network)})"
        )
    return warnings


def _read(text: str) -> Address | None:
    """Read an address leniently; a zone (`%eth0`) is refused."""
    if "%" in text or len(text) > 256:
        return None
    try:
        plain = _ZEROS.sub("", text)
        return IPv6Address(plain) if ":" in text else IPv4Address(plain)
    except ValueError:
        return None


def _read_prefix(text: str) -> tuple[Address, int] | None:
    host, slash, length = text.partition("/")
    found = _read(host)
    if found is None or not slash or len(length) > 16 or _DIGITS.fullmatch(length) is None:
        return None
    bits = int(length)
    return (found, bits) if bits <= found.max_prefixlen else None


def _dotted(text: str) -> str:
    """Return the part of `text` in which a leading zero is not allowed: the dotted one."""
    return text.rpartition(":")[2] if "." in text else ""


def _mapped(found: Address) -> IPv4Address | None:
    return found.ipv4_mapped if isinstance(found, IPv6Address) else None


def _masked(found: Address, bits: int) -> Address:
    if isinstance(found, IPv4Address):
        return IPv4Network((int(found), bits), strict=False).network_address
    return IPv6Network((int(found), bits), strict=False).network_address


def _network(found: Address, bits: int) -> str:
    return _with_length(_masked(found, bits), bits)


def _with_length(found: Address, bits: int) -> str:
    """Write address and length; an IPv4-mapped address counts and prints as IPv4."""
    mapped = _mapped(found)
    if mapped is not None and bits >= 96:
        return f"{mapped}/{bits - 96}"
    return f"{mapped or found}/{bits}"
