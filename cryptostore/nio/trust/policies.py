"""Which devices a client shares room keys with, and whose messages it takes."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from cryptostore import records
from cryptostore.errors import ConfigurationError
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.records.changes import Changes, RecordKey

#: Where the rooms are kept that have a policy of their own, each under its id.
ROOMS: Final = "room keys policy"


class TrustPolicy(enum.StrEnum):
    """How much a device has to prove (MSC4153 asks for `SIGNED`)."""

    #: Nothing: nio's own rules hold.
    ALL = "all"
    #: That its owner has signed it.
    SIGNED = "signed"
    #: That its owner has signed it, and that the owner was verified.
    VERIFIED = "verified"


class Policies(NamedTuple):
    """A client's policies: for room keys where a room has none of its own, and for messages."""

    room_keys: TrustPolicy = TrustPolicy.SIGNED
    accept: TrustPolicy = TrustPolicy.ALL


def policy(name: str, argument: str) -> TrustPolicy:
    """The policy of this name. Raises ConfigurationError, which names the argument."""
    try:
        return TrustPolicy(name)
    except ValueError:
        names = ", ".join(repr(each.value) for each in TrustPolicy)
        raise ConfigurationError(f"{argument}={name!r} is none of {names}") from None


class RoomPolicies:
    """The rooms that have a policy of their own. A record that cannot be read stands for the strictest."""

    def __init__(self, storage: BufferedStorage) -> None:
        self._storage = storage
        found = storage.select(records.Value, [(ROOMS,)])
        self._by_room = {row.name: _stored(row.value) for row in found[(ROOMS,)]}
        self._by_room |= {str(key[1]): TrustPolicy.VERIFIED for key in found.unreadable if key is not None}

    def of(self, room_id: str, otherwise: TrustPolicy) -> TrustPolicy:
        """The policy for a room."""
        return self._by_room.get(room_id, otherwise)

    def set(self, room_id: str, chosen: TrustPolicy | None) -> None:
        """Give a room a policy of its own, or none. Durable with the next flush. Raises InvalidRecord for an odd id."""
        row = records.Value(ROOMS, room_id, (chosen or TrustPolicy.VERIFIED).encode())
        if chosen is None:
            self._by_room.pop(room_id, None)
            self._storage.write(Changes(deletes=[RecordKey(records.Value, row.key)]))
        else:
            self._by_room[room_id] = chosen
            self._storage.write(Changes([row]))


def _stored(value: bytes) -> TrustPolicy:
    try:
        return TrustPolicy(value.decode())
    except ValueError:
        return TrustPolicy.VERIFIED
