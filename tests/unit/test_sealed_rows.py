"""Rows that somebody without the pickle key wrote or moved, and rows that a newer program wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cryptostore import (
    KINDS,
    Backend,
    Changes,
    CryptoStore,
    Device,
    EncryptedRoom,
    InvalidRecord,
    Mode,
    Record,
    SchemaTooNew,
    SyncToken,
    TrackedUser,
    Unreadable,
    UnreadableRecord,
    Value,
    hookimpl,
)
from cryptostore.plugins.observers import observers
from cryptostore.store.account_keys import AccountKeys
from cryptostore.store.keys import encode_key
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE, example
from sealed_database import BOB, KEY, backend, plant, rows_of, saved

__all__ = ["backend"]

Reported = list[tuple[str, Any, str]]


class Witness:
    """Writes down every row that cannot be read."""

    def __init__(self) -> None:
        self.reported: Reported = []

    @hookimpl
    def cryptostore_unreadable_row(self, kind: str, key: Any, reason: str) -> None:
        self.reported.append((kind, key, reason))


@pytest.fixture
def reported() -> Iterator[Reported]:
    witness = Witness()
    observers().add("witness", witness)
    yield witness.reported
    observers().remove("witness")


def assert_reading_raises(store: CryptoStore, kind: type[Record]) -> None:
    for read in (
        lambda: store.get(kind, [()]),
        lambda: store.select(kind, [()]),
        lambda: list(store.scan(kind)),
    ):
        with pytest.raises(UnreadableRecord, match=f"the {kind.kind_name} of .* cannot be read"):
            read()


def readable(store: Any, kind: type[Record]) -> tuple[Any, Any, Any]:
    key = example(kind).key
    return store.get(kind, [key]), store.select(kind, [key]), list(store.scan(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_was_edited_or_moved_here_is_reported_as_tampering(
    backend: Backend, kind: type[Record], reported: Reported
) -> None:
    record = example(kind)
    saved(backend, record)
    saved(backend, record, account=BOB)
    key = encode_key(kind, record.key)
    sealed = rows_of(backend, ALICE)[key]
    flipped = sealed[:20] + bytes([sealed[20] ^ 1]) + sealed[21:]
    for value in (flipped, rows_of(backend, BOB)[key], sealed[:-1], sealed[:3], b""):
        plant(backend, ALICE, key, value)
        store = backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
        if kind.when_unreadable is Unreadable.ERROR:
            assert_reading_raises(store, kind)
        else:
            found, selected, scanned = readable(store, kind)
            assert (found, selected, scanned) == ({}, {record.key: []}, [])
            assert set(found.unreadable) == set(selected.unreadable) == {record.key}
        assert list(store.keys(kind)) == [record.key]
        assert {(name, where) for name, where, _ in reported} == {(kind.kind_name, record.key)}
        assert len(reported) == 3
        assert all(
            "was altered" in reason or "was sealed" in reason or "too short" in reason for *_, reason in reported
        )
        reported.clear()


def test_a_row_under_another_key_of_its_account_is_reported(backend: Backend, reported: Reported) -> None:
    boss, stranger = TrackedUser("@boss:x"), TrackedUser("@stranger:x", outdated=True)
    saved(backend, boss, stranger)
    sealed = rows_of(backend, ALICE)[encode_key(TrackedUser, stranger.key)]
    plant(backend, ALICE, encode_key(TrackedUser, boss.key), sealed)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert list(store.scan(TrackedUser)) == [stranger]
    assert [(kind, key) for kind, key, _ in reported] == [("tracked_user", ("@boss:x",))]


def test_a_key_that_is_none_is_reported(backend: Backend, reported: Reported) -> None:
    saved(backend, TrackedUser("@boss:x"))
    plant(backend, ALICE, b"\x04@no end", b"whatever")
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        selected = store.select(TrackedUser, [()])
        assert selected == {(): [TrackedUser("@boss:x")]}
        assert selected.unreadable == {None: "its key is not a valid key of its kind"}
    assert reported == [("tracked_user", None, "its key is not a valid key of its kind")]


def test_a_forged_data_key_id_makes_the_ring_read_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(backend, *[TrackedUser(f"@{number}:x") for number in range(20)])
    for key, value in list(rows_of(backend, ALICE).items()):
        if key not in RING_KEYS:
            plant(backend, ALICE, key, value[:1] + b"\xde\xad\xbe\xef" + value[5:])
    loads = []
    original = AccountKeys.load

    def load(keys: AccountKeys) -> bool:
        loads.append(keys)
        return original(keys)

    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        monkeypatch.setattr(AccountKeys, "load", load)
        assert len(store.select(TrackedUser, [()]).unreadable) == 20
    assert len(loads) == 1


def test_a_value_of_a_newer_format_is_neither_skipped_nor_written_over(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EncryptedRoom, "format_number", 2)
    monkeypatch.setattr("cryptostore.store.values._codecs", {})
    saved(backend, EncryptedRoom("!r:x"))
    monkeypatch.undo()
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        for read in (
            lambda: store.get(EncryptedRoom, [("!r:x",)]),
            lambda: store.select(EncryptedRoom, [()]),
            lambda: list(store.scan(EncryptedRoom)),
        ):
            with pytest.raises(
                SchemaTooNew, match=r"a encrypted_room of .* has format 2, .*: upgrade matrix-cryptostore"
            ):
                read()


def test_a_record_that_is_too_large_when_sealed_is_refused_and_nothing_is_pending(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(
        InvalidRecord, match=r"^value\.value has 41943\d\d bytes when it is stored; 4194304 are allowed"
    ):
        store.apply(Changes([SyncToken("s"), Value("n", "v", bytes(4 * 1024 * 1024))]))
    store.apply(Changes([SyncToken("s1")]))
    assert store.get(Value, [("n", "v")]) == {}
    assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}


def test_devices_and_rooms_are_refused_when_they_cannot_be_read() -> None:
    assert Device.when_unreadable is EncryptedRoom.when_unreadable is Unreadable.REFUSE
