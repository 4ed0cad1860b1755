"""Replay: the same pure rule on the same stored inputs, whatever policies say today."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wharfinger.core.document import Json
from wharfinger.core.errors import Corrupt, NotFound, Unverified
from wharfinger.policy import issuance
from wharfinger.policy.access import Question, decide, revision
from wharfinger.policy.authorization import Attempt, Tenancy, authorize
from wharfinger.policy.cel import condition
from wharfinger.policy.decision import Decision, Verdict
from wharfinger.policy.grant import Door, Premises, issue, permits_any
from wharfinger.supply.registry import authorization as registry


def replay(decision: Decision, inputs: Mapping[str, Json]) -> Verdict:
    """Return the verdict that the rule of `decision` gives on its stored `inputs`.

    Raises `Unverified` when it is another than the stored one, `NotFound` when the rule's inputs are not kept (a
    guard reads a prompt, which is never stored), `Corrupt` when the inputs are not what the rule takes.
    """
    rule = RULES.get(decision.rule)
    if rule is None:
        raise NotFound(
            f"decisions of {decision.rule} cannot be replayed: their inputs are not kept",
            hint=f"wharf explain decision {decision.id} tells what was stored",
        )
    try:
        again = rule(inputs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"decision {decision.id}: its inputs are not those of {decision.rule}") from error
    if again != decision.verdict:
        raise Unverified(
            f"decision {decision.id}: stored {_words(decision.verdict)}, replayed {_words(again)}",
            hint="the stored verdict was not this program's rule on these inputs",
        )
    return again


def _permits_any(inputs: Mapping[str, Any]) -> Verdict:
    request = inputs["request"]
    verdict, _ = permits_any(
        inputs["grants"],
        Door(request["door"]),
        request["who"],
        request["what"],
        request["device"],
        request["caller"],
        request["now"],
    )
    return verdict


def _authorize(inputs: Mapping[str, Any]) -> Verdict:
    request, tenancy = inputs["request"], inputs["tenancy"]
    return authorize(
        request["who"],
        Attempt(**request["attempt"]),
        Tenancy(tenancy["tenantOf"], {tenant: frozenset(names) for tenant, names in tenancy["admins"].items()}),
    )


def _issue(inputs: Mapping[str, Any]) -> Verdict:
    """Issue the grants again on their premises; each must be the one that was issued, under the policies it names."""
    request, premises = inputs["request"], [Premises.of_json(told) for told in inputs["premises"]]
    again = [issue(each, request["decision"], request["now"]) for each in premises]
    if again != inputs["grants"]:
        return Verdict(False, "other grants than were issued", "grant")
    if any(each.policy_revision != revision(inputs["policies"]) for each in premises):
        return Verdict(False, "the policies are not those of the grants' revision", "policy")
    return Verdict(True, f"every premise holds for {request['who']}")


def _access(inputs: Mapping[str, Any]) -> Verdict:
    return decide(inputs["policies"], Question(**inputs["question"]), condition)


RULES: Mapping[str, Callable[[Mapping[str, Any]], Verdict]] = {
    "grant.permits_any": _permits_any,
    "authorization.authorize": _authorize,
    "grant.issue": _issue,
    "access.decide": _access,
    issuance.RULE: lambda inputs: issuance.judge(inputs["request"]["asker"], inputs["request"]["request"]),
    registry.RULE: lambda inputs: registry.replay(inputs, condition),
}
"""Every rule whose decisions replay, by the name that their records carry."""


def _words(verdict: Verdict) -> str:
    return ("allow" if verdict.allowed else f"deny ({verdict.element})") + f": {verdict.reason}"
