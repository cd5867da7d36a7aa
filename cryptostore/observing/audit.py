"""The observer `audit`: who did what to which account, in a file that is only added to."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.plugins.folders import flush_folder
from cryptostore.plugins.hookspecs import hookimpl
from cryptostore.store.owners import default_owner

from .documents import document, line

#: Names the file, and so switches the observer on.
VARIABLE: Final = "CRYPTOSTORE_AUDIT_LOG"

_PRIVATE: Final = 0o600
_EVENTS: Final = frozenset(
    {
        "store_opened",
        "open_failed",
        "fenced",
        "keys_exported",
        "secret_exported",
        "keys_imported",
        "account_moved",
        "account_deleted",
        "account_restored",
        "rekeyed",
        "pruned",
        "identity_changed",
    }
)

_log: Final = logger(__name__)


class AuditLog:
    """Adds a line of JSON for each event that an auditor asks for, and makes it durable.

    Several processes may share the file. It is opened for each line, so that it can be moved away at any time. Where it
    cannot be written, that is an error in the program's log, with the line, and holds nothing up. Raises
    ConfigurationError where it cannot be written at the start, or is something else than an audit log.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._add(b"")
            with file.open("rb") as opened:
                is_another_file = opened.read(1) not in (b"", b"{")
        except OSError as error:
            raise ConfigurationError(
                f"the audit log {file}, which {VARIABLE} names, cannot be written: {error.strerror}; make its folder, "
                "let this user write there, or name another file"
            ) from error
        if is_another_file:
            # A line at the end of a database, or of a key, damages it.
            raise ConfigurationError(f"{file}, which {VARIABLE} names, is no audit log; name a new file")

    @hookimpl
    def cryptostore_event(self, event: str, facts: Mapping[str, object]) -> None:
        """Write the event down, if it is one for an auditor."""
        # Who only counts rows reads nothing.
        if event not in _EVENTS or not facts.get("has_pickle_key", True):
            return
        when = datetime.now(UTC).isoformat(timespec="microseconds")
        text = line({"time": when, **document(event, facts), "process": default_owner()})
        try:
            self._add(f"{text}\n".encode())
        except OSError as error:
            _log.error("the audit log %s cannot be written (%s); it lacks: %s", self._file, error.strerror, text)

    def _add(self, text: bytes) -> None:
        """Add this, durably, on a line of its own."""
        is_new = not self._file.exists()
        descriptor = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            # What a full disk cut short.
            is_torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            whole = b"\n" + text if is_torn and text else text
            if os.write(descriptor, whole) != len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            flush_folder(self._file.parent)
