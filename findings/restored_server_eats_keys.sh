#!/bin/sh
# Synapse: after the server was restored from a backup, a client's next sync deletes the new room keys that wait
# for it, and answers 200.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, written before the run: a sync token that is newer than the restored database is refused, or it is
#   answered with what there is. Whatever was sent after the restore is delivered.
#
# Seen: a client has synced up to token T; the server is put back to a backup from before T; a peer sends three
#   to-device messages (room keys) and three messages. The client's sync since T: it waits its full timeout,
#   200, no event, and a next_batch that lies before T. Neither that sync nor the next, nor an initial one,
#   brings the three to-device messages: they are deleted. The three messages are in the room, unreadable, and
#   no sync since a token mentions them. A second client that starts without a token gets everything.
#
# Why the guess is wrong: a token is a list of positions, and positions are given again after the restore. The
#   server takes a token from the future for its own newest position, so that no client waits for ever; it tells
#   its log, not the client. That position then counts as "since": all that the client has not seen lies before
#   it, and its to-device messages are deleted as acknowledged.
#
# For somebody who stores keys: a token is only as good as the server's memory, and nothing in the answers is an
#   error. A next_batch with a smaller position after "nothing new" is the only sign (tokens are opaque; that of
#   Synapse begins with s and a number). Ask peers for the keys of what cannot be read, and tell operators to
#   let clients sync from the start after a restore.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
import time
from pathlib import Path

from homeserver import Homeserver

server = Homeserver(Path(sys.argv[1]))


def send(numbers):
    """Each number as a to-device message to Carl and as a message in the room."""
    for number in numbers:
        messages = {user: {"DEVICE": {"number": number}} for user in ("@carl:localhost", "@dora:localhost")}
        assert server.call("PUT", f"sendToDevice/m.room_key/{number}", {"messages": messages}, alice)[0] == 200
        body = {"msgtype": "m.text", "body": str(number)}
        assert server.call("PUT", f"rooms/{room}/send/m.room.message/{number}", body, alice)[0] == 200


def sync(token, since="", timeout=0):
    status, answer = server.call(
        "GET", f"sync?timeout={timeout}" + (f"&since={since}" if since else ""), token=token
    )
    assert status == 200, answer
    keys = [event["content"]["number"] for event in answer.get("to_device", {}).get("events", [])]
    events = [
        event
        for joined in answer.get("rooms", {}).get("join", {}).values()
        for event in joined["timeline"]["events"]
    ]
    return (
        answer["next_batch"],
        keys,
        [event["content"]["body"] for event in events if event["type"] == "m.room.message"],
    )


with server:
    alice, carl, dora = (server.register(user, "DEVICE") for user in ("alice", "carl", "dora"))
    room = server.call("POST", "createRoom", {"preset": "public_chat"}, alice)[1]["room_id"]
    assert all(server.call("POST", f"join/{room}", {}, user)[0] == 200 for user in (carl, dora))
server.backup()
with server:
    send(range(1, 11))
    newest, keys, messages = sync(carl)
    assert keys == list(range(1, 11)) and len(messages) == 10
server.restore()
with server:
    send(range(101, 104))  # after the restore, fewer than before it
    start = time.monotonic()
    after, keys, messages = sync(carl, since=newest, timeout=2000)
    assert (keys, messages) == ([], []) and time.monotonic() - start > 1.5, "waits as if there were nothing"
    assert int(after[1:].split("_")[0]) < int(newest[1:].split("_")[0]), "back to a smaller position"
    assert sync(carl)[1:] == ([], ["101", "102", "103"]), "the keys are gone by now, also for an initial sync"
    assert sync(carl, since=after)[1:] == ([], []), "and the messages are skipped"
    assert sync(dora)[1:] == ([101, 102, 103], ["101", "102", "103"]), "they had been there"
print(f"since={newest} was answered with next_batch={after}; three room keys were deleted unread")
PY
