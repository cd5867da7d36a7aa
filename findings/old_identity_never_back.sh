#!/bin/sh
# Synapse: a cross-signing identity that was replaced can never be put back. The server fails with 500, the password
# does not help, and nobody is told why.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: with the password an identity can be replaced by any other, also by the one of
#   before: an operator who replaced it by mistake, and still has its seeds, uploads them again.
#
# Seen: identity one, then identity two with the password: 200. One again, with the password: 500 M_UNKNOWN. So it is
#   after a new login and after a restart of the server. Two stays. A third one is taken at once.
#
# Why the guess is wrong: each public key is also stored as a hidden device of the user, under the key as device id, and
#   stays there when the identity goes. Storing it a second time violates a unique index.
#
# For somebody who stores keys: seeds that are no longer the account's are worth nothing to this server, so ask which
#   identity is there before every upload, and never upload an old one: neither after a restore of the client's own
#   database, nor because the server says that there is another one. People who verified the old one must verify anew.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from pathlib import Path

from cross_signing import Identity
from homeserver import Homeserver

BOT = "@bot:localhost"
WHO = {"identifier": {"type": "m.id.user", "user": BOT}, "password": "long enough"}


def upload(identity, token, password=False):
    auth = {"auth": {"type": "m.login.password", **WHO}} if password else {}
    return server.call("POST", "keys/device_signing/upload", {**identity.upload(), **auth}, token)


def there():
    answer = server.call("POST", "keys/query", {"device_keys": {BOT: []}}, bot)[1]
    return answer["master_keys"][BOT]["keys"]


server = Homeserver(Path(sys.argv[1]))
one, two, three = Identity(BOT), Identity(BOT), Identity(BOT)
with server:
    bot = server.register("bot", "DEVICE")
    assert upload(one, bot) == (200, {})
    assert upload(two, bot)[0] == 401
    assert upload(two, bot, password=True) == (200, {})

    status, answer = upload(one, bot, password=True)
    assert (status, answer["errcode"]) == (500, "M_UNKNOWN"), (status, answer)
    assert there() == two.upload()["master_key"]["keys"]
    fresh = server.call("POST", "login", {"type": "m.login.password", **WHO})[1]["access_token"]
    assert upload(one, fresh, password=True)[0] == 500
with server:
    assert upload(one, bot, password=True)[0] == 500
    assert there() == two.upload()["master_key"]["keys"]
    assert upload(three, bot, password=True) == (200, {})
    assert there() == three.upload()["master_key"]["keys"]
print("the identity of before: 500, each time; a third one: 200")
PY
