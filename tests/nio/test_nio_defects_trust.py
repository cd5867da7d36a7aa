"""Defects of nio's own store in trust, secrets and times: absent here and, where it is cheap to show, present there.

A test named `…_in_nio` shows the defect of that number in matrix-nio 0.26, by the same scenario where there is one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import vodozemac
from nio import AsyncClient, AsyncClientConfig
from nio.crypto import OlmAccount
from nio.store import SqliteStore
from nio.store.models import MegolmInboundSessions

from cryptostore import open_backend, records
from cryptostore.nio import NioStore
from cryptostore.store.rekeying import rekey
from cryptostore_contract.samples import ALICE, BOB, KEY
from nio_accounts import AnyPlace, device, save, with_account
from nio_places import Ours, Ratchet, TheirFiles, Theirs, olm_session, outcome

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
    in_memory.open().close()
    assert not caplog.records
    in_memory.open(BOB, pickle_key)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "everybody knows" in warning.getMessage()


def test_20_that_key_in_nio(theirs: Theirs, caplog: pytest.LogCaptureFixture) -> None:
    with_account(theirs, pickle_key="DEFAULT_KEY")
    assert not caplog.records


def test_20_no_two_accounts_are_encrypted_with_one_key(ours: Ours) -> None:
    store, ratchet = with_account(ours), Ratchet()
    with_account(ours, BOB).close()
    store.save_inbound_group_session(ratchet.inbound())
    (row,) = ours.rows(records.InboundGroupSession)
    ours.put_rows(row, account=BOB)
    assert ours.stored(records.InboundGroupSession)
    assert ours.stored(records.InboundGroupSession, BOB) == []


def test_20_one_unsalted_hash_in_nio(theirs: Theirs) -> None:
    store, ratchet = with_account(theirs, pickle_key="one key"), Ratchet()
    store.save_inbound_group_session(ratchet.inbound())
    with store.database.bind_ctx(store.models):
        (row,) = MegolmInboundSessions.select()
    assert opened_by_a_bare_hash(row.session, "one key") == ratchet.id


def opened_by_a_bare_hash(pickle: bytes, pickle_key: str) -> str | None:
    """The id of a Megolm session that one SHA-256 of the pickle key decrypts."""
    try:
        unpickled = vodozemac.InboundGroupSession.from_pickle(pickle.decode(), sha256(pickle_key.encode()).digest())
    except vodozemac.PickleException:
        return None
    return str(unpickled.session_id)


@pytest.mark.parametrize("key", ["DEFAULT_KEY", KEY])
def test_20_the_pickle_key_can_be_changed(ours: Ours, key: str) -> None:
    store, ratchet = with_account(ours, pickle_key=key), Ratchet()
    store.save_inbound_group_session(ratchet.inbound())
    ours.close(store)
    with open_backend(ours.url) as backend:
        rekey(backend, ALICE, key, "another key")
    assert ratchet.found_in(ours.open(pickle_key="another key"))


def modes_of_files(folder: Path) -> set[int]:
    return {file.stat().st_mode & 0o777 for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """The one that most systems have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_20_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    place = Ours(f"sqlite:///{tmp_path}/keys.db")
    with_account(place)
    assert modes_of_files(tmp_path) == {0o600}
    place.close_all()


@pytest.mark.usefixtures("usual_umask")
def test_20_in_nio(theirs: Theirs, tmp_path: Path) -> None:
    with_account(theirs)
    assert modes_of_files(tmp_path) == {0o644}


# 21: times, and closing


@pytest.fixture
def move_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Move this process to another time zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def hours_off_after_a_move(place: AnyPlace, move_to: Callable[[str], None]) -> float:
    # Neither has a summer time.
    move_to("Asia/Kolkata")
    store, session = with_account(place), olm_session()
    store.save_session("curve", session)
    created = session.creation_time.timestamp()
    store = place.reopen(store)
    move_to("Asia/Tokyo")
    found: datetime = store.load_sessions().get("curve").creation_time
    return round((found.timestamp() - created) / 3600, 3)


def test_21_times_hold_in_another_time_zone(ours: Ours, move_to: Callable[[str], None]) -> None:
    assert hours_off_after_a_move(ours, move_to) == 0


def test_21_in_nio(theirs: Theirs, move_to: Callable[[str], None]) -> None:
    assert hours_off_after_a_move(theirs, move_to) == -3.5


def test_21_times_are_stored_in_utc(ours: Ours, move_to: Callable[[str], None]) -> None:
    move_to("Asia/Kolkata")
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


async def used_after_close(folder: Path) -> None:
    config = AsyncClientConfig(store=SqliteStore, store_name="keys.db", pickle_key="key")
    client = AsyncClient("http://localhost", ALICE.user_id, ALICE.device_id, str(folder), config)
    client.restore_login(ALICE.user_id, ALICE.device_id, "token")
    await client.close()
    assert isinstance(client.store, SqliteStore)
    with closing(client.store.database):
        client.store.save_encrypted_rooms({"!room:example.org"})
        assert client.store.load_encrypted_rooms() == {"!room:example.org"}


def test_21_closing_in_nio(tmp_path: Path) -> None:
    asyncio.run(used_after_close(tmp_path))
