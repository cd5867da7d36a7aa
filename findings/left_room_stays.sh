#!/bin/sh
# matrix-nio: a room that the account has left, or was banned from, stays among the client's rooms, with the account
# among its members, until the process ends.
#
# Versions: matrix-nio 0.26.0.
#
# Guess, of a reader who has not met it: `client.rooms` has the rooms that the account is in. A sync lists a room under
#   `leave` when that ends, and it goes.
#
# Seen: after a sync with the room under `leave`, with the account's own ban in its timeline, `client.rooms` has the
#   room, and the room's members have the account.
#
# Why the guess is wrong: nio parses `leave` of a sync, and nothing reads it. A room goes when the client itself forgets
#   it with `room_forget`.
#
# For somebody who deletes keys of rooms that were left: ask the homeserver (`GET /joined_rooms`), and more than once;
#   what nio has says "still there". The first sync of the next process, on the other hand, says "gone" of every room
#   that its filter leaves out.
. "$(dirname "$0")/common.sh"
install matrix-nio==0.26.0
cd "$work"
"$python" - <<'PY'
import asyncio

from nio import AsyncClient, SyncResponse

BOT, ROOM = "@bot:example.org", "!room:example.org"


def member(membership):
    content = {"membership": membership}
    return {
        "type": "m.room.member", "state_key": BOT, "sender": "@admin:example.org", "content": content,
        "event_id": f"${membership}", "origin_server_ts": 1,
    }


def synced(token, **rooms):
    """The answer of a homeserver to a sync."""
    response = SyncResponse.from_dict({
        "next_batch": token, "rooms": rooms, "to_device": {"events": []},
        "device_lists": {"changed": [], "left": []}, "device_one_time_keys_count": {}, "presence": {"events": []},
    })
    assert isinstance(response, SyncResponse), response
    return response


def room(events, **more):
    timeline = {"events": events, "limited": False, "prev_batch": "p"}
    return {ROOM: {"state": {"events": []}, "timeline": timeline, "account_data": {"events": []}, **more}}


async def main():
    client = AsyncClient("https://example.org", BOT)
    client.user_id = BOT
    await client.receive_response(synced("1", join=room([member("join")], ephemeral={"events": []}, summary={})))
    assert ROOM in client.rooms
    banned = synced("2", leave=room([member("ban")]))
    assert ROOM in banned.rooms.leave, "the sync says so"
    await client.receive_response(banned)
    assert client.next_batch == "2", "it was handled"
    if ROOM not in client.rooms or BOT not in client.rooms[ROOM].users:
        raise SystemExit("the room has gone")
    print("banned, and still a member of a room of the client's")
    await client.close()


asyncio.run(main())
PY
