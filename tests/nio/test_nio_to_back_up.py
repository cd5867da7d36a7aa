"""Sessions that are not in the backup on the server are noted, in their own batch."""

from __future__ import annotations

import pytest
from nio.crypto import InboundGroupSession

from cryptostore import Changes, CryptoStore, KeyBackup, SessionToBackUp
from cryptostore import InboundGroupSession as Stored
from cryptostore.nio import NioStore
from cryptostore.nio.pieces import PIECE
from cryptostore.nio.provenance import note_origin
from nio_places import ROOM, Counted, Ours, Ratchet

BACKUP = KeyBackup("1", "public key", ("room", "session", "sender"))


def save(store: NioStore, *sessions: InboundGroupSession) -> None:
    for session in sessions:
        store.load_inbound_group_sessions().add(session)
        store.save_inbound_group_session(session)


def noted(place: Ours) -> set[str]:
    return {row.session_id for row in place.stored(SessionToBackUp)}


def test_without_a_backup_nothing_is_noted(ours: Ours) -> None:
    save(ours.open(), Ratchet().inbound())
    assert noted(ours) == set()


def test_what_is_new_or_better_is_noted_with_its_session(ours: Ours, counted: Counted) -> None:
    store, ratchet = ours.open(), Ratchet()
    store._to_back_up.use(BACKUP)
    first = ratchet.inbound()
    counted.calls.clear()
    save(store, ratchet.advance(3).inbound())
    assert counted.calls == ["get inbound_group_session", "apply"]
    assert noted(ours) == {ratchet.id}
    store._storage.write(Changes(deletes=[(SessionToBackUp, row.key) for row in ours.stored(SessionToBackUp)]))
    save(store, ratchet.inbound())
    assert noted(ours) == set()
    save(store, first)
    assert noted(ours) == {ratchet.id}


def test_a_backup_stays_in_use_over_restarts(ours: Ours) -> None:
    store = ours.open()
    store._to_back_up.use(BACKUP)
    store = ours.reopen(store)
    assert store._to_back_up.backup == BACKUP
    ratchets = [Ratchet() for _ in range(3)]
    with store.batch():
        save(store, *(ratchet.inbound() for ratchet in ratchets))
    assert noted(ours) == {ratchet.id for ratchet in ratchets}


def test_what_came_from_the_backup_is_in_it(ours: Ours) -> None:
    store, session = ours.open(), Ratchet().inbound()
    store._to_back_up.use(BACKUP)
    note_origin(session, from_backup=True)
    save(store, session)
    assert (len(ours.stored(Stored)), noted(ours)) == (1, set())


def test_no_session_of_a_batch_in_pieces_is_durable_before_its_note(
    in_memory: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = in_memory.open()
    store._to_back_up.use(BACKUP)
    apply, behind = CryptoStore.apply, list[int]()

    def applied(self: CryptoStore, changes: Changes) -> None:
        apply(self, changes)
        with_notes = {row.key for row in self.scan(SessionToBackUp)}
        behind.append(sum(row.key not in with_notes for row in self.scan(Stored)))

    monkeypatch.setattr(CryptoStore, "apply", applied)
    with store.batch():
        save(store, *(Ratchet().inbound() for _ in range(PIECE // 2 + 1)))
    assert behind == [0, 0, 0]


def test_the_store_is_walked_from_any_place(ours: Ours) -> None:
    store = ours.open()
    with store.batch():
        save(store, *(Ratchet().inbound() for _ in range(5)))
    rows = list(store._storage._store.scan(Stored))
    for place, row in enumerate(rows):
        assert list(store._storage._store.scan(Stored, after=row.key)) == rows[place + 1 :]
    assert list(store._storage._store.scan(Stored, (ROOM,), rows[2].key)) == rows[3:]
    assert list(store._storage._store.scan(Stored, ("!other:example.org",), rows[2].key)) == []
