"""`cryptostore backup` and `cryptostore restore`, as a user runs them, from each of our backends to the other."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from command_line import Run, on_a_terminal, run_process
from cryptostore import (
    Account,
    AccountElsewhere,
    Changes,
    Mode,
    OlmAccount,
    OutboundGroupSession,
    RestoredAccount,
    Row,
    SyncToken,
    TrackedUser,
    hookimpl,
    new_pickle_key,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.plugins.observers import observers
from cryptostore.store import backup_file
from cryptostore.store.keys import encode_key
from cryptostore_contract.limits import limited_files
from databases_in_use import written_to
from example_records import example

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY: Final = new_pickle_key()
NEW: Final = new_pickle_key()
PASSPHRASE: Final = "a passphrase, ünguessable"
USERS: Final = 4_000
ALICES: Final = ("--user-id", ALICE.user_id)
PASS: Final = ("--passphrase-env", "PASSPHRASE")
NEW_KEY: Final = ("--pickle-key-env", "NEW_KEY")


class Places(NamedTuple):
    """Where the account is, and where it is restored."""

    source: str
    destination: str


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("NEW_KEY", NEW)
    monkeypatch.setenv("PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    # In this process; those of their own show what it takes.
    monkeypatch.setattr(backup_file, "COST", 10)


@pytest.fixture(params=["to sqlite", "to postgres"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """Alice and Bob in the one, and nothing in the other."""
    files = f"sqlite:///{tmp_path}/keys.db"
    if request.param == "sqlite alone":
        found = Places(files, f"sqlite:///{tmp_path}/other.db")
    else:
        server = str(request.getfixturevalue("postgres_url"))
        found = Places(server, files) if request.param == "to sqlite" else Places(files, server)
    users = [TrackedUser(f"@{each}:x") for each in range(USERS)]
    records = [example(OlmAccount), SyncToken("s1"), example(OutboundGroupSession), *users]
    with open_backend(found.source) as backend:
        for account in (ALICE, BOB):
            with backend.open_store(account, pickle_key=KEY) as store:
                store.apply(Changes(records))
    return found


#: What no backend makes a difference to.
one_backend = pytest.mark.parametrize("places", ["sqlite alone"], indirect=True)


def token(url: str, pickle_key: str = KEY) -> str:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=pickle_key) as store:
        return store.get(SyncToken, [()])[()].token


def made(run: Run, places: Places) -> None:
    ended = run("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert ended.code == 0, ended.err


def test_an_account_comes_back(run: Run, places: Places) -> None:
    ended = run_process("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"backed up {ALICE} to alice.backup\n  {USERS + 3:,} records, ")
    assert stat.S_IMODE(Path("alice.backup").stat().st_mode) == 0o600
    assert token(places.source) == "s1"
    # Neither the old pickle key nor the old database is needed.
    with open_backend(places.source) as backend:
        backend.delete_account(ALICE)
    ended = run_process("restore", "alice.backup", places.destination, *PASS, env={"CRYPTOSTORE_PICKLE_KEY": NEW})
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"restored {ALICE} of ")
    assert f"\n  {USERS + 3:,} records, " in ended.out
    assert "\n          1  Megolm sessions that sent into rooms are dropped\n" in ended.out
    assert ended.out.endswith("\nStart ProductionMatrixClient: it does the rest, and logs when that is done.\n")
    assert token(places.destination, NEW) == "s1"
    assert run("verify", places.destination, *NEW_KEY).code == 0
    with open_backend(places.destination) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=NEW) as store:
        assert store.get(RestoredAccount, [()])[()].is_disarmed
        assert list(store.keys(OutboundGroupSession)) == []


@one_backend
def test_rows_that_are_no_records_are_listed_and_left_out(run: Run, places: Places) -> None:
    with open_backend(places.source) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(b"\xff\x01", b"x"), Row(b"\x04" * 70_000, b"x")])
    ended = run("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert ended.code == ExitCode.CHECK_FAILED
    assert "- kind 255 ff01 is no record's, and was left out\n" in ended.out
    assert f"- tracked_user {'04' * 32}… is no record's, and was left out\n" in ended.out
    checked = run("restore", "alice.backup", "--dry-run", *PASS)
    assert checked.code == 0, checked.err
    assert f"holds    {USERS + 3:,} records" in checked.out


class Audit:
    """What observers are told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    @hookimpl
    def cryptostore_keys_exported(self, account: Account, records: int, way: str, destination: str) -> None:
        assert destination == "alice.backup"
        self.told.append((way, account, records))

    @hookimpl
    def cryptostore_keys_imported(self, account: Account, records: int, way: str, source: str) -> None:
        assert source == "alice.backup"
        self.told.append((way, account, records))

    @hookimpl
    def cryptostore_account_restored(self, account: Account, owner: str, backend: str) -> None:
        assert owner.startswith("cryptostore restore on ")
        self.told.append(("restored", account))


def test_programs_get_json(run: Run, places: Places) -> None:
    audit = Audit()
    observers().add("audit", audit)
    try:
        document = run("backup", "alice.backup", places.source, *ALICES, *PASS, "--json").document
        restored = run("restore", "alice.backup", places.destination, *PASS, *NEW_KEY, "--json").document
    finally:
        observers().remove("audit")
    counts = {"olm_account": 1, "outbound_group_session": 1, "sync_token": 1, "tracked_user": USERS}
    kinds = {kind: {"rows": rows} for kind, rows in counts.items()}
    assert (document["user_id"], document["file"], document["unreadable"]) == (ALICE.user_id, "alice.backup", {})
    assert (document["kinds"], document["rows"]) == (kinds, USERS + 3)
    told = [("backup", ALICE, USERS + 3), ("restored", ALICE), ("restore", ALICE, USERS + 3)]
    assert audit.told == told
    looked = run("restore", "alice.backup", *PASS, "--dry-run", "--json").document
    assert (looked["kinds"], looked["user_id"], looked["dry_run"]) == (kinds, ALICE.user_id, True)
    assert (restored["kinds"], restored["bytes"]) == (kinds, document["bytes"])
    assert (restored["complete"], restored["different"], restored["dry_run"]) == (True, [], False)
    assert restored["made_safe"] == {"outbound_group_session": 1}


@one_backend
def test_a_dry_run_shows_what_is_in_it_and_needs_no_database(run: Run, places: Places) -> None:
    made(run, places)
    ended = run("restore", "alice.backup", *PASS, "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("alice.backup is whole, and the passphrase opens it\n")
    for line in (
        f"  account  {ALICE}",
        "  made at  20",
        f"  holds    {USERS + 3:,} records",
        "  sync_token             1\n",
    ):
        assert line in ended.out
    assert run("restore", "alice.backup", places.destination, *PASS, "--dry-run").code == 0
    assert not Path("other.db").exists()


def spoil(kind: str) -> None:
    file = Path("alice.backup")
    text = file.read_bytes()
    middle = len(text) // 2
    spoilt = {
        "changed": text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :],
        "cut off": text[:-1],
        "cut off at a part": text[: len(text) - (len(text) - 37 - text[28]) % (64 * 1024 + 16)],
        "beginning": text[:50] + b"?" + text[51:],
        "another": Path("keys.db").read_bytes(),
    }
    file.write_bytes(spoilt.get(kind, text))


@one_backend
@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("changed", (*PASS, *NEW_KEY), "of it was changed, is not in its place, or was cut off"),
        ("cut off", (*PASS, *NEW_KEY), "is damaged: part "),
        ("cut off at a part", (*PASS, *NEW_KEY), "is damaged: it was cut off; copy it again"),
        ("beginning", (*PASS, *NEW_KEY), "its beginning was changed"),
        ("another", (*PASS, *NEW_KEY), "is no backup of an account"),
        ("", ("--passphrase-env", "NEW_KEY", *NEW_KEY), "is not the one that alice.backup was made with"),
        ("", NEW_KEY, "give one of --passphrase-env, --passphrase-file and --ask-passphrase"),
        ("", (*PASS, "--pickle-key-env", "PUBLIC"), "give the pickle key that the account is to have"),
        ("", (*PASS, "--pickle-key-env", "NO_SUCH"), "no variable NO_SUCH"),
    ],
)
def test_mistakes_restore_nothing(
    run: Run, places: Places, kind: str, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLIC", "DEFAULT_KEY")
    made(run, places)
    spoil(kind)
    ended = run("restore", "alice.backup", places.destination, *words)
    assert ended.code == ExitCode.USAGE
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert PASSPHRASE not in ended.err
    assert not Path("other.db").exists()


@one_backend
def test_a_pickle_key_must_be_given(run: Run, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    made(run, places)
    monkeypatch.delenv("CRYPTOSTORE_PICKLE_KEY")
    ended = run("restore", "alice.backup", places.destination, *PASS)
    assert ended.code == ExitCode.USAGE
    assert "`cryptostore new-key` makes one" in ended.err
    nothing = run("restore", "alice.backup", "memory://", *PASS)
    assert "keeps nothing beyond its process" in nothing.err


@one_backend
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*ALICES,), "give one of --passphrase-env"),
        ((*ALICES, *PASS, "--pickle-key-env", "NEW_KEY"), "Nothing is damaged"),
        ((*PASS,), f"one account is backed up at a time, and sqlite:///{{}}/keys.db has: {ALICE}, {BOB}; choose one"),
        ((*PASS, "--user-id", "@nobody:x"), "has no such account"),
    ],
)
def test_mistakes_write_no_file(run: Run, places: Places, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ended = run("backup", "alice.backup", places.source, *words)
    assert ended.code == ExitCode.USAGE
    assert said.format(tmp_path) in ended.err
    assert list(Path().glob("alice*")) == []


@one_backend
def test_a_passphrase_that_may_be_guessed(run: Run, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPHRASE", "only short")
    ended = run("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert ended.code == 0
    assert ended.err.startswith("warning: the passphrase has less than 16 characters")
    assert "only short" not in ended.err


@one_backend
def test_no_other_file_is_replaced(run: Run, places: Places) -> None:
    Path("alice.backup").write_text("the only copy")
    ended = run("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert ended.code == ExitCode.USAGE
    assert "File exists; name a new file" in ended.err
    assert Path("alice.backup").read_text() == "the only copy"


@one_backend
def test_a_disk_that_is_full(run: Run, places: Places) -> None:
    with limited_files(100_000):
        full = run("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert full.code == ExitCode.REFUSED
    assert "make room, or name a file on another disk" in full.err
    assert list(Path().glob("alice*")) == []
    made(run, places)
    with limited_files(200_000):
        full = run("restore", "alice.backup", places.destination, *PASS)
    assert full.code == ExitCode.REFUSED
    assert f"{ALICE} is not restored. Nothing is lost: run the same command again" in full.err
    with open_backend(places.destination) as backend, pytest.raises(AccountElsewhere, match="not restored here"):
        backend.open_store(ALICE, pickle_key=KEY)
    listed = run("accounts", places.destination)
    assert "\n  restored from alice.backup, and not complete" in listed.out
    assert run("restore", "alice.backup", places.destination, *PASS).code == 0
    assert token(places.destination) == "s1"


def test_an_account_that_is_there_is_not_replaced(run: Run, places: Places) -> None:
    made(run, places)
    with open_backend(places.destination) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("its own")]))
    ended = run("restore", "alice.backup", places.destination, *PASS)
    assert ended.code == ExitCode.USAGE
    assert "nothing of it is replaced: restore into another database, or, if what is there is not needed" in ended.err
    assert token(places.destination) == "its own"


def test_one_that_is_written_to_is_backed_up_as_it_is_at_one_moment(run: Run, places: Places) -> None:
    with written_to(places.source, ALICE, KEY) as fenced:
        ended = run_process("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert (ended.code, ended.err, fenced) == (0, "", [])
    assert run("restore", "alice.backup", places.destination, *PASS).code == 0
    assert run("verify", places.destination).code == 0
    # Some of what was written meanwhile is in it.
    assert 1 < int(token(places.destination).removeprefix("s")) <= int(token(places.source).removeprefix("s"))


@one_backend
def test_one_that_was_moved_away(run: Run, places: Places) -> None:
    assert run("copy", *places, *ALICES, "--watch", "0").code == 0
    ended = run("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert ended.code == ExitCode.USAGE
    assert f"{ALICE} was moved to {places.destination} on " in ended.err
    assert run("backup", "alice.backup", places.destination, *PASS).code == 0
    back = run("restore", "alice.backup", places.source, *PASS)
    assert back.code == ExitCode.USAGE
    assert "was moved to " in back.err


@one_backend
def test_records_that_cannot_be_read_are_listed_and_kept(run: Run, places: Places) -> None:
    with open_backend(places.source) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(TrackedUser, (f"@\x1b{number}:x",)), b"damaged") for number in range(25)])
    ended = run("backup", "alice.backup", places.source, *ALICES, *PASS)
    assert ended.code == ExitCode.CHECK_FAILED
    assert "\n- tracked_user @\\x1b0:x was sealed in a way that" in ended.out
    assert "\n- and 5 more (--json names them)" in ended.out
    assert run("restore", "alice.backup", places.destination, *PASS).code == 0


@one_backend
def test_people_see_how_far_it_is(places: Places) -> None:
    assert f"backing up {ALICE}" in on_a_terminal("backup", "alice.backup", places.source, *ALICES, *PASS)
    shown = on_a_terminal("restore", "alice.backup", places.destination, *PASS)
    for doing in ("checking alice.backup", f"restoring {ALICE}", f"comparing {ALICE}"):
        assert doing in shown
