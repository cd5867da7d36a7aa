"""A stand-in for a language model's server: it speaks enough of Ollama's API for a bot, and has no model."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final


class _Chat(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Answer `/api/chat` with the last message's own text."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = {"role": "assistant", "content": f"you said {asked['messages'][-1]['content']}"}
        body = json.dumps({"model": asked["model"], "message": said, "done": True}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
        """Write no line for each request."""


class ModelServer:
    """One such server, on this machine only."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Chat)
        self.url: Final = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
