"""OCI artifacts as values: names, references, descriptors, manifests, indexes (image-spec 1.1, distribution-spec 1.1).

Pure: bytes become a value or our error, and a value becomes the one way to write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from wharfinger.core.digests import parse_sha256, sha256
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Malformed, TooLarge, excerpt

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
EMPTY_BYTES: Final = b"{}"
"""What stands where a manifest needs a config or a layer and has none."""
OCTETS: Final = "application/octet-stream"
TITLE: Final = "org.opencontainers.image.title"
"""Annotation of a layer: the path of the file that it is."""
LARGEST_MANIFEST: Final = 4 * 1024 * 1024
LARGEST_BLOB: Final = 1 << 40
MOST_DESCRIPTORS: Final = 100_000
_NAME: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII
)


def parse_name(text: str) -> str:
    """Return `text` if it is the name of a repository (distribution-spec, "Pulling manifests"). Raises `Malformed`."""
    if len(text) > 255 or _NAME.fullmatch(text) is None:
        raise Malformed(f"expected the name of a repository such as research/models/tiny, got {excerpt(text)}")
    return text


def parse_tag(text: str) -> str:
    """Return `text` if it is a tag. Raises `Malformed`."""
    if _TAG.fullmatch(text) is None:
        raise Malformed(f"expected a tag or a digest, got {excerpt(text)}")
    return text


def is_digest(reference: str) -> bool:
    """Say whether `reference` is written as a digest rather than as a tag."""
    return ":" in reference


def parse_reference(text: str) -> str:
    """Return `text` if it is a tag or a sha256 digest. Raises `Malformed`."""
    return parse_sha256(text) if is_digest(text) else parse_tag(text)


def parse_media_type(text: Json, what: str) -> str:
    """Return `text` if it is a media type without parameters (RFC 6838 4.2). Raises `Malformed`."""
    if not isinstance(text, str) or _MEDIA_TYPE.fullmatch(text) is None:
        raise Malformed(f"{what}: expected a media type, got {excerpt(text)}")
    return text


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content by media type, sha256 digest and size in bytes, with what is said of it."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @classmethod
    def of(cls, media_type: str, data: bytes, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """Return the descriptor of `data`."""
        return cls(media_type, sha256(data), len(data), annotations or {})

    @classmethod
    def parse(cls, value: Json) -> Descriptor:
        """Return the descriptor in a decoded JSON `value` (descriptor.md). Raises `Malformed`."""
        if not isinstance(value, dict):
            raise Malformed(f"descriptor: expected an object, got {excerpt(value)}")
        size, digest, artifact_type = value.get("size"), value.get("digest"), value.get("artifactType", "")
        if type(size) is not int or not 0 <= size <= LARGEST_BLOB:
            raise Malformed(f"descriptor: expected a size up to {LARGEST_BLOB}, got {excerpt(size)}")
        if not isinstance(digest, str):
            raise Malformed(f"descriptor: expected a digest, got {excerpt(digest)}")
        return cls(
            parse_media_type(value.get("mediaType"), "descriptor mediaType"),
            parse_sha256(digest),
            size,
            _annotations(value.get("annotations")),
            parse_media_type(artifact_type, "descriptor artifactType") if artifact_type else "",
        )

    def to_json(self) -> dict[str, Json]:
        """Return the descriptor as a JSON object."""
        value: dict[str, Json] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value


NOTHING: Final = Descriptor.of(EMPTY, EMPTY_BYTES)
"""The descriptor of the empty content."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest, or an index where `media_type` says so: then `children` are its manifests.

    `artifact_type` is what the manifest itself says, empty when it says nothing; `kind` falls back on the
    config's media type, as the referrers API does.
    """

    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = MANIFEST

    @classmethod
    def parse(cls, data: bytes, media_type: str = "") -> Manifest:
        """Return the manifest or index in JSON `data`.

        `media_type` is what the sender says it is; empty when it says nothing. Raises `Malformed` or `TooLarge`.
        """
        value = parse_json(data, limit=LARGEST_MANIFEST)
        if not isinstance(value, dict):
            raise Malformed(f"manifest: expected an object, got {excerpt(value)}")
        if type(value.get("schemaVersion")) is not int or value["schemaVersion"] != 2:
            raise Malformed(f"manifest: expected schemaVersion 2, got {excerpt(value.get('schemaVersion'))}")
        own = value.get("mediaType", media_type) or (INDEX if "manifests" in value else MANIFEST)
        if own not in (MANIFEST, INDEX) or (media_type and own != media_type):
            raise Malformed(
                f"manifest: expected mediaType {media_type or f'{MANIFEST} or {INDEX}'}, got {excerpt(own)}",
                hint="push OCI manifests; other formats are not stored",
            )
        # A document that can be read as either is refused: two readers would see two artifacts (CVE-2021-41190).
        if (own == MANIFEST and "manifests" in value) or (own == INDEX and ("layers" in value or "config" in value)):
            raise Malformed("manifest: expected either an image manifest or an index, got both")
        artifact_type, subject = value.get("artifactType", ""), value.get("subject")
        manifest = cls(
            config=Descriptor.parse(value.get("config")) if own == MANIFEST else None,
            layers=_descriptors(value, "layers") if own == MANIFEST else (),
            children=_descriptors(value, "manifests") if own == INDEX else (),
            subject=None if subject is None else Descriptor.parse(subject),
            artifact_type=parse_media_type(artifact_type, "manifest artifactType") if artifact_type else "",
            annotations=_annotations(value.get("annotations")),
            media_type=own,
        )
        if manifest.config is not None and manifest.config.media_type == EMPTY and not artifact_type:
            raise Malformed("manifest: expected an artifactType where the config is empty")
        return manifest

    def encode(self) -> bytes:
        """Return the manifest as canonical JSON; `parse` reads it back."""
        value: dict[str, Json] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.media_type == INDEX:
            value["manifests"] = [child.to_json() for child in self.children]
        else:
            value["config"] = (self.config or NOTHING).to_json()
            value["layers"] = [layer.to_json() for layer in self.layers or (NOTHING,)]
        if self.subject is not None:
            value["subject"] = self.subject.to_json()
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return canonical(value)

    @property
    def kind(self) -> str:
        """The artifact type by which referrers are filtered (distribution-spec, "Listing referrers")."""
        return self.artifact_type or (self.config.media_type if self.config is not None else "")

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that the manifest needs: config and layers."""
        return (*((self.config,) if self.config is not None else ()), *self.layers)

    def descriptor(self, digest: str, size: int) -> Descriptor:
        """Return the descriptor of this manifest as a list of referrers shows it."""
        return Descriptor(self.media_type, digest, size, self.annotations, self.kind)


def _descriptors(value: Mapping[str, Json], name: str) -> tuple[Descriptor, ...]:
    items = value.get(name)
    if not isinstance(items, list):
        raise Malformed(f"manifest: expected {name} as a list, got {excerpt(items)}")
    if len(items) > MOST_DESCRIPTORS:
        raise TooLarge(f"manifest: expected at most {MOST_DESCRIPTORS} {name}, got {len(items)}")
    return tuple(Descriptor.parse(item) for item in items)


def _annotations(value: Json) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Malformed(f"expected annotations as an object of texts, got {excerpt(value)}")
    return value
