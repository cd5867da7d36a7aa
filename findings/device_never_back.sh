#!/bin/sh
# matrix-nio: a device that one answer to /keys/query lacked never gets a room key again, although every later
# answer has it, with the same keys and a good signature. Nothing fails.
#
# Versions: matrix-nio 0.26.0, vodozemac 0.10.0.
#
# Guess, written before the run: an answer is the state of a user's devices. A device that is missing is set aside,
#   and one that is there again, with the keys that it had, is a device as before.
#
# Seen: Bob's device is known. One answer lists Bob without devices: his device is marked as deleted. The next
#   answer has it again, unchanged: it stays deleted. So it does after a restart from nio's own store. A room key
#   that is shared with Bob afterwards goes to no device, and sharing raises no error.
#
# Why the guess is wrong: nio compares the answer with the device that it remembers. Where the keys are equal it
#   takes it for unchanged and goes on; the mark is set in one place and cleared in none.
#
# For somebody who stores keys: servers give such answers (a federated server that is slow, a device that logged
#   out and in again with the same keys). Store "absent now", not "deleted for good", and judge each device by the
#   latest answer. But remember its keys and what the owner decided: who comes back with another Ed25519 key is
#   somebody new.
. "$(dirname "$0")/common.sh"
install 'matrix-nio[e2e]==0.26.0' vodozemac==0.10.0
cd "$work"
"$python" - <<'PY'
import logging
import os

from nio import KeysClaimResponse, KeysQueryResponse
from nio.crypto import Olm
from nio.store import DefaultStore

logging.disable(logging.CRITICAL)
BOB, ROOM = "@bob:example.org", "!room:example.org"


def machine(user, device):
    os.makedirs(device, exist_ok=True)
    return Olm(user, device, DefaultStore(user, device, device, "a pickle key"))


bob = machine(BOB, "BOBDEVICE")
uploaded = bob.share_keys()
listed = {"BOBDEVICE": uploaded["device_keys"]}
alice = machine("@alice:example.org", "ALICEDEVICE")


def answer(devices):
    alice.handle_response(KeysQueryResponse({BOB: devices}, {}))


def active():
    return [device.id for device in alice.device_store.active_user_devices(BOB)]


answer(listed)
assert active() == ["BOBDEVICE"]
answer({})
assert active() == [], "an answer without the device did not set it aside"
answer(listed)
after_its_return = active()
alice = machine("@alice:example.org", "ALICEDEVICE")
answer(listed)
after_a_restart = active()

one_time_key = dict([next(iter(uploaded["one_time_keys"].items()))])
alice.handle_response(KeysClaimResponse({BOB: {"BOBDEVICE": one_time_key}}, {}))
alice.create_outbound_group_session(ROOM)
shared_with, _ = alice.share_group_session(ROOM, [BOB], ignore_unverified_devices=True)
print("Bob's devices once it is listed again:", after_its_return, "and after a restart:", after_a_restart)
print("devices that the room key goes to:", sorted(shared_with))
assert after_its_return == after_a_restart == [], "the device came back: this finding has changed"
assert not shared_with, "the room key went to the device: this finding has changed"
PY
echo "as described: listed again, and never served again"
