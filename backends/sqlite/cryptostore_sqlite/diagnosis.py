"""What `cryptostore doctor` is told of a SQLite database, whether it can be opened or not."""

from __future__ import annotations

import os
import shlex
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from cryptostore import ConfigurationError, CryptoStoreError, Finding, Level, Schema

from . import files
from .checks import Seen, look_at, may, reasons_against
from .connecting import connect, transaction, uri_of
from .errors import mapped_errors
from .given import Given, has_wal_reset_bug, refuse_old_sqlite
from .holders import holders
from .opening import inspect, refuse_anothers_log
from .schema import SHIPPED

#: What is looked at, by the names of the findings.
CHECKS: Final[Mapping[str, str]] = {
    "driver": "the SQLite that this Python was built with is new enough, and without its "
    "WAL-reset bug where several processes have the database open",
    "file": "the database's file and its folder are there, and can be written",
    "place": "no network or virtual machine's file system (named), no single-file mount, no second hard link, no "
    "read-only mount, no file beside it that another user owns",
    "modes": "no other user of this machine may read or write the database's files",
    "log": "a `-wal` or `-journal` that a killed program left, or that belongs to another file; who has it open",
    "schema": "the tables are there, ours, and of a version that this program knows",
}

_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


def diagnose(url: str, options: Mapping[str, Any], timeout: float) -> Iterator[Finding]:
    """What there is to say of the database. Changes nothing. Raises ConfigurationError for the URL and its options."""
    yield _driver()
    given = Given.of(url, options)
    try:
        path = files.resolved(given.path)
    except ConfigurationError as error:
        yield Finding.of_error("file", error, prevents_opening=True)
        return
    seen = look_at(path)
    yield _file(given, path)
    yield from _place(seen, given)
    if files.status_of(path) is not None and not path.is_dir():
        yield _modes(path)
        yield from _processes_at_once(path)
        yield from _log_and_schema(path, seen, timeout)


def _driver() -> Finding:
    try:
        refuse_old_sqlite()
    except ConfigurationError as error:
        return Finding.of_error("driver", error, prevents_opening=True)
    bug = ", which has the WAL-reset bug: let one process at a time write a database" if _has_bug() else ""
    return Finding("driver", Level.OK, f"SQLite {sqlite3.sqlite_version}{bug}")


def _has_bug() -> bool:
    return has_wal_reset_bug(sqlite3.sqlite_version_info)


def _processes_at_once(path: Path) -> Iterator[Finding]:
    processes = len(holders(path))
    if processes > 1 and _has_bug():
        seen = (
            f"{processes} processes have {path.name} open, and SQLite {sqlite3.sqlite_version} has the WAL-reset bug: "
            "it may, very rarely, lose what they commit at once"
        )
        remedy = (
            "let one process at a time write this file, or use a newer SQLite, or PostgreSQL; your distribution may "
            "have mended its own"
        )
        yield Finding("driver", Level.WARNING, seen, remedy)


def _file(given: Given, path: Path) -> Finding:
    link = f" (a link: {given.path})" if path != given.path else ""
    status = files.status_of(path)
    if status is None or status.st_size == 0:
        return _absent(given, path)
    if not stat.S_ISREG(status.st_mode):
        return _problem("file", f"{path} is not a file", "give a file's path in the database URL")
    lacking = [each for each in (path, path.parent) if not may(os.R_OK | os.W_OK, each)]
    if lacking:
        who = f"the user {os.geteuid()}"
        seen = f"{who} may not write {' and '.join(map(str, lacking))}: SQLite keeps -wal and -shm beside the database"
        command = f"chown {os.geteuid()} {shlex.join(map(str, lacking))}"
        return Finding("file", Level.PROBLEM, seen, "let a client's user own them; for this one", (command,))
    return Finding("file", Level.OK, f"{path}{link}, {status.st_size:,} bytes")


def _absent(given: Given, path: Path) -> Finding:
    # Unlike a Path's own question, this does not raise.
    if not os.path.isdir(path.parent):  # noqa: PTH112
        return _problem("file", f"the folder {path.parent} does not exist", "create it, or correct the path in the URL")
    if not may(os.X_OK, path.parent):
        return _problem("file", f"this user may not enter the folder {path.parent}", "let it, or run as the client's")
    seen = f"there is no database {path}"
    doubt = "is a disk not mounted, or the path in the URL wrong? Else"
    if not given.may_create:
        return _problem("file", seen, f"{doubt} open it once with create=auto: with create=never clients make none")
    if not may(os.W_OK | os.X_OK, path.parent):
        return _problem("file", f"{seen}, and this user may make none", "choose a folder that this user may write to")
    remedy = f"{doubt} the first client makes it, or `cryptostore migrate`"
    return Finding("file", Level.WARNING, seen, remedy, prevents_opening=True)


def _place(seen: Seen, given: Given) -> Iterator[Finding]:
    reasons = list(reasons_against(seen, any_file_system=given.any_file_system))
    for text in reasons:
        yield Finding.of_error("place", ConfigurationError(text), prevents_opening=True)
    if not reasons:
        system = seen.file_system or "a file system that this system does not name"
        yield Finding("place", Level.OK, f"{seen.path.parent} is on {system}")


def _modes(path: Path) -> Finding:
    modes = {
        beside: stat.S_IMODE(status.st_mode)
        for beside in (files.beside(path, suffix) for suffix in _SUFFIXES)
        if (status := files.status_of(beside)) is not None
    }
    shared = [each for each, mode in modes.items() if files.is_shared(mode)]
    if not shared:
        return Finding("modes", Level.OK, f"{modes[path]:04o}: the owner's alone")
    seen = ", ".join(f"{each.name} has mode {modes[each]:04o}" for each in shared)
    command = f"chmod 600 {shlex.join(map(str, shared))}"
    remedy = "other users of this machine may open them; unless they are to, as with Kubernetes' fsGroup"
    return Finding("modes", Level.WARNING, seen, remedy, (command,))


def _log_and_schema(path: Path, seen: Seen, timeout: float) -> Iterator[Finding]:
    try:
        with mapped_errors(path, opening=True):
            refuse_anothers_log(path)
    except CryptoStoreError as error:
        yield Finding.of_error("log", error, prevents_opening=True)
        return
    yield _log(path, seen)
    if seen.size:
        yield _schema(path, timeout)


def _log(path: Path, seen: Seen) -> Finding:
    processes = holders(path)
    if processes:
        others = "process" if len(processes) == 1 else "processes"
        return Finding("log", Level.OK, f"{others} {', '.join(map(str, processes))} of this machine has it open")
    if files.status_of(files.beside(path, "-journal")) is not None:
        seen_text = f"{path.name}-journal is left over from a program that was killed"
        return Finding("log", Level.NOTE, seen_text, "keep it beside the database: whoever opens that next needs it")
    if files.holds_data(seen.log_size):
        return Finding(
            "log",
            Level.NOTE,
            f"{path.name}-wal holds {seen.log_size:,} bytes, and no process is seen that has it open: one was killed, "
            "or is in another container",
            "never move or copy the database without it; whoever opens the database next takes it in",
        )
    return Finding("log", Level.OK, "nothing is left over from a program that was killed")


def _schema(path: Path, timeout: float) -> Finding:
    try:
        with mapped_errors(path, opening=True):
            found = _inspect(path, timeout)
    except CryptoStoreError as error:
        return Finding.of_error("schema", error, prevents_opening=True)
    if found is None:
        return Finding("schema", Level.NOTE, f"{path.name} has no tables", "the first client makes them")
    seen = f"version {found.version}, and this program knows {SHIPPED.known_version}"
    if found.version < SHIPPED.known_version:
        return Finding("schema", Level.NOTE, seen, "take a backup: whoever opens it next brings it up to date")
    return Finding("schema", Level.OK, seen)


def _inspect(path: Path, timeout: float) -> Schema | None:
    with closing(_reader(path, timeout)) as connection, transaction(connection, "BEGIN"):
        found = SHIPPED.inspect(connection, path)
    if found is None and not files.has_write_ahead_log(path):
        # Whether it had a -wal is not seen in an immutable file.
        return inspect(path, timeout, SHIPPED)
    return found


def _reader(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection that leaves no file behind, nor takes one in."""
    if all(files.status_of(files.beside(path, suffix)) for suffix in ("-wal", "-shm")):
        return connect(path, timeout, "PRAGMA query_only = ON", mode="ro")
    # Immutable: to look at the -wal, SQLite would make a -shm, and leave it there.
    connection = sqlite3.connect(uri_of(path, "ro&immutable=1"), uri=True, isolation_level=None)
    connection.text_factory = bytes
    return connection


def _problem(check: str, seen: str, remedy: str) -> Finding:
    return Finding(check, Level.PROBLEM, seen, remedy, prevents_opening=True)
