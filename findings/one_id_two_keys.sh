#!/bin/sh
# vodozemac, Synapse: one key id names two keys of a device at the same time, and the server hands both out under it.
#
# Versions: vodozemac 0.10.0, matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate
#   limits.
#
# Guess, written before the run: an id such as signed_curve25519:AAAAAAAAAAA names one key of a device. Whoever claims
#   all 50 one-time keys and then the fallback key has 51 ids.
#
# Seen: a new account makes 50 one-time keys and a fallback key. The fallback key has the id of the first one-time
#   key. Synapse takes both in one upload, and gives the first claim the one, the 51st claim the other, both under
#   signed_curve25519:AAAAAAAAAAA: 51 keys, 50 ids. Every later claim brings that id again.
#
# Why the guess is wrong: vodozemac counts one-time keys and fallback keys each from 0, libolm counted them together.
#   The server keeps them in two tables, and an answer to a claim does not say which of them it comes from (an object
#   of a fallback key has "fallback": true if its owner has set it).
#
# For somebody who stores keys: an id is no key for a table of a device's keys. A check that "no one-time key is
#   handed out twice" that compares ids finds a fault where there is none, and a loop that claims until an id comes
#   again ends one key early. Compare the public keys.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2 vodozemac==0.10.0
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from pathlib import Path

import vodozemac
from canonicaljson import encode_canonical_json

from homeserver import Homeserver

OWNER, DEVICE = "@alice:localhost", "DEVICE"
account = vodozemac.Account()


def signed(content):
    signature = account.sign(encode_canonical_json(content)).to_base64()
    return {**content, "signatures": {OWNER: {f"ed25519:{DEVICE}": signature}}}


def named(keys, **more):
    return {f"signed_curve25519:{key_id}": signed({"key": key.to_base64(), **more}) for key_id, key in keys.items()}


identity = {"curve25519": account.curve25519_key.to_base64(), "ed25519": account.ed25519_key.to_base64()}
device = {
    "user_id": OWNER,
    "device_id": DEVICE,
    "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
    "keys": {f"{name}:{DEVICE}": key for name, key in identity.items()},
}
account.generate_one_time_keys(50)
account.generate_fallback_key()
one_time, fallback = named(account.one_time_keys), named(account.fallback_key, fallback=True)
assert len(one_time) == 50 and fallback.keys() < one_time.keys(), "the id of a one-time key"

with Homeserver(Path(sys.argv[1])) as server:
    alice, bob = server.register("alice", DEVICE), server.register("bob", "OTHER")
    body = {"device_keys": signed(device), "one_time_keys": one_time, "fallback_keys": fallback}
    assert server.call("POST", "keys/upload", body, alice)[0] == 200
    claimed = []
    for _ in range(53):
        asked = {"one_time_keys": {OWNER: {DEVICE: "signed_curve25519"}}}
        status, answer = server.call("POST", "keys/claim", asked, bob)
        assert status == 200
        claimed += answer["one_time_keys"][OWNER][DEVICE].items()

ids, keys = [key_id for key_id, _ in claimed], [key["key"] for _, key in claimed]
assert len(set(keys)) == 51 and len(set(ids)) == 50
assert set(ids[50:]) == fallback.keys(), "the fallback key from the 51st claim on"
(twice,) = fallback
assert keys[ids.index(twice)] != keys[50]
print(f"51 claims brought 51 keys and 50 ids: {twice} is a one-time key and the fallback key")
PY
