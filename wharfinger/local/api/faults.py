"""Errors that only an HTTP API has, and every error as a Kubernetes Status object. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    FieldProblem,
    Invalid,
    NotFound,
    Throttled,
    WharfingerError,
    excerpt,
)
from wharfinger.local.merge.typed import Mismatch


class NoPage(NotFound):
    """There is nothing of the API at a path: answered as text, as any web server would."""


class MethodNotAllowed(WharfingerError):
    """The path is there, but this method means nothing on it."""

    code = "MethodNotAllowed"
    status = 405


class NotAcceptable(WharfingerError):
    """The caller accepts no form that we can answer in."""

    code = "NotAcceptable"
    status = 406


class UnsupportedMediaType(WharfingerError):
    """The body is in a form that we do not read."""

    code = "UnsupportedMediaType"
    status = 415


class TooNew(WharfingerError):
    """A resourceVersion that is not reached yet, or never was here."""

    code = "Timeout"
    status = 504


class Defect(WharfingerError):
    """A defect of ours showed itself while a request was handled; its trace is in the log."""


DEFECTS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a defect raises: a request that meets one is answered with 500, and others are not harmed."""


class Missing(NotFound):
    """An object is not there; it need not be of the kind that the request is about."""

    def __init__(self, plural: str, group: str, name: str) -> None:
        super().__init__(f'{qualified(plural, group)} "{name}" not found')
        self.plural, self.group, self.name = plural, group, name


def not_found(plural: str, group: str, name: str) -> NotFound:
    """Return the error for an object that is not there, in the API server's words."""
    return Missing(plural, group, name)


def already_exists(plural: str, group: str, name: str) -> AlreadyExists:
    """Return the error for a name that is taken, in the API server's words."""
    return AlreadyExists(f'{qualified(plural, group)} "{name}" already exists')


class InvalidObject(Invalid):
    """An object of `kind` holds what it must not."""

    def __init__(self, kind: str, group: str, name: str, problems: Sequence[FieldProblem]) -> None:
        texts = list(dict.fromkeys(map(str, problems)))
        told = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        super().__init__(f'{qualified(kind, group)} "{name}" is invalid: {told}', fields=problems)
        self.kind, self.group, self.name = kind, group, name


def qualified(word: str, group: str) -> str:
    """Return `word.group`, or the word alone for the core group."""
    return f"{word}.{group}" if group else word


_SUCCESS: Final[dict[str, Json]] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


class Unpatchable(Invalid):
    """What a patch makes of an object cannot be read as one."""

    def __init__(self, why: str) -> None:
        text = f"Invalid value: {excerpt(why)}"
        super().__init__(f' "" is invalid: patch: {text}', fields=[FieldProblem("patch", text)])


def failure(error: WharfingerError, *, group: str = "", plural: str = "", name: str = "") -> Json:
    """Return `error` as a Status (meta/v1): what failed is named by the details that apply."""
    kind = plural
    match error:
        case Missing():
            group, kind, name = error.group, error.plural, error.name
        case InvalidObject():
            group, kind, name = error.group, error.kind, error.name
        case AlreadyExists() | Denied():
            pass
        case Conflict() if not error.fields:
            pass
        case _:
            group = kind = name = ""
    details: dict[str, Json] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    if error.fields:
        details["causes"] = [
            {
                "reason": problem.reason,
                "message": problem.message,
                **({"field": problem.field} if problem.field else {}),
            }
            for problem in error.fields
        ]
    if isinstance(error, Throttled):
        details["retryAfterSeconds"] = error.retry_after
    message = f"{error.message} (hint: {error.hint})" if error.hint else error.message
    status: dict[str, Json] = {**_SUCCESS, "status": "Failure", "message": message, "reason": error.code}
    if isinstance(error, Mismatch):
        # kube-apiserver has no word for a configuration that does not fit: its answer is 500, the message alone.
        del status["reason"]
        details = {}
    if details:
        status["details"] = details
    status["code"] = error.status
    return status


def success(*, group: str, plural: str, name: str, uid: str) -> Json:
    """Return the Status that answers a deletion."""
    details = {"name": name, "kind": plural, "uid": uid}
    if group:
        details["group"] = group
    return {**_SUCCESS, "details": details}
