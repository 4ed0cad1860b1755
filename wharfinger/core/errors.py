"""The error family: one root, the fact in the message, the advice in the hint.

Every error that leaves a module of Wharfinger is a `WharfingerError`. A foreign exception
(`OSError`, `sqlite3.Error`, `ssl.SSLError`) is wrapped where it enters, at the port.
The wording is "expected X, got Y"; text that came from outside goes through `excerpt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

_EXCERPT_LIMIT = 120


def excerpt(text: object, limit: int = _EXCERPT_LIMIT) -> str:
    """Return untrusted `text` cut to `limit` characters, control characters escaped, in quotes.

    Safe to put into a message, a log line or a terminal: no newline, escape sequence or
    bidirectional override survives.
    """
    raw = text if isinstance(text, str) else repr(text)
    cut = raw[:limit]
    return f'"{plain(cut)}"' + ("..." if len(raw) > limit else "")


def plain(text: str) -> str:
    """Return untrusted `text`, control characters escaped: one line that steers no terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with one field.

    `field` is a Kubernetes field path (`spec.replicas`, `spec.steps[0].name`), `reason` one of
    the cause types of a Kubernetes Status (`FieldValueInvalid`, `FieldValueRequired`,
    `FieldValueNotSupported`, `FieldValueDuplicate`, `FieldValueForbidden`, `FieldValueTooLong`,
    `FieldValueTypeInvalid`), `message` says what was expected and what came.
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        """Show as `field: message`."""
        return f"{self.field}: {self.message}" if self.field else self.message


class WharfingerError(Exception):
    """Root of every error that Wharfinger raises.

    `code` is a stable CamelCase word that scripts may match, `message` the fact, `hint` what to do
    about it (may be empty), `fields` the fields that are wrong. `status` is the HTTP status that a
    control surface answers with; `exit_code` what the command line exits with: 1 for a "no",
    2 for "could not decide".
    """

    code: ClassVar[str] = "InternalError"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "", fields: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = tuple(fields)

    def __str__(self) -> str:
        """Return the message alone; the hint is the caller's to print."""
        return self.message


class Malformed(WharfingerError):
    """The bytes are not what they claim to be: a parser refused them."""

    code = "BadRequest"
    status = 400


class Invalid(WharfingerError):
    """Well-formed, but a field holds what it must not; `fields` names each."""

    code = "Invalid"
    status = 422


class Unauthenticated(WharfingerError):
    """Nobody, or nobody that we can verify, is calling."""

    code = "Unauthorized"
    status = 401
    exit_code = 1


class Denied(WharfingerError):
    """The caller is known and may not do this."""

    code = "Forbidden"
    status = 403
    exit_code = 1


class NotFound(WharfingerError):
    """There is no such thing, or none that the caller may know of."""

    code = "NotFound"
    status = 404


class AlreadyExists(WharfingerError):
    """A thing of that name is there already."""

    code = "AlreadyExists"
    status = 409


class Conflict(WharfingerError):
    """The thing changed since the caller read it, or somebody else owns the field."""

    code = "Conflict"
    status = 409


class Gone(WharfingerError):
    """The history asked for has been compacted: list again."""

    code = "Expired"
    status = 410


class TooLarge(WharfingerError):
    """More bytes, items or depth than the limit allows."""

    code = "RequestEntityTooLarge"
    status = 413


class Throttled(WharfingerError):
    """Over a limit for now; `retry_after` says in how many whole seconds it pays to ask again."""

    code = "TooManyRequests"
    status = 429
    exit_code = 1

    def __init__(self, message: str, *, retry_after: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Unavailable(WharfingerError):
    """A part that is needed does not answer, or is not ready."""

    code = "ServiceUnavailable"
    status = 503


class Corrupt(WharfingerError):
    """Stored bytes are not the bytes that were stored: nothing is served from them."""

    code = "Corrupt"


class Unverified(WharfingerError):
    """A signature, digest, proof or chain does not hold. Verification raises this or returns the thing."""

    code = "Unverified"
    status = 403
    exit_code = 1


class DigestMismatch(Unverified):
    """The bytes are not those that the digest names."""

    code = "DigestMismatch"


class HostUnfit(WharfingerError):
    """The machine lacks or refuses something: a port in use, no space, a read-only directory."""

    code = "HostUnfit"
