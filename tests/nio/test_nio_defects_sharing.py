"""Defects of nio's own store where several share a database: absent here and, where it is cheap to show, present there.

A test named `…_in_nio` shows the defect of that number in matrix-nio 0.26, by the same scenario where there is one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cryptostore import DeviceTrust, FencedOut, open_backend, records
from cryptostore_contract.samples import ALICE, BOB, KEY
from nio_accounts import AnyPlace, device, olm_pair, save, with_account
from nio_places import ROOM, Ours, Ratchet, Theirs, outcome

# 1: two accounts in one room and one database


def sessions_of_two_accounts(place: AnyPlace, bobs_pickle_key: str) -> list[Any]:
    ratchets = [Ratchet() for _ in range(10)]
    stores = [with_account(place), with_account(place, BOB, bobs_pickle_key)]
    for store in stores:
        for ratchet in ratchets:
            store.save_inbound_group_session(ratchet.inbound())
    place.close_all()
    reopened = (
        lambda: list(place.open(ALICE).load_inbound_group_sessions()),
        lambda: list(place.open(BOB, bobs_pickle_key).load_inbound_group_sessions()),
    )
    found = [outcome(load) for load in reopened]
    return [len(each) if isinstance(each, list) else each for each in found]


@pytest.mark.parametrize("bobs_pickle_key", [KEY, "another key"])
def test_1_two_accounts_share_a_room(ours: Ours, bobs_pickle_key: str) -> None:
    assert sessions_of_two_accounts(ours, bobs_pickle_key) == [10, 10]


def test_1_in_nio(theirs: Theirs) -> None:
    assert sessions_of_two_accounts(theirs, KEY) == [10, 0]


def test_1_with_two_pickle_keys_in_nio(theirs: Theirs) -> None:
    alices, bobs = sessions_of_two_accounts(theirs, "another key")
    assert (alices.__name__, bobs) == ("LibolmPickleException", 0)


# 2: both ends of an Olm session in one database


def both_ends(place: AnyPlace) -> tuple[int, int]:
    alice, bob = with_account(place), with_account(place, BOB)
    outbound, inbound = olm_pair(alice.load_account(), bob.load_account())
    assert outbound.id == inbound.id
    alice.save_session("bob's curve", outbound)
    bob.save_session("alice's curve", inbound)
    alice, bob = place.reopen(alice), place.reopen(bob)
    return len(alice.load_sessions()["bob's curve"]), len(bob.load_sessions()["alice's curve"])


def test_2_both_ends_of_an_olm_session_in_one_database(ours: Ours) -> None:
    assert both_ends(ours) == (1, 1)


def test_2_in_nio(theirs: Theirs) -> None:
    assert both_ends(theirs) == (0, 1)


# 3: forgetting a room


def rooms_after_somebody_else_forgot_theirs(place: AnyPlace) -> set[str]:
    alice, bob = with_account(place), with_account(place, BOB)
    for store in (alice, bob):
        store.save_encrypted_rooms({ROOM})
    bob.delete_encrypted_room(ROOM)
    rooms: set[str] = place.reopen(alice).load_encrypted_rooms()
    return rooms


def test_3_forgetting_a_room_is_ones_own_affair(ours: Ours) -> None:
    assert rooms_after_somebody_else_forgot_theirs(ours) == {ROOM}


def test_3_in_nio(theirs: Theirs) -> None:
    assert rooms_after_somebody_else_forgot_theirs(theirs) == set()


# 4: two threads with two databases


def test_4_threads_keep_their_databases_apart(tmp_path: Path) -> None:
    places = [Ours(f"sqlite:///{tmp_path}/{number}.db") for number in range(2)]
    ratchets = [[Ratchet() for _ in range(40)] for _ in places]

    def fill(place: Ours, mine: list[Ratchet]) -> None:
        store = with_account(place)
        for ratchet in mine:
            store.save_inbound_group_session(ratchet.inbound())
        place.close_all()

    threads = [threading.Thread(target=fill, args=each) for each in zip(places, ratchets, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, mine in zip(places, ratchets, strict=True):
        stored = {row.session_id for row in place.stored(records.InboundGroupSession)}
        assert stored == {ratchet.id for ratchet in mine}


def test_4_in_nio(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    places = [Theirs(tmp_path / name) for name in ("one", "other")]
    stores = [with_account(place) for place in places]
    began, finished = threading.Event(), threading.Event()

    def save_and_end() -> None:
        outcome(lambda: stores[1].save_encrypted_rooms({"!other:example.org"}))
        # peewee keeps a connection for each thread, and here the file of either.
        for store in stores:
            store.database.close()

    thread = threading.Thread(target=save_and_end)

    def let_the_other_thread_begin() -> None:
        thread.start()
        began.wait()

    def wait_for_the_first_thread() -> None:
        began.set()
        finished.wait()

    in_the_middle_of_a_save(stores[0], let_the_other_thread_begin)
    in_the_middle_of_a_save(stores[1], wait_for_the_first_thread)
    stores[0].save_encrypted_rooms({ROOM})
    finished.set()
    thread.join()
    for store in stores:
        del store._get_account
    rooms = [place.reopen(store).load_encrypted_rooms() for place, store in zip(places, stores, strict=True)]
    assert rooms[0] == set()
    assert ROOM in rooms[1]
    for place in places:
        place.close_all()


def in_the_middle_of_a_save(store: Any, happens: Callable[[], None]) -> None:
    """Let something happen after nio's store has bound its models to its file, and before it writes."""
    get_account = store._get_account

    def get_account_after_that() -> Any:
        happens()
        return get_account()

    store._get_account = get_account_after_that


# 5: two owners of one device


def test_5_the_older_of_two_owners_is_told(ours: Ours) -> None:
    older = with_account(ours)
    newer = ours.open()
    newer.save_inbound_group_session(Ratchet().inbound())
    with pytest.raises(FencedOut):
        older.save_inbound_group_session(Ratchet().inbound())
    assert len(ours.stored(records.InboundGroupSession)) == 1


def test_5_in_nio(theirs: Theirs) -> None:
    older = with_account(theirs)
    theirs.open().save_inbound_group_session(Ratchet().inbound())
    older.save_inbound_group_session(Ratchet().inbound())


# 6: deleting an account


def test_6_an_account_can_be_deleted_whole(ours: Ours) -> None:
    for account in (ALICE, BOB):
        store = with_account(ours, account)
        save(store, device())
        store.verify_device(device())
        ours.close(store)
    with open_backend(ours.url) as backend:
        backend.delete_account(ALICE)
        assert list(backend.accounts()) == [BOB]
    assert [row.trust for row in ours.stored(records.Device, BOB)] == [DeviceTrust.VERIFIED]
    assert ours.open_new(ALICE).load_account() is None


def test_6_in_nio(theirs: Theirs) -> None:
    store = with_account(theirs)
    save(store, device())
    store.verify_device(device())
    deletion = "DELETE FROM accounts"
    assert outcome(lambda: store.database.execute_sql(deletion)).__name__ == "IntegrityError"
