"""Act 3, the swap matrix: two valid grants over (identity, model, device, caller), all 16 combinations.

Everything that is swapped in is itself valid: a signed model, a slice within the quota, a caller of the tenant. What a
combination is worth is asked of the real doors, from inside: the pods of both services try both models at the registry
and both slices at their device nodes; both callers ask both services at the gateway. Then the combination as a whole is
put to the gateway's doorkeeper, whose decision names what does not belong.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.cli.story.line import CALLERS, QUESTION, granted
from wharfinger.cli.story.manifests import RESEARCH, person
from wharfinger.cli.story.stage import Stage

ELEMENTS: Final = ("identity", "artifact", "device", "caller")
REACHED: Final = ("ok", "ENXIO")
"""What `open` says to whom it is opened: on declared GPUs it gets as far as the driver that is not there."""


@dataclass(frozen=True, slots=True)
class Grantee:
    """One of the two services: its grant's four elements, and how each can be tried."""

    service: str
    workload: str
    artifact: str
    device: str
    nodes: tuple[str, ...]
    caller: str
    person: str
    tried: dict[tuple[str, str], str]


def tell(stage: Stage) -> None:
    """Tell the act. Raises the error family when the services are not there."""
    two = [grantee(stage, service) for service in CALLERS]
    asked = {(s, c): _asks(stage, two[s], two[c]) for s, c in itertools.product(range(2), repeat=2)}
    for chosen in itertools.product(range(2), repeat=4):
        _combination(stage, two, chosen, asked)


def grantee(stage: Stage, service: str) -> Grantee:
    """Return a service's grant and what its pod has tried so far."""
    spec = stage.until(f"grant of {service}", lambda: granted(stage, service))[0]["spec"]

    def whole() -> dict[tuple[str, str], str]:
        tried = attempts(stage, spec["pod"])
        models = {what for kind, what in tried if kind == "pull"}
        return tried if len(models) == len(stage.facts["models"]) and ("self", "nodes") in tried else {}

    tried = stage.until(f"tries of {service}", whole)
    user = CALLERS[service]
    return Grantee(
        service=service,
        workload=spec["workload"],
        artifact=spec["artifacts"][0],
        device=spec["claim"]["devices"][0]["uuid"],
        nodes=tuple(tried["self", "nodes"].split(",")),
        caller=person(stage.facts["trustDomain"], RESEARCH, user),
        person=f"{RESEARCH}/{user}",
        tried=tried,
    )


def attempts(stage: Stage, pod: str) -> dict[tuple[str, str], str]:
    """Return how each thing that the pod tries came out the last time, by what was tried and on what."""
    ran = stage.run("logs", pod, "-n", RESEARCH)
    found: dict[tuple[str, str], str] = {}
    for line in ran.out.splitlines():
        if not line.startswith('{"try"'):
            continue
        told = json.loads(line)
        if told["try"] == "self":
            found["self", "nodes"] = told["nodes"]
        else:
            found[told["try"], told["what"]] = told["got"]
    return found


def opened(tried: dict[tuple[str, str], str], nodes: tuple[str, ...]) -> str:
    """Return how opening the last of a slice's device nodes, the one that is its own, came out."""
    return tried.get(("open", nodes[-1]), "ENOENT")


def _asks(stage: Stage, service: Grantee, caller: Grantee) -> tuple[int, str]:
    """Return status and decision of a question of `caller`'s person to `service`."""
    words = ("--as", caller.person, "--max-tokens", "4", "-o", "json")
    told = stage.run("ask", f"{RESEARCH}/{service.service}", QUESTION, *words).json()
    return int(told["status"]), str(told["decision"])


def _combination(
    stage: Stage, two: list[Grantee], chosen: tuple[int, ...], asked: dict[tuple[int, int], tuple[int, str]]
) -> None:
    who, what, device, caller = (two[index] for index in chosen)
    pulled = who.tried.get(("pull", what.artifact), "not tried")
    reached = opened(who.tried, device.nodes)
    status, _ = asked[chosen[0], chosen[3]]
    ran = stage.run(
        "judge",
        "--workload",
        who.workload,
        "--artifact",
        what.artifact,
        "--device",
        device.device,
        "--caller",
        caller.caller,
        "-o",
        "json",
    )
    verdict: dict[str, Any] = ran.json()
    belongs = len(set(chosen)) == 1
    doors = (pulled == "ok", reached in REACHED, status == 200)
    should = (chosen[0] == chosen[1], chosen[0] == chosen[2], chosen[0] == chosen[3])
    strange = strangers(chosen)
    named = verdict["allowed"] if belongs else (not verdict["allowed"] and verdict["element"] in strange)
    names = " ".join(f"{element}={two[index].service}" for element, index in zip(ELEMENTS, chosen, strict=True))
    stage.check(
        "swap/" + "".join("ab"[index] for index in chosen),
        f"{names}: " + ("granted" if verdict["allowed"] else f"refused: the {verdict['element']} does not belong"),
        ran.command,
        "granted" if belongs else f"refused for the {' or '.join(sorted(strange))}",
        f"{'granted' if verdict['allowed'] else 'refused for the ' + verdict['element']}; "
        f"pull {pulled.split(' ')[0]}, open {reached}, call {status}",
        ok=named and doors == should,
        decision=verdict["decision"],
    )


def strangers(chosen: tuple[int, ...]) -> set[str]:
    """Return the elements that a refusal of the combination may name: the first that is not of the nearest grant.

    Pure. `chosen` says for each element whose it is. Of two grants that are equally near either may be spoken of.
    """
    away = {grant: [e for e, index in zip(ELEMENTS, chosen, strict=True) if index != grant] for grant in (0, 1)}
    least = min(len(elements) for elements in away.values())
    return {elements[0] for elements in away.values() if len(elements) == least and elements}
