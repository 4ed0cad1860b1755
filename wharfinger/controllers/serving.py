"""Serving, decided: from an InferenceService and what it stands on to pods, grants and a status.

Pure. The reconciler (`controllers.inferenceservice`) observes, calls `decide` and applies the difference.
A service whose premises fail is not half served: no pods, every grant revoked, and the reason in its status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.core.clock import Instant, parse_rfc3339
from wharfinger.core.digests import sha256
from wharfinger.core.document import canonical
from wharfinger.core.errors import Denied
from wharfinger.gpu.profiles import claim_spec
from wharfinger.kinds.condition import condition, find, is_true
from wharfinger.kinds.kind import GROUP, VERSION
from wharfinger.policy import grant
from wharfinger.policy.access import Condition, Question, revision
from wharfinger.policy.access import decide as access
from wharfinger.policy.decision import Verdict

Object = Mapping[str, Any]
Device = tuple[str, str, str]
"""Driver, pool and device name."""

SERVICE_LABEL: Final = f"{GROUP}/service"
GRANT_NEEDED: Final = f"{GROUP}/grant"
"""Annotation of a pod that the node starts only under a Grant; its value is the model's digest."""
MODEL_LABEL: Final = f"{GROUP}/model"
PORT: Final = 8443


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is: the service, what it names, what was made for it, and the policies."""

    service: Object
    model: Object | None
    profile: Object | None
    tenant: Object | None
    trust: Verdict
    access_policies: Sequence[Object]
    trust_policies: Sequence[Object]
    pods: Sequence[Object]
    claims: Mapping[str, Object]
    silicon: Mapping[Device, str]
    grants: Sequence[Object]
    trust_domain: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class Desired:
    """What there is to be. `issue` are Grant objects to create, `revoke` grants with the reason each is revoked for."""

    deployment: dict[str, Any] | None
    template: dict[str, Any] | None
    issue: list[dict[str, Any]]
    revoke: list[tuple[Object, str]]
    status: dict[str, Any]


def decide(seen: Observed, decision: str, now: Instant) -> Desired:
    """Return what the service needs; `decision` is the id under which grants are issued."""
    obstacle = _obstacle(seen)
    external = seen.service["spec"].get("runtime", {}).get("type") == "External"
    revision_now = revision([*seen.access_policies, *seen.trust_policies])
    issue: list[dict[str, Any]] = []
    revoke: list[tuple[Object, str]] = []
    live = [g for g in seen.grants if not g["spec"].get("revoked")]
    if obstacle is not None:
        revoke = [(g, obstacle[1]) for g in live]
    elif not external:
        pods = {pod["metadata"]["uid"]: pod for pod in seen.pods if not pod["metadata"].get("deletionTimestamp")}
        revoke = [(g, "its pod is gone") for g in live if g["spec"].get("podUid") not in pods]
        for uid, pod in pods.items():
            mine = [g for g in live if g["spec"].get("podUid") == uid]
            _grant_for(seen, pod, mine, revision_now, decision, now, issue, revoke)
    return Desired(
        deployment=None if external else _deployment(seen, 0 if obstacle else seen.service["spec"].get("replicas", 1)),
        template=_template(seen) if seen.profile is not None and not external else None,
        issue=issue,
        revoke=revoke,
        status=_status(seen, obstacle, issue, now),
    )


def workload(seen: Observed) -> str:
    """Return the SPIFFE ID that the service's pods run as."""
    meta, spec = seen.service["metadata"], seen.service["spec"]
    account = spec.get("serviceAccountName", "default")
    return f"spiffe://{seen.trust_domain}/ns/{meta['namespace']}/sa/{account}"


def _obstacle(seen: Observed) -> tuple[str, str] | None:
    """Return why the service must not be served: a reason and a message; None when it may."""
    meta, spec = seen.service["metadata"], seen.service["spec"]
    if seen.tenant is None:
        return "NoTenant", f"namespace {meta['namespace']} belongs to no tenant"
    if spec.get("runtime", {}).get("type") == "External":
        return None
    if seen.model is None:
        return "ModelNotFound", f"there is no Model {spec['model']} in {meta['namespace']}"
    pinned = spec.get("modelDigest")
    digest = seen.model["spec"]["artifact"]["digest"]
    if pinned and pinned != digest:
        return "DigestMismatch", f"the service pins {pinned}, Model {spec['model']} is {digest}"
    if not seen.trust.allowed:
        return "Unverified", f"Model {spec['model']}: {seen.trust.reason}"
    if spec.get("gpuProfile") and seen.profile is None:
        return "ProfileNotFound", f"there is no GPUProfile {spec['gpuProfile']}"
    serve = access(seen.access_policies, _question(seen, workload(seen), "serve"), seen.condition)
    if not serve.allowed:
        return "AccessDenied", serve.reason
    return None


def _question(seen: Observed, identity: str, verb: str) -> Question:
    meta, spec = seen.service["metadata"], seen.service["spec"]
    kind, name = ("Model", spec["model"]) if verb == "serve" else ("InferenceService", meta["name"])
    tenant = seen.tenant["metadata"]["name"] if seen.tenant else ""
    return Question(identity, verb, kind, meta["namespace"], name, tenant)


def _grant_for(
    seen: Observed,
    pod: Object,
    mine: list[Object],
    policy_revision: str,
    decision: str,
    now: Instant,
    issue: list[dict[str, Any]],
    revoke: list[tuple[Object, str]],
) -> None:
    """Add the grant that `pod` needs now to `issue`, and those of its grants that no longer hold to `revoke`."""
    claim = _claim_of(seen, pod)
    if seen.profile is not None and (claim is None or not _allocated(claim)):
        return
    try:
        spec = grant.issue(_premises(seen, pod, claim, policy_revision), decision, now)
    except Denied as refusal:
        revoke.extend((g, refusal.message) for g in mine)
        return
    keep = [g for g in mine if _says(g["spec"]) == _says(spec) and not _half_spent(g["spec"], now)]
    if keep:
        revoke.extend((g, "replaced by a newer grant") for g in mine if g not in keep)
        return
    meta = seen.service["metadata"]
    issue.append(
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Grant",
            "metadata": {
                "name": f"{pod['metadata']['name']}-{sha256(canonical(spec))[7:15]}",
                "namespace": meta["namespace"],
                "labels": {SERVICE_LABEL: meta["name"]},
                "ownerReferences": [_owner(seen.service)],
            },
            "spec": spec,
        }
    )
    revoke.extend((g, "replaced by a newer grant") for g in mine)


def _premises(seen: Observed, pod: Object, claim: Object | None, policy_revision: str) -> grant.Premises:
    assert seen.model is not None
    meta, spec = seen.service["metadata"], seen.service["spec"]
    silicon: list[grant.Silicon] = []
    holder = ""
    if claim is not None:
        status = claim["status"]
        for result in status["allocation"]["devices"]["results"]:
            device = (result["driver"], result["pool"], result["device"])
            uuid = seen.silicon.get(device)
            if uuid is None:
                continue
            silicon.append(grant.Silicon(*device, uuid=uuid, request=result.get("request", "")))
        reserved = [r["uid"] for r in status.get("reservedFor", ())]
        holder = reserved[0] if reserved == [pod["metadata"]["uid"]] else ""
    digest = seen.model["spec"]["artifact"]["digest"]
    artifacts = {digest: seen.trust}
    content = seen.model.get("status", {}).get("contentDigest")
    if content:
        artifacts[content] = seen.trust
    summary = seen.model.get("status", {}).get("summary")
    return grant.Premises(
        workload=workload(seen),
        pod=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        service=meta["name"],
        artifact_verdicts=artifacts,
        serve=access(seen.access_policies, _question(seen, workload(seen), "serve"), seen.condition),
        calls={
            caller: access(seen.access_policies, _question(seen, caller, "call"), seen.condition)
            for caller in spec.get("callers", ())
        },
        claim_name=claim["metadata"]["name"] if claim else "",
        claim_uid=claim["metadata"]["uid"] if claim else "",
        claim_holder=holder,
        silicon=silicon,
        needs_silicon=seen.profile is not None,
        policy_revision=policy_revision,
        verification=[summary] if summary else [],
    )


def _says(spec: Object) -> tuple[Any, ...]:
    """What a grant says, apart from when and under which decision: two that say the same are one."""
    devices = [d["uuid"] for d in (spec.get("claim") or {}).get("devices", ())]
    return (
        spec["workload"], spec.get("podUid"), sorted(spec["artifacts"]), sorted(spec.get("callers", ())),
        devices, spec["policyRevision"],
    )  # fmt: skip


def _half_spent(spec: Object, now: Instant) -> bool:
    start, end = parse_rfc3339(spec["notBefore"]), parse_rfc3339(spec["notAfter"])
    return now - start > (end - start) // 2


def _claim_of(seen: Observed, pod: Object) -> Object | None:
    for entry in pod.get("status", {}).get("resourceClaimStatuses") or ():
        return seen.claims.get(entry.get("resourceClaimName") or "")
    return None


def _allocated(claim: Object) -> bool:
    return bool(claim.get("status", {}).get("allocation"))


def _owner(service: Object) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "name": service["metadata"]["name"],
        "uid": service["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _template(seen: Observed) -> dict[str, Any]:
    assert seen.profile is not None
    meta, profile = seen.service["metadata"], seen.profile
    name = f"{meta['name']}-{profile['metadata']['name']}"
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": meta["namespace"], "ownerReferences": [_owner(seen.service)]},
        "spec": {"spec": claim_spec(profile)},
    }


def _deployment(seen: Observed, replicas: int) -> dict[str, Any]:
    meta, spec = seen.service["metadata"], seen.service["spec"]
    runtime = spec.get("runtime", {})
    labels = {SERVICE_LABEL: meta["name"]}
    artifact = seen.model["spec"]["artifact"] if seen.model else {"digest": "", "repository": ""}
    command = list(runtime.get("command") or ()) or ["python", "-m", "wharfinger.inference.runtime"]
    container: dict[str, Any] = {
        "name": "runtime",
        "image": "wharfinger.io/host",
        "command": command,
        "ports": [{"name": "openai", "containerPort": PORT, "protocol": "TCP"}],
        "env": [
            {"name": "WHARF_MODEL_REPOSITORY", "value": artifact["repository"]},
            {"name": "WHARF_MODEL_DIGEST", "value": artifact["digest"]},
            {"name": "WHARF_MODEL_NAME", "value": spec["model"]},
            {"name": "WHARF_SERVICE", "value": meta["name"]},
            {"name": "WHARF_PORT", "value": str(PORT)},
            *({"name": e["name"], "value": e.get("value", "")} for e in runtime.get("env") or ()),
        ],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": 1},
    }
    pod: dict[str, Any] = {
        "serviceAccountName": spec.get("serviceAccountName", "default"),
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
    }
    if seen.profile is not None:
        template = f"{meta['name']}-{seen.profile['metadata']['name']}"
        pod["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": template}]
        container["resources"] = {"claims": [{"name": "gpu"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [_owner(seen.service)],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels, "annotations": {GRANT_NEEDED: artifact["digest"]}},
                "spec": pod,
            },
        },
    }


def _status(seen: Observed, obstacle: tuple[str, str] | None, issue: Sequence[Object], now: Instant) -> dict[str, Any]:
    meta, spec = seen.service["metadata"], seen.service["spec"]
    granted = {
        g["spec"].get("podUid"): g["metadata"]["name"] for g in [*seen.grants, *issue] if not g["spec"].get("revoked")
    }
    endpoints = [_replica(seen, pod, granted) for pod in seen.pods if not pod["metadata"].get("deletionTimestamp")]
    external = spec.get("runtime", {}).get("type") == "External"
    ready = sum(1 for e in endpoints if e["ready"])
    wanted = 0 if obstacle else spec.get("replicas", 1)
    if obstacle is not None:
        holds, reason, message = False, *obstacle
    elif external:
        holds, reason, message = True, "External", f"served by {spec['runtime'].get('external', {}).get('url', '')}"
    elif wanted == 0:
        holds, reason, message = True, "ScaledToZero", "no replicas are wanted"
    elif ready:
        holds, reason, message = True, "Serving", f"{ready} of {wanted} replicas serve"
    else:
        waiting = [f"{e['pod']}: {e['reason']}" for e in endpoints if e.get("reason")]
        holds, reason, message = False, "NotReady", "; ".join(waiting) or "no replica is ready yet"
    old = seen.service.get("status", {}).get("conditions")
    status: dict[str, Any] = {
        "replicas": len(endpoints),
        "readyReplicas": ready,
        "selector": f"{SERVICE_LABEL}={meta['name']}",
        "endpoints": endpoints,
        "conditions": condition(old, "Ready", holds, reason, message, meta.get("generation", 0), now),
    }
    if seen.model is not None and not external:
        status["modelDigest"] = seen.model["spec"]["artifact"]["digest"]
    return status


def _replica(seen: Observed, pod: Object, granted: Mapping[str, str]) -> dict[str, Any]:
    status = pod.get("status", {})
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    address = f"{status['podIP']}:{PORT}" if status.get("podIP") else ""
    made: dict[str, Any] = {"pod": name, "ready": is_true(status.get("conditions"), "Ready") and uid in granted}
    if address:
        made["address"] = address
    if uid in granted:
        made["grant"] = granted[uid]
    if not made["ready"]:
        made["reason"] = _why_not(seen, pod, uid in granted)
    return made


def _why_not(seen: Observed, pod: Object, granted: bool) -> str:
    status = pod.get("status", {})
    scheduled = find(status.get("conditions"), "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason") or "not scheduled")
    for container in status.get("containerStatuses") or ():
        for state in (container.get("state", {}).get("waiting"), container.get("state", {}).get("terminated")):
            if state and (state.get("message") or state.get("reason")):
                return str(state.get("message") or state.get("reason"))
    if seen.profile is not None and not granted:
        return "waits for its claim and grant"
    ready = find(status.get("conditions"), "Ready")
    return str((ready or {}).get("message") or "starting")
