"""Probes: is a container ready, alive, done starting? What is asked, and what a row of answers means.

The judging is a pure fold (`judge`); a `Prober` is the thread that asks one running container, by TCP, HTTP or a
command inside it, and tells when the verdict changes. Only the pod's own address is ever asked.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

Role = Literal["startup", "readiness", "liveness"]
_ROLES: Final[tuple[Role, ...]] = ("startup", "readiness", "liveness")
_LONGEST: Final = 60.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of a container: how to ask (`told`, the probe's own object) and how often, in seconds."""

    role: Role
    told: Mapping[str, Any]
    delay: float
    period: float
    timeout: float
    successes: int
    failures: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What the answers so far amount to: how many equal ones in a row, and the verdict, None before the first."""

    passed: bool = False
    in_a_row: int = 0
    verdict: bool | None = None
    message: str = ""


def probes_of(container: Mapping[str, Any]) -> list[Probe]:
    """Return the container's probes with Kubernetes' defaults, the startup probe first."""
    made = []
    for role in _ROLES:
        told = container.get(f"{role}Probe")
        if told:
            made.append(
                Probe(
                    role,
                    told,
                    float(told.get("initialDelaySeconds") or 0),
                    float(told.get("periodSeconds") or 10),
                    min(_LONGEST, float(told.get("timeoutSeconds") or 1)),
                    int(told.get("successThreshold") or 1),
                    int(told.get("failureThreshold") or 3),
                )
            )
    return made


def judge(probe: Probe, tally: Tally, passed: bool, message: str) -> Tally:
    """Return the tally after one more answer."""
    in_a_row = tally.in_a_row + 1 if tally.in_a_row and tally.passed == passed else 1
    verdict = tally.verdict
    if in_a_row >= (probe.successes if passed else probe.failures):
        verdict = passed
    return replace(tally, passed=passed, in_a_row=in_a_row, verdict=verdict, message="" if passed else message)


class Prober:
    """Asks one running container until it is stopped.

    `tell` gets a role, its verdict and why, in the prober's thread, whenever verdict or reason changes. `inside` runs a
    command in the container within a time and returns its exit status and output.
    """

    def __init__(
        self,
        container: Mapping[str, Any],
        ip: str,
        tell: Callable[[Role, bool, str], None],
        inside: Callable[[list[str], float], tuple[int, str]],
    ) -> None:
        self._container = container
        self._ip = ip
        self._tell = tell
        self._inside = inside
        self._stopped = threading.Event()
        self._probes = probes_of(container)

    def start(self) -> None:
        """Begin; a container without probes has none to ask."""
        if self._probes:
            threading.Thread(target=self._run, name=f"probe-{self._container['name']}", daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()

    def _run(self) -> None:
        startup = [probe for probe in self._probes if probe.role == "startup"]
        if startup and not self._until_started(startup[0]):
            return
        rest = [probe for probe in self._probes if probe.role != "startup"]
        tallies = {probe.role: Tally() for probe in rest}
        waits = {probe.role: probe.delay for probe in rest}
        while rest:
            soonest = min(waits.values())
            if self._stopped.wait(soonest):
                return
            waits = {role: wait - soonest for role, wait in waits.items()}
            for probe in rest:
                if waits[probe.role] <= 0:
                    waits[probe.role] = probe.period
                    tallies[probe.role] = self._asked(probe, tallies[probe.role])

    def _until_started(self, probe: Probe) -> bool:
        tally = Tally()
        wait = probe.delay
        while not self._stopped.wait(wait):
            tally = self._asked(probe, tally)
            if tally.verdict is not None:
                return tally.verdict
            wait = probe.period
        return False

    def _asked(self, probe: Probe, before: Tally) -> Tally:
        after = judge(probe, before, *self._ask(probe))
        changed = after.verdict != before.verdict or (after.verdict is False and after.message != before.message)
        if after.verdict is not None and changed and not self._stopped.is_set():
            self._tell(probe.role, after.verdict, after.message)
        return after

    def _ask(self, probe: Probe) -> tuple[bool, str]:
        told = probe.told
        if told.get("exec"):
            code, said = self._inside(list(told["exec"].get("command") or ()), probe.timeout)
            return code == 0, said or f"exit status {code}"
        if told.get("tcpSocket"):
            return self._tcp(self._port(told["tcpSocket"]["port"]), probe.timeout)
        if told.get("httpGet"):
            return self._http(told["httpGet"], probe.timeout)
        return False, "expected an exec, tcpSocket or httpGet probe"

    def _port(self, told: int | str) -> int:
        if isinstance(told, int):
            return told
        named = {str(p.get("name")): int(p["containerPort"]) for p in self._container.get("ports") or ()}
        return named.get(told, 0)

    def _tcp(self, port: int, timeout: float) -> tuple[bool, str]:
        try:
            with socket.create_connection((self._ip, port), timeout=timeout):
                return True, ""
        except OSError as error:
            return False, f"dial tcp {self._ip}:{port}: {_why(error)}"

    def _http(self, told: Mapping[str, Any], timeout: float) -> tuple[bool, str]:
        port, path = self._port(told["port"]), str(told.get("path") or "/")
        connection: http.client.HTTPConnection
        if str(told.get("scheme") or "HTTP").upper() == "HTTPS":
            # As kubelet does: a probe asks whether somebody answers, not who.
            unverified = ssl._create_unverified_context()  # noqa: S323
            connection = http.client.HTTPSConnection(self._ip, port, timeout=timeout, context=unverified)
        else:
            connection = http.client.HTTPConnection(self._ip, port, timeout=timeout)
        headers = {str(h["name"]): str(h["value"]) for h in told.get("httpHeaders") or ()}
        try:
            connection.request("GET", path, headers={"User-Agent": "wharfinger-probe", **headers})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:
            return False, f"Get http://{self._ip}:{port}{path}: {_why(error)}"
        finally:
            connection.close()
        return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"


def _why(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error) or type(error).__name__
