"""The node's pure rules: what to do with a pod next, what a container may see, call and open."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.clock import SECOND
from wharfinger.core.errors import Invalid
from wharfinger.local.node import devicefilter, environment, sandbox, seccomp
from wharfinger.local.node.podplan import Step, Verb, View, decide, look_again
from wharfinger.local.node.podstatus import ContainerState, Failure, Known, Past, backoff, phase, status
from wharfinger.local.node.sandbox import Host, Mount, Volume

HOST = Host([Mount("/opt/python", "/opt/python")], "/opt/python/bin", "/opt/python/state", "x86_64", True, "namespaces")


def pod(**spec: Any) -> dict[str, Any]:
    """Return a pod."""
    container = {"name": "c", "command": ["x"]}
    return {
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"containers": [container], "restartPolicy": "Always", **spec},
    }


def known(*states: ContainerState, **more: Any) -> Known:
    """Return what is known of a pod without init containers."""
    return Known((), states or (ContainerState("c"),), "127.64.0.1", "namespaces", **more)


# A simulated node: it does what each step says, and things happen in between.


class Simulated:
    """One pod on a node that does at once what `decide` says."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.view = View(told, known())
        self.now = 0
        self.done: list[Step] = []

    def turn(self) -> None:
        """Do what is due, as the worker does: each step once in a turn."""
        done: set[Step] = set()
        while steps := [step for step in decide(self.view, self.now) if step not in done]:
            for step in steps:
                done.add(step)
                self.done.append(step)
                self.perform(step)

    def perform(self, step: Step) -> None:
        """Do one step, and hold what must never be."""
        state = self.view.known.main[0]
        match step.verb:
            case Verb.ASK:
                self.view = replace(self.view, door=True)
            case Verb.PREPARE:
                assert self.view.door
                self.view = replace(self.view, prepared=True)
            case Verb.START:
                assert self.view.door and self.view.prepared and not state.running and not self.view.released
                assert self.view.known.failure is None and self.view.leaving is None
                streak = state.streak + 1 if state.past else 0
                restarts = state.restarts + (1 if state.past else 0)
                self.known(ContainerState("c", started=self.now, restarts=restarts, streak=streak, last=state.past))
            case Verb.TERMINATE:
                assert state.running
                self.known(replace(state, stop_by=step.until))
            case Verb.KILL:
                assert state.running
                self.end(137)
            case Verb.FAIL:
                self.view = replace(
                    self.view, known=replace(self.view.known, failure=Failure(step.reason, "", self.now))
                )
            case Verb.DELIVER:
                self.view = replace(self.view, known=replace(self.view.known, output="sha256:x"))
            case Verb.RELEASE:
                assert not state.running and not self.view.released
                self.view = replace(self.view, released=True)
            case Verb.FINALIZE | Verb.ABANDON:
                assert not state.running and self.view.released

    def known(self, state: ContainerState) -> None:
        """Take note of the container's state."""
        self.view = replace(self.view, known=replace(self.view.known, main=(state,)))

    def end(self, code: int) -> None:
        """Have the container end."""
        state = self.view.known.main[0]
        if state.running and state.started is not None:
            self.known(replace(state, past=Past(code, state.started, self.now, ""), stop_by=None, unhealthy=""))


EVENTS = st.sampled_from(["pass", "long", "exit 0", "exit 1", "unhealthy", "revoke", "delete", "vanish", "leave"])


@settings(max_examples=300, deadline=None)
@given(
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    deadline=st.sampled_from([None, 5]),
    owes=st.booleans(),
    events=st.lists(EVENTS, max_size=12),
)
def test_whatever_happens_the_order_is_safe(policy: str, deadline: int | None, owes: bool, events: list[str]) -> None:
    """Nothing starts before the door said yes, after a failure, or after the pod was let go; what must end ends."""
    told = pod(restartPolicy=policy, **({"activeDeadlineSeconds": deadline} if deadline else {}))
    told["status"] = {"startTime": "1970-01-01T00:00:00Z"}
    node = Simulated(told)
    node.view = replace(node.view, known=replace(node.view.known, owes=owes))
    node.turn()
    for event in events:
        match event:
            case "pass":
                node.now += SECOND
            case "long":
                node.now += 400 * SECOND
            case "exit 0" | "exit 1":
                node.end(int(event[-1]))
            case "unhealthy":
                state = node.view.known.main[0]
                if state.running:
                    node.known(replace(state, unhealthy="probe"))
            case "revoke":
                if node.view.known.failure is None:
                    failure = Failure("GrantRevoked", "", node.now)
                    node.view = replace(node.view, known=replace(node.view.known, failure=failure))
            case "delete":
                meta = {**node.view.pod["metadata"], "deletionTimestamp": "1970-01-01T00:00:30Z"}
                node.view = replace(node.view, pod={**node.view.pod, "metadata": meta})
            case "vanish":
                node.view = replace(node.view, present=False)
            case "leave":
                node.view = replace(node.view, leaving=node.now + 4 * SECOND)
        node.turn()
    ending = (
        not node.view.present or node.view.leaving is not None or node.view.pod["metadata"].get("deletionTimestamp")
    )
    if ending or node.view.known.failure is not None:
        node.now += 1000 * SECOND
        node.turn()
        assert node.view.released and not node.view.known.main[0].running


def test_a_revoked_pod_that_is_deleted_ends_by_the_sooner_of_the_two() -> None:
    """Deleting a pod does not give it more time than the revocation of its grant left it."""
    told = pod()
    told["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:30Z"
    running = ContainerState("c", started=0, stop_by=30 * SECOND)
    view = View(told, known(running, failure=Failure("GrantRevoked", "", SECOND)), door=True, prepared=True)
    assert decide(view, SECOND) == (Step(Verb.TERMINATE, "c", SECOND + SECOND // 2),)
    assert decide(view, 2 * SECOND) == (Step(Verb.KILL, "c"),)


def test_time_alone_wakes_a_pod_that_waits_for_it() -> None:
    """A pause between restarts is waited for exactly; a pod that only a change concerns waits for none."""
    past = Past(1, 0, 100 * SECOND, "Error")
    crashed = known(ContainerState("c", started=0, past=past, streak=2))
    view = View(pod(), crashed, door=True, prepared=True)
    assert decide(view, 101 * SECOND) == ()
    assert look_again(view, 101 * SECOND) == backoff(2) - SECOND
    assert decide(view, 120 * SECOND) == (Step(Verb.START, "c"),)
    assert look_again(View(pod(), known(ContainerState("c", started=0)), door=True, prepared=True), 1) is None


def test_pauses_double_up_to_five_minutes() -> None:
    """No pause before the first restart, then 10 s, 20 s, ... 300 s."""
    assert [backoff(n) // SECOND for n in (-1, 0, 1, 2, 3, 5, 6, 60)] == [0, 0, 10, 20, 40, 160, 300, 300]


def test_a_step_has_succeeded_once_its_output_is_stored() -> None:
    """Until then the pod counts as running; a failure needs no output."""
    good = ContainerState("c", started=0, past=Past(0, 0, 1, "Completed"))
    assert phase("Never", known(good, owes=True)) == "Running"
    assert phase("Never", known(good, owes=True, output="sha256:x")) == "Succeeded"
    assert phase("Never", known(replace(good, past=Past(1, 0, 1, "Error")), owes=True)) == "Failed"
    told = status(pod(), known(good, owes=True, output="sha256:x"), 0)
    assert {"wharfinger.io/Output": "sha256:x"}.items() <= {
        c["type"]: c.get("message") for c in told["conditions"]
    }.items()


def plan(container: dict[str, Any] | None = None, host: Host = HOST, **more: Any) -> sandbox.Plan:
    """Return the plan of a container."""
    spec = {"name": "c", "command": ["x"], **(container or {})}
    given_ = {"volumes": {}, "devices": (), "cgroups": (), "base": 1000, "attempt": 0, **more}
    return sandbox.plan(
        host, pod(), spec, environment={"WHARF_POD_IP": "127.64.0.1"}, socket_folder="/s", folder="/f", **given_
    )


def test_the_state_directory_is_covered_where_a_mount_would_show_it() -> None:
    """A state directory that lies within a folder that is shown is hidden there."""
    assert plan().hidden == ["/opt/python/state"]
    assert all(not mount.writable for mount in plan().mounts if not mount.late)


@pytest.mark.parametrize(
    "path", ["/proc", "/proc/self", "/sys/x", "/dev/x", "/", "/a/../proc", "relative", "/.old/x", "/wharf/x"]
)
def test_a_volume_is_never_mounted_over_the_system(path: str) -> None:
    """Paths that are the system's, relative ones and those that step up are refused."""
    with pytest.raises(Invalid):
        plan({"volumeMounts": [{"name": "v", "mountPath": path}]}, volumes={"v": Volume("/v", True)})


def test_what_cannot_be_done_is_refused() -> None:
    """No command, an unknown volume, a user outside of the pod's range, a mount without isolation: each says so."""
    for container in (
        {"command": None},
        {"volumeMounts": [{"name": "other", "mountPath": "/x"}]},
        {"securityContext": {"runAsUser": 65536}},
        {"securityContext": {"runAsGroup": -1}},
    ):
        with pytest.raises(Invalid):
            plan(container)
    with pytest.raises(Invalid):
        plan(
            {"volumeMounts": [{"name": "v", "mountPath": "/x"}]},
            replace(HOST, isolation="none"),
            volumes={"v": Volume("/v", True)},
        )


def refused(call: int, machine: str = "x86_64", argument: int = 0, architecture: int | None = None) -> int:
    """Return the errno that the filter gives a call, 0 when it lets it through: a small classic BPF machine."""
    data = struct.pack("=IIQ6Q", call, architecture or seccomp.ARCHITECTURES[machine], 0, argument, *[0] * 5)
    program = [
        struct.unpack_from("=HBBI", seccomp.program(machine), at) for at in range(0, len(seccomp.program(machine)), 8)
    ]
    value, at = 0, 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        match code:
            case 0x20:
                value = int(struct.unpack_from("=I", data, operand)[0])
            case 0x15:
                at += yes if value == operand else no
            case 0x45:
                at += yes if value & operand else no
            case 0x35:
                at += yes if value >= operand else no
            case 0x06:
                return operand & 0xFFFF if operand & 0xFFFF0000 == 0x00050000 else 0


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_dangerous_calls_are_refused_and_others_are_not(machine: str) -> None:
    """Every listed call is EPERM, clone3 is ENOSYS, new namespaces and odd sockets are EPERM; the rest goes through."""
    listed = set(seccomp._REFUSED[machine].values())
    clone, socket = seccomp._CLONE[machine], seccomp._SOCKET[machine]
    for call in range(460):
        expected = 38 if call == 435 else 1 if call in listed else 0
        assert refused(call, machine) == expected, call
    assert refused(clone, machine, 0x10000000) == refused(clone, machine, 0x20000) == 1
    assert refused(clone, machine, 0x11 | 0x100) == 0
    assert [refused(socket, machine, family) for family in (1, 2, 10, 16, 17, 38, 40)] == [0, 0, 0, 0, 1, 1, 1]
    assert refused(0, machine, architecture=0x40000003) == 1
    assert machine != "x86_64" or refused(0x40000000 + 1, machine) == 1


def opens(program: bytes, kind: int, access: int, major: int, minor: int) -> bool:
    """Say whether a device program lets an access through: the few instructions of eBPF that it uses."""
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers, at = [0] * 11, 0
    code = [struct.unpack_from("=BBhi", program, offset) for offset in range(0, len(program), 8)]
    while True:
        operation, both, jump, value = code[at]
        to, source = both & 15, both >> 4
        at += 1
        match operation:
            case 0x61:
                registers[to] = context[jump]
            case 0xBF:
                registers[to] = registers[source]
            case 0xB7:
                registers[to] = value
            case 0x57:
                registers[to] &= value
            case 0x77:
                registers[to] >>= value
            case 0x15:
                at += jump if registers[to] == value else 0
            case 0x55:
                at += jump if registers[to] != value else 0
            case 0x45:
                at += jump if registers[to] & value else 0
            case 0x95:
                return registers[0] == 1


NUMBERS = st.tuples(st.integers(1, 6), st.one_of(st.none(), st.integers(0, 4)))


@given(
    rules=st.sets(NUMBERS, max_size=8),
    major=st.integers(0, 7),
    minor=st.integers(0, 5),
    access=st.integers(1, 7),
    kind=st.sampled_from([1, 2]),
)
def test_the_program_says_what_the_rules_say(
    rules: set[tuple[int, int | None]], major: int, minor: int, access: int, kind: int
) -> None:
    """Reading and writing exactly the listed character devices is let through; making nodes and block devices never."""
    listed = (major, minor) in rules or (major, None) in rules
    expected = listed and kind == 2 and not access & 1
    assert opens(devicefilter.program(rules), kind, access, major, minor) == expected


@given(before=st.sets(NUMBERS, max_size=8), after=st.sets(NUMBERS, max_size=8))
def test_a_change_of_rules_touches_nothing_that_stays(
    before: set[tuple[int, int | None]], after: set[tuple[int, int | None]]
) -> None:
    """Lines are denied and allowed so that exactly the wanted ones are left, and none that stays is ever shut."""
    listed = "".join(f"{devicefilter.line(number)}\n" for number in before)
    gone, new = devicefilter.changes(listed, after)
    kept = {devicefilter.line(number) for number in before & after}
    assert not kept & set(gone)
    assert (set(listed.splitlines()) - set(gone)) | set(new) == {devicefilter.line(number) for number in after}


def test_variables_expand_as_kubernetes_does() -> None:
    """Known names are replaced, unknown ones stay, a doubled dollar is one."""
    known_ = {"A": "1", "B": "$(A)"}
    assert environment.expanded("$(A) $(B) $(C) $$(A) $", known_) == "1 $(A) $(C) $(A) $"


def test_a_path_in_a_volume_cannot_lead_out_of_it() -> None:
    """Items of a ConfigMap are plain relative paths."""
    found = {"data": {"k": "v"}}
    for path in ("../x", "/x", "a/../../x", ""):
        source = {"configMap": {"name": "m", "items": [{"key": "k", "path": path}]}}
        with pytest.raises(Invalid):
            environment.files_of(pod(), source, "", lambda *_: found)
