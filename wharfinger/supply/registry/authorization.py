"""Authorization at the registry: who may pull, push, delete and see what (design D7, issue part 3).

Fixed rules for the platform's parts and a tenant's own people, AccessPolicies for everybody else, and a Deny that
matches stands above all but the parts. What none of them allows, a Grant may: the ruling says when it is worth asking.
Pure: the objects come as values, the evaluator of conditions as a port.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from wharfinger.core.document import Json
from wharfinger.identity.spiffeid import Part, Person, SpiffeId, Workload
from wharfinger.policy import access
from wharfinger.policy.access import Condition, Question
from wharfinger.policy.decision import Verdict

RULE: Final = "registry.authorization.decide"
STEPS: Final = "steps-"
"""How the repository of a step's output begins, below its namespace: where the node may push."""
_KINDS: Final[Mapping[str, str]] = {"datasets": "Dataset", "models": "Model"}
_EVERYTHING: Final = ("control", "admin")


class Action(StrEnum):
    """What is done with a repository."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    SEE = "see"


@dataclass(frozen=True, slots=True)
class Ask:
    """One use of a `repository` by the SPIFFE ID `who`.

    For a pull, `digests` are the manifests through which the content may be had: the manifest itself, its subject when
    it is a referrer, every manifest of the repository that needs the blob. Empty when there is none.
    """

    who: str
    action: Action
    repository: str
    digests: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        """The namespace that the repository belongs to: its first segment."""
        return self.repository.partition("/")[0]

    @property
    def digest(self) -> str:
        """The manifest asked for, empty where there is none."""
        return self.digests[0] if self.digests else ""


@dataclass(frozen=True, slots=True)
class Named:
    """A Dataset or Model that names an artifact of the repository, by `digest`."""

    kind: str
    namespace: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the ruling is made on: tenancy, the objects that name the repository, the AccessPolicies."""

    trust_domain: str
    tenant_of: Mapping[str, str] = field(default_factory=dict)
    admins: Mapping[str, frozenset[str]] = field(default_factory=dict)
    named: Sequence[Named] = ()
    policies: Sequence[Mapping[str, Json]] = ()

    def tenant(self, who: SpiffeId) -> str:
        """Return the tenant that `who` belongs to, empty for nobody's and for other trust domains' names."""
        if who.trust_domain.name != self.trust_domain:
            return ""
        match who.kind:
            case Person(tenant, _):
                return tenant
            case Workload(namespace, _):
                return self.tenant_of.get(namespace, "")
            case _:
                return ""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict without a grant; `ask_grants` says whether a grant may turn a no into a yes."""

    verdict: Verdict
    ask_grants: bool = False


def decide(ask: Ask, known: Known, condition: Condition) -> Ruling:
    """Rule on `ask`: parts by their duty, then Deny policies, then a tenant's own people, then Allow policies.

    Default deny. Never raises.
    """
    who = SpiffeId(ask.who)
    ours = who.trust_domain.name == known.trust_domain
    if ours and isinstance(who.kind, Part):
        return Ruling(_part(who.kind.name, ask))
    questions = list(_questions(ask, known, known.tenant(who)))
    denies = [policy for policy in known.policies if policy["spec"].get("effect", "Allow") == "Deny"]
    for question in questions:
        verdict = access.decide([*denies, _allow(question)], question, condition)
        if not verdict.allowed:
            return Ruling(verdict)
    if ours and isinstance(who.kind, Person) and known.tenant_of.get(ask.namespace) == who.kind.tenant:
        return Ruling(_person(who.kind, ask, known))
    refused: Verdict | None = None
    for question in questions:
        verdict = access.decide(known.policies, question, condition)
        if verdict.allowed:
            return Ruling(verdict)
        if refused is None:
            refused = verdict
    if ask.action is Action.DELETE or refused is None:
        refused = Verdict(False, f"{who} may not {ask.action} {ask.repository}", "policy")
    return Ruling(refused, ask_grants=ask.action is Action.PULL)


def _part(name: str, ask: Ask) -> Verdict:
    if name in _EVERYTHING:
        return Verdict(True, f"the duty of {name}")
    if name == "node":
        if ask.action is Action.PULL:
            return Verdict(True, "the node fetches the inputs of steps")
        below = ask.repository.partition("/")[2]
        if ask.action is Action.PUSH and below.startswith(STEPS) and "/" not in below:
            return Verdict(True, "the node pushes the outputs of steps")
        return Verdict(False, f"the node may pull, and push to NAMESPACE/{STEPS}POD, not {ask.action} here", "verb")
    return Verdict(False, f"the part {name} has nothing to do with the registry", "identity")


def _person(person: Person, ask: Ask, known: Known) -> Verdict:
    if ask.action is Action.DELETE and person.user not in known.admins.get(person.tenant, frozenset()):
        return Verdict(False, f"only admins of {person.tenant} may delete in {ask.repository}", "verb")
    return Verdict(True, f"people of {person.tenant} may {ask.action} in their own namespace")


def _questions(ask: Ask, known: Known, tenant: str) -> Iterator[Question]:
    """Yield what AccessPolicy is asked: each object that names the artifact, or would be named by its repository."""
    verbs = {Action.PULL: ("pull",), Action.PUSH: ("push",), Action.SEE: ("see", "pull"), Action.DELETE: ()}
    # An object speaks of its own namespace alone: naming another's repository gives nobody a way to it.
    found = [
        item
        for item in known.named
        if item.namespace == ask.namespace and (ask.action is not Action.PULL or item.digest in ask.digests)
    ]
    if ask.action is not Action.PULL:
        found += _by_name(ask)
    for verb in verbs[ask.action]:
        for item in found:
            yield Question(ask.who, verb, item.kind, item.namespace, item.name, tenant)


def _by_name(ask: Ask) -> list[Named]:
    """Return the object that the repository `NAMESPACE/models/NAME` or `NAMESPACE/datasets/NAME` is for."""
    match ask.repository.split("/"):
        case [namespace, folder, name] if folder in _KINDS:
            return [Named(_KINDS[folder], namespace, name, "")]
        case _:
            return []


def _allow(question: Question) -> Mapping[str, Json]:
    """Return a policy that allows exactly `question`, so that a no of the others can only be a Deny's."""
    return {"metadata": {"name": "-"}, "spec": {"identities": [question.identity], "verbs": [question.verb]}}


def inputs_of(ask: Ask, known: Known) -> dict[str, Json]:
    """Return the inputs of `decide` as plain values, for a journal to keep; `replay` takes them back."""
    return {
        "request": {
            "who": ask.who,
            "action": ask.action.value,
            "repository": ask.repository,
            "digests": list(ask.digests),
        },
        "known": {
            "trustDomain": known.trust_domain,
            "tenantOf": dict(known.tenant_of),
            "admins": {tenant: sorted(names) for tenant, names in known.admins.items()},
            "named": [[item.kind, item.namespace, item.name, item.digest] for item in known.named],
        },
        "policies": [{"metadata": {"name": p["metadata"]["name"]}, "spec": p["spec"]} for p in known.policies],
    }


def replay(inputs: Mapping[str, Json], condition: Condition) -> Verdict:
    """Return the verdict of `decide` on inputs that `inputs_of` made. Raises `KeyError`, `TypeError`, `ValueError`."""
    request, known = inputs["request"], inputs["known"]
    ask = Ask(request["who"], Action(request["action"]), request["repository"], tuple(request["digests"]))
    return decide(
        ask,
        Known(
            known["trustDomain"],
            known["tenantOf"],
            {tenant: frozenset(names) for tenant, names in known["admins"].items()},
            tuple(Named(*item) for item in known["named"]),
            inputs["policies"],
        ),
        condition,
    ).verdict
