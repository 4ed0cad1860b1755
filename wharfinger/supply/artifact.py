"""Artifacts: a folder of files as an OCI manifest with a layer per file, and back (ModelPack for models).

A layer's digest is its file's sha256, so that the manifest of files (OpenSSF Model Signing), and with it the content
digest that is signed, follows from the OCI manifest alone: `read` needs no file to know what a model consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeAlias, get_args

from wharfinger.core.document import Json, canonical
from wharfinger.core.errors import Conflict, HostUnfit, Invalid, Malformed, TooLarge, Unverified, excerpt
from wharfinger.supply.bundle import LARGEST_BUNDLE
from wharfinger.supply.bundle import MEDIA_TYPE as BUNDLE
from wharfinger.supply.hashing import measure
from wharfinger.supply.manifest import WHOLE_FILES, Entry, Manifest, Serialization, canonical_path, made
from wharfinger.supply.registry.client import Progress, Pulled, RegistryClient
from wharfinger.supply.registry.oci import EMPTY, EMPTY_BYTES, MANIFEST, OCTETS, TITLE, Descriptor
from wharfinger.supply.registry.oci import Manifest as OciManifest

Kind: TypeAlias = Literal["dataset", "model", "code", "output"]
"""What a folder is: data, weights, a step's program, or what a step put out."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
ARTIFACT_TYPES: Final[Mapping[Kind, str]] = {
    "dataset": "application/vnd.wharfinger.dataset.v1",
    "model": "application/vnd.cncf.model.manifest.v1+json",
    "code": "application/vnd.wharfinger.code.v1",
    "output": "application/vnd.wharfinger.output.v1",
}
MODEL_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
BLAKE3: Final = "io.wharfinger.blake3"
"""Annotation of a layer: the second digest of its file, in hex."""
PREDICATE: Final = "dev.sigstore.bundle.predicateType"
"""Annotation of an attached bundle: what its statement says."""
MOST_ATTACHED: Final = 256
_FILE_PATH: Final = "org.cncf.model.filepath"
_MODEL_LAYERS: Final[Mapping[str, str]] = {
    ".safetensors": "application/vnd.cncf.model.weight.v1.raw",
    ".md": "application/vnd.cncf.model.doc.v1.raw",
    ".py": "application/vnd.cncf.model.code.v1.raw",
}
_MODEL_OTHER: Final = "application/vnd.cncf.model.weight.config.v1.raw"


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact in a registry: where it is, what it is, and the manifest of its files.

    `layers` maps each path to the blob that is the file.
    """

    repository: str
    digest: str
    kind: Kind
    contents: Manifest
    layers: Mapping[str, Descriptor]
    manifest: OciManifest

    @property
    def reference(self) -> str:
        """`repository@digest`."""
        return f"{self.repository}@{self.digest}"


def push_folder(
    client: RegistryClient,
    repository: str,
    folder: Path,
    kind: Kind,
    *,
    annotations: Mapping[str, str] | None = None,
    tag: str = "",
    starting: Callable[[int, int], None] | None = None,
    progress: Progress | None = None,
) -> str:
    """Push the files of `folder` (or the one file) to `repository` and return the manifest's digest.

    The same files give the same digest; of code, what Python compiled beside it is left out. `starting` is told the
    number of files and bytes once they are hashed, `progress` the bytes as they go. Raises what `hashing.measure`
    raises of the folder, `Conflict` when a file changes meanwhile, and what the client raises.
    """
    measured = measure(folder, Serialization(ignore_paths=tuple(_left_out(folder, kind))))
    root = folder if folder.is_dir() else folder.parent
    if starting is not None:
        starting(len(measured.entries), measured.size)
    layers = []
    for entry in measured.entries:
        labels = {TITLE: entry.name, BLAKE3: entry.blake3}
        if kind == "model":
            labels[_FILE_PATH] = entry.name
        layers.append(
            client.push_blob(
                repository,
                root / entry.name,
                media_type=_layer_type(kind, entry.name),
                annotations=labels,
                digest=f"sha256:{entry.digest}",
                progress=progress,
            )
        )
    config, config_type = _config(kind, repository, measured)
    manifest = OciManifest(
        config=client.push_blob(repository, config, media_type=config_type),
        layers=tuple(layers),
        artifact_type=ARTIFACT_TYPES[kind],
        annotations=annotations or {},
    )
    return client.push_manifest(repository, manifest, tag=tag)


def read(client: RegistryClient, repository: str, digest: str) -> Artifact:
    """Return the artifact `digest` of `repository`; its files are not fetched.

    Raises `Malformed` when the manifest is no artifact of ours, and what the client raises.
    """
    return of_manifest(repository, client.pull_manifest(repository, digest))


def of_manifest(repository: str, pulled: Pulled) -> Artifact:
    """Return the artifact that a `pulled` manifest is.

    Raises `Malformed` for another artifact type, a layer without a path, a path that is not canonical, one that occurs
    twice or is a folder of another.
    """
    manifest = pulled.manifest
    kinds: dict[str, Kind] = {artifact_type: kind for kind, artifact_type in ARTIFACT_TYPES.items()}
    kind = kinds.get(manifest.artifact_type)
    if kind is None or manifest.media_type != MANIFEST:
        raise Malformed(
            f"{repository}@{pulled.digest}: expected a dataset, model, code or output, "
            f"got {excerpt(manifest.artifact_type or manifest.media_type)}"
        )
    layers: dict[str, Descriptor] = {}
    entries: list[Entry] = []
    for layer in manifest.layers:
        title = layer.annotations.get(TITLE, "")
        if not title or canonical_path(title) != title or title == ".":
            raise Malformed(f"layer {layer.digest}: expected the path of a file as its title, got {excerpt(title)}")
        if title in layers:
            raise Malformed(f"expected each path once, got {excerpt(title)} twice")
        layers[title] = layer
        blake3 = layer.annotations.get(BLAKE3, "")
        entries.append(Entry(title, layer.digest.removeprefix("sha256:"), blake3=blake3, size=layer.size))
    for title in layers:
        for parent in PurePosixPath(title).parents:
            if str(parent) in layers:
                raise Malformed(f"expected {excerpt(str(parent))} as a file or a folder, got both")
    contents = made(repository.rpartition("/")[2], entries, WHOLE_FILES)
    return Artifact(repository, pulled.digest, kind, contents, layers, manifest)


def pull_folder(
    client: RegistryClient, repository: str, digest: str, into: Path, *, progress: Progress | None = None
) -> Artifact:
    """Write the files of the artifact `digest` below the new or empty folder `into`; every byte is verified.

    Raises `Conflict` when `into` holds something, `DigestMismatch` for a file that is not what the manifest names,
    `HostUnfit` when one cannot be written, and what `read` raises. After an error `into` may hold some of the files.
    """
    artifact = read(client, repository, digest)
    try:
        into.mkdir(mode=0o755, parents=True, exist_ok=True)
        if any(into.iterdir()):
            raise Conflict(f"{excerpt(str(into))}: expected an empty folder")
        for title, layer in artifact.layers.items():
            path = into / title
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            client.save_blob(repository, layer, path, progress)
    except OSError as error:
        raise HostUnfit(f"{excerpt(str(error.filename or into))}: {error.strerror}") from error
    return artifact


def publish(client: RegistryClient, artifact: Artifact, repository: str, kind: Kind) -> Artifact:
    """Have the files of `artifact` in `repository` as one of `kind`, mounted rather than sent again; return that.

    The same files always give the same digest. Raises what the client raises.
    """
    client.copy(artifact.repository, artifact.digest, repository)
    config, config_type = _config(kind, repository, artifact.contents)
    layers = []
    for path, layer in artifact.layers.items():
        labels = {TITLE: path, **{k: v for k, v in layer.annotations.items() if k == BLAKE3}}
        if kind == "model":
            labels[_FILE_PATH] = path
        layers.append(Descriptor(_layer_type(kind, path), layer.digest, layer.size, labels))
    manifest = OciManifest(
        config=client.push_blob(repository, config, media_type=config_type),
        layers=tuple(layers),
        artifact_type=ARTIFACT_TYPES[kind],
    )
    return read(client, repository, client.push_manifest(repository, manifest))


def attach(client: RegistryClient, repository: str, digest: str, bundle: bytes, *, predicate_type: str = "") -> str:
    """Attach a signature `bundle` to the artifact `digest` as a referrer; return the digest of the bundle's bytes."""
    subject = client.pull_manifest(repository, digest)
    layer = client.push_blob(repository, bundle, media_type=BUNDLE)
    client.push_blob(repository, EMPTY_BYTES, media_type=EMPTY)
    labels = {"dev.sigstore.bundle.content": "dsse-envelope"}
    if predicate_type:
        labels[PREDICATE] = predicate_type
    manifest = OciManifest(
        layers=(layer,),
        subject=Descriptor(subject.manifest.media_type, digest, len(subject.data)),
        artifact_type=BUNDLE,
        annotations=labels,
    )
    client.push_manifest(repository, manifest)
    return layer.digest


def attached(
    client: RegistryClient,
    repository: str,
    digest: str,
    *,
    predicate_type: str = "",
    known: MutableMapping[str, tuple[bytes, ...]] | None = None,
) -> Iterator[bytes]:
    """Yield the bundles that are attached to the artifact `digest`, verified as bytes alone.

    With `predicate_type`, those alone that say they hold such a statement (nobody signed that they do). `known` keeps
    what was read, by subject and referrer, so that it is not read again. Raises `TooLarge` for more than
    `MOST_ATTACHED`, `Unverified` for a referrer that is not the artifact's.
    """
    found = client.referrers(repository, digest, BUNDLE)
    if len(found) > MOST_ATTACHED:
        raise TooLarge(f"{repository}@{digest}: expected at most {MOST_ATTACHED} bundles, got {len(found)}")
    for referrer in found:
        said = referrer.annotations.get(PREDICATE, "")
        if predicate_type and said and said != predicate_type:
            continue
        held = known.get(f"{digest}/{referrer.digest}") if known is not None else None
        if held is None:
            held = tuple(_bundles(client, repository, digest, referrer.digest))
            if known is not None:
                known[f"{digest}/{referrer.digest}"] = held
        yield from held


def _bundles(client: RegistryClient, repository: str, digest: str, referrer: str) -> Iterator[bytes]:
    manifest = client.pull_manifest(repository, referrer).manifest
    if manifest.subject is None or manifest.subject.digest != digest:
        raise Unverified(f"{referrer}: expected a referrer of {digest}")
    for layer in manifest.layers:
        if layer.media_type == BUNDLE:
            yield client.pull_blob(repository, layer, limit=LARGEST_BUNDLE)


def repository_of(namespace: str, kind: Kind, name: str) -> str:
    """Return the repository of the artifact `name` of a namespace: `NAMESPACE/datasets/NAME` and the like.

    Raises `Invalid` for a step's output: those are in `NAMESPACE/steps-POD`.
    """
    folders = {"dataset": "datasets", "model": "models", "code": "code"}
    if kind not in folders:
        raise Invalid(f"expected a dataset, a model or code, got {kind}")
    return f"{namespace}/{folders[kind]}/{name}"


def _left_out(folder: Path, kind: Kind) -> Iterator[str]:
    if kind == "code" and folder.is_dir():
        for path in folder.rglob("__pycache__"):
            yield path.relative_to(folder).as_posix()


def _layer_type(kind: Kind, path: str) -> str:
    if kind != "model":
        return OCTETS
    return _MODEL_LAYERS.get(PurePosixPath(path).suffix.lower(), _MODEL_OTHER)


def _config(kind: Kind, repository: str, measured: Manifest) -> tuple[bytes, str]:
    """Return the config of an artifact; a model's is ModelPack's (model-spec, config.md)."""
    if kind != "model":
        return EMPTY_BYTES, EMPTY
    value: dict[str, Json] = {
        "descriptor": {"name": repository.rpartition("/")[2]},
        "config": {"format": "safetensors"},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{entry.digest}" for entry in measured.entries]},
    }
    return canonical(value), MODEL_CONFIG
