"""Two people of whom one deletes what is old."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import pytest

from client_pairs import Person, people, say_in_new_sessions
from cryptostore.nio import Pruning
from cryptostore.nio.client import pruner as pruner_module
from cryptostore.nio.client.pruner import Pruner
from small_homeserver import SmallHomeserver

NO_TIME: Final = timedelta(0)
EVERYTHING: Final = Pruning(older_than=NO_TIME)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner_module, "_PAUSE", 0)


@asynccontextmanager
async def talking(url: str, prune: Pruning, messages: int = 4) -> AsyncIterator[tuple[SmallHomeserver, Person, Person]]:
    """Alice and Bob, who has read her messages, each in a session of its own."""
    async with people(url, prune=prune) as (server, alice, bob):
        await alice.say("first")
        say_in_new_sessions(alice, [f"text {number}" for number in range(messages - 1)])
        await bob.round()
        await bob.client.flush()
        assert len(bob.read) == messages
        yield server, alice, bob


def pruner(person: Person) -> Pruner:
    return person.client._trust.pruner
