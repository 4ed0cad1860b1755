"""Requests in the OpenAI form: any bytes are an ask or an error of ours, and no text for the model goes unseen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.errors import Invalid, Malformed, Throttled, TooLarge, WharfingerError
from wharfinger.inference.answers import write_json
from wharfinger.inference.chat import MAX_MESSAGES, error_object, parse_ask

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SAY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def ask(path: str = CHAT, **body: Any) -> Any:
    """Return the ask in a body."""
    return parse_ask(json.dumps({**SAY, **body} if path == CHAT else {"model": "m", **body}).encode(), path)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'"x"', b"null", b"{" * 3000, b'{"model":1}', b'{"model":"m"}', b'{"model":"m","messages":[]}',
        b'{"model":"m","messages":[1]}', b'{"model":"m","messages":[{"role":"user","content":1}]}', b'{"model":"m","model":"n","messages":[]}',
        b'{"model":"m","messages":[{"role":"user","content":[1]}]}', b"\xff\xfe", b'{"a":NaN}', b'{"model":"m","messages":{"role":"user"}}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_so(body: bytes) -> None:
    """Each is 400, 413 or 422, with an error object that the clients read."""
    with pytest.raises((Malformed, Invalid, TooLarge)) as refused:
        parse_ask(body, CHAT)
    assert json.loads(error_object(refused.value))["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "field",
    [
        {"stream": "yes"}, {"max_tokens": -1}, {"max_tokens": 1.5}, {"max_tokens": True}, {"max_completion_tokens": "9"}, {"max_tokens": 0}, {"n": 0}, {"n": 17},
        {"n": True}, {"n": "2"}, {"model": ""}, {"messages": None},
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(field: dict[str, Any]) -> None:
    """The message begins with the field's name, `max_tokens` for its newer name too."""
    (name,) = field
    with pytest.raises(Invalid, match="max_tokens" if name == "max_completion_tokens" else name):
        ask(**field)


def test_the_bound_counts_every_answer_that_is_asked_for() -> None:
    """`n`, a list of prompts and both names of the bound are what is reserved; `best_of` is not passed on."""
    assert ask(max_tokens=10, n=3).max_tokens == 30
    assert ask(TEXT, prompt=["a", "b"], max_tokens=10, n=2).max_tokens == 40
    both = ask(max_tokens=9, max_completion_tokens=5)
    assert (both.max_tokens, both.body["max_completion_tokens"], "max_tokens" in both.body) == (5, 5, False)
    assert "best_of" not in ask(TEXT, prompt="a", best_of=20).body
    with pytest.raises(Invalid, match="n"):
        ask(TEXT, prompt=["a"] * 10, n=16)
    with pytest.raises(Invalid, match="at most 20"):
        ask(max_tokens=21).bound(20)


def test_what_is_not_the_callers_to_say_is_not_passed_on() -> None:
    """Cache salts, priorities and the server's own template are taken out."""
    told = ask(cache_salt="mine", priority=9, chat_template="{{ evil }}", kv_transfer_params={})
    assert not {"cache_salt", "priority", "chat_template", "kv_transfer_params"} & told.body.keys()


SECRET = "the-secret-text"
PLACES: dict[str, dict[str, Any]] = {
    "content": {"messages": [{"role": "user", "content": SECRET}]},
    "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]},
    "name": {"messages": [{"role": "user", "name": SECRET, "content": "x"}]},
    "call": {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": SECRET}}]}]},
    "tool": {"tools": [{"type": "function", "function": {"name": "f", "description": SECRET}}]},
    "schema": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"enum": [SECRET]}}}}}]},
    "format": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"description": SECRET}}}},
    "stop": {"stop": [SECRET]},
    "prediction": {"prediction": {"type": "content", "content": SECRET}},
    "user": {"user": SECRET},
    "unknown": {"documents": [{"body": {"deep": [SECRET]}}]},
    "link": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"https://x.example/{SECRET}"}}]}]},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_text_for_the_model_goes_unseen(place: str) -> None:
    """Wherever a request may carry text, the guards see it and may change it."""
    told = ask(**PLACES[place])
    assert any(SECRET in text for text in told.texts())
    told.rewrite(lambda text: text.replace(SECRET, "[x]"))
    assert SECRET not in json.dumps(told.body)


def test_an_images_bytes_are_no_text() -> None:
    """Data in a URL is neither scanned nor changed nor counted."""
    url = "data:image/png;base64," + "A" * 4000
    told = ask(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert list(told.texts()) == []
    assert told.estimate() == 0


def test_very_many_messages_are_refused() -> None:
    """More messages than anybody means are an error, not work."""
    with pytest.raises(Invalid, match=f"at most {MAX_MESSAGES}"):
        ask(messages=[{"role": "user", "content": ""}] * (MAX_MESSAGES + 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["model", "messages", "prompt", "stream", "max_tokens", "n", "stop", "tools", "stream_options"])
bodies = st.dictionaries(names | st.text(max_size=5), json_values, max_size=6)


@settings(max_examples=400, deadline=None)
@given(bodies, st.sampled_from([CHAT, TEXT]), st.booleans())
def test_any_object_is_an_ask_or_an_error_of_ours(body: dict[str, Any], path: str, good: bool) -> None:
    """Whatever fields hold, nothing else is raised, and what is accepted can be counted, changed and sent on."""
    if good:
        body = {**body, **SAY, "prompt": "hello"}
    try:
        told = parse_ask(json.dumps(body).encode(), path)
    except WharfingerError:
        return
    assert told.max_tokens >= 1
    assert told.estimate() >= 0
    told.rewrite(str.upper)
    write_json(told.body)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_error_of_ours(data: bytes) -> None:
    """No byte string makes anything else than an error of the family."""
    with pytest.raises(WharfingerError):
        parse_ask(data, CHAT)


def test_errors_have_the_form_that_clients_read() -> None:
    """429 carries its own code; the hint is part of the message."""
    told = json.loads(error_object(Throttled("too much", retry_after=3, hint="wait")))["error"]
    assert told == {
        "message": "too much (wait)",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
