#!/bin/sh
# Synapse: a device id can be signed once. A signature of the device's new keys is answered "200, no failures" and
# dropped, and the old one, which fits no more, stays.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: POST /keys/signatures/upload stores a signature or names it under `failures`.
#   A signature of keys that are there is better than one of keys that are not, and takes its place.
#
# Seen: a device is signed by its owner's self-signing key. Its store is lost; it logs out and in again under the same
#   id and uploads new keys. /keys/query has the new keys with the signature of the old ones. The new signature is
#   answered 200 {"failures": {}}, and /keys/query is as before: the device is not signed, for everybody and for ever.
#   Under another id the same is stored. So it is where the keys stay and one more algorithm is named: not signed. And
#   the first object again under the id is signed at once, by the old signature.
#
# Why the guess is wrong: signatures are kept by user, signing key and device id. What is sent is compared with the keys
#   of now and found right; then "is there a signature already" is answered yes, and it is left out as a repeat.
#   Neither new device keys nor a logout removes the old one.
#
# For somebody who stores keys: a device whose store is lost needs a new device id, whatever else is kept of it, and the
#   device keys object of a signed device must never change, not even its list of algorithms. After signing, ask for the
#   device and verify the signature: the answer to the upload says nothing.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from pathlib import Path

from cross_signing import Device, Identity, public, signed
from homeserver import Homeserver
from signedjson.key import get_verify_key
from signedjson.sign import SignatureVerifyException, verify_signed_json

BOT = "@bot:localhost"
WHO = {"identifier": {"type": "m.id.user", "user": BOT}, "password": "long enough"}


def login(device_id):
    status, answer = server.call("POST", "login", {"type": "m.login.password", "device_id": device_id, **WHO})
    assert status == 200, answer
    return answer["access_token"]


def publish(keys, token):
    assert server.call("POST", "keys/upload", {"device_keys": keys}, token)[0] == 200


def sign(keys, token):
    body = {BOT: {keys["device_id"]: signed(keys, BOT, owner.self_signing)}}
    assert server.call("POST", "keys/signatures/upload", body, token) == (200, {"failures": {}})


def is_signed(keys, token):
    """Whether the server has these keys, with a signature of the owner's that verifies."""
    found = server.call("POST", "keys/query", {"device_keys": {BOT: []}}, token)[1]["device_keys"][BOT]
    there = found[keys["device_id"]]
    there.pop("unsigned", None)
    assert there["keys"] == keys["keys"], "the keys that were uploaded last"
    verify_key = get_verify_key(owner.self_signing)
    verify_key.alg, verify_key.version = "ed25519", public(owner.self_signing)
    try:
        verify_signed_json(there, BOT, verify_key)
    except SignatureVerifyException:
        return False
    return True


with Homeserver(Path(sys.argv[1])) as server:
    bot, owner = server.register("bot", "DEVICE"), Identity(BOT)
    assert server.call("POST", "keys/device_signing/upload", owner.upload(), bot) == (200, {})
    device = Device(BOT, "DEVICE")
    first, second = device.keys("m.olm.v1.curve25519-aes-sha2"), Device(BOT, "DEVICE").keys()
    publish(first, bot)
    sign(first, bot)
    assert is_signed(first, bot), "once"

    assert server.call("POST", "logout", {}, bot)[0] == 200
    bot = login("DEVICE")
    publish(second, bot)
    for _ in range(2):
        sign(second, bot)
        assert not is_signed(second, bot), "dropped"

    publish(first, bot)
    assert is_signed(first, bot), "the first object, by the signature of before"
    renewed = device.keys("m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2")
    publish(renewed, bot)
    sign(renewed, bot)
    assert not is_signed(renewed, bot), "one more algorithm"

    other = Device(BOT, "OTHER").keys()
    token = login("OTHER")
    publish(other, token)
    sign(other, token)
    assert is_signed(other, token), "under another id"
print('a second signature under one device id: 200 {"failures": {}}, and not stored')
PY
