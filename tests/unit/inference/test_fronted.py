"""Another model server behind the runtime's door: it gets what passed, and answers as it came."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.inference.test_runtime import Replica, grant
from wharfinger.core.errors import Unavailable
from wharfinger.inference.runtime.fronted import Place, Server, place

SERVER = """
import json, os, socket, socketserver, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200, b"{}", "application/json")
    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer " + os.environ["WHARF_SERVER_KEY"]:
            return self.answer(401, b"{}", "application/json")
        if b'"stream": true' in asked:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for data in (b'{"choices":[]}', b"[DONE]"):
                self.wfile.write(b"data: " + data + b"\\n\\n")
            self.close_connection = True
            return
        told = {"asked": json.loads(asked), "model": os.environ["WHARF_MODEL_PATH"], "words": sys.argv[1:],
                "identity": os.environ.get("SPIFFE_ENDPOINT_SOCKET")}
        self.answer(200, json.dumps(told).encode(), "application/json")
    def answer(self, status, data, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *args):
        pass

class Unix(ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "unix", 0
    def get_request(self):
        made, _ = self.socket.accept()
        return made, ("unix", 0)

where = sys.argv[1]
(Unix(where, Handler) if where.startswith("/") else ThreadingHTTPServer((where, int(sys.argv[2])), Handler)).serve_forever()
"""
COMMANDS = {
    "a port": [sys.executable, "-c", SERVER, "{host}", "{port}", "--model={model}/w"],
    "a socket": [sys.executable, "-c", SERVER, "{socket}", "--model={model}/w"],
}


@pytest.fixture(params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Return a server that listens on a port, and one that listens on a socket."""
    made = Server(
        place(tmp_path, "prose", tmp_path, "127.0.0.1"),
        COMMANDS[request.param],
        {"SPIFFE_ENDPOINT_SOCKET": "unix:///x", "PATH": "/usr/bin:/bin"},
    )
    yield made
    made.stop()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """Return a running replica."""
    made = Replica(tmp_path / "journal")
    yield made
    made.close()


def front(replica: Replica, server: Server) -> None:
    """Put the server behind the replica's door."""
    asyncio.run_coroutine_threadsafe(server.ready(), replica.loop).result(60)
    replica.runtime.front(server.answer)


def test_what_passes_the_door_reaches_the_server_as_it_came(replica: Replica, server: Server, tmp_path: Path) -> None:
    """Body, stream and cache salt go through; the server was told where the verified files are, not who we are."""
    front(replica, server)
    told = json.loads(replica.ask(cache_salt="tenants").read())
    assert told["asked"]["messages"] == [{"role": "user", "content": "the wharfinger"}]
    assert told["asked"]["cache_salt"] == "tenants"
    assert (told["model"], told["words"][-1], told["identity"]) == (str(tmp_path), f"--model={tmp_path}/w", None)
    assert replica.ask(stream=True).read() == b'data: {"choices":[]}\n\ndata: [DONE]\n\n'


def test_what_does_not_pass_never_reaches_it(replica: Replica, server: Server) -> None:
    """A caller without a grant is refused by the replica."""
    front(replica, server)
    replica.grants = [grant(callers=[])]
    assert replica.ask().status == 403


def test_a_server_that_ends_is_told_so(tmp_path: Path) -> None:
    """One that exits, and one that cannot be started, are errors with the reason."""
    where = place(tmp_path, "prose", tmp_path, "127.0.0.1")
    ending = Server(where, [sys.executable, "-c", "raise SystemExit(3)"], {})
    with pytest.raises(Unavailable, match="exited with 3"):
        asyncio.run(ending.ready())
    with pytest.raises(Unavailable, match="No such file"):
        Server(where, ["/no/such/server"], {})


def test_a_command_is_told_everything(tmp_path: Path) -> None:
    """Each mark in each word is replaced, and nothing else is."""
    where = Place(tmp_path / "m", "prose", tmp_path / "s", "127.64.0.2", 9, "k")
    said = where.command(["serve", "{model}", "--at={host}:{port}", "{socket}", "{name}-{key}", "{other}"])
    assert said == ["serve", f"{tmp_path}/m", "--at=127.64.0.2:9", f"{tmp_path}/s", "prose-k", "{other}"]
