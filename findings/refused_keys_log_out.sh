#!/bin/sh
# matrix-nio: a homeserver that refuses one request with room keys, because it is busy say, makes the client forget
# its access token. The pause that the server asks for is lost, and a room id stands in its place.
#
# Versions: matrix-nio 0.26.0.
#
# Guess, written before the run: the answer {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 100} is an error with
#   retry_after_ms 100 that names its room, and the client waits and tries again. Only "soft_logout": true ends a
#   login.
#
# Seen: the error of this one request has the room's id as retry_after_ms, the set of devices as soft_logout, no
#   room and no devices. Handled by the client, its access token is empty, for a 500 as for a 429. Where the
#   client waits for the pause itself, it divides the room's id by 1000: a TypeError. The error of sending a
#   message, with the same answer, is as guessed.
#
# Why the guess is wrong: the class fills the fields of its base by position, and two fields were put between the
#   status code and the room: retry_after_ms and soft_logout. Any set that is not empty is true.
#
# For somebody who stores keys: an empty token looks as if the server had logged the device out, and a program
#   that logs in again makes a new device, whose history is unreadable. Compare with what the server said, and
#   ask whoami before a token is thrown away.
. "$(dirname "$0")/common.sh"
install 'matrix-nio[e2e]==0.26.0'
"$python" - <<'PY'
import asyncio

from nio import AsyncClient, RoomSendResponse, ShareGroupSessionError, ShareGroupSessionResponse

ROOM, DEVICES = "!room:example.org", {("@bob:example.org", "BOBDEVICE")}
BUSY = {"errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests", "retry_after_ms": 100}
BROKEN = {"errcode": "M_UNKNOWN", "error": "Internal server error"}


async def token_after(answer):
    client = AsyncClient("https://example.org", "@alice:example.org")
    client.access_token = "a token"
    await client.receive_response(answer)
    await client.close()
    return client.access_token


keys = ShareGroupSessionResponse.from_dict(BUSY, ROOM, DEVICES)
assert isinstance(keys, ShareGroupSessionError)
message = RoomSendResponse.from_dict(BUSY, ROOM)
print("of a request with keys:", repr(keys.retry_after_ms), keys.soft_logout, repr(keys.room_id))
print("of a message:          ", repr(message.retry_after_ms), message.soft_logout, repr(message.room_id))
assert (keys.retry_after_ms, keys.soft_logout, keys.room_id) == (ROOM, DEVICES, ""), "this finding has changed"
assert (message.retry_after_ms, message.soft_logout, message.room_id) == (100, False, ROOM)
for answer in (BUSY, BROKEN):
    refused = ShareGroupSessionResponse.from_dict(answer, ROOM, DEVICES)
    token = asyncio.run(token_after(refused))
    print(f"token after {answer['errcode']}: {token!r}")
    assert token == "", "the client kept its token: this finding has changed"
assert asyncio.run(token_after(message)) == "a token"
PY
echo "as described: a refused request with room keys empties the access token"
