"""Another pickle key for an account of nio's: killed with SIGKILL at every batch, it loses nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Final

import pytest
from nio.crypto import OlmAccount

from cryptostore import WrongPickleKey, new_pickle_key, open_backend
from cryptostore.store.rekeying import Rekeyed, rekey
from cryptostore_contract.samples import ALICE, KEY
from nio_accounts import olm_pair, with_account
from nio_places import Ours, Ratchet

NEW_KEY: Final = new_pickle_key()
#: One for the ring, three for an Olm account and ten sessions of which each takes four, and one for the ring.
BATCHES: Final = 5

#: Dies with SIGKILL before or after one of its batches.
KILLED: Final = """
import json, os, signal, sys
from cryptostore import Account, open_backend
from cryptostore.store import rekeying

url, account, old, new, batch, side = json.loads(sys.argv[1])
rekeying._BATCH_ROWS = 4
with open_backend(url) as backend:
    commit, commits = backend.database.commit, 0

    def killed(*arguments):
        global commits
        if (commits, "before") == (batch, side):
            os.kill(os.getpid(), signal.SIGKILL)
        row = commit(*arguments)
        if (commits, "after") == (batch, side):
            os.kill(os.getpid(), signal.SIGKILL)
        commits += 1
        return row

    backend.database.commit = killed
    rekeying.rekey(backend, Account(*account), old, new)
"""


def rekeyed(ours: Ours) -> Rekeyed:
    with open_backend(ours.url) as backend:
        return rekey(backend, ALICE, KEY, NEW_KEY)


class Kept:
    """An account with sessions, and what shows that they are all there."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        store = with_account(ours)
        self._identity = store.load_account().identity_keys
        self.ratchets = [Ratchet() for _ in range(9)]
        for ratchet in self.ratchets:
            store.save_inbound_group_session(ratchet.inbound())
        self._session, self._peer = olm_pair(store.load_account(), OlmAccount())
        store.save_session("curve", self._session)
        ours.close(store)

    def check(self, key: str) -> None:
        """Read everything with this pickle key and no other, and write with what was read."""
        with pytest.raises(WrongPickleKey):
            self._ours.open(pickle_key=KEY if key == NEW_KEY else NEW_KEY)
        store = self._ours.open(pickle_key=key)
        assert store.load_account().identity_keys == self._identity  # type: ignore[union-attr]  # it is there
        assert all(ratchet.found_in(store) for ratchet in self.ratchets)
        session = store.load_sessions().get("curve")
        assert session is not None
        assert self._peer.decrypt(session.encrypt("hello")) == "hello"
        store.save_session("curve", session)
        self._ours.close(store)


def test_everything_is_read_with_the_new_key_and_nothing_with_the_old(ours: Ours) -> None:
    kept = Kept(ours)
    done = rekeyed(ours)
    assert done.resealed.total() == 11
    assert not done.unreadable
    kept.check(NEW_KEY)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_killed_at_any_batch_one_key_opens_it_and_the_same_call_completes_it(ours: Ours, batch: int, side: str) -> None:
    kept = Kept(ours)
    arguments = json.dumps([ours.url, [ALICE.user_id, ALICE.device_id], KEY, NEW_KEY, batch, side])
    killed = subprocess.run([sys.executable, "-c", KILLED, arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    kept.check(KEY if (batch, side) == (0, "before") else NEW_KEY)
    rekeyed(ours)
    kept.check(NEW_KEY)
