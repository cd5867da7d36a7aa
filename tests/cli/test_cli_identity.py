"""`cryptostore identity` and `cryptostore identity recovery-key`."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from nio.crypto import OlmAccount

from command_line import Run, run_process
from cryptostore import (
    Account,
    Changes,
    CryptoStore,
    FencedOut,
    Mode,
    Row,
    SyncToken,
    new_pickle_key,
    open_backend,
    records,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.nio.pickles import Pickles
from cryptostore.plugins.loading import shown_url
from cryptostore.store.keys import encode_key
from cryptostore.store.ring import RING_KEYS
from cryptostore.trust import recovery_key
from cryptostore.trust.cross_signing import Seeds
from leaks import shown
from spoiling import put_rows, spoil

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY = new_pickle_key()
SEEDS: Final = Seeds(*(bytes([number]) * 32 for number in (1, 2, 3)))
STORAGE_KEY: Final = bytes(range(32))
RECOVERY_KEY: Final = recovery_key.encode(STORAGE_KEY)
MADE_AT: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALICES = ("--user-id", ALICE.user_id)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("OTHER", new_pickle_key())


def signing_key(store: CryptoStore) -> str:
    return str(Pickles(store.account).account(store.get(records.OlmAccount, [()])[()]).identity_keys["ed25519"])


def secret(store: CryptoStore, name: str, raw: bytes, made_at: datetime = MADE_AT) -> records.Secret:
    return records.Secret(name, store.secrets.seal(name, raw), made_at)


@pytest.fixture(scope="module")
def ended_client() -> str:
    """The name of a process that has ended."""
    program = "from cryptostore.store.owners import default_owner; print(default_owner())"
    return subprocess.check_output([sys.executable, "-c", program], text=True).strip()


def fill(url: str, owner: str) -> None:
    """Alice has an identity, a recovery key and a backup; Bob has keys alone."""
    with open_backend(url, owner=owner) as backend:
        for account in (ALICE, BOB):
            with backend.open_store(account, pickle_key=KEY) as store:
                store.apply(Changes([Pickles(account).account_record(OlmAccount())]))
        with backend.open_store(ALICE, pickle_key=KEY) as store:
            public = SEEDS.public
            keys = (public.master, public.self_signing, public.master, public.user_signing)
            secrets = {
                **SEEDS.by_name(),
                "m.megolm_backup.v1": bytes(32),
                "m.secret_storage.key.abc": STORAGE_KEY,
            }
            waiting = [records.SessionToBackUp("!room:x", f"session{number}", "sender") for number in range(3)]
            store.apply(
                Changes(
                    [
                        records.CrossSigningKeys(ALICE.user_id, *keys, signed_devices={"A": signing_key(store)}),
                        *[secret(store, name, raw) for name, raw in secrets.items()],
                        records.KeyBackup("7", "backup's public key", is_walked=True),
                        *waiting,
                    ]
                )
            )


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path, ended_client: str) -> str:
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    fill(url, ended_client)
    return url


@pytest.fixture
def file_url(tmp_path: Path, ended_client: str) -> str:
    url = f"sqlite:///{tmp_path}/keys.db"
    fill(url, ended_client)
    return url


def test_an_identity_is_shown_beside_its_running_client(filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as client:
        ended = run_process("identity", filled, *ALICES)
        client.apply(Changes([SyncToken("s1")]))
        device = signing_key(client)
    assert (ended.code, ended.err) == (0, "")
    title, account, *lines = ended.out.splitlines()
    assert title.startswith("Identities in ")
    assert account == str(ALICE)
    assert dict(line.split(maxsplit=1) for line in lines if not line.startswith(("  private", "  recovery"))) == {
        "device": device,
        "signed": "yes",
        "master": SEEDS.public.master,
        "self-signing": SEEDS.public.self_signing,
        "user-signing": SEEDS.public.user_signing,
        "backup": "version 7, its key is here",
        "waiting": "3 sessions",
    }
    assert "  private keys  here" in lines
    assert "  recovery key  not shown yet: cryptostore identity recovery-key" in lines
    assert max(map(len, lines)) <= 80
    assert RECOVERY_KEY not in ended.out


def test_programs_get_json(filled: str) -> None:
    ended = run_process("identity", filled, "--json")
    alice, bob = ended.document["accounts"]
    public = SEEDS.public
    assert (alice["user_id"], alice["device_id"], alice["signed"]) == (ALICE.user_id, ALICE.device_id, True)
    assert alice["identity"] == {
        "master_key": public.master,
        "self_signing_key": public.self_signing,
        "user_signing_key": public.user_signing,
        "pinned_master_key": public.master,
    }
    assert alice["private_keys"] is True
    assert alice["recovery_key"] == {"key_id": "abc", "made_at": MADE_AT.isoformat(), "shown_at": None}
    assert alice["backup"] == {
        "version": "7",
        "public_key": "backup's public key",
        "private_key": True,
        "all_sessions_seen": True,
    }
    assert (alice["sessions_waiting"], alice["unreadable"], alice["unreadable_rows"]) == (3, {}, [])
    assert (bob["identity"], bob["signed"], bob["backup"], bob["recovery_key"]) == (None, False, None, None)
    assert (bob["private_keys"], bob["sessions_waiting"]) == (False, None)
    assert len(bob["signing_key"]) == 43


def test_an_account_without_an_identity(run: Run, file_url: str) -> None:
    out = run("identity", "show", file_url, "--user-id", BOB.user_id).out
    assert "  signed        no: no identity is known\n" in out
    assert "  private keys  not here\n  recovery key  not here\n  backup        none is known\n" in out
    assert "waiting" not in out


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda keys: replace(keys, signed_devices={"A": "its keys of before"}), "signed        no"),
        (lambda keys: replace(keys, pinned_master_key="A" * 43), "signed        yes; another identity was pinned"),
        (lambda keys: replace(keys, master_key="A" * 43), "private keys  here, but of another identity"),
        (lambda keys: replace(keys, user_signing_key=""), "user-signing  not known"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(run: Run, file_url: str, change: object, line: str) -> None:
    with open_backend(file_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        keys = store.get(records.CrossSigningKeys, [(ALICE.user_id,)])[ALICE.user_id,]
        store.apply(Changes([change(keys)]))  # type: ignore[operator]  # a lambda
    assert f"  {line}\n" in run("identity", file_url, *ALICES).out


def test_a_backup_that_the_store_was_not_walked_for(run: Run, file_url: str) -> None:
    with open_backend(file_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([records.KeyBackup("8", "other")], deletes=[(records.Secret, ("m.megolm_backup.v1",))]))
    out = run("identity", file_url, *ALICES).out
    assert "  backup        version 8, its key is not here\n" in out
    assert "  waiting       3 sessions, and older ones that were not looked at yet\n" in out


def test_an_account_without_keys(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with open_backend(url) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
    ended = run("identity", url)
    assert (ended.code, "  device        no keys yet\n" in ended.out) == (0, True)
    assert run("identity", url, "--json").document["accounts"][0]["signing_key"] is None


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(file_url: str) -> None:
    with open_backend(file_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        moved = secret(store, "m.cross_signing.user_signing", SEEDS.user_signing)
        store.apply(Changes([replace(moved, name="m.cross_signing.master")]))
        store.put_rows([Row(encode_key(records.KeyBackup, ()), b"damaged")])
    ended = run_process("identity", file_url, *ALICES)
    assert ended.code == ExitCode.CHECK_FAILED
    assert "  unreadable    secret m.cross_signing.master: " in ended.out
    assert "  unreadable    key_backup: " in ended.out
    assert "  private keys  not here\n" in ended.out
    assert f"  master        {SEEDS.public.master}\n" in ended.out
    [alice] = run_process("identity", file_url, *ALICES, "--json").document["accounts"]
    assert alice["unreadable"] == {"key_backup": 1, "secret": 1}
    assert [each["kind"] for each in alice["unreadable_rows"]] == ["key_backup", "secret"]


def test_one_account_that_is_damaged_hides_no_other(run: Run, file_url: str) -> None:
    carol = Account("@carol:example.org", "C")
    with open_backend(file_url) as backend, backend.open_store(carol, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1")]))
    spoil(file_url, ALICE, records.OlmAccount)
    put_rows(file_url, carol, *(Row(key, b"damaged") for key in RING_KEYS))
    ended = run("identity", file_url, "--json")
    alice, bob = ended.document["accounts"]
    assert (ended.code, len(bob["signing_key"])) == (ExitCode.CHECK_FAILED, 43)
    assert (alice["signing_key"], alice["signed"], alice["unreadable"]) == (None, False, {"olm_account": 1})
    assert alice["identity"]["master_key"] == SEEDS.public.master
    assert [each["user_id"] for each in ended.document["left_out"]] == [carol.user_id]


def test_no_accounts(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    open_backend(url).close()
    ended = run("identity", url)
    assert ended.code == 0
    assert "holds no account" in ended.err
    ended = run("identity", "recovery-key", url)
    assert ended.code == ExitCode.USAGE
    assert "holds no account; is it the right one?" in ended.err


@pytest.mark.parametrize("command", [("identity",), ("identity", "recovery-key")])
def test_bad_input(filled: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    mistyped = run_process(*command, f"sqlite:///{tmp_path}/mistyped.db")
    assert mistyped.code == ExitCode.USAGE
    assert "there is no database" in mistyped.err
    assert not (tmp_path / "mistyped.db").exists()
    wrong_key = run_process(*command, filled, *ALICES, "--pickle-key-env", "OTHER")
    assert wrong_key.code == ExitCode.USAGE
    assert "Nothing is damaged" in wrong_key.err
    no_account = run_process(*command, filled, "--user-id", "@carol:example.org")
    assert no_account.code == ExitCode.USAGE
    assert "has no such account; it has: " in no_account.err
    assert run_process(*command, "memory://").code == ExitCode.USAGE


def test_a_mistyped_command_is_called_so(run: Run) -> None:
    ended = run("identity", "recover-key")
    assert ended.code == ExitCode.USAGE
    assert "No such command 'recover-key'" in ended.err


def test_the_help_names_the_other_command(run: Run) -> None:
    ended = run("identity", "--help")
    assert ended.code == 0
    assert "recovery-key" in ended.out


def test_the_recovery_key_is_shown_once(filled: str) -> None:
    first = run_process("identity", "recovery-key", filled, *ALICES)
    assert (first.code, first.out) == (0, f"{RECOVERY_KEY}\n")
    assert first.err == (f"The recovery key of {ALICE}. Keep it where you keep passwords, not beside the database:\n")
    with open_backend(filled) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        shown_at = store.get(records.Secret, [("m.secret_storage.key.abc",)])["m.secret_storage.key.abc",].shown_at
    assert abs(datetime.now(UTC) - shown_at) < timedelta(hours=1)
    second = run_process("identity", "recovery-key", filled, *ALICES)
    assert (second.code, second.out) == (ExitCode.USAGE, "")
    assert f"is known to a person since {shown_at:%Y-%m-%d %H:%M:%S} UTC; --again shows it" in second.err
    again = run_process("identity", "recovery-key", filled, *ALICES, "--again", "--json").document
    assert again == {
        "database": shown_url(filled),
        "user_id": ALICE.user_id,
        "device_id": ALICE.device_id,
        "shown_at": shown_at.isoformat(),
        "recovery_key": RECOVERY_KEY,
    }
    assert (
        f"  recovery key  known to a person since {shown_at:%Y-%m-%d %H:%M:%S} UTC\n"
        in run_process("identity", filled, *ALICES).out
    )


def test_the_recovery_key_in_a_file_is_private_and_never_over_another(filled: str, tmp_path: Path) -> None:
    file = tmp_path / "recovery key"
    ended = run_process("identity", "recovery-key", filled, *ALICES, "--file", file)
    assert (ended.code, ended.out) == (0, "")
    assert file.read_text() == f"{RECOVERY_KEY}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert recovery_key.decode(file.read_text()) == STORAGE_KEY
    file.write_text("of another account\n")
    ended = run_process("identity", "recovery-key", filled, *ALICES, "--file", file, "--again", "--json")
    assert ended.code == ExitCode.USAGE
    assert "cannot write the recovery key to " in ended.err
    assert file.read_text() == "of another account\n"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_recovery_key_that_could_not_be_written_was_not_shown(
    run: Run, file_url: str, tmp_path: Path, form: tuple[str, ...]
) -> None:
    words = ("identity", "recovery-key", file_url, *ALICES)
    assert run(*words, "--file", tmp_path / "no" / "folder", *form).code != 0
    program = [sys.executable, "-m", "cryptostore", *words, *form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == ExitCode.REFUSED
    assert "standard output cannot be written" in done.stderr
    assert noted_at(run, file_url) is None
    assert run(*words).out == f"{RECOVERY_KEY}\n"


def test_a_running_client_is_not_fenced(filled: str) -> None:
    with open_backend(filled, owner="the bot") as backend, backend.open_store(ALICE, pickle_key=KEY) as client:
        ended = run_process("identity", "recovery-key", filled, *ALICES)
        assert (ended.code, ended.out) == (0, f"{RECOVERY_KEY}\n")
        assert "is not noted, because the account's owner may be running (the bot): it is shown again" in ended.err
        client.apply(Changes([SyncToken("s1")]))
        ended = run_process("identity", "recovery-key", filled, *ALICES, "--even-if-used")
        assert (ended.code, ended.out) == (0, f"{RECOVERY_KEY}\n")
        with pytest.raises(FencedOut, match="was taken over by cryptostore identity recovery-key on "):
            client.apply(Changes([SyncToken("s2")]))
    assert run_process("identity", "recovery-key", filled, *ALICES).code == ExitCode.USAGE


def test_json_says_since_when_it_was_known_before(run: Run, file_url: str) -> None:
    words = ("identity", "recovery-key", file_url, *ALICES, "--json")
    with open_backend(file_url, owner="the bot") as backend, backend.open_store(ALICE, pickle_key=KEY):
        beside = run(*words)
        assert noted_at(run, file_url) is None
        first = run(*words, "--even-if-used")
    for each in (beside, first):
        assert (each.code, each.document["shown_at"], each.document["recovery_key"]) == (0, None, RECOVERY_KEY)
    assert run(*words, "--again").document["shown_at"] == noted_at(run, file_url) is not None


def test_a_recovery_key_that_cannot_be_noted_is_one_document(run: Run, file_url: str, tmp_path: Path) -> None:
    words = ("identity", "recovery-key", f"{file_url}?deadline=0.5", *ALICES)
    with closing(sqlite3.connect(tmp_path / "keys.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ended, plain = run(*words, "--json"), run(*words)
    assert (ended.code, plain.code) == (ExitCode.UNAVAILABLE, ExitCode.UNAVAILABLE)
    assert ended.document["shown_at"] is None
    assert (ended.document["recovery_key"], plain.out) == (RECOVERY_KEY, f"{RECOVERY_KEY}\n")
    for each in (ended, plain):
        assert "error: that it was shown is not noted: " in each.err
    assert noted_at(run, file_url) is None


def noted_at(run: Run, url: str) -> Any:
    """Since when a person knows Alice's recovery key, or None."""
    return run("identity", url, *ALICES, "--json").document["accounts"][0]["recovery_key"]["shown_at"]


def test_the_newest_recovery_key_counts(run: Run, file_url: str) -> None:
    with open_backend(file_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        newer = secret(store, "m.secret_storage.key.aaa", bytes(32), MADE_AT + timedelta(seconds=1))
        store.apply(Changes([newer]))
    assert run("identity", "recovery-key", file_url, *ALICES).out == f"{recovery_key.encode(bytes(32))}\n"
    assert run("identity", file_url, *ALICES, "--json").document["accounts"][0]["recovery_key"]["key_id"] == "aaa"


def test_one_account_is_asked_for(run: Run, file_url: str) -> None:
    ended = run("identity", "recovery-key", file_url)
    assert ended.code == ExitCode.USAGE
    assert f"one recovery key is shown at a time, and {file_url} has: {ALICE}, {BOB}" in ended.err


def test_an_account_without_a_recovery_key(filled: str) -> None:
    ended = run_process("identity", "recovery-key", filled, "--user-id", BOB.user_id)
    assert ended.code == ExitCode.USAGE
    assert f"{BOB} has no recovery key here. It gets one when its client makes an identity" in ended.err


def test_a_recovery_key_that_cannot_be_read(run: Run, file_url: str) -> None:
    with open_backend(file_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(records.Secret, ("m.secret_storage.key.abc",)), b"damaged")])
    ended = run("identity", "recovery-key", file_url, *ALICES)
    assert ended.code == ExitCode.USAGE
    assert "has no recovery key here that can be read; `cryptostore identity` names what cannot" in ended.err


def test_no_secret_is_in_a_record_that_is_printed(file_url: str) -> None:
    with open_backend(file_url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        for record in store.scan(records.Secret):
            for raw in (*SEEDS.by_name().values(), STORAGE_KEY):
                assert raw not in record.sealed
                assert repr(raw)[2:-1] not in repr(record)
            with pytest.raises(Exception, match="altered") as caught:
                store.secrets.open("another name", record.sealed)
            assert RECOVERY_KEY not in shown(caught.value)
