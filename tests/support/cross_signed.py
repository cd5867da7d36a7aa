"""Users with cross-signing identities, on the small homeserver: what their own clients would upload."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from client_pairs import BOB, Person, people
from cryptostore.trust.cross_signing import Seeds
from small_homeserver import Device, Json, SmallHomeserver

#: Bob's device.
PHONE: Final = (BOB.user_id, BOB.device_id)

_GROUPS = {
    "master_key": "master_keys",
    "self_signing_key": "self_signing_keys",
    "user_signing_key": "user_signing_keys",
}


class CrossSigned:
    """The identities that the homeserver shows. As Synapse, it shows a user-signing key to its own user alone."""

    def __init__(self, server: SmallHomeserver) -> None:
        self._server = server
        self.seeds: dict[str, Seeds] = {}
        #: By group and user, what is shown: to be spoilt by tests.
        self.shown: dict[str, Json] = {group: {} for group in _GROUPS.values()}
        server.key_answers.append(self._answer)

    def make(self, user: str, seeds: Seeds | None = None) -> Seeds:
        """The user has an identity, in place of an earlier one. No device is signed by it yet."""
        seeds = self.seeds[user] = seeds or Seeds.new()
        for name, content in seeds.upload(user).items():
            self.shown[_GROUPS[name]][user] = content
        self.changed(user)
        return seeds

    def make_for(self, device: Device) -> Seeds:
        """The device's user has an identity, in place of an earlier one, and it has signed the device."""
        seeds = self.make(device[0])
        self.sign(device)
        return seeds

    def sign(self, device: Device, seeds: Seeds | None = None) -> None:
        """The user's self-signing key signs a device, beside the signatures that it has."""
        keys = self._server.device_keys[device]
        self._server.device_keys[device] = (seeds or self.seeds[device[0]]).sign_device(device[0], keys)
        self.changed(device[0])

    def unsign(self, device: Device) -> None:
        """The device has no signature but its own."""
        keys = self._server.device_keys[device]
        own = {f"ed25519:{device[1]}": keys["signatures"][device[0]][f"ed25519:{device[1]}"]}
        self._server.device_keys[device] = {**keys, "signatures": {device[0]: own}}
        self.changed(device[0])

    def verify(self, user: str, other: str) -> None:
        """A user's user-signing key signs another's master key."""
        self.shown["master_keys"][other] = self.seeds[user].sign_master_key(user, self.shown["master_keys"][other])
        self.changed(other)

    def changed(self, user: str) -> None:
        """Everybody hears that something of this user's changed."""
        self._server.changed.append((self._server._advance(), user))

    def _answer(self, device: Device, users: list[str]) -> Json:
        def visible(group: str, user: str) -> bool:
            return user in users and (group != "user_signing_keys" or user == device[0])

        return {
            group: {user: content for user, content in by_user.items() if visible(group, user)}
            for group, by_user in self.shown.items()
        }


def signed_devices(identity: Any) -> set[str]:
    """The devices that an identity's record calls signed."""
    return set() if identity is None else set(identity.signed_devices)


@asynccontextmanager
async def identities(url: str) -> AsyncIterator[tuple[SmallHomeserver, CrossSigned, Person, Person]]:
    """Alice and Bob in one encrypted room, on a homeserver that shows identities."""
    async with people(url) as (server, alice, bob):
        yield server, CrossSigned(server), alice, bob


def known(alice: Person) -> Any:
    """What Alice's client knows of Bob."""
    return alice.store.identities.of(BOB.user_id)
