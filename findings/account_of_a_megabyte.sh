#!/bin/sh
# vodozemac: an account that says "at most 50 one-time keys" keeps 5,000 private ones; each time it is stored
# costs a megabyte.
#
# Versions: vodozemac 0.10.0.
#
# Guess, written before the run: an account with max_number_of_one_time_keys 50 has 50 private keys, perhaps 100
#   because the last ones may still be under way. Its pickle stays at a few kilobytes however old it gets.
#
# Seen: the pickle of a new account has about 600 characters, with 50 published keys about 8,700. With each further
#   50 that are published and never used it grows, to 821,000 after a hundred refills, and stays there: 5,000
#   private keys. one_time_keys, which is all that the API shows of them, is empty throughout. The oldest key of the last
#   5,000 still opens a session; the one before it does not.
#
# Why the guess is wrong: 50 is how many keys a server should hold. A server gives each key away once, and what
#   it gave to a device that never wrote stays secret knowledge of the account, which cannot know whether a
#   message is on its way. It drops the oldest at 5,000 only.
#
# For somebody who stores keys: a bot in public rooms loses keys to devices that never write, all day. After some
#   months each Olm message in, which removes one key, stores (and a replica receives, and a log keeps) most of a
#   megabyte. Do not put a limit of 64 kB on what an account may have, and store it once a batch, not once a
#   message.
. "$(dirname "$0")/common.sh"
install vodozemac==0.10.0
"$python" - <<'PY'
import vodozemac

KEY = bytes(32)
account, peer = vodozemac.Account(), vodozemac.Account()
assert account.max_number_of_one_time_keys == 50


def refill():
    """Make 50 keys and publish them; the first of them."""
    account.generate_one_time_keys(50)
    made = list(account.one_time_keys.values())
    account.mark_keys_as_published()
    assert len(made) == 50 and account.one_time_keys == {}
    return made


def opens(one_time_key):
    """Whether the first message of a peer that claimed this key can be read."""
    restored = vodozemac.Account.from_pickle(account.pickle(KEY), KEY)
    message = peer.create_outbound_session(account.curve25519_key, one_time_key).encrypt(b"hello").to_pre_key()
    try:
        return restored.create_inbound_session(peer.curve25519_key, message)[1] == b"hello"
    except vodozemac.SessionCreationException:
        return False


sizes = [len(account.pickle(KEY))]
published = []
for _ in range(110):
    published += refill()
    sizes.append(len(account.pickle(KEY)))
assert sizes[0] < 1_000 and sizes[1] < 10_000
assert sizes[100] > 800_000 and sizes[110] - sizes[100] < 5_000, "5,000 are kept"
assert [opens(key) for key in (published[-5_000], published[-5_001])] == [True, False]
print("characters of the pickle after 0, 1, 100 and 110 refills:", [sizes[refills] for refills in (0, 1, 100, 110)])
PY
