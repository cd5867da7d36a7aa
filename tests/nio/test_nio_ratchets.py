"""Which of two Megolm sessions with one id stays."""

from __future__ import annotations

import pytest
from nio.crypto import InboundGroupSession

from cryptostore.nio.ratchets import better_of
from cryptostore.records import InboundGroupSession as Stored
from nio_places import ROOM, Ours, Ratchet


def kept(known: InboundGroupSession, offered: InboundGroupSession) -> tuple[int, list[str], str, bool]:
    winner, changed = better_of(known, offered)
    return winner.first_known_index, winner.forwarding_chain, winner.ed25519, changed


def test_of_one_ratchet_the_lower_index_and_the_shorter_chain_stay() -> None:
    ratchet = Ratchet()
    direct, forwarded = ratchet.inbound(), ratchet.inbound("a", "b", signing_key="claimed")
    ratchet.advance(2)
    later, later_forwarded = ratchet.inbound(), ratchet.inbound("c", signing_key="claimed")
    assert kept(direct, later) == (0, [], "ed-of-sender", False)
    assert kept(later, direct) == (0, [], "ed-of-sender", True)
    assert kept(later, forwarded) == (0, [], "ed-of-sender", True)
    assert kept(direct, later_forwarded) == (0, [], "ed-of-sender", False)
    assert kept(later_forwarded, direct) == (0, [], "ed-of-sender", True)


def test_a_worse_ratchet_still_brings_its_provenance() -> None:
    ratchet = Ratchet()
    forwarded = ratchet.inbound("a", "b", signing_key="claimed")
    later = ratchet.advance(2).inbound()
    assert kept(forwarded, later) == (0, [], "ed-of-sender", True)


def test_an_equal_session_changes_nothing() -> None:
    ratchet = Ratchet()
    assert kept(ratchet.inbound("a"), ratchet.inbound("b", signing_key="claimed")) == (0, ["a"], "ed-of-sender", False)


@pytest.mark.parametrize(
    ("known_chain", "offered_chain", "replaced"),
    [((), (), False), ((), ("a",), False), (("a",), (), True), (("a", "b"), ("a",), False)],
)
def test_of_two_ratchets_under_one_id_only_a_direct_one_replaces_a_forwarded_one(
    monkeypatch: pytest.MonkeyPatch, known_chain: tuple[str, ...], offered_chain: tuple[str, ...], replaced: bool
) -> None:
    # Two real ratchets with one id cannot be made: the id is a key pair's public half. An attacker might forge one.
    known, offered = Ratchet().inbound(*known_chain), Ratchet().advance(1).inbound(*offered_chain)
    monkeypatch.setattr(InboundGroupSession, "id", "one id")
    winner, changed = better_of(known, offered)
    assert (winner is offered, changed) == (replaced, replaced)


def test_the_better_ratchet_stays_in_memory_and_in_the_database(in_memory: Ours) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    better = ratchet.inbound()
    worse = ratchet.advance(3).inbound()
    sessions = store.load_inbound_group_sessions()
    assert sessions.add(worse)
    store.save_inbound_group_session(worse)
    (first,) = in_memory.stored(Stored)
    assert sessions.add(better)
    store.save_inbound_group_session(better)
    assert not sessions.add(ratchet.inbound())
    store.save_inbound_group_session(ratchet.inbound())
    assert sessions.get(ROOM, "curve-of-sender", ratchet.id) is better
    (second,) = in_memory.stored(Stored)
    assert (first.first_known_index, second.first_known_index) == (3, 0)
    assert second.received_at == first.received_at


def test_the_same_session_id_from_another_sender_is_another_session(in_memory: Ours) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    claimed = ratchet.inbound()
    claimed.sender_key = "curve-of-somebody-else"
    for session in (ratchet.inbound(), claimed):
        store.load_inbound_group_sessions().add(session)
        store.save_inbound_group_session(session)
    store = in_memory.reopen(store)
    assert {session.sender_key for session in store.load_inbound_group_sessions()} == {
        "curve-of-sender",
        "curve-of-somebody-else",
    }
