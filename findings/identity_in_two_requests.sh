#!/bin/sh
# Synapse: an identity that goes up in two requests stops half way. The first one needs no password, the second one
# does; and the same identity with one more signature in it counts as another one.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: the first identity of an account needs no password (Matrix 1.11). That holds
#   until its three keys are there, so that they may come one by one. And what is sent again, because the answer was
#   lost, is taken again as long as the keys are the same.
#
# Seen: the master key alone: 200. The self-signing and user-signing key that it signed: 401, a password is asked for.
#   Of another account all three at once: 200; the same bytes again: 200; one of them again, alone: 200. But the same
#   keys with the device's signature in the master key, which other clients put there: 401.
#
# Why the guess is wrong: an account with a master key counts as set up. After that, what is sent is compared as a whole
#   with what is stored, signatures included; only where all is equal, nothing is asked for.
#
# For somebody who stores keys: send all three keys in one request, and make its bytes from the seeds alone, so that a
#   start that was killed in the middle can send them again. Add the device's signature of the master key afterwards,
#   by /keys/signatures/upload: after that the first bytes are still taken.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from pathlib import Path

from cross_signing import Device, Identity
from homeserver import Homeserver


def account(name):
    user = f"@{name}:localhost"
    return user, server.register(name, "DEVICE"), Identity(user).upload()


def upload(body, token):
    return server.call("POST", "keys/device_signing/upload", body, token)[0]


with Homeserver(Path(sys.argv[1])) as server:
    _user, half, body = account("half")
    assert upload({"master_key": body["master_key"]}, half) == 200
    assert upload({name: body[name] for name in ("self_signing_key", "user_signing_key")}, half) == 401
    assert upload(body, half) == 401, "nor all three"

    user, whole, body = account("whole")
    assert upload(body, whole) == 200
    assert upload(body, whole) == 200, "the same bytes"
    assert upload({"self_signing_key": body["self_signing_key"]}, whole) == 200, "one of them"
    device = Device(user, "DEVICE")
    assert server.call("POST", "keys/upload", {"device_keys": device.keys()}, whole)[0] == 200
    master = device.signed(body["master_key"])
    assert upload({**body, "master_key": master}, whole) == 401, "one more signature"
    (bare,) = body["master_key"]["keys"].values()
    by_itself = server.call("POST", "keys/signatures/upload", {user: {bare: master}}, whole)
    assert by_itself == (200, {"failures": {}}), by_itself
    assert upload(body, whole) == 200, "the first bytes, after that"
print("the master key alone: 200; the two keys that it signed: 401; the same identity with one more signature: 401")
PY
