"""Serving, decided: from an InferenceService and what it stands on to pods, grants and a status.

Pure. The reconciler (`controllers.inferenceservice`) observes, calls `decide` and applies the difference.
A service whose premises fail is not half served: no pods, every grant revoked, and the reason in its status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wharfinger.core.clock import Instant, parse_rfc3339
from wharfinger.core.digests import sha256
from wharfinger.core.document import canonical
from wharfinger.core.errors import Denied
from wharfinger.gpu.profiles import claim_spec
from wharfinger.kinds.condition import condition, find, is_true
from wharfinger.kinds.kind import GROUP, VERSION
from wharfinger.policy import grant
from wharfinger.policy.access import Condition, Question, revision, speaking_of
from wharfinger.policy.access import decide as access
from wharfinger.policy.decision import Verdict
from wharfinger.supply.verification import MODEL, applying

Object = Mapping[str, Any]
Device = tuple[str, str, str]
"""Driver, pool and device name."""

SERVICE_LABEL: Final = f"{GROUP}/service"
GRANT_NEEDED: Final = f"{GROUP}/grant"
"""Annotation of a pod that the node starts only under a Grant; its value is the model's digest."""
ASK: Final = f"{GROUP}/ask"
"""Annotation of a claim template and of its replicas: the digest of what is asked for."""
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
    """What there is to be, in the order in which it is done.

    `revoke` are grants to be revoked at once, each with its reason; `issue` are Grant objects to create; `replaced`
    are the grants in whose place those stand, revoked last, so that nobody who may go on is ever without a grant.
    `premises` are what each of `issue` rests on; `obstacle` is why nothing is served, None when it is.
    """

    deployment: dict[str, Any] | None
    template: dict[str, Any] | None
    issue: list[dict[str, Any]]
    revoke: list[tuple[Object, str]]
    status: dict[str, Any]
    replaced: list[Object] = field(default_factory=list)
    premises: list[grant.Premises] = field(default_factory=list)
    obstacle: tuple[str, str] | None = None


def decide(seen: Observed, decision: str, now: Instant) -> Desired:
    """Return what the service needs; `decision` is the id under which grants are issued."""
    obstacle = _obstacle(seen)
    external = seen.service["spec"].get("runtime", {}).get("type") == "External"
    revision_now = revision(policies(seen))
    plan = _Grants()
    live = [g for g in seen.grants if not g["spec"].get("revoked")]
    if obstacle is not None:
        plan.revoke = [(g, obstacle[1]) for g in live]
    elif not external:
        pods = {pod["metadata"]["uid"]: pod for pod in seen.pods if not _ended(pod)}
        plan.revoke = [(g, "its pod is gone") for g in live if g["spec"].get("podUid") not in pods]
        for uid, pod in pods.items():
            mine = [g for g in live if g["spec"].get("podUid") == uid]
            _grant_for(seen, pod, mine, revision_now, decision, now, plan)
    return Desired(
        deployment=None if external else _deployment(seen, 0 if obstacle else seen.service["spec"].get("replicas", 1)),
        template=_template(seen) if seen.profile is not None and not external else None,
        issue=plan.issue,
        revoke=plan.revoke,
        replaced=plan.replaced,
        premises=plan.premises,
        obstacle=obstacle,
        status=_status(seen, obstacle, plan.issue, now),
    )


def policies(seen: Observed) -> list[Object]:
    """Return the policies that a grant of the service rests on: those that have a say in it, and no others.

    So a policy about somebody else changes nothing here, not even the revision that is written in the grant.
    """
    spec = seen.service["spec"]
    questions = [question(seen, workload(seen), "serve")]
    questions += [question(seen, caller, "call") for caller in spec.get("callers", ())]
    tenant = seen.tenant["metadata"]["name"] if seen.tenant else ""
    return [*speaking_of(seen.access_policies, questions), *applying(seen.trust_policies, MODEL, tenant)]


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
    serve = access(seen.access_policies, question(seen, workload(seen), "serve"), seen.condition)
    if not serve.allowed:
        return "AccessDenied", serve.reason
    return None


def question(seen: Observed, identity: str, verb: str) -> Question:
    """Return what is asked of the access policies: may `identity` serve the model, or call the service."""
    meta, spec = seen.service["metadata"], seen.service["spec"]
    kind, name = ("Model", spec["model"]) if verb == "serve" else ("InferenceService", meta["name"])
    tenant = seen.tenant["metadata"]["name"] if seen.tenant else ""
    return Question(identity, verb, kind, meta["namespace"], name, tenant)


@dataclass(slots=True)
class _Grants:
    """Grants to issue, to revoke, and to replace."""

    issue: list[dict[str, Any]] = field(default_factory=list)
    premises: list[grant.Premises] = field(default_factory=list)
    revoke: list[tuple[Object, str]] = field(default_factory=list)
    replaced: list[Object] = field(default_factory=list)


def _grant_for(
    seen: Observed, pod: Object, mine: list[Object], policy_revision: str, decision: str, now: Instant, plan: _Grants
) -> None:
    """Put into `plan` the grant that `pod` needs now, and those of its grants that no longer hold."""
    claim = _claim_of(seen, pod)
    if seen.profile is not None and (claim is None or not _allocated(claim)):
        plan.revoke.extend((g, "its claim is gone") for g in mine)
        return
    try:
        premises = _premises(seen, pod, claim, policy_revision)
        spec = grant.issue(premises, decision, now)
    except Denied as refusal:
        plan.revoke.extend((g, refusal.message) for g in mine)
        return
    keep = [g for g in mine if _says(g["spec"]) == _says(spec) and _is_fresh(g["spec"], now)]
    narrower = [g for g in mine if g not in keep and not _allows_no_more(g["spec"], spec)]
    plan.revoke.extend((g, "it allows what is no longer allowed") for g in narrower)
    plan.replaced.extend(g for g in mine if g not in keep and g not in narrower)
    if keep or pod["metadata"].get("deletionTimestamp"):
        return
    meta = seen.service["metadata"]
    plan.premises.append(premises)
    plan.issue.append(
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Grant",
            "metadata": {
                "name": _grant_name(seen, pod, spec),
                "namespace": meta["namespace"],
                "labels": {SERVICE_LABEL: meta["name"]},
                "ownerReferences": [_owner(seen.service)],
            },
            "spec": spec,
        }
    )


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
    summary = seen.model.get("status", {}).get("summary")
    return grant.Premises(
        workload=workload(seen),
        pod=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        service=meta["name"],
        artifact_verdicts={digest: seen.trust},
        serve=access(seen.access_policies, question(seen, workload(seen), "serve"), seen.condition),
        calls={
            caller: access(seen.access_policies, question(seen, caller, "call"), seen.condition)
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


def _grant_name(seen: Observed, pod: Object, spec: Object) -> str:
    """Return the name of the pod's next grant: the same at every try, until that grant has been seen."""
    uid = pod["metadata"]["uid"]
    before = sorted(g["metadata"].get("uid", "") for g in seen.grants if g["spec"].get("podUid") == uid)
    return f"{pod['metadata']['name']}-{sha256(canonical([_says(spec), before]))[7:15]}"


def _allows_no_more(old: Object, new: Object) -> bool:
    """Say whether everything that the grant `old` allows is allowed by `new` too."""

    def devices(spec: Object) -> set[str]:
        return {d["uuid"] for d in (spec.get("claim") or {}).get("devices", ())}

    return (
        old["workload"] == new["workload"]
        and set(old["artifacts"]) <= set(new["artifacts"])
        and set(old.get("callers", ())) <= set(new.get("callers", ()))
        and devices(old) <= devices(new)
    )


def _ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _is_fresh(spec: Object, now: Instant) -> bool:
    """Say whether a grant holds already, and half of its time is left; a clock that was set back makes it new again."""
    start, end = parse_rfc3339(spec["notBefore"]), parse_rfc3339(spec["notAfter"])
    return start <= now <= start + (end - start) // 2


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
    spec = {"spec": claim_spec(profile)}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": f"{meta['name']}-{profile['metadata']['name']}",
            "namespace": meta["namespace"],
            "annotations": {ASK: sha256(canonical(spec))},
            "ownerReferences": [_owner(seen.service)],
        },
        "spec": spec,
    }


def _deployment(seen: Observed, replicas: int) -> dict[str, Any]:
    meta, spec = seen.service["metadata"], seen.service["spec"]
    runtime = spec.get("runtime", {})
    labels = {SERVICE_LABEL: meta["name"]}
    artifact = seen.model["spec"]["artifact"] if seen.model else {"digest": "", "repository": ""}
    command = list(runtime.get("command") or ()) or ["python", "-m", "wharfinger.inference.runtime"]
    annotations = {GRANT_NEEDED: artifact["digest"]}
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
        template = _template(seen)
        pod["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": template["metadata"]["name"]}]
        # Another ask is another pod template: the replicas roll over to it.
        annotations |= template["metadata"]["annotations"]
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
                "metadata": {"labels": labels, "annotations": annotations},
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
        mismatch = any("DigestMismatch" in e.get("reason", "") for e in endpoints)
        holds, reason = False, "DigestMismatch" if mismatch else "NotReady"
        message = "; ".join(waiting) or "no replica is ready yet"
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
        why = _of_container(container)
        if why:
            return why
    if seen.profile is not None and not granted:
        return "waits for its claim and grant"
    ready = find(status.get("conditions"), "Ready")
    return str((ready or {}).get("message") or "starting")


def _of_container(container: Object) -> str:
    """Return why a container does not run: what it said itself as it ended, before what is said of its restarts."""
    state = container.get("state") or {}
    last = (container.get("lastState") or {}).get("terminated") or {}
    for ended in (state.get("terminated"), last):
        if ended and ended.get("message"):
            return str(ended["message"])
    for told in (state.get("waiting"), state.get("terminated")):
        if told and (told.get("message") or told.get("reason")):
            return str(told.get("message") or told.get("reason"))
    return ""
