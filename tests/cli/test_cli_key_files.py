"""`cryptostore export-keys` and `cryptostore import-keys`."""

from __future__ import annotations

import json
import random
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest
from nio.crypto import OlmAccount
from nio.crypto.key_export import decrypt_and_read, encrypt_and_save

from command_line import Ended, Run, on_a_terminal, run_process
from cryptostore import (
    Account,
    Changes,
    FencedOut,
    InboundGroupSession,
    Mode,
    Row,
    SyncToken,
    new_pickle_key,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import NioStore
from cryptostore.plugins.observers import observers
from cryptostore.store.keys import encode_key
from hostile_text import WORST, raw_in
from nio_places import Ratchet

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY: Final = new_pickle_key()
PASSPHRASE: Final = "a passphrase, ünguessable"
#: nio takes it for Latin-1, and everybody else for UTF-8.
NIOS: Final = PASSPHRASE.encode().decode("latin-1")
ROOMS: Final = ("!one:example.org", "!two:example.org")
PASS: Final = ("--passphrase-env", "PASSPHRASE")
ALICES: Final = ("--user-id", ALICE.user_id)
BOBS: Final = ("--user-id", BOB.user_id, "--watch", "0")


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)


def ratchets() -> list[Ratchet]:
    return [Ratchet(room=ROOMS[number % 2]) for number in range(10)]


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, list[Ratchet]]:
    """Alice has ten sessions, in two rooms, and Bob none."""
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = ratchets()
    for account in (ALICE, BOB):
        store = NioStore(account.user_id, account.device_id, url, KEY)
        store.save_account(OlmAccount())
        for ratchet in made if account == ALICE else ():
            store.save_inbound_group_session(ratchet.inbound())
        store.close()
    return url, made


def sessions(url: str, account: Account = BOB) -> dict[Any, InboundGroupSession]:
    with open_backend(url) as backend, backend.open_store(account, Mode.READ, pickle_key=KEY) as store:
        return {session.key: session for session in store.scan(InboundGroupSession)}


def exported(items: list[Any], file: str = "others.txt") -> str:
    encrypt_and_save(json.dumps(items).encode(), file, PASSPHRASE, count=1_000)
    return file


def entry(ratchet: Ratchet, **changed: Any) -> dict[str, Any]:
    session = ratchet.inbound()
    return {
        "algorithm": "m.megolm.v1.aes-sha2",
        "forwarding_curve25519_key_chain": [],
        "room_id": session.room_id,
        "sender_claimed_keys": {"ed25519": session.ed25519},
        "sender_key": session.sender_key,
        "session_id": session.id,
        "session_key": session.export_session(session.first_known_index),
        **changed,
    }


def test_all_keys_of_an_account_go_from_one_to_another(filled: tuple[str, list[Ratchet]]) -> None:
    url, made = filled
    ended = run_process("export-keys", "keys.txt", url, *ALICES, *PASS)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"exported 10 room keys of {ALICE} to keys.txt\n"
    assert stat.S_IMODE(Path("keys.txt").stat().st_mode) == 0o600
    imported = run_process("import-keys", "keys.txt", url, *BOBS, *PASS)
    assert (imported.code, imported.err) == (0, "")
    assert "  new or better  10\n  of no use      0\n" in imported.out
    alices, bobs = sessions(url, ALICE), sessions(url)
    assert [each.session_key for each in bobs.values()] == [each.session_key for each in alices.values()]
    assert bobs.keys() == alices.keys() == {(each._room, each.id, "curve-of-sender") for each in made}
    # Nothing in a file proves who made a session.
    assert {each.forwarding_chain for each in bobs.values()} == {("curve-of-sender",)}
    again = run_process("import-keys", "keys.txt", url, *BOBS, *PASS, "--json")
    assert (again.document["total"], again.document["taken_in"], again.document["skipped"]) == (10, 0, 0)


def test_an_export_is_read_by_nio_and_fences_no_owner(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    url, made = filled
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as owner:
        assert run("export-keys", "keys.txt", url, *ALICES, *PASS).code == 0
        owner.apply(Changes([SyncToken("s2")]))
    items = json.loads(decrypt_and_read("keys.txt", NIOS))
    assert sorted(items, key=str) == sorted((entry(each) for each in made), key=str)


def test_one_room(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    url, _ = filled
    ended = run("export-keys", "keys.txt", url, *ALICES, *PASS, "--room", ROOMS[0], "--json")
    assert (ended.document["keys"], ended.document["unreadable"]) == (5, {})
    assert {item["room_id"] for item in json.loads(decrypt_and_read("keys.txt", NIOS))} == {ROOMS[0]}
    assert ended.err == ""
    assert ended.document["unknown_rooms"] == []


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_a_mistyped_room(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    words = (filled[0], *ALICES, *PASS, "--room", "!mistyped:x")
    mistyped = run("export-keys", "none.txt", *words)
    assert mistyped.err == f"{ALICE} has no key of the room !mistyped:x; is it the right one?\n"
    assert (mistyped.code, mistyped.out) == (ExitCode.CHECK_FAILED, "exported no room keys, and made no file\n")
    assert run("export-keys", "none.txt", *words, "--json").document["file"] is None
    assert not Path("none.txt").exists()
    one = run("export-keys", "keys.txt", *words, "--room", ROOMS[0], "--json")
    assert (one.code, one.document["unknown_rooms"], one.document["keys"]) == (1, ["!mistyped:x"], 5)
    assert len(json.loads(decrypt_and_read("keys.txt", NIOS))) == 5


def test_keys_that_cannot_be_read_are_counted(filled: tuple[str, list[Ratchet]]) -> None:
    url, made = filled
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        key = (made[0]._room, made[0].id, "curve-of-sender")
        store.put_rows([Row(encode_key(InboundGroupSession, key), b"damaged")])
    ended = run_process("export-keys", "keys.txt", url, *ALICES, *PASS)
    assert ended.code == ExitCode.CHECK_FAILED
    assert "exported 9 room keys" in ended.out
    assert "1 cannot be read, and were left out" in ended.out
    assert len(json.loads(decrypt_and_read("keys.txt", NIOS))) == 9


def test_observers_are_told(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    from cryptostore import hookimpl

    told: list[tuple[Account, int]] = []

    class Audit:
        @hookimpl
        def cryptostore_keys_exported(self, account: Account, records: int) -> None:
            told.append((account, records))

    observers().add("audit", Audit())
    try:
        assert run("export-keys", "keys.txt", filled[0], *ALICES, *PASS).code == 0
    finally:
        observers().remove("audit")
    assert told == [(ALICE, 10)]


def test_a_file_is_never_written_over(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    Path("keys.txt").write_text("the only copy")
    ended = run("export-keys", "keys.txt", filled[0], *ALICES, *PASS)
    assert ended.code == ExitCode.USAGE
    assert "File exists; name a new file" in ended.err
    assert [path.name for path in Path().glob("keys.txt*")] == ["keys.txt"]
    assert Path("keys.txt").read_text() == "the only copy"
    nowhere = run("export-keys", "no/such/folder/keys.txt", filled[0], *ALICES, *PASS)
    assert nowhere.code == ExitCode.USAGE


def test_the_better_of_two_keys_stays(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    url, _ = filled
    ratchet = Ratchet(room=ROOMS[0])
    early, late = entry(ratchet), entry(ratchet.advance(5))
    key = (ROOMS[0], ratchet.id, "curve-of-sender")
    for item, index, taken_in in ((late, 5, 1), (early, 0, 1), (late, 0, 0)):
        Path("others.txt").unlink(missing_ok=True)
        ended = run("import-keys", exported([item]), url, *BOBS, *PASS, "--json")
        assert ended.document["taken_in"] == taken_in
        assert sessions(url)[key].first_known_index == index


def test_entries_of_no_use_are_listed_and_the_rest_is_imported(filled: tuple[str, list[Ratchet]]) -> None:
    url, made = filled
    good, other = entry(made[0]), entry(made[1])
    bad = [
        (entry(made[2], algorithm="m.megolm.v2"), "is of another algorithm"),
        ("no object", "is no room key"),
        (None, "is no room key"),
        ({**other, "session_key": 7}, "lacks what a room key has"),
        ({name: value for name, value in other.items() if name != "room_id"}, "lacks what a room key has"),
        ({**other, "sender_claimed_keys": ["x"]}, "lacks what a room key has"),
        ({**other, "sender_claimed_keys": {"ed25519": ""}}, "has an id or a key that no client makes"),
        ({**other, "session_key": "AQID"}, "has an id or a key that no client makes"),
        ({**other, "session_key": "é" * 220}, "has an id or a key that no client makes"),
        ({**other, "session_key": "A" * 220}, "has an id or a key that no client makes"),
        ({**other, "room_id": "!" * 300}, "has an id or a key that no client makes"),
        ({**other, "room_id": f"!{WORST}", "session_id": made[3].id}, "has the key of another session"),
    ]
    file = exported([good, *[item for item, _ in bad]])
    ended = run_process("import-keys", file, url, *BOBS, *PASS, "--json")
    assert ended.code == ExitCode.CHECK_FAILED
    document = ended.document
    assert (document["total"], document["taken_in"], document["skipped"]) == (len(bad) + 1, 1, len(bad))
    assert [(each["number"], each["reason"]) for each in document["entries"]] == [
        (number, reason) for number, (_, reason) in enumerate(bad, 2)
    ]
    shown = run_process("import-keys", file, url, *BOBS, *PASS)
    assert f"- entry 2 {made[2]._room} {made[2].id}: is of another algorithm\n" in shown.out
    assert not raw_in(shown.out, lines=True)
    assert str(other["session_key"])[:40] not in shown.out + shown.err
    assert len(sessions(url)) == 1


def test_very_many_entries_of_no_use(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    ended = run("import-keys", exported([{}] * 50), filled[0], *BOBS, *PASS)
    assert ended.code == ExitCode.CHECK_FAILED
    assert "- and 30 more (--json names them)" in ended.out


def refused(ended: Ended, words: str, code: int = ExitCode.USAGE) -> None:
    assert ended.code == code
    assert words in ended.err
    assert PASSPHRASE not in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_mistakes_are_named_and_change_nothing(
    run: Run, filled: tuple[str, list[Ratchet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, made = filled
    file = exported([entry(made[0])])
    for name, value in (("WRONG", "another"), ("EMPTY", ""), ("NO_TEXT", "\udcff")):
        monkeypatch.setenv(name, value)
    before = before_owners(url)
    for command in ("export-keys", "import-keys"):
        named = "new.txt" if command == "export-keys" else file
        refused(run(command, named, url, *ALICES), "give one of --passphrase-env")
        refused(run(command, named, url, *ALICES, *PASS, "--ask-passphrase"), "give one of --passphrase-env")
        refused(run(command, named, url, *ALICES, "--passphrase-env", "NO_SUCH"), "has no variable NO_SUCH")
        refused(run(command, named, url, *ALICES, "--passphrase-env", "EMPTY"), "the passphrase is empty")
        refused(run(command, named, url, *ALICES, "--passphrase-env", "NO_TEXT"), "is not UTF-8 text")
        refused(run(command, named, url, *ALICES, "--passphrase-file", "/no/file"), "No such file")
        refused(run(command, named, url, *PASS), "at a time, and ")
        refused(run(command, named, url, *PASS, "--user-id", "@nobody:x"), "has no such account")
        refused(run(command, named, url, *ALICES, *PASS, "--pickle-key-env", "WRONG"), "Nothing is damaged")
    refused(run("import-keys", file, url, *BOBS, "--passphrase-env", "WRONG"), "the passphrase is not the one that")
    refused(run("import-keys", "/no/file", url, *BOBS, *PASS), "cannot be read: No such file")
    Path("keys.db.txt").write_text("something else")
    refused(run("import-keys", "keys.db.txt", url, *BOBS, *PASS), "is no file of exported room keys")
    assert before_owners(url) == before
    assert not Path("new.txt").exists()


def before_owners(url: str) -> Any:
    with open_backend(url) as backend:
        return backend.accounts()


def test_the_passphrase_comes_from_a_prompt_or_a_file(
    run: Run, filled: tuple[str, list[Ratchet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = filled
    asked: list[bool] = []

    def prompt(_words: str, *, hide_input: bool, err: bool, confirmation_prompt: bool) -> str:
        assert hide_input
        assert err
        asked.append(confirmation_prompt)
        return PASSPHRASE

    monkeypatch.setattr("cryptostore.cli.output.has_terminal", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    assert run("export-keys", "keys.txt", url, *ALICES, "--ask-passphrase").code == 0
    assert run("import-keys", "keys.txt", url, *BOBS, "--ask-passphrase").code == 0
    assert asked == [True, False]
    Path("passphrase").write_text(f"{PASSPHRASE}\n")
    assert run("import-keys", "keys.txt", url, *BOBS, "--passphrase-file", "passphrase").code == 0


def test_an_account_without_an_identity(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    url, made = filled
    carol = Account("@carol:example.org", "C")
    with open_backend(url) as backend:
        backend.open_store(carol, pickle_key=KEY).close()
    ended = run("import-keys", exported([entry(made[0])]), url, "--user-id", carol.user_id, *PASS)
    refused(ended, f"{carol} has no identity yet: start its client once")
    assert sessions(url, carol) == {}


def test_an_account_that_is_written_to(filled: tuple[str, list[Ratchet]]) -> None:
    url, made = filled
    file = exported([entry(made[0])])
    with open_backend(url) as backend, backend.open_store(BOB, pickle_key=KEY) as store:
        command = [sys.executable, "-m", "cryptostore", "import-keys", file, url, "--user-id", BOB.user_id]
        with subprocess.Popen([*command, *PASS, "--watch", "60"], stderr=subprocess.PIPE, text=True) as running:
            number = 0
            while running.poll() is None:
                store.apply(Changes([SyncToken(f"s{(number := number + 1)}")]))
                time.sleep(0.02)
            assert running.stderr is not None
            assert f"{BOB} is in use: " in running.stderr.read()
        assert running.returncode == ExitCode.USAGE
        assert sessions(url) == {}
        assert run_process("import-keys", file, url, "--user-id", BOB.user_id, *PASS, "--even-if-used").code == 0
    assert len(sessions(url)) == 1


def test_a_fenced_client_is_told_by_which_command(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    url, made = filled
    named = f"{url}{'&' if '?' in url else '?'}owner=the%20bot"
    with open_backend(named) as backend, backend.open_store(BOB, pickle_key=KEY) as bot:
        assert run("import-keys", exported([entry(made[0])]), named, *BOBS, *PASS).code == 0
        with pytest.raises(FencedOut, match="was taken over by cryptostore import-keys on "):
            bot.apply(Changes([SyncToken("s1")]))


def test_people_see_how_far_it_is(filled: tuple[str, list[Ratchet]]) -> None:
    url, _ = filled
    assert "exporting" in on_a_terminal("export-keys", "keys.txt", url, *ALICES, *PASS)
    assert "importing" in on_a_terminal("import-keys", "keys.txt", url, *BOBS, *PASS)


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_kills_at_random_moments_lose_nothing(run: Run, filled: tuple[str, list[Ratchet]]) -> None:
    """An export is there whole or not at all, and an import is completed by the next one."""
    url, made = filled
    draw = random.Random(seed := random.randrange(2**32))
    for number in range(3):
        file = f"keys{number}.txt"
        kill_after(draw.uniform(0.3, 2), "export-keys", file, url, *ALICES, *PASS)
        if not Path(file).exists():
            assert run("export-keys", file, url, *ALICES, *PASS).code == 0, seed
        assert len(json.loads(decrypt_and_read(file, NIOS))) == len(made), seed
        assert not Path(f"{file}.unfinished").exists(), seed
        kill_after(draw.uniform(0.3, 3), "import-keys", file, url, *BOBS, *PASS)
        assert run("import-keys", file, url, *BOBS, *PASS).code == 0, seed
        assert sessions(url).keys() == sessions(url, ALICE).keys(), seed


def kill_after(seconds: float, *words: str) -> None:
    command = [sys.executable, "-m", "cryptostore", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.kill()
