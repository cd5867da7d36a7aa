"""`cryptostore doctor`: what it says of a bot, and that it changes nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

import healthy_bots
from command_line import Run, interrupted, run_process
from cryptostore import (
    Account,
    Changes,
    CrossSigningKeys,
    CryptoStore,
    Database,
    FallbackKey,
    KeyBackup,
    Mode,
    Row,
    SessionToBackUp,
    SyncToken,
    TrackedUser,
    new_pickle_key,
    open_backend,
    records,
)
from cryptostore.cli.doctor import account as account_checks
from cryptostore.cli.doctor import checks
from cryptostore.cli.exits import ExitCode
from cryptostore.store.keys import encode_key
from cryptostore.store.marks import MARK_KEY, Mark, Whereabouts, encode_mark
from cryptostore_postgres.diagnosis import CHECKS as POSTGRES
from cryptostore_sqlite.database import SQLiteDatabase
from cryptostore_sqlite.diagnosis import CHECKS as SQLITE
from doctor_output import fault, faults, shown_on_a_terminal
from hostile_text import WORST, raw_in
from left_alone import contents
from postgres_database import PostgresDatabase
from spoiling import put_rows, spoil

ALICE: Final = Account("@alice:example.org", "A")
KEY: Final = new_pickle_key()
Change = Callable[[CryptoStore], Changes]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("OTHER", new_pickle_key())


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db"
    healthy_bots.save(url, ALICE, KEY)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    healthy_bots.save(url, ALICE, KEY)
    return url


def stored(url: str) -> Any:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ) as store:
        return backend.accounts(), list(store.stored_rows())


def change(url: str, spoiling: Change) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(spoiling(store))


def test_a_healthy_bot_beside_its_running_client(either: str) -> None:
    before = stored(either)
    ended = run_process("doctor", either, "--json")
    assert (ended.code, ended.err, faults(ended)) == (0, "", {})
    assert stored(either) == before
    of_backend = SQLITE if either.startswith("sqlite") else POSTGRES
    wanted = [*checks.INSTALLATION, *checks.SETTINGS, *of_backend, *checks.DATABASE, *checks.ACCOUNT]
    assert sorted(each["check"] for each in ended.document["findings"]) == sorted(wanted)
    assert KEY not in ended.out


def test_no_file_is_changed_or_made(url: str, tmp_path: Path) -> None:
    before = contents(tmp_path)
    assert run_process("doctor", url).code == 0
    assert contents(tmp_path) == before


def test_people_read_a_line_a_check_in_a_pipe(either: str) -> None:
    ended = run_process("doctor", either)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles[0] == "Installation"
    assert titles[-2] == f"Account {ALICE}"
    assert re.fullmatch(r"\d+ ok, 0 notes, 0 warnings, 0 problems", titles[-1])
    assert all(re.match(r"  ok       [\w ]{13}  \S", line) for line in lines if line.startswith(" "))


def test_whoever_waits_no_longer_has_seen_what_was_found(postgres_database: PostgresDatabase) -> None:
    schema = postgres_database.new_schema()
    url = postgres_database.url(schema)
    healthy_bots.save(url, ALICE, KEY)
    waiting = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{schema}.record'::regclass"
    with postgres_database.connect() as holder, postgres_database.connect() as watcher, holder.transaction():
        holder.execute(f"LOCK TABLE {schema}.record IN ACCESS EXCLUSIVE MODE".encode())
        ended = interrupted("doctor", url, is_at_work=lambda _: watcher.execute(waiting.encode()).fetchone() == (1,))
    postgres_database.drop_schema(schema)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert "  ok       opening        it can be opened\n" in ended.out
    assert f"Account {ALICE}" not in ended.out


def test_of_many_accounts_only_what_is_amiss_is_shown(run: Run, url: str) -> None:
    for number in range(3):
        healthy_bots.save(url, Account(f"@bot{number}:x", "D"), KEY)
    change(url, lambda _: Changes(deletes=[(KeyBackup, ())]))
    lines = run("doctor", url).out.splitlines()
    [start] = [number for number, line in enumerate(lines) if line == f"Account {ALICE}"]
    assert [line[2:24].split()[:2] for line in lines[start + 1 : start + 5]] == [
        ["note", "owner"],
        ["->", "if"],
        ["note", "backup"],
        ["->", "with"],
    ]
    assert lines[start + 5 : -1] == [
        line for number in range(3) for line in (f"Account @bot{number}:x D", "  ok       all            9 checks")
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_of_few_columns(url: str, width: int) -> None:
    change(url, lambda _: Changes(deletes=[(CrossSigningKeys, (ALICE.user_id,)), (KeyBackup, ())]))
    lines = shown_on_a_terminal(width, "doctor", url)
    # What is one word, a path or an owner's name, stays whole.
    assert [line for line in lines if len(line) > width and " " in line[26:].strip()] == []
    [position] = [number for number, line in enumerate(lines) if line.startswith("  note     backup")]
    assert any(line.startswith("           -> with one, a new device") for line in lines[position:])


@pytest.mark.parametrize(
    ("spoiling", "check", "level", "seen"),
    [
        (lambda _: Changes(deletes=[(SyncToken, ())]), "login", "note", "never synced"),
        (lambda store: Changes([unshared(store)]), "login", "warning", "never uploaded"),
        (lambda _: Changes(deletes=[(CrossSigningKeys, (ALICE.user_id,))]), "identity", "warning", "no cross-signing"),
        (lambda store: Changes([replace(keys_of(store), signed_devices={})]), "identity", "warning", "not signed"),
        (
            lambda store: Changes([replace(keys_of(store), pinned_master_key=healthy_bots.OTHERS_KEY)]),
            "identity",
            "problem",
            "was pinned",
        ),
        (
            lambda _: Changes(deletes=[(FallbackKey, ("signed_curve25519",))]),
            "fallback key",
            "warning",
            "there is none",
        ),
        (lambda store: Changes([unconfirmed(store)]), "fallback key", "note", "not confirmed"),
        (lambda _: Changes(deletes=[(KeyBackup, ())]), "backup", "note", "no key backup"),
        (lambda _: Changes([KeyBackup("7", "key")]), "backup", "warning", "older ones"),
        (lambda _: waiting(101), "backup", "warning", "101 sessions"),
    ],
)
def test_what_is_amiss_with_an_account(run: Run, url: str, spoiling: Change, check: str, level: str, seen: str) -> None:
    change(url, spoiling)
    ended = run("doctor", url, "--json")
    found = faults(ended)
    found.pop("owner")
    [amiss] = found.values()
    assert (amiss["check"], amiss["level"], ended.code) == (check, level, int(level != "note"))
    assert seen in amiss["seen"]
    assert amiss["remedy"]


def unshared(store: CryptoStore) -> records.OlmAccount:
    return replace(store.get(records.OlmAccount, [()])[()], shared=False)


def keys_of(store: CryptoStore) -> CrossSigningKeys:
    return store.get(CrossSigningKeys, [(ALICE.user_id,)])[(ALICE.user_id,)]


def unconfirmed(store: CryptoStore) -> FallbackKey:
    return replace(store.select(FallbackKey, [()])[()][0], confirmed=False)


def waiting(number: int) -> Changes:
    return Changes([SessionToBackUp("!room:x", f"session{each}", "sender") for each in range(number)])


def test_a_backup_is_not_behind_because_a_few_sessions_wait(run: Run, url: str) -> None:
    change(url, lambda _: waiting(3))
    assert set(faults(run("doctor", url, "--json"))) == {"owner"}


def test_the_sessions_that_wait_are_not_all_counted(run: Run, url: str) -> None:
    change(url, lambda _: waiting(1_200))
    assert "1,000 or more sessions" in faults(run("doctor", url, "--json"))["backup"]["seen"]


def test_an_account_that_no_client_ever_logged_in_with(run: Run, url: str) -> None:
    with open_backend(url) as backend:
        backend.open_store(Account("@bob:x", f"B {WORST}"), pickle_key=KEY).close()
    ended = run("doctor", url, "--user-id", "@bob:x")
    assert ended.code == ExitCode.CHECK_FAILED
    assert "no client has ever logged in with it" in ended.out
    # Another one than CRYPTOSTORE_URL names.
    assert f"cryptostore delete {url} --user-id @bob:x --device-id 'B D\\n" in ended.out
    assert raw_in(ended.out, lines=True) == []
    assert "Account @alice" not in ended.out


def test_no_command_has_a_url_with_a_secret(run: Run, postgres_url: str) -> None:
    secret_url = f"{postgres_url}&sslpassword=secret"
    with open_backend(postgres_url) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
    login = faults(run("doctor", secret_url, "--json"))["login"]
    assert login["remedy"] == "start its client, or, if there is none, with the database's URL"
    assert login["commands"] == [f"cryptostore delete --user-id {ALICE.user_id} --device-id {ALICE.device_id}"]


def test_an_account_that_lost_its_olm_account_is_not_called_new(run: Run, url: str) -> None:
    change(url, lambda _: Changes(deletes=[(records.OlmAccount, ())]))
    ended = run("doctor", url, "--json")
    login = faults(ended)["login"]
    assert (login["level"], ended.code) == ("problem", ExitCode.CHECK_FAILED)
    assert f"the Olm account of {ALICE} is missing" in login["seen"]
    assert (login["remedy"], login["commands"]) == ("restore the account from a backup", [])


@pytest.mark.parametrize(
    ("kind", "checks_that_tell"),
    [
        (records.InboundGroupSession, {"records"}),
        (records.OlmAccount, {"records", "login", "identity"}),
        (CrossSigningKeys, {"records", "identity"}),
        (FallbackKey, {"records", "fallback key"}),
    ],
)
def test_rows_that_cannot_be_read(
    run: Run, either: str, kind: type[records.Record], checks_that_tell: set[str]
) -> None:
    spoil(either, ALICE, kind)
    ended = run("doctor", either, "--json")
    found = faults(ended)
    assert set(found) - {"owner"} == checks_that_tell
    assert kind.kind_name in found["records"]["seen"]
    assert "cryptostore verify" in found["records"]["remedy"]
    assert ended.code == ExitCode.CHECK_FAILED


def damage(url: str, number: int) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([TrackedUser(f"@{each:04}:x") for each in range(number)]))
        store.put_rows([Row(encode_key(TrackedUser, (f"@{number}:x",)), b"damaged")])


def test_a_large_account_is_looked_at_in_part_or_in_full(run: Run, url: str) -> None:
    damage(url, 1_500)
    assert set(faults(run("doctor", url, "--json"))) == {"owner"}
    found = faults(run("doctor", url, "--json", "--all"))["records"]
    assert found["seen"].startswith("1 cannot be read: tracked_user @1500:x (")


def test_many_unreadable_rows_are_counted(run: Run, url: str) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(TrackedUser, (f"@{each}:x",)), b"damaged") for each in range(50)])
    assert ", and 47 more" in faults(run("doctor", url, "--json"))["records"]["seen"]


def test_the_work_does_not_grow_with_the_account(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str) -> Any:
        original = getattr(SQLiteDatabase, name)

        def call(self: SQLiteDatabase, *arguments: Any) -> Any:
            calls[name] += 1
            return original(self, *arguments)

        return call

    change(url, lambda _: Changes([TrackedUser(f"@{each}:x") for each in range(300)]))
    for name in Database.__abstractmethods__:
        monkeypatch.setattr(SQLiteDatabase, name, counted(name))
    assert run("doctor", url).code == 0
    few = calls.copy()
    assert few["take_over"] == few["commit"] == few["delete"] == 0
    assert few.total() < 30
    change(url, lambda _: Changes([TrackedUser(f"@{each}:x") for each in range(5_000)]))
    calls.clear()
    assert run("doctor", url).code == 0
    assert calls == few


def test_another_pickle_key(run: Run, either: str) -> None:
    ended = run("doctor", either, "--pickle-key-env", "OTHER", "--json")
    found = fault(ended)
    assert (found["check"], found["level"], ended.code) == ("ring", "problem", ExitCode.CHECK_FAILED)
    assert "Nothing is damaged" in found["seen"]


def test_an_account_that_was_moved_and_one_that_is_coming(run: Run, url: str, tmp_path: Path) -> None:
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    assert run("copy", url, elsewhere, "--watch", 0).code == 0
    ended = run("doctor", url, "--json")
    home = faults(ended)["home"]
    assert (home["level"], ended.code) == ("note", 0)
    assert "elsewhere.db" in home["seen"]
    assert "home" not in faults(run("doctor", elsewhere, "--json"))


@pytest.mark.parametrize("whereabouts", [Whereabouts.COMING, Whereabouts.RESTORING])
def test_an_account_that_has_not_all_come(run: Run, either: str, whereabouts: Whereabouts) -> None:
    mark = Mark(whereabouts, 1, 2, "there", healthy_bots.MADE_AT)
    put_rows(either, ALICE, Row(MARK_KEY, encode_mark(ALICE, mark)))
    ended = run("doctor", either, "--json")
    home = faults(ended)["home"]
    assert (home["level"], ended.code) == ("problem", ExitCode.CHECK_FAILED)
    assert "run the same" in home["remedy"]


def test_a_mark_that_is_damaged(run: Run, url: str) -> None:
    put_rows(url, ALICE, Row(MARK_KEY, b"damaged"))
    assert "mark" in faults(run("doctor", url, "--json"))["ring"]["seen"]


@pytest.mark.parametrize(("is_disarmed", "level"), [(False, "problem"), (True, "note")])
def test_an_account_whose_backup_was_put_back(run: Run, url: str, is_disarmed: bool, level: str) -> None:
    change(url, lambda _: Changes([records.RestoredAccount(healthy_bots.MADE_AT, is_disarmed=is_disarmed)]))
    found = faults(run("doctor", url, "--json"))["restored"]
    assert found["level"] == level
    assert "2026-01-02" in found["seen"]
    command = f"cryptostore restored {url} --user-id {ALICE.user_id} --device-id A"
    assert found["commands"] == ([] if is_disarmed else [command])


def test_a_take_over_that_was_lately_is_worth_a_note(run: Run, url: str) -> None:
    change(url, lambda _: Changes())
    ended = run("doctor", url, "--json")
    found = fault(ended)
    assert (found["check"], found["level"], ended.code) == ("owner", "note", 0)
    assert "take-over number 2" in found["seen"]


def test_one_of_long_ago_is_none(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change(url, lambda _: Changes())
    monkeypatch.setattr(account_checks, "_LATELY", 0 * account_checks._LATELY)
    assert faults(run("doctor", url, "--json")) == {}


@pytest.mark.parametrize("deed", ["fenced", "deleted"])
def test_what_happens_while_the_doctor_watches(run: Run, either: str, deed: str) -> None:
    def meddle() -> None:
        with open_backend(either) as backend:
            if deed == "deleted":
                backend.delete_account(ALICE)
                return
            for _ in range(2):
                backend.open_store(ALICE, pickle_key=KEY).close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryptostore.cli.doctor.database.time.sleep", lambda _seconds: meddle())
        ended = run("doctor", either, "--watch", 1, "--json")
    found = fault(ended)
    assert (found["check"], found["level"], ended.code) == ("owner", "warning", ExitCode.CHECK_FAILED)
    assert ("taken over 2 times" if deed == "fenced" else "deleted") in found["seen"]


def test_a_database_without_accounts(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    open_backend(url).close()
    ended = run("doctor", url, "--json")
    assert (fault(ended)["check"], fault(ended)["level"], ended.code) == ("accounts", "note", 0)


def test_an_account_that_is_not_there_is_a_users_mistake(run: Run, url: str) -> None:
    ended = run("doctor", url, "--user-id", "@nobody:x", "--json")
    assert (ended.code, ended.document["error"]) == (ExitCode.USAGE, "ConfigurationError")
