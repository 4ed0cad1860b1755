"""Kubernetes' cases for names and addresses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from shared_material import material
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core import addresses, names
from wharfinger.core.errors import FieldProblem

VALIDATORS: dict[str, Callable[[Any], Any]] = {
    "IsCIdentifier": names.c_identifier,
    "IsConfigMapKey": names.config_key,
    "IsDNS1035Label": names.dns_1035_label,
    "IsDNS1123Label": names.dns_label,
    "IsDNS1123Subdomain": names.dns_subdomain,
    "IsDNS1123SubdomainCaseless": names.dns_subdomain_caseless,
    "IsDNS1123SubdomainWithUnderscore": names.dns_subdomain_with_underscore,
    "IsDecimalInteger": names.decimal_integer,
    "IsDomainPrefixedKey": names.domain_prefixed_key,
    "IsDomainPrefixedPath": names.domain_prefixed_path,
    "IsEnvVarName": names.environment_name,
    "IsFullyQualifiedDomainName": names.fully_qualified_domain_name,
    "IsFullyQualifiedName": names.fully_qualified_name,
    "IsHTTPHeaderName": names.http_header,
    "IsInRange": lambda value: names.in_range(value["value"], value["min"], value["max"]),
    "IsLabelKey": names.label_key,
    "IsLabelValue": names.label_value,
    "IsPathSegmentName": names.path_segment,
    "IsPathSegmentPrefix": names.path_segment_prefix,
    "IsPrefixedLabelKey": names.prefixed_label_key,
    "IsQualifiedName": names.label_key,
    "IsRelaxedEnvVarName": names.relaxed_environment_name,
    "IsValidCIDR": addresses.prefix,
    "IsValidCIDRForLegacyField(strict=false)": lambda text: addresses.legacy_prefix(text, strict=False),
    "IsValidCIDRForLegacyField(strict=true)": lambda text: addresses.legacy_prefix(text, strict=True),
    "IsValidGroupID": names.numeric_id,
    "IsValidIP": addresses.address,
    "IsValidIPForLegacyField(strict=false)": lambda text: addresses.legacy_address(text, strict=False),
    "IsValidIPForLegacyField(strict=true)": lambda text: addresses.legacy_address(text, strict=True),
    "IsValidInterfaceAddress": addresses.interface_address,
    "IsValidLabelValue": names.label_value,
    "IsValidPercent": names.percent,
    "IsValidPortName": names.port_name,
    "IsValidPortNum": names.port,
    "IsValidUserID": names.numeric_id,
    "IsWildcardDNS1123Subdomain": names.dns_wildcard,
    "NameIsDNS1035Label": names.dns_1035_label,
    "NameIsDNS1035Label(prefix)": lambda text: names.dns_1035_label(names.generated_prefix(text)),
    "NameIsDNSLabel": names.dns_label,
    "NameIsDNSLabel(prefix)": lambda text: names.dns_label(names.generated_prefix(text)),
    "NameIsDNSSubdomain": names.dns_subdomain,
    "NameIsDNSSubdomain(prefix)": lambda text: names.dns_subdomain(names.generated_prefix(text)),
}

LEFT_OUT = {
    "upstream has this check twice and only the newer copy says bytes; ours says what the API server does": """
        799.messages 800.messages
    """,
}


def said(problem: str | FieldProblem) -> str:
    """Return a problem without its kind and value: the detail alone."""
    if isinstance(problem, FieldProblem):
        if problem.reason == "FieldValueRequired":
            return "FieldValueRequired: "
        detail = problem.message.split('": ', 1)[1]
        return f"{problem.reason}: {detail}"
    return problem


def wanted(message: str | Row) -> str:
    """Return upstream's message, of a field error type and detail."""
    return message if isinstance(message, str) else f"{message['type']}: {message['detail']}"


def checks(row: Row) -> Iterator[Check]:
    """Check one row of names.jsonl."""
    name = row["validator"]
    if name.startswith("GetWarnings"):
        ask = addresses.address_warnings if name == "GetWarningsForIP" else addresses.prefix_warnings
        field = row["messages"][0].split(": ")[0] if row["messages"] else "spec.field"
        yield "messages", ask(field, row["value"]), row["messages"]
        return
    got = [said(problem) for problem in VALIDATORS[name](row["value"])]
    yield "valid", not got, row["valid"]
    want = [wanted(message) for message in row["messages"]]
    yield "messages", got, [text.removeprefix("FieldValueInvalid: ") for text in want] if is_plain(name) else want


def is_plain(name: str) -> bool:
    """Tell whether ours gives bare messages where upstream gives field errors, all of one type."""
    return name.startswith(("IsValidIP", "IsValidCIDR", "IsValidInterface"))


def test_each_validator_answers_its_own_cases_as_kubernetes_does() -> None:
    """Every case of names.jsonl holds, message for message."""
    count, found = differences("apimachinery/names.jsonl", checks)
    assert count > 2000
    assert_only_left_out(found, LEFT_OUT)


def test_every_validator_answers_every_value_as_kubernetes_does() -> None:
    """Every value of names_cross.jsonl gets the same messages from all 33 validators."""
    texts = json.loads(material("apimachinery/names_cross_messages.json").read_text(encoding="utf-8"))

    def crossed(row: Row) -> Iterator[Check]:
        for name in row["valid"]:
            yield name, list(VALIDATORS[name](row["value"])), []
        for name, numbers in row["invalid"].items():
            got = [said(problem) for problem in VALIDATORS[name](row["value"])]
            want = [texts[number] for number in numbers]
            if is_plain(name):
                want = [text.removeprefix("FieldValueInvalid: ") for text in want]
            yield name, sorted(got), sorted(want)

    count, found = differences("apimachinery/names_cross.jsonl", crossed)
    assert count == 530 * 33
    assert_only_left_out(found, {})
