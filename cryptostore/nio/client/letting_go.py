"""Old records of an account in use: deleted where no live object stands for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager

from cryptostore.records import (
    Device,
    InboundGroupSession,
    MissedEvents,
    OlmSession,
    OutboundGroupSession,
    RecordKey,
    ReplayPage,
    SessionToBackUp,
)
from cryptostore.records.changes import Changes
from cryptostore.store.prunable import Doomed

from .store import ProductionStore


class LettingGo:
    """Deletes what was found in the database while the client went on. Everything here happens on the event loop.

    `forget_outbound` makes the client never use a room's outbound session again.
    """

    def __init__(self, store: ProductionStore, forget_outbound: Callable[[str], None]) -> None:
        self._store = store
        self._group_sessions = store.load_inbound_group_sessions()
        self._sessions = store.load_sessions()
        self._devices = store.load_device_keys()
        self._forget_outbound = forget_outbound

    def delete(self, doomed: Iterable[Doomed], written: AbstractSet[RecordKey]) -> list[Doomed]:
        """Delete with the next flush what nobody uses, and what is as it was read: not `written` since, nor changed.

        Returns what is deleted.
        """
        changed = _Changed(self._store, written)
        with self._alone():
            free = [each for each in doomed if not changed.touches(each) and all(map(self._let_go, each.keys))]
            self._store.storage.write(Changes(deletes=[key for each in free for key in self._rows(each)]))
        return free

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as alone:
            for cached in (self._group_sessions, self._sessions, self._devices, self._store.replays):
                alone.enter_context(cached.alone())
            yield

    def _let_go(self, record: RecordKey) -> bool:
        kind, key = record
        if kind is InboundGroupSession:
            return self._group_sessions.let_go((str(key[0]), str(key[1]), str(key[2])))
        if kind is ReplayPage:
            return self._store.replays.let_go((str(key[0]), str(key[1]), int(key[2])))
        if kind is OlmSession:
            return self._sessions.let_go(*map(str, key))
        return kind is not Device or self._devices.let_go(*map(str, key))

    def _rows(self, doomed: Doomed) -> tuple[RecordKey, ...]:
        """What is left to delete when those were told who keep records of a kind in memory."""
        kind, key = doomed.record
        if kind is MissedEvents:
            self._store.gaps.missed.drop(key)
        elif kind is OutboundGroupSession:
            self._forget_outbound(str(key[0]))
        else:
            return doomed.keys
        return ()


class _Changed:
    """What may not be as it was read from the database."""

    def __init__(self, store: ProductionStore, written: AbstractSet[RecordKey]) -> None:
        self._keys = store.storage.pending_keys() | written
        self._used = store.replays.unsaved_sessions()
        self._used |= {(str(key[0]), str(key[1])) for kind, key in self._keys if kind is ReplayPage}
        self._senders = {key[0] for kind, key in self._keys if kind is OlmSession}

    def touches(self, doomed: Doomed) -> bool:
        """Whether something changed on which it depends that this is deleted, or what goes with it."""
        kind, key = doomed.record
        if kind is InboundGroupSession and (key[1:] in self._used or (SessionToBackUp, key) in self._keys):
            return True
        return any(
            each in self._keys or (each.kind is OlmSession and each.key[0] in self._senders) for each in doomed.keys
        )
