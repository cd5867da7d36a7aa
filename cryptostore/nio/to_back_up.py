"""Which Megolm sessions are not in the backup on the server yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
        #: Whether a session was noted since the last upload began.
        self.has_new = False
        self._watched: set[Key] | None = None

    def use(self, backup: records.KeyBackup) -> None:
        """Sessions go to this backup, as far as this record says that they are not there."""
        self.backup = backup
        self._storage.write(Changes([backup]))

    @contextmanager
    def watched(self) -> Iterator[set[Key]]:
        """The sessions that are noted inside the block: what is uploaded in it may be older than they are."""
        self.has_new, self._watched = False, set()
        try:
            yield self._watched
        finally:
            self._watched = None

    def with_notes(self, sessions: Iterable[records.InboundGroupSession]) -> Changes:
        """What writes these sessions, and that they are to be backed up. What came from the backup is in it."""
        saved = list(sessions)
        if self.backup is None:
            return Changes(saved)
        new = [session.key for session in saved if not session.from_backup]
        self.has_new = self.has_new or bool(new)
        if self._watched is not None:
            self._watched.update(new)
        return Changes([*saved, *(records.SessionToBackUp(*map(str, key)) for key in new)])
