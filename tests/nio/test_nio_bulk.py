"""Many Megolm sessions in one batch: compared with the stored ones in one look-up, by the same rules."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from nio.crypto import InboundGroupSession, Olm, OlmAccount, OutgoingKeyRequest

from cryptostore import BackendUnavailable, Changes, Record, SyncToken
from cryptostore import InboundGroupSession as Stored
from cryptostore.nio import NioStore
from cryptostore.store.crypto_store import CryptoStore
from cryptostore_contract.samples import ALICE
from nio_places import ROOM, Counted, Ours, Ratchet

Block = Callable[[NioStore], AbstractContextManager[None]]

ONE_LOOK_UP_AND_ONE_BATCH = ["get inbound_group_session", "apply"]


def save(store: NioStore, *sessions: InboundGroupSession) -> None:
    """As nio's Olm does it, which ignores what add() answers."""
    for session in sessions:
        store.load_inbound_group_sessions().add(session)
        store.save_inbound_group_session(session)


def indices(place: Ours) -> dict[str, int]:
    return {row.session_id: row.first_known_index for row in place.stored(Stored)}


@pytest.fixture(params=["one by one", "in one batch"])
def block(request: pytest.FixtureRequest) -> Block:
    """What the rules must not depend on."""
    return (lambda _: nullcontext()) if request.param == "one by one" else NioStore.batch


@pytest.mark.parametrize("count", [1, 2_000])
def test_a_batch_costs_one_look_up_however_many_sessions_it_has(ours: Ours, counted: Counted, count: int) -> None:
    store, ratchets = ours.open(), [Ratchet() for _ in range(count)]
    counted.calls.clear()
    with store.batch():
        save(store, *(ratchet.inbound() for ratchet in ratchets))
    assert counted.calls == ONE_LOOK_UP_AND_ONE_BATCH
    assert indices(ours) == dict.fromkeys((ratchet.id for ratchet in ratchets), 0)
    assert not store._group_sessions._sessions.pinned()


def test_what_a_batch_holds_is_merged_once(in_memory: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    store = in_memory.open()
    merged: list[int] = []
    followed_by = Changes.followed_by

    def counted(self: Changes, *later: Changes) -> Changes:
        merged.append(len(self))
        return followed_by(self, *later)

    with store.batch():
        monkeypatch.setattr(Changes, "followed_by", counted)
        for number in range(100):
            store.add_outgoing_key_request(OutgoingKeyRequest(str(number), "session", ROOM, "algorithm"))
        assert merged == []
    # What was held, and what is written at the end.
    assert len(merged) == 2
    assert len(store.load_outgoing_key_requests()) == 100


def test_importing_room_keys_in_a_batch(ours: Ours, counted: Counted, tmp_path: Path) -> None:
    ratchets, file = [Ratchet() for _ in range(100)], str(tmp_path / "keys")
    Olm.export_keys_static([ratchet.inbound() for ratchet in ratchets], file, "passphrase", 1)
    store = ours.open()
    olm = Olm(ALICE.user_id, ALICE.device_id, store)
    counted.calls.clear()
    with store.batch():
        olm.import_keys(file, "passphrase")
    assert counted.calls == ONE_LOOK_UP_AND_ONE_BATCH
    assert indices(ours).keys() == {ratchet.id for ratchet in ratchets}


def test_the_better_of_offered_and_stored_stays(ours: Ours, block: Block) -> None:
    first, second = Ratchet(), Ratchet()
    better, worse = [first.inbound(), second.inbound()], [first.advance(3).inbound(), second.advance(3).inbound()]
    store = ours.open()
    save(store, better[0], worse[1])
    received = {row.session_id: row.received_at for row in ours.stored(Stored)}
    store = ours.reopen(store)
    with block(store):
        save(store, worse[0], better[1])
    assert indices(ours) == {first.id: 0, second.id: 0}
    for ratchet in (first, second):
        found = ratchet.found_in(store)
        assert found is not None
        assert found.first_known_index == 0
    assert {row.session_id: row.received_at for row in ours.stored(Stored)} == received


def test_a_worse_ratchet_still_brings_its_provenance(in_memory: Ours, block: Block) -> None:
    ratchet = Ratchet()
    forwarded = ratchet.inbound("a", "b", signing_key="claimed")
    store = in_memory.open()
    save(store, forwarded)
    store = in_memory.reopen(store)
    with block(store):
        save(store, ratchet.advance(2).inbound())
    (kept,) = in_memory.stored(Stored)
    assert (kept.first_known_index, kept.forwarding_chain, kept.signing_key) == (0, (), "ed-of-sender")


def test_a_session_that_is_stored_is_not_written_again(in_memory: Ours, counted: Counted, block: Block) -> None:
    ratchet = Ratchet()
    store = in_memory.open()
    save(store, ratchet.inbound())
    store = in_memory.reopen(store)
    counted.calls.clear()
    with block(store):
        save(store, ratchet.inbound())
    assert counted.calls == ["get inbound_group_session"]
    assert not store._group_sessions._sessions.pinned()


def test_an_unreadable_row_never_wins(in_memory: Ours, block: Block) -> None:
    ratchet = Ratchet()
    store = in_memory.open()
    save(store, ratchet.inbound())
    in_memory.close(store)
    in_memory.put(*(replace(row, session_key=b"damaged") for row in in_memory.stored(Stored)))
    store = in_memory.open()
    with block(store):
        save(store, ratchet.advance(3).inbound())
    found = ratchet.found_in(in_memory.reopen(store))
    assert found is not None
    assert found.first_known_index == 3


def test_a_look_up_inside_a_batch_compares_all_that_was_added(ours: Ours, counted: Counted) -> None:
    ratchets = [Ratchet() for _ in range(20)]
    store = ours.open()
    with store.batch():
        save(store, *(ratchet.inbound() for ratchet in ratchets))
    store = ours.reopen(store)
    counted.calls.clear()
    with store.batch():
        # A message in the timeline of the sync that brought the keys may be older than they are.
        save(store, *(ratchet.advance(3).inbound() for ratchet in ratchets))
        found = [ratchet.found_in(store) for ratchet in ratchets]
        assert [session and session.first_known_index for session in found] == [0] * 20
    assert counted.calls == ["get inbound_group_session"]
    assert [ratchet.found_in(store) for ratchet in ratchets] == found


def test_going_through_everything_inside_a_batch(in_memory: Ours) -> None:
    improved, known, new = Ratchet(), Ratchet(), Ratchet()
    low, high = improved.inbound(), improved.advance(3).inbound()
    store = in_memory.open()
    save(store, high, known.inbound())
    store = in_memory.reopen(store)
    with store.batch():
        save(store, low, known.advance(3).inbound(), new.inbound())
        met = [(session.id, session.first_known_index) for session in store.load_inbound_group_sessions()]
        assert sorted(met) == sorted([(improved.id, 0), (known.id, 0), (new.id, 0)])
    assert indices(in_memory) == {improved.id: 0, known.id: 0, new.id: 0}


def test_what_is_known_to_be_absent_is_not_looked_up(in_memory: Ours, counted: Counted) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    assert ratchet.found_in(store) is None
    counted.calls.clear()
    with store.batch():
        save(store, ratchet.inbound())
    assert counted.calls == ["apply"]


def test_a_room_that_no_database_can_store_holds_nothing_up(in_memory: Ours) -> None:
    store, impossible, ratchet = in_memory.open(), Ratchet(room="!\0"), Ratchet()
    with store.batch():
        save(store, impossible.inbound(), ratchet.inbound())
    assert indices(in_memory) == {ratchet.id: 0}
    assert not store._group_sessions._sessions.pinned()


def test_a_batch_that_raises_is_compared_with_the_next_save(in_memory: Ours, counted: Counted) -> None:
    known, new = Ratchet(), Ratchet()
    store = in_memory.open()
    save(store, known.inbound())
    store = in_memory.reopen(store)

    def handle_half_a_sync() -> None:
        save(store, known.advance(3).inbound(), new.inbound())
        raise RuntimeError

    with pytest.raises(RuntimeError), store.batch():
        handle_half_a_sync()
    counted.calls.clear()
    store.save_account(OlmAccount())
    assert counted.calls == ONE_LOOK_UP_AND_ONE_BATCH
    assert indices(in_memory) == {known.id: 0, new.id: 0}
    counted.calls.clear()
    store.save_encrypted_rooms(set())
    assert counted.calls == []


def test_a_database_that_is_away_when_a_batch_ends(in_memory: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    away = [True]
    get = CryptoStore.get

    def get_or_fail(self: CryptoStore, kind: type[Record], keys: object) -> object:
        if away and kind is Stored:
            raise BackendUnavailable("the test says so")
        return get(self, kind, keys)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(CryptoStore, "get", get_or_fail)

    def handle_a_sync() -> None:
        with store.batch():
            store.save_sync_token("s1")
            save(store, ratchet.inbound())
            store.save_encrypted_rooms({ROOM})

    with pytest.raises(BackendUnavailable):
        handle_a_sync()
    # The token must not get ahead of the keys of its sync.
    with pytest.raises(BackendUnavailable):
        store.save_account(OlmAccount())
    assert not in_memory.stored(SyncToken)
    assert not in_memory.stored(Stored)
    away.clear()
    store.save_encrypted_rooms(set())
    assert in_memory.stored(SyncToken) == [SyncToken("s1")]
    assert indices(in_memory) == {ratchet.id: 0}
    assert in_memory.reopen(store).load_account() is not None
