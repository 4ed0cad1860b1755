"""Names: what Kubernetes lets things be called.

Every check returns what is wrong with a text as a list of messages, empty when nothing is; the wording
starts as the API server's does. Checks whose answer also needs a cause type (missing or wrong) take a
field path and return `FieldProblem`s. Lengths count UTF-8 bytes, as the API server does.
"""

from __future__ import annotations

import re
from typing import Final

from wharfinger.core.causes import invalid, required
from wharfinger.core.errors import FieldProblem

LABEL_LENGTH: Final = 63
SUBDOMAIN_LENGTH: Final = 253
PORT_NAME_LENGTH: Final = 15
LARGEST_ID: Final = 2**31 - 1

_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_UNDERSCORED_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_UNDERSCORED = rf"{_UNDERSCORED_LABEL}(\.{_UNDERSCORED_LABEL})*"
_WILDCARD = rf"\*\.{_DNS_SUBDOMAIN}"
_DNS_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_KEY_NAME})?"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_ENVIRONMENT = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"

_dns_label = re.compile(_DNS_LABEL)
_dns_subdomain = re.compile(_DNS_SUBDOMAIN)
_dns_subdomain_caseless = re.compile(_DNS_SUBDOMAIN, re.IGNORECASE | re.ASCII)
_underscored = re.compile(_UNDERSCORED)
_wildcard = re.compile(_WILDCARD)
_dns_1035 = re.compile(_DNS_1035)
_key_name = re.compile(_KEY_NAME)
_c_identifier = re.compile(_C_IDENTIFIER)
_environment = re.compile(_ENVIRONMENT)
_config_key = re.compile(_CONFIG_KEY)
_header = re.compile(_HEADER)
_percent = re.compile(_PERCENT)
_http_path = re.compile(_HTTP_PATH)
_port_characters = re.compile("[-a-z0-9]+")
_lower_letter = re.compile("[a-z]")
_relaxed_environment = re.compile("[ -<>-~]*")
_decimal_integer = re.compile("0|-?[1-9][0-9]*")

_LOWER = "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
_NAME_PART = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)


def dns_label(text: str) -> list[str]:
    """Check a DNS label (RFC 1123): lower case, up to 63; namespaces, containers."""
    problems = _length(text, LABEL_LENGTH)
    if _dns_label.fullmatch(text) is None:
        if _dns_subdomain.fullmatch(text) is not None:
            problems.append("must not contain dots")
        else:
            rule = (
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
                "and must start and end with an alphanumeric character"
            )
            problems.append(_pattern(rule, _DNS_LABEL, "my-name", "123-abc"))
    return problems


def dns_subdomain(text: str) -> list[str]:
    """Check a DNS subdomain (RFC 1123): lower case labels with dots, up to 253; most objects' names."""
    problems = _length(text, SUBDOMAIN_LENGTH)
    if _dns_subdomain.fullmatch(text) is None:
        rule = f"a lowercase RFC 1123 subdomain must consist of lower case {_LOWER}"
        problems.append(_pattern(rule, _DNS_SUBDOMAIN, "example.com"))
    return problems


def dns_subdomain_caseless(text: str) -> list[str]:
    """Check a DNS subdomain in any case."""
    problems = _length(text, SUBDOMAIN_LENGTH, "bytes")
    if _dns_subdomain_caseless.fullmatch(text) is None:
        problems.append(_pattern(f"an RFC 1123 subdomain must consist of {_LOWER}", _DNS_SUBDOMAIN, "Example.com"))
    return problems


def dns_subdomain_with_underscore(text: str) -> list[str]:
    """Check a DNS subdomain whose labels may hold `_`."""
    problems = _length(text, SUBDOMAIN_LENGTH)
    if _underscored.fullmatch(text) is None:
        rule = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_pattern(rule, _UNDERSCORED, "example.com"))
    return problems


def dns_wildcard(text: str) -> list[str]:
    """Check a DNS subdomain after `*.`."""
    problems = _length(text, SUBDOMAIN_LENGTH)
    if _wildcard.fullmatch(text) is None:
        rule = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
            "consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        problems.append(_pattern(rule, _WILDCARD, "*.example.com"))
    return problems


def dns_1035_label(text: str) -> list[str]:
    """Check a DNS label that starts with a letter (RFC 1035): services, CRD plurals."""
    problems = _length(text, LABEL_LENGTH)
    if _dns_1035.fullmatch(text) is None:
        rule = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character"
        )
        problems.append(_pattern(rule, _DNS_1035, "my-name", "abc-123"))
    return problems


def generated_prefix(text: str) -> str:
    """Return the name to check in place of a `metadata.generateName`: it may end in a dash that a name may not."""
    return text[:-2] + "a" if len(text) > 1 and text.endswith("-") else text


def label_key(text: str) -> list[str]:
    """Check a key of labels and annotations (a qualified name): `name` or `example.com/name`."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        rule = _pattern(f"a valid label key {_NAME_PART}", _KEY_NAME, "MyName", "my.name", "123-abc")
        return [f"{rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    problems = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash:
        problems.extend(_length(prefix, SUBDOMAIN_LENGTH, "bytes", "prefix part "))
        if _dns_subdomain.fullmatch(prefix) is None:
            problems.append(f"prefix part {dns_subdomain('')[0]}")
    if not name:
        problems.append("name part must be non-empty")
    problems.extend(_length(name, LABEL_LENGTH, "bytes", "name part "))
    if _key_name.fullmatch(name) is None:
        problems.append(_pattern(f"name part {_NAME_PART}", _KEY_NAME, "MyName", "my.name", "123-abc"))
    return problems


def prefixed_label_key(text: str) -> list[str]:
    """Check a label key that must have a prefix."""
    return label_key(text) or ([] if "/" in text else ["must include a prefix (e.g. 'example.com/key')"])


def label_value(text: str) -> list[str]:
    """Check a label's value: empty, or up to 63 of letters, digits, `-`, `_`, `.`."""
    problems = _length(text, LABEL_LENGTH, "bytes")
    if text and _key_name.fullmatch(text) is None:
        rule = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_pattern(rule, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return problems


def c_identifier(text: str) -> list[str]:
    """Check an identifier of C."""
    if _c_identifier.fullmatch(text) is not None:
        return []
    rule = (
        "a valid C identifier must start with alphabetic character or '_', "
        "followed by a string of alphanumeric characters or '_'"
    )
    return [_pattern(rule, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def environment_name(text: str) -> list[str]:
    """Check the name of an environment variable, as strictly as ever."""
    problems = []
    if _environment.fullmatch(text) is None:
        rule = (
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
            "and must not start with a digit"
        )
        problems.append(_pattern(rule, _ENVIRONMENT, "my.env-name", "MY_ENV.NAME", "MyEnvName1"))
    return problems + _upward(text)


def relaxed_environment_name(text: str) -> list[str]:
    """Check the name of an environment variable: printable ASCII without `=`."""
    if not text:
        return ["environment variable name must be non-empty"]
    if _relaxed_environment.fullmatch(text) is None:
        return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]
    return []


def config_key(text: str) -> list[str]:
    """Check a key of a ConfigMap or Secret, which may become a file name."""
    problems = _length(text, SUBDOMAIN_LENGTH)
    if _config_key.fullmatch(text) is None:
        rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        problems.append(_pattern(rule, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return problems + _upward(text)


def http_header(text: str) -> list[str]:
    """Check the name of an HTTP header."""
    if _header.fullmatch(text) is not None:
        return []
    rule = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [_pattern(rule, _HEADER, "X-Header-Name")]


def percent(text: str) -> list[str]:
    """Check a percentage: digits and `%`."""
    if _percent.fullmatch(text) is not None:
        return []
    return [
        _pattern("a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%")
    ]


def decimal_integer(text: str) -> list[str]:
    """Check an integer in its one decimal form: no plus, no leading zeros, no `-0`."""
    if not text:
        return ["must be non-empty"]
    good = _decimal_integer.fullmatch(text) is not None
    return [] if good else ["must be a valid decimal integer in canonical form"]


def port_name(text: str) -> list[str]:
    """Check the name of a port (RFC 6335, section 5.1, lower case)."""
    problems = _length(text, PORT_NAME_LENGTH)
    if _port_characters.fullmatch(text) is None:
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if _lower_letter.search(text) is None:
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def in_range(value: int, low: int, high: int) -> list[str]:
    """Check that `value` lies from `low` to `high`."""
    return [] if low <= value <= high else [f"must be between {low} and {high}, inclusive"]


def port(value: int) -> list[str]:
    """Check the number of a port."""
    return in_range(value, 1, 65535)


def numeric_id(value: int) -> list[str]:
    """Check a user's or group's number."""
    return in_range(value, 0, LARGEST_ID)


def path_segment(text: str) -> list[str]:
    """Check a name that will be one segment of a URL path."""
    if text in {".", ".."}:
        return [f"may not be '{text}'"]
    return path_segment_prefix(text)


def path_segment_prefix(text: str) -> list[str]:
    """Check what a path segment may begin with."""
    return [f"may not contain '{char}'" for char in "/%" if char in text]


def fully_qualified_name(text: str, field: str = "") -> list[FieldProblem]:
    """Check a name of three DNS labels or more."""
    if not text:
        return [required(field)]
    problems = dns_subdomain(text)
    if not problems and text.count(".") < 2:
        problems = ["should be a domain with at least three segments separated by dots"]
    return [invalid(field, text, ",".join(problems))] if problems else []


def fully_qualified_domain_name(text: str, field: str = "") -> list[FieldProblem]:
    """Check a DNS name of two labels or more; it may end in a dot."""
    if not text:
        return [required(field)]
    text = text.removesuffix(".")
    problems = dns_subdomain(text)
    if not problems and "." not in text:
        problems = ["should be a domain with at least two segments separated by dots"]
    if problems:
        return [invalid(field, text, ",".join(problems))]
    for label in text.split("."):
        problems = dns_label(label)
        if problems:
            return [invalid(field, label, ",".join(problems))]
    return []


def domain_prefixed_path(text: str, field: str = "") -> list[FieldProblem]:
    """Check `example.com/some/path`: a domain, then a URL path."""
    if not text:
        return [required(field)]
    domain, _, path = text.partition("/")
    if not domain or not path:
        return [invalid(field, text, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    problems = [invalid(field, domain, problem) for problem in dns_subdomain(domain)]
    if _http_path.fullmatch(path) is None:
        problems.append(invalid(field, path, _pattern("Invalid path", _HTTP_PATH)))
    return problems


def domain_prefixed_key(text: str, field: str = "") -> list[FieldProblem]:
    """Check `example.com/key`: a label key with a prefix."""
    if not text:
        return [required(field)]
    problems = label_key(text)
    if not problems and "/" not in text:
        problems = ['must be a domain-prefixed key (such as "acme.io/foo")']
    return [invalid(field, text, problem) for problem in problems]


def _length(text: str, limit: int, unit: str = "characters", part: str = "") -> list[str]:
    length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return [f"{part}must be no more than {limit} {unit}"] if length > limit else []


def _pattern(rule: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{rule} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {shown}regex used for validation is '{pattern}')"


def _upward(text: str) -> list[str]:
    if text in {".", ".."}:
        return [f"must not be '{text}'"]
    return ["must not start with '..'"] if text.startswith("..") else []
