"""The SQLite backend against the contract."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from cryptostore import Account, FieldType, Key, Record, fields_of
from cryptostore_contract import Ability, Harness, StoreContract, managed, not_verified

#: SQL for a value that the column takes and the record does not.
_DAMAGED: Final[Mapping[FieldType, str]] = {
    FieldType.IDENTIFIER: "''",
    FieldType.TEXT: "CAST(x'ff' AS TEXT)",
    FieldType.FLAG: "2",
    FieldType.COUNT: "-1",
    FieldType.TIME: "9223372036854775807",
    FieldType.NAMES: "'no json'",
    FieldType.SCALARS: "'no json'",
    FieldType.PAIRS: "'no json'",
    FieldType.TRUST: "'a stranger''s word'",
}

#: Bytes that a file may have on the full disk: more than any of the database's files has then, less than a megabyte.
_ROOM: Final = 512 * 1024


class SQLiteHarness(Harness):
    name = "sqlite"
    abilities = frozenset(
        {
            Ability.REOPEN,
            Ability.OTHER_PROCESS,
            Ability.RAW_STORAGE,
            Ability.DAMAGE,
            Ability.NEWER_SCHEMA,
            Ability.FULL_DISK,
        }
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keys.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def raw_storage(self) -> bytes:
        # In a process of its own: closing the files in this one would drop the locks that SQLite has on them.
        files = sorted(self._path.parent.glob(f"{self._path.name}*"))
        return subprocess.run(["cat", *files], check=True, capture_output=True).stdout

    def damage(self, account: Account, kind: type[Record], key: Key) -> None:
        fields = [field for field in fields_of(kind) if field.name not in kind.key_fields and field.type in _DAMAGED]
        assert fields, f"every {kind.kind_name} that the table can hold is readable"
        change = ", ".join(f'"{field.name}" = {_DAMAGED[field.type]}' for field in fields)
        whose = "account_id = (SELECT id FROM accounts WHERE user_id = ? AND device_id = ?)"
        where = "".join(f' AND "{name}" = ?' for name in kind.key_fields)
        sql = f"UPDATE {kind.kind_name} SET {change} WHERE {whose}{where}"
        changed = self._execute(f"{sql} RETURNING 1", account.user_id, account.device_id, *key)
        assert len(changed) == 1, f"there is no such {kind.kind_name}"

    def claim_newer_schema(self) -> None:
        self._execute("UPDATE schema_version SET version = 99, min_compatible = 99")

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        # A limit on file sizes needs no rights, acts on connections that are open, and is an error of write(2), too.
        [(busy, _, _)] = self._execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert not busy
        before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM, most))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))

    def close(self) -> None:
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink()

    def _execute(self, sql: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()


class TestSQLite(StoreContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Harness]:
        yield from managed(SQLiteHarness(tmp_path))


def test_what_sqlite_leaves_unverified() -> None:
    assert not_verified(StoreContract, SQLiteHarness) == frozenset()
