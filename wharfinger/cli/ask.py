"""`wharf ask`: one question to a served model through the gateway, as a person of a tenant or with an API key."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from wharfinger.cli.options import output, show_json, state_dir
from wharfinger.core.errors import Invalid, Unavailable, excerpt

_TIMEOUT_SECONDS: Final = 120.0


@dataclass(slots=True)
class Reply:
    """What came back. `cut` says that a stream ended before its end; times are in seconds from the request on."""

    status: int
    decision: str = ""
    text: str = ""
    error: str = ""
    code: str = ""
    retry_after: str = ""
    cut: bool = False
    first: float | None = None
    last: float = 0.0
    pieces: int = 0
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the model answered to the end."""
        return self.status == 200 and not self.cut

    def record(self) -> dict[str, Any]:
        """Return it for `-o json`; times in milliseconds."""
        rate = self.pieces / (self.last - self.first) if self.first is not None and self.last > self.first else None
        return {
            "ok": self.ok,
            "status": self.status,
            "decision": self.decision,
            "text": self.text,
            "error": self.error,
            "code": self.code,
            "retryAfter": self.retry_after,
            "cut": self.cut,
            "ttftMilliseconds": None if self.first is None else round(self.first * 1000, 1),
            "tokensPerSecond": None if rate is None else round(rate, 1),
            "usage": self.usage,
        }


@click.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--as", "person", default="", metavar="TENANT/USER", help="Ask as this person, with a JWT-SVID.")
@click.option("--key", default="", envvar="WHARF_API_KEY", help="Ask with this API key.")
@click.option("--max-tokens", default=128, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--stream/--no-stream", default=True, show_default=True, help="Show the answer as it comes.")
@output("json")
@state_dir
def ask(
    model: str,
    prompt: str,
    person: str,
    key: str,
    max_tokens: int,
    stream: bool,
    output: str | None,
    state_dir: Path,
) -> None:
    """Ask MODEL (NAMESPACE/SERVICE) something. Exits 1 when the gateway says no."""
    if bool(person) == bool(key):
        raise Invalid("expected one of --as TENANT/USER and --key KEY")
    reply = question(state_dir, model, prompt, key or token_of(state_dir, person), max_tokens, stream, output != "json")
    if output == "json":
        show_json(reply.record())
    else:
        if reply.text:
            click.echo("" if stream else reply.text)
        if reply.decision:
            click.echo(f"decision {reply.decision}", err=True)
        if not reply.ok:
            click.echo(f"error: {reply.error or 'the stream was cut'}", err=True)
    if not reply.ok:
        raise click.exceptions.Exit(1 if reply.status in (200, 400, 401, 403, 404, 429) else 2)


def token_of(directory: Path, person: str, audience: str = "") -> str:
    """Return a JWT-SVID of `person`, written TENANT/USER, for the SPIFFE ID `audience`, by default the gateway's.

    Raises `Invalid` and what the issuer says.
    """
    from wharfinger.bootstrap.operations import admin, request
    from wharfinger.bootstrap.state import State

    tenant, slash, user = person.partition("/")
    if not slash or not tenant or not user:
        raise Invalid(f"expected --as TENANT/USER, got {excerpt(person)}")
    domain = admin(State(directory)).material().svid.id.trust_domain
    asked = {"tenant": tenant, "user": user, "audience": audience or f"spiffe://{domain}/wharfinger/gateway"}
    return str(json.loads(request(directory, "issuer", "POST", "/v1/tokens", asked))["token"])


def question(
    directory: Path, model: str, prompt: str, bearer: str, max_tokens: int, stream: bool, show: bool = False
) -> Reply:
    """Ask the gateway; `show` writes the pieces to stdout as they come. Raises `Unavailable` when it is not there."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": stream,
        "temperature": 0.3,
    }
    connection = _connect(directory)
    began = time.monotonic()
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        reply = Reply(answer.status, answer.getheader("x-wharf-decision") or "")
        if answer.status != 200:
            _read_error(answer, reply)
        elif stream:
            _read_stream(answer, reply, began, show=show)
        else:
            told = json.loads(answer.read())
            reply.text = told["choices"][0]["message"]["content"]
            reply.usage = told.get("usage") or {}
        reply.last = time.monotonic() - began
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"gateway: {error or type(error).__name__}", hint="wharf status shows what runs") from error
    finally:
        connection.close()
    return reply


def _connect(directory: Path) -> http.client.HTTPSConnection:
    """Return a connection to the gateway without a client certificate, its own checked against the platform's CA."""
    from wharfinger.bootstrap.operations import port_of
    from wharfinger.bootstrap.state import State
    from wharfinger.cluster.endpoint import credentials

    state = State(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=credentials(state.kubeconfig).authorities.decode("ascii"))
    return http.client.HTTPSConnection(
        "127.0.0.1", port_of(state, "gateway"), timeout=_TIMEOUT_SECONDS, context=context
    )


def _read_error(answer: http.client.HTTPResponse, reply: Reply) -> None:
    reply.retry_after = answer.getheader("Retry-After") or ""
    told = answer.read()
    try:
        error = json.loads(told)["error"]
        reply.error, reply.code = str(error.get("message", "")), str(error.get("code") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        reply.error = excerpt(told[:200].decode("utf-8", "replace"))


def _read_stream(answer: http.client.HTTPResponse, reply: Reply, began: float, *, show: bool) -> None:
    reply.cut = True
    try:
        for data in _events(answer):
            if data == "[DONE]":
                reply.cut = False
                return
            told = json.loads(data)
            if "error" in told:
                reply.error = str((told["error"] or {}).get("message", ""))
                return
            reply.usage = told.get("usage") or reply.usage
            for choice in told.get("choices") or ():
                piece = (choice.get("delta") or {}).get("content") or ""
                if piece:
                    reply.first = time.monotonic() - began if reply.first is None else reply.first
                    reply.pieces += 1
                    reply.text += piece
                    if show:
                        click.echo(piece, nl=False)
    except (OSError, http.client.HTTPException) as error:
        reply.error = reply.error or f"the stream broke: {type(error).__name__}"


def _events(answer: http.client.HTTPResponse) -> Iterator[str]:
    """Yield the data of each server-sent event."""
    while line := answer.readline():
        if line.startswith(b"data:"):
            yield line[5:].strip().decode("utf-8", "replace")
