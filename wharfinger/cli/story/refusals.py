"""Act 2, refusals: what must not pass, and the words in which it does not."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.bootstrap.operations import admin, port_of
from wharfinger.bootstrap.state import State
from wharfinger.cli.story import manifests, parrot
from wharfinger.cli.story.line import QUESTION
from wharfinger.cli.story.manifests import RESEARCH, SUPPORT
from wharfinger.cli.story.stage import Stage, condition_of, short
from wharfinger.core.errors import Unavailable
from wharfinger.supply import artifact
from wharfinger.supply.registry.client import RegistryClient

TOKEN: Final = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"[::-1]
"""Shaped like an access token, and nobody's."""
_ALICE: Final = f"{RESEARCH}/alice"
_ASSISTANT: Final = f"{RESEARCH}/assistant"


def tell(stage: Stage) -> None:
    """Tell the act. Raises the error family when the story cannot go on."""
    _secret(stage)
    _contact(stage)
    _papers(stage)
    _over_quota(stage)
    _token_limit(stage)


def _secret(stage: Stage) -> None:
    ran = stage.run("ask", _ASSISTANT, f"Keep this for me: {TOKEN}", "--as", _ALICE, "-o", "json")
    told = ran.json()
    stage.check(
        "secret-in-prompt",
        f"stopped before the model saw it: {short(told['error'])}",
        ran.command,
        "refused, with a decision, the secret itself nowhere",
        f"status {told['status']}: {short(told['error'])}",
        ok=told["status"] in (400, 403) and bool(told["decision"]) and TOKEN not in told["error"],
        decision=told["decision"],
    )


def _contact(stage: Stage) -> None:
    callers = [manifests.person(stage.facts["trustDomain"], RESEARCH, "alice")]
    stage.apply("outside-server.yaml", manifests.text([manifests.outside_server("outside")]))
    address = stage.until("the outside server", lambda: _address(stage, "outside"))
    url = f"http://{address}:{parrot.PORT}/v1"
    service = manifests.external("outside", next(iter(stage.facts["models"])), callers, url)
    stage.apply("outside.yaml", manifests.text([service]))
    stage.until("service outside", lambda: _holds(stage, "inferenceservices", RESEARCH, "outside"))
    ran = stage.run("ask", f"{RESEARCH}/outside", "Who can help me?", "--as", _ALICE, "-o", "json")
    told = ran.json()
    leaked = [word for word in ("jane.roe@example.com", "4111 1111 1111 1111") if word in told["text"]]
    stage.check(
        "pii-in-answer",
        f"masked while it streamed: {short(told['text'], 100)}",
        ran.command,
        "the answer without address and card number",
        f"status {told['status']}, leaked {leaked or 'nothing'}: {short(told['text'], 100)}",
        ok=told["ok"] and not leaked and "Sure" in told["text"],
        decision=told["decision"],
    )


def _address(stage: Stage, app: str) -> str:
    for pod in stage.client.list(RESOURCES["pods"], RESEARCH, labels=f"app={app}")["items"]:
        if condition_of(pod, "Ready")[0] == "True":
            return str(pod["status"]["podIP"])
    return ""


def _papers(stage: Stage) -> None:
    """Push models whose papers are not in order, and see why each is not admitted."""
    registry = RegistryClient("127.0.0.1", port_of(State(stage.directory), "registry"), admin(State(stage.directory)))
    name = next(iter(stage.facts["models"]))
    signed = stage.facts["models"][name]
    folder = stage.work / "weights"
    if not folder.exists():
        artifact.pull_folder(registry, signed["repository"], signed["digest"], folder)
    papers = list(artifact.attached(registry, signed["repository"], signed["digest"]))
    flipped = _flipped(folder, stage.work / "weights-flipped")
    cases: list[tuple[str, str, Path, Iterable[bytes], str, tuple[str, ...]]] = [
        ("flipped-bit", RESEARCH, flipped, papers, "other bytes than were signed", ("DigestMismatch", "Unverified")),
        ("unsigned", RESEARCH, folder, (), "nobody signed it", ("Unsigned", "NotSigned")),
        (
            "unknown-builder",
            SUPPORT,
            folder,
            papers,
            "support trusts another builder",
            ("UnknownBuilder", "UntrustedBuilder"),
        ),
    ]
    for model, namespace, files, attached, shown, reasons in cases:
        repository = artifact.repository_of(namespace, "model", model)
        digest = artifact.push_folder(registry, repository, files, "model", annotations={"demo.case": model})
        for bundle in attached:
            artifact.attach(registry, repository, digest, bundle)
        made = manifests.model(model, namespace, repository, digest)
        ran = stage.apply(f"{model}.yaml", manifests.text([made]))
        found = stage.until(f"model {model}", partial(_refused, stage, namespace, model))
        status, reason, message = condition_of(found, "Ready")
        stage.check(
            f"model/{model}",
            f"{shown}: {short(message)}",
            f"wharf get model {model} -n {namespace} -o yaml",
            f"not ready: {' or '.join(reasons)}",
            f"ready {status}, {reason}: {short(message)} ({ran.command})",
            ok=status == "False" and reason in reasons,
        )


def _flipped(folder: Path, into: Path) -> Path:
    """Copy the model's files, one bit of its weights turned."""
    into.mkdir(exist_ok=True)
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == ".safetensors":
            data[len(data) // 2] ^= 1
        (into / path.name).write_bytes(data)
    return into


def _over_quota(stage: Stage) -> None:
    model = next(iter(stage.facts["models"]))
    made = manifests.service("greedy", model, [], profile=manifests.WHOLE)
    ran = stage.apply("greedy.yaml", manifests.text([made]))
    found = stage.until("service greedy", lambda: _waits(stage, "greedy"))
    message = condition_of(found, "Ready")[2]
    stage.check(
        "over-quota",
        f"waits: {short(message)}",
        ran.command,
        "no pod, and quota named as the reason",
        short(message, 400),
        ok="quota" in message.lower(),
    )
    stage.run("delete", "inferenceservice", "greedy", "-n", RESEARCH)


def _waits(stage: Stage, name: str) -> dict[str, Any]:
    found = stage.get(RESOURCES["inferenceservices"], RESEARCH, name)
    status, _, message = condition_of(found, "Ready")
    return found if status == "False" and "quota" in message.lower() else {}


def _token_limit(stage: Stage) -> None:
    domain = stage.facts["trustDomain"]
    address = _address(stage, "outside")
    callers = [manifests.person(domain, SUPPORT, "sam")]
    service = manifests.external("hotline", "none", callers, f"http://{address}:{parrot.PORT}/v1", SUPPORT)
    stage.apply("hotline.yaml", manifests.text([service]))
    stage.until("service hotline", lambda: _holds(stage, "inferenceservices", SUPPORT, "hotline"))
    told: dict[str, Any] = {}
    command = ""
    for _ in range(6):
        ran = stage.run(
            "ask", f"{SUPPORT}/hotline", QUESTION, "--as", f"{SUPPORT}/sam", "--max-tokens", "150", "-o", "json"
        )
        told, command = ran.json(), ran.command
        if told["status"] != 200:
            break
    stage.check(
        "token-limit",
        f"429: {short(told['error'])}; Retry-After {told['retryAfter']} s",
        command,
        "429 with Retry-After once the tenant's tokens of a minute are spent",
        f"status {told['status']}, Retry-After {told['retryAfter'] or 'none'}",
        ok=told["status"] == 429 and told["retryAfter"].isdigit(),
        decision=told["decision"],
    )


def _holds(stage: Stage, plural: str, namespace: str, name: str) -> dict[str, Any]:
    found = stage.get(RESOURCES[plural], namespace, name)
    return found if condition_of(found, "Ready")[0] == "True" else {}


def _refused(stage: Stage, namespace: str, model: str) -> dict[str, Any]:
    found = stage.get(RESOURCES["models"], namespace, model)
    status, reason, message = condition_of(found, "Ready")
    if status == "True":
        raise Unavailable(f"model {model} was admitted: {message}")
    return found if status == "False" and reason not in ("Pending", "Verifying") else {}
