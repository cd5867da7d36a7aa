"""Which of two Megolm sessions with one id stays."""

from __future__ import annotations

import base64

import pytest
from nio.crypto import InboundGroupSession

from cryptostore.nio.provenance import is_from_backup, note_origin
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


def from_backup(session: InboundGroupSession) -> InboundGroupSession:
    note_origin(session, from_backup=True)
    return session


def forged(session: InboundGroupSession, *chain: str) -> InboundGroupSession:
    """Another ratchet under this session's id: an export says which signing key it is of, and cannot prove it."""
    key = bytearray(base64.b64decode(session.export_session(session.first_known_index) + "=="))
    key[5] ^= 1
    text = base64.b64encode(key).decode().rstrip("=")
    made = InboundGroupSession.import_session(text, "forged", session.sender_key, session.room_id, list(chain))
    assert made.id == session.id
    return made


def test_a_lower_index_from_a_backup_is_taken_and_the_origin_stays() -> None:
    ratchet = Ratchet()
    old = from_backup(ratchet.inbound(signing_key="claimed"))
    ratchet.advance(2)
    direct = ratchet.inbound()
    winner, changed = better_of(direct, old)
    assert (winner.first_known_index, winner.ed25519, is_from_backup(winner), changed) == (
        0,
        "ed-of-sender",
        False,
        True,
    )
    later = from_backup(ratchet.advance(1).inbound(signing_key="claimed"))
    winner, changed = better_of(direct, later)
    assert (winner is direct, is_from_backup(winner), changed) == (True, False, False)


def test_a_session_that_comes_directly_clears_one_from_a_backup() -> None:
    ratchet = Ratchet()
    old = from_backup(ratchet.inbound(signing_key="claimed"))
    direct = ratchet.advance(2).inbound()
    winner, changed = better_of(old, direct)
    assert (winner.first_known_index, winner.ed25519, is_from_backup(winner), changed) == (
        0,
        "ed-of-sender",
        False,
        True,
    )


def test_a_forwarded_session_is_trusted_before_one_from_a_backup() -> None:
    ratchet = Ratchet()
    winner, changed = better_of(from_backup(ratchet.inbound()), ratchet.inbound("a", "b"))
    assert (winner.forwarding_chain, is_from_backup(winner), changed) == (["a", "b"], False, True)
    winner, changed = better_of(ratchet.inbound("a", "b"), from_backup(ratchet.inbound()))
    assert (winner.forwarding_chain, is_from_backup(winner), changed) == (["a", "b"], False, False)


def test_what_was_forged_in_a_backup_replaces_nothing_and_is_replaced() -> None:
    direct, forwarded = Ratchet().inbound(), Ratchet().inbound("a")
    for known in (direct, forwarded, from_backup(Ratchet().inbound())):
        winner, changed = better_of(known, from_backup(forged(known)))
        assert (winner is known, changed) == (True, False)
    for offered in (direct, forwarded):
        winner, changed = better_of(from_backup(forged(offered)), offered)
        assert (winner is offered, is_from_backup(winner), changed) == (True, False, True)


def test_where_a_session_came_from_is_in_the_database(in_memory: Ours) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    session = from_backup(ratchet.inbound())
    store.load_inbound_group_sessions().add(session)
    store.save_inbound_group_session(session)
    store = in_memory.reopen(store)
    (stored,) = store.load_inbound_group_sessions()
    assert is_from_backup(stored)
    store.load_inbound_group_sessions().add(ratchet.inbound())
    store.save_inbound_group_session(ratchet.inbound())
    (record,) = in_memory.stored(Stored)
    assert not record.from_backup


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
