"""Act 1, the line: from a dataset to a governed answer, its scaling and its bill."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any, Final

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.cli.ask import Reply, question, token_of
from wharfinger.cli.story import manifests
from wharfinger.cli.story.hostile import MODELS
from wharfinger.cli.story.manifests import RESEARCH, SUPPORT
from wharfinger.cli.story.stage import Stage, condition_of, short
from wharfinger.core.errors import Unavailable

PERPLEXITY: Final = 400.0
"""The bound that evaluation must keep; the model of the language reference reaches about 59."""
CALLERS: Final = {"assistant": "alice", "librarian": "bob"}
"""Each service of research, and the person who may call it."""
QUESTION: Final = "What does the lambda expression do in a class definition?"


def tell(stage: Stage, dataset: Path | None, examples: Path) -> None:
    """Tell the act. Raises the error family when the story cannot go on."""
    _fleet(stage)
    _tenants(stage)
    _datasets(stage, dataset)
    _models(stage, examples)
    _services(stage)
    _answer(stage)
    _scaling(stage)
    _bill(stage)


def _fleet(stage: Stage) -> None:
    nodes = stage.until("nodes", lambda: _ready_nodes(stage))
    devices = sum(len(s["spec"].get("devices") or ()) for s in _items(stage, "resourceslices"))
    shown = f"{len(nodes)} nodes, {devices} GPUs and possible slices, as their drivers found them"
    stage.check(
        "fleet",
        shown,
        "wharf get resourceslices",
        "every node ready, with its devices published",
        f"{len(nodes)} ready, {devices} devices",
        ok=bool(nodes) and devices > len(nodes),
    )


def _ready_nodes(stage: Stage) -> list[dict[str, Any]]:
    nodes = _items(stage, "nodes")
    return nodes if nodes and all(condition_of(n, "Ready")[0] == "True" for n in nodes) else []


def _tenants(stage: Stage) -> None:
    domain = stage.facts["trustDomain"]
    ran = stage.apply("tenants.yaml", manifests.text(manifests.tenants()))
    for tenant in (RESEARCH, SUPPORT):
        stage.until(f"tenant {tenant}", partial(_is, stage, "tenants", "", tenant, "Ready"))
    stage.apply("policies.yaml", manifests.text(manifests.policies(domain)))
    accounts = [manifests.account(name, RESEARCH) for name in ("trainer", *CALLERS, "greedy")]
    stage.apply("accounts.yaml", manifests.text(accounts))
    for profile in (manifests.SLICE, manifests.WHOLE):
        stage.until(f"GPU profile {profile}", partial(_is, stage, "gpuprofiles", "", profile, "Ready"))
    stage.check(
        "tenants",
        "two tenants, each with its namespace, its quota and its policies",
        ran.command,
        "both tenants ready",
        "both tenants ready",
        ok=True,
    )


def _datasets(stage: Stage, given: Path | None) -> None:
    whole = given or _language_reference(stage.work / "dataset")
    part = _half(whole, stage.work / "dataset-half")
    for name, folder in (("reference", whole), ("half", part)):
        ran = stage.run("push", "dataset", name, str(folder), "-n", RESEARCH)
        if ran.code:
            raise Unavailable(f"{ran.command}: {ran.err.strip()}")
        found = stage.until(f"dataset {name}", partial(_settled, stage, "datasets", RESEARCH, name))
        status = found.get("status") or {}
        verdict = (status.get("screening") or {}).get("verdict", "none")
        signer = (status.get("signature") or {}).get("signer", "nobody")
        stage.check(
            f"dataset/{name}",
            f"{status.get('files')} files, {status.get('bytes')} bytes, hashed, screened, signed",
            ran.command,
            "screening Passed, signed by the control plane",
            f"screening {verdict}, signed by {signer}; {short(condition_of(found, 'Ready')[2])}",
            ok=condition_of(found, "Ready")[0] == "True" and verdict == "Passed" and bool(signer),
        )


def _language_reference(folder: Path) -> Path:
    """Write the language reference that ships with every CPython to `folder`, a file a topic."""
    from pydoc_data.topics import topics

    folder.mkdir(parents=True, exist_ok=True)
    for name, text in topics.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def _half(whole: Path, folder: Path) -> Path:
    """Copy every second file of `whole`, in order of their names: another dataset, so another model."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in whole.rglob("*") if p.is_file())[::2]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _models(stage: Stage, examples: Path) -> None:
    pushed = stage.run("push", "code", "steps", str(examples), "-n", RESEARCH, "-o", "json").json()
    code = {"repository": pushed["repository"], "digest": pushed["digest"]}
    stage.facts["models"] = {}
    for name, dataset, model in (("train-topics", "reference", "topics"), ("train-half", "half", "half")):
        run = manifests.run(name, dataset, model, code, PERPLEXITY)
        ran = stage.apply(f"{name}.yaml", manifests.text([run]))
        _model(stage, name, model, ran.command)


def _model(stage: Stage, run: str, model: str, command: str) -> None:
    found = stage.until(f"run {run}", lambda: _settled(stage, "pipelineruns", RESEARCH, run, "Succeeded"))
    status = found.get("status") or {}
    steps = ", ".join(f"{s['name']} {s['phase']}" for s in status.get("steps") or ())
    metrics = ", ".join(f"{k} {v:.1f}" for k, v in (status.get("metrics") or {}).items())
    if not stage.check(
        f"training/{model}",
        f"screen, train, evaluate, sign, publish; {metrics}",
        command,
        "the run succeeded",
        f"{status.get('phase')}: {steps}; {short(condition_of(found, 'Succeeded')[2])}",
        ok=status.get("phase") == "Succeeded",
    ):
        raise Unavailable(f"run {run} did not succeed: there is no model to serve")
    made = stage.until(f"model {model}", lambda: _settled(stage, "models", RESEARCH, model))
    papers = made.get("status") or {}
    provenance = papers.get("provenance") or {}
    digest = made["spec"]["artifact"]["digest"]
    stage.facts["models"][model] = {"repository": made["spec"]["artifact"]["repository"], "digest": digest}
    stage.check(
        f"model/{model}",
        f"{digest[:19]} signed by {(papers.get('signature') or {}).get('signer')}, "
        f"built isolated by {provenance.get('isolation')}, in the registry and the log",
        f"wharf get model {model} -n {RESEARCH} -o yaml",
        "verified: signature, provenance from the run, datasets named",
        f"{condition_of(made, 'Ready')[1]}; run {provenance.get('run')}, "
        f"{len(provenance.get('datasets') or ())} dataset",
        ok=condition_of(made, "Ready")[0] == "True" and provenance.get("run") == f"{RESEARCH}/{run}",
    )


def runtime(stage: Stage) -> dict[str, Any]:
    """Return the runtime of the story's services: the built-in one, which also tries what it may not."""
    tried = " ".join(f"{m['repository']}@{m['digest']}" for m in stage.facts["models"].values())
    return {
        "type": "Command",
        "command": ["python", "-m", "wharfinger.cli.story.hostile"],
        "env": [{"name": MODELS, "value": tried}, {"name": "RUNTIME_PACE", "value": "0.01"}],
    }


def _services(stage: Stage) -> None:
    domain = stage.facts["trustDomain"]
    scaling = {"minReplicas": 1, "maxReplicas": 2, "tokensInFlight": 600, "scaleDownSeconds": 5}
    made = []
    for (service, user), model in zip(CALLERS.items(), stage.facts["models"], strict=True):
        callers = [manifests.person(domain, RESEARCH, user)]
        scaled = scaling if service == "assistant" else None
        made.append(manifests.service(service, model, callers, runtime=runtime(stage), scaling=scaled))
    ran = stage.apply("services.yaml", manifests.text(made))
    for service in CALLERS:
        found = stage.until(f"service {service}", partial(_is, stage, "inferenceservices", RESEARCH, service, "Ready"))
        grants = granted(stage, service)
        devices = [d["uuid"] for g in grants for d in (g["spec"].get("claim") or {}).get("devices", ())]
        stage.check(
            f"service/{service}",
            f"admitted, on slice {', '.join(devices) or 'none'}, granted to {grants[0]['spec']['workload']}",
            ran.command,
            "ready, with a grant that names one slice",
            f"{condition_of(found, 'Ready')[2]}; {len(grants)} grant, {len(devices)} slice",
            ok=len(grants) == 1 and len(devices) == 1,
        )


def granted(stage: Stage, service: str) -> list[dict[str, Any]]:
    """Return the grants of a service of research that are not revoked."""
    found = _items(stage, "grants", RESEARCH)
    return [g for g in found if g["spec"].get("service") == service and not g["spec"].get("revoked")]


def _answer(stage: Stage) -> None:
    words = ("ask", f"{RESEARCH}/assistant", QUESTION, "--as", f"{RESEARCH}/alice", "--max-tokens", "120", "-o", "json")
    ran = stage.run(*words)
    told = ran.json()
    stage.facts["answer"] = told["decision"]
    stage.check(
        "answer",
        f"streamed, first token after {told['ttftMilliseconds']} ms, {told['tokensPerSecond']} tokens/s: "
        + short(told["text"], 90),
        ran.command,
        "an answer in the words of the data, and its decision",
        f"status {told['status']}, {len(told['text'])} characters{told['error'] and ': ' + told['error']}",
        ok=bool(told["ok"] and told["text"].strip() and told["decision"]),
        decision=told["decision"],
    )


def _scaling(stage: Stage) -> None:
    bearer = token_of(stage.directory, f"{RESEARCH}/alice")
    replies: list[Reply] = []

    def load() -> None:
        replies.append(question(stage.directory, f"{RESEARCH}/assistant", QUESTION, bearer, 600, stream=True))

    threads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    command = f"wharf get inferenceservice assistant -n {RESEARCH} -w"
    most = _reaches(stage, 2)
    stage.check(
        "scale-up",
        "three long answers at once ask for more than one replica carries",
        command,
        "2 replicas",
        f"{most} replicas",
        ok=most == 2,
    )
    for thread in threads:
        thread.join()
    least = _reaches(stage, 1)
    whole = sum(reply.ok for reply in replies)
    stage.check(
        "scale-down",
        "load is over: a replica goes, no answer was cut",
        command,
        "1 replica, 3 whole answers",
        f"{least} replica, {whole} whole answers",
        ok=least == 1 and whole == 3,
    )
    stage.until("one replica", lambda: len(granted(stage, "assistant")) == 1)


def _reaches(stage: Stage, replicas: int) -> int:
    """Wait for the number of replicas to be wanted and there; return the number that there is at the end."""

    def there() -> bool:
        found = stage.get(RESOURCES["inferenceservices"], RESEARCH, "assistant")
        return [found["spec"].get("replicas", 1), (found.get("status") or {}).get("readyReplicas")] == [replicas] * 2

    try:
        stage.until(f"{replicas} replicas", there, patience=45)
    except Unavailable:
        found = stage.get(RESOURCES["inferenceservices"], RESEARCH, "assistant")
        return int((found.get("status") or {}).get("readyReplicas", 0))
    return replicas


def _bill(stage: Stage) -> None:
    ran = stage.run("bill", "-o", "json")
    lines = {line["tenant"]: line for line in ran.json()["tenants"]}
    mine = lines.get(RESEARCH, {})
    shown = ", ".join(f"{t}: {v['tokens']} tokens, {v['gpuHours']} GPU h, {v['amount']}" for t, v in lines.items())
    stage.check(
        "bill",
        shown,
        ran.command,
        "research pays for the tokens and silicon it used",
        json.dumps(mine),
        ok=int(mine.get("tokens", 0)) > 0 and float(mine.get("amount", 0)) > 0,
    )


def _items(stage: Stage, plural: str, namespace: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.client.list(RESOURCES[plural], namespace)["items"]
    return found


def _is(stage: Stage, plural: str, namespace: str, name: str, kind: str) -> dict[str, Any]:
    """Return the object when its condition is true, `{}` before."""
    found = stage.get(RESOURCES[plural], namespace, name)
    return found if condition_of(found, kind)[0] == "True" else {}


def _settled(stage: Stage, plural: str, namespace: str, name: str, kind: str = "Ready") -> dict[str, Any]:
    """Return the object when its condition is true, or false for good, `{}` before."""
    found = stage.get(RESOURCES[plural], namespace, name)
    status, reason, _ = condition_of(found, kind)
    waiting = reason in ("", "Pending", "Running", "Verifying", "Hashing", "Screening", "Signing", "Unverified")
    return found if status == "True" or (status == "False" and not waiting) else {}
