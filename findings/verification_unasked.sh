#!/bin/sh
# matrix-nio: a program that has nothing to do with verifications takes part in each. It answers with a key of its own
# under the transaction of whoever deals with them, and the last step raises AssertionError.
#
# Versions: matrix-nio 0.26.0, vodozemac 0.10.0.
#
# Guess, of a reader who has not met it: a verification goes on when the program accepts it. Until then nothing is sent,
#   and a program that never does is as if it had not been asked, or cancels.
#
# Seen: Alice's client sends `m.key.verification.start`, and after it `m.key.verification.key`. Nobody accepts. nio has
#   `m.key.verification.key` with a key of its own in the messages that go out with the next sync. On
#   `m.key.verification.mac` it raises AssertionError, out of the sync that brought it.
#
# Why the guess is wrong: nio makes a state machine of its own for each start. Its answer to a key looks at who started,
#   not at whether the start was accepted; what accepting would have set is asserted later.
#
# For somebody who stores keys, and adds verification to nio: take these events out of nio's hands before it sees them,
#   or the other side gets two keys for one transaction and keeps one of them.
. "$(dirname "$0")/common.sh"
install 'matrix-nio[e2e]==0.26.0' vodozemac==0.10.0
cd "$work"
"$python" - <<'PY'
import logging

import vodozemac
from nio import KeyVerificationEvent
from nio.crypto import Olm, OlmDevice
from nio.store import SqliteMemoryStore

logging.disable(logging.CRITICAL)
ALICE, BOT = "@alice:example.org", "@bot:example.org"

bot = Olm(BOT, "BOT", SqliteMemoryStore(BOT, "BOT", "a pickle key"))
alice = vodozemac.Account()
keys = {"ed25519": alice.ed25519_key.to_base64(), "curve25519": alice.curve25519_key.to_base64()}
bot.device_store.add(OlmDevice(ALICE, "PHONE", keys))


def receive(step, **content):
    """What a sync does with an event of Alice's; the types of the messages that are to go out."""
    event = {"type": f"m.key.verification.{step}", "sender": ALICE, "content": {"transaction_id": "one", **content}}
    parsed = KeyVerificationEvent.parse_event(event)
    assert isinstance(parsed, KeyVerificationEvent), parsed
    bot.handle_to_device_event(parsed)
    return [message.type for message in bot.outgoing_to_device_messages]


start = {
    "from_device": "PHONE",
    "method": "m.sas.v1",
    "hashes": ["sha256"],
    "key_agreement_protocols": ["curve25519-hkdf-sha256"],
    "message_authentication_codes": ["hkdf-hmac-sha256", "hkdf-hmac-sha256.v2"],
    "short_authentication_string": ["decimal", "emoji"],
}
assert receive("start", **start) == []
assert receive("key", key=vodozemac.Sas().public_key.to_base64()) == ["m.key.verification.key"], "nobody accepted"
try:
    receive("mac", mac={"ed25519:PHONE": "A" * 43}, keys="A" * 43)
except AssertionError:
    print("a key was sent that nobody asked for, and the last step raised AssertionError")
else:
    raise SystemExit("the last step did not raise")
PY
