"""PostgreSQL killed and frozen while messages are on their way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from homeserver import Homeserver
from homeserver_bed import Bed, met
from homeserver_client import ClientFailed
from homeserver_outages import DEADLINE
from postgres_database import own_database
from postgres_server import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that may be broken."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def fragile(homeserver: Homeserver, tmp_path: Path, server: PostgresServer) -> Iterator[Bed]:
    """A test bed on the server that may be broken."""
    database = own_database(server)
    bed = Bed(homeserver, tmp_path, lambda: f"{database.url(database.new_schema())}&deadline={DEADLINE}")
    yield bed
    bed.close()


def test_killed_and_started_again_while_messages_come(fragile: Bed, server: PostgresServer) -> None:
    talk, alice, bob = met(fragile)
    bob.call("sync_forever")
    for number in range(30):
        if number == 10:
            server.kill()
            in_between = alice.begin("send", room=talk.room, text="in between", rotate=True)
            server.start()
            if said := _unless_unavailable(in_between):
                talk.sent[said] = "in between"
        if said := _unless_unavailable(alice.begin("send", room=talk.room, text=f"word {number}", rotate=True)):
            talk.sent[said] = f"word {number}"
    assert "word 29" in talk.sent.values()
    for ended in [each for each in bob.told if each["event"] == "ended"]:
        assert ended["error"] == "BackendUnavailable"
        bob.call("sync_forever")
    bob.until(lambda told: set(talk.sent) <= {each.get("id") for each in told})
    # A call that failed sent nothing.
    assert Counter(alice.call("history", room=talk.room).values()) == Counter(talk.sent.values())
    assert talk.unreadable(bob) == []
    assert talk.indices_used_twice() == 0


def _unless_unavailable(answer: Future[Any]) -> Any:
    """What a command answers, or None where the database was away beyond the deadline."""
    try:
        return answer.result(timeout=120)
    except ClientFailed as failed:
        if failed.kind != "BackendUnavailable":
            raise
        return None


def test_frozen_beyond_the_deadline_nothing_is_sent_and_nothing_lost(fragile: Bed, server: PostgresServer) -> None:
    talk, alice, bob = met(fragile)
    talk.secrets(alice, "before the freeze")
    with server.frozen():
        with pytest.raises(ClientFailed, match="BackendUnavailable"):
            bob.call("sync")
        with pytest.raises(ClientFailed, match="BackendUnavailable"):
            alice.call("send", room=talk.room, text="lost words", rotate=True)
    bob.call("sync")
    talk.both_directions_work(alice, bob)
    assert talk.unreadable(bob) == []
    assert talk.unreadable(alice) == []
    assert talk.indices_used_twice() == 0


def test_killed_client_and_killed_database_at_once(fragile: Bed, server: PostgresServer) -> None:
    talk, alice, bob = met(fragile)
    talk.secrets(alice, "secret")
    bob.call("arm", point="batch:before")
    bob.dies(bob.begin("sync"))
    server.kill()
    server.start()
    bob = fragile.start(talk.bob)
    for client in (bob, alice, bob):
        client.call("sync")
    assert talk.unreadable(bob) == []
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0
