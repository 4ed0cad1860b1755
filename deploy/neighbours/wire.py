"""Renews wharfinger/kinds/builtin/wire.json: the numbers that fields of built-in kinds have in protobuf.

Usage: python deploy/neighbours/wire.py (after `make neighbours`, which fetches the Go modules). Reads the
struct tags in the types of k8s.io/api and k8s.io/apimachinery; takes names and numbers, nothing else.

A field is `NUMBER NAME TYPE` with marks at its end: `*` for one that may be absent (a pointer), `!` for one
that JSON shows even when it is zero, `^` for one whose fields stand in its parent. TYPE is string, int, bool,
bytes, double, time, microtime, quantity, intstr, json or the name of a message, `[]` before it for a list and
`{}` for a map of texts to it.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

API, MACHINERY = "k8s.io/api@v0.37.2", "k8s.io/apimachinery@v0.37.2"
PACKAGES = {
    "core.v1": (API, "core/v1"),
    "apps.v1": (API, "apps/v1"),
    "batch.v1": (API, "batch/v1"),
    "coordination.v1": (API, "coordination/v1"),
    "resource.v1": (API, "resource/v1"),
    "scheduling.v1alpha3": (API, "scheduling/v1alpha3"),
    "autoscaling.v1": (API, "autoscaling/v1"),
    "authentication.v1": (API, "authentication/v1"),
    "authorization.v1": (API, "authorization/v1"),
    "meta.v1": (MACHINERY, "pkg/apis/meta/v1"),
}
IMPORTS = {
    "v1": "core.v1",
    "corev1": "core.v1",
    "metav1": "meta.v1",
    "schedulingv1alpha3": "scheduling.v1alpha3",
    "schedulingapi": "scheduling.v1alpha3",
}
KINDS = {
    "v1": "core.v1: Namespace ServiceAccount Secret ConfigMap Event Node Pod Service Binding",
    "apps/v1": "apps.v1: Deployment",
    "batch/v1": "batch.v1: Job",
    "coordination.k8s.io/v1": "coordination.v1: Lease",
    "resource.k8s.io/v1": "resource.v1: ResourceSlice ResourceClaim ResourceClaimTemplate DeviceClass",
    "autoscaling/v1": "autoscaling.v1: Scale",
    "authentication.k8s.io/v1": "authentication.v1: SelfSubjectReview",
    "authorization.k8s.io/v1": "authorization.v1: SelfSubjectAccessReview SelfSubjectRulesReview",
    "*": "meta.v1: DeleteOptions",
}
SCALARS = {
    **dict.fromkeys(("string",), "string"),
    **dict.fromkeys(("int", "int8", "int16", "int32", "int64", "uint32", "uint64"), "int"),
    "bool": "bool",
    "byte": "byte",
    "float64": "double",
}
SPECIAL = {
    "metav1.Time": "time",
    "meta.v1.Time": "time",
    "meta.v1.MicroTime": "microtime",
    "metav1.MicroTime": "microtime",
    "resource.Quantity": "quantity",
    "intstr.IntOrString": "intstr",
    "runtime.RawExtension": "json",
    "metav1.FieldsV1": "json",
    "meta.v1.FieldsV1": "json",
    "types.UID": "string",
    "types.NodeName": "string",
}
STRUCT = re.compile(r"^type (\w+) struct \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^\s*(?:type )?(\w+) (=? ?(?:map\[\w+\]|\[\])?[\w.]+)$", re.MULTILINE)
FIELD = re.compile(r"^\s+(?:(\w+)\s+)?([*\[\]\w.]+)\s+`(.*)`", re.MULTILINE)
TAG = re.compile(r'(\w+):"([^"]*)"')


class Types:
    """The types of every package, by `package.Name`."""

    def __init__(self, cache: Path) -> None:
        self.structs: dict[str, str] = {}
        self.named: dict[str, str] = {}
        for package, (module, folder) in PACKAGES.items():
            for path in sorted((cache / module / folder).glob("*types.go")):
                text = path.read_text(encoding="utf-8")
                for name, body in STRUCT.findall(text):
                    self.structs[f"{package}.{name}"] = body
                for name, target in NAMED.findall(text):
                    self.named[f"{package}.{name}"] = target.removeprefix("= ")

    def resolve(self, package: str, text: str) -> str:
        """Return the wire type of the Go type `text` as `package` writes it."""
        if text.startswith("[]"):
            inner = self.resolve(package, text[2:])
            return "bytes" if inner == "byte" else f"[]{inner}"
        if text.startswith("map["):
            return "{}" + self.resolve(package, text.partition("]")[2])
        text = text.removeprefix("*")
        if text in SCALARS:
            return SCALARS[text]
        if text in SPECIAL:
            return SPECIAL[text]
        full = f"{IMPORTS.get(text.partition('.')[0], text.partition('.')[0])}.{text.partition('.')[2]}"
        full = full if "." in text else f"{package}.{text}"
        if full in SPECIAL:
            return SPECIAL[full]
        if full in self.structs:
            return full
        if full in self.named:
            return self.resolve(full.rpartition(".")[0], self.named[full])
        raise SystemExit(f"wire.py: expected to know the type {text} of {package}")

    def fields(self, name: str) -> list[str]:
        """Return the fields of a message."""
        package = name.rpartition(".")[0]
        made = []
        for _, go_type, tags in FIELD.findall(self.structs[name]):
            found = dict(TAG.findall(tags))
            if "protobuf" not in found:
                continue
            number = found["protobuf"].split(",")[1]
            shown, *options = found["json"].split(",")
            marks = "*" if go_type.startswith("*") else ""
            marks += "" if "omitempty" in options or "omitzero" in options else "!"
            if not shown:
                marks, shown = "^", "-"
            made.append(f"{number} {shown} {self.resolve(package, go_type)}{marks}")
        return made


def main() -> None:
    """Write the file."""
    cache = Path(subprocess.run(["go", "env", "GOMODCACHE"], check=True, capture_output=True, text=True).stdout.strip())
    types = Types(cache)
    kinds = {}
    for version, text in KINDS.items():
        package, _, names = text.partition(": ")
        for name in names.split():
            kinds[f"{version} {name}"] = f"{package}.{name}"
    messages: dict[str, list[str]] = {}
    waiting = sorted(set(kinds.values()))
    while waiting:
        name = waiting.pop()
        if name in messages:
            continue
        messages[name] = types.fields(name)
        for field in messages[name]:
            wanted = field.split(" ")[2].rstrip("*!^").removeprefix("[]").removeprefix("{}").removeprefix("[]")
            if wanted in types.structs:
                waiting.append(wanted)
    target = Path(__file__).parents[2] / "wharfinger/kinds/builtin/wire.json"
    lines = [f"  {json.dumps(name)}: {json.dumps(fields)}" for name, fields in sorted(messages.items())]
    text = f'{{"kinds": {json.dumps(kinds, sort_keys=True)},\n"messages": {{\n' + ",\n".join(lines) + "\n}}\n"
    json.loads(text)
    target.write_text(text, encoding="ascii")
    print(f"{target}: {len(messages)} messages, {sum(map(len, messages.values()))} fields")


if __name__ == "__main__":
    main()
