"""The end-to-end test bed: a homeserver, databases, users, rooms, and clients in processes of their own."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from cryptostore import new_pickle_key
from driven import Driven
from homeserver import Homeserver
from homeserver_api import Api, User, indices_used_twice
from homeserver_client import Client
from homeserver_worker import WorkerConfig
from peer import Peer

#: Shows a figure at the end of the run.
Figure: TypeAlias = Callable[[str], None]

#: How many room keys a kill hits.
KEYS: Final = 60


@dataclass(frozen=True)
class Device:
    """One device of a user: everything that a host must be told to run its client."""

    user: User
    config: WorkerConfig


class Bed:
    """One test's part of the homeserver; every client that it started is gone at the end."""

    def __init__(self, server: Homeserver, folder: Path, new_url: Callable[[], str]) -> None:
        self.server: Final = server
        self.api: Final = Api(server)
        self._folder = folder
        #: The URL of a database that was not used before.
        self.new_url: Final = new_url
        self._clients: list[Driven] = []

    def close(self) -> None:
        """Kill what still runs."""
        for client in self._clients:
            client.kill()

    def device(self, name: str, client: str = "production", store: str | None = None) -> Device:
        """A new user with one device, on a database of its own unless `store` names one."""
        return self.device_of(self.api.register(name), client, store)

    def device_of(self, user: User, client: str = "production", store: str | None = None) -> Device:
        """A new device of a user."""
        # nio takes every device with its own device id for itself, of any user.
        device_id = f"{user.user_id[1:].partition(':')[0].upper()}{secrets.token_hex(3).upper()}"
        if store is None:
            store = self._new_folder(device_id) if client == "nio" else self.new_url()
        token = "" if client == "production" else self.api.login(user, device_id)
        config = WorkerConfig(
            client=client,
            homeserver=self.server.url,
            user_id=user.user_id,
            device_id=device_id,
            store=store,
            pickle_key=new_pickle_key(),
            password=user.password,
            access_token=token,
        )
        return Device(user, config)

    def _new_folder(self, name: str) -> str:
        folder = self._folder / name
        folder.mkdir()
        return str(folder)

    def spawn(self, device: Device, **changes: Any) -> Client:
        """A new process for the device, which has not started its client yet."""
        client = Client(replace(device.config, **changes), self._folder)
        self._clients.append(client)
        return client

    def start_another(self, device: Device, client: Client) -> Client:
        """A new process with a new device of the same user, which the identity of the device's client signs."""
        kept = client.call("own_identity")["recovery_key"]
        return self.start(self.device_of(device.user), recovery_key=kept)

    def start(self, device: Device, **changes: Any) -> Client:
        """A new process for the device, with its client logged in."""
        client = self.spawn(device, **changes)
        client.call("start")
        return client

    def peer(self, user: User | None = None, **login: Any) -> Peer:
        """A new device of a user, or of a new one, in a process of the peer that has not synced yet."""
        peer = Peer(self.server.url, user or self.api.register("person"), self._folder)
        self._clients.append(peer)
        peer.login(**login)
        return peer


@dataclass
class Talk:
    """Two devices in one encrypted room, and everything that was sent there."""

    bed: Bed
    alice: Device
    bob: Device
    room: str
    #: The text of every message whose event id its sender was told.
    sent: dict[str, str]

    def say(self, client: Client, text: str, **how: Any) -> str:
        """Send a text; its event id."""
        event_id = str(client.call("send", room=self.room, text=text, **how))
        self.sent[event_id] = text
        return event_id

    def say_all(self, client: Client, *texts: str, rotate: bool = False) -> None:
        """Send texts one after the other; with `rotate` each in a Megolm session of its own."""
        self.sent |= client.call("say_all", room=self.room, texts=list(texts), rotate=rotate)

    def secrets(self, client: Client, what: str) -> None:
        """Send as many messages as a kill hits, each with a room key of its own."""
        self.say_all(client, *(f"{what} {number}" for number in range(KEYS)), rotate=True)

    def both_directions_work(self, one: Client, other: Client) -> None:
        """Fail unless each of two clients reads at once what the other says now."""
        for sender, reader in ((one, other), (other, one)):
            said = self.say(sender, "still there?")
            reader.call("sync")
            assert reader.texts().get(said) == "still there?", reader.told[-3:]

    def unreadable(self, client: Client) -> list[str]:
        """The messages on the homeserver that a client cannot decrypt, or reads wrongly."""
        history = client.call("history", room=self.room)
        assert self.sent.keys() <= history.keys(), "the homeserver lost a message"
        wrong = [event_id for event_id, text in self.sent.items() if history[event_id] != text]
        return sorted({*wrong, *(event_id for event_id, text in history.items() if text is None)})

    def indices_used_twice(self) -> int:
        """How many messages reused an index of their Megolm session."""
        return indices_used_twice(self.bed.api.timeline(self.alice.user, self.room))


def met(
    bed: Bed, alice: str = "production", bob: str = "production", stores: tuple[str | None, str | None] = (None, None)
) -> tuple[Talk, Client, Client]:
    """Two new users in a room, who have met: each has the other's devices, and has read a message of the other."""
    one, other = bed.device("alice", alice, stores[0]), bed.device("bob", bob, stores[1])
    talk = Talk(bed, one, other, bed.api.encrypted_room(one.user, other.user), {})
    first, second = bed.start(one), bed.start(other)
    for client in (first, second, first, second):
        client.call("sync")
    talk.both_directions_work(first, second)
    return talk, first, second
