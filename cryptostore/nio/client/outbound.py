"""Outbound group sessions across restarts."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import NamedTuple

from nio.crypto import OutboundGroupSession

from cryptostore import records
from cryptostore.changes import Changes
from cryptostore.nio.pickles import Pickles, if_valid
from cryptostore.nio.storage import Storage

#: User id and device id.
DevicePair = tuple[str, str]


class _State(NamedTuple):
    """What tells whether a session is as it was saved. The sets only grow."""

    session_id: str
    message_index: int
    message_count: int
    shared: bool
    shared_with: int
    ignored: int


class OutboundSessions:
    """The sessions that nio uses, and those of an earlier process that nobody has judged yet.

    nio tells no store about them: what changed is found by comparing with what the last flush wrote.
    """

    def __init__(self, storage: Storage, pickles: Pickles) -> None:
        self._pickles = pickles
        #: nio's own dictionary, by room id.
        self.live: dict[str, OutboundGroupSession] = {}
        self._restored: dict[str, OutboundGroupSession] = {}
        self._saved: dict[str, _State | None] = {}
        for row in storage.select(records.OutboundGroupSession, [()])[()]:
            session = pickles.outbound_session(row)
            # None for an unreadable one: it stays until the room's next session takes its place.
            if session is not None:
                self._saved[row.room_id] = _state(session)
                if session.shared:
                    self._restored[row.room_id] = session

    def is_restored(self, room_id: str) -> bool:
        """Whether a session of an earlier process waits to be judged."""
        return room_id in self._restored

    def judge(self, room_id: str, expected: Collection[DevicePair] | None) -> bool:
        """Use the restored session again if exactly the `expected` devices have its key, else never.

        None means that a device waits for the owner's decision. Returns whether it is used again.
        """
        session = self._restored.pop(room_id)
        fits = expected is not None and session.users_shared_with == set(expected) and not session.expired
        if fits:
            self.live[room_id] = session
        return fits

    def forget_restored(self, room_id: str) -> None:
        """Never use the room's session of an earlier process again."""
        self._restored.pop(room_id, None)

    def forget_restored_of(self, user_id: str) -> None:
        """The same for every room in which this user's devices were considered."""
        for room_id, session in list(self._restored.items()):
            if any(user == user_id for user, _ in session.users_shared_with | session.users_ignored):
                del self._restored[room_id]

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        present = self._present()
        return len(present) != len(self._saved) or any(
            self._saved.get(room_id) != _state(session) for room_id, session in present.items()
        )

    def collect(self) -> Changes:
        """The records to write, and the keys of sessions that were invalidated."""
        present = self._present()
        states = {room_id: _state(session) for room_id, session in present.items()}
        changed = [room_id for room_id, state in states.items() if self._saved.get(room_id) != state]
        rows = [if_valid(partial(self._pickles.outbound_record, room_id, present[room_id])) for room_id in changed]
        gone = [(records.OutboundGroupSession, (room_id,)) for room_id in self._saved if room_id not in present]
        self._saved = dict(states)
        return Changes([row for row in rows if row is not None], [key for key in gone if _is_valid(key[1][0])])

    def _present(self) -> dict[str, OutboundGroupSession]:
        return self._restored | self.live


def _state(session: OutboundGroupSession) -> _State:
    return _State(
        session.id,
        session.message_index,
        session.message_count,
        session.shared,
        len(session.users_shared_with),
        len(session.users_ignored),
    )


def _is_valid(room_id: str) -> bool:
    return if_valid(partial(records.EncryptedRoom, room_id)) is not None
