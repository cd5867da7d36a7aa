#!/bin/sh
# vodozemac: after two uploads of a fallback key that failed, the fallback key that the server still hands out is
# forgotten, though no other was ever published.
#
# Versions: vodozemac 0.10.0.
#
# Guess, of a reader who has not met it: a fallback key that was never published takes the place of nothing. The account
#   keeps the published one until another is published, and the one before it for messages that are under way.
#
# Seen: key A is published. generate_fallback_key() makes B, whose upload fails; the client tries again in the way
#   that it makes one-time keys, and generate_fallback_key() makes C. It returns None, and fallback_key shows C as
#   it showed B. Now messages that began with A can no longer be read ("unknown one-time key"). A is what the server
#   has. B, which nobody has, still opens a session. The pickle keeps it so.
#
# Why the guess is wrong: the account has two places, the last that was made and the one before. Making one moves
#   both on, whether or not anything was published; mark_keys_as_published() only hides the last one.
#
# For somebody who stores keys: one-time keys are made anew for each upload, because one that was offered may have
#   been handed out. With a fallback key that is exactly wrong. Store the signed key with the account that made it,
#   offer the same one until the server has confirmed it (that is harmless), and make none while one is pending.
. "$(dirname "$0")/common.sh"
install vodozemac==0.10.0
"$python" - <<'PY'
import vodozemac

KEY = bytes(32)
account = vodozemac.Account()


def made():
    """A new fallback key. What the call returns does not say what became of the others."""
    assert account.generate_fallback_key() is None
    ((_, key),) = account.fallback_key.items()
    return key


def opens(fallback_key):
    """Whether the first message of a peer that was given this key can be read, after a restart, too."""
    peer, restored = vodozemac.Account(), vodozemac.Account.from_pickle(account.pickle(KEY), KEY)
    message = peer.create_outbound_session(account.curve25519_key, fallback_key).encrypt(b"hello").to_pre_key()
    try:
        return restored.create_inbound_session(peer.curve25519_key, message)[1] == b"hello"
    except vodozemac.SessionCreationException:
        return False


a = made()
account.mark_keys_as_published()
assert account.fallback_key == {}
b = made()
assert [opens(each) for each in (a, b)] == [True, True]
c = made()
result = {name: opens(key) for name, key in (("A", a), ("B", b), ("C", c))}
assert result == {"A": False, "B": True, "C": True}, result
print("A is on the server, B and C never were; messages can be read that began with:", result)
PY
