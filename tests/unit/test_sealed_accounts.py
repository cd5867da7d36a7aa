"""Opening sealed accounts, and rows that somebody without the pickle key wrote, moved or took away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cryptostore import (
    KINDS,
    Account,
    AccountNotFound,
    AccountRow,
    Backend,
    BackendInvalid,
    Batch,
    Changes,
    ConfigurationError,
    CryptoStore,
    DatabaseWentBack,
    Device,
    EncryptedRoom,
    FencedOut,
    InvalidRecord,
    Mode,
    OlmSession,
    Record,
    Row,
    SchemaTooNew,
    SyncToken,
    TakeOver,
    TrackedUser,
    Unreadable,
    UnreadableRecord,
    Value,
    WrongPickleKey,
    hookimpl,
    new_pickle_key,
    open_backend,
    record_kind,
)
from cryptostore.plugins.observers import observers
from cryptostore.records.fields import Identifier, Text
from cryptostore.store.account_keys import AccountKeys
from cryptostore.store.keys import encode_key
from cryptostore.store.memory import MemoryDatabase, MemoryHandle, MemoryRecords
from cryptostore.store.rekeying import rekey
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE, example

KEY, OTHER_KEY = new_pickle_key(), new_pickle_key()
BOB = Account("@bob:example.org", "BOBDEVICE")

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


@pytest.fixture
def backend() -> Iterator[Backend]:
    with open_backend("memory://") as backend:
        yield backend


def stored(backend: Backend, account: Account) -> MemoryRecords:
    """The account's rows, as somebody finds them who can write the database."""
    assert isinstance(backend.database, MemoryHandle)
    shared = backend.database.shared
    return shared.records[shared.accounts[account.user_id, account.device_id].id]


def rows_of(backend: Backend, account: Account) -> dict[bytes, bytes]:
    return stored(backend, account).values


def plant(backend: Backend, account: Account, key: bytes, value: bytes) -> None:
    """Write a row as somebody does who has the database and no pickle key."""
    row = backend.database.find(account.user_id, account.device_id, 1)
    assert row is not None
    owned = backend.database.take_over(account.user_id, account.device_id, TakeOver(1, 2, "intruder", 3), 1)
    backend.database.commit(row.id, Batch(owned.epoch, 2, owned.sequence + 1, [Row(key, value)], []), 1)


def saved(backend: Backend, *records: Record, account: Account = ALICE) -> None:
    with backend.open_store(account, pickle_key=KEY) as store:
        store.apply(Changes(records))


def test_a_wrong_pickle_key_takes_nothing_over(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    owner.apply(Changes([SyncToken("s1")]))
    for mode in Mode:
        for wrong in (OTHER_KEY, "a passphrase instead of a generated key"):
            with pytest.raises(WrongPickleKey, match="Nothing is damaged"):
                backend.open_store(ALICE, mode, pickle_key=wrong)
    owner.apply(Changes([SyncToken("s2")]))


def test_a_short_passphrase_draws_one_warning(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        backend.open_store(ALICE, pickle_key="short").apply(Changes([SyncToken("s1")]))
        assert [record.getMessage() for record in caplog.records] == [caplog.messages[0]]
    assert "which can be guessed" in caplog.text
    assert "short" not in caplog.text.replace("shorter", "")


def test_a_store_without_a_pickle_key_copies_and_reads_nothing(backend: Backend) -> None:
    saved(backend, SyncToken("s1"))
    with pytest.raises(ConfigurationError, match=r"to own @alice:example\.org ALICEDEVICE, give open_store its pickle"):
        backend.open_store(ALICE)
    with backend.open_store(ALICE, Mode.READ) as store:
        assert [row.key for row in store.stored_rows()] == [RING_KEYS[0], encode_key(SyncToken, ()), RING_KEYS[1]]
        for read in (
            lambda: store.get(SyncToken, [()]),
            lambda: store.select(SyncToken, [()]),
            lambda: store.scan(SyncToken),
        ):
            with pytest.raises(ConfigurationError, match="was opened without a pickle key"):
                read()


def test_a_reader_that_came_before_the_first_batch_reads_it(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    reader = backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
    assert reader.get(SyncToken, [()]) == {}
    with pytest.raises(UnreadableRecord, match="the key ring of"):
        _ = reader.replay_key
    owner.apply(Changes([SyncToken("s1")]))
    assert reader.get(SyncToken, [()]) == {(): SyncToken("s1")}


def test_an_account_that_never_had_a_batch_takes_any_pickle_key(backend: Backend) -> None:
    backend.open_store(ALICE, pickle_key=KEY)
    backend.open_store(ALICE, pickle_key=OTHER_KEY).apply(Changes([SyncToken("s1")]))
    with pytest.raises(WrongPickleKey):
        backend.open_store(ALICE, pickle_key=KEY)


def test_the_ring_comes_with_the_first_batch_and_no_other(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    assert rows_of(backend, ALICE) == {}
    store.apply(Changes([SyncToken("s1")]))
    ring = {key: rows_of(backend, ALICE)[key] for key in RING_KEYS}
    store.apply(Changes([SyncToken("s2")]))
    backend.open_store(ALICE, pickle_key=KEY).apply(Changes([SyncToken("s3")]))
    assert {key: rows_of(backend, ALICE)[key] for key in RING_KEYS} == ring


def test_the_replay_key_stays_the_same(backend: Backend) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        replay_key = store.replay_key
        store.apply(Changes([SyncToken("s1")]))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert store.replay_key == replay_key


@pytest.mark.parametrize("lost", RING_KEYS)
def test_one_lost_copy_of_the_ring_is_written_again(
    backend: Backend, lost: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    saved(backend, SyncToken("s1"))
    stored(backend, ALICE).delete(lost)
    with caplog.at_level(logging.WARNING):
        saved(backend, TrackedUser("@bob:x"))
    assert "of the key ring of @alice:example.org ALICEDEVICE" in caplog.text
    [other] = set(RING_KEYS) - {lost}
    stored(backend, ALICE).delete(other)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}


def without_records(backend: Backend) -> None:
    for key in list(rows_of(backend, ALICE)):
        stored(backend, ALICE).delete(key)


def without_ring(backend: Backend) -> None:
    for key in RING_KEYS:
        stored(backend, ALICE).delete(key)


def without_history(backend: Backend) -> None:
    without_ring(backend)
    assert isinstance(backend.database, MemoryHandle)
    accounts = backend.database.shared.accounts
    accounts.update({name: row._replace(sequence=0) for name, row in accounts.items()})


@pytest.mark.parametrize("damage", [without_records, without_ring, without_history])
def test_a_missing_ring_is_never_made_anew(backend: Backend, damage: Callable[[Backend], None]) -> None:
    saved(backend, SyncToken("s1"))
    damage(backend)
    before, owner = dict(rows_of(backend, ALICE)), backend.accounts()[ALICE]
    for mode in Mode:
        with pytest.raises(UnreadableRecord, match=r"the key ring of @alice:example\.org ALICEDEVICE is missing"):
            backend.open_store(ALICE, mode, pickle_key=KEY)
    assert (rows_of(backend, ALICE), backend.accounts()[ALICE]) == (before, owner)


def test_a_ring_that_is_lost_under_a_reader_is_an_error(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    reader = backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
    owner.apply(Changes([SyncToken("s1")]))
    without_ring(backend)
    with pytest.raises(UnreadableRecord, match="the key ring of"):
        reader.get(SyncToken, [()])


def test_an_old_copy_of_the_ring_under_an_open_store_is_refused(backend: Backend) -> None:
    saved(backend, SyncToken("s1"))
    before = {key: rows_of(backend, ALICE)[key] for key in RING_KEYS}
    old_token = rows_of(backend, ALICE)[encode_key(SyncToken, ())]
    rekey(backend, ALICE, KEY, KEY)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as reader:
        rows_of(backend, ALICE).update(before | {encode_key(SyncToken, ()): old_token})
        with pytest.raises(UnreadableRecord, match="is older than the one that this store uses"):
            reader.get(SyncToken, [()])


def test_another_accounts_ring_opens_nothing(backend: Backend) -> None:
    saved(backend, SyncToken("s1"))
    saved(backend, SyncToken("s1"), account=BOB)
    for key in RING_KEYS:
        plant(backend, ALICE, key, rows_of(backend, BOB)[key])
    with pytest.raises((UnreadableRecord, WrongPickleKey)):
        backend.open_store(ALICE, pickle_key=KEY)


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


def test_a_new_kind_is_one_class(backend: Backend) -> None:
    @record_kind
    class Gap(Record):
        """What a later version may keep."""

        kind_number = 200
        kind_name = "gap"
        key_fields = ("room_id",)
        room_id: Identifier
        cursor: Text

    saved(backend, Gap("!r:x", "t1"), SyncToken("s"))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        assert store.select(Gap, [("!r:x",)]) == {("!r:x",): [Gap("!r:x", "t1")]}


def test_a_record_that_is_too_large_when_sealed_is_refused_and_nothing_is_pending(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(
        InvalidRecord, match=r"^value\.value has 41943\d\d bytes when it is stored; 4194304 are allowed"
    ):
        store.apply(Changes([SyncToken("s"), Value("n", "v", bytes(4 * 1024 * 1024))]))
    store.apply(Changes([SyncToken("s1")]))
    assert store.get(Value, [("n", "v")]) == {}
    assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}


class Untrustworthy(MemoryHandle):
    """Answers what nobody asked for."""

    extra: Row | None = None

    def get(self, account_id: int, keys: Any, timeout: float) -> list[Row]:
        return [*super().get(account_id, keys, timeout), *([self.extra] if self.extra else [])]

    def ranges(self, account_id: int, ranges: Any, timeout: float) -> list[Row]:
        return [*super().ranges(account_id, ranges, timeout), *([self.extra] if self.extra else [])]

    def page(self, account_id: int, within: Any, size: int, timeout: float) -> list[Row]:
        return [*super().page(account_id, within, size, timeout), *([self.extra] if self.extra else [])]


def test_an_answer_with_foreign_rows_is_not_used() -> None:
    database = Untrustworthy(MemoryDatabase())
    with Backend(database, name="untrustworthy") as backend:
        saved(backend, TrackedUser("@a:x"), TrackedUser("@b:x"))
        store = backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
        database.extra = Row(encode_key(TrackedUser, ("@a:x",)), b"")
        for read in (
            lambda: store.get(TrackedUser, [("@a:x",)]),
            lambda: store.select(TrackedUser, [()]),
            lambda: list(store.scan(TrackedUser)),
        ):
            with pytest.raises(BackendInvalid, match="nothing of the answer was used"):
                read()


def test_a_take_over_in_between_is_noticed() -> None:
    """The pickle key is changed between the look at the account and its take-over."""
    shared = MemoryDatabase()

    class Interrupted(MemoryHandle):
        def take_over(self, user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
            with Backend(MemoryHandle(shared), name="other") as other:
                other.delete_account(ALICE)
                other.open_store(ALICE, pickle_key=OTHER_KEY).apply(Changes([SyncToken("s")]))
            return super().take_over(user_id, device_id, claim, timeout)

    with Backend(MemoryHandle(shared), name="first") as first:
        saved(first, SyncToken("s1"))
    with Backend(Interrupted(shared), name="interrupted") as backend, pytest.raises(WrongPickleKey):
        backend.open_store(ALICE, pickle_key=KEY)


def test_an_account_that_cannot_be_read_is_left_out_of_the_list(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    saved(backend, SyncToken("s"))
    assert isinstance(backend.database, MemoryHandle)
    accounts = backend.database.shared.accounts
    accounts["", "D"] = AccountRow(1, "", "D", 1, 1, 1, "o", 0)
    accounts["@late:x", "D"] = AccountRow(2, "@late:x", "D", 1, 1, 1, "o", 2**63 - 1)
    with caplog.at_level(logging.WARNING):
        assert list(backend.accounts()) == [ALICE]
    assert "skipped an unreadable account (InvalidRecord)" in caplog.text
    assert "skipped an unreadable account (ValueError)" in caplog.text


def test_prefixes_within_each_other_answer_each_for_itself(backend: Backend) -> None:
    one, two, other = (
        OlmSession(sender, session, b"", example(OlmSession).created_at, example(OlmSession).last_used_at)
        for sender, session in (("sender", "1"), ("sender", "2"), ("other", "1"))
    )
    saved(backend, one, two, other)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        selected = store.select(OlmSession, [("sender", "2"), (), ("sender",), ("nobody",)])
    assert selected == {
        ("sender", "2"): [two],
        (): [other, one, two],
        ("sender",): [one, two],
        ("nobody",): [],
    }


def test_several_kinds_are_selected_in_one_round_trip(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = example(OlmSession, sender_key="sender", session_id="1"), example(OlmSession, session_id="2")
    saved(backend, one, two, SyncToken("s1"))
    calls: list[int] = []
    ranges = MemoryHandle.ranges

    def counted(self: MemoryHandle, account_id: int, wanted: Any, timeout: float) -> list[Row]:
        calls.append(len(wanted))
        return ranges(self, account_id, wanted, timeout)

    monkeypatch.setattr(MemoryHandle, "ranges", counted)
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        together = store.select_together([(SyncToken, ()), (OlmSession, one.key), (OlmSession, ("no",)), (Device, ())])
    assert calls == [4]
    assert together.of(SyncToken) == {(): [SyncToken("s1")]}
    assert together.of(OlmSession) == {one.key: [one], ("no",): []}
    assert together.of(Device) == {(): []}
    assert together.of(EncryptedRoom) == {}


def test_what_cannot_be_read_is_told_by_kind(backend: Backend) -> None:
    room, user = EncryptedRoom("!room"), TrackedUser("@user", False, 0)
    saved(backend, room, user)
    assert isinstance(backend.database, MemoryHandle)
    (rows,) = backend.database.shared.records.values()
    rows.put(Row(encode_key(EncryptedRoom, room.key), b"damaged"))
    with backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        together = store.select_together([(EncryptedRoom, ()), (TrackedUser, ())])
    assert together.of(EncryptedRoom).unreadable.keys() == {room.key}
    assert together.of(TrackedUser) == {(): [user]}
    assert together.of(TrackedUser).unreadable == {}


def test_no_keys_and_no_prefixes_cost_no_round_trip(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        for name in ("get", "ranges"):
            monkeypatch.setattr(MemoryHandle, name, lambda *_: pytest.fail("asked"))
        assert store.get(SyncToken, []) == {}
        assert store.select(SyncToken, []) == {}


def test_an_owner_can_ask_whether_it_still_is(backend: Backend) -> None:
    owner = backend.open_store(ALICE, pickle_key=KEY)
    owner.apply(Changes([SyncToken("s1")]))
    owner.check_ownership()
    assert isinstance(backend.database, MemoryHandle)
    accounts = backend.database.shared.accounts
    [(name, row)] = accounts.items()
    accounts[name] = row._replace(sequence=0)
    with pytest.raises(DatabaseWentBack):
        owner.check_ownership()
    accounts[name] = row._replace(epoch=row.epoch - 1)
    with pytest.raises(DatabaseWentBack):
        owner.check_ownership()
    accounts[name] = row
    backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(FencedOut):
        owner.check_ownership()
    backend.delete_account(ALICE)
    with pytest.raises(AccountNotFound):
        owner.check_ownership()


def test_devices_and_rooms_are_refused_when_they_cannot_be_read() -> None:
    assert Device.when_unreadable is EncryptedRoom.when_unreadable is Unreadable.REFUSE
