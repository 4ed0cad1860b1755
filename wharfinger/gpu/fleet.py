"""Fleet files: nodes and their GPUs, declared, for machines that have none.

```yaml
apiVersion: wharfinger.io/v1alpha1
kind: Fleet
nodes:
- name: h100-a             # a DNS label
  labels: {rack: r1}       # labels of the Node object
  cpus: 64                 # default 64
  memory: 512Gi            # default 512Gi
  numaNodes: 2             # default 1; GPUs are spread over them in order
  gpus:
  - product: H100-80GB     # one that gpu.partitions knows
    count: 2               # so many alike, default 1
    mig: true              # in MIG mode: offered as slices, not as a whole
  - product: H100-80GB
    uuid: GPU-...          # default: follows from node and place
    pciBusID: 0000:1b:00.0
    numaNode: 1
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
import yaml

from wharfinger.core.errors import FieldProblem, Invalid, Malformed, TooLarge, excerpt
from wharfinger.core.names import dns_label, label_key, label_value
from wharfinger.core.quantity import Quantity
from wharfinger.gpu.devices import silicon_uuid
from wharfinger.gpu.partitions import GEOMETRIES, Geometry

MAX_BYTES: Final = 256 * 1024
MAX_NODES: Final = 100
MAX_GPUS: Final = 16
"""Bytes of a fleet file, nodes of a fleet, GPUs of a node."""
_GPU_UUID: Final = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PCI: Final = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@dataclass(frozen=True, slots=True)
class DeclaredGPU:
    """One GPU of a fleet file: what it is, and where its node has it."""

    product: str
    index: int
    uuid: str
    pci_bus_id: str
    pcie_root: str
    numa_node: int
    mig: bool

    @property
    def geometry(self) -> Geometry:
        """How it can be cut."""
        return GEOMETRIES[self.product]


@dataclass(frozen=True, slots=True)
class DeclaredNode:
    """One node of a fleet file. `memory` is in bytes; `number` its place in the fleet."""

    name: str
    number: int
    labels: Mapping[str, str]
    cpus: int
    memory: int
    gpus: tuple[DeclaredGPU, ...]


class _GPU(msgspec.Struct, forbid_unknown_fields=True, rename={"numa_node": "numaNode", "pci_bus_id": "pciBusID"}):
    product: str
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_GPUS)] = 1
    mig: bool = False
    uuid: str = ""
    pci_bus_id: str = ""
    numa_node: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Node(msgspec.Struct, forbid_unknown_fields=True, rename={"numa_nodes": "numaNodes"}):
    name: str
    labels: dict[str, str] = {}
    cpus: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    memory: str = "512Gi"
    numa_nodes: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    gpus: Annotated[list[_GPU], msgspec.Meta(max_length=MAX_GPUS)] = []


class _Fleet(msgspec.Struct, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}):
    api_version: Literal["wharfinger.io/v1alpha1"]
    kind: Literal["Fleet"]
    nodes: Annotated[list[_Node], msgspec.Meta(min_length=1, max_length=MAX_NODES)]


def parse(data: bytes) -> tuple[DeclaredNode, ...]:
    """Return the nodes that a fleet file declares.

    Raises `TooLarge` over `MAX_BYTES`, `Malformed` for what is not YAML, `Invalid` naming every field that is wrong:
    unknown ones, products that are not known, more nodes or GPUs than may be, a UUID, PCI address or name given twice.
    """
    if len(data) > MAX_BYTES:
        raise TooLarge(f"expected a fleet file of at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        told = msgspec.convert(_loaded(data), _Fleet)
    except msgspec.ValidationError as error:
        raise _refused([_problem(error)]) from error
    problems: list[FieldProblem] = []
    nodes = tuple(_node(node, number, problems) for number, node in enumerate(told.nodes))
    _distinct([(f"nodes[{node.number}].name", node.name) for node in nodes], problems)
    _distinct([(_where(node, gpu, "uuid"), gpu.uuid) for node in nodes for gpu in node.gpus], problems)
    for node in nodes:
        _distinct([(_where(node, gpu, "pciBusID"), gpu.pci_bus_id) for gpu in node.gpus], problems)
    if problems:
        raise _refused(problems)
    return nodes


def _loaded(data: bytes) -> object:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # An alias makes a small file a large value: a fleet needs none.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=loader)):
            raise Malformed("expected a fleet file without YAML aliases")
        return yaml.load(data, Loader=loader)  # noqa: S506  a safe loader, in C where there is one
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Malformed(f"expected a fleet file in YAML: {excerpt(str(error))}") from error


def _problem(error: msgspec.ValidationError) -> FieldProblem:
    message, _, place = str(error).partition(" - at ")
    return FieldProblem(place.strip("`").removeprefix("$").removeprefix("."), message)


def _refused(problems: list[FieldProblem]) -> Invalid:
    return Invalid(f"fleet file: {'; '.join(map(str, problems))}", fields=problems)


def _node(told: _Node, number: int, problems: list[FieldProblem]) -> DeclaredNode:
    where = f"nodes[{number}]"
    problems += [FieldProblem(f"{where}.name", message) for message in dns_label(told.name)]
    for name, value in told.labels.items():
        problems += [FieldProblem(f"{where}.labels", message) for message in (*label_key(name), *label_value(value))]
    memory = 0
    try:
        memory = Quantity.parse(told.memory).scaled()
    except Malformed as error:
        problems.append(FieldProblem(f"{where}.memory", error.message))
    total = sum(gpu.count for gpu in told.gpus)
    if total > MAX_GPUS:
        problems.append(FieldProblem(f"{where}.gpus", f"expected at most {MAX_GPUS} GPUs, got {total}"))
        total = 0
    gpus: list[DeclaredGPU] = []
    for place, gpu in enumerate(told.gpus if total else ()):
        _check_gpu(gpu, told, f"{where}.gpus[{place}]", problems)
        gpus += [_gpu(gpu, told, len(gpus) + i, total) for i in range(gpu.count)]
    return DeclaredNode(told.name, number, told.labels, told.cpus, memory, tuple(gpus))


def _check_gpu(told: _GPU, node: _Node, where: str, problems: list[FieldProblem]) -> None:
    if told.product not in GEOMETRIES:
        known = ", ".join(GEOMETRIES)
        problems.append(FieldProblem(f"{where}.product", f"expected one of {known}, got {excerpt(told.product)}"))
    if told.count > 1 and (told.uuid or told.pci_bus_id):
        problems.append(FieldProblem(f"{where}.count", "expected 1 where uuid or pciBusID is given"))
    if told.uuid and not _GPU_UUID.fullmatch(told.uuid):
        problems.append(FieldProblem(f"{where}.uuid", f"expected GPU- and a UUID, got {excerpt(told.uuid)}"))
    if told.pci_bus_id and not _PCI.fullmatch(told.pci_bus_id):
        problems.append(
            FieldProblem(
                f"{where}.pciBusID", f"expected an address such as 0000:1b:00.0, got {excerpt(told.pci_bus_id)}"
            )
        )
    if told.numa_node is not None and told.numa_node >= node.numa_nodes:
        problems.append(
            FieldProblem(f"{where}.numaNode", f"expected one below numaNodes {node.numa_nodes}, got {told.numa_node}")
        )


def _gpu(told: _GPU, node: _Node, index: int, total: int) -> DeclaredGPU:
    root = 0x10 + 0x20 * (index // 2)
    return DeclaredGPU(
        product=told.product,
        index=index,
        uuid=told.uuid or silicon_uuid("GPU", node.name, index),
        pci_bus_id=told.pci_bus_id or f"0000:{root + 1 + index % 2:02x}:00.0",
        pcie_root=f"pci0000:{root:02x}",
        numa_node=index * node.numa_nodes // total if told.numa_node is None else told.numa_node,
        mig=told.mig,
    )


def _where(node: DeclaredNode, gpu: DeclaredGPU, field: str) -> str:
    return f"nodes[{node.number}] GPU {gpu.index} {field}"


def _distinct(values: list[tuple[str, str]], problems: list[FieldProblem]) -> None:
    seen: dict[str, str] = {}
    for where, value in values:
        if value in seen:
            problems.append(FieldProblem(where, f"{value} is also {seen[value]}", "FieldValueDuplicate"))
        seen.setdefault(value, where)
