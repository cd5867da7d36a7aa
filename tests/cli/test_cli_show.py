"""`cryptostore show`."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from nio.crypto import OlmAccount

from command_line import Run, run_process
from cryptostore import (
    Account,
    Changes,
    CryptoStore,
    Device,
    DeviceTrust,
    EncryptedRoom,
    InboundGroupSession,
    MissedEvents,
    OutboundGroupSession,
    Row,
    Secret,
    SyncToken,
    TimelineGap,
    TrackedUser,
    new_pickle_key,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.nio.pickles import Pickles
from cryptostore.store.keys import encode_key
from example_records import example
from hostile_text import WORST, raw_in

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
ALICES: Final = ("--user-id", ALICE.user_id, "--device-id", ALICE.device_id)
KEY: Final = new_pickle_key()
SEED: Final = bytes(range(32))
WHEN: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOM: Final = "!room:example.org"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)


def fill(store: CryptoStore) -> None:
    store.apply(
        Changes(
            [
                Pickles(store.account).account_record(OlmAccount()),
                SyncToken("a sync token"),
                EncryptedRoom(ROOM),
                EncryptedRoom(f"!{WORST}"),
                example(InboundGroupSession, room_id=ROOM),
                OutboundGroupSession(ROOM, b"a pickle that is a secret", WHEN, message_count=7),
                TimelineGap(ROOM, "s1", "s2", "s3", "s1"),
                MissedEvents(ROOM, 1, "why", "s1", "s2", 3, WHEN),
                Device("@carol:x", "C1", {"ed25519": "carols key"}, display_name=f"phone {WORST}"),
                Device("@carol:x", "C2", trust=DeviceTrust.VERIFIED, deleted=True),
                TrackedUser("@carol:x"),
                Secret("m.cross_signing.master", store.secrets.seal("m.cross_signing.master", SEED), WHEN),
            ]
        )
    )


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        fill(store)
    return str(url)


def test_people_see_one_account_beside_its_running_client(filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as owner:
        ended = run_process("show", filled)
        owner.apply(Changes([SyncToken("s2")]))
    assert (ended.code, ended.err) == (0, "")
    lines = {line.split()[0]: line.split() for line in ended.out.splitlines() if line.strip()}
    assert ended.out.startswith(f"{ALICE} in ")
    assert lines["written"][-3:] == ["in", "1", "batch"]
    assert lines[ROOM] == [ROOM, "yes", "1", "7", "a", "gap,", "1", "told", "of"]
    assert lines["@carol:x"] == ["@carol:x", "2", "1", "1", "0", "0"]
    assert lines["secret"][1] == "m.cross_signing.master,"
    assert lines["tracked_user"] == ["tracked_user", "1"]
    assert not raw_in(ended.out, lines=True)


def test_it_says_all_that_accounts_says(run: Run, filled: str) -> None:
    [listed] = run("accounts", filled, "--quick", "--json").document["accounts"]
    shown = run("show", filled, "--json").document
    assert listed.items() <= shown.items()
    assert isinstance(listed["written_at"], str)


def test_no_secret_is_shown(filled: str) -> None:
    for options in ((), ("--json",), ("--devices",), ("--devices", "--json")):
        ended = run_process("show", filled, *options)
        assert ended.code == 0
        for secret in (base64.b64encode(SEED).decode().rstrip("="), SEED.hex(), "a pickle that", "a sync token", KEY):
            assert secret not in ended.out + ended.err


def test_programs_get_json(filled: str) -> None:
    document = run_process("show", filled, *ALICES, "--json", "--devices").document
    assert (document["user_id"], document["device_id"], document["sync_token"]) == ("@alice:example.org", "A", True)
    assert document["rooms"][ROOM] == {"encrypted": True, "sessions": 1, "sent": 7, "gap": True, "missed": 1}
    assert document["users"]["@carol:x"] == {"devices": 2, "deleted": 1, "trust": {"unset": 1, "verified": 1}}
    assert [each["device_id"] for each in document["devices"]] == ["C1", "C2"]
    assert document["devices"][0]["display_name"] == f"phone {WORST}"
    assert document["secrets"] == [{"name": "m.cross_signing.master", "made_at": "2026-01-02T03:04:05+00:00"}]
    assert len(document["signing_key"]) == 43


def test_devices_are_listed(run: Run, filled: str) -> None:
    ended = run("show", filled, "--devices")
    assert "carols key" in ended.out
    assert "@carol:x  C2      verified  yes" in ended.out


def test_what_is_damaged_is_said_and_the_rest_is_shown(run: Run, filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows(
            [
                Row(encode_key(SyncToken, ()), b"damaged"),
                Row(b"\x01", b"damaged"),
                Row(encode_key(Device, ("@carol:x", "C2")), b"damaged"),
            ]
        )
    ended = run_process("show", filled)
    assert ended.code == ExitCode.CHECK_FAILED
    damage = [line for line in ended.out.splitlines() if line.startswith("  unreadable ")]
    assert ["olm_account" in damage[0], "sync_token" in damage[1]] == [True, True]
    assert ROOM in ended.out
    assert "an unreadable device of " in ended.err
    document = run("show", filled, "--json").document
    assert document["unreadable"] == {"olm_account": 1, "sync_token": 1}
    assert document["signing_key"] is None


def test_one_account_of_several(run: Run, filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(BOB, pickle_key=KEY) as store:
        store.apply(Changes([Pickles(BOB).account_record(OlmAccount()), SyncToken("s1")]))
    ended = run("show", filled)
    assert ended.code == ExitCode.USAGE
    assert "one account is shown at a time, and " in ended.err
    bobs = run("show", filled, "--user-id", BOB.user_id, "--device-id", BOB.device_id)
    assert bobs.code == 0
    assert bobs.out.startswith(f"{BOB} in ")
    assert "Rooms" not in bobs.out
    nobody = run("show", filled, "--user-id", "@nobody:x")
    assert nobody.code == ExitCode.USAGE
    assert f"has no such account; it has: {ALICE}, {BOB}" in nobody.err


def test_a_wrong_pickle_key(run: Run, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", new_pickle_key())
    assert run("show", filled).code == ExitCode.USAGE


def test_a_mistyped_path(run: Run, tmp_path: Path) -> None:
    assert run("show", f"sqlite:///{tmp_path}/mistyped.db").code == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []
