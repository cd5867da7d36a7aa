#!/bin/sh
# Synapse: a key backup keeps its version number while its public key is replaced; a refusal names the version that it
# refuses as the current one; and a superseded version is the current one again when the newer one is deleted.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: a new public key makes a new version, since what was stored under the old one
#   cannot be read with it. A version that was superseded is history. Who uploads to one is refused, and told by
#   `current_version` which one to use, as the specification says.
#
# Seen: version 1 has a session. PUT room_keys/version/1 with another public key: 200. The version is 1 still, its etag
#   and count are as before, and the session is there, under a key that the version does not name any more. Then version
#   2 is made, and an upload to 1 is refused with 403. Version 2 is deleted: GET room_keys/version gives 1 again, and
#   uploads to 1 are taken.
#
# Why the guess is wrong: the server compares algorithm and version, and stores `auth_data` as it comes. The current
#   version is the highest one that was not deleted.
#
# For somebody who stores keys: remember the public key that you encrypt for beside the version, and compare both when a
#   client starts and after each 403, or sessions go up that nobody can read, each answered with 200. Ask for the
#   current version after a 403: who follows `current_version` goes round for ever. And note what is backed up under
#   (version, public key), never under the number alone.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from pathlib import Path

from homeserver import Homeserver

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
OLD, NEW = "A" * 43, "B" * 42 + "A"
SESSION = {
    "first_message_index": 0,
    "forwarded_count": 0,
    "is_verified": False,
    "session_data": {"ephemeral": OLD, "ciphertext": "of the old key", "mac": "AAAAAAAAAAA"},
}


def backup(public_key, **more):
    return {"algorithm": ALGORITHM, "auth_data": {"public_key": public_key, "signatures": {}}, **more}


def current():
    status, answer = server.call("GET", "room_keys/version", token=bot)
    assert status == 200, answer
    return answer


def store(version, session="SESSION"):
    return server.call("PUT", f"room_keys/keys/!room:localhost/{session}?version={version}", SESSION, bot)


with Homeserver(Path(sys.argv[1])) as server:
    bot = server.register("bot", "DEVICE")
    assert server.call("POST", "room_keys/version", backup(OLD), bot) == (200, {"version": "1"})
    assert store(1)[0] == 200
    before = current()

    assert server.call("PUT", "room_keys/version/1", backup(NEW, version="1"), bot) == (200, {})
    after = current()
    assert after["auth_data"]["public_key"] == NEW
    assert {**after, "auth_data": None} == {**before, "auth_data": None}, "version, count and etag as before"
    kept = server.call("GET", "room_keys/keys/!room:localhost/SESSION?version=1", token=bot)
    assert kept == (200, SESSION), kept

    assert server.call("POST", "room_keys/version", backup(OLD), bot) == (200, {"version": "2"})
    status, answer = store(1, "LATER")
    assert (status, answer["errcode"], answer["current_version"]) == (403, "M_WRONG_ROOM_KEYS_VERSION", "1"), answer
    assert current()["version"] == "2"
    assert server.call("DELETE", "room_keys/version/2", token=bot)[0] == 200
    assert current() == after, "version 1 again"
    assert store(1, "LATER")[0] == 200
print("version 1 had two public keys, is refused as not being the current version 1, and is current again after 2")
PY
