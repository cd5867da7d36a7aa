"""Another pickle key: nothing is lost, at whichever moment it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from nio.crypto import InboundGroupSession, OlmAccount, OutboundGroupSession, Session

from cryptostore import (
    AccountNotFound,
    ConfigurationError,
    FencedOut,
    UnreadableRecord,
    Value,
    WrongPickleKey,
    open_backend,
    records,
)
from cryptostore.nio import rekeying
from cryptostore.nio.key_ring import KeyRing
from cryptostore.nio.pickles import Pickles
from cryptostore.nio.rekeying import Rekeyed
from cryptostore.nio.sealing import ACCESS_TOKEN, Seal
from cryptostore_contract.samples import ALICE, BOB
from nio_accounts import olm_pair, with_account
from nio_places import ROOM, Ours, Ratchet

PICKLED: Final = (records.OlmSession, records.InboundGroupSession, records.OutboundGroupSession)

#: Dies with SIGKILL after so many sessions; before the first if that is none, and before anything if it is less.
KILLED: Final = """
import json, os, signal, sys
from cryptostore import Account, open_backend
from cryptostore.nio import rekeying

url, account, sessions = json.loads(sys.argv[1])
left = sessions

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def advance():
    global left
    left -= 1
    if not left:
        die()

rekeying._BATCH = 4
if sessions == 0:
    rekeying._Rekey._renew = die
if sessions < 0:
    rekeying._Rekey.run = die
with open_backend(url) as backend:
    rekeying.rekey(backend, Account(*account), "key", "new key", advance)
"""


def rekey(ours: Ours, old: str = "key", new: str = "new key") -> Rekeyed:
    with open_backend(ours.url) as backend:
        return rekeying.rekey(backend, ALICE, old, new)


class Kept:
    """An account with sessions of every kind, and what shows that they are all there."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        store = with_account(ours)
        self._identity = store.load_account().identity_keys
        self.ratchets = [Ratchet() for _ in range(9)]
        for ratchet in self.ratchets:
            store.save_inbound_group_session(ratchet.inbound())
        self._session, self._peer = olm_pair(store.load_account(), OlmAccount())
        store.save_session("curve", self._session)
        self._outbound = OutboundGroupSession()
        ours.close(store)
        ours.put(
            self._pickles("key").outbound_record(ROOM, self._outbound),
            Value(*ACCESS_TOKEN, Seal(ALICE, "key").seal("access token", "a token")),
        )

    def check(self, key: str) -> None:
        """Read everything with this pickle key, and write with what was read."""
        store = self._ours.open(pickle_key=key)
        assert store.load_account().identity_keys == self._identity  # type: ignore[union-attr]  # it is there
        assert all(ratchet.found_in(store) for ratchet in self.ratchets)
        session = store.load_sessions().get("curve")
        assert session is not None
        assert self._peer.decrypt(session.encrypt("hello")) == "hello"
        store.save_session("curve", session)
        self._ours.close(store)
        (outbound,) = self._ours.stored(records.OutboundGroupSession)
        read = self._pickles(key).outbound_session(outbound)
        assert read is not None
        assert read.id == self._outbound.id
        (token,) = self._ours.stored(Value)
        assert Seal(ALICE, key).open("access token", token.value) == "a token"

    def pickles(self) -> set[bytes]:
        """All that the database holds."""
        (account,) = self._ours.stored(records.OlmAccount)
        sessions: list[Any] = [record for kind in PICKLED for record in self._ours.stored(kind)]
        return {account.pickle, *(session.pickle for session in sessions)}

    def is_all_under_the_newest_key(self, key: str) -> bool:
        """Whether no older key is needed."""
        (account,) = self._ours.stored(records.OlmAccount)
        newest_alone = self.newest(key)
        sessions: list[Any] = [
            *map(newest_alone.olm_session, self._ours.stored(records.OlmSession)),
            *map(newest_alone.group_session, self._ours.stored(records.InboundGroupSession)),
            *map(newest_alone.outbound_session, self._ours.stored(records.OutboundGroupSession)),
        ]
        assert newest_alone.account(account).identity_keys == self._identity
        assert len(sessions) == len(self.ratchets) + 2
        return None not in sessions

    def newest(self, key: str) -> Pickles:
        """What the newest key alone reads."""
        ring = self._key_ring(key)
        return Pickles(ALICE, replace(ring, keys=ring.keys[:1]))

    def older_keys(self, key: str) -> Pickles:
        """What the other keys read."""
        ring = self._key_ring(key)
        return Pickles(ALICE, replace(ring, keys=ring.keys[1:]))

    def _pickles(self, key: str) -> Pickles:
        return Pickles(ALICE, self._key_ring(key))

    def _key_ring(self, key: str) -> KeyRing:
        (account,) = self._ours.stored(records.OlmAccount)
        return KeyRing.of(ALICE, key, account)


def test_everything_is_read_with_the_new_key_and_nothing_with_the_old(ours: Ours) -> None:
    kept = Kept(ours)
    before = kept.pickles()
    done = rekey(ours)
    assert done.renewed == {
        "olm_account": 1,
        "olm_session": 1,
        "inbound_group_session": 9,
        "outbound_group_session": 1,
    }
    assert done.unreadable.total() == 0
    assert not before & kept.pickles()
    assert kept.is_all_under_the_newest_key("new key")
    with pytest.raises(WrongPickleKey):
        ours.open(pickle_key="key")
    kept.check("new key")


def test_a_key_may_be_changed_again_and_again(ours: Ours) -> None:
    kept = Kept(ours)
    for old, new in (("key", "second"), ("second", "third"), ("third", "key")):
        rekey(ours, old, new)
        kept.check(new)
    assert kept.is_all_under_the_newest_key("key")


def test_sessions_of_several_batches(in_memory: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(in_memory)
    monkeypatch.setattr(rekeying, "_BATCH", 2)
    assert rekey(in_memory).renewed["inbound_group_session"] == 9
    assert kept.is_all_under_the_newest_key("new key")


@pytest.mark.parametrize("sessions", [0, 1, 3, 8, 11])
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_killed_half_way_it_opens_with_the_new_key_and_can_be_completed(ours: Ours, sessions: int) -> None:
    kept = Kept(ours)
    arguments = json.dumps([ours.url, [ALICE.user_id, ALICE.device_id], sessions])
    killed = subprocess.run([sys.executable, "-c", KILLED, arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(WrongPickleKey):
        ours.open(pickle_key="key")
    assert kept.is_all_under_the_newest_key("new key") == (sessions == 11)
    kept.check("new key")
    assert rekey(ours).renewed.total() == 12
    assert kept.is_all_under_the_newest_key("new key")
    kept.check("new key")


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_killed_before_its_first_batch_it_opens_with_the_old_key(ours: Ours) -> None:
    kept = Kept(ours)
    before = kept.pickles()
    arguments = json.dumps([ours.url, [ALICE.user_id, ALICE.device_id], -1])
    assert subprocess.run([sys.executable, "-c", KILLED, arguments], check=False).returncode == -signal.SIGKILL
    assert kept.pickles() == before
    kept.check("key")


def test_what_a_killed_rekey_left_moves_to_the_newest_key_as_it_is_used(in_memory: Ours) -> None:
    kept = Kept(in_memory)
    with open_backend(in_memory.url) as backend, pytest.raises(InterruptedError):
        rekeying.rekey(backend, ALICE, "key", "new key", interrupt)
    store = in_memory.open(pickle_key="new key")
    assert all(ratchet.found_in(store) for ratchet in kept.ratchets)
    assert store.load_sessions().get("curve") is not None
    store.save_encrypted_rooms({ROOM})
    in_memory.close(store)
    groups, old = in_memory.stored(records.InboundGroupSession), kept.older_keys("new key")
    assert [old.group_session(record) for record in groups] == [None] * 9


def interrupt() -> None:
    raise InterruptedError


def test_keys_that_were_replaced_forge_nothing(ours: Ours) -> None:
    kept = Kept(ours)
    (before,) = ours.stored(records.OlmAccount)
    forged = Pickles(ALICE, KeyRing.of(ALICE, "key", before)).outbound_record(ROOM, OutboundGroupSession())
    rekey(ours)
    ours.put(forged, replace(before, key_check=ours.stored(records.OlmAccount)[0].key_check))
    assert kept.newest("new key").outbound_session(forged) is None
    with pytest.raises(UnreadableRecord):
        ours.open(pickle_key="new key")


def test_a_client_that_comes_between_wins_and_reads_everything(in_memory: Ours) -> None:
    kept = Kept(in_memory)
    with open_backend(in_memory.url) as backend, pytest.raises(FencedOut):
        rekeying.rekey(backend, ALICE, "key", "new key", lambda: in_memory.open(pickle_key="new key").close())
    kept.check("new key")


def test_a_wrong_key_takes_nothing_over(ours: Ours) -> None:
    store = with_account(ours)
    with pytest.raises(WrongPickleKey, match="saved with another pickle key"):
        rekey(ours, "not it", "nor this")
    store.save_inbound_group_session(Ratchet().inbound())


def test_no_account_and_none_with_keys(in_memory: Ours) -> None:
    with pytest.raises(AccountNotFound):
        rekey(in_memory)
    in_memory.open(ALICE)
    with pytest.raises(ConfigurationError, match="has no keys yet"):
        rekey(in_memory)


def test_what_cannot_be_read_is_kept_and_named(ours: Ours) -> None:
    kept = Kept(ours)
    damaged = replace(ours.stored(records.InboundGroupSession)[0], pickle=b"damaged")
    ours.put(damaged)
    done = rekey(ours)
    assert (done.renewed["inbound_group_session"], done.unreadable["inbound_group_session"]) == (8, 1)
    assert damaged in ours.stored(records.InboundGroupSession)
    store = ours.open(pickle_key="new key")
    assert sum(ratchet.found_in(store) is not None for ratchet in kept.ratchets) == 8


def test_a_row_that_is_mended_after_a_rekey_can_still_be_read(in_memory: Ours) -> None:
    kept = Kept(in_memory)
    whole = in_memory.stored(records.InboundGroupSession)
    in_memory.put(replace(whole[0], pickle=b"damaged"))
    rekey(in_memory)
    in_memory.put(whole[0])
    kept.check("new key")


def test_a_login_that_cannot_be_read_holds_nothing_up(in_memory: Ours) -> None:
    Kept(in_memory)
    in_memory.put(Value(*ACCESS_TOKEN, b"damaged"))
    done = rekey(in_memory)
    assert (done.renewed.total(), done.unreadable) == (12, {"value": 1})
    assert in_memory.stored(Value) == [Value(*ACCESS_TOKEN, b"damaged")]


def test_another_account_is_left_alone(ours: Ours) -> None:
    Kept(ours)
    ours.close(with_account(ours, BOB))
    before = ours.stored(records.OlmAccount, BOB)
    rekey(ours)
    assert ours.stored(records.OlmAccount, BOB) == before
    assert ours.open(BOB, "key").load_account()


def from_an_early_release(ours: Ours, key: str) -> tuple[OlmAccount, InboundGroupSession, Session]:
    """Rows whose pickles are encrypted with the pickle key itself; the account's has a salt and a hash for a check."""
    account, ratchet = OlmAccount(), Ratchet()
    session, _ = olm_pair(account, OlmAccount())
    group, now = ratchet.inbound(), datetime.now(UTC)
    ours.put(
        records.OlmAccount(account.pickle(key), key_check=b"s" * 48),
        records.InboundGroupSession(ROOM, group.id, "curve", group.pickle(key), "ed", (), 0, now),
        records.OlmSession("curve", session.id, session.pickle(key), now, now),
    )
    return account, group, session


def test_keys_of_an_early_release_are_read_and_locked_away(ours: Ours) -> None:
    account, group, session = from_an_early_release(ours, "key")
    for _ in range(2):
        store = ours.open()
        assert store.load_account().identity_keys == account.identity_keys  # type: ignore[union-attr]  # it is there
        assert [each.id for each in store.load_inbound_group_sessions()] == [group.id]
        assert [each.id for each in store.load_sessions()["curve"]] == [session.id]
        ours.close(store)
    with pytest.raises(WrongPickleKey):
        ours.open(pickle_key="another")


def test_keys_of_an_early_release_get_another_key(ours: Ours) -> None:
    account, group, session = from_an_early_release(ours, "key")
    rekey(ours)
    store = ours.open(pickle_key="new key")
    assert store.load_account().identity_keys == account.identity_keys  # type: ignore[union-attr]  # it is there
    assert [each.id for each in store.load_inbound_group_sessions()] == [group.id]
    assert [each.id for each in store.load_sessions()["curve"]] == [session.id]


def test_sessions_that_were_saved_before_the_account_stay_readable(ours: Ours) -> None:
    ratchet = Ratchet()
    store = ours.open()
    store.save_inbound_group_session(ratchet.inbound())
    store = ours.reopen(store)
    store.save_account(OlmAccount())
    store = ours.reopen(store)
    assert ratchet.found_in(store)
    ours.close(store)
    rekey(ours)
    assert ratchet.found_in(ours.open(pickle_key="new key"))


def refuse(*_: object) -> None:
    raise ConfigurationError("refused")


def test_sessions_stay_readable_where_the_account_was_refused(in_memory: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    store, account, ratchet = in_memory.open(), OlmAccount(), Ratchet()
    with monkeypatch.context() as patch:
        patch.setattr(type(store._storage._store), "apply", refuse)
        with pytest.raises(ConfigurationError):
            store.save_account(account)
    store.save_inbound_group_session(ratchet.inbound())
    store = in_memory.reopen(store)
    assert ratchet.found_in(store)
    store.save_account(account)
    assert ratchet.found_in(in_memory.reopen(store))


def test_an_account_that_was_refused_can_be_saved_again(in_memory: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    store, account = in_memory.open(), OlmAccount()
    with monkeypatch.context() as patch:
        patch.setattr(type(store._storage._store), "apply", refuse)
        with pytest.raises(ConfigurationError):
            store.save_account(account)
    store.save_account(account)
    assert in_memory.reopen(store).load_account()
