"""What strangers named cannot steer the terminal of a command, forge a line of its log, or spoil its JSON."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from nio.crypto import OlmAccount

from command_line import Ended, Run, on_a_terminal, run_process
from cryptostore import Account, Changes, CrossSigningKeys, KeyBackup, Secret, SyncToken, new_pickle_key, open_backend
from cryptostore.cli.demo.audience import Audience
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import NioStore
from cryptostore.records.trust_kinds import NEVER
from cryptostore.shown import shown
from fake_distributions import FakeSite
from hostile_text import HOSTILE, WORST, raw_in
from nio_sources import Client, edited

KEY: Final = new_pickle_key()
NAMES: Final = {
    # Accounts have ids of at most 255 bytes.
    **{name: text for name, text in HOSTILE.items() if len(text.encode()) < 200},
    "all that steers a terminal": "D\x1b[2J\x9b\x85\x7f\u202e\u2066\u200b\u2028[/b]",
}
ACCOUNTS: Final = [Account(f"@{text}:example.org", text) for text in NAMES.values()]

PLUGIN: Final = f"""
from cryptostore import BackendPlugin, Capability, Claim, Support, hookimpl
@hookimpl
def cryptostore_backends():
    claim = Claim(Support.UNSUPPORTED, {WORST!r})
    return [BackendPlugin("hostile", (2, 0), print, {{Capability.TLS: claim, Capability.SURVIVES_PROCESS_KILL: claim}})]
"""


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("NEW_KEY", new_pickle_key())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with accounts of hostile names; one has no keys."""
    url = f"sqlite:///{tmp_path}/keys.db"
    for account in ACCOUNTS:
        with closing(NioStore(account.user_id, account.device_id, url, KEY)) as store:
            store.save_account(OlmAccount())
    with open_backend(url) as backend:
        backend.open_store(Account("@empty:example.org", NAMES["a line of its own"]), pickle_key=KEY).close()
    return url


def fit(ended: Ended) -> Ended:
    """The same, seen to be fit for a terminal, on both of its streams."""
    assert raw_in(ended.out, lines=True) == []
    assert raw_in(ended.err, lines=True) == []
    assert ended.out.isascii() or "\n{" not in f"\n{ended.out}"
    return ended


def shows(text: str, ended: Ended) -> bool:
    return shown(text) in ended.out + ended.err


def test_stats(run: Run, url: str) -> None:
    people = fit(run("stats", url))
    programs = fit(run("stats", url, "--json"))
    refused = fit(run("stats", url, "--device-id", "NONE"))
    assert all(shows(str(account), people) and shows(str(account), refused) for account in ACCOUNTS)
    assert {each["device_id"] for each in programs.document["accounts"]} >= set(NAMES.values())


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_one_account_is_chosen_by_its_hostile_name(run: Run, url: str, name: str) -> None:
    [account] = fit(run("stats", url, "--device-id", name, "--user-id", f"@{name}:example.org", "--json")).document[
        "accounts"
    ]
    assert account["device_id"] == name


def test_identity(run: Run, url: str) -> None:
    for account in ACCOUNTS:
        with open_backend(url) as backend, backend.open_store(account, pickle_key=KEY) as store:
            # Keys that a homeserver named, and a version of a backup.
            key = account.device_id
            identity = CrossSigningKeys(account.user_id, key, key, key)
            secret = Secret(f"m.secret_storage.key.{key}", store.secrets.seal("another name", bytes(32)), NEVER)
            store.apply(Changes([identity, secret, KeyBackup(key, key)]))
    people = fit(run("identity", url))
    programs = fit(run("identity", url, "--json"))
    assert all(shows(str(account), people) for account in ACCOUNTS)
    shown_keys = [each["identity"]["master_key"] for each in programs.document["accounts"] if each["identity"]]
    assert sorted(shown_keys) == sorted(account.device_id for account in ACCOUNTS)
    for account in ACCOUNTS:
        ended = fit(
            run("identity", "recovery-key", url, "--user-id", account.user_id, "--device-id", account.device_id)
        )
        assert ended.code == ExitCode.REFUSED
        assert shows(account.user_id, ended)


def test_rekey(run: Run, url: str) -> None:
    people = fit(run("rekey", url, "--new-pickle-key-env", "NEW_KEY"))
    assert people.code == ExitCode.DONE
    assert all(shows(str(account), people) for account in ACCOUNTS)
    refused = fit(run("rekey", url, "--new-pickle-key-env", "NEW_KEY", "--device-id", "NONE"))
    assert all(shows(str(account), refused) for account in ACCOUNTS)
    programs = fit(run("rekey", url, "--pickle-key-env", "NEW_KEY", "--new-pickle-key-env", "NEW_KEY", "--json"))
    assert {each["device_id"] for each in programs.document["accounts"]} == set(NAMES.values())


def test_rekey_with_a_wrong_pickle_key(run: Run, url: str) -> None:
    ended = fit(run("rekey", url, "--pickle-key-env", "NEW_KEY", "--new-pickle-key-env", "NEW_KEY"))
    assert ended.code == ExitCode.USAGE


def test_rekey_on_a_terminal(url: str) -> None:
    seen = on_a_terminal("rekey", url, "--new-pickle-key-env", "NEW_KEY")
    assert "sealing the records of" in seen
    # The end of a long name stands in another line.
    assert shown(f"@{NAMES['all that steers a terminal']}")[:40] in seen
    assert "DEV[/b]" in seen
    for raw in ("\u202e", "\x9b", "\x85", "\u2066", "\u200b", "\u2028", "\x1b[2J\x1b]0"):
        assert raw not in seen


@pytest.mark.parametrize("options", [[], ["--json"], ["--dry-run"], ["--dry-run", "--json"]], ids=" ".join)
def test_import_nio(run: Run, tmp_path: Path, options: list[str]) -> None:
    account = ACCOUNTS[-1]
    source = Client(tmp_path, account, KEY)
    for number, name in enumerate(NAMES.values()):
        source.know(f"@{name}:example.org", name, name=f"{number} {name}")
        source.ask_for_key(name)
        source.received_session(name, room_id=name)
    source.close()
    with edited(source.path) as file:
        # What cannot be read is named in the findings.
        file.execute("UPDATE megolminboundsessions SET session = x'00'")
    ended = fit(run("import-nio", source.path, f"sqlite:///{tmp_path}/new.db", *options))
    assert ended.code == ExitCode.CHECK_FAILED, ended.err
    if "--json" in options:
        assert ended.document["accounts"][0]["device_id"] == account.device_id
        assert ended.document["findings"]
    else:
        assert shows(str(account), ended)


@pytest.mark.parametrize("command", ["stats", "rekey", "import-nio", "demo"])
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_url(run: Run, command: str, name: str) -> None:
    words = {
        "stats": ["stats"],
        "rekey": ["rekey", "--new-pickle-key-env", "NEW_KEY"],
        "import-nio": ["import-nio", "nio.db"],
        "demo": ["demo", "--store"],
    }[command]
    for url in (f"sqlite:///no/{quote(name)}", f"sqlite:///no/{name}", f"memory://{name}", f"{name}://x", name):
        ended = fit(run(*words, url))
        assert ended.code not in (ExitCode.DONE, ExitCode.CHECK_FAILED)


@pytest.mark.parametrize("words", [[WORST], ["stats", f"--{WORST}"], ["stats", "a", WORST], ["demo", "--kills", WORST]])
def test_a_hostile_command_line(run: Run, words: list[str]) -> None:
    assert fit(run(*words)).code == ExitCode.USAGE


def test_a_hostile_plugin(run: Run, site: FakeSite) -> None:
    group = "cryptostore.backends"
    site.install("hostile", {group: {"hostile": "hostile_store"}}, hostile_store=PLUGIN)
    site.install("wreck", {group: {"wreck": "wreck_store"}}, wreck_store=f"raise RuntimeError({WORST!r})")
    for ended in (run("backends"), run("backends", "--json"), run("stats", "hostile://x"), run("stats", "wreck://x")):
        fit(ended)
    assert shows(WORST, fit(run("stats", "hostile://x")))


def test_a_command_that_cannot_be_loaded(run: Run, site: FakeSite) -> None:
    site.install("wreck", {"cryptostore.commands": {"wreck": "wreck:x"}}, wreck=f"raise RuntimeError({WORST!r})")
    assert shows(WORST, fit(run("wreck")))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_the_demo_says_who_writes(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Audience(3) as watching:
        watching.say(f"{name} writes")
    assert raw_in(capfd.readouterr().err, lines=True) == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_that_lacks_a_letter_ends_no_command(encoding: str) -> None:
    with open_backend("sqlite:///keys.db") as backend:
        backend.open_store(Account("@例:x", "Ω"), pickle_key=KEY).apply(Changes([SyncToken("s1")]))
    ended = run_process("stats", "sqlite:///keys.db", env={"PYTHONIOENCODING": encoding}, encoding=encoding)
    assert (ended.code, ended.err) == (0, "")
    assert ("@例:x Ω" if encoding == "utf-8" else "@\\u4f8b:x \\u03a9") in ended.out


def test_json_gives_programs_what_is_stored(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "naïve\u202e.db"
    with open_backend(f"sqlite:///{quote(str(file))}") as backend:
        backend.open_store(Account("@ö:x", "Ω"), pickle_key=KEY).apply(Changes([SyncToken("s1")]))
    [account] = fit(run("stats", f"sqlite:///{quote(str(file))}", "--json")).document["accounts"]
    assert (account["user_id"], account["device_id"]) == ("@ö:x", "Ω")
