"""`cryptostore copy`, as a user runs it, from each of our backends to the other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from nio.crypto import OlmAccount

from command_line import Run, interrupted, on_a_terminal, run_process
from cryptostore import (
    Account,
    AccountElsewhere,
    Changes,
    Mode,
    Row,
    SyncToken,
    TrackedUser,
    new_pickle_key,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.nio.pickles import Pickles
from cryptostore.store.keys import encode_key
from cryptostore.store.marks import MARK_KEY
from databases_in_use import accounts_in, written_to

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY: Final = new_pickle_key()
USERS: Final = 4_000
ALICES: Final = ("--user-id", ALICE.user_id)


class Way(NamedTuple):
    """From one database to another."""

    source: str
    destination: str

    @property
    def back(self) -> Way:
        return Way(self.destination, self.source)


@pytest.fixture(params=["to sqlite", "to postgres"])
def way(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> Way:
    sqlite_url = f"sqlite:///{tmp_path}/keys.db"
    way = Way(postgres_url, sqlite_url) if request.param == "to sqlite" else Way(sqlite_url, postgres_url)
    with open_backend(way.source) as backend:
        for account in (ALICE, BOB):
            with backend.open_store(account, pickle_key=KEY) as store:
                store.apply(Changes([SyncToken("s1"), *[TrackedUser(f"@{number}:x") for number in range(USERS)]]))
    return way


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRYPTOSTORE_PICKLE_KEY", raising=False)


def contents(url: str, account: Account = ALICE) -> dict[bytes, bytes]:
    with open_backend(url) as backend, backend.open_store(account, Mode.READ) as store:
        return {key: value for key, value in store.stored_rows() if key != MARK_KEY}


def token(url: str, account: Account = ALICE) -> str:
    with open_backend(url) as backend, backend.open_store(account, Mode.READ, pickle_key=KEY) as store:
        return store.get(SyncToken, [()])[()].token


def refusal(url: str, account: Account = ALICE) -> str:
    with open_backend(url) as backend, pytest.raises(AccountElsewhere) as caught:
        backend.open_store(account, pickle_key=KEY)
    return str(caught.value)


def test_all_accounts_move(way: Way) -> None:
    before = {account: contents(way.source, account) for account in (ALICE, BOB)}
    ended = run_process("copy", *way, "--watch", "0.3")
    assert (ended.code, ended.err) == (0, "")
    assert f"{ALICE} is copied: {USERS + 3:,} rows, " in ended.out
    assert ", read back and compared, in " in ended.out
    for account, rows in before.items():
        assert contents(way.destination, account) == rows
        assert token(way.destination, account) == "s1"
        assert "was moved to " in refusal(way.source, account)


def test_the_source_says_where_they_went(run: Run, way: Way) -> None:
    assert run("copy", *way, "--watch", "0.3").code == 0
    assert "\n  moved    to " in run("accounts", way.source).out
    listed = run("accounts", way.source, "--quick", "--json").document["accounts"]
    assert [each["mark"]["whereabouts"] for each in listed] == ["moved", "moved"]
    assert "canary" not in run("accounts", way.source).out
    counted = run("stats", way.source, "--json").document["accounts"][0]["kinds"]
    assert counted["mark"]["rows"] == 1
    again = run("copy", *way)
    assert again.code == 0
    assert f"{ALICE} is moved already" in again.out


def test_other_commands_leave_out_what_was_moved(run: Run, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("NEW", new_pickle_key())
    for account in (ALICE, BOB):
        with open_backend(way.source) as backend, backend.open_store(account, pickle_key=KEY) as store:
            store.apply(Changes([Pickles(account).account_record(OlmAccount())]))
    assert run("copy", *way, *ALICES, "--watch", "0.3").code == 0
    verified = run("verify", way.source)
    [left_out] = run("verify", way.source, "--json").document["left_out"]
    assert (left_out["user_id"], left_out["whereabouts"]) == (ALICE.user_id, "moved")
    assert left_out["place"] in left_out["reason"]
    assert verified.code == 0
    assert f"left out: {ALICE} was moved to " in verified.err
    assert str(BOB) in verified.out
    assert run("verify", way.source, *ALICES).code == ExitCode.CHECK_FAILED
    shown = run("identity", way.source)
    assert shown.code == 0
    assert f"left out: {ALICE} was moved to " in shown.err
    assert str(BOB) in shown.out
    assert run("identity", way.source, *ALICES).code == ExitCode.CHECK_FAILED
    refused = run("identity", "recovery-key", way.source, *ALICES)
    assert refused.code != 0
    assert "was moved to " in refused.err
    rekeyed = run("rekey", way.source, "--new-pickle-key-env", "NEW")
    assert rekeyed.code == 0
    assert f"left out: {ALICE} was moved to " in rekeyed.err
    alone = run("rekey", way.source, *ALICES, "--pickle-key-env", "NEW", "--new-pickle-key-env", "NEW")
    assert (alone.code, "no such account" in alone.err) == (ExitCode.USAGE, False)
    assert f"error: {ALICE} was moved to " in alone.err
    assert token(way.destination) == "s1"


def test_one_account_with_the_pickle_key_for_programs(way: Way) -> None:
    ended = run_process("copy", *way, *ALICES, "--json", "--watch", "0.3", env={"CRYPTOSTORE_PICKLE_KEY": KEY})
    assert (ended.code, ended.err) == (0, "")
    (alice,) = ended.document["accounts"]
    assert (alice["user_id"], alice["beginning"], alice["complete"]) == (ALICE.user_id, "new", True)
    assert alice["kinds"] == {
        kind: {"rows": rows}
        for kind, rows in {"key_ring 00": 1, "sync_token": 1, "tracked_user": USERS, "key_ring ff": 1}.items()
    }
    assert (alice["opened"], alice["different"], alice["unreadable"]) == (True, [], {})
    assert accounts_in(way.destination) == [ALICE]
    assert token(way.source, BOB) == "s1"


def test_there_and_back(run: Run, way: Way) -> None:
    assert run("copy", *way, *ALICES, "--watch", "0.3").code == 0
    with open_backend(way.destination) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s2")], deletes=[(TrackedUser, ("@7:x",))]))
    before = contents(way.destination)
    ended = run("copy", *way.back, "--json", "--watch", "0.3")
    assert ended.document["accounts"][0]["beginning"] == "back"
    assert contents(way.source) == before
    assert token(way.source) == "s2"


def test_a_source_that_is_left(run: Run, way: Way) -> None:
    before = contents(way.source)
    assert run("copy", *way, *ALICES, "--leave-source", "--watch", "0.3").code == 0
    assert contents(way.destination) == before == contents(way.source)
    assert (token(way.source), token(way.destination)) == ("s1", "s1")


def test_a_dry_run_writes_nothing(run: Run, way: Way) -> None:
    missing = run("copy", *way, "--dry-run", "--watch", "0.3")
    assert missing.code in (ExitCode.USAGE, ExitCode.REFUSED)
    assert run("migrate", way.destination).code == 0
    ended = run("copy", *way, "--dry-run", "--watch", "0.3")
    assert (ended.code, ended.err) == (0, "")
    assert f"{ALICE} would be copied ({USERS + 3:,} rows, " in ended.out
    document = run("copy", *way, "--dry-run", "--json", "--watch", "0.3").document
    assert [(each["beginning"], each["rows"]) for each in document["accounts"]] == [("new", USERS + 3)] * 2
    assert accounts_in(way.destination) == []
    assert token(way.source) == "s1"


def test_one_that_is_written_to_is_refused(way: Way) -> None:
    with written_to(way.source, ALICE, KEY) as fenced:
        ended = run_process("copy", *way, "--watch", "60")
    assert (ended.code, fenced) == (ExitCode.USAGE, [])
    assert f"{ALICE} is in use: " in ended.err
    assert "give --take-over" in ended.err
    assert accounts_in(way.destination) == []


def test_one_that_is_written_to_can_be_taken_over(way: Way) -> None:
    with written_to(way.source, ALICE, KEY):
        ended = run_process("copy", *way, *ALICES, "--take-over")
    assert (ended.code, ended.err) == (0, "")
    assert "was moved to " in refusal(way.source)
    assert token(way.destination).startswith("s")


def test_a_destination_that_has_the_account(run: Run, way: Way) -> None:
    with open_backend(way.destination) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("its own")]))
    ended = run("copy", *way)
    assert ended.code == ExitCode.USAGE
    assert f"{ALICE} is in " in ended.err
    assert "nothing of it is replaced" in ended.err
    assert (accounts_in(way.destination), token(way.destination)) == ([ALICE], "its own")


def test_a_wrong_pickle_key_writes_nothing(way: Way) -> None:
    ended = run_process("copy", *way, env={"CRYPTOSTORE_PICKLE_KEY": new_pickle_key()})
    assert ended.code == ExitCode.USAGE
    assert "Nothing is damaged" in ended.err
    assert accounts_in(way.destination) == []


def test_records_that_cannot_be_opened_are_listed(run: Run, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    with open_backend(way.source) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(TrackedUser, (f"@\x1b{number}:x",)), b"damaged") for number in range(25)])
    ended = run("copy", *way, *ALICES, "--watch", "0.3")
    assert ended.code == ExitCode.CHECK_FAILED
    assert f"{ALICE} is copied: " in ended.out
    assert "- tracked_user @\\x1b0:x " in ended.out
    assert "- and 5 more (--json names them)" in ended.out
    assert token(way.destination) == "s1"


def test_mistakes(run: Run, way: Way) -> None:
    nobody = run("copy", *way, "--user-id", "@nobody:example.org")
    assert nobody.code == ExitCode.USAGE
    assert f"has no such account; it has: {ALICE}, {BOB}" in nobody.err
    nothing = run("copy", "memory://", way.destination)
    assert "keeps nothing beyond its process" in nothing.err
    itself = run("copy", way.source, way.source)
    assert itself.code == ExitCode.USAGE
    assert "are one database, or one is a copy" in itself.err
    open_backend(way.destination).close()
    empty = run("copy", *way.back)
    assert empty.code == ExitCode.USAGE
    assert "holds no account" in empty.err


def test_an_account_that_was_moved_away_is_left_out_or_named(run: Run, way: Way, tmp_path: Path) -> None:
    assert run("copy", *way, *ALICES, "--watch", "0.3").code == 0
    third = f"sqlite:///{tmp_path}/third.db?deadline=60&owner=me"
    ended = run("copy", way.source, third, "--watch", "0.3")
    assert ended.code == 0
    assert f"left out: {ALICE} was moved to " in ended.err
    assert accounts_in(third) == [BOB]
    alone = run("copy", way.source, third, *ALICES)
    assert alone.code == ExitCode.USAGE
    assert "--even-if-moved" in alone.err
    even = run("copy", way.source, third, *ALICES, "--even-if-moved", "--watch", "0.3")
    assert even.code == 0
    assert f"run `cryptostore restored '{third}' --user-id {ALICE.user_id} --device-id {ALICE.device_id}`" in even.err
    assert token(third) == "s1"


def test_a_key_ring_that_does_not_arrive(run: Run, tmp_path: Path) -> None:
    source, destination = f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/destination.db"
    with open_backend(source) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1")]))
    open_backend(destination).close()
    with closing(sqlite3.connect(tmp_path / "destination.db")) as connection:
        connection.execute(
            "CREATE TRIGGER loses AFTER INSERT ON record WHEN NEW.key = x'ff' BEGIN DELETE FROM record "
            "WHERE key IN (x'00', x'ff'); END"
        )
        connection.commit()
    ended = run("copy", source, destination, "--watch", "0")
    assert ended.code == ExitCode.CHECK_FAILED
    assert "is NOT copied: rows differ, and the source says already that it was moved" in ended.out
    assert "- key_ring 00 is not the same at the destination" in ended.out
    third = f"sqlite:///{tmp_path}/third.db"
    again = run("copy", source, third, "--even-if-moved", "--watch", "0", "--json")
    assert again.document["accounts"][0]["complete"]
    assert "If its client ran since, others have seen newer keys" in again.err
    assert token(third) == "s1"


def test_people_see_how_far_it_is(way: Way) -> None:
    shown = on_a_terminal("copy", *way, *ALICES, "--watch", "0.3")
    assert f"copying {ALICE}" in shown
    assert f"comparing {ALICE}" in shown


def has_begun(url: str) -> bool:
    """Whether a mark has come to the destination."""
    try:
        return ALICE in accounts_in(url) and bool(next(iter(contents(url)), None))
    except Exception:  # noqa: BLE001  # the command may be making the database at this moment
        return False


def test_an_interrupt_leaves_both_whole_and_says_how_to_go_on(way: Way) -> None:
    before = contents(way.source)
    ended = interrupted("copy", *way, *ALICES, "--watch", "0", is_at_work=lambda _pid: has_begun(way.destination))
    # Else the copy was complete before the interrupt came, which may be in Python's last moment.
    if contents(way.destination) != before:
        assert ended.code == 130
        assert f"the copy of {ALICE} is not complete. Nothing is lost: run the same command again" in ended.err
        assert "Traceback" not in ended.err
    assert run_process("copy", *way, *ALICES, "--watch", "0").code == 0
    assert contents(way.destination) == before
    assert token(way.destination) == "s1"
