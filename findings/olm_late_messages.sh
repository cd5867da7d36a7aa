#!/bin/sh
# vodozemac: of a hundred Olm messages that arrive newest first, only the 41 newest can ever be read; and six
# turns are too late.
#
# Versions: vodozemac 0.10.0.
#
# Guess, written before the run: Olm takes messages in any order, as Megolm does, as long as the gap is not
#   larger than 2,000. What could not be handled now can be handled later.
#
# Seen: 100 messages of one session, decrypted from the last to the first: the last and the 40 before it can be
#   read, the 59 oldest never again. In the right order, or shuffled so that none is more than 40 late: all 100.
#   A message that was held back while the two sides took turns is readable for five turns and lost after the
#   sixth. Megolm under the same treatment: all 100.
#
# Why the guess is wrong: to forget keys is what Olm is for. A session keeps the keys of at most 40 passed-over
#   messages for each of its last five receiving chains, oldest out first. The gap that is allowed (2,000) is
#   something else: a message may lie that far ahead, and decrypting it throws away the keys of all that it
#   passed over, but 40.
#
# For somebody who stores keys: room keys travel in Olm messages. A page of to-device messages that is put aside
#   and handled after later pages, or one that failed on a full database and is tried again later, is lost
#   although the store and the server have kept it. Handle them strictly in order, and stop at the first that
#   cannot be stored.
. "$(dirname "$0")/common.sh"
install vodozemac==0.10.0
"$python" - <<'PY'
import random

import vodozemac


def pair():
    """Two sides of one session, past the pre-key messages."""
    sender, receiver = vodozemac.Account(), vodozemac.Account()
    receiver.generate_one_time_keys(1)
    out = sender.create_outbound_session(receiver.curve25519_key, *receiver.one_time_keys.values())
    into, _ = receiver.create_inbound_session(sender.curve25519_key, out.encrypt(b"hello").to_pre_key())
    out.decrypt(into.encrypt(b"hello"))
    return out, into


def readable(order):
    """Which of 100 messages can be read in this order of arrival."""
    out, into = pair()
    messages = [out.encrypt(b"%d" % number) for number in range(100)]
    return sorted(number for number in order if decrypts(into, messages[number]))


def decrypts(session, message):
    try:
        session.decrypt(message)
    except vodozemac.OlmDecryptionException:
        return False
    return True


assert readable(range(100)) == list(range(100))
blocks = [random.sample(range(start, start + 20), 20) for start in range(0, 100, 20)]
assert readable(number for block in blocks for number in block) == list(range(100)), "shuffled a little"
assert readable(reversed(range(100))) == list(range(59, 100)), "newest first: 41"


def readable_after_turns(turns):
    out, into = pair()
    held = out.encrypt(b"held back")
    for _ in range(turns):
        into.decrypt(out.encrypt(b"question"))
        out.decrypt(into.encrypt(b"answer"))
    return decrypts(into, held)


assert [readable_after_turns(turns) for turns in range(1, 9)] == [True] * 5 + [False] * 3

outbound = vodozemac.GroupSession()
inbound = vodozemac.InboundGroupSession(outbound.session_key)
late = [outbound.encrypt(b"text") for _ in range(100)]
assert all(inbound.decrypt(message).plaintext == b"text" for message in reversed(late)), (
    "Megolm takes any order"
)
print("newest first, 59 of 100 Olm messages are lost for good")
PY
