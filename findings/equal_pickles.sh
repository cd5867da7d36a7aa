#!/bin/sh
# vodozemac: an encrypted pickle is the same each time. Who sees two of them sees what has not changed, and how
# far.
#
# Versions: vodozemac 0.10.0.
#
# Guess, written before the run: pickle(key) encrypts under a random nonce, so two pickles of one object differ in
#   every byte, and nothing can be read from comparing them. Whether a session has changed since it was stored
#   cannot be told from its pickle either.
#
# Seen: pickling an account or an Olm or Megolm session twice gives equal texts, also after a restart
#   (from_pickle and pickle). After one encrypt() of an Olm session some 790 of its 1,000 bytes are as
#   before. The pickles of two sessions that have nothing in common but the key begin with the same 32 bytes.
#
# Why the guess is wrong: as in libolm, whose format this keeps, the key given is stretched into a cipher key, a
#   MAC key and an initialisation vector. All pickles under one key share the vector, and CBC turns equal
#   beginnings into equal ciphertext, up to the first block that differs.
#
# For somebody who stores keys: good news and bad. Good: whether an object has to be stored again is one
#   comparison with the pickle that was stored last. Bad: a database, its backups and its log tell which
#   sessions were used between two moments, and a row that was put back from a backup is a valid row. Encrypt
#   pickles once more, under a nonce of your own and bound to their place, or give each its own key.
. "$(dirname "$0")/common.sh"
install vodozemac==0.10.0
"$python" - <<'PY'
import base64
import os

import vodozemac

KEY = bytes(range(32))


def new_session():
    ours, theirs = vodozemac.Account(), vodozemac.Account()
    theirs.generate_one_time_keys(1)
    return ours.create_outbound_session(theirs.curve25519_key, *theirs.one_time_keys.values())


def new_inbound():
    return vodozemac.InboundGroupSession(vodozemac.GroupSession().session_key)


def encrypted(thing):
    text = thing.pickle(KEY)
    return base64.b64decode(text + "=" * (-len(text) % 4))


def in_common(one, other):
    return len(os.path.commonprefix([one, other]))


for make in (vodozemac.Account, new_session, vodozemac.GroupSession, new_inbound):
    thing = make()
    assert len({encrypted(thing) for _ in range(10)}) == 1, "each time the same"
    assert encrypted(type(thing).from_pickle(thing.pickle(KEY), KEY)) == encrypted(thing), "after a restart, too"
    assert 16 <= in_common(encrypted(thing), encrypted(make())) < 100, "strangers begin alike"

session = new_session()
before = encrypted(session)
session.encrypt(b"hello")
after = encrypted(session)
assert 700 < in_common(before, after) < len(after)
print(f"one message later, {in_common(before, after)} of {len(after)} encrypted bytes are as before")
PY
