"""What reads requests: paths, parameters, media types, bodies, continue tokens. Any input gives a value or an error."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wharfinger.core.errors import Malformed, TooLarge, WharfingerError
from wharfinger.local.api import body, negotiation, protobody, yamlbody
from wharfinger.local.api.faults import MethodNotAllowed, NotAcceptable, UnsupportedMediaType
from wharfinger.local.api.request import (
    Query,
    Target,
    delete_options,
    list_options,
    query,
    target,
    verb,
    write_options,
)
from wharfinger.local.api.tokens import read_token, write_token

SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1).filter(
    lambda text: text not in {"namespaces", "status", "finalize"}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), child, max_size=4),
    max_leaves=12,
)  # fmt: skip


def q(**parameters: str) -> Query:
    """Return the query with these parameters."""
    return query(urlencode(parameters).encode())


@given(SEGMENT, SEGMENT, SEGMENT)
def test_a_path_names_what_it_was_made_from(plural: str, namespace: str, name: str) -> None:
    """Percent-encoded segments come back as they were, in the core group and in others."""
    parts = [quote(part, safe="") for part in (namespace, plural, name)]
    found = target("/apis/g.io/v1/namespaces/" + "/".join(parts))
    assert found == Target("g.io", "v1", plural, namespace, name)
    assert target("/api/v1/namespaces/" + "/".join(parts)) == Target("", "v1", plural, namespace, name)


@given(st.text(st.characters(codec="utf-8")))
@example("/api/v1/namespaces//pods")
@example("/apis//v1/pods")
@example("/api/v1/namespaces/a/pods/b/log/c/d")
def test_any_text_is_a_path_to_something_or_nothing(path: str) -> None:
    """No path makes the reader fail, and what it names has no empty segment."""
    found = target(path)
    assert found is None or (found.plural != "" and "" not in (found.name or "x", found.namespace or "x"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/namespaces", Target("", "v1", "namespaces")),
        ("/api/v1/namespaces/a", Target("", "v1", "namespaces", "", "a")),
        ("/api/v1/namespaces/a/status", Target("", "v1", "namespaces", "", "a", "status")),
        ("/api/v1/namespaces/a/finalize", Target("", "v1", "namespaces", "", "a", "finalize")),
        ("/api/v1/namespaces/a/pods", Target("", "v1", "pods", "a")),
        ("/api/v1/namespaces/a/pods/", Target("", "v1", "pods", "a")),
        ("/api/v1/namespaces/a/pods/b/log", Target("", "v1", "pods", "a", "b", "log")),
        ("/api/v1/pods", Target("", "v1", "pods")),
        ("/api/v1", None),
        ("/apis/g", None),
        ("/apis/g/v1", None),
        ("/apis/g/v1/tenants/t", Target("g", "v1", "tenants", "", "t")),
        ("/version", None),
        ("/api/v1/namespaces/a/pods/b/log/c", None),
    ],
)
def test_paths_of_the_api_conventions(path: str, expected: Target | None) -> None:
    """Each form of path names its resource, object or subresource."""
    assert target(path) == expected


def test_methods_become_verbs() -> None:
    """GET on a collection lists, or watches when asked; a method that means nothing is refused."""
    many, one = Target("", "v1", "pods", "a"), Target("", "v1", "pods", "a", "b")
    assert verb("GET", many, q()) == "list" and verb("GET", many, q(watch="1")) == "watch"
    assert verb("DELETE", many, q()) == "deletecollection" and verb("HEAD", one, q()) == "get"
    for method, at in (("POST", one), ("PATCH", many), ("PUT", many), ("TRACE", one)):
        with pytest.raises(MethodNotAllowed):
            verb(method, at, q())


@given(st.binary(max_size=200))
def test_any_query_string_is_read_or_refused(data: bytes) -> None:
    """Bytes of any kind give parameters or an error of ours."""
    try:
        found = query(data)
    except WharfingerError:
        return
    assert all(values for values in found.values.values())


@given(st.dictionaries(st.sampled_from(
    ["resourceVersion", "resourceVersionMatch", "limit", "continue", "labelSelector", "fieldSelector", "watch",
     "timeoutSeconds", "sendInitialEvents", "allowWatchBookmarks", "dryRun", "fieldValidation", "fieldManager", "force",
     "propagationPolicy", "gracePeriodSeconds", "orphanDependents"]), st.text(st.characters(codec="utf-8"), max_size=20)),
    st.booleans())  # fmt: skip
def test_any_parameters_give_options_or_an_error(parameters: dict[str, str], watch: bool) -> None:
    """Every combination of parameters is understood or refused by an error of ours, never by a defect."""
    asked = query(urlencode(parameters).encode())
    for read in (
        lambda: list_options(asked, watch=watch),
        lambda: write_options(asked),
        lambda: write_options(asked, apply=True),
        lambda: delete_options(asked, None),
    ):
        try:
            read()
        except WharfingerError as error:
            assert 400 <= error.status < 500


@given(st.dictionaries(st.sampled_from(["kind", "dryRun", "gracePeriodSeconds", "propagationPolicy", "preconditions",
                                        "orphanDependents"]), JSON))  # fmt: skip
@example({"preconditions": {"uid": 7}})
def test_any_body_of_a_delete_gives_options_or_an_error(given_body: dict[str, Any]) -> None:
    """DeleteOptions with values of any type are understood or refused."""
    try:
        options = delete_options(q(), given_body)
    except WharfingerError as error:
        assert 400 <= error.status < 500
        return
    assert options.grace is None or isinstance(options.grace, int)
    assert options.uid is None or isinstance(options.uid, str)


@given(st.integers(0, 2**62), st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_continue_token_says_what_was_written_in_it(at: int, namespace: str, name: str) -> None:
    """Tokens come back whole."""
    assert read_token(write_token(at, (namespace, name))) == (at, (namespace, name))


@given(st.text())
@example("eyJ2IjoxfQ")
@example("bnVsbA")
@example("W10")
def test_any_other_token_is_refused(text: str) -> None:
    """A text that is no token of ours is malformed, whatever it is."""
    try:
        at, key = read_token(text)
    except Malformed:
        return
    assert read_token(write_token(at, key)) == (at, key)


@given(JSON)
def test_a_json_body_is_read_as_it_was_written(value: Any) -> None:
    """What any JSON writer writes is read as the same value, with nothing reported."""
    assert body.read(json.dumps(value).encode(), "json") == (value, [])
    assert body.read(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), "json") == (value, [])


@given(JSON)
def test_a_yaml_body_is_read_as_it_was_written(value: Any) -> None:
    """JSON's values survive being written as YAML."""
    again, repeated = yamlbody.read(yamlbody.write(value))
    assert again == value and repeated == []


@given(st.binary(max_size=300), st.sampled_from(["json", "yaml", "protobuf"]))
@example(b"k8s\x00", "protobuf")
@example(b'{"a":' * 5000, "json")
@example(b"[" * 100_000, "json")
@example(b"a: &a [x, *a]", "yaml")
@example(b"? [1]\n: 2", "yaml")
@example(b"!!python/object/apply:os.system [true]", "yaml")
def test_any_bytes_are_a_body_or_refused(data: bytes, syntax: Any) -> None:
    """Bytes of any kind give a value or an error of ours, in each syntax."""
    try:
        value, _ = body.read(data, syntax)
    except WharfingerError as error:
        assert error.status in (400, 413)
        return
    json.dumps(value, allow_nan=False)


@given(st.binary(max_size=300))
def test_any_bytes_after_the_mark_are_a_protobuf_message_or_refused(data: bytes) -> None:
    """A damaged message is malformed; a value that is read can be stored."""
    try:
        value = protobody.read(b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12" + bytes([len(data) % 128]) + data)
    except Malformed:
        return
    json.dumps(value)


def test_repeated_names_are_told_by_their_paths() -> None:
    """Each name that occurs twice is reported where it stands; the last value counts."""
    value, repeated = body.read(b'{"a":{"b":1,"b":2},"l":[{"c":1,"c":1}],"a2":0}', "json")
    assert value == {"a": {"b": 2}, "l": [{"c": 1}], "a2": 0}
    assert repeated == ['duplicate field "a.b"', 'duplicate field "l[0].c"']


def test_numbers_beyond_64_bits_become_floats() -> None:
    """An integer that Go could not hold is a float, as in kube-apiserver."""
    assert body.read(b'{"a":99999999999999999999999}', "json")[0] == {"a": 1e23}


def test_a_yaml_bomb_is_refused() -> None:
    """Aliases that unfold without end are counted, not unfolded."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(Malformed, match="nodes"):
        body.read("\n".join(lines).encode(), "yaml")


def test_a_body_over_the_limit_is_too_large() -> None:
    """3 MiB is the most that is read."""
    with pytest.raises(TooLarge):
        body.read(b" " * (body.LIMIT + 1), "json")


@given(st.text(st.characters(codec="ascii"), max_size=60))
@example("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
@example(";;;==,,")
def test_any_accept_header_is_understood_or_refused(text: str) -> None:
    """Every header gives a form or 406; every content type a syntax or 415."""
    for read, refusal in (
        (negotiation.accepted, NotAcceptable),
        (negotiation.body_syntax, UnsupportedMediaType),
        (negotiation.patch_type, UnsupportedMediaType),
        (negotiation.wants_aggregated, NotAcceptable),
    ):
        try:
            read(text)
        except refusal:
            pass


@pytest.mark.parametrize(
    ("accept", "shape", "syntax"),
    [
        ("", "object", "json"),
        ("*/*", "object", "json"),
        ("application/vnd.kubernetes.protobuf,application/json", "object", "json"),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io",
            "table",
            "json",
        ),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "metadata", "json"),
        ("application/json;as=Unknown;g=x;v=v1, application/yaml", "object", "yaml"),
    ],
)
def test_forms_that_clients_ask_for(accept: str, shape: str, syntax: str) -> None:
    """The first form in the header that we have is given."""
    form = negotiation.accepted(accept)
    assert (form.shape, form.syntax) == (shape, syntax)
