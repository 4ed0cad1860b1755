"""The two API servers that one contract holds for: the local one, and kube-apiserver with our CRDs installed."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import yaml
from kube_apiserver import KubeApiserver
from local_api import CONTROL, LocalApi

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.cluster.client import Client
from wharfinger.cluster.endpoint import Endpoint
from wharfinger.kinds.registry import KINDS

ROOT = Path(__file__).resolve().parents[2]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Adapter(Protocol):
    """A running server."""

    name: str

    def endpoint(self) -> Endpoint:
        """Return how to reach it as one who may do everything."""
        ...


@dataclass
class Reply:
    """An answer: its status, its headers, and the value in its body."""

    status: int
    headers: list[tuple[str, str]]
    text: bytes

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    @property
    def warnings(self) -> list[str]:
        """The texts of its Warning headers."""
        return [text for name, text in self.headers if name.lower() == "warning"]


@dataclass
class Api:
    """A server as the contract speaks to it: any request, and a namespace that is this test's own."""

    server: Adapter
    namespace: str = ""
    _connection: http.client.HTTPConnection | None = None
    _made: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_local(self) -> bool:
        """Whether it is the local server."""
        return self.server.name == "local"

    @property
    def client(self) -> Client:
        """A client of ours."""
        return Client(self.server.endpoint(), user_agent="contract")

    def path(self, plural: str, name: str = "", sub: str = "", namespace: str | None = None) -> str:
        """Return the path of a resource, of one object or of its subresource, in this test's namespace."""
        return RESOURCES[plural].path(self.namespace if namespace is None else namespace, name, sub)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: Any,
    ) -> Reply:
        """Send a request and return the answer; a body that is not bytes is sent as JSON."""
        if query:
            path += "?" + urlencode({name.rstrip("_"): value for name, value in query.items()}, doseq=True)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Accept": accept, "User-Agent": "contract/1", **self._authorization()}
        if data is not None:
            headers["Content-Type"] = content_type
        connection = self._connection = self._connection or self.connect()
        try:
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheaders(), answer.read())
        except (OSError, http.client.HTTPException):
            connection.close()
            self._connection = None
            raise

    def made(self, plural: str, body: Any, **query: Any) -> Any:
        """Create an object in this test's namespace and return it."""
        reply = self.call("POST", self.path(plural), body, **query)
        assert reply.status == 201, reply.text
        return reply.value

    def got(self, plural: str, name: str, sub: str = "") -> Any:
        """Return an object that is there."""
        reply = self.call("GET", self.path(plural, name, sub))
        assert reply.status == 200, reply.text
        return reply.value

    def patched(self, plural: str, name: str, patch: Any, kind: str = "merge", sub: str = "", **query: Any) -> Reply:
        """Patch an object; `kind` is merge, json, strategic or apply."""
        media = {
            "merge": "application/merge-patch+json",
            "json": "application/json-patch+json",
            "strategic": "application/strategic-merge-patch+json",
            "apply": "application/apply-patch+yaml",
        }[kind]
        return self.call("PATCH", self.path(plural, name, sub), patch, content_type=media, **query)

    def applied(self, plural: str, config: Any, manager: str, sub: str = "", **query: Any) -> Reply:
        """Apply a configuration server-side as `manager`."""
        name = config["metadata"]["name"]
        return self.patched(plural, name, config, "apply", sub, fieldManager=manager, **query)

    def watch(self, path: str, accept: str = "application/json", **query: Any) -> Iterator[Any]:
        """Yield the events of a watch."""
        connection = self.connect()
        try:
            query = {"watch": "true", "timeoutSeconds": 15, **query}
            headers = {"Accept": accept, **self._authorization()}
            connection.request("GET", f"{path}?{urlencode(query)}", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                yield {"type": "REFUSED", "object": json.loads(answer.read())}
                return
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        endpoint = self.server.endpoint()
        return http.client.HTTPSConnection(endpoint.host, endpoint.port, context=endpoint.context, timeout=30)

    def _authorization(self) -> dict[str, str]:
        token = self.server.endpoint().token
        return {"Authorization": f"Bearer {token()}"} if token else {}

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


class Local:
    """The local server, in this process."""

    name = "local"

    def __init__(self, folder: Path) -> None:
        self.running = LocalApi(folder / "objects.db").start()
        self._endpoint = self.running.client(CONTROL).endpoint

    def endpoint(self) -> Endpoint:
        """Return how to reach it as the control plane, who may write status too."""
        return self._endpoint

    def stop(self) -> None:
        """End it."""
        self.running.stop()


class Kubernetes:
    """kube-apiserver and etcd, with our CRDs."""

    name = "kubernetes"

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        self.running = KubeApiserver(folder, fsync=fsync)
        self.running.start()
        # A server that has just been started for this test, with a certificate of its own making.
        context = ssl._create_unverified_context()
        port = int(self.running.url.rpartition(":")[2])
        self._endpoint = Endpoint("127.0.0.1", port, context, lambda: self.running.token)
        self._install()

    def endpoint(self) -> Endpoint:
        """Return how to reach it as a cluster admin."""
        return self._endpoint

    def stop(self) -> None:
        """End both processes."""
        self.running.stop()

    def _install(self) -> None:
        api = Api(self)
        names = []
        for file in sorted((ROOT / "deploy" / "crds").glob("*.yaml")):
            definition = yaml.safe_load(file.read_text(encoding="utf-8"))
            reply = api.call("POST", CRDS, definition)
            assert reply.status == 201, reply.text
            names.append(definition["metadata"]["name"])
        for name in names:
            for event in api.watch(CRDS, fieldSelector=f"metadata.name={name}", timeoutSeconds=60):
                conditions = (event["object"].get("status") or {}).get("conditions") or []
                if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                    break
        # Established, and for a moment still not served.
        for name in names:
            while api.call("GET", RESOURCES[name.partition(".")[0]].path()).status != 200:
                pass
        kinds = {kind.name for kind in KINDS}
        while not kinds <= self._described(api):
            pass
        api.close()

    def _described(self, api: Api) -> set[str]:
        """Return the kinds that OpenAPI describes by now: it follows the definitions."""
        reply = api.call("GET", "/openapi/v3/apis/wharfinger.io/v1alpha1")
        return (
            {name.rpartition(".")[2] for name in reply.value["components"]["schemas"]} if reply.status == 200 else set()
        )


def inference_service(name: str, **spec: Any) -> Any:
    """Return a minimal InferenceService."""
    return {
        "apiVersion": "wharfinger.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"model": "small", **spec},
    }


def config_map(name: str, **data: str) -> Any:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, image: str = "example/web:1", **spec: Any) -> Any:
    """Return a Deployment."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


def pod(name: str, **metadata: Any) -> Any:
    """Return a Pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "main", "image": "example/main:1"}]},
    }
