"""A database that is away, full or read-only under a client: nothing is sent that is not durable, and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeserver import Homeserver
from homeserver_bed import Bed, Talk, met
from homeserver_client import Client, ClientFailed
from homeserver_outages import Outages, PostgresOutages, SqliteOutages

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(params=["sqlite", "postgresql"])
def outages(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outages]:
    """Databases that may be broken, of each of our durable backends."""
    outages = SqliteOutages(tmp_path) if request.param == "sqlite" else PostgresOutages()
    yield outages
    outages.close()


@pytest.fixture
def fragile(homeserver: Homeserver, tmp_path: Path, outages: Outages) -> Iterator[Bed]:
    """A test bed on databases that may be broken."""
    bed = Bed(homeserver, tmp_path, outages.new_url)
    yield bed
    bed.close()


def test_away_beyond_the_deadline_nothing_is_sent_and_nothing_lost(fragile: Bed, outages: Outages) -> None:
    talk, alice, bob = met(fragile)
    talk.say_all(alice, "one", "two", "three", rotate=True)
    with outages.away():
        with pytest.raises(ClientFailed, match="BackendUnavailable"):
            bob.call("sync")
        # A first message in a new session: no room key may be shared, and the session must not count as shared.
        for _ in range(2):
            with pytest.raises(ClientFailed, match="BackendUnavailable"):
                alice.call("send", room=talk.room, text="lost words", rotate=True)
    assert "lost words" not in alice.call("history", room=talk.room).values()
    bob.call("sync")
    _all_is_well(talk, alice, bob)


def test_a_claim_that_the_outage_stopped_is_made_later(fragile: Bed, outages: Outages) -> None:
    talk, alice, bob = met(fragile)
    # A device that Alice has no Olm session with.
    carol = fragile.start_another(talk.bob, bob)
    carol.call("sync")
    alice.call("sync")
    with outages.away(), pytest.raises(ClientFailed, match="BackendUnavailable"):
        alice.call("send", room=talk.room, text="lost words", rotate=True)
    said = talk.say(alice, "for the new device, too")
    for client in (bob, carol):
        client.call("sync")
        assert client.call("history", room=talk.room)[said] == "for the new device, too"
    assert talk.indices_used_twice() == 0


def test_away_at_the_start(fragile: Bed, outages: Outages) -> None:
    talk, alice, bob = met(fragile)
    bob.kill()
    talk.say_all(alice, "one", "two", "three", rotate=True)
    with outages.away():
        bob = fragile.spawn(talk.bob)
        with pytest.raises(ClientFailed, match="BackendUnavailable"):
            bob.call("start")
    bob.call("start")
    bob.call("sync")
    assert {"one", "two", "three"} <= set(bob.texts().values())
    _all_is_well(talk, alice, bob)


@pytest.mark.parametrize("sync", [False, True], ids=["sends", "syncs"])
def test_a_callback_meets_the_outage_and_the_sync_comes_again(fragile: Bed, outages: Outages, sync: bool) -> None:
    talk, alice, bob = met(fragile)
    questions = _ask(talk, alice)
    # A sync in a callback would say that what is not handled yet was received.
    bob.call("answer", derived=True, wait=True, sync=sync)
    syncing = bob.begin("sync")
    bob.until(lambda told: any(each["event"] == "asked" for each in told))
    with outages.away():
        bob.call("go_on")
        with pytest.raises(ClientFailed, match="LocalProtocolError" if sync else "BackendUnavailable"):
            syncing.result(timeout=120)
    if sync:
        bob = _started_again(fragile, talk, bob)
    bob.call("sync")
    _each_is_answered_once(talk, alice, bob, questions)


def test_a_sync_is_cancelled_in_the_outage_and_comes_again(fragile: Bed, outages: Outages) -> None:
    talk, alice, bob = met(fragile)
    questions = _ask(talk, alice)
    bob.call("answer", derived=True, wait=True)
    syncing = bob.begin("sync")
    bob.until(lambda told: any(each["event"] == "asked" for each in told))
    with outages.away():
        bob.call("cancel_sync")
        with pytest.raises(ClientFailed, match="CancelledError"):
            syncing.result(timeout=120)
    bob.call("go_on")
    bob.call("sync")
    _each_is_answered_once(talk, alice, bob, questions)


def test_killed_after_a_sync_that_met_the_outage(fragile: Bed, outages: Outages) -> None:
    talk, alice, bob = met(fragile)
    questions = _ask(talk, alice)
    with outages.away(), pytest.raises(ClientFailed, match="BackendUnavailable"):
        bob.call("sync")
    bob = _started_again(fragile, talk, bob)
    bob.call("sync")
    _each_is_answered_once(talk, alice, bob, questions)


def test_full(fragile: Bed, outages: Outages) -> None:
    talk, alice, bob = met(fragile)
    bob.call("answer", derived=True)
    # More than fits into the room that pages and files still have.
    questions = _ask(talk, alice, 60)
    with outages.full(bob):
        for _ in range(2):
            with pytest.raises(ClientFailed, match="StorageFull"):
                bob.call("sync")
    assert bob.call("statistics")["failed_flushes"] >= 2
    bob.call("sync")
    _each_is_answered_once(talk, alice, bob, questions)


@pytest.mark.parametrize("outages", ["postgresql"], indirect=True)
def test_read_only(fragile: Bed, outages: PostgresOutages) -> None:
    talk, alice, bob = met(fragile)
    questions = _ask(talk, alice)
    bob.call("answer", derived=True)
    with outages.read_only():
        with pytest.raises(ClientFailed, match="BackendUnavailable"):
            bob.call("sync")
        with pytest.raises(ClientFailed, match="BackendUnavailable"):
            alice.call("send", room=talk.room, text="lost words", rotate=True)
    assert "lost words" not in alice.call("history", room=talk.room).values()
    bob.call("sync")
    _each_is_answered_once(talk, alice, bob, questions)


def _ask(talk: Talk, alice: Client, number: int = 3) -> list[str]:
    """Messages, each with a room key of its own; their event ids."""
    texts = [f"question {each}" for each in range(number)]
    talk.say_all(alice, *texts, rotate=True)
    return [event_id for event_id, text in talk.sent.items() if text in texts]


def _started_again(bed: Bed, talk: Talk, bob: Client) -> Client:
    bob.kill()
    bob = bed.start(talk.bob)
    bob.call("answer", derived=True)
    return bob


def _each_is_answered_once(talk: Talk, alice: Client, bob: Client, questions: list[str]) -> None:
    alice.call("sync")
    texts = list(alice.call("history", room=talk.room).values())
    assert [texts.count(f"answer {question}") for question in questions] == [1 for _ in questions]
    _all_is_well(talk, alice, bob)


def _all_is_well(talk: Talk, alice: Client, bob: Client) -> None:
    talk.both_directions_work(alice, bob)
    assert talk.unreadable(bob) == []
    assert talk.unreadable(alice) == []
    # The same from what is in the databases alone.
    for client, device in ((alice, talk.alice), (bob, talk.bob)):
        client.kill()
        client = talk.bed.start(device)
        client.call("sync")
        assert talk.unreadable(client) == []
    assert talk.indices_used_twice() == 0
