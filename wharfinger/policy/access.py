"""Access: which identities may pull, push, serve, call and see what, under the AccessPolicies.

Default deny; a Deny that matches wins over every Allow. A condition that errs is not true for an Allow and
true for a Deny. Conditions are CEL, evaluated by the port `Condition`, so that this module stays pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from wharfinger.core.document import Json
from wharfinger.core.errors import WharfingerError
from wharfinger.policy.decision import Verdict, address
from wharfinger.policy.grant import caller_matches

Condition: TypeAlias = Callable[[str, Mapping[str, Json]], bool]
"""Evaluates a CEL condition over variables; raises `WharfingerError` on any error, never a yes."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who wants to do what with which object. `kind` is Model, Dataset or InferenceService."""

    identity: str
    verb: str
    kind: str
    namespace: str
    name: str
    tenant: str = ""
    device: str = ""


def decide(policies: Iterable[Mapping[str, Json]], question: Question, condition: Condition) -> Verdict:
    """Judge `question` under `policies`, AccessPolicy objects in any order."""
    allowed_by = ""
    variables = {
        "identity": question.identity,
        "tenant": question.tenant,
        "verb": question.verb,
        "device": question.device,
        "object": {"kind": question.kind, "namespace": question.namespace, "name": question.name},
    }
    for policy in sorted(policies, key=lambda p: str(p["metadata"]["name"])):
        spec, name = policy["spec"], policy["metadata"]["name"]
        if not _speaks_of(spec, question):
            continue
        deny = spec.get("effect", "Allow") == "Deny"
        text = spec.get("condition", "")
        if text:
            try:
                holds = condition(text, variables)
            except WharfingerError:
                holds = deny
            if not holds:
                continue
        if deny:
            return Verdict(False, f"AccessPolicy {name} denies {question.verb}", "policy")
        allowed_by = allowed_by or name
    if allowed_by:
        return Verdict(True, f"AccessPolicy {allowed_by} allows {question.verb}")
    return Verdict(
        False,
        f"no AccessPolicy allows {question.identity} to {question.verb} "
        f"{question.kind} {question.namespace}/{question.name}",
        "policy",
    )


def undenied(policies: Iterable[Mapping[str, Json]], question: Question, condition: Condition) -> Verdict:
    """Judge `question`, to which something else says yes, by the Denies alone: a yes unless one of them matches."""
    denies = [policy for policy in policies if policy["spec"].get("effect", "Allow") == "Deny"]
    yes = {"metadata": {"name": "-"}, "spec": {"identities": [question.identity], "verbs": [question.verb]}}
    return decide([*denies, yes], question, condition)


def revision(policies: Iterable[Mapping[str, Json]]) -> str:
    """Return the digest over name and spec of `policies`: what a grant was issued under."""
    return address(
        sorted(
            ([str(p.get("kind", "")), str(p["metadata"]["name"]), p.get("spec", {})] for p in policies),
            key=lambda entry: (entry[0], entry[1]),
        )
    )


def speaking_of(policies: Iterable[Mapping[str, Json]], questions: Sequence[Question]) -> list[Mapping[str, Json]]:
    """Return the AccessPolicies that have a say in any of `questions`, whatever their condition makes of it."""
    return [p for p in policies if any(_speaks_of(p["spec"], question) for question in questions)]


def _speaks_of(spec: Mapping[str, Json], question: Question) -> bool:
    objects = spec.get("objects") or {}
    return (
        question.verb in spec.get("verbs", ())
        and any(caller_matches(pattern, question.identity) for pattern in spec.get("identities", ()))
        and _listed(objects.get("kinds"), question.kind)
        and _listed(objects.get("namespaces"), question.namespace)
        and _listed(objects.get("names"), question.name)
    )


def _listed(names: Sequence[str] | None, name: str) -> bool:
    return not names or name in names
