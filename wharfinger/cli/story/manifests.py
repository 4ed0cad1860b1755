"""What the story applies: two tenants that share a fleet, what they may do, and what they run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

RESEARCH: Final = "research"
SUPPORT: Final = "support"
SLICE: Final = "slice-10g"
"""The GPU profile: a hardware slice with at least 10 GB and one compute slice."""
WHOLE: Final = "whole-80g"
"""The GPU profile: a whole GPU with 80 GB."""
_OURS: Final = "wharfinger.io/v1alpha1"


def person(domain: str, tenant: str, user: str) -> str:
    """Return a person's SPIFFE ID."""
    return f"spiffe://{domain}/tenant/{tenant}/user/{user}"


def workload(domain: str, namespace: str, account: str) -> str:
    """Return a workload's SPIFFE ID."""
    return f"spiffe://{domain}/ns/{namespace}/sa/{account}"


def part(domain: str, name: str) -> str:
    """Return the SPIFFE ID of a part of the platform."""
    return f"spiffe://{domain}/wharfinger/{name}"


def text(objects: Iterable[dict[str, Any]]) -> str:
    """Return `objects` as one file to apply; JSON is YAML."""
    return "---\n".join(json.dumps(each, indent=2) + "\n" for each in objects)


def tenants() -> list[dict[str, Any]]:
    """Return the tenants: research may hold six slices and no whole GPU, support one slice and few tokens."""
    return [
        _made(
            "Tenant",
            RESEARCH,
            {
                "namespaces": [RESEARCH],
                "admins": ["rosa"],
                "quota": {"gpu": {"memory": "60Gi", "computeSlices": 6}, "tokensPerMinute": 200_000},
                "rates": {"perMillionTokens": "2.50", "perGpuHour": "3.20"},
                "budget": {"monthly": "500", "currency": "USD"},
            },
        ),
        _made(
            "Tenant",
            SUPPORT,
            {
                "namespaces": [SUPPORT],
                "admins": ["sofia"],
                "quota": {"gpu": {"memory": "12Gi", "computeSlices": 1}, "tokensPerMinute": 400},
                "rates": {"perMillionTokens": "3.00", "perGpuHour": "4.00"},
            },
        ),
    ]


def policies(domain: str) -> list[dict[str, Any]]:
    """Return GPU profiles, whom to trust, who may serve and call, and what prompts and answers are looked at for."""
    return [
        _made("GPUProfile", SLICE, {"memory": "9Gi", "computeSlices": 1, "sharing": "Partition"}),
        _made("GPUProfile", WHOLE, {"memory": "75Gi", "computeSlices": 7}),
        _made(
            "TrustPolicy",
            "papers",
            {
                "tenants": [RESEARCH],
                "signers": [part(domain, "builder"), part(domain, "control")],
                "builders": [part(domain, "builder")],
            },
        ),
        _made(
            "TrustPolicy",
            "another-builder",
            {
                "tenants": [SUPPORT],
                "signers": [part(domain, "builder"), part(domain, "control")],
                "builders": [part(domain, "audited-builder")],
            },
        ),
        *(
            _made(
                "AccessPolicy",
                f"{tenant}-serves",
                {
                    "identities": [f"spiffe://{domain}/ns/{tenant}/*"],
                    "verbs": ["serve"],
                    "objects": {"namespaces": [tenant]},
                },
            )
            for tenant in (RESEARCH, SUPPORT)
        ),
        *(
            _made(
                "AccessPolicy",
                f"{tenant}-people",
                {
                    "identities": [f"spiffe://{domain}/tenant/{tenant}/*"],
                    "verbs": ["call", "push", "pull", "see"],
                    "objects": {"namespaces": [tenant]},
                },
            )
            for tenant in (RESEARCH, SUPPORT)
        ),
        *(
            _made(
                "InferencePolicy",
                "guards",
                {"guards": [{"name": "secrets"}, {"name": "pii"}], "limits": {"maxTokens": 8192}},
                tenant,
            )
            for tenant in (RESEARCH, SUPPORT)
        ),
    ]


def run(name: str, dataset: str, model: str, code: dict[str, str], threshold: float) -> dict[str, Any]:
    """Return the PipelineRun that trains `model` from `dataset` with the pushed example steps."""
    return _made(
        "PipelineRun",
        name,
        {
            "dataset": dataset,
            "model": model,
            "code": code,
            "serviceAccountName": "trainer",
            "train": {"command": ["sh", "-c", 'python "$WHARF_CODE/train.py"']},
            "evaluate": {
                "command": ["sh", "-c", 'python "$WHARF_CODE/evaluate.py"'],
                "thresholds": [{"metric": "perplexity", "maximum": threshold}],
            },
        },
        RESEARCH,
    )


def account(name: str, namespace: str) -> dict[str, Any]:
    """Return a ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def service(
    name: str,
    model: str,
    callers: Sequence[str],
    *,
    namespace: str = RESEARCH,
    profile: str = SLICE,
    runtime: dict[str, Any] | None = None,
    scaling: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Return an InferenceService that runs as the service account of its own name."""
    spec: dict[str, Any] = {
        "model": model,
        "gpuProfile": profile,
        "serviceAccountName": name,
        "callers": list(callers),
        "runtime": runtime or {"type": "Builtin"},
    }
    if scaling:
        spec["scaling"] = scaling
    return _made("InferenceService", name, spec, namespace)


def external(name: str, model: str, callers: Sequence[str], url: str, namespace: str = RESEARCH) -> dict[str, Any]:
    """Return an InferenceService in front of somebody else's server."""
    spec = {"model": model, "callers": list(callers), "runtime": {"type": "External", "external": {"url": url}}}
    return _made("InferenceService", name, spec, namespace)


def outside_server(name: str, namespace: str = RESEARCH) -> dict[str, Any]:
    """Return the Deployment of a model server that is none of ours and repeats what it should not."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {
                            "name": "server",
                            "image": "wharfinger.io/host",
                            "command": ["python", "-m", "wharfinger.cli.story.parrot"],
                            "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
                        }
                    ]
                },
            },
        },
    }


def _made(kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": _OURS, "kind": kind, "metadata": metadata, "spec": spec}


def model(name: str, namespace: str, repository: str, digest: str) -> dict[str, Any]:
    """Return the Model of an artifact that is in the registry."""
    return _made("Model", name, {"artifact": {"repository": repository, "digest": digest}}, namespace)


def squatter(name: str, template: str, models: str) -> dict[str, Any]:
    """Return a Pod that claims a slice by itself: the claim is in order, but no grant speaks of it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": RESEARCH},
        "spec": {
            "serviceAccountName": "greedy",
            "restartPolicy": "Never",
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": template}],
            "containers": [
                {
                    "name": "tries",
                    "image": "wharfinger.io/host",
                    "command": ["python", "-m", "wharfinger.cli.story.hostile", "--only-try"],
                    "env": [{"name": "DEMO_MODELS", "value": models}],
                    "resources": {"claims": [{"name": "gpu"}]},
                }
            ],
        },
    }
