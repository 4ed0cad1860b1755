"""The four workflows of the OCI distribution-spec's conformance (pull, push, discovery, management), on our server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_registry import ADA, ALICE, Answer, LocalRegistry

from wharfinger.core.digests import sha256
from wharfinger.supply.registry.oci import EMPTY, INDEX, MANIFEST, NOTHING, Descriptor, Manifest

REPO = "research/things/one"
CONFIG, LAYER = b'{"architecture":"none"}', b"the layer" * 100
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """A registry with one artifact under two tags, and three referrers."""
    made = LocalRegistry(tmp_path_factory.mktemp("registry")).start()
    for data in (CONFIG, LAYER, b"{}"):
        assert push(made, REPO, data).status == 201
    for tag in ("v1", "v2"):
        assert put(made, REPO, tag, MAIN.encode()).status == 201
    for kind in ("application/a", "application/a", "application/b"):
        found = Manifest(artifact_type=kind, subject=SUBJECT, annotations={"n": str(len(KINDS))})
        KINDS[sha256(found.encode())] = kind
        answer = put(made, REPO, sha256(found.encode()), found.encode())
        assert answer.headers["oci-subject"] == SUBJECT.digest
    yield made
    made.stop()


MAIN = Manifest(config=Descriptor.of(CONFIG_TYPE, CONFIG), layers=(Descriptor.of("application/x", LAYER),))
SUBJECT = Descriptor.of(MANIFEST, MAIN.encode())
KINDS: dict[str, str] = {}


def push(registry: LocalRegistry, repository: str, data: bytes) -> Answer:
    """Push a blob in one request."""
    return registry.ask(ALICE, "POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data)


def put(registry: LocalRegistry, repository: str, reference: str, data: bytes, kind: str = MANIFEST) -> Answer:
    """Push a manifest."""
    return registry.ask(ALICE, "PUT", f"/v2/{repository}/manifests/{reference}", data, content_type=kind)


def get(registry: LocalRegistry, target: str, **headers: str) -> Answer:
    """Send a GET."""
    return registry.ask(ALICE, "GET", target, **headers)


def begin(registry: LocalRegistry, repository: str = REPO) -> str:
    """Begin an upload; return its location."""
    answer = registry.ask(ALICE, "POST", f"/v2/{repository}/blobs/uploads/")
    assert answer.status == 202
    return answer.headers["location"]


# Pull


def test_the_base_says_that_this_is_a_registry(registry: LocalRegistry) -> None:
    """end-1: GET /v2/ is 200 for whoever is known."""
    assert get(registry, "/v2/").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("reference", ["v1", SUBJECT.digest])
def test_a_manifest_is_pulled_by_tag_and_by_digest(registry: LocalRegistry, method: str, reference: str) -> None:
    """end-3: the very bytes that were pushed, with type, length and digest; HEAD without the bytes."""
    answer = registry.ask(ALICE, method, f"/v2/{REPO}/manifests/{reference}", accept=MANIFEST)
    assert (answer.status, answer.headers["content-type"]) == (200, MANIFEST)
    assert answer.headers["docker-content-digest"] == SUBJECT.digest
    assert answer.headers["content-length"] == str(SUBJECT.size)
    assert answer.body == (MAIN.encode() if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("reference", ["v9", "sha256:" + "0" * 64])
def test_a_manifest_that_is_not_there_is_unknown(registry: LocalRegistry, method: str, reference: str) -> None:
    """end-3: 404 with MANIFEST_UNKNOWN."""
    answer = registry.ask(ALICE, method, f"/v2/{REPO}/manifests/{reference}")
    assert answer.status == 404
    assert method == "HEAD" or answer.code == "MANIFEST_UNKNOWN"


def test_a_blob_is_pulled_by_digest(registry: LocalRegistry) -> None:
    """end-2: GET and HEAD of a blob; one that is not there is BLOB_UNKNOWN."""
    answer = get(registry, f"/v2/{REPO}/blobs/{sha256(LAYER)}")
    assert (answer.status, answer.body) == (200, LAYER)
    head = registry.ask(ALICE, "HEAD", f"/v2/{REPO}/blobs/{sha256(LAYER)}")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(LAYER)), b"")
    missing = get(registry, f"/v2/{REPO}/blobs/{sha256(b'missing')}")
    assert (missing.status, missing.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=10-", 10, 900), ("bytes=-5", 895, 900), ("bytes=890-2000", 890, 900)],
)
def test_a_range_of_a_blob_is_pulled(registry: LocalRegistry, asked: str, start: int, end: int) -> None:
    """RFC 9110 14: 206 with the bytes asked for and where they are."""
    answer = get(registry, f"/v2/{REPO}/blobs/{sha256(LAYER)}", range=asked)
    assert (answer.status, answer.body) == (206, LAYER[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/900"


def test_a_range_beyond_the_blob_cannot_be_satisfied_and_a_strange_one_is_passed_over(registry: LocalRegistry) -> None:
    """416 for a range outside; several ranges, other units and nonsense give the whole blob."""
    target = f"/v2/{REPO}/blobs/{sha256(LAYER)}"
    assert get(registry, target, range="bytes=900-").status == 416
    for asked in ("bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes=5-2", "bytes=-"):
        assert get(registry, target, range=asked).status == 200


# Push


def test_a_blob_is_pushed_in_one_request_after_a_session(registry: LocalRegistry) -> None:
    """end-4a, end-6: POST, then PUT with the bytes and the digest."""
    data = b"monolithic"
    answer = registry.ask(ALICE, "PUT", f"{begin(registry)}?digest={sha256(data)}", data)
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/{REPO}/blobs/{sha256(data)}")
    assert registry.ask(ALICE, "HEAD", answer.headers["location"]).status == 200


def test_a_blob_is_pushed_in_chunks(registry: LocalRegistry) -> None:
    """end-5: each PATCH says where it ends; one out of order is 416 and says where to go on; PUT closes."""
    location = begin(registry)
    first = registry.ask(
        ALICE, "PATCH", location, b"abcde", content_range="0-4", content_type="application/octet-stream"
    )
    assert (first.status, first.headers["range"]) == (202, "0-4")
    again = registry.ask(ALICE, "PATCH", location, b"abcde", content_range="0-4")
    assert (again.status, again.headers["range"]) == (416, "0-4")
    ahead = registry.ask(ALICE, "PATCH", location, b"xyz", content_range="9-11")
    assert ahead.status == 416
    status = registry.ask(ALICE, "GET", location)
    assert (status.status, status.headers["range"], status.headers["location"]) == (204, "0-4", location)
    second = registry.ask(ALICE, "PATCH", location, b"fg", content_range="5-6")
    assert (second.status, second.headers["range"]) == (202, "0-6")
    last = registry.ask(ALICE, "PUT", f"{location}?digest={sha256(b'abcdefgh')}", b"h", content_range="7-7")
    assert last.status == 201
    assert registry.ask(ALICE, "GET", location).code == "BLOB_UPLOAD_UNKNOWN"


def test_a_blob_that_is_not_its_digest_is_refused(registry: LocalRegistry) -> None:
    """DIGEST_INVALID for another digest, one of another algorithm, and none at all."""
    wrong = registry.ask(ALICE, "PUT", f"{begin(registry)}?digest={sha256(b'other')}", b"data")
    assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")
    for text in ("md5:abc", "sha256:ABC", "sha256:" + "0" * 63, ""):
        answer = registry.ask(ALICE, "PUT", f"{begin(registry)}?digest={text}", b"data")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_an_upload_can_be_cancelled(registry: LocalRegistry) -> None:
    """DELETE ends an upload: it is unknown then."""
    location = begin(registry)
    assert registry.ask(ALICE, "DELETE", location).status == 204
    assert registry.ask(ALICE, "PATCH", location, b"x").status == 404


def test_an_empty_blob_is_a_blob(registry: LocalRegistry) -> None:
    """Zero bytes have a digest like any others."""
    assert registry.ask(ALICE, "PUT", f"{begin(registry)}?digest={sha256(b'')}").status == 201


def test_a_manifest_whose_blobs_are_missing_is_refused(registry: LocalRegistry) -> None:
    """MANIFEST_BLOB_UNKNOWN for a layer, a config or a child that the repository does not hold, or of another size."""
    lost = Descriptor.of("application/x", b"lost")
    for manifest in (
        Manifest(config=lost),
        Manifest(config=MAIN.config, layers=(lost,)),
        Manifest(children=(lost,), media_type=INDEX),
        Manifest(config=MAIN.config, layers=(Descriptor("application/x", sha256(LAYER), 1),)),
    ):
        answer = put(registry, REPO, "bad", manifest.encode(), manifest.media_type)
        assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert get(registry, f"/v2/{REPO}/manifests/bad").status == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"schemaVersion":1}', b'{"schemaVersion":2,"mediaType":"text/plain"}', b"\xff\xfe",
     b'{"schemaVersion":2,"schemaVersion":2,"config":{},"layers":[]}',
     b'{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:x","size":1},"layers":[]}'],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(registry: LocalRegistry, body: bytes) -> None:
    """MANIFEST_INVALID for anything that is not one."""
    answer = put(registry, REPO, "bad", body)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_a_manifest_that_can_be_read_as_two_things_is_refused(registry: LocalRegistry) -> None:
    """A document with layers and manifests is neither (CVE-2021-41190)."""
    both = {**json.loads(MAIN.encode()), "manifests": []}
    assert put(registry, REPO, "bad", json.dumps(both).encode()).code == "MANIFEST_INVALID"
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    assert put(registry, REPO, "bad", json.dumps(index).encode(), MANIFEST).code == "MANIFEST_INVALID"
    assert put(registry, REPO, "index", json.dumps(index).encode(), INDEX).status == 201


def test_a_manifest_too_large_is_refused(registry: LocalRegistry) -> None:
    """413 over 4 MiB, before and while it is read."""
    assert put(registry, REPO, "bad", b" " * (4 * 1024 * 1024 + 1)).status == 413


def test_a_manifest_under_a_wrong_digest_is_refused(registry: LocalRegistry) -> None:
    """A manifest pushed by a digest must have it."""
    answer = put(registry, REPO, "sha256:" + "0" * 64, MAIN.encode())
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_a_blob_is_mounted_from_another_repository(registry: LocalRegistry) -> None:
    """end-11: 201 where the blob may be pulled from the other repository, else an upload begins."""
    target = f"/v2/research/things/two/blobs/uploads/?mount={sha256(LAYER)}&from="
    mounted = registry.ask(ALICE, "POST", target + REPO)
    assert (mounted.status, mounted.headers["location"]) == (201, f"/v2/research/things/two/blobs/{sha256(LAYER)}")
    assert registry.ask(ALICE, "POST", target + "research/nothing").status == 202
    assert registry.ask(ALICE, "POST", target.removesuffix("&from=")).status == 202


# Discovery


def test_tags_are_listed_in_pages(registry: LocalRegistry) -> None:
    """end-8: in order, n at a time, a link to the next page while there is one."""
    for tag in ("a", "b", "c"):
        push(registry, "research/tagged", b"{}")
        assert put(registry, "research/tagged", tag, Manifest(artifact_type="a/b").encode()).status == 201
    base = "/v2/research/tagged/tags/list"
    assert json.loads(get(registry, base).body) == {"name": "research/tagged", "tags": ["a", "b", "c"]}
    page = get(registry, f"{base}?n=2")
    assert json.loads(page.body)["tags"] == ["a", "b"]
    target = page.headers["link"].partition(">")[0][1:]
    rest = get(registry, target)
    assert (json.loads(rest.body)["tags"], "link" in rest.headers) == (["c"], False)
    assert json.loads(get(registry, f"{base}?n=0").body)["tags"] == []
    assert json.loads(get(registry, f"{base}?last=b").body)["tags"] == ["c"]
    assert get(registry, f"{base}?n=x").status == 400
    assert get(registry, "/v2/research/no/such/tags/list").code == "NAME_UNKNOWN"


def test_referrers_are_listed_and_filtered(registry: LocalRegistry) -> None:
    """end-12: an index of the manifests whose subject it is; a filter is named where it was applied."""
    base = f"/v2/{REPO}/referrers/{SUBJECT.digest}"
    answer = get(registry, base)
    found = json.loads(answer.body)["manifests"]
    assert (answer.status, answer.headers["content-type"]) == (200, INDEX)
    assert {item["digest"]: item["artifactType"] for item in found} == KINDS
    assert all(item["mediaType"] == MANIFEST and "n" in item["annotations"] for item in found)
    filtered = get(registry, f"{base}?artifactType=application/a")
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert {item["artifactType"] for item in json.loads(filtered.body)["manifests"]} == {"application/a"}
    none = get(registry, f"/v2/{REPO}/referrers/sha256:{'0' * 64}")
    assert (none.status, json.loads(none.body)["manifests"]) == (200, [])
    assert get(registry, f"/v2/{REPO}/referrers/latest").status == 400
    assert len(registry.client(ALICE).referrers(REPO, SUBJECT.digest)) == 3


def test_a_referrer_may_come_before_its_subject(registry: LocalRegistry) -> None:
    """A subject that is not there yet is no reason to refuse."""
    early = Manifest(artifact_type="a/b", subject=Descriptor.of(MANIFEST, b"not there yet"))
    assert put(registry, REPO, sha256(early.encode()), early.encode()).status == 201


def test_an_artifact_type_is_demanded_beside_an_empty_config(registry: LocalRegistry) -> None:
    """image-spec: a manifest whose config is empty says what it is."""
    assert put(registry, REPO, "bad", Manifest(config=NOTHING).encode()).code == "MANIFEST_INVALID"
    assert NOTHING.media_type == EMPTY


# Management


def test_tags_and_manifests_are_deleted_by_an_admin(registry: LocalRegistry) -> None:
    """end-9, end-10: 202, then 404; a tag goes alone, a digest takes its tags and its own blobs along."""
    repo = "research/deleted"
    assert push(registry, repo, CONFIG).status == push(registry, repo, b"only here").status == 201
    manifest = Manifest(config=MAIN.config, layers=(Descriptor.of("a/b", b"only here"),))
    for tag in ("a", "b"):
        put(registry, repo, tag, manifest.encode())
    digest = sha256(manifest.encode())
    assert registry.ask(ALICE, "DELETE", f"/v2/{repo}/manifests/a").status == 403
    assert registry.ask(ADA, "DELETE", f"/v2/{repo}/manifests/a").status == 202
    assert get(registry, f"/v2/{repo}/manifests/a").status == 404
    assert get(registry, f"/v2/{repo}/manifests/b").status == 200
    used = registry.ask(ADA, "DELETE", f"/v2/{repo}/blobs/{sha256(CONFIG)}")
    assert used.status == 404 and registry.storage.path(sha256(CONFIG)).exists()
    assert registry.ask(ADA, "DELETE", f"/v2/{repo}/manifests/{digest}").status == 202
    for target in (f"manifests/{digest}", "manifests/b", f"blobs/{sha256(b'only here')}"):
        assert get(registry, f"/v2/{repo}/{target}").status == 404
    assert registry.ask(ADA, "DELETE", f"/v2/{repo}/manifests/{digest}").status == 404
    assert not registry.storage.path(sha256(b"only here")).exists()
    assert registry.storage.path(sha256(CONFIG)).exists(), "another repository holds it"


def test_an_unused_blob_is_deleted(registry: LocalRegistry) -> None:
    """end-10: a blob that no manifest needs goes, then it is unknown."""
    push(registry, "research/deleted", b"unused")
    target = f"/v2/research/deleted/blobs/{sha256(b'unused')}"
    assert registry.ask(ADA, "DELETE", target).status == 202
    assert registry.ask(ADA, "DELETE", target).status == 404


def test_other_methods_and_paths_are_refused(registry: LocalRegistry) -> None:
    """405 with UNSUPPORTED for a method that an endpoint has not, 404 for no endpoint at all."""
    assert registry.ask(ALICE, "POST", f"/v2/{REPO}/manifests/v1").code == "UNSUPPORTED"
    assert registry.ask(ALICE, "DELETE", "/v2/").status == 405
    for target in ("/", "/v1/", "/v2/x", f"/v2/{REPO}/what/v1", "/log"):
        assert get(registry, target).status == 404


def test_the_folder_holds_blobs_by_their_digest_alone(registry: LocalRegistry, tmp_path: Path) -> None:
    """Everything on disk is named by what it is; nothing is named by a request."""
    for path in (registry.folder / "registry" / "blobs").rglob("*"):
        if path.is_file():
            assert sha256(path.read_bytes()) == f"sha256:{path.name}"
