"""A served model for tests: two services of one tenant and one of another, from dataset to grant, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from notary import BUILDER, CONTROL, DOMAIN, Notary, Shelf
from world import CountedIds, World

from wharfinger.bootstrap.proving import Prover
from wharfinger.controllers.dataset import DatasetReconciler
from wharfinger.controllers.desk import Desk
from wharfinger.controllers.inferenceservice import InferenceServiceReconciler
from wharfinger.controllers.model import ModelReconciler
from wharfinger.policy.cel import condition
from wharfinger.policy.decision import Decision
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door
from wharfinger.policy.journal import Journal
from wharfinger.supply.predicates import provenance
from wharfinger.supply.predicates.provenance import Dependency, Provenance

API = "wharfinger.io/v1alpha1"
ALICE, BOB = (f"spiffe://{DOMAIN}/tenant/research/user/{name}" for name in ("alice", "bob"))
DRIVER = "gpu.wharfinger.io"


def made(kind: str, name: str, namespace: str, spec: dict[str, Any], api: str = API) -> dict[str, Any]:
    """Return an object."""
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}


class Served:
    """Tenants research and support; services `assistant` and `archive` of research, each for one caller."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence
        self.notary, self.shelf = Notary(), Shelf()
        self.world = World(clock=self.notary.clock)
        self.journal = Journal(evidence / "control")
        self.gateway = Journal(evidence / "gateway")
        self.desk = Desk(self.shelf, self.notary, DOMAIN)
        self.ids = CountedIds()
        self.services = InferenceServiceReconciler(self.world, self.world, self.journal, self.ids, DOMAIN, condition)
        self.reconcilers = (
            DatasetReconciler(self.world, self.world, self.desk, lambda _: []),
            ModelReconciler(self.world, self.world, self.desk),
            self.services,
        )
        self.prover = Prover(evidence, self.desk, self.world, self.notary.clock)
        self._fill()
        self.settle()

    def close(self) -> None:
        """Close the journals."""
        self.journal.close()
        self.gateway.close()

    def settle(self) -> None:
        """Reconcile all, with pods and claims for every replica, until nothing changes."""
        for _ in range(4):
            self.world.settle(*self.reconcilers)
            self._pods()
        self.world.settle(*self.reconcilers)

    def grants(self, service: str = "", namespace: str = "research") -> list[Any]:
        """Return the grants that are not revoked."""
        return [
            g
            for g in self.world.list("grants", namespace)
            if not g["spec"]["revoked"] and service in ("", g["spec"]["service"])
        ]

    def ask(self, service: str = "assistant", caller: str = ALICE, **changes: Any) -> Decision:
        """Have the gateway decide a call."""
        keeper = Doorkeeper("gateway", self.gateway, self.notary.clock, self.ids)
        spec = self.grants(service)[0]["spec"]
        told = {
            "who": spec["workload"],
            "what": spec["artifacts"][0],
            "device": spec["claim"]["devices"][0]["uuid"],
            "caller": caller,
            "tenant": "research",
            **changes,
        }
        return keeper.judge(Door.GATEWAY, [g["spec"] for g in self.grants()], **told)

    def _fill(self) -> None:
        part = f"spiffe://{DOMAIN}/wharfinger/"
        for tenant in ("research", "support"):
            self.world.put(made("Tenant", tenant, "", {"namespaces": [tenant], "admins": ["ann"]}))
            serve = {"identities": [f"spiffe://{DOMAIN}/ns/{tenant}/*"], "verbs": ["serve"]}
            call = {"identities": [f"spiffe://{DOMAIN}/tenant/{tenant}/*"], "verbs": ["call"]}
            self.world.put(made("AccessPolicy", f"{tenant}-serves", "", serve))
            self.world.put(made("AccessPolicy", f"{tenant}-calls", "", call))
        trust = {"signers": [f"{part}builder", f"{part}control"], "builders": [f"{part}builder"]}
        self.world.put(made("TrustPolicy", "papers", "", trust))
        self.world.put(made("GPUProfile", "small", "", {"memory": "10Gi", "sharing": "Partition"}))
        for tenant, service, caller in (
            ("research", "assistant", ALICE),
            ("research", "archive", BOB),
            ("support", "hotline", f"spiffe://{DOMAIN}/tenant/support/user/sam"),
        ):
            self._model(tenant, f"{service}-model", service.encode() * 40)
            spec = {
                "model": f"{service}-model",
                "gpuProfile": "small",
                "serviceAccountName": service,
                "callers": [caller],
                "replicas": 1,
            }
            self.world.put(made("InferenceService", service, tenant, spec))

    def _model(self, namespace: str, name: str, weights: bytes) -> None:
        data = self._artifact("Dataset", "prose", namespace, {"a.txt": b"prose"})
        model = self._artifact("Model", name, namespace, {"model.safetensors": weights, "config.json": b"{}"})
        artifact = self.shelf.artifact(*model)
        run = Provenance(
            BUILDER, f"{namespace}/run-{name}", "uid", "namespaces", (Dependency(provenance.DATASET, *data),)
        )
        for statement in (artifact.contents.statement(), run.statement(*model, artifact.contents.digest)):
            self.shelf.attach(*model, self.notary.sign(statement, BUILDER), statement.predicate_type)

    def _artifact(self, kind: str, name: str, namespace: str, files: dict[str, bytes]) -> tuple[str, str]:
        lower: Any = kind.lower()
        repository = f"{namespace}/{lower}s/{name}"
        digest = self.shelf.push(repository, files, lower)
        self.world.put(made(kind, name, namespace, {"artifact": {"repository": repository, "digest": digest}}))
        return repository, digest

    def _pods(self) -> None:
        """Do what deployment, claim, scheduler and node do: pods with an allocated claim that run."""
        for deployment in self.world.list("deployments"):
            meta, spec = deployment["metadata"], deployment["spec"]
            namespace, wanted = meta["namespace"], spec["replicas"]
            for number in range(8):
                name = f"{meta['name']}-{number}"
                if number >= wanted:
                    self.world.delete("pods", namespace, name)
                elif self.world.get("pods", namespace, name) is None:
                    self.pod(namespace, name, spec["template"], meta)

    def pod(self, namespace: str, name: str, template: Any, owner: Any = None) -> None:
        """Have a pod of a template that runs and holds a slice; without an `owner` somebody made it by hand."""
        owners = (
            [{"kind": "Deployment", "name": owner["name"], "uid": owner["uid"], "controller": True}] if owner else []
        )
        labels = template["metadata"]["labels"]
        pod = self.world.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": owners},
                "spec": template["spec"],
                "status": {
                    "phase": "Running",
                    "podIP": "127.64.0.2",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": f"{name}-gpu"}],
                },
            }
        )
        device = f"mig-{namespace}-{name}"
        self.world.put(
            {
                **made("ResourceSlice", device, "", {}, "resource.k8s.io/v1"),
                "spec": {
                    "driver": DRIVER,
                    "pool": {"name": "node-a"},
                    "devices": [
                        {
                            "name": device,
                            "attributes": {
                                "uuid": {"string": f"MIG-{namespace}-{name}"},
                                "productName": {"string": "H100"},
                                "profile": {"string": "1g.10gb"},
                            },
                            "capacity": {"memory": {"value": "10Gi"}},
                        }
                    ],
                },
            }
        )
        result = {"driver": DRIVER, "pool": "node-a", "device": device, "request": "gpu"}
        self.world.put(
            {
                **made("ResourceClaim", f"{name}-gpu", namespace, {}, "resource.k8s.io/v1"),
                "status": {
                    "allocation": {"devices": {"results": [result]}},
                    "reservedFor": [{"resource": "pods", "name": name, "uid": pod["metadata"]["uid"]}],
                },
            }
        )


__all__ = ["ALICE", "BOB", "BUILDER", "CONTROL", "DOMAIN", "Served", "made"]
