"""One whole account as a file that its passphrase opens, and back into a database of any backend.

A backup takes nothing over. It holds the rows as they are stored, at one moment, and the key ring, so the pickle key is
not needed to restore it: the ring is wrapped with the pickle key that is given then. Of an account that was written to
while its rows were streamed, they are read once more, all at one moment.

The order makes a restored account whole or none at all, wherever it is interrupted:

1. The whole file is read once (`check`), so that one that is damaged writes nothing.
2. The account gets a mark, which keeps it from being opened, and then all rows but the key ring's.
3. They are read once more, and compared with the file.
4. The account gets the key ring, and loses its mark, in one batch. The same batch says that a backup was put back, with
   which no client opens it until it is made safe.
5. It is made safe, as `cryptostore restored` does.

After an interruption the same call begins anew, or in the last step completes it: the file has everything.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Final, NamedTuple

from cryptostore.errors import AccountElsewhere, AccountNotFound, ConfigurationError, UnreadableRecord, WrongPickleKey
from cryptostore.records.kinds import RestoredAccount
from cryptostore.records.record import Account

from .account_keys import AccountKeys, missing_ring
from .backend import Backend
from .backup_file import BackupFile, BackupWriter, is_backed_up
from .comparing import Different, compared, copied_rows, note, note_changed
from .interface import AccountRow, Row
from .keys import encode_key
from .marks import MARK_KEY, Mark, Whereabouts, elsewhere, encode_mark
from .ownership import Mode
from .restoring import mark_restored
from .ring import wrap
from .row_batches import batches_of
from .seal import Seal
from .sealed_account import SealedAccount
from .sealing import problem_of
from .values import encode_value

#: What one batch holds at most: rows, and bytes of values.
_BATCH_ROWS: Final = 2_000
_BATCH_BYTES: Final = 4 * 1024 * 1024
#: What is read of an account at one moment at most: bytes of keys and values.
_MOST_AT_ONE_MOMENT: Final = 64 * 1024 * 1024

#: Called with numbers of rows.
Passed = Callable[[int], None]


def _unwatched(_number: int) -> None:
    """Nobody wants to know how far it is."""


class Restoring(NamedTuple):
    """What is called as a restore gets on, with numbers of rows."""

    written: Passed = _unwatched
    compared: Passed = _unwatched


@dataclass
class Counted:
    """How many rows of each kind number there were, their bytes of keys and values, and which were not as they should.

    Of `wrong` rows the first 10,000 are named: in a backup those that cannot be read, which it holds as they are, and
    those that are no record's, which it has not got; of a restore those that differ, after which it is not complete.
    """

    rows: Counter[int] = field(default_factory=Counter)
    size: int = 0
    wrong: list[Different] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows[row.key[0]] += 1
        self.size += len(row.key) + len(row.value)


@dataclass(frozen=True)
class Restored:
    """What a restore counted, and how many records of each kind were made safe.

    `is_finished` says that the account was there, and was not made safe yet: an earlier restore lacked the last step.
    """

    counted: Counted
    made_safe: Counter[str]
    is_finished: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the account can be used."""
        return not self.counted.wrong


def back_up(
    backend: Backend,
    account: Account,
    pickle_key: str,
    passphrase: str,
    file: IO[bytes],
    passed: Passed = _unwatched,
) -> Counted:
    """Write one account to what was opened for it. Takes nothing over, and changes nothing.

    In bounded memory, unless the account is written to meanwhile: then up to 64 MiB of it are in memory at one moment.

    Raises AccountNotFound, AccountElsewhere for an account that is not at home here, WrongPickleKey, UnreadableRecord
    for a key ring that is missing or damaged; ConfigurationError for an account without rows, and for a larger one that
    was written to meanwhile: what is in the file then is no backup.
    """
    stored = backend.sealed(account)
    # First: while the passphrase is stretched, the account may be written to.
    writer = BackupWriter(file, account, passphrase, datetime.now(UTC))
    seen = _found(stored)
    keys = _unlocked(stored, pickle_key, lambda wanted: [Row(*each) for each in stored.get(wanted).items()])
    counted = _write(writer, keys, copied_rows(stored.pages(), passed))
    now = _found(stored)
    if (now.id, now.sequence) == (seen.id, seen.sequence):
        return counted
    if counted.size > _MOST_AT_ONE_MOMENT:
        raise ConfigurationError(
            f"{account} was written to while it was backed up, and is too large to be read at one moment, so there is "
            "no backup. Stop its client, or try again at a moment when it is quiet"
        )
    file.seek(0)
    file.truncate()
    return _write_snapshot(BackupWriter(file, account, passphrase, datetime.now(UTC)), stored, pickle_key)


def _write_snapshot(writer: BackupWriter, stored: SealedAccount, pickle_key: str) -> Counted:
    rows = stored.snapshot()
    values = dict(rows)
    keys = _unlocked(stored, pickle_key, lambda wanted: [Row(key, values[key]) for key in wanted if key in values])
    return _write(writer, keys, copied_rows([rows]))


def _unlocked(stored: SealedAccount, pickle_key: str, read: Callable[[Sequence[bytes]], Sequence[Row]]) -> AccountKeys:
    keys = AccountKeys(stored.account, pickle_key, read)
    if not keys.load():
        if _found(stored).sequence:
            raise UnreadableRecord(missing_ring(stored.account))
        raise ConfigurationError(f"{stored.account} has no keys yet, so there is nothing to back up")
    return keys


def _write(writer: BackupWriter, keys: AccountKeys, rows: Iterable[Row]) -> Counted:
    counted = Counted()
    writer.write_ring(keys.ring)
    for row in rows:
        if not is_backed_up(row):
            note(counted.wrong, row.key, "is no record's, and was left out")
            continue
        writer.write(row)
        counted.add(row)
        if problem := problem_of(row, keys):
            note(counted.wrong, row.key, problem)
    writer.end()
    return counted


def check(file: BackupFile, passed: Passed = _unwatched) -> Counted:
    """Read the whole file, and count what is in it. Raises as `BackupFile.rows` does."""
    counted = Counted()
    for row in file.rows():
        counted.add(row)
        passed(1)
    return counted


def check_place(backend: Backend, url: str, account: Account) -> None:
    """Raise ConfigurationError where the database has the account, and AccountElsewhere where it was left there."""
    stored = backend.sealed(account)
    found = stored.find()
    if found is None:
        return
    mark = stored.mark()
    if mark is None and (found.sequence or next(stored.pages(), [])):
        raise ConfigurationError(
            f"{account} is in {url} already, and nothing of it is replaced: restore into another database, or, if what "
            "is there is not needed, delete it with `cryptostore delete`"
        )
    if mark is not None and mark.whereabouts is not Whereabouts.RESTORING:
        raise elsewhere(account, mark)


def restore(
    file: BackupFile,
    checked: Counted,
    backend: Backend,
    url: str,
    pickle_key: str,
    watching: Restoring | None = None,
) -> Restored:
    """Write the account to a database that has not got it, wrapped with this pickle key, and make it safe.

    `checked` is what `check` found in the file. Atomicity: as the module says. Raises as `check_place` does, before
    anything is written; FencedOut where another program restores it at the same time; what the backend raises.
    """
    passed = watching or Restoring()
    if _lacks_the_last_step(backend, file.account, pickle_key):
        return Restored(checked, _made_safe(backend, file.account, pickle_key), is_finished=True)
    check_place(backend, url, file.account)
    stored = backend.sealed(file.account)
    # Names of files need not be UTF-8.
    _begin(stored, os.fsencode(file.path).decode(errors="backslashreplace"))
    for rows in batches_of(file.rows(), _BATCH_ROWS, _BATCH_BYTES):
        stored.write(rows)
        passed.written(len(rows))
    counted = Counted()
    for row, difference in compared(file.rows(), copied_rows(stored.pages(), passed.compared)):
        counted.add(row)
        if difference:
            note(counted.wrong, row.key, difference)
    if not counted.wrong:
        _complete(stored, file, pickle_key, counted)
    return Restored(counted, Counter() if counted.wrong else _made_safe(backend, file.account, pickle_key))


def _lacks_the_last_step(backend: Backend, account: Account, pickle_key: str) -> bool:
    with suppress(AccountNotFound, AccountElsewhere, WrongPickleKey, UnreadableRecord):
        with backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store:
            found = store.get(RestoredAccount, [()]).get(())
        return found is not None and not found.is_disarmed
    return False


def _made_safe(backend: Backend, account: Account, pickle_key: str) -> Counter[str]:
    with backend.open_store(account, pickle_key=pickle_key) as store:
        return mark_restored(store)


def _found(stored: SealedAccount) -> AccountRow:
    found = stored.find()
    if found is None:
        raise AccountNotFound.missing(stored.account)
    return found


def _begin(stored: SealedAccount, place: str) -> None:
    """Leave nothing of an earlier restore, and mark the account."""
    owned = stored.take_over()
    # Only after that, so that no other program can complete it any more.
    mark = stored.mark()
    if mark is not None and mark.whereabouts is Whereabouts.RESTORING:
        stored.delete()
        owned = stored.take_over()
    if owned.sequence:
        raise ConfigurationError(f"another program wrote to {stored.account} at the same time; stop it, and try again")
    mark = Mark(Whereabouts.RESTORING, 0, 0, place, datetime.now(UTC))
    stored.write([Row(MARK_KEY, encode_mark(stored.account, mark))])


def _complete(stored: SealedAccount, file: BackupFile, pickle_key: str, counted: Counted) -> None:
    ring = file.ring().rewrapped()
    key, mark = encode_key(RestoredAccount, ()), encode_value(RestoredAccount(datetime.now(UTC)))
    rows = wrap(file.account, ring, pickle_key) | {key: Seal(file.account, ring.data_keys).seal(key, mark)}
    stored.write([Row(*each) for each in sorted(rows.items())], deletes=[MARK_KEY])
    note_changed(counted.wrong, rows, stored.get(sorted([*rows, MARK_KEY])))
