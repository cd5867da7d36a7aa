"""What happens before a request leaves, in which order, without a client or a homeserver."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cryptostore.errors import BackendUnavailable, ConfigurationError, StoreClosed
from cryptostore.nio.client.gate import Gate


class Parts:
    """Notes what the gate asks for."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.asked: list[str] = []
        self.is_open = is_open
        self.is_closed = False
        self.store = SimpleNamespace()
        self.access_token = "token"
        self.away = False
        parts: Any = self
        self.gate = Gate(parts, parts, parts, parts, parts.replace_keys, self.send)

    async def open_restored(self) -> None:
        self.asked.append("open")

    async def confirm(self) -> None:
        self.asked.append("confirm")

    async def replace_keys(self) -> None:
        self.asked.append("replace")

    async def flush_before_sending(self) -> None:
        self.asked.append("flush")
        if self.away:
            raise BackendUnavailable("away")

    async def send_once(self, _data: Any, send: Any) -> Any:
        self.asked.append("once")
        return await send()

    async def send(self, method: str, path: str, data: Any) -> Any:
        self.asked.append(f"{method} {path} {data}")
        return self


def ask(parts: Parts, path: str) -> list[str]:
    asyncio.run(parts.gate.send("GET", path, "body"))
    return parts.asked


@pytest.mark.parametrize(
    ("path", "before"),
    [
        ("/sync?since=s1", ["open", "confirm", "replace", "flush"]),
        ("/rooms/!r:s/send/m.room.message/1", ["open", "confirm", "replace", "flush"]),
        # What keys are replaced with.
        ("/keys/upload", ["once", "open", "confirm", "flush"]),
        ("/keys/claim", ["open", "confirm", "flush"]),
        # Asked to confirm the identity; neither depends on a key.
        ("/keys/query", ["open", "flush"]),
        ("/account/whoami?x=1", ["open", "flush"]),
        # Without an account.
        ("/login", ["flush"]),
        ("/versions", ["flush"]),
    ],
)
def test_what_a_request_depends_on_comes_first(path: str, before: list[str]) -> None:
    assert ask(Parts(), path) == [*before, f"GET {path} body"]


def test_nothing_leaves_when_the_flush_fails() -> None:
    parts = Parts()
    parts.away = True
    with pytest.raises(BackendUnavailable):
        ask(parts, "/sync")
    assert parts.asked == ["open", "confirm", "replace", "flush"]


def test_nothing_leaves_a_client_that_was_closed() -> None:
    parts = Parts()
    parts.is_closed = True
    with pytest.raises(StoreClosed):
        ask(parts, "/sync")
    assert not any(entry.startswith("GET") for entry in parts.asked)


def test_nothing_leaves_when_another_account_was_opened_meanwhile() -> None:
    class Swapped(Parts):
        async def flush_before_sending(self) -> None:
            self.store = SimpleNamespace(other=True)

    with pytest.raises(StoreClosed):
        ask(Swapped(), "/sync")


def test_nothing_leaves_in_the_name_of_a_device_without_its_store() -> None:
    with pytest.raises(ConfigurationError, match="login_or_restore"):
        ask(Parts(is_open=False), "/sync")


def test_a_login_needs_no_store() -> None:
    assert ask(Parts(is_open=False), "/login") == ["GET /login body"]
