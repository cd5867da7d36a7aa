"""Replay protection that a restart does not forget: which event used which index of a Megolm session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from cachetools import LRUCache

from cryptostore import records
from cryptostore.changes import Changes
from cryptostore.nio.pickles import if_valid

from .buffer import BufferedStorage

#: Sender key, session id, message index: as nio asks.
IndexKey = tuple[str, str, int]
#: Event id and the server's timestamp: as nio compares.
Seen = tuple[str, int]

_IN_MEMORY: Final = 100_000


class ReplayProtection:
    """What nio uses as a mapping from message indices to the events that used them."""

    def __init__(self, storage: BufferedStorage) -> None:
        self._storage = storage
        # None for an index that nobody has used.
        self._seen: LRUCache[IndexKey, Seen | None] = LRUCache(_IN_MEMORY)
        self._unsaved: dict[IndexKey, Seen] = {}

    def __getitem__(self, key: IndexKey) -> Seen:
        if key in self._unsaved:
            return self._unsaved[key]
        if key not in self._seen:
            self.admit(self.read([key]))
        seen = self._seen[key]
        if seen is None:
            raise KeyError(key)
        return seen

    def __setitem__(self, key: IndexKey, seen: Seen) -> None:
        self._seen[key] = self._unsaved[key] = seen
        self._storage.touch()

    def read(self, keys: Iterable[IndexKey]) -> Mapping[IndexKey, Seen | None]:
        """What is stored about these indices, in one round trip. From any thread."""
        wanted = list(keys)
        rows = self._storage.get(records.MessageIndex, [_record_key(key) for key in wanted])
        found = {key: rows.get(_record_key(key)) for key in wanted}
        return {key: None if row is None else (row.event_id, row.timestamp) for key, row in found.items()}

    def admit(self, read: Mapping[IndexKey, Seen | None]) -> None:
        """Take what `read` found. What was noted meanwhile is newer."""
        for key, seen in read.items():
            if key not in self._unsaved:
                self._seen[key] = self._seen.get(key) or seen

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._unsaved)

    def collect(self) -> Changes:
        """The records to write."""
        rows = [
            if_valid(partial(records.MessageIndex, *_record_key(key), *seen)) for key, seen in self._unsaved.items()
        ]
        self._unsaved = {}
        return Changes(row for row in rows if row is not None)


def _record_key(key: IndexKey) -> tuple[str, str, int]:
    sender_key, session_id, index = key
    return session_id, sender_key, index
