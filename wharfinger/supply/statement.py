"""in-toto statements: a predicate said of subjects that are named by digest (in-toto attestation, v1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from wharfinger.core.digests import parse_sha256
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Malformed, Unverified, excerpt

V1: Final = "https://in-toto.io/Statement/v1"
_TYPES: Final = (V1, "https://in-toto.io/Statement/v0.1")
LARGEST_STATEMENT: Final = 48 * 1024 * 1024
# Names of the in-toto digest list whose value is hex of a known length; other names are taken as they come.
_HEX_LENGTHS: Final[Mapping[str, tuple[int, ...]]] = {
    "sha256": (64,), "sha224": (56,), "sha384": (96,), "sha512": (128,), "sha512_224": (56,), "sha512_256": (64,),
    "sha3_224": (56,), "sha3_256": (64,), "sha3_384": (96,), "sha3_512": (128,), "md5": (32,), "sha1": (40,),
    "gitCommit": (40, 64), "gitTree": (40, 64), "gitBlob": (40, 64), "gitTag": (40, 64),
}  # fmt: skip
_HEX: Final = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_TEXTS: Final = ("name", "uri", "content", "downloadLocation", "mediaType")


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource descriptor: something named by name, URI or digest; the other fields are said of it."""

    name: str = ""
    uri: str = ""
    digest: Mapping[str, str] = field(default_factory=dict)
    media_type: str = ""
    download_location: str = ""
    content: str = ""
    annotations: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: Json) -> Resource:
        """Return the descriptor in a decoded JSON `value`. Raises `Malformed`."""
        if not isinstance(value, dict):
            raise Malformed(f"resource: expected an object, got {excerpt(value)}")
        for name in _TEXTS:
            if not isinstance(value.get(name, ""), str):
                raise Malformed(f"resource: expected {name} as text, got {excerpt(value[name])}")
        digest, annotations = value.get("digest") or {}, value.get("annotations") or {}
        if not isinstance(digest, dict) or not isinstance(annotations, dict):
            raise Malformed("resource: expected digest and annotations as objects")
        for algorithm, text in digest.items():
            _check_digest(algorithm, text)
        if not (value.get("name") or value.get("uri") or digest):
            raise Malformed("resource: expected a name, a uri or a digest")
        return cls(
            name=value.get("name", ""),
            uri=value.get("uri", ""),
            digest=digest,
            media_type=value.get("mediaType", ""),
            download_location=value.get("downloadLocation", ""),
            content=value.get("content", ""),
            annotations=annotations,
        )

    def to_json(self) -> dict[str, Json]:
        """Return the descriptor as a JSON object, without the fields that are empty."""
        fields: dict[str, Json] = {
            "name": self.name,
            "uri": self.uri,
            "digest": dict(self.digest),
            "mediaType": self.media_type,
            "downloadLocation": self.download_location,
            "content": self.content,
            "annotations": dict(self.annotations),
        }
        return {name: value for name, value in fields.items() if value}

    @classmethod
    def of(cls, name: str, digest: str, *, uri: str = "", **annotations: Json) -> Resource:
        """Return the descriptor of the thing `name` with the OCI-form sha256 `digest`. Raises `Malformed`."""
        return cls(name=name, uri=uri, digest={"sha256": parse_sha256(digest)[7:]}, annotations=annotations)

    @property
    def sha256(self) -> str:
        """The sha256 in OCI form, empty where there is none."""
        return f"sha256:{self.digest['sha256'].lower()}" if "sha256" in self.digest else ""


@dataclass(frozen=True, slots=True)
class Statement:
    """`predicate`, of `predicate_type`, said of `subjects`: at least one, each with a digest."""

    subjects: tuple[Resource, ...]
    predicate_type: str
    predicate: Json
    type: str = V1

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Return the statement in JSON `data`. Raises `Malformed` or `TooLarge`."""
        return cls.of_json(parse_json(data, limit=LARGEST_STATEMENT))

    @classmethod
    def of_json(cls, value: Json) -> Statement:
        """Return the statement in a decoded JSON `value` (statement.md). Raises `Malformed`."""
        if not isinstance(value, dict):
            raise Malformed(f"statement: expected an object, got {excerpt(value)}")
        if value.get("_type") not in _TYPES:
            raise Malformed(f"statement: expected _type {V1}, got {excerpt(value.get('_type'))}")
        subjects = value.get("subject")
        if not isinstance(subjects, list) or not subjects:
            raise Malformed("statement: expected at least one subject")
        parsed = tuple(Resource.parse(subject) for subject in subjects)
        if not all(subject.digest for subject in parsed):
            raise Malformed("statement: expected a digest of every subject")
        predicate_type = value.get("predicateType")
        if not isinstance(predicate_type, str) or not predicate_type:
            raise Malformed("statement: expected a predicateType")
        if not isinstance(value.get("predicate"), dict):
            raise Malformed("statement: expected a predicate object")
        return cls(parsed, predicate_type, value["predicate"], value["_type"])

    def to_json(self) -> dict[str, Json]:
        """Return the statement as a JSON object."""
        return {
            "_type": self.type,
            "subject": [subject.to_json() for subject in self.subjects],
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        }

    def encode(self) -> bytes:
        """Return the statement as canonical JSON: the payload to sign."""
        return canonical(self.to_json())

    def about(self, digest: str, predicate_type: str) -> Statement:
        """Return this statement if it says `predicate_type` of the thing with the sha256 `digest`.

        Raises `Unverified` naming which of the two differs: a valid statement of something else proves nothing.
        """
        if self.predicate_type != predicate_type:
            raise Unverified(f"statement: expected predicate {predicate_type}, got {excerpt(self.predicate_type)}")
        if digest not in {subject.sha256 for subject in self.subjects}:
            raise Unverified(f"statement: {digest} is not among its subjects")
        return self


def _check_digest(algorithm: str, text: Json) -> None:
    if not isinstance(text, str) or not text:
        raise Malformed(f"resource: expected the {excerpt(algorithm)} digest as text, got {excerpt(text)}")
    lengths = _HEX_LENGTHS.get(algorithm)
    if lengths and (len(text) not in lengths or _HEX.fullmatch(text) is None):
        raise Malformed(f"resource: expected {algorithm} as {' or '.join(map(str, lengths))} hex digits")
