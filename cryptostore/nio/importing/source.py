"""nio's SQLite file, opened for reading and left exactly as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptostore.errors import ConfigurationError, InvalidRecord
from cryptostore.records import Account

from .findings import Findings
from .trust import TrustFiles

Row = Mapping[str, Any]

#: Size and time of the last change of a database and of SQLite's files beside it; None for one that is not there.
FileState = list[tuple[int, int] | None]

#: SQLite's own files beside a database: what is in them is not in the database yet.
_SIDECARS: Final = ("-wal", "-journal")
#: Where the header tells the journal mode, and what stands there for a write-ahead log ("Database File Format", 1.3.3).
_JOURNAL_MODE: Final = slice(18, 20)
_WAL: Final = b"\x02\x02"


#: The tables of matrix-nio's own stores. It keeps nothing in that of tracked users.
_TABLES: Final = frozenset(
    {
        "accounts",
        "devicekeys",
        "devicetruststate",
        "encryptedrooms",
        "forwardedchains",
        "keys",
        "megolminboundsessions",
        "olmsessions",
        "outgoingkeyrequests",
        "storeversion",
        "synctokens",
        "trackedusers",
    }
)
#: SQLite's own tables begin so.
_INTERNAL: Final = "sqlite_"
_VERSIONS: Final = (1, 2)
#: Some of those that stores had until April 2019; their table of accounts has no number, or another name.
_TABLES_OF_2018: Final = frozenset(
    {"device_keys", "inbound_group_sessions", "megolm_inbound_sessions", "olm_sessions", "olmaccount"}
)
#: What nothing can be read without. Other programs have tables of these names, too.
_COLUMNS: Final = {
    "accounts": {"id", "user_id", "device_id", "account", "shared"},
    "keys": {"device_id", "key_type", "key"},
    "devicetruststate": {"device_id", "state"},
}


class SourceAccount(NamedTuple):
    """One row of nio's table of accounts."""

    row_id: int
    account: Account
    shared: bool
    pickle: bytes


class NioFile:
    """The tables of one nio store, of either version of its schema; a table that is not there is empty."""

    def __init__(self, path: Path, connection: sqlite3.Connection, state: FileState) -> None:
        self._path = path
        self._connection = connection
        self._state = state
        try:
            self._tables = {row["name"] for row in self._query("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{path} cannot be read as a SQLite database: {error}") from error
        if not self._tables.isdisjoint(_TABLES_OF_2018):
            raise ConfigurationError(
                f"{path} was written by weechat-matrix or matrix-nio of 2018 or 2019, before nio's present tables, and "
                "is not read. Export the room keys with the program that wrote it, log in as a new device, and take "
                "them in with `cryptostore import-keys`"
            )
        if "accounts" not in self._tables:
            raise ConfigurationError(f"{path} is a SQLite database, but not a store of matrix-nio")
        self._refuse_other_columns()

    def accounts(self, findings: Findings) -> list[SourceAccount]:
        """Every account, in the order of the rows; a row without valid ids becomes a finding."""
        found = []
        for row in self.rows("accounts", findings):
            try:
                account = Account(row["user_id"], row["device_id"])
                found.append(SourceAccount(row["id"], account, bool(row["shared"]), pickle_of(row["account"])))
            except (InvalidRecord, ValueError) as error:
                findings.add(None, "account", f"the row is damaged: {error}", f"row {row['id']}")
        return found

    def rows(self, table: str, findings: Findings, account: SourceAccount | None = None) -> Iterator[Row]:
        """The rows of a table, one account's or all, in the order in which they were written."""
        if table not in self._tables:
            return
        where, values = ("WHERE account_id = ?", (account.row_id,)) if account else ("", ())
        try:
            # The table's name is one of this package's own words.
            for row in self._query(f"SELECT * FROM {table} {where} ORDER BY rowid", values):  # noqa: S608
                yield {name: row[name] for name in row.keys()}  # noqa: SIM118  # a sqlite3.Row iterates over its values
        except sqlite3.DatabaseError:
            reason = "the file is damaged here, and the rest of this table cannot be read"
            findings.add(account.account if account else None, table, reason, "an unknown number of rows")

    def count(self, table: str, account: SourceAccount) -> int:
        """How many rows of a table belong to the account; 0 if that cannot be read."""
        if table in self._tables:
            with contextlib.suppress(sqlite3.DatabaseError):
                statement = f"SELECT count(*) AS rows FROM {table} WHERE account_id = ?"  # noqa: S608  # as above
                return int(self._query(statement, (account.row_id,)).fetchone()["rows"])
        return 0

    def report_what_is_unknown(self, findings: Findings) -> None:
        """Note tables with rows that are not matrix-nio's, and a version that it did not write."""
        for table in sorted(each for each in self._tables - _TABLES if not each.startswith(_INTERNAL)):
            # A double quote in a name is doubled.
            statement = f'SELECT count(*) AS rows FROM "{table.replace(chr(34), chr(34) * 2)}"'  # noqa: S608
            with contextlib.suppress(sqlite3.DatabaseError):
                if count := int(self._query(statement).fetchone()["rows"]):
                    reason = "matrix-nio has no such table, and its rows stay behind"
                    findings.add(None, table, reason, f"{count} rows")
        for row in self.rows("storeversion", findings):
            if row.get("version") not in _VERSIONS:
                reason = "another program than matrix-nio wrote the file, and columns that it added stay behind"
                findings.add(None, "file", reason, f"version {row.get('version')}")

    def trust_files(self, account: Account) -> TrustFiles:
        """The DefaultStore's files about the account; they lie beside the database."""
        return TrustFiles(self._path.parent, account)

    def check_unchanged(self) -> None:
        """Raise ConfigurationError if the file was changed since it was opened."""
        if _state_of(self._path) != self._state:
            raise ConfigurationError(
                f"{self._path} was changed while it was read; stop the client that uses it, then import again"
            )

    def _refuse_other_columns(self) -> None:
        for table in _COLUMNS.keys() & self._tables:
            columns = {row["name"] for row in self._query("SELECT name FROM pragma_table_info(?)", (table,))}
            if lacking := ", ".join(sorted(_COLUMNS[table] - columns)):
                raise ConfigurationError(
                    f"{self._path} is a SQLite database, but not a store of matrix-nio: its table {table} lacks "
                    f"{lacking}"
                )

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[NioFile]:
    """Open a nio store for reading. Not a byte of it changes, nor of SQLite's files beside it.

    Raises ConfigurationError for a file that is not a nio store.
    """
    # Unlike a Path's own question, this does not raise.
    if os.path.isdir(path):  # noqa: PTH112
        files = ", ".join(sorted(file.name for file in path.glob("*.db"))) or "none that ends with .db"
        raise ConfigurationError(f"{path} is a folder; name the store's file in it (there: {files})")
    # SQLite's own files lie beside the file itself, not beside a link to it.
    try:
        path = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    state = _state_of(path)
    with contextlib.ExitStack() as closing:
        try:
            connection = sqlite3.connect(_readable_place(path, closing), uri=True, isolation_level=None)
            closing.callback(connection.close)
            connection.row_factory = sqlite3.Row
            # Damaged text becomes lone surrogates, which no record takes, instead of ending the whole reading.
            connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
            connection.execute("BEGIN")
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"{path} cannot be opened for reading: {error}") from error
        yield NioFile(path, connection, state)


def pickle_of(value: Any) -> bytes:
    """A pickle as nio's libraries take it; old versions stored text. Raises ValueError."""
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    if not isinstance(value, bytes):
        raise ValueError(f"its pickle is {type(value).__name__}, not bytes")
    return value


def _readable_place(path: Path, closing: contextlib.ExitStack) -> str:
    """The URI of the file, read-only; or of a private copy, if SQLite would have to write to read it."""
    beside = [file for file in _with_sidecars(path)[1:] if file.exists() and file.stat().st_size]
    with path.open("rb") as header:
        has_write_ahead_log = header.read(100)[_JOURNAL_MODE] == _WAL
    if not beside and not has_write_ahead_log:
        return f"{path.absolute().as_uri()}?mode=ro"
    folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="cryptostore-import-")))
    for file in (path, *beside):
        shutil.copyfile(file, folder / file.name)
    return f"{(folder / path.name).as_uri()}?mode=rw"


def _with_sidecars(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + ending) for ending in _SIDECARS)]


def _state_of(path: Path) -> FileState:
    try:
        path.stat()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    return [_size_and_time(file) for file in _with_sidecars(path)]


def _size_and_time(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
