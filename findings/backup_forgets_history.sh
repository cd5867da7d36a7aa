#!/bin/sh
# Synapse: a room key in a backup that reads a room from its first message on is replaced by one that reads it from the
# fiftieth, if that one passed through fewer hands; and one that was verified by one that was not, if that begins earlier.
#
# Versions: matrix-synapse 1.163.2 on SQLite, everything at its default but registration and rate limits.
#
# Guess, of who reads the specification ("Backup algorithm", storing keys): of two entries for one session the server
#   keeps the verified one; of two equal in that, the one with the lower first_message_index; and only of two equal in
#   both the one with the lower forwarded_count.
#
# Seen: an entry from message 0 on that was forwarded once is replaced by one from message 50 on that was not. An entry
#   that is verified, from message 5 on, is replaced by one that is not, from message 3 on. Each answer is 200 with a new
#   etag, and the former entry is gone.
#
# Why the guess is wrong: the server asks three questions one after the other, "is it verified and the other not?", "does
#   it begin earlier?", "was it forwarded less often?", and replaces at the first yes. It does not stop where the former
#   entry is the better one by an earlier question.
#
# For somebody who stores keys: what a backup held yesterday it may not hold today, without anybody's having deleted it.
#   Keep your own copy of what reads most, take a restored key with a lower index and never the other way round, and do
#   not upload a key that is worse than what you know to be there.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2
mkdir "$work/synapse"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" <<'PY'
import sys
from pathlib import Path

from homeserver import Homeserver

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
KEY = "A" * 43


def entry(index, forwarded, verified):
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ephemeral": KEY, "ciphertext": f"from message {index} on", "mac": "AAAAAAAAAAA"},
    }


def stored_after(session, *entries):
    path = f"room_keys/keys/!room:localhost/{session}?version=1"
    for each in entries:
        status, answer = server.call("PUT", path, each, bot)
        assert status == 200, answer
    return server.call("GET", path, token=bot)[1]


with Homeserver(Path(sys.argv[1])) as server:
    bot = server.register("bot", "DEVICE")
    backup = {"algorithm": ALGORITHM, "auth_data": {"public_key": KEY, "signatures": {}}}
    assert server.call("POST", "room_keys/version", backup, bot) == (200, {"version": "1"})

    whole, late = entry(0, 1, False), entry(50, 0, False)
    assert stored_after("HISTORY", whole, late) == late, "messages 0 to 49 cannot be read any more"
    # By the index alone it is right.
    assert stored_after("SAME", entry(0, 0, False), entry(50, 0, False)) == entry(0, 0, False)

    verified, early = entry(5, 0, True), entry(3, 0, False)
    assert stored_after("VERIFIED", verified, early) == early, "what was verified is not any more"
print("an entry that reads 50 messages less took the place of one that had been forwarded; one not verified, of a verified")
PY
