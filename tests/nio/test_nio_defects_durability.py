"""Defects of nio's own store in what a restart finds: absent here and, where it is cheap to show, present there.

A test named `…_in_nio` shows the defect of that number in matrix-nio 0.26, by the same scenario where there is one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from nio.crypto import InboundSession, OlmAccount

from cryptostore import open_backend
from cryptostore_contract.samples import ALICE, BOB
from nio_accounts import AnyPlace, device, first_message, olm_pair, save, with_account
from nio_places import Ours, Ratchet, Theirs, outcome

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
    store.save_inbound_group_session(Ratchet().inbound("a", "b"))
    assert batches() == before + 4


def test_17_an_upgrade_keeps_trust(ours: Ours) -> None:
    store = with_account(ours)
    save(store, device())
    store.verify_device(device())
    store.upgrade_to_v2()
    assert ours.reopen(store).is_device_verified(device())


def test_17_in_nio(theirs: Theirs) -> None:
    store = with_account(theirs)

    def changes() -> int:
        # SQLite's own count of the transactions that changed the file.
        return int.from_bytes(Path(store.database_path).read_bytes()[24:28], "big")

    before = changes()
    store.save_inbound_group_session(Ratchet().inbound("a", "b"))
    assert changes() > before + 1
