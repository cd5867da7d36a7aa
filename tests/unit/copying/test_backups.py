"""An account as a file, and back: whole or not at all, and never over another."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from copied import PLAIN, RECORDS, Handle, Killed, contents, handle, interrupted, is_opened, place, save, token
from cryptostore import (
    AccountElsewhere,
    AccountNotFound,
    AccountRow,
    Changes,
    ConfigurationError,
    FencedOut,
    Mode,
    OutboundGroupSession,
    RestoredAccount,
    Row,
    SyncToken,
    TakeOver,
    TrackedUser,
    UnreadableRecord,
    Value,
    WrongPickleKey,
)
from cryptostore.store import backup_file, backups
from cryptostore.store.backup_file import BackupFile
from cryptostore.store.backups import Restoring, back_up, check, restore
from cryptostore.store.copying import Place, copy
from cryptostore.store.interface import MAX_STORED_BYTES
from cryptostore.store.keys import encode_key
from cryptostore.store.ring import RING_KEYS
from example_records import ALICE, example
from sealed_database import KEY, OTHER_KEY, plant, saved, stored

PASSPHRASE = "a passphrase"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases are cheap, and 30 rows are some batches."""
    monkeypatch.setattr(backup_file, "COST", 10)
    monkeypatch.setattr(backups, "_BATCH_ROWS", 10)


@pytest.fixture
def file(source: Place, tmp_path: Path) -> BackupFile:
    return backed_up(source, tmp_path / "alice.backup")


def backed_up(source: Place, path: Path) -> BackupFile:
    with path.open("xb") as opened:
        counted = back_up(source.backend, ALICE, KEY, PASSPHRASE, opened)
    assert (counted.rows.total(), counted.wrong) == (len(RECORDS), [])
    return BackupFile(path, PASSPHRASE)


def restored(file: BackupFile, into: Place, watching: Restoring | None = None) -> backups.Counted:
    done = restore(file, check(file), into.backend, into.url, OTHER_KEY, watching)
    assert done.is_complete == (not done.counted.wrong)
    return done.counted


def made_safe(where: Place) -> bool:
    with where.backend.open_store(ALICE, Mode.READ, pickle_key=OTHER_KEY) as store:
        return store.get(RestoredAccount, [()])[()].is_disarmed


def refused(source: Place, error: type[Exception], words: str, pickle_key: str = KEY) -> None:
    with pytest.raises(error, match=words):
        back_up(source.backend, ALICE, pickle_key, PASSPHRASE, io.BytesIO())


def sealed_rows(where: Place) -> dict[bytes, bytes]:
    ours = {*RING_KEYS, encode_key(RestoredAccount, ())}
    return {key: value for key, value in contents(where).items() if key not in ours}


def test_an_account_comes_back_with_the_pickle_key_that_is_given_then(
    source: Place, destination: Place, file: BackupFile
) -> None:
    before = contents(source)
    counted = restored(file, destination)
    assert (counted.rows.total(), counted.wrong) == (len(RECORDS), [])
    assert counted.size == sum(len(key) + len(value) for key, value in sealed_rows(source).items())
    assert contents(source) == before
    assert sealed_rows(destination) == sealed_rows(source)
    with destination.backend.open_store(ALICE, Mode.READ, pickle_key=OTHER_KEY) as store:
        assert store.get(SyncToken, [()])[()].token == "s1"
        assert len(list(store.keys(TrackedUser))) == 30
    assert made_safe(destination)
    with pytest.raises(WrongPickleKey):
        destination.backend.open_store(ALICE, pickle_key=KEY)


def test_what_is_read_is_written_before_the_rest_is_read(
    source: Place, destination: Place, file: BackupFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_file, "_CHUNK_BYTES", 100)
    read, sizes, opened = [0], set(), io.BytesIO()

    def passed(number: int) -> None:
        read.append(read[-1] + number)
        sizes.add(opened.tell())

    back_up(source.backend, ALICE, KEY, PASSPHRASE, opened, passed)
    assert len(read) == len(sizes) + 1 > 4
    file.path.write_bytes(opened.getvalue())
    written: list[int] = []
    restored(BackupFile(file.path, PASSPHRASE), destination, Restoring(written=written.append))
    assert written == [10, 10, 10, 1]


def test_what_is_in_it_can_be_counted(file: BackupFile) -> None:
    passed: list[int] = []
    assert check(file, passed.append).rows.total() == sum(passed) == len(RECORDS)
    assert file.account == ALICE


def test_progress_is_told(source: Place, destination: Place, file: BackupFile) -> None:
    numbers: dict[str, int] = {}

    def counts(name: str) -> Callable[[int], None]:
        numbers[name] = 0
        return lambda number: numbers.update({name: numbers[name] + number})

    check(file, counts("checked"))
    restored(file, destination, Restoring(counts("written"), counts("compared")))
    back_up(source.backend, ALICE, KEY, PASSPHRASE, io.BytesIO(), counts("backed up"))
    rows = len(RECORDS)
    # Both copies of the ring are read over, and the mark.
    assert numbers == {"checked": rows, "written": rows, "compared": rows + 1, "backed up": rows + 2}


def test_accounts_that_cannot_be_backed_up(source: Place, destination: Place) -> None:
    refused(destination, AccountNotFound, "@alice")
    refused(source, WrongPickleKey, "Nothing is damaged", OTHER_KEY)
    destination.backend.open_store(ALICE, pickle_key=KEY).close()
    refused(destination, ConfigurationError, "has no keys yet, so there is nothing to back up")
    interrupted(source, place("other"))
    copy(source, third := place("third"), ALICE, PLAIN)
    refused(source, AccountElsewhere, "was moved to memory://third")
    for key in RING_KEYS:
        del stored(third.backend, ALICE).values[key]
    refused(third, UnreadableRecord, "the key ring of @alice:example.org ALICEDEVICE is missing")


def test_one_that_is_written_to_meanwhile_is_backed_up_as_it_is_at_one_moment(
    source: Place, destination: Place, tmp_path: Path
) -> None:
    batches: list[str] = []

    def disturb(_number: int) -> None:
        batches.append(f"s{len(batches)}")
        # Of the first page and of the last.
        save(source, SyncToken(batches[-1]), Value("batch", "last", batches[-1].encode()))

    with (path := tmp_path / "alice.backup").open("xb") as opened:
        back_up(source.backend, ALICE, KEY, PASSPHRASE, opened, disturb)
    restored(BackupFile(path, PASSPHRASE), destination)
    assert len(batches) > 2
    with destination.backend.open_store(ALICE, Mode.READ, pickle_key=OTHER_KEY) as store:
        assert store.get(SyncToken, [()])[()].token == batches[-1]
        assert store.get(Value, [("batch", "last")])["batch", "last"].value == batches[-1].encode()


def test_a_large_one_that_is_written_to_meanwhile_is_no_backup(source: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "_MOST_AT_ONE_MOMENT", 1_000)
    with pytest.raises(ConfigurationError, match="was written to while it was backed up, and is too large"):
        back_up(source.backend, ALICE, KEY, PASSPHRASE, io.BytesIO(), lambda _number: save(source, SyncToken("s2")))


def test_one_that_is_deleted_meanwhile_is_no_backup(source: Place) -> None:
    with pytest.raises(AccountNotFound, match="@alice"):
        back_up(
            source.backend, ALICE, KEY, PASSPHRASE, io.BytesIO(), lambda _number: source.backend.delete_account(ALICE)
        )


def test_a_record_that_cannot_be_read_is_kept_and_named(source: Place, destination: Place, tmp_path: Path) -> None:
    damaged = encode_key(TrackedUser, ("@7:x",))
    plant(source.backend, ALICE, damaged, b"damaged")
    path = tmp_path / "alice.backup"
    with path.open("xb") as opened:
        counted = back_up(source.backend, ALICE, KEY, PASSPHRASE, opened)
    assert [each.key for each in counted.wrong] == [damaged]
    assert restored(BackupFile(path, PASSPHRASE), destination).wrong == []
    assert contents(destination)[damaged] == b"damaged"


@pytest.mark.parametrize(
    "stray",
    [
        Row(b"\xff\x01", b"x"),
        Row(b"\x00\x00", b"x"),
        Row(b"\x04" * 1_025, b"x"),
        Row(b"\x04" * 70_000, b"x"),
        Row(b"\xfe", bytes(MAX_STORED_BYTES + 1)),
    ],
    ids=lambda row: f"{row.key[:2].hex()}, {len(row.key)}, {len(row.value)}",
)
def test_a_row_that_is_no_records_is_left_out_and_named(
    source: Place, destination: Place, tmp_path: Path, stray: Row
) -> None:
    plant(source.backend, ALICE, *stray)
    with (path := tmp_path / "alice.backup").open("xb") as opened:
        counted = back_up(source.backend, ALICE, KEY, PASSPHRASE, opened)
    assert counted.wrong == [(stray.key, "is no record's, and was left out")]
    assert counted.rows.total() == len(RECORDS)
    assert restored(BackupFile(path, PASSPHRASE), destination).wrong == []
    del stored(source.backend, ALICE).values[stray.key]
    assert sealed_rows(destination) == sealed_rows(source)


def test_a_database_that_has_the_account_is_left_alone(destination: Place, file: BackupFile) -> None:
    save(destination, SyncToken("its own"))
    before = contents(destination)
    with pytest.raises(ConfigurationError, match=r"is in memory://destination already, and nothing of it is replaced"):
        restored(file, destination)
    assert contents(destination) == before
    assert token(destination) == "its own"


def test_an_account_that_was_only_opened_is_none(destination: Place, file: BackupFile) -> None:
    destination.backend.open_store(ALICE, pickle_key=KEY).close()
    assert restored(file, destination).wrong == []


def test_what_a_move_left_and_a_copy_that_is_not_complete_are_left_alone(
    source: Place, destination: Place, file: BackupFile
) -> None:
    interrupted(source, destination)
    with pytest.raises(AccountElsewhere, match="is not complete here: run the same `cryptostore copy` again"):
        restored(file, destination)
    copy(source, destination, ALICE, PLAIN)
    with pytest.raises(AccountElsewhere, match="was moved to memory://destination"):
        restored(file, source)


def test_a_file_whose_name_is_no_text(destination: Place, file: BackupFile) -> None:
    odd = file.path.rename(file.path.with_name(os.fsdecode(b"\xff.backup")))
    assert restored(BackupFile(odd, PASSPHRASE), destination).wrong == []


def test_a_damaged_file_writes_nothing(destination: Place, file: BackupFile) -> None:
    file.path.write_bytes(file.path.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match="is damaged"):
        restored(file, destination)
    assert destination.backend.accounts() == {}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_commit_loses_nothing(source: Place, file: BackupFile, moment: str) -> None:
    kills = 0
    while True:
        destination = place("destination")
        if not is_killed(handle(destination), moment, kills, lambda: restored(file, destination)):  # noqa: B023  # called at once
            break
        kills += 1
        again = (
            restore(file, check(file), destination.backend, "", OTHER_KEY) if kills < 8 or moment == "before" else None
        )
        assert again is None or again.is_complete
        assert again is None or again.counted.rows.total() == len(RECORDS)
        assert again is None or again.is_finished == (kills > (5 if moment == "after" else 6))
        assert made_safe(destination)
        assert sealed_rows(destination) == sealed_rows(source)
    # Its mark, four batches of rows, the ring, and both marks of an account whose backup was put back.
    assert kills == 8


def is_killed(where: Handle, moment: str, number: int, call: Callable[[], object]) -> bool:
    def kill(at: int) -> None:
        if at == number:
            raise Killed

    setattr(where, moment, kill)
    try:
        call()
    except Killed:
        setattr(where, moment, lambda _number: None)
        return True
    return False


def test_one_that_is_not_complete_cannot_be_opened_and_says_so(destination: Place, file: BackupFile) -> None:
    assert is_killed(handle(destination), "before", 2, lambda: restored(file, destination))
    with pytest.raises(
        AccountElsewhere, match=r"is not restored here completely: run the same `cryptostore restore` of"
    ):
        destination.backend.open_store(ALICE, pickle_key=OTHER_KEY)
    with pytest.raises(AccountElsewhere, match="begins anew; the file has everything"):
        copy(destination, place("third"), ALICE, PLAIN)


def test_rows_that_are_not_the_same_afterwards(destination: Place, file: BackupFile) -> None:
    def lose(number: int) -> None:
        if number == 4:
            rows = stored(destination.backend, ALICE)
            rows.delete(encode_key(TrackedUser, ("@7:x",)))
            rows.put(Row(encode_key(TrackedUser, ("@6a:x",)), b"added"))
            rows.put(Row(encode_key(SyncToken, ()), b"changed"))

    handle(destination).before = lose
    counted = restored(file, destination)
    assert [(each.key[0], each.reason) for each in counted.wrong] == [
        (SyncToken.kind_number, "is not the same at the destination"),
        (TrackedUser.kind_number, "is at the destination alone"),
        (TrackedUser.kind_number, "is missing at the destination"),
    ]
    assert not is_opened(destination)


def test_a_ring_that_is_not_the_same_afterwards(destination: Place, file: BackupFile) -> None:
    def change(number: int) -> None:
        if number == 5:
            stored(destination.backend, ALICE).values[RING_KEYS[0]] = b"changed"

    handle(destination).after = change
    assert [each.key for each in restored(file, destination).wrong] == [RING_KEYS[0]]


def test_two_restores_at_the_same_time(destination: Place, file: BackupFile) -> None:
    def again(number: int) -> None:
        if number == 2:
            handle(destination).before = lambda _number: None
            assert restored(file, destination).wrong == []

    handle(destination).before = again
    with pytest.raises((FencedOut, AccountNotFound)):
        restored(file, destination)
    with destination.backend.open_store(ALICE, Mode.READ, pickle_key=OTHER_KEY) as store:
        assert len(list(store.keys(TrackedUser))) == 30


def test_an_account_that_comes_meanwhile_is_left_alone(
    destination: Place, file: BackupFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_over = destination.backend.database.take_over

    def come(user_id: str, device_id: str, claim: TakeOver, timeout: float) -> AccountRow:
        monkeypatch.setattr(destination.backend.database, "take_over", take_over)
        saved(destination.backend, SyncToken("its own"))
        return take_over(user_id, device_id, claim, timeout)

    monkeypatch.setattr(destination.backend.database, "take_over", come)
    with pytest.raises(ConfigurationError, match=r"another program wrote to .* at the same time"):
        restored(file, destination)
    assert token(destination) == "its own"


def test_large_values_are_written_in_batches_of_some_bytes(
    destination: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "_BATCH_BYTES", 1)
    large = place("large")
    save(large, *RECORDS)
    file = backed_up(large, tmp_path / "alice.backup")
    assert restored(file, destination).wrong == []
    assert handle(destination).commits > 10


def test_sessions_that_could_encrypt_are_made_safe(source: Place, destination: Place, tmp_path: Path) -> None:
    with source.backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([example(OutboundGroupSession)]))
    path = tmp_path / "alice.backup"
    with path.open("xb") as opened:
        back_up(source.backend, ALICE, KEY, PASSPHRASE, opened)
    file = BackupFile(path, PASSPHRASE)
    done = restore(file, check(file), destination.backend, destination.url, OTHER_KEY)
    assert done.made_safe == {"outbound_group_session": 1}
