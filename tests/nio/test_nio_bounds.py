"""What strangers choose the size of is bounded where it enters."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from nio.crypto import OlmDevice, Session

from cryptostore import Device, InboundGroupSession, OlmSession
from cryptostore.nio import NioStore, bounds
from cryptostore_contract.samples import BOB
from nio_places import Ours, Ratchet, olm_session

KEYS = {"ed25519": "ed", "curve25519": "curve"}


def a_key_query_brings(store: NioStore, *devices: OlmDevice) -> None:
    """As nio takes an answer in."""
    known = store.load_device_keys()[BOB.user_id]
    for device in devices:
        store.load_device_keys().add(device)
    store.save_device_keys({BOB.user_id: {device.id: known[device.id] for device in devices}})


def device(device_id: str, **given: str) -> OlmDevice:
    return OlmDevice(BOB.user_id, device_id, KEYS | given)


@pytest.fixture
def few_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "DEVICES", 3)


@pytest.mark.usefixtures("few_devices")
def test_more_devices_than_anybody_has_get_no_keys(ours: Ours) -> None:
    store = ours.open()
    a_key_query_brings(store, *(device(f"D{number}") for number in range(5)))
    assert [row.device_id for row in ours.stored(Device)] == ["D0", "D1", "D2"]
    assert [store.is_device_blacklisted(device(f"D{number}")) for number in range(5)] == [False] * 3 + [True] * 2
    # Those that were known stay, and stay usable, whatever comes.
    store = ours.reopen(store)
    a_key_query_brings(store, device("D7"), device("D0"))
    assert not store.is_device_blacklisted(device("D0"))
    assert store.is_device_blacklisted(device("D7"))
    # The owner may have one more.
    assert store.verify_device(device("D7"))
    assert ours.reopen(store).is_device_verified(device("D7"))


@pytest.mark.usefixtures("few_devices")
def test_deleted_devices_make_room_but_decisions_stay(ours: Ours) -> None:
    store = ours.open()
    a_key_query_brings(store, *(device(f"D{number}") for number in range(3)))
    store.blacklist_device(device("D0"))
    for gone in ("D0", "D1"):
        store.load_device_keys()[BOB.user_id][gone].deleted = True
    a_key_query_brings(store, *(store.load_device_keys()[BOB.user_id][gone] for gone in ("D0", "D1")))
    store = ours.reopen(store)
    a_key_query_brings(store, device("D3"))
    assert [row.device_id for row in ours.stored(Device)] == ["D0", "D2", "D3"]
    store = ours.reopen(store)
    assert store.is_device_blacklisted(device("D0"))
    assert not store.is_device_blacklisted(device("D3"))


@pytest.mark.parametrize(
    "keys", [{f"a{number}": "key" for number in range(16)}, {"other": "k" * 256}, {"a" * 256: "k"}]
)
def test_a_device_with_keys_without_end_gets_none(in_memory: Ours, keys: dict[str, str]) -> None:
    store = in_memory.open()
    a_key_query_brings(store, device("GOOD"), device("BAD", **keys))
    assert [row.device_id for row in in_memory.stored(Device)] == ["GOOD"]
    assert store.is_device_blacklisted(device("BAD"))


def test_a_display_name_is_short_in_memory_too(in_memory: Ours) -> None:
    store = in_memory.open()
    named = device("D")
    named.display_name = "x" * 1_000_000
    a_key_query_brings(store, named)
    assert len(store.load_device_keys()[BOB.user_id]["D"].display_name) == bounds.DISPLAY_NAME


def begun(count: int) -> list[Session]:
    """Olm sessions, each used a second after the one before."""
    sessions: list[Session] = [olm_session() for _ in range(count)]
    for number, session in enumerate(sessions):
        session.use_time = datetime.now() + timedelta(seconds=number)  # noqa: DTZ005  # nio's times are local
    return sessions


def test_of_olm_sessions_the_newest_few_are_kept(ours: Ours) -> None:
    store, sessions = ours.open(), begun(bounds.OLM_SESSIONS + 3)
    for session in sessions:
        store.load_sessions().add("curve", session)
        store.save_session("curve", session)
    newest = {session.id for session in sessions[3:]}
    assert {row.session_id for row in ours.stored(OlmSession)} == newest
    assert {session.id for session in store.load_sessions()["curve"]} == newest
    assert {session.id for session in ours.reopen(store).load_sessions()["curve"]} == newest


def test_an_olm_session_that_is_used_again_is_kept(ours: Ours) -> None:
    store, sessions = ours.open(), begun(bounds.OLM_SESSIONS + 2)
    for session in sessions[:-2]:
        store.save_session("curve", session)
    sessions[0].use_time = datetime.now() + timedelta(days=1)  # noqa: DTZ005  # as above
    for session in (sessions[0], *sessions[-2:]):
        store.save_session("curve", session)
    kept = {row.session_id for row in ours.stored(OlmSession)}
    assert kept == {session.id for session in (sessions[0], *sessions[3:])}


def test_a_forgotten_olm_session_that_is_saved_after_all_stays(in_memory: Ours) -> None:
    store, sessions = in_memory.open(), begun(bounds.OLM_SESSIONS + 1)
    with store.batch():
        for session in sessions:
            store.save_session("curve", session)
        sessions[0].use_time = datetime.now() + timedelta(days=1)  # noqa: DTZ005  # as above
        store.save_session("curve", sessions[0])
    kept = {row.session_id for row in in_memory.stored(OlmSession)}
    assert kept == {session.id for session in (sessions[0], *sessions[2:])}


def test_a_room_key_with_forwarders_without_end_is_left_out(in_memory: Ours) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    for chain in (["k"] * (bounds.FORWARDERS + 1), ["k" * 256]):
        store.save_inbound_group_session(Ratchet().inbound(*chain))
    store.save_inbound_group_session(ratchet.inbound(*["k"] * bounds.FORWARDERS))
    assert [row.session_id for row in in_memory.stored(InboundGroupSession)] == [ratchet.id]
