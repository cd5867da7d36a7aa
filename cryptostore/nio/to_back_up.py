"""Which Megolm sessions are not in the backup on the server yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptostore import records
from cryptostore.records import Key
from cryptostore.records.changes import Changes

from .storage import Storage


class SessionsToBackUp:
    """Notes new sessions in their own batch while a backup is in use. Whoever uploads them deletes the notes."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        #: The backup in use; None if there is none, or its record cannot be read: then all is backed up again.
        self.backup: records.KeyBackup | None = storage.get(records.KeyBackup, [()]).get(())
        #: Sessions that were noted since this was cleared: what is uploaded may be older than they are.
        self.noted: Final[set[Key]] = set()

    def use(self, backup: records.KeyBackup) -> None:
        """Sessions go to this backup, as far as this record says that they are not there."""
        self.backup = backup
        self._storage.write(Changes([backup]))

    def with_notes(self, sessions: Iterable[records.InboundGroupSession]) -> Changes:
        """What writes these sessions, and that they are to be backed up. What came from the backup is in it."""
        saved = list(sessions)
        if self.backup is None:
            return Changes(saved)
        new = [session.key for session in saved if not session.from_backup]
        self.noted.update(new)
        return Changes([*saved, *(records.SessionToBackUp(*map(str, key)) for key in new)])
