"""The model, from the registry into memory: what is loaded is what was verified.

The manifest is asked for by digest, each file by the digest that the manifest gives it, and the bytes that the model
is made of are hashed once more where they lie. Nothing touches a disk in between.
"""

from __future__ import annotations

from typing import Protocol

from wharfinger.core.digests import sha256
from wharfinger.core.errors import DigestMismatch, Malformed, excerpt
from wharfinger.inference.language import CONFIG, VOCABULARY, WEIGHTS, LanguageModel, load
from wharfinger.supply.registry.client import Pulled
from wharfinger.supply.registry.oci import TITLE, Descriptor


class Shelf(Protocol):
    """What loading needs of a registry; `RegistryClient` is one."""

    def pull_manifest(self, repository: str, reference: str) -> Pulled:
        """Return a manifest."""
        ...

    def pull_blob(self, repository: str, blob: Descriptor) -> bytes:
        """Return a blob's bytes."""
        ...


def pull(shelf: Shelf, repository: str, digest: str) -> LanguageModel:
    """Return the language model that the artifact `digest` of `repository` is.

    Raises `DigestMismatch` naming the file whose bytes are others, `Malformed` when the artifact is no such model, and
    what the registry says.
    """
    pulled = shelf.pull_manifest(repository, digest)
    _check("manifest", pulled.data, digest)
    layers = {layer.annotations.get(TITLE, ""): layer for layer in pulled.manifest.layers}
    files: dict[str, bytes] = {}
    for name in (WEIGHTS, VOCABULARY, CONFIG):
        if name not in layers:
            raise Malformed(f"model {digest}: expected a file {name}, got {excerpt(', '.join(sorted(layers)))}")
        files[name] = shelf.pull_blob(repository, layers[name])
    for name, data in files.items():
        _check(name, data, layers[name].digest)
    return load(files)


def _check(name: str, data: bytes, digest: str) -> None:
    found = sha256(data)
    if found != digest:
        raise DigestMismatch(f"{name}: expected {digest}, got {found}", hint="the stored bytes changed: push them anew")
