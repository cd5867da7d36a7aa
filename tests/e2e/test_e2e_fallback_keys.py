"""More new devices write to a client that is down than it has one-time keys: all of it is read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import pytest
from nio import KeysUploadResponse, SyncResponse

from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client import fallback_keys
from homeserver_api import User
from homeserver_bed import Bed, Device, Talk
from homeserver_worker import WorkerConfig
from raw_devices import RawDevice

pytestmark = pytest.mark.e2e

_DEVICES: Final = 300
_ONE_TIME_KEYS: Final = 50


class Writers:
    """Any number of devices of one user, who write to one device of another; the server knows only the user."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._api: Any = talk.bed.api
        self._receiver = self._api.device_keys(talk.alice.user, talk.bob.user)[talk.bob.config.device_id]
        self.claimed: list[str] = []

    def begin(self, name: str) -> RawDevice:
        """A new device, which claims a key of the receiver."""
        user, device_id = self._talk.bob.user.user_id, self._talk.bob.config.device_id
        device = RawDevice(self._user.user_id, name)
        answer = self._ask("POST", "keys/claim", {"one_time_keys": {user: {device_id: "signed_curve25519"}}})
        self.claimed.append(device.begin(self._receiver, answer["one_time_keys"][user][device_id]))
        return device

    def write(self, device: RawDevice, text: str) -> None:
        """Send the device's room key to the receiver, and a message to the room."""
        bob, room = self._talk.bob, self._talk.room
        content = device.room_key(room)
        self._api.send_to_device(self._user, "m.room.encrypted", bob.user, bob.config.device_id, content)
        path = f"rooms/{quote(room)}/send/m.room.encrypted/{quote(text, safe='')}"
        self._talk.sent[self._ask("PUT", path, device.message(room, text))["event_id"]] = text

    @property
    def _user(self) -> User:
        return self._talk.alice.user

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> Any:
        return self._api._ask(method, f"/_matrix/client/v3/{path}", body, self._user)


def talk_to(bed: Bed) -> tuple[Talk, Device]:
    """A room of somebody who has no client, and of a device whose keys are on the server."""
    alice, bob = bed.device("alice"), bed.device("bob")
    talk = Talk(bed, alice, bob, bed.api.encrypted_room(alice.user, bob.user), {})
    client = bed.start(bob)
    for _ in range(2):
        client.call("sync")
    client.kill()
    return talk, bob


def test_three_hundred_new_devices_write_while_the_client_is_down(bed: Bed) -> None:
    talk, bob = talk_to(bed)
    writers = Writers(talk)
    for number in range(_DEVICES):
        writers.write(writers.begin(f"NEW{number}"), f"message {number}")
    assert len(set(writers.claimed[:_ONE_TIME_KEYS])) == _ONE_TIME_KEYS
    assert len(set(writers.claimed[_ONE_TIME_KEYS:])) == 1
    client = bed.start(bob)
    client.call("sync")
    assert talk.unreadable(client) == []
    assert client.call("statistics")["loop_reads"] == 0


#: Where a new device dies, in the sync after which it uploads its keys for the first time.
POINTS = [
    ("batch:before", 1),
    ("batch:after", 1),
    ("batch:before", 2),
    ("batch:after", 2),
    ("keys-upload:before", 1),
    ("keys-upload:answered", 1),
]


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_a_kill_around_the_first_upload_leaves_a_device_that_anybody_can_write_to(
    bed: Bed, point: str, nth: int
) -> None:
    alice, bob = bed.device("alice"), bed.device("bob")
    talk = Talk(bed, alice, bob, bed.api.encrypted_room(alice.user, bob.user), {})
    client = bed.start(bob)
    client.call("arm", point=point, nth=nth)
    client.dies(client.begin("sync"))
    client = bed.start(bob)
    for _ in range(2):
        client.call("sync")
    client.kill()
    _all_keys_work(talk, bob)


def test_a_device_that_was_deleted_and_logs_in_again_has_a_fallback_key_again(bed: Bed) -> None:
    talk, bob = talk_to(bed)
    bed.api.delete_device(bob.user, bob.config.device_id)
    client = bed.start(bob)
    for _ in range(2):
        client.call("sync")
    client.kill()
    _all_keys_work(talk, bob)


def test_a_key_that_was_used_is_replaced_after_an_hour_and_both_are_read(
    any_bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, bob = talk_to(any_bed)
    writers = Writers(talk)
    devices = [writers.begin(f"OLD{number}") for number in range(_ONE_TIME_KEYS + 1)]
    # No test waits for an hour: the client runs in this process, with its clock put forward.
    later = datetime.now(UTC) + fallback_keys.LEAST_AGE
    monkeypatch.setattr(fallback_keys, "now", lambda: later)
    asyncio.run(_sync_and_upload(bob.config))
    devices += [writers.begin(f"NEW{number}") for number in range(_ONE_TIME_KEYS + 1)]
    old, new = writers.claimed[_ONE_TIME_KEYS], writers.claimed[-1]
    assert old != new
    for device in devices:
        writers.write(device, device.device_id)
    client = any_bed.start(bob)
    client.call("sync")
    assert talk.unreadable(client) == []


async def _sync_and_upload(config: WorkerConfig) -> None:
    async with ProductionMatrixClient(
        config.homeserver,
        config.user_id,
        config.device_id,
        store=config.store,
        pickle_key=config.pickle_key,
        env_file=None,
    ) as client:
        await client.login_or_restore()
        assert isinstance(await client.sync(), SyncResponse)
        assert isinstance(await client.keys_upload(), KeysUploadResponse)
        assert isinstance(await client.sync(), SyncResponse)
        assert not client.should_upload_keys


def _all_keys_work(talk: Talk, bob: Device) -> None:
    writers = Writers(talk)
    for number in range(_ONE_TIME_KEYS + 10):
        writers.write(writers.begin(f"NEW{number}"), f"message {number}")
    client = talk.bed.start(bob)
    client.call("sync")
    assert talk.unreadable(client) == []
