"""Reconciles InferenceServices: observes what `serving.decide` needs, applies what it says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Final

from wharfinger.controllers import serving
from wharfinger.controllers.readiness import holds, ready, settle
from wharfinger.controllers.serving import Device, Observed
from wharfinger.controllers.world import Cache, Key, Object, Writer, everything, on_spec, own, owner, tenant_of
from wharfinger.core.clock import MINUTE, SECOND, Instant, Span
from wharfinger.core.document import Json
from wharfinger.core.errors import AlreadyExists, Denied, Invalid, NotFound
from wharfinger.core.ids import Ids
from wharfinger.kinds.condition import find
from wharfinger.policy.access import Condition
from wharfinger.policy.decision import Decision, Verdict, address
from wharfinger.policy.journal import Journal

GRANT_RULE: Final = "grant.issue"
ACCESS_RULE: Final = "access.decide"
REFUSAL: Final = "serving.obstacle"
_ELEMENTS: Final = {"AccessDenied": "policy", "Unverified": "artifact", "DigestMismatch": "artifact"}


class InferenceServiceReconciler:
    """Pods, claims, grants and status of InferenceServices."""

    kind = "inferenceservices"

    def __init__(
        self, cache: Cache, writer: Writer, journal: Journal, ids: Ids, trust_domain: str, condition: Condition
    ) -> None:
        self._cache = cache
        self._writer = writer
        self._journal = journal
        self._ids = ids
        self._trust_domain = trust_domain
        self._condition = condition

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return what a service stands on: its model, profile, policies, pods, claims and grants."""
        every = everything(self._cache, self.kind)
        return {
            self.kind: own,
            "models": self._of_namespace,
            "pods": self._of_label,
            "grants": self._of_label,
            "resourceclaims": self._of_namespace,
            "deployments": owner("InferenceService"),
            **{
                p: on_spec(self._cache, p, every) for p in ("accesspolicies", "trustpolicies", "gpuprofiles", "tenants")
            },
        }

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Bring one service to what it should be."""
        service = self._cache.get(self.kind, key.namespace, key.name)
        if service is None or service["metadata"].get("deletionTimestamp"):
            # Whoever deletes it may leave orphans or hold it by a finalizer: its grants do not wait for the collector.
            for grant in self._grants_of(key):
                if not grant["spec"].get("revoked"):
                    self._revoke(grant, "its service is gone")
            return None
        seen = self._observe(service)
        decision = self._ids.uid()
        desired = serving.decide(seen, decision, now)
        for grant, reason in desired.revoke:
            self._revoke(grant, reason)
        self._record(seen, desired, decision, now)
        if desired.template is not None:
            self._template(desired.template)
        if desired.deployment is not None:
            held = self._cache.get("deployments", key.namespace, key.name)
            if held is None or not holds(held, desired.deployment):
                try:
                    self._writer.apply(desired.deployment)
                except (Invalid, Denied) as refusal:
                    told = ready(service, False, "DeploymentRefused", refusal.message, now)
                    desired.status["conditions"] = told
        for grant in desired.issue:
            self._create_once(grant, "grants")
        for grant in desired.replaced:
            self._revoke(grant, "replaced by a newer grant")
        settle(self._writer, self.kind, service, desired.status)
        return 5 * MINUTE if seen.grants else 10 * SECOND

    def _observe(self, service: Object) -> Observed:
        meta, spec = service["metadata"], service["spec"]
        namespace = meta["namespace"]
        model = self._cache.get("models", namespace, spec["model"])
        profile = spec.get("gpuProfile")
        label = meta["name"]
        return Observed(
            service=service,
            model=model,
            profile=self._cache.get("gpuprofiles", "", profile) if profile else None,
            tenant=tenant_of(self._cache, namespace),
            trust=_trust(model),
            access_policies=self._cache.list("accesspolicies"),
            trust_policies=self._cache.list("trustpolicies"),
            pods=[
                pod
                for pod in self._cache.list("pods", namespace)
                if (pod["metadata"].get("labels") or {}).get(serving.SERVICE_LABEL) == label
                and _of_deployment(pod, label)
            ],
            claims={c["metadata"]["name"]: c for c in self._cache.list("resourceclaims", namespace)},
            silicon=silicon(self._cache),
            grants=self._grants_of(Key(namespace, label)),
            trust_domain=self._trust_domain,
            condition=self._condition,
        )

    def _grants_of(self, key: Key) -> list[Object]:
        return [
            g
            for g in self._cache.list("grants", key.namespace)
            if g["spec"].get("service") == key.name and not g["metadata"].get("deletionTimestamp")
        ]

    def _record(self, seen: Observed, desired: serving.Desired, decision: str, now: Instant) -> None:
        """Have what was decided on disk before it takes effect: grants to issue, or that nothing may be served."""
        meta = seen.service["metadata"]
        workload, policies = serving.workload(seen), [_policy(p) for p in serving.policies(seen)]
        artifact = dict(seen.model["spec"]["artifact"]) if seen.model is not None else None
        request: dict[str, Json] = {
            "service": meta["name"],
            "namespace": meta["namespace"],
            "who": workload,
            "artifact": artifact,
            "decision": decision,
            "now": now,
        }
        if desired.issue:
            inputs: dict[str, Json] = {
                "request": request,
                "premises": [premises.to_json() for premises in desired.premises],
                "grants": [g["spec"] for g in desired.issue],
                "policies": policies,
            }
            verdict, rule = Verdict(True, f"every premise holds for {workload}"), GRANT_RULE
            what = ", ".join(g["metadata"]["name"] for g in desired.issue)
        elif desired.obstacle is not None and _is_news(seen.service, desired.obstacle[0]):
            reason, message = desired.obstacle
            inputs = {"request": request, "policies": policies, "obstacle": [reason, message]}
            verdict, rule = Verdict(False, message, _ELEMENTS.get(reason, "premise")), REFUSAL
            if reason == "AccessDenied":
                inputs["question"] = asdict(serving.question(seen, workload, "serve"))
                rule = ACCESS_RULE
            what = f"{meta['namespace']}/{meta['name']}"
        else:
            return
        self._journal.decide(
            Decision(
                id=decision,
                at=now,
                part="control",
                rule=rule,
                verdict=verdict,
                who=workload,
                verb="grant",
                what=what,
                tenant=seen.tenant["metadata"]["name"] if seen.tenant else "",
                inputs={key: address(value) for key, value in inputs.items()},
            ),
            inputs,
        )

    def _revoke(self, grant: Object, reason: str) -> None:
        meta = grant["metadata"]
        with contextlib.suppress(NotFound):
            self._writer.patch(
                "grants", meta["namespace"], meta["name"], {"spec": {"revoked": True, "revokedReason": reason[:1024]}}
            )

    def _template(self, desired: Object) -> None:
        """Have the claim template say what the profile asks: its spec does not change, so another takes its place."""
        meta = desired["metadata"]
        held = self._cache.get("resourceclaimtemplates", meta["namespace"], meta["name"])
        said = (held["metadata"].get("annotations") or {}).get(serving.ASK) if held is not None else None
        if held is not None and said != meta["annotations"][serving.ASK]:
            self._writer.delete("resourceclaimtemplates", meta["namespace"], meta["name"], held["metadata"]["uid"])
            self._writer.create(desired)
        else:
            self._create_once(desired, "resourceclaimtemplates")

    def _create_once(self, desired: Object, plural: str) -> None:
        meta = desired["metadata"]
        if self._cache.get(plural, meta["namespace"], meta["name"]) is not None:
            return
        try:
            self._writer.create(desired)
        except AlreadyExists:
            return

    def _of_namespace(self, o: Object) -> list[Key]:
        namespace = o["metadata"].get("namespace", "")
        return [Key(namespace, s["metadata"]["name"]) for s in self._cache.list(self.kind, namespace)]

    def _of_label(self, o: Object) -> list[Key]:
        service = (o["metadata"].get("labels") or {}).get(serving.SERVICE_LABEL)
        return [Key(o["metadata"]["namespace"], service)] if service else []


def _of_deployment(pod: Object, name: str) -> bool:
    """Say whether the Deployment `name` made the pod: a label alone, which anyone may write, makes no replica."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(o.get("kind") == "Deployment" and o.get("name") == name and o.get("controller") for o in owners)


def _policy(policy: Object) -> dict[str, Json]:
    """Return of a policy what its revision is computed from."""
    return {"kind": policy["kind"], "metadata": {"name": policy["metadata"]["name"]}, "spec": policy["spec"]}


def _is_news(service: Object, reason: str) -> bool:
    before = find((service.get("status") or {}).get("conditions"), "Ready") or {}
    return before.get("reason") != reason


def silicon(cache: Cache) -> dict[Device, str]:
    """Return the UUID behind every published device."""
    found: dict[Device, str] = {}
    for published in cache.list("resourceslices"):
        spec = published["spec"]
        for device in spec.get("devices") or ():
            uuid = (device.get("attributes") or {}).get("uuid", {}).get("string")
            if uuid:
                found[spec["driver"], spec["pool"]["name"], device["name"]] = uuid
    return found


def _trust(model: Object | None) -> Verdict:
    """Return what the Model's own status says of its verification, of this very generation."""
    if model is None:
        return Verdict(False, "there is no such Model", "artifact")
    ready = find((model.get("status") or {}).get("conditions"), "Ready")
    if ready is None or ready.get("observedGeneration") != model["metadata"].get("generation"):
        return Verdict(False, "it has not been verified yet", "artifact")
    if ready.get("status") != "True":
        return Verdict(False, ready.get("message") or ready.get("reason") or "it is not verified", "artifact")
    return Verdict(True, "verified")
