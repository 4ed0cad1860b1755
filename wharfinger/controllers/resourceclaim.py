"""Makes a Pod's ResourceClaims from their templates, names them in the Pod's status, and frees them when it is over.

What kube-controller-manager's resourceclaim controller does in a cluster (resource.k8s.io/v1): one claim per pod and
entry, owned by the pod, so that it goes with it; `reservedFor` is emptied when the pod has ended or is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, own, owner
from wharfinger.core.clock import Instant, Span
from wharfinger.core.digests import sha256
from wharfinger.core.errors import AlreadyExists, NotFound

_TEMPLATE_ANNOTATION = "resource.kubernetes.io/pod-claim-name"


class ResourceClaimReconciler:
    """Keyed by Pod."""

    kind = "pods"

    def __init__(self, cache: Cache, writer: Writer) -> None:
        self._cache = cache
        self._writer = writer

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return pods, and the claims that they own or hold."""
        owned = owner("Pod")
        return {
            "pods": own,
            "resourceclaims": lambda claim: {*owned(claim), *_holders(claim)},
            "resourceclaimtemplates": self._users,
        }

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Make what the pod lacks; free what it no longer uses."""
        pod = self._cache.get("pods", key.namespace, key.name)
        self._free(key, pod)
        if pod is None or ended(pod):
            return None
        if deleting(pod) or not pod["spec"].get("resourceClaims"):
            return None
        templates = {t["metadata"]["name"]: t for t in self._cache.list("resourceclaimtemplates", key.namespace)}
        wanted = claims(pod, templates)
        for claim in wanted:
            if self._cache.get("resourceclaims", key.namespace, claim["metadata"]["name"]) is None:
                try:
                    self._writer.create(claim)
                except AlreadyExists:
                    continue
        statuses = [
            {"name": entry["name"], "resourceClaimName": claim_name(pod, entry["name"])}
            for entry in pod["spec"]["resourceClaims"]
            if entry.get("resourceClaimTemplateName") in templates
        ]
        if (pod.get("status") or {}).get("resourceClaimStatuses") != statuses:
            with suppress(NotFound):
                self._writer.status("pods", key.namespace, key.name, {"resourceClaimStatuses": statuses})
        return None

    def _users(self, template: Object) -> list[Key]:
        """Return the pods that name the template: they wait for it."""
        meta = template["metadata"]
        return [
            Key(meta["namespace"], pod["metadata"]["name"])
            for pod in self._cache.list("pods", meta["namespace"])
            if any(
                entry.get("resourceClaimTemplateName") == meta["name"]
                for entry in pod["spec"].get("resourceClaims") or ()
            )
        ]

    def _free(self, key: Key, pod: Object | None) -> None:
        """Free the claims that are reserved for a pod of this name which is over, or which is another by now."""
        for claim in self._cache.list("resourceclaims", key.namespace):
            meta, reserved = claim["metadata"], (claim.get("status") or {}).get("reservedFor") or ()
            kept = [r for r in reserved if not _over(r, key.name, pod)]
            if len(kept) == len(reserved):
                continue
            freed: dict[str, Any] = {"reservedFor": kept} if kept else {"reservedFor": None, "allocation": None}
            # Of this version alone: who reserves the claim meanwhile keeps it, and this is tried again.
            with suppress(NotFound):
                self._writer.status(
                    "resourceclaims", key.namespace, meta["name"], freed, version=meta.get("resourceVersion", "")
                )


def _over(reference: Object, name: str, pod: Object | None) -> bool:
    if reference.get("resource") != "pods" or reference.get("name") != name:
        return False
    return pod is None or pod["metadata"]["uid"] != reference.get("uid") or ended(pod)


def _holders(claim: Object) -> list[Key]:
    return [
        Key(claim["metadata"].get("namespace", ""), reference["name"])
        for reference in (claim.get("status") or {}).get("reservedFor") or ()
        if reference.get("resource") == "pods"
    ]


def claims(pod: Object, templates: Mapping[str, Object]) -> list[dict[str, Any]]:
    """Return the claims that `pod` is to own, of the templates that are there."""
    meta = pod["metadata"]
    made = []
    for entry in pod["spec"].get("resourceClaims") or ():
        template = templates.get(entry.get("resourceClaimTemplateName") or "")
        if template is None:
            continue
        inner = template["spec"]
        made.append(
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {
                    "name": claim_name(pod, entry["name"]),
                    "namespace": meta["namespace"],
                    "labels": dict((inner.get("metadata") or {}).get("labels") or {}),
                    "annotations": {_TEMPLATE_ANNOTATION: entry["name"]},
                    "ownerReferences": [
                        {
                            "apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"],
                            "controller": True, "blockOwnerDeletion": True,
                        }
                    ],
                },
                "spec": inner["spec"],
            }
        )  # fmt: skip
    return made


def claim_name(pod: Object, entry: str) -> str:
    """Return the name of the claim that `pod` owns for its `entry`: the same at every try, another for another pod."""
    meta = pod["metadata"]
    mark = sha256(f"{meta['uid']}/{entry}".encode())[7:12]
    return f"{meta['name'][:40]}-{entry[:15]}-{mark}"


def ended(pod: Object) -> bool:
    """Say whether `pod` will never run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
