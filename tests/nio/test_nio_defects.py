"""Every store-level defect of nio's own store: absent here and, where it is cheap to show, present there.

A test named `…_in_nio` shows the defect of that number in matrix-nio 0.26, by the same scenario where there is one.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nio.crypto import InboundSession, OlmAccount, OlmDevice, OutboundSession
from nio.store.models import MegolmInboundSessions
from vodozemac import PreKeyMessage

from cryptostore import Account, DeviceTrust, FencedOut, UnreadableRecord, WrongPickleKey, open_backend, records
from cryptostore.nio import NioStore
from cryptostore_contract.samples import ALICE, BOB
from nio_places import ROOM, Ours, Place, Ratchet, TheirFiles, Theirs, olm_session, outcome

AnyPlace = Place[Any]


def with_account(place: AnyPlace, account: Account = ALICE, pickle_key: str = "key") -> Any:
    store = place.open(account, pickle_key)
    store.save_account(OlmAccount())
    return store


def device(number: int = 1, **changed: Any) -> OlmDevice:
    values = {"keys": {"ed25519": f"ed{number}", "curve25519": f"curve{number}"}, "display_name": "phone", **changed}
    return OlmDevice(BOB.user_id, f"DEVICE{number}", **values)


def save(store: Any, *devices: OlmDevice) -> None:
    store.save_device_keys({BOB.user_id: {each.id: each for each in devices}})


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


@pytest.mark.parametrize("bobs_pickle_key", ["key", "another key"])
def test_1_two_accounts_share_a_room(ours: Ours, bobs_pickle_key: str) -> None:
    assert sessions_of_two_accounts(ours, bobs_pickle_key) == [10, 10]


def test_1_in_nio(theirs: Theirs) -> None:
    assert sessions_of_two_accounts(theirs, "key") == [10, 0]


def test_1_with_two_pickle_keys_in_nio(theirs: Theirs) -> None:
    assert sessions_of_two_accounts(theirs, "another key") != [10, 10]


# 2: both ends of an Olm session in one database


def both_ends(place: AnyPlace) -> tuple[int, int]:
    alice, bob = with_account(place), with_account(place, BOB)
    outbound, inbound = olm_pair(alice.load_account(), bob.load_account())
    assert outbound.id == inbound.id
    alice.save_session("bob's curve", outbound)
    bob.save_session("alice's curve", inbound)
    alice, bob = place.reopen(alice), place.reopen(bob)
    return len(alice.load_sessions()["bob's curve"]), len(bob.load_sessions()["alice's curve"])


def olm_pair(one: OlmAccount, other: OlmAccount) -> tuple[OutboundSession, InboundSession]:
    """Both ends of an Olm session; the other's one-time key is consumed."""
    outbound, message = first_message(one, other)
    inbound = InboundSession(other, message, one.identity_keys["curve25519"])
    inbound.decrypt(message)
    return outbound, inbound


def first_message(one: OlmAccount, other: OlmAccount) -> tuple[OutboundSession, PreKeyMessage]:
    other.generate_one_time_keys(1)
    (one_time_key,) = other.one_time_keys["curve25519"].values()
    other.mark_keys_as_published()
    outbound = OutboundSession(one, other.identity_keys["curve25519"], one_time_key)
    message = outbound.encrypt("hello").to_pre_key()
    assert message is not None
    return outbound, message


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
    assert ours.open(ALICE).load_account() is None


def test_6_in_nio(theirs: Theirs) -> None:
    store = with_account(theirs)
    save(store, device())
    store.verify_device(device())
    deletion = "DELETE FROM accounts"
    assert outcome(lambda: store.database.execute_sql(deletion)).__name__ == "IntegrityError"


# 7: the sync token comes before what it covers


def token_after_a_crash_inside_a_sync(place: AnyPlace) -> str | None:
    store = with_account(place)
    store.save_sync_token("s1")
    store.save_encrypted_rooms(set())
    store.save_sync_token("s2")
    # Here the to-device events of s2 would be handled.
    token: str | None = place.reopen(store).load_sync_token()
    return token


def test_7_a_token_waits_for_its_sync(ours: Ours) -> None:
    assert token_after_a_crash_inside_a_sync(ours) == "s1"


def test_7_in_nio(theirs: Theirs) -> None:
    assert token_after_a_crash_inside_a_sync(theirs) == "s2"


# 9: a consumed one-time key comes back


def first_message_again(place: AnyPlace) -> Any:
    bob = with_account(place, BOB)
    account, alice = bob.load_account(), OlmAccount()
    if account is None:
        raise AssertionError("the account was saved")
    _, message = first_message(alice, account)
    curve = alice.identity_keys["curve25519"]
    # As nio's Olm does it: the account is saved before decrypting consumes the key, the session after.
    session = InboundSession(account, message, curve)
    bob.save_account(account)
    assert session.decrypt(message) == "hello"
    bob.load_sessions().add(curve, session)
    bob.save_session(curve, session)
    reloaded = place.reopen(bob).load_account()
    return outcome(lambda: InboundSession(reloaded, message, curve).decrypt(message))


def test_9_a_one_time_key_is_consumed_with_its_session(ours: Ours) -> None:
    assert first_message_again(ours).__name__ == "SessionCreationException"


def test_9_in_nio(theirs: Theirs) -> None:
    assert first_message_again(theirs) == "hello"


# 13: which Olm session was used last


def preferred_after_a_restart(place: AnyPlace) -> str:
    store = with_account(place)
    account = store.load_account() or OlmAccount()
    first, second = (olm_pair(account, OlmAccount())[0] for _ in range(2))
    first.creation_time = first.use_time = datetime.now() - timedelta(days=2)  # noqa: DTZ005  # nio's own kind
    store.save_session("curve", first)
    store.save_session("curve", second)
    first.encrypt("used again")
    store.save_session("curve", first)
    preferred = place.reopen(store).load_sessions().get("curve")
    return "used last" if preferred is not None and preferred.id == first.id else "created last"


def test_13_the_session_used_last_is_preferred_after_a_restart(ours: Ours) -> None:
    assert preferred_after_a_restart(ours) == "used last"


def test_13_in_nio(theirs: Theirs) -> None:
    assert preferred_after_a_restart(theirs) == "created last"


# 14: a worse ratchet


def index_after_a_worse_ratchet(place: AnyPlace) -> int:
    store = with_account(place)
    ratchet = Ratchet()
    store.save_inbound_group_session(ratchet.inbound())
    store = place.reopen(store)
    # As nio's Olm does it, which ignores what add() answers.
    worse = ratchet.advance(3).inbound()
    store.load_inbound_group_sessions().add(worse)
    store.save_inbound_group_session(worse)
    found = ratchet.found_in(place.reopen(store))
    assert found is not None
    return found.first_known_index


def test_14_a_worse_ratchet_does_not_replace_a_better_one(ours: Ours) -> None:
    assert index_after_a_worse_ratchet(ours) == 0


def test_14_in_nio(theirs: Theirs) -> None:
    assert index_after_a_worse_ratchet(theirs) == 3


# 15: forwarding chains


def chain_after(place: AnyPlace, *chains: tuple[str, ...]) -> list[str]:
    store, ratchet = with_account(place), Ratchet()
    for chain in chains:
        store.save_inbound_group_session(ratchet.inbound(*chain))
        store = place.reopen(store)
    found = ratchet.found_in(store)
    assert found is not None
    return found.forwarding_chain


def test_15_forwarding_chains_keep_their_order_and_shrink(ours: Ours) -> None:
    assert chain_after(ours, ("b", "a", "c", "a")) == ["b", "a", "c", "a"]
    assert chain_after(ours, ("b", "a"), ()) == []
    assert chain_after(ours, (), ("b", "a")) == []


def test_15_in_nio(theirs: Theirs) -> None:
    assert chain_after(theirs, ("b", "a"), ()) == ["b", "a"]


# 16: one damaged row, or a wrong pickle key


def test_16_a_damaged_session_hides_no_other(ours: Ours, caplog: pytest.LogCaptureFixture) -> None:
    store, good, bad = with_account(ours), Ratchet(), Ratchet()
    for ratchet in (good, bad):
        store.save_inbound_group_session(ratchet.inbound())
    ours.close(store)
    (row,) = (row for row in ours.stored(records.InboundGroupSession) if row.session_id == bad.id)
    damaged = replace(row, pickle=b"damaged")
    ours.put(damaged)
    store = ours.open()
    assert good.found_in(store) is not None
    assert bad.found_in(store) is None
    assert [session.id for session in store.load_inbound_group_sessions()] == [good.id]
    assert "unreadable inbound_group_session" in caplog.text
    assert damaged in ours.stored(records.InboundGroupSession)
    # Once its key is received again, it is as good as new.
    store.save_inbound_group_session(bad.inbound())
    assert bad.found_in(ours.reopen(store)) is not None


def test_16_a_damaged_olm_session_hides_no_other(ours: Ours) -> None:
    store = with_account(ours)
    sessions = [olm_session() for _ in range(2)]
    for session in sessions:
        store.save_session("curve", session)
    ours.close(store)
    (damaged,) = (row for row in ours.stored(records.OlmSession) if row.session_id == sessions[0].id)
    ours.put(replace(damaged, pickle=b"damaged"))
    assert [session.id for session in ours.open().load_sessions()["curve"]] == [sessions[1].id]


def test_16_another_sessions_pickle_is_a_damaged_one(ours: Ours) -> None:
    store, ratchets = with_account(ours), [Ratchet(), Ratchet()]
    for ratchet in ratchets:
        store.save_inbound_group_session(ratchet.inbound())
        store.save_session("curve", olm_session())
    store.save_session("other curve", olm_session())
    ours.close(store)
    groups, (damaged, kept, other) = ours.stored(records.InboundGroupSession), ours.stored(records.OlmSession)
    ours.put(replace(groups[0], pickle=groups[1].pickle), replace(damaged, pickle=other.pickle))
    store = ours.open()
    assert [session.id for session in store.load_inbound_group_sessions()] == [groups[1].session_id]
    assert [session.id for session in store.load_sessions()["curve"]] == [kept.session_id]


def test_16_a_wrong_pickle_key_is_told_from_a_damaged_account(ours: Ours) -> None:
    store = with_account(ours)
    identity = store.load_account().identity_keys
    with pytest.raises(WrongPickleKey, match=r"pickle_key="):
        ours.open(pickle_key="another key")
    # It was refused before anything was taken over.
    store.save_inbound_group_session(Ratchet().inbound())
    ours.close(store)
    (kept,) = ours.stored(records.OlmAccount)
    ours.put(records.OlmAccount(b"damaged", kept.shared, kept.key_check))
    with pytest.raises(UnreadableRecord, match="damaged although the pickle key is right"):
        ours.open()
    ours.put(records.OlmAccount(b"damaged", kept.shared, b""))
    with pytest.raises(UnreadableRecord, match="wrong or the pickle is damaged"):
        ours.open()
    assert ours.stored(records.OlmAccount) == [records.OlmAccount(b"damaged", kept.shared, b"")]
    ours.put(kept)
    assert ours.open().load_account().identity_keys == identity  # type: ignore[union-attr]  # it is there


def test_16_in_nio(theirs: Theirs) -> None:
    store, good, bad = with_account(theirs), Ratchet(), Ratchet()
    for ratchet in (good, bad):
        store.save_inbound_group_session(ratchet.inbound())
    with store.database.bind_ctx(store.models):
        MegolmInboundSessions.update(session=b"damaged").where(MegolmInboundSessions.session_id == bad.id).execute()
    assert isinstance(outcome(lambda: good.found_in(theirs.reopen(store))), type)


# 17: several commits for one save; an upgrade that drops trust


def test_17_each_save_is_one_batch(ours: Ours) -> None:
    store = with_account(ours)

    def batches() -> int:
        with open_backend(ours.url) as backend:
            return backend.accounts()[ALICE].sequence

    before = batches()
    save(store, *(device(number) for number in range(300)))
    assert batches() == before + 1
    store.ignore_devices([device(number) for number in range(300)])
    assert batches() == before + 2
    store.save_encrypted_rooms({f"!{number}:example.org" for number in range(900)})
    assert batches() == before + 3


def test_17_an_upgrade_keeps_trust(ours: Ours) -> None:
    store = with_account(ours)
    save(store, device())
    store.verify_device(device())
    store.upgrade_to_v2()
    assert ours.reopen(store).is_device_verified(device())


# 18: display names, and trust in an unknown device


def name_after_a_change(place: AnyPlace) -> str:
    store = with_account(place)
    save(store, device())
    save(store, device(display_name="laptop"))
    name: str = place.reopen(store).load_device_keys()[BOB.user_id]["DEVICE1"].display_name
    return name


def test_18_a_display_name_changes(ours: Ours) -> None:
    assert name_after_a_change(ours) == "laptop"


def test_18_in_nio(theirs: Theirs) -> None:
    assert name_after_a_change(theirs) == "phone"


def test_18_an_unknown_device_can_be_trusted(ours: Ours) -> None:
    store = with_account(ours)
    unknown = device()
    assert not store.is_device_verified(unknown)
    assert not store.unverify_device(unknown)
    assert store.verify_device(unknown)
    assert unknown.verified
    store = ours.reopen(store)
    assert store.is_device_verified(device())
    assert store.load_device_keys()[BOB.user_id]["DEVICE1"] == unknown


def test_18_trust_in_nio(theirs: Theirs) -> None:
    store = with_account(theirs)
    assert outcome(lambda: store.verify_device(device())) is AssertionError


# 19: verified twice, unverified once


def verified_after_twice_and_once(place: AnyPlace) -> bool:
    store = with_account(place)
    save(store, device())
    store.verify_device(device())
    store.verify_device(device())
    store.unverify_device(device())
    verified: bool = place.reopen(store).is_device_verified(device())
    return verified


def test_19_trust_is_taken_back_at_once(ours: Ours) -> None:
    assert not verified_after_twice_and_once(ours)


def test_19_in_nio(their_files: TheirFiles) -> None:
    assert verified_after_twice_and_once(their_files)


# 20: the pickle key


@pytest.mark.parametrize("pickle_key", ["DEFAULT_KEY", ""])
def test_20_a_pickle_key_that_everybody_knows_is_accepted_with_a_warning(
    in_memory: Ours, pickle_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    in_memory.open(pickle_key="my own").close()
    assert not caplog.records
    in_memory.open(BOB, pickle_key)
    assert [(record.levelno, "everybody knows" in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


def test_20_the_key_check_is_salted(ours: Ours) -> None:
    for account in (ALICE, BOB):
        with_account(ours, account, "one key")
    checks = {ours.stored(records.OlmAccount, account)[0].key_check for account in (ALICE, BOB)}
    assert len(checks) == 2


# 21: times, and closing


def test_21_times_are_stored_in_utc(ours: Ours) -> None:
    before = datetime.now(UTC)
    store = with_account(ours)
    store.save_session("curve", olm_session())
    store.save_inbound_group_session(Ratchet().inbound())
    (session,), (group_session,) = ours.stored(records.OlmSession), ours.stored(records.InboundGroupSession)
    for moment in (session.created_at, session.last_used_at, group_session.received_at):
        assert before <= moment <= datetime.now(UTC)


def test_21_close_gives_the_database_back(ours: Ours) -> None:
    store = with_account(ours)
    store.close()
    store.close()
    assert outcome(lambda: store.save_account(OlmAccount())).__name__ == "StoreClosed"
    assert isinstance(store, NioStore)
