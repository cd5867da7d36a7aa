"""Everything that a nio store holds arrives, from every form of nio's store, in every backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from nio.crypto import InboundGroupSession as LiveGroupSession
from nio.crypto import OutboundGroupSession, Session
from nio.store import DefaultStore
from unpaddedbase64 import decode_base64
from vodozemac import AnyOlmMessage

from cryptostore import (
    Device,
    DeviceTrust,
    EncryptedRoom,
    InboundGroupSession,
    OlmAccount,
    OlmSession,
    OutgoingKeyRequest,
    SyncToken,
    Value,
    open_backend,
)
from cryptostore.nio import NioStore
from cryptostore.nio.importing import Findings, open_source, read_accounts
from databases_in_use import accounts_in
from nio_sources import ALICE, BOB, KEY, ROOM, Client, all_of, edited, import_all

LIBOLM: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "nio/libolm_pickles.json").read_text())


def opened(url: str, key: str = KEY) -> NioStore:
    return NioStore(ALICE.user_id, ALICE.device_id, url, key)


@dataclass
class Filled:
    """An account with something of every kind, and the other ends of its sessions."""

    olm_session: Session
    own: OutboundGroupSession
    sender: OutboundGroupSession
    received: LiveGroupSession


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Client]:
    """Bob, with a file of his own."""
    client = Client(tmp_path, BOB)
    yield client
    client.close()


@pytest.fixture
def filled(alice: Client, peer: Client) -> Filled:
    """Alice's account, ready to be imported."""
    sender, received = alice.received_session("second", "first", "third")
    filled = Filled(alice.session_with(peer), alice.own_session(), sender, received)
    alice.know("@carol:example.org", "PHONE", "Carol's ☎")
    alice.know("@carol:example.org", "OLD", deleted=True)
    alice.store.save_encrypted_rooms([ROOM, "!other:example.org"])
    alice.store.save_sync_token("token 7")
    alice.ask_for_key("request")
    alice.olm.account.shared = True
    alice.olm.save_account()
    alice.close()
    return filled


@pytest.mark.usefixtures("filled")
def test_the_account_and_what_it_knows(url: str, alice: Client) -> None:
    assert list(import_all(alice.path, url)) == []
    assert accounts_in(url) == [ALICE]
    (account,) = all_of(url, OlmAccount)
    assert account.shared
    assert all_of(url, SyncToken) == [SyncToken("token 7")]
    assert all_of(url, EncryptedRoom) == [EncryptedRoom("!other:example.org"), EncryptedRoom(ROOM)]
    assert [request.request_id for request in all_of(url, OutgoingKeyRequest)] == ["request"]
    old, phone = all_of(url, Device)
    assert (old.deleted, phone.deleted, phone.display_name) == (True, False, "Carol's ☎")
    assert phone.keys["ed25519"] == "ed-of-@carol:example.org-PHONE"
    assert phone.keys["curve25519"] == "curve-of-@carol:example.org-PHONE"
    assert all_of(url, Value) == []


def test_the_sessions_of_an_account(url: str, alice: Client, filled: Filled) -> None:
    assert list(import_all(alice.path, url)) == []
    (olm_session,) = all_of(url, OlmSession)
    assert olm_session.session_id == filled.olm_session.id
    assert olm_session.created_at == filled.olm_session.creation_time.astimezone()
    by_id = {each.session_id: each for each in all_of(url, InboundGroupSession)}
    assert by_id.keys() == {filled.received.id, filled.own.id}
    received = by_id[filled.received.id]
    assert received.forwarding_chain == ("second", "first", "third")
    assert (received.signing_key, received.first_known_index) == ("ed of sender", 0)
    assert by_id[filled.own.id].forwarding_chain == ()


def test_an_imported_account_goes_on(url: str, alice: Client, peer: Client, filled: Filled) -> None:
    assert list(import_all(alice.path, url)) == []
    store = opened(url)
    account = store.load_account()
    assert account is not None
    assert account.identity_keys == alice.olm.account.identity_keys
    sessions = store.load_inbound_group_sessions()
    received = sessions.get(ROOM, "curve of sender", filled.received.id)
    assert received is not None
    assert received.decrypt(filled.sender.encrypt("after the import")) == ("after the import", 0)
    assert sessions.get(ROOM, alice.curve25519, filled.own.id) is not None
    olm_session = store.load_sessions().get(peer.curve25519)
    assert olm_session is not None
    message = olm_session.encrypt("still in step").to_pre_key()
    assert message is not None
    received_by_peer: Any = peer.olm.account.create_inbound_session(alice.curve25519, message)
    assert received_by_peer[1] == b"still in step"
    store.close()


def test_the_last_use_of_an_olm_session(memory_url: str, alice: Client, peer: Client) -> None:
    """nio saves it and never loads it, so after every restart it prefers the wrong session."""
    session = alice.session_with(peer)
    session.creation_time = datetime(2024, 1, 2, 3, 4, 5, 678)  # noqa: DTZ001  # nio's times have no zone
    session.use_time = datetime(2025, 6, 7, 8, 9, 10)  # noqa: DTZ001
    alice.store.save_session(peer.curve25519, session)
    assert not import_all(alice.path, memory_url)
    (record,) = all_of(memory_url, OlmSession)
    assert record.created_at == session.creation_time.astimezone()
    assert record.last_used_at == session.use_time.astimezone()


def test_trust_of_a_sqlite_store(memory_url: str, alice: Client) -> None:
    devices = [alice.know("@carol:example.org", name) for name in ("A", "B", "C", "D")]
    alice.store.verify_device(devices[0])
    alice.store.blacklist_device(devices[1])
    alice.store.ignore_device(devices[2])
    assert not import_all(alice.path, memory_url)
    assert [device.trust for device in all_of(memory_url, Device)] == [
        DeviceTrust.VERIFIED,
        DeviceTrust.BLACKLISTED,
        DeviceTrust.IGNORED,
        DeviceTrust.UNSET,
    ]


def test_trust_of_a_default_store(memory_url: str, folder: Path) -> None:
    client = Client(folder, ALICE, kind=DefaultStore)
    devices = [client.know("@carol:example.org", name) for name in ("A", "B", "C", "D")]
    client.store.verify_device(devices[0])
    client.store.blacklist_device(devices[1])
    client.store.ignore_device(devices[2])
    client.close()
    assert not import_all(client.path, memory_url)
    assert [device.trust for device in all_of(memory_url, Device)] == [
        DeviceTrust.VERIFIED,
        DeviceTrust.BLACKLISTED,
        DeviceTrust.IGNORED,
        DeviceTrust.UNSET,
    ]


def make_first_version(path: Path) -> None:
    """Give a file the tables of nio's first version, whose devices had two columns for keys, and one trusted device."""
    with edited(path) as connection:
        connection.executescript("""
            DROP TABLE devicetruststate; DROP TABLE keys; DROP TABLE devicekeys; DROP TABLE synctokens;
            CREATE TABLE devicekeys (
                id INTEGER NOT NULL PRIMARY KEY, sender_key TEXT NOT NULL, deleted INTEGER NOT NULL,
                account_id INTEGER NOT NULL, fp_key TEXT NOT NULL, device_id TEXT NOT NULL, user_id TEXT NOT NULL,
                UNIQUE(account_id, user_id, device_id));
            CREATE TABLE devicetruststate (device_id INTEGER NOT NULL PRIMARY KEY, state INTEGER NOT NULL);
            INSERT INTO devicekeys VALUES (5, 'curve', 0, 1, 'ed', 'PHONE', '@carol:example.org');
            INSERT INTO devicetruststate VALUES (5, 2);
            UPDATE storeversion SET version = 1;
        """)


def test_the_first_version_of_nios_schema(memory_url: str, alice: Client) -> None:
    _, inbound = alice.received_session()
    alice.close()
    make_first_version(alice.path)
    assert not import_all(alice.path, memory_url)
    assert all_of(memory_url, Device) == [
        Device(
            user_id="@carol:example.org",
            device_id="PHONE",
            keys={"ed25519": "ed", "curve25519": "curve"},
            trust=DeviceTrust.BLACKLISTED,
        )
    ]
    assert [session.session_id for session in all_of(memory_url, InboundGroupSession)] == [inbound.id]
    assert all_of(memory_url, SyncToken) == []


def test_17_nios_own_upgrade_drops_every_decision_about_them(folder: Path, alice: Client) -> None:
    alice.close()
    make_first_version(alice.path)
    Client(folder, ALICE).close()
    with edited(alice.path) as connection:
        assert connection.execute("SELECT count(*) FROM devicetruststate").fetchone() == (0,)


def put_libolm_pickles(path: Path, stored: Callable[[str], str | bytes]) -> None:
    """Make the file of one account one that an old nio wrote."""
    account, olm, group = LIBOLM["account"], LIBOLM["olm_session"], LIBOLM["group_session"]
    with edited(path) as connection:
        connection.execute("UPDATE accounts SET account = ?", (stored(account["pickle"]),))
        connection.execute(
            "INSERT INTO olmsessions (creation_time, last_usage_date, sender_key, account_id, session, session_id)"
            " VALUES ('2020-01-01 00:00:00.000000', '2020-01-01 00:00:00', ?, 1, ?, ?)",
            (olm["sender_key"], stored(olm["pickle"]), olm["id"]),
        )
        connection.execute(
            "INSERT INTO megolminboundsessions (sender_key, account_id, fp_key, room_id, session, session_id)"
            " VALUES ('curve', 1, 'ed', ?, ?, ?)",
            (ROOM, stored(group["pickle"]), group["id"]),
        )


@pytest.mark.parametrize("stored", [str, str.encode], ids=["text", "bytes"])
def test_pickles_of_libolm(memory_url: str, alice: Client, stored: Callable[[str], str | bytes]) -> None:
    """Old nio releases stored libolm's pickles; they arrive in vodozemac's form and still work."""
    alice.close()
    put_libolm_pickles(alice.path, stored)
    assert list(import_all(alice.path, memory_url, LIBOLM["pickle_key"])) == []
    account, olm, group = LIBOLM["account"], LIBOLM["olm_session"], LIBOLM["group_session"]
    assert all_of(memory_url, OlmSession, key=LIBOLM["pickle_key"])[0].pickle != olm["pickle"].encode()
    store = opened(memory_url, LIBOLM["pickle_key"])
    account_in_use = store.load_account()
    assert account_in_use is not None
    assert account_in_use.identity_keys["ed25519"] == account["ed25519"]
    session = store.load_inbound_group_sessions().get(ROOM, "curve", group["id"])
    assert session is not None
    assert session.decrypt(group["ciphertext"]) == (group["plaintext"], 0)
    olm_session = store.load_sessions().get(olm["sender_key"])
    assert olm_session is not None
    message = AnyOlmMessage.normal(decode_base64(olm["message_for_it"]["body"]))
    assert olm_session.decrypt(message) == "from libolm"
    store.close()


def test_several_accounts_of_one_file(memory_url: str, alice: Client, bob: Client) -> None:
    alices, bobs = alice.own_session("!a:example.org"), bob.own_session("!b:example.org")
    assert not import_all(alice.path, memory_url)
    assert accounts_in(memory_url) == [ALICE, BOB]
    assert [each.session_id for each in all_of(memory_url, InboundGroupSession, ALICE)] == [alices.id]
    assert [each.session_id for each in all_of(memory_url, InboundGroupSession, BOB)] == [bobs.id]


def test_one_account_of_several(memory_url: str, alice: Client, bob: Client) -> None:
    assert not import_all(alice.path, memory_url, wanted=lambda account: account == BOB)
    assert accounts_in(memory_url) == [BOB]


def test_more_sessions_than_a_batch(memory_url: str, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with alice.store.database.atomic():
        ids = {alice.received_session()[1].id for _ in range(1_100)}
    steps = []
    assert not import_all(alice.path, memory_url, advance=lambda: steps.append(1))
    assert {each.session_id for each in all_of(memory_url, InboundGroupSession)} == ids
    assert len(steps) == 1_100
    # The mark of an unfinished import, three batches of at most 500, and the account with the mark's deletion.
    with open_backend(memory_url) as backend:
        assert backend.accounts()[ALICE].sequence == 5


def test_progress_knows_its_end(alice: Client) -> None:
    for _ in range(3):
        alice.received_session()
    alice.know("@carol:example.org", "PHONE")
    alice.store.save_encrypted_rooms([ROOM])
    with open_source(alice.path) as source:
        (account,) = read_accounts(source, KEY, Findings())
        assert account.total() == len(list(account.contents())) == 5
