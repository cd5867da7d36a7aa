"""Replay protection that a restart does not forget: which event used which index of a Megolm session."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from cryptostore import records
from cryptostore.nio.cache import LiveCache
from cryptostore.nio.standins import stored_id
from cryptostore.nio.times import now
from cryptostore.records.changes import Changes
from cryptostore.records.fields import day_of
from cryptostore.records.kinds import USE_KEPT_TO

from .buffer import BufferedStorage

#: Session id, sender key, number of the page: the record's key.
PageKey = tuple[str, str, int]

_INDICES: Final = 64
_MAP_BYTES: Final = _INDICES // 8
_EVENT_BYTES: Final = 12


def page_of(session_id: str, sender_key: str, index: int) -> PageKey:
    """The page on which the use of a message index is written down."""
    return stored_id(session_id), stored_id(sender_key), index // _INDICES


class Page:
    """Who used which of a page's indices. On one that cannot be read, another event has used every index."""

    def __init__(self, record: records.ReplayPage | None = None, *, is_readable: bool = True) -> None:
        self._is_readable = is_readable
        self._events: dict[int, bytes] = {} if record is None else _events_of(record)
        #: The day on which a message was read last, about.
        self.used_on = 0 if record is None else record.used_on

    def use(self, index: int, event: bytes) -> bool:
        """Note that an event uses an index. Returns False, and notes nothing, where another has used it."""
        return self._is_readable and self._events.setdefault(index % _INDICES, event) == event

    def has(self, index: int) -> bool:
        """Whether an index was used, or may have been."""
        return not self._is_readable or index % _INDICES in self._events

    def record(self, key: PageKey) -> records.ReplayPage:
        """What to store."""
        used = sum(1 << index for index in self._events)
        events = b"".join([self._events[index] for index in sorted(self._events)])
        return records.ReplayPage(*key, used.to_bytes(_MAP_BYTES, "big"), events, self.used_on)


class ReplayProtection:
    """The pages of the sessions whose messages are read. A page is written only after this owner has read it."""

    def __init__(self, storage: BufferedStorage, replay_key: bytes) -> None:
        self._storage = storage
        self._key = replay_key
        self._pages: LiveCache[PageKey, Page] = LiveCache(self._read, self._build)
        self._dirty: dict[PageKey, Page] = {}

    def use(self, session: tuple[str, str], index: int, event_id: str, timestamp: int) -> bool:
        """Note that an event uses a message index of a session, by its id and its sender's key.

        Returns False where another event has used it, or may have. The same event may come again.
        """
        key = page_of(*session, index)
        page = self._pages.get(key) or Page()
        is_known = page.has(index)
        is_accepted = page.use(index, self._digest(event_id, timestamp))
        today = day_of(now())
        if is_accepted and (not is_known or today - page.used_on >= USE_KEPT_TO):
            page.used_on = today
            self._pages.put(key, page)
            self._dirty[key] = page
            self._storage.touch()
        return is_accepted

    def prefetch(self, keys: Iterable[PageKey]) -> Mapping[PageKey, Page]:
        """Read many pages in one round trip, from any thread. They stay in memory as long as the answer does."""
        return self._pages.fetch(keys)

    def alone(self) -> AbstractContextManager[None]:
        """Inside the block nobody else comes by a page."""
        return self._pages.alone()

    def let_go(self, key: PageKey) -> bool:
        """Whether nobody uses the page, so that it may be deleted, inside `alone`."""
        return self._pages.let_go(key)

    def unsaved_sessions(self) -> set[tuple[str, str]]:
        """The sessions, by id and sender's key, of which a page is not durable yet."""
        return {(session_id, sender_key) for session_id, sender_key, _ in self._pages.pinned()}

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._dirty)

    def collect(self) -> Changes:
        """The records to write."""
        rows = [page.record(key) for key, page in self._dirty.items()]
        self._dirty = {}
        return Changes(rows)

    def settle(self, batch: Changes) -> None:
        """The batch is durable."""
        for record in batch.puts(records.ReplayPage):
            session_id, sender_key, page = record.key
            key = (str(session_id), str(sender_key), int(page))
            if key not in self._dirty:
                self._pages.unpin(key)

    def _digest(self, event_id: str, timestamp: int) -> bytes:
        # A server may send any text and any number: no database could store them as they came.
        event = f"{int(timestamp):x} {event_id}".encode(errors="surrogatepass")
        return hmac.digest(self._key, event, "sha256")[:_EVENT_BYTES]

    def _read(self, keys: list[PageKey]) -> Mapping[PageKey, Any]:
        found = self._storage.get(records.ReplayPage, keys)
        return {key: found.get(key) for key in keys if key in found or key in found.unreadable}

    @staticmethod
    def _build(_key: PageKey, row: records.ReplayPage | None) -> Page:
        try:
            return Page(row, is_readable=row is not None)
        except ValueError:
            return Page(is_readable=False)


def _events_of(record: records.ReplayPage) -> dict[int, bytes]:
    used = int.from_bytes(record.used, "big")
    indices = [index for index in range(_INDICES) if used >> index & 1]
    if len(record.used) != _MAP_BYTES or len(record.events) != len(indices) * _EVENT_BYTES:
        raise ValueError("the page does not have an event for each used index")
    starts = range(0, len(record.events), _EVENT_BYTES)
    return {index: record.events[start : start + _EVENT_BYTES] for index, start in zip(indices, starts, strict=True)}
