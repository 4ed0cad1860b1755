"""Fleet files: what they declare, and how what is wrong with one is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from quay import SMALL

from wharfinger.bootstrap.fleet import shipped
from wharfinger.core.errors import Invalid, Malformed, TooLarge
from wharfinger.gpu.fleet import MAX_BYTES, parse

HEAD = "apiVersion: wharfinger.io/v1alpha1\nkind: Fleet\n"


def test_the_shipped_fleet_is_two_nodes_of_four_h100_and_one_of_eight_a100_on_two_numa_nodes() -> None:
    """What a machine without GPUs plays is what the documents say."""
    nodes = parse(shipped())
    assert [(len(n.gpus), {g.product for g in n.gpus}) for n in nodes] == [
        (4, {"H100-80GB"}),
        (4, {"H100-80GB"}),
        (8, {"A100-40GB"}),
    ]
    assert [gpu.numa_node for gpu in nodes[2].gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert any(gpu.mig for gpu in nodes[0].gpus) and not all(gpu.mig for gpu in nodes[0].gpus)


def test_silicon_that_is_not_named_gets_the_same_names_each_time() -> None:
    """Two readings of one file give one fleet, and no two GPUs of it share a UUID or, on a node, a PCI address."""
    nodes = parse(SMALL.encode())
    assert nodes == parse(SMALL.encode())
    assert len({gpu.uuid for node in nodes for gpu in node.gpus}) == 6
    assert len({gpu.pci_bus_id for gpu in nodes[0].gpus}) == 4


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("nodes: []", "nodes", "length >= 1"),
        ("nodes: [{name: Not_A_Label}]", "nodes[0].name", "RFC 1123"),
        ("nodes: [{name: a}, {name: a}]", "nodes[1].name", "nodes[0].name"),
        ("nodes: [{name: a, gpus: [{product: TPU}]}]", "nodes[0].gpus[0].product", "A100-40GB, H100-80GB"),
        ("nodes: [{name: a, gpus: [{product: H100-80GB, count: 17}]}]", "nodes[0].gpus[0].count", "<= 16"),
        ("nodes: [{name: a, gpus: [{product: H100-80GB, count: 1000000}]}]", "nodes[0].gpus[0].count", "<= 16"),
        ("nodes: [{name: a, gpus: [{product: H100-80GB, count: two}]}]", "nodes[0].gpus[0].count", "Expected `int`"),
        ("nodes: [{name: a, gpus: [{product: H100-80GB, colour: 1}]}]", "nodes[0].gpus[0]", "colour"),
        ("nodes: [{name: a, gpus: [{product: H100-80GB, numaNode: 3}]}]", "nodes[0].gpus[0].numaNode", "numaNodes 1"),
        ("nodes: [{name: a, memory: much}]", "nodes[0].memory", "quantity"),
        ("nodes: [{name: a, gpus: [{product: H100-80GB, uuid: one}]}]", "nodes[0].gpus[0].uuid", "GPU-"),
        ("nodes: [{name: a, gpus: [{product: H100-80GB, pciBusID: '1'}]}]", "nodes[0].gpus[0].pciBusID", "0000:1b"),
        ("nodes: [{name: a, labels: {'!': b}}]", "nodes[0].labels", "name part"),
    ],
)
def test_a_wrong_field_is_named(text: str, field: str, words: str) -> None:
    """The error of a fleet file names the field and what was expected there."""
    with pytest.raises(Invalid) as refused:
        parse((HEAD + text).encode())
    assert any(problem.field == field and words in problem.message for problem in refused.value.fields), (
        refused.value.fields
    )


def test_one_uuid_for_two_gpus_is_refused() -> None:
    """Silicon that is named twice would be given twice."""
    gpu = "{product: H100-80GB, uuid: GPU-00000000-0000-0000-0000-000000000001}"
    with pytest.raises(Invalid, match=r"GPU-0{8}.*is also") as refused:
        parse((HEAD + f"nodes: [{{name: a, gpus: [{gpu}]}}, {{name: b, gpus: [{gpu}]}}]").encode())
    assert refused.value.fields[0].reason == "FieldValueDuplicate"


def test_a_million_devices_are_refused_before_they_are_read() -> None:
    """A file that spells out a million GPUs is too large; one that multiplies them by aliases is refused as such."""
    with pytest.raises(TooLarge):
        parse(b"x" * (MAX_BYTES + 1))
    with pytest.raises(Malformed, match="aliases"):
        parse((HEAD + "nodes: [&a {name: a}, *a]").encode())
    many = ", ".join(f"{{name: n{i}, gpus: [{{product: H100-80GB, count: 16}}]}}" for i in range(101))
    with pytest.raises(Invalid, match="length <= 100"):
        parse((HEAD + f"nodes: [{many}]").encode())


@pytest.mark.parametrize("data", [b"\x00", b"a: [", b"\xff\xfe", b"", b"[" * 5000, b"42"])
def test_what_is_no_fleet_file_is_a_clear_error(data: bytes) -> None:
    """Any bytes give a fleet or an error of the family."""
    with pytest.raises((Malformed, Invalid)):
        parse(data)


def test_the_fleet_file_of_the_documents_is_one() -> None:
    """The example that people copy can be read."""
    page = (Path(__file__).resolve().parents[3] / "docs/concepts/devices.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (node,) = parse(example.encode())
    assert [gpu.mig for gpu in node.gpus] == [False, False, False, True]
