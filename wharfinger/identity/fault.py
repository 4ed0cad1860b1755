"""What is wrong with an identity: an error that also carries its reason as one stable word.

The reason (`trailing_slash`, `leaf_is_ca`, `wrong_audience`) is for metrics, decisions and tests; the message
is for people. Nothing else in the house needs to know the words.
"""

from __future__ import annotations

from collections.abc import Sequence

from wharfinger.core.errors import FieldProblem, Malformed, Unauthenticated


class BadIdentity(Malformed):
    """The text or bytes are not the SPIFFE document that they claim to be; `reason` names the rule broken."""

    def __init__(self, reason: str, message: str, *, hint: str = "", fields: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message, hint=hint, fields=fields)
        self.reason = reason


class UntrustedIdentity(Unauthenticated):
    """A well-formed document that proves nothing here and now; `reason` names the check that failed."""

    def __init__(self, reason: str, message: str, *, hint: str = "", fields: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message, hint=hint, fields=fields)
        self.reason = reason
