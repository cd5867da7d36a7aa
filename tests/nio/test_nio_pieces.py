"""A batch that is too large for one commit goes in several, none of which loses anything by itself."""

from __future__ import annotations

import pytest
from nio.crypto import OlmDevice

from cryptostore import AccountRow, BackendUnavailable, Batch, Changes, Device, InboundGroupSession, Key, SyncToken
from cryptostore.nio import pieces
from cryptostore.nio.pieces import in_pieces
from cryptostore.records import EncryptedRoom, Record
from cryptostore.store.memory import MemoryHandle
from cryptostore_contract.samples import BOB
from nio_places import ROOM, Counted, Ours, Ratchet


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 3)


def devices(count: int) -> list[Record]:
    return [Device(BOB.user_id, f"D{number}") for number in range(count)]


def together(batches: list[Changes]) -> Changes:
    return Changes().followed_by(*batches)


def test_what_is_small_enough_is_not_split() -> None:
    batch = Changes([*devices(2), SyncToken("s1")])
    assert list(in_pieces(batch)) == [batch]


def test_devices_go_first_and_the_token_with_all_the_rest_at_last() -> None:
    gone: list[tuple[type[Record], Key]] = [(Device, (BOB.user_id, "GONE")), (EncryptedRoom, ("!left:example.org",))]
    rest: list[Record] = [SyncToken("s1"), EncryptedRoom(ROOM), *(EncryptedRoom(f"!{number}") for number in range(9))]
    batch = Changes(rest + devices(7), gone)
    split = list(in_pieces(batch))
    assert [len(piece) for piece in split] == [3, 3, 2, 12]
    assert all(piece.kinds() == [Device] for piece in split[:-1])
    assert together(split) == batch


def test_a_batch_without_anything_else_is_still_settled() -> None:
    assert [len(piece) for piece in in_pieces(Changes(devices(4)))] == [3, 1, 0]


def test_many_devices_of_a_room_are_all_stored(ours: Ours, counted: Counted) -> None:
    store = ours.open()
    counted.batches.clear()
    keys = {"ed25519": "ed", "curve25519": "curve"}
    store.save_device_keys({BOB.user_id: {f"D{n}": OlmDevice(BOB.user_id, f"D{n}", keys) for n in range(8)}})
    assert [len(batch) for batch in counted.batches] == [3, 3, 2]
    assert len(ours.stored(Device)) == 8
    assert not store._devices._users.pinned()


def test_a_piece_that_finds_no_database_loses_nothing(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Ours(f"{memory_url}?deadline=0.01")
    store, ratchets = place.open(), [Ratchet() for _ in range(8)]
    commits: list[Batch] = []
    commit = MemoryHandle.commit

    def away_from_the_second_on(self: MemoryHandle, account_id: int, batch: Batch, timeout: float) -> AccountRow | None:
        if len(commits) == 1:
            raise BackendUnavailable("the test says so")
        commits.append(batch)
        return commit(self, account_id, batch, timeout)

    def handle_a_sync() -> None:
        with store.batch():
            store.save_sync_token("s1")
            for ratchet in ratchets:
                store.save_inbound_group_session(ratchet.inbound())
            store.save_encrypted_rooms({ROOM})

    with monkeypatch.context() as patch:
        patch.setattr(MemoryHandle, "commit", away_from_the_second_on)
        with pytest.raises(BackendUnavailable):
            handle_a_sync()
    # Some keys are durable, and the token that covers them is not.
    assert len(place.stored(InboundGroupSession)) == 3
    assert place.stored(SyncToken) == []
    store.save_encrypted_rooms({"!other:example.org"})
    assert {row.session_id for row in place.stored(InboundGroupSession)} == {ratchet.id for ratchet in ratchets}
    assert place.stored(SyncToken) == [SyncToken("s1")]
    place.close_all()
