"""A model server that is none of ours: speaks the OpenAI API over plain HTTP and says what it should not.

Whatever it is asked, it streams somebody's contact details, a few characters a chunk, as a careless model may. The
story puts it behind the gateway as an external endpoint, to show what the caller gets to see of them.
"""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

PORT: Final = 8000
SAID: Final = "Sure. Write to jane.roe@example.com, or charge her card 4111 1111 1111 1111 if she does not answer."
"""An address of a reserved domain and a card number that is only good for tests."""
_CHUNK: Final = 3


class Handler(BaseHTTPRequestHandler):
    """Answers every POST with the same stream."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a chat completion."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for start in range(0, len(SAID), _CHUNK):
            self._say({"delta": {"content": SAID[start : start + _CHUNK]}, "finish_reason": None})
        self._say({"delta": {}, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _say(self, choice: dict[str, object]) -> None:
        event = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "parrot"}
        self.wfile.write(b"data: " + json.dumps({**event, "choices": [{"index": 0, **choice}]}).encode() + b"\n\n")
        self.wfile.flush()


def main() -> None:
    """Serve on the pod's address."""
    ThreadingHTTPServer((os.environ.get("WHARF_POD_IP", "127.0.0.1"), PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
