"""A proxy before the homeserver that answers in its place, loses its answers, and changes them."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self, TypeAlias
from urllib.parse import urlsplit

_SECONDS: Final = 60
_PASSED_ON: Final = ("Authorization", "Content-Type")


class Answer(NamedTuple):
    """What a client is told."""

    status: int
    body: bytes

    @classmethod
    def of(cls, content: Any, status: int = 200) -> Self:
        """An answer in JSON."""
        return cls(status, json.dumps(content).encode())


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


PassOn: TypeAlias = Callable[[], Answer]
#: What becomes of a request: it may be passed on to the homeserver. None hangs up.
Fault: TypeAlias = Callable[[PassOn], Answer | None]


class HomeserverProxy:
    """Listens on this machine and passes on to one homeserver what no fault is set for."""

    def __init__(self, homeserver: str) -> None:
        self._homeserver = urlsplit(homeserver).netloc
        #: Every request, in order.
        self.asked: Final[list[Request]] = []
        self._faults: list[tuple[str, Fault]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url: Final = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no request any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked_for(self, part: str) -> list[Request]:
        """The requests whose path holds `part`."""
        return [request for request in list(self.asked) if part in request.path]

    @contextmanager
    def fault(self, part: str, fault: Fault) -> Iterator[None]:
        """Let `fault` decide about every request whose path holds `part`."""
        entry = (part, fault)
        self._faults.append(entry)
        try:
            yield
        finally:
            self._faults.remove(entry)

    def answering(self, part: str, answer: Answer | None, passed_on: bool) -> Any:
        """Give this answer, or none; with `passed_on` the homeserver has done its part before."""

        def fault(pass_on: PassOn) -> Answer | None:
            if passed_on:
                pass_on()
            return answer

        return self.fault(part, fault)

    def answer_to(self, request: Request) -> Answer | None:
        """What a client is told, or None."""
        self.asked.append(request)
        for part, fault in self._faults:
            if part in request.path:
                return fault(lambda: self._pass_on(request))
        return self._pass_on(request)

    def _pass_on(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self._homeserver, timeout=_SECONDS)
        try:
            connection.request(request.method, request.path, request.body or None, request.headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: value for name in _PASSED_ON if (value := self.headers.get(name)) is not None}
                answer = proxy.answer_to(Request(self.command, self.path, headers, body))
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = _any  # noqa: N815  # names that the standard library looks for

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    # The client was killed.
                    self.close_connection = True

        return Handler
