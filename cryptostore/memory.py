"""The executable model: a backend in a few dictionaries, to read beside the interface and to test against.

`memory://` is a database of its own; every `memory://NAME` of a process is the same one, until the process ends.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from .capabilities import FULL, Capability, Claim, Support
from .changes import Changes
from .errors import AccountNotFound, BackendUnavailable, FencedOut
from .hookspecs import hookimpl
from .interface import INTERFACE_VERSION, Backend, CryptoStore, Health, Mode, Ownership, Schema
from .lifecycle import OpenFlag
from .plugins import BackendPlugin
from .records import Account, Key, Record, check_key, check_prefix, sort_key
from .sequence import Batch
from .urls import CommonOptions, options_of, refuse_unknown

R = TypeVar("R", bound=Record)

_PAGE: Final = 1_000


class Table:
    """The records of one kind, by key; their order is worked out when it is asked for."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self._order: list[tuple[tuple[bytes | int, ...], Key]] | None = None

    def put(self, record: Record) -> None:
        if record.key not in self.records:
            self._order = None
        self.records[record.key] = record

    def delete(self, key: Key) -> None:
        if self.records.pop(key, None) is not None:
            self._order = None

    def page(self, prefix: Key, after: Key | None = None, size: int | None = None) -> list[Any]:
        """Up to `size` records under `prefix`, in key order, beginning above `after`."""
        if self._order is None:
            self._order = sorted((sort_key(key), key) for key in self.records)
        if after is None:
            start = bisect_left(self._order, sort_key(prefix), key=lambda entry: entry[0])
        else:
            start = bisect_right(self._order, sort_key(after), key=lambda entry: entry[0])
        page: list[Any] = []
        for position in range(start, len(self._order)):
            key = self._order[position][1]
            if key[: len(prefix)] != prefix or len(page) == size:
                break
            page.append(self.records[key])
        return page


@dataclass
class AccountRow:
    """One account: who owns it, and its tables."""

    ownership: Ownership
    tables: dict[type[Record], Table] = field(default_factory=dict)

    def table(self, kind: type[Record]) -> Table:
        return self.tables.setdefault(kind, Table())


class Database:
    """What the handles of one in-memory database share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: dict[Account, AccountRow] = {}

    def take_over(self, account: Account, owner: str) -> AccountRow:
        """Raise the account's epoch, creating the account if need be."""
        now = datetime.now(UTC)
        row = self.rows.setdefault(account, AccountRow(Ownership(0, 0, owner, now)))
        row.ownership = replace(row.ownership, epoch=row.ownership.epoch + 1, owner=owner, since=now)
        return row

    def find(self, account: Account) -> AccountRow:
        """The account's row. Raises AccountNotFound."""
        try:
            return self.rows[account]
        except KeyError:
            raise AccountNotFound.missing(account) from None


class MemoryStore(CryptoStore):
    """One account in a `Database`."""

    def __init__(
        self, database: Database, row: AccountRow, account: Account, mode: Mode, deadline: float, backend: OpenFlag
    ) -> None:
        super().__init__(account, mode, row.ownership, deadline, backend)
        self._database = database
        self._row = row

    def get(self, kind: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        self._is_open.check()
        wanted = [check_key(kind, key) for key in keys]
        with self._database.lock:
            records: dict[Key, Any] = self._row.table(kind).records
            return {key: records[key] for key in wanted if key in records}

    def select(self, kind: type[R], prefixes: Iterable[Key]) -> dict[Key, list[R]]:
        self._is_open.check()
        wanted = [check_prefix(kind, prefix) for prefix in prefixes]
        with self._database.lock:
            return {prefix: self._row.table(kind).page(prefix) for prefix in wanted}

    def scan(self, kind: type[R], prefix: Key = ()) -> Iterator[R]:
        self._is_open.check()
        return self._pages(kind, check_prefix(kind, prefix))

    def _pages(self, kind: type[R], prefix: Key) -> Iterator[R]:
        after: Key | None = None
        while True:
            self._is_open.check()
            with self._database.lock:
                page: list[R] = self._row.table(kind).page(prefix, after, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].key

    def commit(self, batch: Batch, timeout: float) -> None:
        self._is_open.check()
        if not self._database.lock.acquire(timeout=timeout):
            raise BackendUnavailable("the in-memory database was busy until the deadline")
        try:
            if self._expects(batch):
                self._put_and_delete(batch.changes)
                self._row.ownership = replace(self._row.ownership, sequence=batch.number)
        finally:
            self._database.lock.release()

    def _expects(self, batch: Batch) -> bool:
        """Whether the batch is the next one; False for one that was committed. Raises what `commit` raises."""
        if self._database.rows.get(self.account) is not self._row:
            raise AccountNotFound.deleted(self.account)
        now = self._row.ownership
        if now.epoch == self.ownership.epoch and batch.number in (now.sequence, now.sequence + 1):
            return batch.number == now.sequence + 1
        raise FencedOut.by(now.owner, now.since, self.account)

    def _put_and_delete(self, changes: Changes) -> None:
        for kind in changes.kinds():
            table = self._row.table(kind)
            for record in changes.puts(kind):
                table.put(record)
            for key in changes.deletes(kind):
                table.delete(key)


class MemoryBackend(Backend):
    """A handle on a `Database`."""

    def __init__(self, database: Database, common: CommonOptions) -> None:
        self._database = database
        self._common = common
        self._is_open = OpenFlag("the in-memory backend")

    def open_store(self, account: Account, mode: Mode = Mode.OWN) -> CryptoStore:
        self._is_open.check()
        with self._database.lock:
            if mode is Mode.OWN:
                row = self._database.take_over(account, self._common.owner)
            else:
                row = self._database.find(account)
        return MemoryStore(self._database, row, account, mode, self._common.deadline, self._is_open)

    def accounts(self) -> dict[Account, Ownership]:
        self._is_open.check()
        with self._database.lock:
            ordered = sorted(self._database.rows, key=lambda account: sort_key((account.user_id, account.device_id)))
            return {account: self._database.rows[account].ownership for account in ordered}

    def delete_account(self, account: Account) -> None:
        self._is_open.check()
        with self._database.lock:
            self._database.find(account)
            del self._database.rows[account]

    def health(self) -> Health:
        self._is_open.check()
        return Health(server="memory", writable=True)

    def schema(self) -> Schema:
        self._is_open.check()
        return Schema(version=1, min_compatible=1)

    def close(self) -> None:
        self._is_open.close()


_named: Final[dict[str, Database]] = {}
_naming: Final = threading.Lock()


def open_memory(url: str, /, **options: Any) -> MemoryBackend:
    """Open `memory://` or `memory://NAME`."""
    remaining = options_of(url, options)
    common = CommonOptions.take_from(remaining)
    refuse_unknown(remaining, "deadline, owner")
    name = urlsplit(url).netloc
    with _naming:
        database = _named.setdefault(name, Database()) if name else Database()
    return MemoryBackend(database, common)


@hookimpl
def cryptostore_backends() -> Iterable[BackendPlugin]:
    """The in-memory backend."""
    gone = Claim(Support.UNSUPPORTED, "the database is gone with its process")
    here = {
        Capability.FENCING: FULL,
        Capability.SNAPSHOT_READS: FULL,
        Capability.BOUNDED_SCAN: FULL,
        Capability.SURVIVES_PROCESS_KILL: gone,
        Capability.SURVIVES_POWER_LOSS: gone,
        Capability.SURVIVES_SERVER_RESTART: Claim(Support.UNSUPPORTED, "there is no server"),
        Capability.SEVERAL_PROCESSES: Claim(Support.UNSUPPORTED, "each process has a database of its own"),
        Capability.SECURE_DELETE: Claim(Support.UNSUPPORTED, "Python does not overwrite freed memory"),
        Capability.TLS: Claim(Support.UNSUPPORTED, "there is no network"),
    }
    return [BackendPlugin("memory", INTERFACE_VERSION, open_memory, here)]
