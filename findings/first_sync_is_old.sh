#!/bin/sh
# Synapse: a first sync brings to-device messages that the client had and acknowledged, and not those that came since.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: a sync without `since` says what there is now. A to-device message that was
#   acknowledged, by a sync since the token that came with it, is deleted and never comes again.
#
# Seen: Carl's first sync brings the message "one". A sync since its token acknowledges it, and brings none. Then "two"
#   is sent. Another first sync, as of a program that was started again with an empty store, brings "one" and not
#   "two". The same with a parameter that differs (timeout=1) brings "two" alone. A sync since the old answer's token
#   brings "two", so that nothing is lost.
#
# Why the guess is wrong: the server keeps answers for two minutes, by user, device and parameters, in case that a
#   client repeats a request whose answer it did not get. A first sync has no `since` that would tell a new one apart.
#
# For somebody who stores keys: an Olm ratchet reads a message once, so that "one" looks like a broken session, which
#   clients answer with a new one. Remember what was read in the store that holds the ratchets; and where the store is
#   empty, do not take a first sync for the present state.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from pathlib import Path
from urllib.parse import urlencode

from homeserver import Homeserver

server = Homeserver(Path(sys.argv[1]))


def send(text):
    body = {"messages": {carl_id: {"DEVICE": {"text": text}}}}
    assert server.call("PUT", f"sendToDevice/org.example.text/{text}", body, alice)[0] == 200


def sync(**parameters):
    status, answer = server.call("GET", f"sync?{urlencode(parameters)}", token=carl)
    assert status == 200, answer
    events = answer.get("to_device", {}).get("events", [])
    return answer["next_batch"], [event["content"]["text"] for event in events]


with server:
    alice, carl = (server.register(user, "DEVICE") for user in ("alice", "carl"))
    carl_id = server.call("GET", "account/whoami", token=carl)[1]["user_id"]
    send("one")
    token, messages = sync()
    assert messages == ["one"], messages
    acknowledged, messages = sync(since=token)
    assert messages == [], messages
    send("two")
    old, messages = sync()
    assert messages == ["one"] and old == token, (messages, old, token)
    _, messages = sync(timeout=1)
    assert messages == ["two"], messages
    _, messages = sync(since=old)
    assert messages == ["two"], messages
print("a first sync brought a message that was deleted before, and not the one that came since")
PY
