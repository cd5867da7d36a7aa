"""What a damaged source cannot give is named, with the reason, and holds nothing else up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from nio.store import DefaultStore

from cryptostore import (
    ConfigurationError,
    Device,
    DeviceTrust,
    EncryptedRoom,
    InboundGroupSession,
    OlmSession,
    UnreadableRecord,
    WrongPickleKey,
)
from cryptostore.nio import NioStore
from cryptostore.nio.importing import Findings
from cryptostore.nio.standins import stored_id
from databases_in_use import accounts_in
from nio_sources import ALICE, BOB, KEY, ROOM, Client, all_of, edited, import_all, reasons

OTHER_KEY = "the other pickle key"
FOREIGN = "its pickle was written with another pickle key (by another account of this file), or is damaged"


def session_ids(url: str) -> set[str]:
    return {session.session_id for session in all_of(url, InboundGroupSession)}


def everything_said(findings: Findings) -> str:
    return " ".join(f"{each.account} {each.kind} {each.reason} {' '.join(each.ids)}" for each in findings)


def test_the_right_key_opens_the_account_and_the_others_are_named(memory_url: str, alice: Client, folder: Path) -> None:
    Client(folder, BOB, OTHER_KEY).close()
    findings = import_all(alice.path, memory_url)
    assert accounts_in(memory_url) == [ALICE]
    assert reasons(findings, "account", BOB) == {"the pickle key does not open it": (str(BOB),)}


def test_a_wrong_pickle_key_imports_nothing(memory_url: str, alice: Client) -> None:
    alice.received_session()
    with pytest.raises(WrongPickleKey, match="opens no account") as raised:
        import_all(alice.path, memory_url, "wrong")
    assert "wrong" not in str(raised.value)
    assert accounts_in(memory_url) == []


def test_a_damaged_account_is_told_from_a_wrong_key(memory_url: str, alice: Client) -> None:
    alice.received_session()
    with edited(alice.path) as connection:
        connection.execute("UPDATE accounts SET account = 'AAAA'")
    with pytest.raises(UnreadableRecord, match="although the pickle key opens its sessions"):
        import_all(alice.path, memory_url)


def test_sessions_that_another_account_wrote_over(memory_url: str, folder: Path) -> None:
    """nio's primary key is the session id alone: two accounts with two keys destroy each other's rows."""
    alice, bob = Client(folder, ALICE), Client(folder, BOB, OTHER_KEY)
    kept = alice.own_session()
    shared = bob.own_session()
    _, inbound = alice.received_session()
    # Bob gets the same session as Alice did, and saves it into her row.
    bob.store.save_inbound_group_session(inbound)
    findings = import_all(alice.path, memory_url)
    assert session_ids(memory_url) == {kept.id}
    assert reasons(findings, "Megolm session")[FOREIGN] == (f"{ROOM} {inbound.id}",)
    assert shared.id not in session_ids(memory_url)
    alice.close()
    bob.close()


def test_olm_sessions_between_two_accounts_of_one_file(memory_url: str, alice: Client, bob: Client) -> None:
    """Both sides have one session id, so the file keeps the side that was saved last."""
    session = alice.session_with(bob)
    findings = import_all(alice.path, memory_url)
    assert [each.session_id for each in all_of(memory_url, OlmSession, ALICE)] == [session.id]
    assert all_of(memory_url, OlmSession, BOB) == []
    (taken,) = reasons(findings, "Olm session", BOB).values()
    assert taken == (session.id,)


def test_megolm_sessions_that_are_under_another_account(memory_url: str, alice: Client, bob: Client) -> None:
    session = bob.own_session()
    bob.own_session("!elsewhere:example.org")
    alice.store.save_encrypted_rooms([ROOM])
    findings = import_all(alice.path, memory_url)
    ((reason, ids),) = reasons(findings, "Megolm session", ALICE).items()
    assert "is under another account" in reason
    assert ids == (f"{ROOM} {session.id}",)
    assert reasons(findings, "Megolm session", BOB) == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe not text", "its pickle is damaged"),
        (b"", "its pickle is damaged"),
        ("AAAA", "its pickle is damaged"),
        (7, "its pickle is int, not bytes"),
    ],
)
def test_damaged_pickles(memory_url: str, alice: Client, tmp_path: Path, value: object, reason: str) -> None:
    peer = Client(tmp_path, BOB)
    olm = alice.session_with(peer)
    _, damaged = alice.received_session()
    _, whole = alice.received_session()
    with edited(alice.path) as connection:
        connection.execute("UPDATE olmsessions SET session = ?", (value,))
        connection.execute("UPDATE megolminboundsessions SET session = ? WHERE session_id = ?", (value, damaged.id))
    findings = import_all(alice.path, memory_url)
    assert session_ids(memory_url) == {whole.id}
    ((megolm_reason, megolm_ids),) = reasons(findings, "Megolm session").items()
    ((olm_reason, olm_ids),) = reasons(findings, "Olm session").items()
    assert (megolm_ids, olm_ids) == ((f"{ROOM} {damaged.id}",), (olm.id,))
    assert {megolm_reason, olm_reason} <= {reason, FOREIGN}
    peer.close()


def test_a_row_that_holds_another_session(memory_url: str, alice: Client) -> None:
    _, first = alice.received_session()
    _, second = alice.received_session()
    with edited(alice.path) as connection:
        (pickle,) = connection.execute(
            "SELECT session FROM megolminboundsessions WHERE session_id = ?", (first.id,)
        ).fetchone()
        connection.execute("UPDATE megolminboundsessions SET session = ?", (pickle,))
    findings = import_all(alice.path, memory_url)
    assert session_ids(memory_url) == {first.id}
    assert reasons(findings, "Megolm session") == {
        "the row holds another session than it says": (f"{ROOM} {second.id}",)
    }


def test_rows_of_an_account_that_is_not_there(memory_url: str, alice: Client) -> None:
    """Deleting an account leaves rows behind, and their owner cannot be told."""
    _, orphan = alice.received_session()
    device = alice.know("@carol:example.org", "PHONE")
    alice.store.verify_device(device)
    alice.store.save_encrypted_rooms([ROOM])
    with edited(alice.path) as connection:
        connection.execute("UPDATE megolminboundsessions SET account_id = 99")
        connection.execute("UPDATE encryptedrooms SET account_id = 99")
        connection.execute("DELETE FROM devicekeys")
    findings = import_all(alice.path, memory_url)
    missing = "it belongs to a row of the table accounts that is not there"
    assert reasons(findings, "Megolm session", None) == {missing: (f"{ROOM} {orphan.id}",)}
    assert reasons(findings, "encrypted room", None) == {missing: (ROOM,)}
    assert len(reasons(findings, "device key", None)) == 1
    assert len(reasons(findings, "device trust", None)) == 1
    assert session_ids(memory_url) == set()


def test_ids_that_no_database_may_store(memory_url: str, alice: Client) -> None:
    odd = ["!" + "r" * 255, "!nul\0:example.org"]
    alice.store.save_encrypted_rooms([ROOM, *odd])
    alice.ask_for_key("k" * 256)
    findings = import_all(alice.path, memory_url)
    assert {room.room_id for room in all_of(memory_url, EncryptedRoom)} == {ROOM, *map(stored_id, odd)}
    reason = "no database may store it: request_id must be at most 255 UTF-8 bytes, not 256"
    assert reasons(findings, "key request") == {reason: ("k" * 256,)}
    store = NioStore(ALICE.user_id, ALICE.device_id, memory_url, KEY)
    rooms = store.load_encrypted_rooms()
    assert all(room in rooms for room in odd)
    store.close()


def test_bytes_that_are_no_text(memory_url: str, alice: Client) -> None:
    alice.store.save_encrypted_rooms([ROOM])
    with edited(alice.path) as connection:
        connection.execute("INSERT INTO encryptedrooms (room_id, account_id) VALUES (CAST(x'ff21' AS TEXT), 1)")
    findings = import_all(alice.path, memory_url)
    assert all_of(memory_url, EncryptedRoom) == [EncryptedRoom(ROOM)]
    (reason,) = reasons(findings, "encrypted room")
    assert reason == "no database may store it: room_id must not contain lone surrogates"


def test_damaged_times_cost_no_session(memory_url: str, alice: Client, tmp_path: Path) -> None:
    peer = Client(tmp_path, BOB)
    session = alice.session_with(peer)
    with edited(alice.path) as connection:
        connection.execute("UPDATE olmsessions SET last_usage_date = 'yesterday'")
    findings = import_all(alice.path, memory_url)
    assert [each.session_id for each in all_of(memory_url, OlmSession)] == [session.id]
    ((reason, ids),) = reasons(findings, "Olm session").items()
    assert reason == "its last_usage_date is damaged; it was imported with the present time instead"
    assert ids == (session.id,)
    peer.close()


def test_devices_without_keys_and_with_unknown_trust(memory_url: str, alice: Client) -> None:
    for name in ("KEYLESS", "STRANGE", "WHOLE"):
        alice.store.verify_device(alice.know("@carol:example.org", name))
    with edited(alice.path) as connection:
        connection.execute("DELETE FROM keys WHERE device_id = 1 AND key_type = 'ed25519'")
        connection.execute("UPDATE devicetruststate SET state = 9 WHERE device_id = 2")
    findings = import_all(alice.path, memory_url)
    strange, whole = all_of(memory_url, Device)
    assert (strange.device_id, strange.trust) == ("STRANGE", DeviceTrust.UNSET)
    assert (whole.device_id, whole.trust) == ("WHOLE", DeviceTrust.VERIFIED)
    assert list(reasons(findings, "device").values()) == [("@carol:example.org KEYLESS",)]
    assert list(reasons(findings, "device trust").values()) == [("@carol:example.org STRANGE",)]


def test_trust_files_that_fit_no_device(memory_url: str, folder: Path) -> None:
    client = Client(folder, ALICE, kind=DefaultStore)
    client.store.verify_device(client.know("@carol:example.org", "PHONE"))
    client.close()
    file = folder / f"{ALICE.user_id}_{ALICE.device_id}.trusted_devices"
    file.write_text(file.read_text() + "@dave:example.org GONE matrix-ed25519 key\nnonsense\n# a comment\n\n")
    (folder / f"{ALICE.user_id}_{ALICE.device_id}.ignored_devices").write_bytes(b"\xff\xfe")
    findings = import_all(client.path, memory_url)
    assert [device.trust for device in all_of(memory_url, Device)] == [DeviceTrust.VERIFIED]
    said = reasons(findings, "device trust")
    assert said["a file says verified, but the database has no such device, or another Ed25519 key of it"] == (
        "@dave:example.org GONE",
    )
    assert said["1 of its lines are not entries of nio's format"] == (file.name,)
    assert any("cannot be read" in reason for reason in said)


@pytest.mark.parametrize(
    ("in_file", "expected"), [("blacklisted", DeviceTrust.BLACKLISTED), ("ignored", DeviceTrust.UNSET)]
)
def test_two_decisions_about_one_device(memory_url: str, alice: Client, in_file: str, expected: DeviceTrust) -> None:
    device = alice.know("@carol:example.org", "PHONE")
    alice.store.verify_device(device)
    file = alice.path.parent / f"{ALICE.user_id}_{ALICE.device_id}.{in_file}_devices"
    file.write_text(f"@carol:example.org PHONE matrix-ed25519 {device.ed25519}\n")
    findings = import_all(alice.path, memory_url)
    assert [each.trust for each in all_of(memory_url, Device)] == [expected]
    assert list(reasons(findings, "device trust").values()) == [("@carol:example.org PHONE",)]


def test_a_file_whose_pages_are_damaged(memory_url: str, alice: Client) -> None:
    for _ in range(200):
        alice.received_session()
    alice.store.save_encrypted_rooms([ROOM])
    alice.close()
    with edited(alice.path) as connection:
        find_page = "SELECT rootpage FROM sqlite_master WHERE name = 'megolminboundsessions'"
        (page,) = connection.execute(find_page).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    raw = bytearray(alice.path.read_bytes())
    raw[(page - 1) * size : page * size] = b"\xaa" * size
    alice.path.write_bytes(raw)
    findings = import_all(alice.path, memory_url)
    assert all_of(memory_url, EncryptedRoom) == [EncryptedRoom(ROOM)]
    assert "the file is damaged here, and the rest of this table cannot be read" in everything_said(findings)


def test_no_key_material_in_what_is_said(memory_url: str, folder: Path) -> None:
    alice, bob = Client(folder, ALICE), Client(folder, BOB, OTHER_KEY)
    _, inbound = alice.received_session()
    bob.store.save_inbound_group_session(inbound)
    with edited(alice.path) as connection:
        pickles = [row[0] for row in connection.execute("SELECT session FROM megolminboundsessions")]
    said = everything_said(import_all(alice.path, memory_url))
    assert pickles
    for secret in (KEY, OTHER_KEY, *(pickle.decode() for pickle in pickles), inbound.export_session(0)):
        assert secret not in said
    alice.close()
    bob.close()


@pytest.mark.parametrize("table", ["accounts", "keys", "devicetruststate"])
def test_a_table_without_a_column_of_nios_is_named(memory_url: str, alice: Client, table: str) -> None:
    """Many programs have a table of accounts."""
    alice.close()
    with sqlite3.connect(alice.path) as connection:
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"CREATE TABLE {table} (name TEXT, account_id INTEGER)")
        connection.execute(f"INSERT INTO {table} VALUES ('somebody', 1)")
    connection.close()
    with pytest.raises(ConfigurationError, match=f"not a store of matrix-nio: its table {table} lacks "):
        import_all(alice.path, memory_url)


def test_what_is_no_nio_store(memory_url: str, tmp_path: Path) -> None:
    text, empty, other = tmp_path / "text.db", tmp_path / "empty.db", tmp_path / "other.db"
    text.write_text("this is no database, and long enough to be read as the header of one" * 10)
    empty.write_bytes(b"")
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE something (id INTEGER)")
    connection.close()
    for path, remedy in (
        (text, "cannot be (read|opened)"),
        (empty, "not a store of matrix-nio"),
        (other, "not a store of matrix-nio"),
        (tmp_path / "missing.db", "No such file"),
        (tmp_path, r"is a folder; name the store's file in it \(there: empty.db, other.db, text.db\)"),
    ):
        with pytest.raises(ConfigurationError, match=remedy):
            import_all(path, memory_url)


def test_an_account_that_is_not_in_the_source(memory_url: str, alice: Client) -> None:
    with pytest.raises(ConfigurationError, match=f"it has: {ALICE}"):
        import_all(alice.path, memory_url, wanted=lambda _: False)
