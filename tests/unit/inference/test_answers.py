"""Answers on their way out: the leak suite over every channel, cut and framing, and servers that misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.errors import Unavailable
from wharfinger.inference.answers import EventSplitter, Stream, Usage, filter_whole, read_json, write_json
from wharfinger.inference.scanner import Scanner, StreamFilter

SCAN = Scanner(["pii", "secrets"])
SECRET = "gh" + "p_" + "Zx81kQ" * 6
MAIL = "ada@example.org"
CHANNELS: dict[str, Any] = {
    "content": lambda t: {"delta": {"content": t}},
    "reasoning": lambda t: {"delta": {"reasoning_content": t}},
    "refusal": lambda t: {"delta": {"refusal": t}},
    "arguments": lambda t: {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": t}}]}},
    "second call": lambda t: {"delta": {"tool_calls": [{"index": 1, "function": {"arguments": t}}]}},
    "function": lambda t: {"delta": {"function_call": {"arguments": t}}},
    "text": lambda t: {"text": t},
    "unknown": lambda t: {"delta": {"thoughts": {"summary": t}}},
}
"""Where a text may stand in a choice."""
FRAMINGS = {
    "LF": lambda data: b"data: " + data + b"\n\n",
    "CRLF": lambda data: b"data: " + data + b"\r\n\r\n",
    "CR": lambda data: b"data: " + data + b"\r\r",
    "comments": lambda data: b": keep alive\nevent: message\ndata:" + data + b"\nid: 7\n\n",
    "many data lines": lambda data: b"data: " + data[:1] + b"\ndata: " + data[1:] + b"\n\n",
}  # fmt: skip


def joined(sent: bytes) -> dict[tuple[Any, ...], str]:
    """Return what a client joins of the events sent: every text by choice and place."""
    found: dict[tuple[Any, ...], str] = {}

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, str) and path[-1] not in ("finish_reason", "role", "id"):
            found[path] = found.get(path, "") + value
        elif isinstance(value, dict):
            for key, below in value.items():
                walk(below, (*path, key))
        elif isinstance(value, list):
            for below in value:
                walk(below, (*path, below.get("index", 0) if isinstance(below, dict) else 0))

    for data in EventSplitter().feed(sent):
        if data != b"[DONE]":
            for choice in json.loads(data)["choices"]:
                walk({k: v for k, v in choice.items() if k != "index"}, (choice["index"],))
    return found


def run(chunks: Iterable[bytes], *, guarded: bool = True, most: int = 10**6, **denied: Any) -> tuple[bytes, Stream]:
    """Return what goes out of an answer that comes in `chunks`."""
    stream = Stream((lambda: StreamFilter(SCAN, **denied)) if guarded else None, Usage(), wants_usage=True, most=most)
    splitter = EventSplitter()
    sent = b"".join(stream.take(data) for chunk in chunks for data in splitter.feed(chunk))
    sent += b"".join(stream.take(data) for data in splitter.finish())
    return sent + stream.finish(), stream


def event(choice: dict[str, Any], index: int = 0, end: str | None = None) -> bytes:
    """Return the data of one event."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [{"index": index, "finish_reason": end, **choice}]}).encode()


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("secret", [SECRET, MAIL, "4111 1111 1111 1111"])
def test_nothing_leaks_from_any_channel_at_any_cut(channel: str, secret: str) -> None:
    """A finding cut anywhere over two events, in the first choice and in the second, never comes out; all else does."""
    make = CHANNELS[channel]
    for index in (0, 1):
        for cut in range(len(secret) + 1):
            pieces = ["Take ", secret[:cut], secret[cut:], " now"]
            sent, _ = run(FRAMINGS["LF"](event(make(piece), index)) for piece in pieces)
            (told,) = joined(sent).values()
            assert secret not in told
            assert told.startswith("Take [")
            assert told.endswith("] now")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("ended", [True, False], ids=["end mark", "no end mark"])
def test_nothing_leaks_in_any_framing_in_any_chunks(framing: str, ended: bool) -> None:
    """However events are written and the stream is cut into chunks, the same comes out."""
    frame = FRAMINGS[framing]
    pieces = ["Take ", SECRET[:9], SECRET[9:], " or ", MAIL]
    wire = b"".join(frame(event(CHANNELS["content"](piece))) for piece in pieces)
    wire += FRAMINGS["LF"](b"[DONE]") if ended else b""
    whole, _ = run([wire])
    assert joined(whole) == {(0, "delta", "content"): "Take [github] or [email]"}
    assert whole.endswith(b"data: [DONE]\n\n")
    for cut in range(1, len(wire), 7):
        assert run([wire[:cut], wire[cut:]])[0] == whole
    assert run(bytes([byte]) for byte in wire)[0] == whole


def test_two_channels_of_one_event_do_not_mix() -> None:
    """Parts of a secret in two channels are two texts; a secret in one of them is masked there alone."""
    both = [
        event({"delta": {"content": SECRET[:20], "reasoning_content": "The "}}),
        event({"delta": {"content": SECRET[20:], "reasoning_content": "harbour."}}, end="stop"),
    ]
    sent, _ = run(map(FRAMINGS["LF"], both))
    assert joined(sent) == {(0, "delta", "content"): "[github]", (0, "delta", "reasoning_content"): "The harbour."}


def test_what_is_held_back_goes_out_before_the_finish_reason() -> None:
    """A client that stops reading at the finish reason has the whole text."""
    events = [event(CHANNELS["content"]("ends in a-word")), event({"delta": {}}, end="stop")]
    sent, _ = run(map(FRAMINGS["LF"], events))
    until, _, _ = sent.partition(b'"finish_reason":"stop"')
    assert "".join(joined(until.rpartition(b"data:")[0]).values()) == "ends in a-word"


def test_what_repeats_the_text_is_left_out() -> None:
    """Log probabilities, token numbers and fields the API does not know pass without a guard only."""
    data = json.loads(event({"delta": {"content": "x"}, "logprobs": {"content": []}, "token_ids": [1]}))
    data["prompt_logprobs"] = [SECRET]
    wire = FRAMINGS["LF"](json.dumps(data).encode())
    guarded, free = run([wire])[0], run([wire], guarded=False)[0]
    for name in (b"logprobs", b"token_ids", b"prompt_logprobs"):
        assert name not in guarded
        assert name in free


def test_a_denied_finding_ends_the_answer() -> None:
    """The text up to it goes out, its choice ends as filtered, and nothing that follows is sent."""
    pieces = ["Take ", SECRET[:9], SECRET[9:], " and more"]
    sent, stream = run((FRAMINGS["LF"](event(CHANNELS["content"](p))) for p in pieces), denied=["secrets"])
    assert joined(sent) == {(0, "delta", "content"): "Take "}
    assert b'"finish_reason":"content_filter"' in sent
    assert stream.told.stopped == "github"
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(pieces)}}]}
    told = filter_whole(body, lambda: StreamFilter(SCAN, ["secrets"]), Usage())
    assert body["choices"][0]["message"]["content"] == "Take "
    assert (body["choices"][0]["finish_reason"], told.stopped) == ("content_filter", "github")


def test_a_server_that_goes_on_beyond_its_bound_is_stopped() -> None:
    """More than was allowed ends the answer by length, in many pieces or in few, so that no account runs away."""
    sent, stream = run((FRAMINGS["LF"](event(CHANNELS["content"](f"wo{n} "))) for n in range(50)), most=5)
    assert stream.done
    assert joined(sent)[0, "delta", "content"] == "".join(f"wo{n} " for n in range(10))
    assert b'"finish_reason":"length"' in sent
    sent, stream = run((FRAMINGS["LF"](event(CHANNELS["content"]("word " * 100))) for _ in range(50)), most=20)
    assert stream.done
    assert len(sent) < 3000


def test_a_server_that_sends_single_characters_is_not_cut() -> None:
    """Many small pieces are not many tokens."""
    text = "The keeper weighs every crate of tea. "
    sent, stream = run((FRAMINGS["LF"](event(CHANNELS["content"](c))) for c in text), most=12)
    assert not stream.done
    assert joined(sent)[0, "delta", "content"] == text


@pytest.mark.parametrize(
    "usage",
    [
        {"completion_tokens": -5},
        {"completion_tokens": "9"},
        {"completion_tokens": 10**12},
        {"prompt_tokens": "x", "completion_tokens": 1},
        7,
        [1],
        {"completion_tokens": True},
    ],
)
def test_usage_that_cannot_be_is_counted_instead(usage: Any) -> None:
    """A server's nonsense, or its zero for a long answer, does not make an answer free."""
    told = Usage()
    filter_whole({"choices": [{"message": {"content": "word " * 100}}], "usage": usage}, None, told)
    assert told.tokens(30) == (30, 100)
    lying = Usage()
    filter_whole({"choices": [{"message": {"content": "word " * 100}}], "usage": {"completion_tokens": 0}}, None, lying)
    assert lying.tokens(30) == (0, 31)


@pytest.mark.parametrize(
    "body", [{}, {"choices": None}, {"choices": [1]}, {"choices": {"a": 1}}, {"error": {"message": "no"}}]
)
def test_what_is_no_answer_is_refused(body: dict[str, Any]) -> None:
    """An object without choices is an error of the server, guarded or not."""
    for make in (None, lambda: StreamFilter(SCAN)):
        with pytest.raises(Unavailable):
            filter_whole(dict(body), make, Usage())


@pytest.mark.parametrize(
    "data",
    [b"nothing", b"[1]", b'{"error":{"message":"out of memory"}}', b'{"choices":[1]}', b'{"choices":7}', b"{" * 5000],
)
def test_what_is_no_event_breaks_the_answer_off(data: bytes) -> None:
    """A server's error, or what is no event of the API, is never passed on as if it were text."""
    with pytest.raises(Unavailable):
        run([b"data: " + data + b"\n\n"])


def test_an_event_without_end_is_refused() -> None:
    """Neither one long line nor many lines without a blank one fill the memory."""
    for chunk in (b"data: " + b"a" * 1000, b"data: a\n" * 200):
        splitter = EventSplitter(limit=10_000)
        with pytest.raises(Unavailable):
            for _ in range(100):
                list(splitter.feed(chunk))


def test_whole_and_streamed_answers_are_filtered_alike() -> None:
    """Every channel of a whole answer becomes what its stream would have become."""
    text = f"Take {SECRET} or {MAIL}."
    message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning_content": text, "refusal": None}
    message["tool_calls"] = [{"id": "1", "type": "function", "function": {"name": "send", "arguments": text}}]
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 30}}
    usage = Usage()
    filter_whole(body, lambda: StreamFilter(SCAN), usage)
    assert message["content"] == message["reasoning_content"] == "Take [github] or [email]."
    assert message["tool_calls"][0]["function"] == {"name": "send", "arguments": "Take [github] or [email]."}
    assert usage.tokens(9) == (0, 30)


LINES = [b"data: {}", b"data:", b"\r", b"\n", b"\r\n", b": c", b"data: [DONE]", b"id"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(LINES) | st.binary(max_size=4), max_size=20), st.integers(1, 9))
def test_a_stream_of_events_is_the_same_in_any_chunks(pieces: list[bytes], size: int) -> None:
    """Any bytes give the same events however they are cut."""
    wire = b"".join(pieces)
    whole = EventSplitter()
    wanted = [*whole.feed(wire), *whole.finish()]
    splitter = EventSplitter()
    got = [data for at in range(0, len(wire), size) for data in splitter.feed(wire[at : at + size])]
    assert [*got, *splitter.finish()] == wanted


@given(st.text())
def test_any_text_is_written_and_read_back(text: str) -> None:
    """JSON of any text, lone halves of pairs included, reads back as it was."""
    assert read_json(write_json({"t": text + "\ud83d"}), "it") == {"t": text + "\ud83d"}
