"""What form the caller wants an answer in, and what form its body is in. Pure.

Answers are JSON: the objects themselves, a server-printed Table, or metadata only (meta/v1 Table,
PartialObjectMetadata), or YAML. Bodies are JSON, YAML or, for built-in kinds, Kubernetes' protobuf. Protobuf
is not written: clients that send it offer to take JSON, as Kubernetes' own do. CBOR is neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from wharfinger.core.errors import excerpt
from wharfinger.local.api.faults import NotAcceptable, UnsupportedMediaType

Shape = Literal["object", "table", "metadata"]
Syntax = Literal["json", "yaml", "protobuf"]
PatchType = Literal["json", "merge", "strategic", "apply"]

JSON: Final = "application/json"
YAML: Final = "application/yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"

_PATCHES: Final[dict[str, PatchType]] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
PATCH_MEDIA_TYPES: Final = tuple(_PATCHES)


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer: its `shape` and its `syntax`."""

    shape: Shape = "object"
    syntax: Syntax = "json"


PLAIN: Final = Form()


@lru_cache(maxsize=256)
def accepted(accept: str) -> Form:
    """Return the first form in the `Accept` header that we can give. Raises `NotAcceptable`.

    Order counts, weights do not (as in kube-apiserver). An `as=` that we do not know passes over its clause.
    """
    for media, parameters in _clauses(accept):
        if media in {JSON, "application/*", "*/*"}:
            syntax: Syntax = "json"
        elif media in {YAML, "application/x-yaml"}:
            syntax = "yaml"
        else:
            continue
        match parameters.get("as"), parameters.get("g"), parameters.get("v"):
            case None, _, _:
                return Form("object", syntax)
            case "Table", "meta.k8s.io", "v1":
                return Form("table", syntax)
            case (("PartialObjectMetadata" | "PartialObjectMetadataList"), "meta.k8s.io", "v1"):
                return Form("metadata", syntax)
    if not accept.strip():
        return PLAIN
    raise NotAcceptable(f"only the following media types are accepted: {JSON}, {YAML}; got {excerpt(accept)}")


@lru_cache(maxsize=256)
def wants_aggregated(accept: str) -> bool:
    """Say whether discovery may be answered in one document (apidiscovery.k8s.io/v2)."""
    return any(
        media == JSON
        and parameters.get("as") == "APIGroupDiscoveryList"
        and (parameters.get("g"), parameters.get("v")) == ("apidiscovery.k8s.io", "v2")
        for media, parameters in _clauses(accept)
    )


@lru_cache(maxsize=256)
def body_syntax(content_type: str) -> Syntax:
    """Return the syntax of a body; none named is JSON. Raises `UnsupportedMediaType`."""
    media = content_type.partition(";")[0].strip().lower()
    if media in {"", JSON, "*/*"}:
        return "json"
    if media in {YAML, "application/x-yaml"}:
        return "yaml"
    if media == PROTOBUF:
        return "protobuf"
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: "
        f"{JSON}, {YAML}, {PROTOBUF}; got {excerpt(media)}"
    )


@lru_cache(maxsize=256)
def patch_type(content_type: str) -> PatchType:
    """Return which patch a body is. Raises `UnsupportedMediaType`."""
    media = content_type.partition(";")[0].strip().lower()
    found = _PATCHES.get(media)
    if found is None:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{', '.join(PATCH_MEDIA_TYPES)}; got {excerpt(media)}"
        )
    return found


def _clauses(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    for clause in accept.split(","):
        media, *rest = clause.split(";")
        pairs = (part.partition("=") for part in rest)
        yield media.strip().lower(), {name.strip(): value.strip() for name, _, value in pairs}
