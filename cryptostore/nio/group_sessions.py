"""nio's container of inbound Megolm sessions, on a database instead of a dictionary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from nio.crypto import GroupSessionStore, InboundGroupSession

from cryptostore import records
from cryptostore.changes import Changes

from .cache import LiveCache
from .pickles import Pickles, if_valid
from .ratchets import better_of
from .storage import Storage

#: Room id, session id, sender key: the record's key.
GroupSessionKey = tuple[str, str, str]


class LazyGroupSessionStore(GroupSessionStore):
    """The account's inbound Megolm sessions, read one by one when they are asked for.

    Of two sessions with one key the better stays, whichever way the worse comes: nio ignores what `add` answers and
    saves anyway.
    """

    # Nothing here needs the base class's dictionaries.
    def __init__(self, storage: Storage, pickles: Pickles) -> None:
        self._storage = storage
        self._pickles = pickles
        self._received_at: WeakKeyDictionary[InboundGroupSession, datetime] = WeakKeyDictionary()
        self._sessions: LiveCache[GroupSessionKey, InboundGroupSession] = LiveCache(self._read, self._build)

    def add(self, session: InboundGroupSession) -> bool:
        """Add a session. Returns False if the one that is there already is as good."""
        key = _key_of(session)
        known = self._sessions.get(key)
        if known is session:
            return False
        kept, changed = (session, True) if known is None else better_of(known, session)
        if changed:
            self._received_at[kept] = self._received_at.get(known, _now()) if known is not None else _now()
            self._sessions.put(key, kept)
        return changed

    def get(self, room_id: str, sender_key: str, session_id: str) -> InboundGroupSession | None:
        """The session, or None for one that is unknown or unreadable."""
        return self._sessions.get((room_id, session_id, sender_key))

    def __getitem__(self, room_id: str) -> defaultdict[str, dict[str, InboundGroupSession]]:
        """The room's sessions as they are now, by sender key and session id."""
        by_sender: defaultdict[str, dict[str, InboundGroupSession]] = defaultdict(dict)
        for session in self._go_through((room_id,)):
            by_sender[session.sender_key][session.id] = session
        return by_sender

    def __iter__(self) -> Iterator[InboundGroupSession]:
        """Every session, in bounded memory, from any thread: nio's export runs beside the event loop."""
        return self._go_through(())

    def prefetch(self, keys: Iterable[GroupSessionKey]) -> None:
        """Read many sessions in one round trip."""
        self._sessions.fetch(keys)

    def changes(self, session: InboundGroupSession) -> Changes:
        """What saving `session` writes: the better of it and the one that is there, or nothing."""
        key = _key_of(session)
        self.add(session)
        kept = self._sessions.peek(key)
        if kept is None or (kept is not session and key not in self._sessions.pinned()):
            return Changes()
        self._sessions.put(key, kept)
        record = if_valid(lambda: self._record(kept))
        if record is None:
            self._sessions.unpin(key)
            return Changes()
        return Changes([record])

    def settle(self, batch: Changes) -> None:
        """The batch is durable."""
        for record in batch.puts(records.InboundGroupSession):
            room_id, session_id, sender_key = record.key
            self._sessions.unpin((str(room_id), str(session_id), str(sender_key)))

    def _record(self, session: InboundGroupSession) -> records.InboundGroupSession:
        received_at = self._received_at.setdefault(session, _now())
        return self._pickles.group_session_record(session, received_at)

    def _read(self, keys: list[GroupSessionKey]) -> Mapping[GroupSessionKey, records.InboundGroupSession]:
        rows = self._storage.get(records.InboundGroupSession, keys)
        return {key: rows[key] for key in keys if key in rows}

    def _build(self, _key: GroupSessionKey, row: records.InboundGroupSession) -> InboundGroupSession | None:
        session = self._pickles.group_session(row)
        if session is None:
            return None
        self._received_at[session] = row.received_at
        if session.upgrade_pickle:
            session.upgrade_pickle = False
            self._storage.write_along(Changes([self._record(session)]))
        return session

    def _go_through(self, prefix: tuple[str, ...]) -> Iterator[InboundGroupSession]:
        unsaved = self._sessions.pinned()
        for row in self._storage.scan(records.InboundGroupSession, prefix):
            key = (row.room_id, row.session_id, row.sender_key)
            unsaved.pop(key, None)
            # Not made the live object: going through a million sessions must not push out those in use.
            session = self._sessions.peek(key) or self._pickles.group_session(row)
            if session is not None:
                yield session
        yield from (session for key, session in unsaved.items() if key[: len(prefix)] == prefix)


def _key_of(session: InboundGroupSession) -> GroupSessionKey:
    return session.room_id, session.id, session.sender_key


def _now() -> datetime:
    return datetime.now(UTC)
