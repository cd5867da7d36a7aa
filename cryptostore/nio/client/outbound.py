"""Outbound group sessions across restarts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from nio.crypto import OutboundGroupSession

from cryptostore import records
from cryptostore.nio.pickles import Pickles, if_valid
from cryptostore.nio.storage import Storage
from cryptostore.records import Key
from cryptostore.records.changes import Changes, RecordKey

from .noting import NotingDict
from .rotations import Rotations

#: User id and device id.
DevicePair = tuple[str, str]

#: Devices in one part: a room's 10,000 make 200 records, of which none is written twice.
_PART: Final = 50


class Shares(NamedTuple):
    """The devices that were given a session's key, and those that were left out for good."""

    shared_with: frozenset[DevicePair]
    ignored: frozenset[DevicePair]


class _State(NamedTuple):
    """What tells whether a session is as it was saved. The sets only grow."""

    session_id: str
    message_index: int
    message_count: int
    shared: bool
    shared_with: int
    ignored: int


@dataclass
class _Saved:
    """What was last handed to the database about a room's session: its state, and which devices are in its parts."""

    state: _State
    parts: int = 0
    shared_with: set[DevicePair] = field(default_factory=set)
    ignored: set[DevicePair] = field(default_factory=set)

    def part_keys(self, room_id: str) -> list[Key]:
        """The keys of all parts."""
        return [(room_id, self.state.session_id, part) for part in range(self.parts)]

    def add(self, shares: Shares) -> None:
        """These devices are in parts, too."""
        self.shared_with |= shares.shared_with
        self.ignored |= shares.ignored


class OutboundSessions:
    """The sessions that nio uses, and those of an earlier process that were not judged yet.

    nio tells no store about them: a flush compares those that were touched with what the last one wrote. Who has the
    key of an earlier process's session is read when it is judged.
    """

    def __init__(self, storage: Storage, pickles: Pickles, rotations: Rotations) -> None:
        self._storage = storage
        self._pickles = pickles
        self._rotations = rotations
        #: nio's own dictionary, by room id.
        self.live: NotingDict[OutboundGroupSession] = NotingDict(self.note)
        #: Rooms whose session may not be as it was saved.
        self._touched: set[str] = set()
        self._restored: dict[str, OutboundGroupSession] = {}
        self._saved: dict[str, _Saved] = {}
        #: Parts of unreadable sessions. They are deleted when the room's next session takes its place.
        self._leftovers: dict[str, list[Key]] = {}
        self._load()

    def _load(self) -> None:
        stored = self._storage.select(records.OutboundGroupSession, [()])
        unreadable = [str(key[0]) for key in stored.unreadable if key is not None]
        for row in stored[()]:
            session = self._pickles.outbound_session(row)
            if session is None:
                unreadable.append(row.room_id)
                continue
            self._saved[row.room_id] = _Saved(_state(session), row.parts)
            if session.shared:
                self._restored[row.room_id] = session
            else:
                self.note(row.room_id)
        self._find_leftovers(unreadable)

    def _find_leftovers(self, room_ids: Iterable[str]) -> None:
        parts = self._storage.select(records.SharedPart, [(room_id,) for room_id in room_ids])
        for (room_id,), found in parts.items():
            self._leftovers[str(room_id)] = [part.key for part in found]
        for key in filter(None, parts.unreadable):
            self._leftovers[str(key[0])].append(key)

    def note(self, room_id: str) -> None:
        """The room's session may have changed."""
        self._touched.add(room_id)

    def in_use(self, room_id: str) -> OutboundGroupSession | None:
        """The room's session, to look at: who changes it has to note that."""
        return self.live.data.get(room_id)

    @property
    def rooms(self) -> list[str]:
        """The rooms that have a session."""
        return [*self.live.data, *self._restored]

    def is_restored(self, room_id: str) -> bool:
        """Whether a session of an earlier process waits to be judged."""
        return room_id in self._restored

    def read_shares(self, room_id: str) -> Shares | None:
        """Who has the key of a restored session, in one round trip, from any thread; None if a part is missing."""
        session, saved = self._restored.get(room_id), self._saved.get(room_id)
        if session is None or saved is None:
            return None
        prefix = (room_id, session.id)
        parts = self._storage.select(records.SharedPart, [prefix])[prefix]
        if [part.part for part in parts] != list(range(saved.parts)):
            return None
        return Shares(
            frozenset(pair for part in parts for pair in part.shared_with),
            frozenset(pair for part in parts for pair in part.ignored),
        )

    def judge(self, room_id: str, expected: Collection[DevicePair] | None, shares: Shares | None) -> bool:
        """Use the restored session again if exactly the `expected` devices have its key, else never.

        None means that a device waits for the owner's decision, or that it is unknown who has the key. Returns whether
        it is used again.
        """
        session = self._restored.pop(room_id)
        self.note(room_id)
        self._rotations.limit(room_id, session)
        if expected is None or shares is None or shares.shared_with != set(expected) or session.expired:
            return False
        session.users_shared_with, session.users_ignored = set(shares.shared_with), set(shares.ignored)
        saved = self._saved[room_id]
        saved.state = _state(session)
        saved.add(shares)
        self.live[room_id] = session
        return True

    def forget_restored(self, room_id: str) -> None:
        """Never use the room's session of an earlier process again."""
        self.note(room_id)
        self._restored.pop(room_id, None)

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return any(self._is_changed(room_id, self._present(room_id)) for room_id in self._touched)

    def collect(self) -> Changes:
        """The records to write, and the keys of what was invalidated or replaced."""
        puts: list[records.Record] = []
        deletes: list[RecordKey] = []
        for room_id in self._touched:
            session = self._present(room_id)
            if not self._is_changed(room_id, session):
                continue
            if session is None:
                deletes += _part_keys(self._saved.pop(room_id).part_keys(room_id))
                deletes += _session_key(room_id)
            else:
                deletes += _part_keys(self._outdated_parts(room_id, session))
                puts += self._records(room_id, session)
        self._touched.clear()
        return Changes(puts, deletes)

    def _present(self, room_id: str) -> OutboundGroupSession | None:
        return self.live.data.get(room_id) or self._restored.get(room_id)

    def _is_changed(self, room_id: str, session: OutboundGroupSession | None) -> bool:
        saved = self._saved.get(room_id)
        if session is None or saved is None:
            return session is not None or saved is not None
        return saved.state != _state(session)

    def _outdated_parts(self, room_id: str, session: OutboundGroupSession) -> list[Key]:
        """The parts of the session whose place this one takes, which is forgotten."""
        saved = self._saved.get(room_id)
        if saved is None:
            return self._leftovers.pop(room_id, [])
        return [] if saved.state.session_id == session.id else self._saved.pop(room_id).part_keys(room_id)

    def _records(self, room_id: str, session: OutboundGroupSession) -> Iterator[records.Record]:
        saved = self._saved.setdefault(room_id, _Saved(_state(session)))
        saved.state = _state(session)
        new = Shares(_added(saved.shared_with, session.users_shared_with), _added(saved.ignored, session.users_ignored))
        saved.add(new)
        for devices in _in_parts(new):
            yield from _storable(partial(records.SharedPart, room_id, session.id, saved.parts, *devices))
            saved.parts += 1
        yield from _storable(partial(self._pickles.outbound_record, room_id, session, saved.parts))


def _state(session: OutboundGroupSession) -> _State:
    return _State(
        session.id,
        session.message_index,
        session.message_count,
        session.shared,
        len(session.users_shared_with),
        len(session.users_ignored),
    )


def _added(known: set[DevicePair], present: set[DevicePair]) -> frozenset[DevicePair]:
    # They only grow, and every message asks.
    return frozenset(present - known) if len(present) != len(known) else frozenset()


def _in_parts(shares: Shares) -> Iterator[Shares]:
    devices = [(pair, True) for pair in shares.shared_with] + [(pair, False) for pair in shares.ignored]
    for start in range(0, len(devices), _PART):
        part = devices[start : start + _PART]
        yield Shares(
            frozenset(pair for pair, is_shared in part if is_shared),
            frozenset(pair for pair, is_shared in part if not is_shared),
        )


def _storable(make: Callable[[], records.Record]) -> list[records.Record]:
    record = if_valid(make)
    return [] if record is None else [record]


def _part_keys(keys: Iterable[Key]) -> list[RecordKey]:
    return [RecordKey(records.SharedPart, key) for key in keys]


def _session_key(room_id: str) -> list[RecordKey]:
    # A session in a room whose id cannot be stored never was.
    return (
        [RecordKey(records.OutboundGroupSession, (room_id,))]
        if if_valid(partial(records.EncryptedRoom, room_id))
        else []
    )
