"""A program that catches every error and tries again does not take an account back that it lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cryptostore import FencedOut, Mode, open_backend
from cryptostore.nio import NioStore
from cryptostore.store.owners import default_owner
from cryptostore_contract.samples import ALICE, KEY
from nio_places import ROOM, Ours

#: Opens an account, and waits for the end of its input.
OTHER_PROCESS = (
    "import sys; from cryptostore.nio import NioStore; from nio.crypto import Olm\n"
    "store = NioStore(*sys.argv[1:])\n"
    "Olm(*sys.argv[1:3], store)\n"
    "print('open', flush=True); sys.stdin.read()\n"
)


def taken_over(url: str, owner: str) -> None:
    with open_backend(f"{url}{'&' if '?' in url else '?'}owner={owner}") as backend:
        backend.open_store(ALICE, pickle_key=KEY)


def fenced(place: Ours, owner: str) -> NioStore:
    """A store of this process, after somebody took its account."""
    store = place.open()
    taken_over(place.url, owner)
    with pytest.raises(FencedOut):
        store.save_encrypted_rooms({ROOM})
    return store


def owner_of(url: str) -> str:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ) as store:
        return store.ownership.owner


def test_who_was_fenced_out_does_not_take_the_account_back(ours: Ours) -> None:
    fenced(ours, "another-host:1")
    for _ in range(3):
        with pytest.raises(FencedOut, match=r"another-host:1.*this process does not take it back"):
            ours.open()
    assert owner_of(ours.url) == "another-host:1"


def test_it_takes_it_back_where_the_program_says_so(in_memory: Ours) -> None:
    fenced(in_memory, "another-host:1")
    NioStore.take_back(ALICE.user_id, ALICE.device_id, in_memory.url)
    in_memory.open().save_encrypted_rooms({ROOM})
    assert owner_of(in_memory.url) == default_owner()


def test_who_was_not_told_takes_it_over_as_ever(in_memory: Ours) -> None:
    in_memory.open()
    taken_over(in_memory.url, "another-host:1")
    in_memory.open().save_encrypted_rooms({ROOM})


def test_an_account_that_this_process_took_from_itself_is_no_loss(in_memory: Ours) -> None:
    fenced(in_memory, default_owner().replace(" ", "%20"))
    in_memory.open().save_encrypted_rooms({ROOM})


def test_what_was_lost_and_won_back_by_another_store_of_this_process(in_memory: Ours) -> None:
    older = in_memory.open()
    newer = NioStore(ALICE.user_id, ALICE.device_id, f"{in_memory.url}?owner=me", KEY)
    with pytest.raises(FencedOut):
        older.save_encrypted_rooms({ROOM})
    newer.close()
    again = NioStore(ALICE.user_id, ALICE.device_id, f"{in_memory.url}?owner=me", KEY)
    again.save_encrypted_rooms({ROOM})
    again.close()


def test_an_owner_that_has_ended_leaves_the_account(tmp_path: Path) -> None:
    place = Ours(f"sqlite:///{tmp_path}/keys.db")
    store = place.open()
    command = [sys.executable, "-c", OTHER_PROCESS, ALICE.user_id, ALICE.device_id, place.url, KEY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(FencedOut):
            store.save_encrypted_rooms({ROOM})
        with pytest.raises(FencedOut, match="does not take it back"):
            place.open()
        other.kill()
    place.open().save_encrypted_rooms({ROOM})
    place.close_all()
