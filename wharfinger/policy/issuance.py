"""Issuance: which part of the platform may ask the issuer for what. Each request has one asker, nobody has all.

The node says whose processes get which identity and signs nothing; control has statements signed and lets nobody in;
the registry has its checkpoints signed; the local admin lets people in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wharfinger.policy.decision import Verdict

RULE: Final = "issuance.judge"
READ_TRUST_ROOT: Final = "read trust root"
MAY_ASK: Final[Mapping[str, str]] = {
    "register pod": "node",
    "list pods": "node",
    "forget pod": "node",
    "issue person": "admin",
    "issue token": "admin",
    "sign statement": "control",
    "sign checkpoint": "registry",
}
"""Each request and the part that may make it."""


def judge(who: str | None, request: str) -> Verdict:
    """Judge whether the caller with the SPIFFE ID `who`, None for an anonymous one, may make `request`.

    The trust root is for anyone who is known.
    """
    if who is None:
        return Verdict(False, f"an anonymous caller may not {request}", "asker")
    if request == READ_TRUST_ROOT:
        return Verdict(True, "anyone who is known may")
    part = MAY_ASK.get(request)
    if part is not None and who.removeprefix("spiffe://").split("/")[1:] == ["wharfinger", part]:
        return Verdict(True, f"the duty of {part}")
    return Verdict(False, f"{who} may not {request}", "asker")
