"""What a SQLite URL and its options name, checked before anything is looked at."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from cryptostore import ConfigurationError
from cryptostore.plugins import Setting
from cryptostore.plugins.urls import absolute, refuse_unknown, unquoted_path

#: The first SQLite with STRICT tables.
_OLDEST_SQLITE: Final = (3, 37, 0)

#: The first of each series without the WAL-reset bug, and the first after which there is none with it.
_WITHOUT_RESET_BUG: Final[Mapping[tuple[int, ...], tuple[int, ...]]] = {(3, 44): (3, 44, 6), (3, 50): (3, 50, 7)}
_NEVER_WITH_RESET_BUG: Final = (3, 51, 3)


class Given(NamedTuple):
    """A file, whether it may be made, and whether it may be where SQLite may lose data."""

    path: Path
    may_create: bool
    any_file_system: bool

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any]) -> Given:
        """Check a URL and its options. Raises ConfigurationError."""
        given = dict(options)
        may_create = _is_default(given, "create", "auto", "never")
        must_be_local = _is_default(given, "file_system", "local", "any")
        refuse_unknown(given, "create, deadline, file_system, owner")
        return cls(path_of(url), may_create, not must_be_local)


def refuse_old_sqlite() -> None:
    """Raise ConfigurationError for a Python whose SQLite lacks what the tables need."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        raise ConfigurationError(
            f"this Python was built with SQLite {sqlite3.sqlite_version}; matrix-cryptostore-sqlite needs {oldest} or "
            "newer: use a newer Python or operating system"
        )


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether connections that write and empty the -wal at once may, very rarely, lose what was committed.

    Not where one process has a database open, once: one connection of it writes and empties the -wal.
    See sqlite.org/wal.html#the_wal_reset_bug. A distribution may have mended its own, which its number does not tell.
    """
    return version < _WITHOUT_RESET_BUG.get(version[:2], _NEVER_WITH_RESET_BUG)


def settings(url: str, options: Mapping[str, Any]) -> Iterator[Setting]:
    """The file, with its mode, and the options."""
    given = dict(options)
    for name, default, other in (("create", "auto", "never"), ("file_system", "local", "any")):
        is_given = name in given
        value = default if _is_default(given, name, default, other) else other
        yield Setting(name, value, "the URL" if is_given else "default")
    refuse_unknown(given, "create, deadline, file_system, owner")
    path = path_of(url)
    yield Setting("file", f"{path}, {_state(path)}", "the URL")


def _state(path: Path) -> str:
    try:
        return f"mode {stat.S_IMODE(path.stat().st_mode):04o}"
    except OSError as error:
        return "not there yet" if isinstance(error, FileNotFoundError) else f"{error.strerror}"


def path_of(url: str) -> Path:
    """The absolute path of the file that `url` names, read as SQLAlchemy reads it. Raises ConfigurationError."""
    parts = urlsplit(url)
    if parts.fragment:
        raise ConfigurationError("a SQLite URL has no part after '#'; a '#' in a file's name is written %23")
    if parts.netloc or not url.partition(":")[2].startswith("///"):
        raise ConfigurationError(
            "a SQLite URL has three slashes before a relative path (sqlite:///keys.db) and four before an absolute one "
            "(sqlite:////var/lib/bot/keys.db); for a database in memory use memory://"
        )
    name = unquoted_path(parts.path[1:])
    if name in ("", ":memory:"):
        raise ConfigurationError(
            "this SQLite URL names no file, and keys in memory are lost with the process: "
            "write sqlite:///keys.db, or use memory:// if that is what you want"
        )
    if "\0" in name:
        raise ConfigurationError("the path in a SQLite URL must not contain %00")
    return absolute(name)


def _is_default(options: dict[str, Any], name: str, default: str, other: str) -> bool:
    """Remove an option that has two values, and say whether it is at its default."""
    value = options.pop(name, default)
    if value not in (default, other):
        raise ConfigurationError(f"the option {name!r} must be {default!r} or {other!r}")
    return bool(value == default)
