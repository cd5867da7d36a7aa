"""Who gets a room's key: the owner's decisions, the signatures of devices, and the room's policy together."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from nio.crypto import OlmDevice, TrustState

from .identities import Identities
from .policies import Policies, RoomPolicies, TrustPolicy


class Fit(enum.Enum):
    """What a device gets of a room's key."""

    #: The key.
    KEY = enum.auto()
    #: Nothing before the program has decided, as in nio: the device proves nothing, and nothing is asked of it.
    UNDECIDED = enum.auto()
    #: A word that it was left out.
    LEFT_OUT = enum.auto()
    #: A word that it is blacklisted.
    BLACKLISTED = enum.auto()


class Decisions(Protocol):
    """What the program decided about devices."""

    def is_device_verified(self, device: OlmDevice) -> bool:
        """Whether it was verified."""

    def is_device_blacklisted(self, device: OlmDevice) -> bool:
        """Whether it gets no keys."""

    def is_device_ignored(self, device: OlmDevice) -> bool:
        """Whether it gets keys although it was not verified."""


class Recipients:
    """Judges devices for rooms.

    | device                                        | `all`     | `signed`  | `verified` |
    |-----------------------------------------------|-----------|-----------|------------|
    | blacklisted                                   | no        | no        | no         |
    | of a user whose verified identity has changed | no        | no        | no         |
    | verified by hand                              | key       | key       | key        |
    | signed by its owner, who was verified         | nio's     | key       | key        |
    | signed by its owner                           | nio's     | key       | no         |
    | not signed, and its owner has an identity     | nio's     | no        | no         |
    | of a user without an identity                 | nio's     | nio's     | no         |

    "nio's" is nio's own rule: the key for a device that is ignored, and else the send stops.
    """

    def __init__(
        self, decisions: Decisions, identities: Identities, room_policies: RoomPolicies, policies: Policies
    ) -> None:
        self._decisions = decisions
        self._identities = identities
        self._room_policies = room_policies
        self._otherwise = policies.room_keys

    def policy_of(self, room_id: str) -> TrustPolicy:
        """The room's policy."""
        return self._room_policies.of(room_id, self._otherwise)

    def fit(self, room_id: str, device: OlmDevice) -> Fit:
        """What a device gets of the room's key."""
        if self._decisions.is_device_blacklisted(device):
            return Fit.BLACKLISTED
        # A verification marks the device, too, but nobody has decided about what came after it.
        if self._identities.is_stopped(device.user_id):
            return Fit.LEFT_OUT
        if self._decisions.is_device_verified(device):
            return Fit.KEY
        return self._by_signature(self.policy_of(room_id), device)

    def is_own(self, device: OlmDevice) -> bool:
        """Whether the account's own identity, whose seeds it has, has signed this device."""
        is_blacklisted = self._decisions.is_device_blacklisted(device)
        return not is_blacklisted and self._is_signed(device) and self._identities.is_verified(device.user_id)

    def _by_signature(self, policy: TrustPolicy, device: OlmDevice) -> Fit:
        has_identity = self._identities.of(device.user_id) is not None
        if policy is TrustPolicy.ALL or (policy is TrustPolicy.SIGNED and not has_identity):
            return Fit.KEY if self._decisions.is_device_ignored(device) else Fit.UNDECIDED
        is_enough = policy is TrustPolicy.SIGNED or self._identities.is_verified(device.user_id)
        return Fit.KEY if is_enough and self._is_signed(device) else Fit.LEFT_OUT

    def _is_signed(self, device: OlmDevice) -> bool:
        return self._identities.is_signed_by_owner(device.user_id, device.id, device.ed25519)


@contextmanager
def shown_as_verified(device: OlmDevice) -> Iterator[None]:
    """Inside the block, which must not await, the device is one that was verified by hand: nio asks for no more."""
    before, device.trust_state = device.trust_state, TrustState.verified
    try:
        yield
    finally:
        device.trust_state = before
