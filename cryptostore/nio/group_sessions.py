"""nio's container of inbound Megolm sessions, on a database instead of a dictionary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from weakref import WeakKeyDictionary

from nio.crypto import GroupSessionStore, InboundGroupSession

from cryptostore import records
from cryptostore.records.changes import NOTHING, Changes

from .cache import LiveCache
from .pickles import Pickles, if_valid
from .ratchets import better_of
from .storage import Storage
from .times import now
from .to_back_up import SessionsToBackUp

#: Room id, session id, sender key: the record's key.
GroupSessionKey = tuple[str, str, str]


class LazyGroupSessionStore(GroupSessionStore):
    """The account's inbound Megolm sessions, read one by one when they are asked for.

    Of two sessions with one key the better stays, in whatever order they come: nio ignores what `add` returns and
    saves anyway. A session that is not in memory is compared with the stored one when it is added, or, inside
    `compare_later`, all are compared in one round trip: by `collect`, or by `get` if that comes first.
    """

    # Nothing here needs the base class's dictionaries.
    def __init__(self, storage: Storage, pickles: Pickles, to_back_up: SessionsToBackUp) -> None:
        self._storage = storage
        self._pickles = pickles
        self._to_back_up = to_back_up
        self._received_at: WeakKeyDictionary[InboundGroupSession, datetime] = WeakKeyDictionary()
        self._sessions: LiveCache[GroupSessionKey, InboundGroupSession] = LiveCache(self._read, self._build)
        self._comparing_later = False
        self._uncompared: set[GroupSessionKey] = set()
        self._unsaved: dict[GroupSessionKey, None] = {}

    def add(self, session: InboundGroupSession) -> bool:
        """Add a session. Returns False if the one that is there already is as good."""
        return self._add(_key_of(session), session)

    def get(self, room_id: str, sender_key: str, session_id: str) -> InboundGroupSession | None:
        """The session, or None for one that is unknown or unreadable."""
        return self._find((room_id, session_id, sender_key))

    def __getitem__(self, room_id: str) -> defaultdict[str, dict[str, InboundGroupSession]]:
        """The room's sessions as they are now, by sender key and session id."""
        by_sender: defaultdict[str, dict[str, InboundGroupSession]] = defaultdict(dict)
        for session in self._go_through((room_id,)):
            by_sender[session.sender_key][session.id] = session
        return by_sender

    def __iter__(self) -> Iterator[InboundGroupSession]:
        """Every session, in bounded memory, from any thread: nio's export runs beside the event loop."""
        return self._go_through(())

    def prefetch(self, keys: Iterable[GroupSessionKey]) -> Mapping[GroupSessionKey, InboundGroupSession]:
        """Read many sessions in one round trip. They stay in memory as long as the answer does."""
        return self._sessions.fetch(keys)

    def alone(self) -> AbstractContextManager[None]:
        """Inside the block nobody else comes by a session."""
        return self._sessions.alone()

    def let_go(self, key: GroupSessionKey) -> bool:
        """Whether nobody uses the session, so that it may be deleted, inside `alone`."""
        return key not in self._uncompared and self._sessions.let_go(key)

    @contextmanager
    def compare_later(self) -> Iterator[None]:
        """Let what is saved inside the block wait for `collect`."""
        self._comparing_later = True
        try:
            yield
        finally:
            self._comparing_later = False

    def changes(self, session: InboundGroupSession) -> Changes:
        """What saving `session` writes: the better of it and the one that is there, or nothing.

        Inside `compare_later` it waits for `collect`.
        """
        key = _key_of(session)
        self._add(key, session)
        kept = self._sessions.peek(key)
        if kept is None or (kept is not session and not self._sessions.is_pinned(key)):
            return NOTHING
        self._sessions.put(key, kept)
        self._unsaved[key] = None
        return NOTHING if self._comparing_later else self._take([key])

    @property
    def is_waiting(self) -> bool:
        """Whether something that was saved waits for `collect`."""
        return bool(self._unsaved) and not self._comparing_later

    def collect(self) -> Changes:
        """What saving all that waits writes. If the database cannot be read, all of it goes on waiting."""
        self._compare()
        return self._take(list(self._unsaved))

    def settle(self, batch: Changes) -> None:
        """The batch is durable."""
        for key in batch.operations(records.InboundGroupSession):
            room_id, session_id, sender_key = key
            self._sessions.unpin((str(room_id), str(session_id), str(sender_key)))

    def _add(self, key: GroupSessionKey, session: InboundGroupSession) -> bool:
        known = self._known(key)
        if known is session:
            return False
        if known is not None:
            return self._keep_better(key, known, session)
        self._received_at[session] = now()
        self._sessions.put(key, session)
        return True

    def _known(self, key: GroupSessionKey) -> InboundGroupSession | None:
        """The session with which one of this key has to be compared now."""
        if not self._comparing_later:
            return self._find(key)
        known = self._sessions.peek(key)
        if known is None and not self._sessions.is_absent(key):
            self._uncompared.add(key)
        return known

    def _find(self, key: GroupSessionKey) -> InboundGroupSession | None:
        if key in self._uncompared:
            self._compare()
        return self._sessions.get(key)

    def _compare(self) -> None:
        if not self._uncompared:
            return
        for key, row in self._read(list(self._uncompared)).items():
            stored, offered = self._build(key, row), self._sessions.peek(key)
            if stored is not None and offered is not None and not self._keep_better(key, stored, offered):
                self._sessions.put(key, stored)
                self._sessions.unpin(key)
                self._unsaved.pop(key, None)
        self._uncompared.clear()

    def _keep_better(self, key: GroupSessionKey, known: InboundGroupSession, offered: InboundGroupSession) -> bool:
        kept, changed = better_of(known, offered)
        if changed:
            self._received_at[kept] = self._received_at.get(known, now())
            self._sessions.put(key, kept)
        return changed

    def _take(self, keys: Iterable[GroupSessionKey]) -> Changes:
        taken = []
        for key in keys:
            self._unsaved.pop(key)
            session = self._sessions.peek(key)
            record = if_valid(partial(self._record, session)) if session else None
            if record is None:
                self._sessions.unpin(key)
            else:
                taken.append(record)
        return self._to_back_up.with_notes(taken)

    def _record(self, session: InboundGroupSession) -> records.InboundGroupSession:
        received_at = self._received_at.setdefault(session, now())
        return self._pickles.group_session_record(session, received_at)

    def _read(self, keys: list[GroupSessionKey]) -> Mapping[GroupSessionKey, records.InboundGroupSession]:
        rows = self._storage.get(records.InboundGroupSession, keys)
        return {key: rows[key] for key in keys if key in rows}

    def _build(self, _key: GroupSessionKey, row: records.InboundGroupSession) -> InboundGroupSession | None:
        session = self._pickles.group_session(row)
        if session is None:
            return None
        self._received_at[session] = row.received_at
        return session

    def _go_through(self, prefix: tuple[str, ...]) -> Iterator[InboundGroupSession]:
        unsaved = self._sessions.pinned()
        for row in self._storage.scan(records.InboundGroupSession, prefix):
            key = (row.room_id, row.session_id, row.sender_key)
            unsaved.pop(key, None)
            session = self._sessions.peek(key)
            if session is None or key in self._uncompared:
                # Not made the live object: going through a million sessions must not push out those in use.
                stored = self._pickles.group_session(row)
                session = better_of(stored, session)[0] if stored and session else stored or session
            if session is not None:
                yield session
        yield from (session for key, session in unsaved.items() if key[: len(prefix)] == prefix)


def _key_of(session: InboundGroupSession) -> GroupSessionKey:
    return session.room_id, session.id, session.sender_key
