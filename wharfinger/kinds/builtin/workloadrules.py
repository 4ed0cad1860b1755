"""Deployment and Job: what they do beyond their schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wharfinger.core import intstr, selectors
from wharfinger.core.causes import forbidden, invalid, not_supported, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Invalid, Malformed
from wharfinger.kinds.builtin.behaviour import Behaviour
from wharfinger.kinds.builtin.corerules import immutable
from wharfinger.kinds.builtin.podrules import check_spec, default_spec

CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"
JOB_NAME: Final = "batch.kubernetes.io/job-name"
_LEGACY: Final = {CONTROLLER_UID: "controller-uid", JOB_NAME: "job-name"}


def _default_deployment(new: Json) -> None:
    spec = new.setdefault("spec", {})
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    _default_template(spec)


def _default_template(spec: Json) -> None:
    template = spec.get("template")
    if not isinstance(template, dict):
        return
    if isinstance(template.get("spec"), dict):
        default_spec(template["spec"])


def _check_selector(spec: Json) -> Iterator[FieldProblem]:
    selector = spec.get("selector")
    if not selector:
        yield required("spec.selector")
        return
    yield from selectors.check_object(selector, "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    try:
        chosen = selectors.of_object(selector)
    except Invalid:
        return
    if chosen.everything:
        yield invalid("spec.selector", selector, "empty selector is invalid for deployment")
    elif not chosen.matches(labels):
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _check_deployment(new: Json, old: Json | None) -> list[FieldProblem]:
    spec = new["spec"]
    template = spec.get("template") or {}
    problems = list(_check_selector(spec))
    problems += check_spec(template.get("spec") or {}, "spec.template.spec")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy != "Always":
        problems.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    strategy = spec.get("strategy") or {}
    if strategy.get("type") not in {"RollingUpdate", "Recreate"}:
        problems.append(not_supported("spec.strategy.type", strategy.get("type"), ("Recreate", "RollingUpdate")))
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate"):
        text = "may not be specified when strategy `type` is 'Recreate'"
        problems.append(forbidden("spec.strategy.rollingUpdate", text))
    problems += _check_rolling(strategy.get("rollingUpdate") or {})
    problems += _check_counts(new.get("status") or {})
    if old is not None:
        problems += immutable("spec.selector", spec.get("selector"), old["spec"].get("selector"))
    return problems


def _check_counts(status: Json) -> Iterator[FieldProblem]:
    replicas = status.get("replicas", 0)
    for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"):
        count, at = status.get(name, 0), f"status.{name}"
        if count < 0:
            yield invalid(at, count, "must be greater than or equal to 0")
        elif count > replicas:
            yield invalid(at, count, "cannot be greater than status.replicas")


def _check_rolling(rolling: Json) -> Iterator[FieldProblem]:
    for name in ("maxUnavailable", "maxSurge"):
        value, at = rolling.get(name), f"spec.strategy.rollingUpdate.{name}"
        if isinstance(value, int) and value < 0:
            yield invalid(at, value, "must be greater than or equal to 0")
        elif isinstance(value, str):
            try:
                intstr.scaled(value, 100, round_up=True)
            except Malformed:
                yield invalid(at, value, "must be an integer or percentage (e.g '5%%')")
    if rolling.get("maxUnavailable") in (0, "0%") and rolling.get("maxSurge") in (0, "0%"):
        at = "spec.strategy.rollingUpdate.maxUnavailable"
        yield invalid(at, rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0")


def _prepare_job(new: Json, old: Json | None) -> None:
    """Give a new job a selector that only its own pods match: by its UID, which the server has just made."""
    spec = new.get("spec")
    if old is not None or not isinstance(spec, dict) or spec.get("manualSelector"):
        return
    template = spec.get("template")
    if not isinstance(template, dict):
        return
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for label, value in ((CONTROLLER_UID, new["metadata"]["uid"]), (JOB_NAME, new["metadata"].get("name", ""))):
        labels.setdefault(label, value)
        labels.setdefault(_LEGACY[label], value)
    selector = spec.setdefault("selector", {})
    selector.setdefault("matchLabels", {}).setdefault(CONTROLLER_UID, new["metadata"]["uid"])
    if not new["metadata"].get("labels"):
        new["metadata"]["labels"] = dict(labels)


def _default_job(new: Json) -> None:
    spec = new.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 2**31 - 1 if spec.get("backoffLimitPerIndex") is not None else 6
    if spec.get("podReplacementPolicy") is None:
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    spec.setdefault("manualSelector", False)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not new["metadata"].get("labels"):
        new["metadata"]["labels"] = dict(labels)
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for pattern in rule.get("onPodConditions") or []:
            pattern.setdefault("status", "True")
    _default_template(spec)


def _check_job(new: Json, old: Json | None) -> list[FieldProblem]:
    spec = new.get("spec") or {}
    template = spec.get("template") or {}
    problems = list(_check_selector(spec))
    problems += check_spec(template.get("spec") or {}, "spec.template.spec")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy == "Always":
        text = 'valid values: "OnFailure", "Never"'
        problems.append(required("spec.template.spec.restartPolicy", text))
    elif policy not in {"OnFailure", "Never"}:
        problems.append(not_supported("spec.template.spec.restartPolicy", policy, ("OnFailure", "Never")))
    mode = spec.get("completionMode")
    if mode not in {"NonIndexed", "Indexed"}:
        problems.append(not_supported("spec.completionMode", mode, ("Indexed", "NonIndexed")))
    if mode == "Indexed" and spec.get("completions") is None:
        problems.append(required("spec.completions", "when completion mode is Indexed"))
    if old is not None:
        before = old.get("spec") or {}
        for field in (
            "selector",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ):
            problems += immutable(f"spec.{field}", spec.get(field), before.get(field))
        if mode != "Indexed":
            problems += immutable("spec.completions", spec.get("completions"), before.get("completions"))
        if not before.get("suspend"):
            problems += immutable("spec.template", template, before.get("template"))
        else:
            problems += immutable(
                "spec.template.spec", _placed_anywhere(template), _placed_anywhere(before["template"])
            )
    return problems


def _placed_anywhere(template: Json) -> Json:
    """Return a pod's spec without what says where it goes: of a suspended job that alone may change."""
    directives = {"affinity", "nodeSelector", "schedulingGates", "tolerations"}
    return {name: value for name, value in (template.get("spec") or {}).items() if name not in directives}


DEPLOYMENT: Final = Behaviour(
    generation=True, counts_annotations=True, default=_default_deployment, check=_check_deployment
)
JOB: Final = Behaviour(generation=True, prepare=_prepare_job, default=_default_job, check=_check_job)
