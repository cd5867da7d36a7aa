#!/bin/sh
# Synapse: the incremental sync of a room that the account left and joined again brings old events once more.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: a sync since a token brings what happened since the token. If a room was left and
#   joined again meanwhile, its timeline begins with the leave or with the join.
#
# Seen: a client has read four messages; its account, on another device, leaves and joins again; one message is
#   sent. The sync since the client's token brings one new message and the four that it had read before, says
#   "limited", and its `prev_batch` lies before the token: a walk from the token to `prev_batch` gives nothing.
#   A room that the account had never been in is the same: its timeline begins before the join, with messages
#   that were sent before the account was there.
#
# Why the guess is wrong: for a room that is newly joined since the token the server does not use the token, and
#   fills the timeline up to its limit (ten) with the newest events that the account may see. "limited" is always
#   set then.
#
# For somebody who stores keys: a bot that answers what a sync brings answers four messages a second time, or is
#   given events that were encrypted for others, which no key will ever come for. Begin such a timeline at the
#   account's own join, and do not take `prev_batch` for a place after the token.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import itertools
import sys
from pathlib import Path
from urllib.parse import urlencode

from homeserver import Homeserver

server = Homeserver(Path(sys.argv[1]))
numbers = itertools.count()


def say(room, text):
    body = {"msgtype": "m.text", "body": text}
    assert server.call("PUT", f"rooms/{room}/send/m.room.message/{next(numbers)}", body, alice)[0] == 200


def new_room():
    return server.call("POST", "createRoom", {"preset": "public_chat"}, alice)[1]["room_id"]


def sync(since=""):
    status, answer = server.call("GET", "sync" + (f"?since={since}" if since else ""), token=carl)
    assert status == 200, answer
    return answer["next_batch"], answer.get("rooms", {}).get("join", {})


def texts(events):
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


with server:
    alice, carl = (server.register(user, "DEVICE") for user in ("alice", "carl"))
    room, other = new_room(), new_room()
    assert server.call("POST", f"join/{room}", {}, carl)[0] == 200
    for number in range(1, 5):
        say(room, f"read {number}")
        say(other, f"never for Carl {number}")
    since, rooms = sync()
    assert texts(rooms[room]["timeline"]["events"]) == [f"read {number}" for number in range(1, 5)]

    assert server.call("POST", f"rooms/{room}/leave", {}, carl)[0] == 200
    for each in (room, other):
        assert server.call("POST", f"join/{each}", {}, carl)[0] == 200
        say(each, "new")
    _, rooms = sync(since)
    again, first = rooms[room]["timeline"], rooms[other]["timeline"]
    assert again["limited"] and first["limited"]
    assert texts(again["events"]) == ["read 1", "read 2", "read 3", "read 4", "new"], texts(again["events"])
    assert texts(first["events"]) == [*(f"never for Carl {number}" for number in range(1, 5)), "new"]
    walk = urlencode({"dir": "f", "from": since, "to": again["prev_batch"], "limit": 100})
    page = server.call("GET", f"rooms/{room}/messages?{walk}", token=carl)[1]
    assert page["chunk"] == [] and "end" not in page, "prev_batch lies before the token"
print("one message was new; a sync since the token brought five, and five of a room that was joined after four of them")
PY
