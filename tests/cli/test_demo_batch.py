"""Why the demo's parties handle a sync in one batch: the same kill, with the batch and without."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nio.crypto import Olm, OlmDevice
from nio.events import ToDeviceEvent

from cryptostore.nio import NioStore

ROOM = "!room:localhost"
ALICE = ("@alice:localhost", "ALICE")
BOB = ("@bob:localhost", "BOB")

#: Bob's process dies when nio saves the Megolm session of a room key, right after it has saved the Olm session.
KILLED_BOB = """
import contextlib, json, os, signal, sys
from nio.crypto import Olm
from nio.events import ToDeviceEvent
from cryptostore.nio import NioStore

url, event, in_one_batch = json.load(sys.stdin)

class Killed(NioStore):
    def save_inbound_group_session(self, session):
        os.kill(os.getpid(), signal.SIGKILL)

store = Killed("@bob:localhost", "BOB", url, "bob's key")
olm = Olm("@bob:localhost", "BOB", store)
with store.batch() if in_one_batch else contextlib.nullcontext():
    olm.handle_to_device_event(ToDeviceEvent.parse_event(event))
"""


def machine(user_id: str, device_id: str, url: str, pickle_key: str) -> tuple[Olm, NioStore]:
    store = NioStore(user_id, device_id, url, pickle_key)
    return Olm(user_id, device_id, store), store


def room_key_for_bob(url: str) -> tuple[dict[str, Any], str]:
    """A room key from Alice, as Bob's server delivers it, and the id of its Megolm session."""
    bob, store = machine(*BOB, url, "bob's key")
    bob.account.generate_one_time_keys(1)
    one_time_key = next(iter(bob.account.one_time_keys["curve25519"].values()))
    bob.save_account()
    alice, alices_store = machine(*ALICE, "memory://", "alice's key")
    device = OlmDevice(*BOB, {name: str(key) for name, key in bob.account.identity_keys.items()})
    alice.device_store.add(device)
    alices_store.save_device_keys({device.user_id: {device.id: device}})
    alice.verify_device(device)
    alice.create_session(one_time_key, device.curve25519)
    _, to_device = alice.share_group_session(ROOM, [device.user_id])
    store.close()
    alices_store.close()
    content = to_device["messages"][device.user_id][device.id]
    event = {"type": "m.room.encrypted", "sender": ALICE[0], "content": content}
    return event, alice.outbound_group_sessions[ROOM].id


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_kill_between_two_saves_loses_the_key_only_without_the_batch(tmp_path: Path, in_one_batch: bool) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    event, session_id = room_key_for_bob(url)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BOB],
        input=json.dumps([url, event, in_one_batch]),
        text=True,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    bob, store = machine(*BOB, url, "bob's key")
    # The server delivers it again, because Bob never acknowledged it.
    bob.handle_to_device_event(ToDeviceEvent.parse_event(event))
    found = bob.inbound_group_store.get(ROOM, event["content"]["sender_key"], session_id)
    store.close()
    assert (found is not None) == in_one_batch


def test_a_batch_that_raises_keeps_what_was_saved_and_drops_the_token(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    event, session_id = room_key_for_bob(url)
    bob, store = machine(*BOB, url, "bob's key")

    def handle_half() -> None:
        with store.batch():
            bob.handle_to_device_event(ToDeviceEvent.parse_event(event))
            store.save_sync_token("handled by half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        handle_half()
    store.save_encrypted_rooms([ROOM])
    store.close()
    again, stored = machine(*BOB, url, "bob's key")
    assert again.inbound_group_store.get(ROOM, event["content"]["sender_key"], session_id) is not None
    assert stored.load_sync_token() is None
    stored.close()


def test_a_batch_is_durable_when_it_is_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    event, session_id = room_key_for_bob(url)
    bob, store = machine(*BOB, url, "bob's key")
    with store.batch():
        bob.handle_to_device_event(ToDeviceEvent.parse_event(event))
        store.save_sync_token("handled")
        store.save_encrypted_rooms([ROOM])
    # Not closed: whatever is durable is in the file already.
    again, stored = machine(*BOB, url, "bob's key")
    assert again.inbound_group_store.get(ROOM, event["content"]["sender_key"], session_id) is not None
    assert stored.load_sync_token() == "handled"
    stored.close()
    store.close()
