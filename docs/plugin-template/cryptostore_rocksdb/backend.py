"""One RocksDB database with any number of accounts."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from rocksdict import WriteBatch

from cryptostore import Account, Backend, Health, Mode, Ownership, Schema
from cryptostore.lifecycle import OpenFlag
from cryptostore.urls import CommonOptions

from . import accounts
from .database import release, shared
from .keys import ACCOUNTS, account_key, end_of, records_prefix
from .store import RocksDBStore


class RocksDBBackend(Backend):
    """A handle on a database, which it shares with the other handles of this process."""

    def __init__(self, path: Path, common: CommonOptions) -> None:
        self._common = common
        self._is_open = OpenFlag(f"the database {path}")
        self._database = shared(path, common.deadline)

    def open_store(self, account: Account, mode: Mode = Mode.OWN) -> RocksDBStore:
        self._is_open.check()
        with self._database.using(self._common.deadline) as opened:
            if mode is Mode.OWN:
                row = accounts.look_up(opened, account) or accounts.new_row()
                row = row.taken_over(self._common.owner)
                opened.commit(WriteBatch(raw_mode=True), account_key(account), row.encode())
            else:
                row = accounts.find(opened, account)
        return RocksDBStore(self._database, row, account, mode, self._common.deadline, self._is_open)

    def accounts(self) -> dict[Account, Ownership]:
        self._is_open.check()
        with self._database.using(self._common.deadline) as opened:
            return dict(accounts.every(opened.range(ACCOUNTS, end_of(ACCOUNTS))))

    def delete_account(self, account: Account) -> None:
        self._is_open.check()
        with self._database.using(self._common.deadline) as opened:
            records = records_prefix(accounts.find(opened, account).id)
            batch = WriteBatch(raw_mode=True)
            batch.delete_range(records, end_of(records))
            opened.commit(batch, account_key(account), None)

    def health(self) -> Health:
        self._is_open.check()
        with self._database.using(self._common.deadline) as opened:
            return Health(f"RocksDB in rocksdict {metadata.version('rocksdict')}", opened.is_writable())

    def schema(self) -> Schema:
        self._is_open.check()
        return self._database.schema

    def close(self) -> None:
        if self._is_open.close():
            release(self._database, self._common.deadline)
