"""nio's container of Olm sessions, on a database instead of a dictionary."""

from __future__ import annotations

from collections.abc import Container, ItemsView, Iterable, Iterator, Mapping, ValuesView
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from weakref import WeakValueDictionary

from nio.crypto import Session, SessionStore

from cryptostore import records
from cryptostore.records.changes import Changes, RecordKey

from .bounds import OLM_SESSIONS
from .cache import LazyMapping, LiveCache
from .pickles import Pickles, if_valid
from .receive_only import is_receive_only
from .storage import Storage
from .times import to_utc


class SenderSessions:
    """The Olm sessions with one device."""

    def __init__(self) -> None:
        self.unsaved: set[str] = set()
        self._by_id: dict[str, Session] = {}
        self._last_used: dict[str, datetime] = {}

    def find(self, session_id: str) -> Session | None:
        """The session with this id."""
        return self._by_id.get(session_id)

    def keep(self, session: Session, last_used: datetime) -> None:
        """Keep a session with the time of its last use that did something.

        The session's own `use_time` also counts when nio tried it in vain.
        """
        self._by_id[session.id] = session
        self._last_used[session.id] = last_used

    def surplus(self, kept: str) -> list[str]:
        """The ids of those that were used least recently, beyond what is kept of a device; never `kept` itself."""
        if len(self._by_id) <= OLM_SESSIONS:
            return []
        others = [session.id for session in self.last_used_first() if session.id != kept]
        return others[OLM_SESSIONS - 1 :]

    def forget(self, session_id: str) -> None:
        """Keep a session no longer."""
        self.unsaved.discard(session_id)
        del self._by_id[session_id], self._last_used[session_id]

    def last_used(self, session_id: str) -> datetime:
        """When the session's last use that did something was."""
        return self._last_used[session_id]

    def last_used_first(self) -> list[Session]:
        """The sessions as nio tries them."""
        return sorted(self._by_id.values(), key=lambda session: self._last_used[session.id], reverse=True)


class LazySessionStore(SessionStore):
    """The account's Olm sessions by the sender's Curve25519 key, read when a sender's are asked for."""

    # Nothing here needs the base class's dictionaries.
    def __init__(self, storage: Storage, pickles: Pickles) -> None:
        self._storage = storage
        self._pickles = pickles
        self._live: WeakValueDictionary[tuple[str, str], Session] = WeakValueDictionary()
        self._senders: LiveCache[str, SenderSessions] = LiveCache(self._read, self._build)
        self._by_sender = LazyMapping(self._sender_keys, self._lists)
        self._forgotten: dict[tuple[str, str], None] = {}

    def add(self, sender_key: str, session: Session) -> bool:
        """Add a new session. Returns False if the session is there already."""
        sessions = self._sessions_of(sender_key)
        if sessions.find(session.id) is not None:
            return False
        self._keep(sender_key, sessions, session)
        return True

    def get(self, sender_key: str) -> Session | None:
        """The session that was used last with this sender, of those that may encrypt."""
        return next((session for session in self[sender_key] if not is_receive_only(session)), None)

    def __getitem__(self, sender_key: str) -> list[Session]:
        return self._sessions_of(sender_key).last_used_first()

    def __iter__(self) -> Iterator[Session]:
        for sessions in self.values():
            yield from sessions

    def values(self) -> ValuesView[list[Session]]:
        """The sessions of each sender, read while they are gone through."""
        return self._by_sender.values()

    def items(self) -> ItemsView[str, list[Session]]:
        """Each sender key with its sessions, read while they are gone through."""
        return self._by_sender.items()

    def prefetch(self, sender_keys: Iterable[str]) -> Mapping[str, SenderSessions]:
        """Read the sessions of many senders in one round trip. They stay in memory as long as the answer does."""
        return self._senders.fetch(sender_keys)

    def alone(self) -> AbstractContextManager[None]:
        """Inside the block nobody else comes by a session."""
        return self._senders.alone()

    def let_go(self, sender_key: str, session_id: str) -> bool:
        """Whether nobody uses the session, or another one of its sender, so that it may be deleted, inside `alone`."""
        return self._senders.let_go(sender_key) and (sender_key, session_id) not in self._live

    def changes(self, sender_key: str, session: Session) -> Changes:
        """What saving `session` writes; it stays in memory until `settle`. An id that cannot be stored is dropped."""
        record = if_valid(lambda: self._pickles.olm_session_record(sender_key, session))
        if record is None:
            return Changes()
        self._keep(sender_key, self._sessions_of(sender_key), session)
        return Changes([record], deletes=self.take_forgotten())

    def is_kept(self, sender_key: str, session: Session) -> bool:
        """Whether a session is in memory, and did not give way to newer ones."""
        return self._sessions_of(sender_key).find(session.id) is not None

    def record(self, sender_key: str, session: Session) -> records.OlmSession:
        """The record of a session that is in memory, as it is now. Raises InvalidRecord."""
        last_used = self._sessions_of(sender_key).last_used(session.id)
        return replace(self._pickles.olm_session_record(sender_key, session), last_used_at=last_used)

    def pin(self, sender_key: str, session: Session) -> None:
        """Keep a session in memory until `settle` or `release`: its state is not durable yet."""
        self._keep(sender_key, self._sessions_of(sender_key), session)

    def release(self, sender_key: str, session_id: str) -> None:
        """The session may be forgotten and read again."""
        sessions = self._senders.peek(sender_key)
        if sessions is not None:
            sessions.unsaved.discard(session_id)
            if not sessions.unsaved:
                self._senders.unpin(sender_key)

    def settle(self, batch: Changes, changed: Container[tuple[str, str]] = ()) -> None:
        """The batch is durable, but what has `changed` since: sender keys and session ids."""
        for record in batch.puts(records.OlmSession):
            sender_key, session_id = record.key
            if record.key not in changed:
                self.release(str(sender_key), str(session_id))

    def _keep(self, sender_key: str, sessions: SenderSessions, session: Session) -> None:
        self._live[sender_key, session.id] = session
        self._forgotten.pop((sender_key, session.id), None)
        sessions.keep(session, to_utc(session.use_time))
        sessions.unsaved.add(session.id)
        self._senders.put(sender_key, sessions)
        for session_id in sessions.surplus(session.id):
            sessions.forget(session_id)
            self._forgotten[sender_key, session_id] = None

    def take_forgotten(self) -> list[RecordKey]:
        """The keys of sessions that gave way to newer ones: to be deleted with what is written next."""
        forgotten, self._forgotten = self._forgotten, {}
        return [RecordKey(records.OlmSession, key) for key in forgotten]

    def _sessions_of(self, sender_key: str) -> SenderSessions:
        return self._senders.fetch([sender_key])[sender_key]

    def _read(self, sender_keys: list[str]) -> Mapping[str, list[records.OlmSession]]:
        rows = self._storage.select(records.OlmSession, [(sender_key,) for sender_key in sender_keys])
        return {sender_key: rows[(sender_key,)] for sender_key in sender_keys}

    def _build(self, sender_key: str, rows: list[records.OlmSession]) -> SenderSessions:
        sessions = SenderSessions()
        for row in rows:
            session = self._live.get((sender_key, row.session_id)) or self._pickles.olm_session(row)
            if session is not None:
                self._live[sender_key, row.session_id] = session
                sessions.keep(session, row.last_used_at)
        return sessions

    def _lists(self, sender_keys: Iterable[str]) -> dict[str, list[Session]]:
        return {key: sessions.last_used_first() for key, sessions in self._senders.fetch(sender_keys).items()}

    def _sender_keys(self) -> Iterator[str]:
        unsaved = self._senders.pinned()
        for sender_key, _ in groupby(str(key[0]) for key in self._storage.keys(records.OlmSession)):
            unsaved.pop(sender_key, None)
            yield sender_key
        yield from unsaved
