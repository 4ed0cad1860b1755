"""Questions that a caller asks about itself: who am I, may I, what may I. Answered, not stored. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from wharfinger.core.clock import Instant, rfc3339
from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.local.api.served import Catalogue
from wharfinger.policy.authorization import READ, WRITE, Attempt
from wharfinger.policy.decision import Verdict

Authorize = Callable[["str | None", Attempt], Verdict]
"""The port of authorization: who (None for nobody) and what they try."""

_VERBS = (*sorted(READ), *sorted(WRITE))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: `name` is a SPIFFE ID, None for nobody that could be authenticated; `how` they proved it."""

    name: str | None
    how: str = ""
    groups: tuple[str, ...] = field(default=("system:authenticated",))

    @property
    def shown(self) -> str:
        """The name for messages and records."""
        return self.name or "system:anonymous"


def _body(value: Json, version: str, kind: str) -> Json:
    if not isinstance(value, dict) or value.get("kind", kind) != kind or value.get("apiVersion", version) != version:
        raise Malformed(f"expected a {kind} of {version}, got {excerpt(value)}")
    spec = value.get("spec") or {}
    if not isinstance(spec, dict):
        raise Malformed(f"expected spec to be an object, got {excerpt(spec)}")
    return spec


def who_am_i(value: Json, caller: Caller, now: Instant) -> Json:
    """Answer a SelfSubjectReview (authentication.k8s.io/v1). Raises `Malformed`."""
    _body(value, "authentication.k8s.io/v1", "SelfSubjectReview")
    groups = list(caller.groups) if caller.name else ["system:unauthenticated"]
    info: dict[str, Json] = {"username": caller.shown, "groups": groups}
    if caller.how:
        info["extra"] = {"wharfinger.io/authenticated-by": [caller.how]}
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": rfc3339(now)},
        "status": {"userInfo": info},
    }


def may_i(value: Json, caller: Caller, authorize: Authorize) -> Json:
    """Answer a SelfSubjectAccessReview (authorization.k8s.io/v1). Raises `Malformed`."""
    spec = _body(value, "authorization.k8s.io/v1", "SelfSubjectAccessReview")
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (asked is None) == (path is None):
        raise Malformed("expected exactly one of spec.resourceAttributes and spec.nonResourceAttributes")
    if path is not None:
        verdict = Verdict(path.get("verb") in {"get", "head"}, "discovery is open to everyone who is known")
    else:
        texts = {name: text for name, text in asked.items() if isinstance(text, str)}
        attempt = Attempt(
            verb=texts.get("verb", ""),
            group=texts.get("group", ""),
            resource=texts.get("resource", ""),
            subresource=texts.get("subresource", ""),
            namespace=texts.get("namespace", ""),
            name=texts.get("name", ""),
        )
        verdict = authorize(caller.name, attempt)
    status: dict[str, Json] = {"allowed": verdict.allowed, "reason": verdict.reason}
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": spec,
        "status": status,
    }


def what_may_i(value: Json, caller: Caller, authorize: Authorize, catalogue: Catalogue) -> Json:
    """Answer a SelfSubjectRulesReview (authorization.k8s.io/v1) by asking for every resource. Raises `Malformed`."""
    spec = _body(value, "authorization.k8s.io/v1", "SelfSubjectRulesReview")
    namespace = spec.get("namespace")
    if not isinstance(namespace, str) or not namespace:
        raise Malformed("expected spec.namespace to name a namespace")
    rules = []
    for resource in catalogue.resources:
        where = namespace if resource.kind.namespaced else ""
        for subresource in ("", *resource.subresources):
            attempts = {
                verb: Attempt(verb, resource.kind.group, resource.kind.plural, subresource, where) for verb in _VERBS
            }
            verbs = [verb for verb, attempt in attempts.items() if authorize(caller.name, attempt).allowed]
            if verbs:
                name = f"{resource.kind.plural}/{subresource}" if subresource else resource.kind.plural
                rules.append({"verbs": verbs, "apiGroups": [resource.kind.group], "resources": [name]})
    paths = ["/api", "/api/*", "/apis", "/apis/*", "/openapi/*", "/version", "/livez", "/readyz"]
    return {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": spec,
        "status": {
            "resourceRules": rules,
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}],
            "incomplete": False,
        },
    }
