"""SPIFFE IDs, trust domains, paths and matchers against the outside vectors: every code point and every literal case."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from shared_material import material

from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain, join, path_of, segment_of

Case = dict[str, Any]


def _vectors() -> dict[str, Any]:
    return json.loads(material("spiffe/id_matrix.json").read_text(encoding="utf-8"))


def _id(text: str) -> dict[str, Any]:
    parsed = SpiffeId(text)
    return {"trust_domain": str(parsed.trust_domain), "path": parsed.path}


def _with(value: Case, path: str) -> dict[str, Any]:
    return {"path": SpiffeId(f"spiffe://{TrustDomain(value['trust_domain'])}{path_of(path)}").path}


PARSERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "parse_id": _id,
    "parse_trust_domain": lambda text: {"trust_domain": str(TrustDomain.of(text))},
    "join_segments": lambda value: {"path": join(value["segments"])},
    "validate_segment": lambda value: {"segment": segment_of(value["segment"])},
    "from_path": lambda value: _with(value, value["path"]),
    "replace_path": lambda value: _with(value, path_of(value["new"])),
    "append_path": lambda value: _with(value, path_of(value["path"]) + path_of(value["new"])),
    "replace_segments": lambda value: _with(value, join(value["segments"])),
    "append_segments": lambda value: _with(value, path_of(value["path"]) + join(value["segments"])),
}
QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "member_of": lambda value: SpiffeId(value["id"]).member_of(TrustDomain.of(value["trust_domain"])),
    "trust_domain_id_string": lambda value: str(TrustDomain.of(value["trust_domain"]).id),
    "compare_trust_domains": lambda value: (
        (TrustDomain.of(value["a"]) > TrustDomain.of(value["b"]))
        - (TrustDomain.of(value["a"]) < TrustDomain.of(value["b"]))
    ),
    "equal": lambda value: SpiffeId(value["a"]) == SpiffeId(value["b"]),
}
LEFT_OUT = {"match": "matchers are policy's (`grant.caller_matches`): a pattern is an ID, or a prefix that ends in /*"}


def _judged(case: Case) -> dict[str, Any]:
    try:
        return {"verdict": "accept", **PARSERS[case["op"]](case["input"])}
    except BadIdentity as error:
        return {"verdict": "reject", "reason": error.reason}


def _agrees(got: dict[str, Any], want: dict[str, Any]) -> bool:
    if got["verdict"] != want["verdict"]:
        return False
    if got["verdict"] == "reject":
        return got["reason"] == want["reason"] or got["reason"] in want.get("also", ())
    return all(want[name] == value for name, value in got.items() if name in want)


def test_every_code_point_in_every_place_is_judged_as_the_standard_judges_it() -> None:
    """All 805 characters in trust domains and paths are accepted or refused for the reason given."""
    cases = _vectors()["matrix"]
    assert len(cases) == 805
    wrong = {
        case["id"]: (_judged(case), case["expect"]) for case in cases if not _agrees(_judged(case), case["expect"])
    }
    assert wrong == {}


def test_every_literal_case_is_judged_as_the_standard_judges_it() -> None:
    """Of 332 cases the 42 matchers are left out, which are another room's; all others agree."""
    cases = [case for case in _vectors()["cases"] if case["op"] not in LEFT_OUT]
    assert len(cases) == 332 - 42
    wrong = {}
    for case in cases:
        if case["op"] in PARSERS:
            got = _judged(case)
            if not _agrees(got, case["expect"]):
                wrong[case["id"]] = (got, case["expect"])
            continue
        try:
            result = QUESTIONS[case["op"]](case["input"])
        except BadIdentity as error:
            result = error.reason
        if result != case["expect"].get("result"):
            wrong[case["id"]] = (result, case)
    assert wrong == {}
