"""Our own kinds by their schemas: defaults, unknown fields, rules in CEL, definitions that a cluster takes."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest

from wharfinger.core.errors import Malformed
from wharfinger.kinds import crd
from wharfinger.kinds.builtin.registry import BUILTINS
from wharfinger.kinds.kind import Kind
from wharfinger.kinds.registry import KINDS
from wharfinger.kinds.structural import columns, definition, strategy
from wharfinger.kinds.structural.node import Node, read
from wharfinger.kinds.structural.rules import CALL_BUDGET, Expression, ask, compile_rules
from wharfinger.kinds.structural.schema import Schema, compile_schema
from wharfinger.local.api.rules import compile_rule

BY_NAME = {kind.name: kind for kind in KINDS}


def schema_of(name: str) -> Schema:
    """Return the compiled schema of one of our kinds, rules and all."""
    return compile_schema(BY_NAME[name].schema, compile_rule)


def service(**spec: Any) -> dict[str, Any]:
    """Return an InferenceService."""
    kind = BY_NAME["InferenceService"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": "a", "namespace": "research"},
        "spec": {"model": "m", **spec},
    }


@pytest.mark.parametrize("kind", [*KINDS, *(each.kind for each in BUILTINS)], ids=lambda kind: kind.name)
def test_every_kind_compiles(kind: Kind) -> None:
    """Each served kind has a schema and columns that compile, and an empty object of it is judged."""
    schema = compile_schema(kind.schema, None if kind.group != "wharfinger.io" else compile_rule)
    value: dict[str, Any] = {}
    schema.default(value)
    assert schema.unknown(value) == []
    assert isinstance(schema.validate(value), list)
    assert len(columns.compile_columns(kind.columns).cells(value, 0)) == len(kind.columns)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_definition_of_every_kind_is_one_that_a_cluster_takes(kind: Kind) -> None:
    """Our CustomResourceDefinitions, their rules included, have nothing that the API server refuses."""
    assert definition.validate_create(crd.definition(kind), compile_rule) == []


def test_a_service_is_defaulted_and_its_unknown_fields_are_named() -> None:
    """Defaults reach into defaults, and what is not known is told by its path."""
    schema, value = schema_of("InferenceService"), service(bogus=1, runtime={"env": [{"name": "A", "x": 2}]})
    value["metadata"]["clusterName"] = "c"
    assert schema.coerce(value) == ["metadata.clusterName"]
    assert schema.prune(value) == ["spec.bogus", "spec.runtime.env[0].x"]
    schema.default(value)
    assert value["spec"]["slo"] == {"ttftMilliseconds": 1000, "tpotMilliseconds": 100}
    assert value["spec"]["runtime"] == {"env": [{"name": "A"}], "type": "Builtin"}
    assert schema.validate(value) == []


def test_what_is_wrong_is_told_in_kubernetes_words() -> None:
    """A wrong type, a word that is none of the enum, a missing field and a pattern each have their cause."""
    schema = schema_of("InferenceService")
    value = service(replicas="3", runtime={"type": "Magic"}, gpuProfile="No!")
    del value["spec"]["model"]
    told = {problem.field: (problem.reason, problem.message) for problem in schema.validate(value)}
    assert told["spec.replicas"][0] == "FieldValueTypeInvalid"
    assert told["spec.replicas"][1].endswith('spec.replicas in body must be of type integer: "string"')
    assert told["spec.runtime.type"] == (
        "FieldValueNotSupported",
        'Unsupported value: "Magic": supported values: "Builtin", "Command", "External"',
    )
    assert told["spec.model"] == ("FieldValueRequired", "Required value")
    assert "should match" in told["spec.gpuProfile"][1]
    assert "some validation rules were not checked" in told[""][1]


def test_a_broken_rule_says_its_message_at_its_field() -> None:
    """A rule's fieldPath and message are what the caller reads."""
    schema, value = schema_of("InferenceService"), service(scaling={"minReplicas": 3, "maxReplicas": 1})
    schema.default(value)
    (problem,) = schema.validate(value)
    assert str(problem) == "spec.scaling: Invalid value: minReplicas must not be above maxReplicas"


def test_a_rule_that_was_broken_before_does_not_hold_up_other_changes() -> None:
    """On update a rule is excused where its value is as it was, and asked again once it changes."""
    schema, old = schema_of("InferenceService"), service(scaling={"minReplicas": 3, "maxReplicas": 1})
    schema.default(old)
    kept = copy.deepcopy(old)
    kept["metadata"]["labels"] = {"a": "b"}
    assert schema.validate(kept, old) == []
    changed = copy.deepcopy(old)
    changed["spec"]["replicas"] = 2
    assert [problem.field for problem in schema.validate(changed, old)] == ["spec.scaling"]


def test_a_transition_rule_is_asked_on_update_alone() -> None:
    """What may not change may be set; a change of it is refused, and so is taking back a revocation."""
    schema = schema_of("PipelineRun")
    (kind,) = (kind for kind in KINDS if kind.name == "PipelineRun")
    old = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": "a"}, "spec": {"dataset": "d"}}
    new = {**old, "spec": {"dataset": "e"}}
    said = "a run does not change: make another"
    assert not any(said in problem.message for problem in schema.validate(old))
    assert not any(said in problem.message for problem in schema.validate(old, old))
    found = compile_rules(schema.node, compile_rule)
    assert found is not None
    assert [problem.message for problem in ask(found, new, old, schema.node).problems] == [f"Invalid value: {said}"]


RULED = {"type": "object", "properties": {"list": {"type": "array", "items": {"type": "integer"}}}}


def asked(rule: dict[str, Any], value: Any, old: Any = None, **more: Any) -> list[str]:
    """Ask one rule of an object; return what is told, each with its reason."""
    node = read({**RULED, "x-kubernetes-validations": [rule], **more})
    step = compile_rules(node, compile_rule)
    assert step is not None
    return [f"{problem.reason} {problem.message}" for problem in ask(step, value, old, node).problems]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("self.list[5] == 1", "evaluating rule"),
        ("self.missing == 1", "evaluating rule"),
        ("self.list[0] / 0 == 1", "evaluating rule"),
        ("self.list[0] + 1", "rule compile error"),
        ("nonsense(", "rule compile error"),
        ("self.list", "failed rule"),
    ],
)
def test_an_error_in_a_rule_is_never_a_yes(rule: str, words: str) -> None:
    """A rule that errs, gives no bool or does not compile refuses the object."""
    (told,) = asked({"rule": rule}, {"list": [1]})
    assert words in told


def test_a_rule_has_bounded_work() -> None:
    """A rule that would loop over loops is cut off, refuses, and ends the walk."""
    loops = "self.list.all(a, self.list.all(b, self.list.all(c, self.list.all(d, a + b + c + d >= 0))))"
    (told,) = asked({"rule": loops}, {"list": list(range(1000))})
    assert "cost" in told


def test_rules_of_many_items_share_one_budget() -> None:
    """An item's rule is asked until the work of the whole object is used up; then nothing more is asked."""
    calls = 0

    def compiler(text: str, node: Node, root: bool, boolean: bool) -> Expression:
        def evaluate(value: Any, old: Any, budget: int) -> tuple[Any, int]:
            nonlocal calls
            calls += 1
            return True, CALL_BUDGET

        return Expression(evaluate, transition=False)

    items = {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}}
    node = read(items)
    step = compile_rules(node, compiler)
    assert step is not None
    walk = ask(step, list(range(1000)), None, node)
    assert calls == 4
    assert "running out of cost budget" in walk.problems[-1].message


def test_a_rule_gives_its_reason_and_its_own_words() -> None:
    """`reason` decides the cause, a messageExpression its text; one that fails falls back to the message."""
    rule = {"rule": "self.list.size() < 2", "messageExpression": "'at most one, got ' + string(self.list.size())"}
    value = {"list": [1, 2]}
    assert asked(rule, value) == ["FieldValueInvalid Invalid value: at most one, got 2"]
    assert asked({**rule, "reason": "FieldValueForbidden"}, value) == [
        "FieldValueForbidden Forbidden: at most one, got 2"
    ]
    failing = {**rule, "messageExpression": "string(self.list[9])", "message": "too many"}
    assert asked(failing, value) == ["FieldValueInvalid Invalid value: too many"]
    assert asked({"rule": "self.list.size() < 2"}, value) == [
        "FieldValueInvalid Invalid value: failed rule: self.list.size() < 2"
    ]


def test_numbers_and_names_are_seen_as_cel_sees_them() -> None:
    """A property that is no identifier is escaped, a whole double is an int where the schema says integer."""
    properties = {
        "a-b": {"type": "integer"},
        "namespace": {"type": "string"},
        "share": {"type": "number"},
    }
    rule = {"rule": "self.a__dash__b == 2 && self.__namespace__ == 'n' && self.share / 2.0 == 1.5"}
    value = {"a-b": 2.0, "namespace": "n", "share": 3}
    assert asked(rule, value, properties=properties) == []


def test_of_a_whole_objects_metadata_only_its_names_are_asked_for() -> None:
    """A rule at the root reads the name, and nothing else that is not the schema's to judge."""
    node = read({"type": "object", "x-kubernetes-validations": [{"rule": "has(self.metadata.labels)"}]})
    step = compile_rules(node, compile_rule, root=True)
    assert step is not None
    value = {"metadata": {"name": "n", "labels": {"a": "b"}}}
    assert len(ask(step, value, None, node).problems) == 1


def test_generation_counts_changes_of_what_is_wanted() -> None:
    """A change of the spec counts, of metadata and status it does not; status is kept from the stored object."""
    old = {"metadata": {"generation": 4}, "spec": {"a": 1}, "status": {"ready": True}}
    new = {"metadata": {"generation": 4, "labels": {}}, "spec": {"a": 1.0}, "status": {}}
    strategy.prepare_update(new, old, status=True)
    assert new["metadata"]["generation"] == 5
    assert new["status"] == {"ready": True}


def test_metadata_of_the_wrong_type_is_refused_by_its_field() -> None:
    """What cannot be metadata is malformed, in the words of the API server, and nothing is dropped in silence."""
    value = service()
    value["metadata"]["labels"] = {"a": 1}
    with pytest.raises(Malformed) as caught:
        schema_of("InferenceService").coerce(value)
    assert "cannot unmarshal number into Go struct field ObjectMeta.labels of type string" in caught.value.message
    assert [problem.field for problem in caught.value.fields] == ["metadata"]


def calls_of(work: Any) -> int:
    """Count the Python functions that `work` calls."""
    count = 0

    def seen(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_an_object_that_is_right_costs_a_few_calls_a_field() -> None:
    """The whole of a create asks at most six functions for each value in the object, and explains nothing."""
    schema = schema_of("InferenceService")
    env = [{"name": f"A{n}", "value": "v"} for n in range(12)]
    callers = [f"spiffe://example.org/ns/research/sa/caller-{n}" for n in range(8)]
    value = service(callers=callers, runtime={"type": "Command", "command": ["a"], "env": env})

    def work() -> None:
        schema.coerce(value)
        schema.prune(value)
        schema.default(value)
        assert schema.validate(value) == []

    work()
    values = sum(1 for _ in _walk(value))
    assert calls_of(work) <= 6 * values


def test_a_list_twice_as_long_takes_twice_the_calls() -> None:
    """Work grows with the object and not faster, be its items right or wrong, on create and on update."""
    schema = schema_of("InferenceService")

    def cost(count: int, name: str) -> int:
        env = [{"name": f"{name}{n}", "value": "v"} for n in range(count)]
        value = service(runtime={"env": env})
        old = copy.deepcopy(value)
        old["spec"]["replicas"] = 2
        return calls_of(lambda: (schema.validate(value), schema.validate(value, old)))

    for name in ("A", "!"):
        cost(10, name)
        assert cost(800, name) <= 2.2 * cost(400, name)


def _walk(value: Any) -> Any:
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _walk(child)
