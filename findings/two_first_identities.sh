#!/bin/sh
# Synapse: two clients of one account each upload a first cross-signing identity. Both are answered 200, and only one
# of the identities is there.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: the first identity of an account is taken with the access token alone, and any
#   further one asks for the password. Of two at the same moment one is the first: it gets 200, the other one 401.
#
# Seen: in most rounds both get 200. /keys/query then has one of the two identities, whole, and never a mixture; the
#   other one is nowhere, and the client that made it was told that all is well. Repeating the upload tells: the one
#   that is there gets 200 again, the other one 401.
#
# Why the guess is wrong: whether the account has an identity is asked first, and the keys are stored later, in
#   transactions of their own; nothing in between keeps a second request out, and the last one to write wins.
#
# For somebody who stores keys: a 200 does not mean that the identity is yours. Ask for it afterwards and compare all
#   three keys before you sign a device, show a recovery key, or drop the seeds. And where a repeated upload gets 401,
#   somebody else was there: the password would replace an identity that another client uses.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from cross_signing import Identity
from homeserver import Homeserver

ROUNDS = 15


def both_told_200(number):
    """Whether both uploads of a new account were taken; which of the two is there is checked here."""
    user, token = f"@bot{number}:localhost", server.register(f"bot{number}", "DEVICE")
    uploads, together = [Identity(user).upload() for _ in range(2)], Barrier(2)

    def upload(body):
        together.wait()
        return server.call("POST", "keys/device_signing/upload", body, token)[0]

    with ThreadPoolExecutor(2) as threads:
        told = list(threads.map(upload, uploads))
    answer = server.call("POST", "keys/query", {"device_keys": {user: []}}, token)[1]
    found = {name: answer[f"{name}s"][user]["keys"] for name in uploads[0]}
    there = [{name: key["keys"] for name, key in body.items()} == found for body in uploads]
    assert sorted(there) == [False, True], "one of the two, whole"
    again = [server.call("POST", "keys/device_signing/upload", body, token)[0] for body in uploads]
    assert again == [200 if is_there else 401 for is_there in there], again
    assert all(status in (200, 401) for status in told), told
    return told == [200, 200]


with Homeserver(Path(sys.argv[1])) as server:
    rounds = [both_told_200(number) for number in range(ROUNDS)]
assert any(rounds), "never were both told 200"
print(f"in {sum(rounds)} of {ROUNDS} rounds both uploads got 200, and one of the identities is there")
PY
