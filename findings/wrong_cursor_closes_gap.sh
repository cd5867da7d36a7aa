#!/bin/sh
# Synapse: a client that asks for what a sync left out, with a wrong cursor, is told 200 and that there is nothing.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of a reader who has not met it: /messages from a place to an earlier place, or with a page size of nothing, is
#   refused with 400, as an unreadable place is. An empty page without `end`, which says that there is nothing
#   more, comes only where there is nothing more.
#
# Seen: 30 messages are sent between two syncs; the second brings the newest 10 and says "limited". Asked forwards
#   from the first sync's place to the window's beginning, the server gives the other 20, then an empty page
#   without `end`. With the two places swapped: 200, an empty page, no `end`. From a place of a later sync
#   (a token that was saved once too often): the same. With limit=0 the page is empty and its `end` is the position of
#   `to`, so that the next request is the last one. Only letters that are no place at all are refused, with 400.
#
# Why the guess is wrong: a place is a position in a stream, and a range of positions that ends before it begins
#   is a range of nothing. The server has no record of what a client was given, so nothing tells it that the
#   client meant another range.
#
# For somebody who stores keys and places: an answer cannot show that a place is wrong; "no more" is what every
#   mistake looks like. Store both ends of a gap in one transaction with the sync's token, never move one alone,
#   and check at the end that the last event before the window was among those that came.
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


def messages(start, end, limit=100):
    query = urlencode({"dir": "f", "from": start, "to": end, "limit": limit})
    status, page = server.call("GET", f"rooms/{room}/messages?{query}", token=carl)
    return status, [event["content"].get("body") for event in page.get("chunk", [])], page.get("end")


with server:
    alice, carl = (server.register(user, "DEVICE") for user in ("alice", "carl"))
    room = server.call("POST", "createRoom", {"preset": "public_chat"}, alice)[1]["room_id"]
    assert server.call("POST", f"join/{room}", {}, carl)[0] == 200
    since = server.call("GET", "sync", token=carl)[1]["next_batch"]
    for number in range(30):
        body = {"msgtype": "m.text", "body": str(number)}
        assert server.call("PUT", f"rooms/{room}/send/m.room.message/{number}", body, alice)[0] == 200
    answer = server.call("GET", f"sync?since={since}", token=carl)[1]
    timeline = answer["rooms"]["join"][room]["timeline"]
    window = [event["content"]["body"] for event in timeline["events"]]
    assert timeline["limited"] and window == [str(number) for number in range(20, 30)]
    before, later = timeline["prev_batch"], answer["next_batch"]

    status, missing, end = messages(since, before)
    assert (status, missing) == (200, [str(number) for number in range(20)])
    closed = (200, [], None)
    assert messages(end, before) == closed, "this is how a walk ends that has everything"
    assert messages(before, since) == closed, "the places swapped"
    assert messages(later, before) == closed, "a place that was saved once too often"
    status, nothing, end = messages(since, before, limit=0)
    assert (status, nothing) == (200, []) and end.split("_")[0] == before.split("_")[0], "pages of nothing arrive"
    assert messages("nowhere", before)[0] == 400
print("20 messages are missing; three wrong ways to ask for them are answered 200, nothing there, no more to come")
PY
