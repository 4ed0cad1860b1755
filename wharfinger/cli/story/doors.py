"""Act 4, each door alone: registry, device node, gateway and the runtime's own port, attacked directly."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from typing import Any, Final

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.bootstrap.operations import admin, port_of
from wharfinger.bootstrap.state import State
from wharfinger.cli.ask import token_of
from wharfinger.cli.story import manifests
from wharfinger.cli.story.line import CALLERS, QUESTION, granted
from wharfinger.cli.story.manifests import RESEARCH, SLICE, SUPPORT
from wharfinger.cli.story.stage import Stage, condition_of, short
from wharfinger.cli.story.swap import REACHED, attempts, grantee
from wharfinger.cluster.endpoint import credentials
from wharfinger.core.errors import Unavailable
from wharfinger.identity.source import from_pem
from wharfinger.identity.tls import client_context

_SQUATTER: Final = "squatter"


def tell(stage: Stage) -> None:
    """Tell the act. Raises the error family when the services are not there."""
    _registry(stage)
    _device(stage)
    _gateway(stage)
    _runtime(stage)


def _registry(stage: Stage) -> None:
    first, second = (grantee(stage, service) for service in CALLERS)
    got = second.tried.get(("pull", first.artifact), "not tried")
    stage.check(
        "door/registry",
        f"{second.service}'s own identity pulls {first.service}'s model: {short(got, 100)}",
        f"wharf logs {granted(stage, second.service)[0]['spec']['pod']} -n {RESEARCH}",
        "403, no grant names it",
        short(got),
        ok=got.startswith("403"),
    )
    model = next(iter(stage.facts["models"].values()))
    domain = stage.facts["trustDomain"]
    state = State(stage.directory)
    token = token_of(stage.directory, f"{SUPPORT}/sam", audience=f"spiffe://{domain}/wharfinger/registry")
    layer = json.loads(_fetch(state, model["repository"], model["digest"]))["layers"][0]["digest"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=credentials(state.kubeconfig).authorities.decode("ascii"))
    connection = http.client.HTTPSConnection("127.0.0.1", port_of(state, "registry"), context=context, timeout=30)
    path = f"/v2/{model['repository']}/blobs/{layer}"
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
    stage.check(
        "door/registry-blob",
        "somebody of another tenant who knows a blob's address gets nothing",
        f"curl --cacert ca.pem -H 'Authorization: Bearer TOKEN' https://127.0.0.1:{port_of(state, 'registry')}{path}",
        "403 or 404",
        f"status {answer.status}",
        ok=answer.status in (403, 404),
    )


def _fetch(state: State, repository: str, digest: str) -> bytes:
    """Return a manifest as the local admin."""
    from wharfinger.supply.registry.client import RegistryClient

    return RegistryClient("127.0.0.1", port_of(state, "registry"), admin(state)).pull_manifest(repository, digest).data


def _device(stage: Stage) -> None:
    first, second = (grantee(stage, service) for service in CALLERS)
    got = first.tried.get(("open", second.nodes[-1]), "ENOENT")
    stage.check(
        "door/device",
        f"{first.service}'s pod opens {second.service}'s slice: {got}",
        f"wharf logs {granted(stage, first.service)[0]['spec']['pod']} -n {RESEARCH}",
        "EPERM, or no such node at all",
        got,
        ok=got in ("EPERM", "EACCES", "ENOENT"),
    )
    tried = " ".join(f"{m['repository']}@{m['digest']}" for m in stage.facts["models"].values())
    pod = manifests.squatter(_SQUATTER, _template(stage), tried)
    stage.run("delete", "pod", _SQUATTER, "-n", RESEARCH)
    stage.until("the squatter is gone", lambda: not stage.get(RESOURCES["pods"], RESEARCH, _SQUATTER))
    ran = stage.apply("squatter.yaml", manifests.text([pod]))
    outcome = stage.until("the squatter's end or refusal", lambda: _squatting(stage))
    stage.check(
        "door/device-no-grant",
        f"a pod with a claim of its own, in quota, but without a grant: {short(outcome)}",
        ran.command,
        "its slice is not opened",
        short(outcome),
        ok="opened" not in outcome,
    )
    stage.run("delete", "pod", _SQUATTER, "-n", RESEARCH)


def _template(stage: Stage) -> str:
    """Return the claim template of the first service: anybody in the namespace may claim by it."""
    for made in stage.client.list(RESOURCES["resourceclaimtemplates"], RESEARCH)["items"]:
        name = str(made["metadata"]["name"])
        if name.startswith(f"{next(iter(CALLERS))}-{SLICE}"):
            return name
    raise Unavailable("the service has no claim template")


def _squatting(stage: Stage) -> str:
    """Return what became of the squatter: that it opened its slice, or why it does not run."""
    pod = stage.get(RESOURCES["pods"], RESEARCH, _SQUATTER)
    status = pod.get("status") or {}
    claimed = status.get("resourceClaimStatuses") and condition_of(pod, "PodScheduled")[0] == "True"
    if not claimed:
        return ""
    with contextlib.suppress(Unavailable):
        tried = attempts(stage, _SQUATTER)
        mine = [got for (kind, _), got in tried.items() if kind == "open" and got in REACHED]
        if mine:
            return f"opened: {mine[0]}"
        if ("self", "nodes") in tried and any(kind == "open" for kind, _ in tried):
            return "runs, and every open was refused"
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if "grant" in str(waiting.get("message", "")).lower():
            return str(waiting["message"])
    return ""


def _gateway(stage: Stage) -> None:
    for name, who, shown in (
        ("door/gateway", f"{RESEARCH}/bob", "the tenant's other caller"),
        ("door/gateway-tenant", f"{SUPPORT}/sam", "a caller of another tenant"),
    ):
        ran = stage.run("ask", f"{RESEARCH}/assistant", QUESTION, "--as", who, "-o", "json", "--max-tokens", "4")
        told = ran.json()
        decided: dict[str, Any] = {}
        if told["decision"]:
            decided = stage.run("get", "decision", told["decision"], "-o", "json").json()
        refused = decided.get("part") == "gateway" and decided.get("allowed") is False
        stage.check(
            name,
            f"{shown} asks the assistant: {short(told['error'], 100)}",
            ran.command,
            "403, decided by the gateway: the caller is not granted",
            f"status {told['status']}, decided by {decided.get('part', 'nobody')}: {short(told['error'])}",
            ok=told["status"] == 403 and refused,
            decision=told["decision"],
        )


def _runtime(stage: Stage) -> None:
    """Go around the gateway: alice herself, who may call, on the replica's own port, with a certificate and without."""
    kubeconfig = stage.work / "alice.kubeconfig"
    stage.run("kubeconfig", "--tenant", RESEARCH, "--user", "alice", binary=kubeconfig)
    told = credentials(kubeconfig)
    alice = from_pem(told.certificates, told.key, told.authorities)
    service = stage.get(RESOURCES["inferenceservices"], RESEARCH, "assistant")
    address = next(e["address"] for e in service["status"]["endpoints"] if e.get("ready"))
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    for name, context, shown in (
        ("door/runtime", client_context(alice, expect=None), "with the certificate of somebody who may call it"),
        ("door/runtime-nobody", anonymous, "without a certificate"),
    ):
        got = _call(address, context)
        stage.check(
            name,
            f"the replica's own port, {shown}, around the gateway: {short(got, 100)}",
            f"curl -k --cert alice.pem https://{address}/v1/chat/completions",
            "refused",
            short(got),
            ok=not got.startswith("200"),
        )


def _call(address: str, context: ssl.SSLContext) -> str:
    host, _, port = address.rpartition(":")
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4})
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return f"{answer.status} {answer.read()[:200].decode('utf-8', 'replace')}"
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
