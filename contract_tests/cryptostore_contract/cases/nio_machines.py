"""Real matrix-nio encryption machines on the database under test, and a process in which one of them is reopened.

`python -m cryptostore_contract.cases.nio_machines` is that process. It knows nothing but a URL, an account and a
pickle key, which come in the environment, since a process list shows arguments. It reads one event a line from its
standard input and answers with one line of JSON each: what the event says. At the end it writes two events of its own:
the key of a new Megolm session for the device that it heard last, and a message encrypted with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, Final

from nio.crypto import Olm, OlmDevice
from nio.events import MegolmEvent, OlmEvent, RoomKeyEvent, RoomMessageText

from cryptostore import Account
from cryptostore.nio import NioStore

URL_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_URL"
ACCOUNT_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_ACCOUNT"
PICKLE_KEY_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_PICKLE_KEY"

ROOM: Final = "!room:example.org"

#: Seconds that a child process is given before it counts as hanging.
_PATIENCE: Final = 120.0

#: An event as it travels: plain JSON.
Event = dict[str, Any]


class Machine:
    """One device: nio's encryption machine on a store of its own."""

    def __init__(self, account: Account, url: str, pickle_key: str) -> None:
        self.account = account
        self.store = NioStore(account.user_id, account.device_id, url, pickle_key)
        self.olm = Olm(account.user_id, account.device_id, self.store)

    @property
    def identity_keys(self) -> dict[str, str]:
        """The device's public keys."""
        return {name: str(key) for name, key in self.olm.account.identity_keys.items()}

    def meet(self, other: Machine) -> None:
        """Know the other's device, trust it, and have an Olm session with it."""
        device = OlmDevice(other.account.user_id, other.account.device_id, other.identity_keys)
        self.olm.device_store.add(device)
        self.store.save_device_keys({device.user_id: {device.id: device}})
        self.olm.verify_device(device)
        if self.olm.session_store.get(device.curve25519) is None:
            self.olm.create_session(other.publish_one_time_key(), device.curve25519)

    def publish_one_time_key(self) -> str:
        """A new one-time key, saved as published."""
        self.olm.account.generate_one_time_keys(1)
        (key,) = self.olm.account.one_time_keys["curve25519"].values()
        self.olm.mark_keys_as_published()
        self.olm.save_account()
        return key

    def share_room_key(self, user_id: str) -> Event:
        """A new Megolm session for the room, its key encrypted for the user's one device."""
        self.olm.rotate_outbound_group_session(ROOM)
        shared_with, to_device = self.olm.share_group_session(ROOM, [user_id])
        ((_, device_id),) = shared_with
        self.olm.outbound_group_sessions[ROOM].mark_as_shared()
        content = to_device["messages"][user_id][device_id]
        return {"type": "m.room.encrypted", "sender": self.account.user_id, "content": content}

    def say(self, text: str, number: int) -> Event:
        """A message to the room, encrypted with the session that was shared last."""
        message = {"type": "m.room.message", "content": {"msgtype": "m.text", "body": text}}
        return {
            "type": "m.room.encrypted",
            "sender": self.account.user_id,
            "event_id": f"${number}",
            "room_id": ROOM,
            "origin_server_ts": number,
            "content": self.olm.group_encrypt(ROOM, message),
        }

    def hear(self, event: Event) -> str | None:
        """What a message says, or which session's key an event brings; None if it cannot be decrypted."""
        if "event_id" not in event:
            heard = self.olm.handle_to_device_event(OlmEvent.from_dict(event))
            return heard.session_id if isinstance(heard, RoomKeyEvent) else None
        message = self.olm.decrypt_event(MegolmEvent.from_dict(event), ROOM)
        return message.body if isinstance(message, RoomMessageText) and message.verified else None

    def close(self) -> None:
        """Give the database back."""
        self.store.close()


def in_a_new_process(account: Account, url: str, pickle_key: str, events: Iterable[Event]) -> list[Any]:
    """What a new process, with nothing but these, makes of the events: what each says, then its own two events."""
    told = {
        URL_VARIABLE: url,
        ACCOUNT_VARIABLE: f"{account.user_id}\n{account.device_id}",
        PICKLE_KEY_VARIABLE: pickle_key,
    }
    child = subprocess.run(
        [sys.executable, "-m", __name__],
        input="".join(f"{json.dumps(event)}\n" for event in events),
        capture_output=True,
        text=True,
        env=os.environ | told,
        timeout=_PATIENCE,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-4_000:]
    return [json.loads(line) for line in child.stdout.splitlines()]


def _main() -> None:
    account = Account(*os.environ[ACCOUNT_VARIABLE].split("\n"))
    machine = Machine(account, os.environ[URL_VARIABLE], os.environ[PICKLE_KEY_VARIABLE])
    events = [json.loads(line) for line in sys.stdin]
    for event in events:
        _answer(machine.hear(event))
    _answer(machine.share_room_key(events[-1]["sender"]))
    _answer(machine.say("an answer", 1_000 + len(events)))
    machine.close()


def _answer(value: Any) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")


if __name__ == "__main__":
    _main()
