"""Inbound group sessions that are compared with the stored ones in a flush, not on the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from nio.crypto import InboundGroupSession

from cryptostore import records
from cryptostore.nio.group_sessions import GroupSessionKey, LazyGroupSessionStore
from cryptostore.nio.pickles import Pickles, if_valid
from cryptostore.nio.ratchets import better_of
from cryptostore.nio.storage import Storage
from cryptostore.nio.to_back_up import SessionsToBackUp
from cryptostore.records.changes import Changes


class OfferedGroupSessions(LazyGroupSessionStore):
    """The ids of new room keys are inside ciphertext, so what is stored under them cannot be fetched beforehand.

    A session under a key that is not in memory is an *offer*: it is used as if it were new, and nothing becomes
    durable before `settle_offers` has compared it with what is stored.
    """

    def __init__(self, storage: Storage, pickles: Pickles, to_back_up: SessionsToBackUp) -> None:
        super().__init__(storage, pickles, to_back_up)
        self._offered: set[GroupSessionKey] = set()
        self._dirty: dict[GroupSessionKey, InboundGroupSession] = {}

    def add(self, session: InboundGroupSession) -> bool:
        key = (session.room_id, session.id, session.sender_key)
        known = self._sessions.peek(key)
        if known is None and not self._sessions.is_absent(key):
            self._offered.add(key)
            self._sessions.put(key, session)
            return True
        return super().add(session)

    def save(self, session: InboundGroupSession) -> None:
        """Write the session, or the better one that is there, with the next flush."""
        self.add(session)
        key = (session.room_id, session.id, session.sender_key)
        kept = self._sessions.peek(key)
        if kept is not None and self._sessions.is_pinned(key):
            self._dirty[key] = kept

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to do."""
        return bool(self._offered or self._dirty)

    def are_in_memory(self, keys: Iterable[GroupSessionKey]) -> bool:
        """Whether no session is missing, without a look into the database."""
        return all(self._sessions.peek(key) is not None for key in keys)

    def offered(self) -> list[GroupSessionKey]:
        """The keys of sessions that were not compared yet."""
        return list(self._offered)

    def read_offers(self, keys: Iterable[GroupSessionKey]) -> Mapping[GroupSessionKey, records.InboundGroupSession]:
        """What is stored under these keys. From any thread."""
        return self._read(list(keys))

    def settle_offers(
        self, keys: Iterable[GroupSessionKey], rows: Mapping[GroupSessionKey, records.InboundGroupSession]
    ) -> None:
        """Keep the better session of each offer and what is stored under its key."""
        for key in keys:
            if key not in self._offered:
                # Settled by somebody else meanwhile.
                continue
            self._offered.discard(key)
            stored = self._pickles.group_session(rows[key]) if key in rows else None
            offer = self._sessions.peek(key)
            if stored is None or offer is None:
                continue
            kept, differs = better_of(stored, offer)
            self._received_at[kept] = rows[key].received_at
            self._sessions.put(key, kept)
            if differs:
                self._dirty[key] = kept
            else:
                self._dirty.pop(key, None)
                self._sessions.unpin(key)

    def collect(self) -> Changes:
        """The records to write."""
        collected = []
        for key, session in self._dirty.items():
            record = if_valid(partial(self._record, session))
            if record is None:
                self._sessions.unpin(key)
            else:
                collected.append(record)
        self._dirty.clear()
        return self._to_back_up.with_notes(collected)

    def pin_dirty(self) -> None:
        """Keep what changed after the last `collect`, although a batch with its keys became durable."""
        for key, session in self._dirty.items():
            self._sessions.put(key, session)
