#!/bin/sh
# Synapse: a key upload that is answered with 400 has changed the device's identity. Peers then get the new
# identity with an old one-time key.
#
# Versions: matrix-synapse 1.163.2 on SQLite, vodozemac 0.10.0, signedjson as Synapse brings it.
#
# Guess, written before the run: POST /keys/upload is one request and one change: a 400 means that nothing of it
#   was stored.
#
# Seen: a bot lost its store, keeps its access token, and uploads a new identity with new one-time keys. Their
#   ids are those that its old self used, since libraries count from the start. 400, "One time key … already
#   exists". Of the request the device keys are stored, the one-time keys and the fallback key are not. A peer's
#   /keys/query gives the new identity, its /keys/claim the old one-time keys, signed by the old identity.
#
# Why the guess is wrong: the handler stores device keys, then one-time keys, then fallback keys, each in a
#   transaction of its own; the second one raises.
#
# For somebody who stores keys: after a refused upload the server's view must be read again (/keys/query of
#   oneself) before anything is decided, and a refused upload is never "try again with the old keys". Look
#   whether the server knows another identity for the device before the first upload, upload device keys alone,
#   and log in as a new device when a store is lost.
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

BOT = "@bot:localhost"


def signed(account, value):
    signature = account.sign(encode_canonical_json(value)).to_base64()
    return {**value, "signatures": {BOT: {"ed25519:DEVICE": signature}}}


def upload_of(account):
    """What a client sends at its first start: an identity, one-time keys and a fallback key."""
    account.generate_one_time_keys(5)
    account.generate_fallback_key()
    identity = {"curve25519": account.curve25519_key, "ed25519": account.ed25519_key}
    keys = {f"{name}:DEVICE": key.to_base64() for name, key in identity.items()}
    device = {"user_id": BOT, "device_id": "DEVICE", "algorithms": ["m.olm.v1.curve25519-aes-sha2"], "keys": keys}
    return {
        "device_keys": signed(account, device),
        "one_time_keys": signed_keys(account, account.one_time_keys),
        "fallback_keys": signed_keys(account, account.fallback_key, fallback=True),
    }


def signed_keys(account, keys, **more):
    return {f"signed_curve25519:{i}": signed(account, {"key": key.to_base64(), **more}) for i, key in keys.items()}


def claim():
    wanted = {"one_time_keys": {BOT: {"DEVICE": "signed_curve25519"}}}
    devices = server.call("POST", "keys/claim", wanted, peer)[1]["one_time_keys"].get(BOT, {})
    return [key["key"] for key in devices.get("DEVICE", {}).values()]


with Homeserver(Path(sys.argv[1])) as server:
    bot, peer = server.register("bot", "DEVICE"), server.register("peer", "DEVICE")
    old_upload, new_upload = upload_of(vodozemac.Account()), upload_of(vodozemac.Account())
    del old_upload["fallback_keys"]
    assert server.call("POST", "keys/upload", old_upload, bot)[0] == 200

    status, answer = server.call("POST", "keys/upload", new_upload, bot)
    assert status == 400 and "already exists" in answer["error"], answer

    devices = server.call("POST", "keys/query", {"device_keys": {BOT: []}}, peer)[1]["device_keys"]
    assert devices[BOT]["DEVICE"]["keys"] == new_upload["device_keys"]["keys"], "the new identity"
    claimed = [key for _ in range(5) for key in claim()]
    assert sorted(claimed) == sorted(key["key"] for key in old_upload["one_time_keys"].values()), "and its old keys"
    assert claim() == [], "and no fallback key"
print("400, and the device has the new identity with the old one-time keys")
PY
