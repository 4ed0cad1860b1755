"""The kinds of questions that a caller asks about itself, as OpenAPI describes them. Pure."""

from __future__ import annotations

from typing import Final

from wharfinger.kinds.builtin.fields import boolean, many, mapping, record, string, strings, whole
from wharfinger.kinds.kind import Kind, Schema

_AUTHENTICATION: Final = "authentication.v1."
_AUTHORIZATION: Final = "authorization.v1."

_WHO_AM_I: Final = whole(
    _AUTHENTICATION + "SelfSubjectReview",
    "Asks who the caller is, as the server sees it.",
    {
        "status": record(
            _AUTHENTICATION + "SelfSubjectReviewStatus",
            "The answer.",
            {
                "userInfo": record(
                    _AUTHENTICATION + "UserInfo",
                    "Who is calling.",
                    {
                        "username": string("The caller's SPIFFE ID."),
                        "uid": string("Not used."),
                        "groups": strings("Groups that the caller is in: its tenant's among them."),
                        "extra": mapping(strings("Values."), "How the caller proved it."),
                    },
                )
            },
        )
    },
)
_ATTRIBUTES: Final = record(
    _AUTHORIZATION + "ResourceAttributes",
    "What somebody tries with a resource.",
    {
        "namespace": string("The namespace; empty for cluster-wide kinds and for all namespaces."),
        "verb": string("get, list, watch, create, update, patch, delete, deletecollection."),
        "group": string("The group; empty for the core group."),
        "version": string("The version."),
        "resource": string("The resource, by its plural."),
        "subresource": string("The subresource, or empty."),
        "name": string("One object's name; empty for all."),
    },
)
_MAY_I: Final = whole(
    _AUTHORIZATION + "SelfSubjectAccessReview",
    "Asks whether the caller may do something.",
    {
        "spec!": record(
            _AUTHORIZATION + "SelfSubjectAccessReviewSpec",
            "The question: one of the two.",
            {
                "resourceAttributes": _ATTRIBUTES,
                "nonResourceAttributes": record(
                    _AUTHORIZATION + "NonResourceAttributes",
                    "What somebody tries with a path.",
                    {"path": string("The path."), "verb": string("The method, in lower case.")},
                ),
            },
        ),
        "status": record(
            _AUTHORIZATION + "SubjectAccessReviewStatus",
            "The answer.",
            {
                "allowed!": boolean("Whether it is allowed."),
                "denied": boolean("Not used: what is not allowed is denied."),
                "reason": string("Why."),
                "evaluationError": string("Not used."),
            },
        ),
    },
)
_RULE: Final = record(
    _AUTHORIZATION + "ResourceRule",
    "What may be done with some resources.",
    {
        "verbs!": strings("The verbs."),
        "apiGroups": strings("Their groups."),
        "resources": strings("The resources, with subresources after a slash."),
        "resourceNames": strings("Names; none for all."),
    },
)
_PATHS: Final = record(
    _AUTHORIZATION + "NonResourceRule",
    "What may be done with some paths.",
    {"verbs!": strings("The methods."), "nonResourceURLs": strings("The paths.")},
)
_WHAT_MAY_I: Final = whole(
    _AUTHORIZATION + "SelfSubjectRulesReview",
    "Asks what the caller may do in a namespace.",
    {
        "spec!": record(
            _AUTHORIZATION + "SelfSubjectRulesReviewSpec",
            "The question.",
            {"namespace": string("The namespace.")},
        ),
        "status": record(
            _AUTHORIZATION + "SubjectRulesReviewStatus",
            "The answer.",
            {
                "resourceRules!": many(_RULE, "What may be done with resources."),
                "nonResourceRules!": many(_PATHS, "What may be done with paths."),
                "incomplete!": boolean("Whether there may be more."),
                "evaluationError": string("Not used."),
            },
        ),
    },
)


def _question(group: str, name: str, schema: Schema) -> Kind:
    text = str(schema["description"])
    return Kind(group, "v1", name, f"{name.lower()}s", namespaced=False, schema=schema, status=False, description=text)


QUESTIONS: Final = (
    _question("authentication.k8s.io", "SelfSubjectReview", _WHO_AM_I),
    _question("authorization.k8s.io", "SelfSubjectAccessReview", _MAY_I),
    _question("authorization.k8s.io", "SelfSubjectRulesReview", _WHAT_MAY_I),
)
"""Kinds that are asked by creating them: they are answered, not stored."""
