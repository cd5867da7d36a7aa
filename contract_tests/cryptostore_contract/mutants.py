"""Deliberately broken stores: the in-memory model with one bug each, and the case that finds it.

A suite that has only ever seen good stores has proved nothing about itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from cryptostore import (
    Account,
    BackendUnavailable,
    Batch,
    Changes,
    CryptoStore,
    FieldType,
    InboundGroupSession,
    Key,
    Mode,
    Record,
    fields_of,
    memory,
)
from cryptostore.lifecycle import OpenFlag
from cryptostore.memory import AccountRow, Database, MemoryBackend, MemoryStore, Table

Break = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """One bug, how to put it into the in-memory model, and the ID of the case that finds it."""

    name: str
    killed_by: str
    apply: Break


MUTANTS: Final[list[Mutant]] = []


def mutant(killed_by: str) -> Callable[[Break], Break]:
    """Make a function that breaks the model one of the mutants."""

    def add(function: Break) -> Break:
        MUTANTS.append(Mutant(function.__name__, killed_by, function))
        return function

    return add


def _put(patch: pytest.MonkeyPatch, spoilt: Callable[[Table, Record], Record]) -> None:
    """Let the model store something else than the record that was put."""
    original = Table.put
    patch.setattr(Table, "put", lambda table, record: original(table, spoilt(table, record)))


def _key(patch: pytest.MonkeyPatch, spoilt: Callable[[str], str]) -> None:
    """Let the model take some keys for others."""

    class SpoiltKeys(dict[Key, Record]):
        def __setitem__(self, key: Key, record: Record) -> None:
            super().__setitem__(like(key), record)

        def __getitem__(self, key: Key) -> Record:
            return super().__getitem__(like(key))

        def __contains__(self, key: object) -> bool:
            return super().__contains__(like(key))

        def pop(self, key: Key, *default: Any) -> Any:
            return super().pop(like(key), *default)

    def like(key: Any) -> Key:
        return tuple(spoilt(value) if isinstance(value, str) else value for value in key)

    original = Table.__init__

    def init(table: Table) -> None:
        original(table)
        table.records = SpoiltKeys()

    patch.setattr(Table, "__init__", init)


def _fields(record: Record, field_type: FieldType, spoilt: Callable[[Any], Any]) -> Record:
    names = [name for name, declared in fields_of(type(record)) if declared is field_type]
    return replace(record, **{name: spoilt(getattr(record, name)) for name in names if name not in record.key_fields})


@mutant("NUMBERING-1")
def no_sequence_number(patch: pytest.MonkeyPatch) -> None:
    """A batch that is sent twice commits twice."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        original(store, batch._replace(number=store._row.ownership.sequence + 1))
        return True

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("NUMBERING-2")
def late_batch_accepted(patch: pytest.MonkeyPatch) -> None:
    """Old bytes that come out of the network commit over new ones."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        if batch.number < store._row.ownership.sequence:
            return True
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("NUMBERING-3")
def gap_accepted(patch: pytest.MonkeyPatch) -> None:
    """A batch commits although the one before it never came."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        return batch.number > store._row.ownership.sequence + 1 or original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("OWNERSHIP-1")
def epoch_not_checked(patch: pytest.MonkeyPatch) -> None:
    """An owner who was taken over goes on writing."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        store.ownership = replace(store.ownership, epoch=store._row.ownership.epoch)  # type: ignore[misc]  # the bug
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("OWNERSHIP-8")
def epoch_checked_by_number_only(patch: pytest.MonkeyPatch) -> None:
    """The number is checked, and the epoch not: a fenced owner's next number passes."""

    def expects(store: MemoryStore, batch: Batch) -> bool:
        return batch.number == store._row.ownership.sequence + 1

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("OWNERSHIP-4")
def epoch_not_raised(patch: pytest.MonkeyPatch) -> None:
    """Two owners share an epoch."""
    original = Database.take_over

    def take_over(database: Database, account: Account, owner: str) -> AccountRow:
        row = original(database, account, owner)
        row.ownership = replace(row.ownership, epoch=1)
        return row

    patch.setattr(Database, "take_over", take_over)


@mutant("OWNERSHIP-6")
def reader_takes_over(patch: pytest.MonkeyPatch) -> None:
    """Looking at an account fences its owner."""
    patch.setattr(Database, "find", lambda database, account: database.take_over(account, "reader"))


@mutant("CONCURRENCY-5")
def reader_sees_half_a_batch(patch: pytest.MonkeyPatch) -> None:
    """The lock is given back in the middle of a batch."""
    original = MemoryStore._put_and_delete

    def put_and_delete(store: MemoryStore, changes: Changes) -> None:
        for kind in changes.kinds():
            puts = changes.puts(kind)
            for part in (puts[: len(puts) // 2], puts[len(puts) // 2 :]):
                original(store, Changes(part))
                store._database.lock.release()
                time.sleep(0.001)
                store._database.lock.acquire()

    patch.setattr(MemoryStore, "_put_and_delete", put_and_delete)


@mutant("BATCHES-3")
def half_batch_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    """What was put before a record that cannot be stored stays."""

    def refused(_table: Table, record: Record) -> Record:
        _fields(record, FieldType.BYTES, bytes.upper)
        return record

    _put(patch, refused)


@mutant("BATCHES-1")
def deletes_ignored(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever deleted."""
    patch.setattr(Table, "delete", lambda _table, _key: None)


@mutant("RECORDS-1")
def acknowledged_and_not_stored(patch: pytest.MonkeyPatch) -> None:
    """An error is swallowed, and the batch with it."""
    patch.setattr(MemoryStore, "_put_and_delete", lambda _store, _changes: None)


@mutant("READING-9")
def prefix_leaks_a_neighbour(patch: pytest.MonkeyPatch) -> None:
    """The prefix ("!a",) selects the room "!ab" as well."""

    def page(table: Table, prefix: Key, after: Key | None = None, size: int | None = None) -> list[Any]:
        keys = sorted(key for key in table.records if after is None or key > after)
        found = [key for key in keys if all(str(one).startswith(str(two)) for one, two in zip(key, prefix))]  # noqa: B905  # a prefix is shorter
        return [table.records[key] for key in found[:size]]

    patch.setattr(Table, "page", page)


@mutant("READING-7")
def integers_ordered_as_text(patch: pytest.MonkeyPatch) -> None:
    """10 comes before 2."""
    patch.setattr(memory, "sort_key", lambda key: tuple(str(value).encode() for value in key))


@mutant("READING-6")
def keys_ordered_by_utf_16(patch: pytest.MonkeyPatch) -> None:
    """An astral character comes before a private one."""
    patch.setattr(
        memory,
        "sort_key",
        lambda key: tuple(value.encode("utf-16-be") if isinstance(value, str) else value for value in key),
    )


@mutant("READING-1")
def case_of_ids_folded(patch: pytest.MonkeyPatch) -> None:
    """A collation takes "!A" for "!a"."""
    _key(patch, str.casefold)


@mutant("READING-1")
def blanks_of_ids_trimmed(patch: pytest.MonkeyPatch) -> None:
    """A column of fixed width takes "!a " for "!a"."""
    _key(patch, lambda text: text.rstrip(" ") or text)


@mutant("RECORDS-4")
def overlong_ids_truncated(patch: pytest.MonkeyPatch) -> None:
    """A column of 250 bytes."""
    _key(patch, lambda text: text.encode()[:250].decode(errors="ignore"))


@mutant("RECORDS-7")
def chain_order_lost(patch: pytest.MonkeyPatch) -> None:
    """Names come back sorted."""
    _put(patch, lambda _table, record: _fields(record, FieldType.NAMES, sorted))


@mutant("RECORDS-6")
def pickles_truncated(patch: pytest.MonkeyPatch) -> None:
    """A column of 64 KiB."""
    _put(patch, lambda _table, record: _fields(record, FieldType.BYTES, lambda value: value[:65_535]))


@mutant("RECORDS-2")
def text_encoding_lossy(patch: pytest.MonkeyPatch) -> None:
    """What Latin-1 lacks comes back as a question mark."""
    _put(
        patch,
        lambda _table, record: _fields(
            record, FieldType.TEXT, lambda value: value.encode("latin-1", "replace").decode("latin-1")
        ),
    )


@mutant("RECORDS-2")
def microseconds_lost(patch: pytest.MonkeyPatch) -> None:
    """Times are kept in milliseconds."""
    _put(
        patch,
        lambda _table, record: _fields(
            record, FieldType.TIME, lambda time: time.replace(microsecond=time.microsecond // 1_000 * 1_000)
        ),
    )


@mutant("RECORDS-2")
def truths_become_numbers(patch: pytest.MonkeyPatch) -> None:
    """True in a mapping comes back as 1, which Python takes for equal."""

    def number(value: Mapping[str, object]) -> Mapping[str, object]:
        return {name: int(item) if isinstance(item, bool) else item for name, item in value.items()}

    _put(patch, lambda _table, record: _fields(record, FieldType.SCALARS, number))


@mutant("RECORDS-9")
def mappings_merged(patch: pytest.MonkeyPatch) -> None:
    """A put adds to a mapping instead of replacing it."""

    def merged(table: Table, record: Record) -> Record:
        old = table.records.get(record.key)
        if old is None:
            return record
        names = [name for name, declared in fields_of(type(record)) if declared is FieldType.SCALARS]
        return replace(record, **{name: {**getattr(old, name), **getattr(record, name)} for name in names})

    _put(patch, merged)


@mutant("SCANNING-6")
def scan_loads_everything(patch: pytest.MonkeyPatch) -> None:
    """A scan is a select."""
    patch.setattr(MemoryStore, "scan", lambda store, kind, prefix=(): iter(store.select(kind, [prefix])[prefix]))


@mutant("SCANNING-4")
def scan_holds_its_connection(patch: pytest.MonkeyPatch) -> None:
    """A scan keeps its connection until it ends, and a pool has ten."""
    original = MemoryStore._pages

    def pages(store: MemoryStore, kind: type[Record], prefix: Key) -> Iterator[Record]:
        connections = store.__dict__.setdefault("connections", [])
        if len(connections) == 10:
            raise BackendUnavailable("no connection is free")
        connections.append(kind)
        yield from original(store, kind, prefix)
        connections.pop()

    patch.setattr(MemoryStore, "_pages", pages)


@mutant("ISOLATION-1")
def account_missing_from_a_where(patch: pytest.MonkeyPatch) -> None:
    """Tables are shared by all accounts."""
    original = Database.take_over

    def take_over(database: Database, account: Account, owner: str) -> AccountRow:
        row = original(database, account, owner)
        row.tables = next(iter(database.rows.values())).tables
        return row

    patch.setattr(Database, "take_over", take_over)


@mutant("ISOLATION-3")
def neighbour_deleted(patch: pytest.MonkeyPatch) -> None:
    """Deleting a device deletes its user's other devices."""

    def delete_account(backend: MemoryBackend, account: Account) -> None:
        for other in [other for other in backend._database.rows if other.user_id == account.user_id]:
            del backend._database.rows[other]

    patch.setattr(MemoryBackend, "delete_account", delete_account)


@mutant("ISOLATION-3")
def deletion_forgets_a_kind(patch: pytest.MonkeyPatch) -> None:
    """An account that is made anew finds sessions of the old one."""
    left: dict[Account, Table] = {}
    delete, take_over = MemoryBackend.delete_account, Database.take_over

    def delete_account(backend: MemoryBackend, account: Account) -> None:
        left[account] = backend._database.find(account).table(InboundGroupSession)
        delete(backend, account)

    def take_over_again(database: Database, account: Account, owner: str) -> AccountRow:
        row = take_over(database, account, owner)
        row.tables.setdefault(InboundGroupSession, left.get(account, Table()))
        return row

    patch.setattr(MemoryBackend, "delete_account", delete_account)
    patch.setattr(Database, "take_over", take_over_again)


@mutant("ISOLATION-8")
def account_made_anew_taken_for_the_old(patch: pytest.MonkeyPatch) -> None:
    """An owner of a deleted account writes into its successor."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        store._row = store._database.rows.get(store.account, store._row)
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("ISOLATION-7")
def account_deleted_under_its_owner_lives_on(patch: pytest.MonkeyPatch) -> None:
    """A batch makes a deleted account anew."""
    original = MemoryStore._expects

    def expects(store: MemoryStore, batch: Batch) -> bool:
        store._database.rows.setdefault(store.account, store._row)
        return original(store, batch)

    patch.setattr(MemoryStore, "_expects", expects)


@mutant("LIFECYCLE-1")
def closed_store_answers(patch: pytest.MonkeyPatch) -> None:
    """Closing closes nothing."""
    patch.setattr(OpenFlag, "check", lambda _flag: None)


@mutant("SECRETS-1")
def secret_in_a_log_line(patch: pytest.MonkeyPatch) -> None:
    """A debug line shows what is put."""

    def logged(_table: Table, record: Record) -> Record:
        logging.getLogger("cryptostore").debug("put %s", [getattr(record, name) for name, _ in fields_of(type(record))])
        return record

    _put(patch, logged)


@mutant("READING-2")
def absent_keys_answered(patch: pytest.MonkeyPatch) -> None:
    """A key without a record is answered with the last one that was found."""
    original = MemoryStore.get

    def get(store: CryptoStore, kind: type[Record], keys: Iterable[Key]) -> dict[Key, Record]:
        asked = list(keys)
        found = original(store, kind, asked)  # type: ignore[arg-type]  # patched into MemoryStore
        return {key: found.get(key, next(iter(found.values()))) for key in asked} if found else {}

    patch.setattr(MemoryStore, "get", get)


@mutant("ISOLATION-6")
def reader_makes_an_account(patch: pytest.MonkeyPatch) -> None:
    """Looking for an account that is not there creates it."""
    original = MemoryBackend.open_store

    def open_store(backend: MemoryBackend, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        if account not in backend._database.rows:
            backend._database.take_over(account, "")
        return original(backend, account, mode)

    patch.setattr(MemoryBackend, "open_store", open_store)
