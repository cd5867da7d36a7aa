"""What is known of an account before it is taken over, and the questions that its owner-to-be asks then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple

from nio.crypto import OlmAccount

from cryptostore.errors import StoreClosed
from cryptostore.records import Account

from .anchor import StoredAnchor
from .saved_login import SavedLogin


class Seen(NamedTuple):
    """What the database holds of an account. A new one has no identity keys."""

    account: Account
    identity_keys: Mapping[str, str] | None = None
    login: SavedLogin | None = None
    anchor: StoredAnchor | None = None


def identity_keys(account: OlmAccount) -> dict[str, str]:
    """The public keys of an account, by the names that the homeserver has for them, without the device id."""
    return {name: str(key) for name, key in account.identity_keys.items()}


#: Called before an account is taken over. Raises if it must not be.
Look = Callable[[Seen], None]


def look_no_further(_seen: Seen) -> None:
    """Take the account over whatever the homeserver says."""


class Question:
    """A coroutine on the event loop, for whose answer a thread waits that opens an account."""

    def __init__(self, ask: Callable[[Seen], Coroutine[Any, Any, None]]) -> None:
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._answer: Future[None] | None = None
        self._is_given_up = False

    def wait(self, seen: Seen) -> None:
        """Ask, in a thread. Raises what the coroutine raises, and StoreClosed if it is given up."""
        try:
            self._start(seen).result()
        except CancelledError:
            raise given_up() from None

    def give_up(self) -> None:
        """Ask nothing more, and let no thread wait."""
        with self._lock:
            self._is_given_up = True
            if self._answer is not None:
                self._answer.cancel()

    def _start(self, seen: Seen) -> Future[None]:
        with self._lock:
            if self._is_given_up:
                raise given_up()
            self._answer = asyncio.run_coroutine_threadsafe(self._ask(seen), self._loop)
            return self._answer


def given_up() -> StoreClosed:
    """What an opening raises whose caller has gone."""
    return StoreClosed("the opening of this account was cancelled")
