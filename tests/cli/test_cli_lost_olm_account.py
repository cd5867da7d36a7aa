"""An account whose Olm account is lost: no command takes it for a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import healthy_bots
from command_line import Run
from cryptostore import Account, Changes, Mode, OlmAccount, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.trust.key_file import KeyFileWriter

ALICE: Final = Account("@alice:example.org", "A")
KEY: Final = new_pickle_key()
LOST: Final = f"the Olm account of {ALICE} is missing"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///keys.db"
    healthy_bots.save(url, ALICE, KEY)
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes(deletes=[(OlmAccount, ())]))
    return url


def test_restored_refuses_it(run: Run, url: str) -> None:
    ended = run("restored", url, "--yes", "--watch", "0")
    assert (ended.code, LOST in ended.err) == (ExitCode.REFUSED, True)


def test_import_keys_refuses_it(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASS", "a passphrase")
    with Path("room keys").open("wb") as file:
        KeyFileWriter(file, "a passphrase").write_all([])
    ended = run("import-keys", "room keys", url, "--passphrase-env", "PASS", "--watch", "0")
    assert (ended.code, LOST in ended.err) == (ExitCode.REFUSED, True)
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ) as store:
        assert store.ownership.owner != "cryptostore import-keys"


def test_verify_counts_it(run: Run, url: str) -> None:
    ended = run("verify", url)
    assert (ended.code, f"- olm_account of {ALICE}: is missing" in ended.out) == (ExitCode.CHECK_FAILED, True)


@pytest.mark.parametrize("command", ["identity", "show"])
def test_it_is_said_and_the_rest_is_shown(run: Run, url: str, command: str) -> None:
    ended = run(command, url)
    assert ended.code == ExitCode.CHECK_FAILED
    assert LOST in ended.out
    assert "no keys yet" not in ended.out
    assert healthy_bots.SEEDS.public.master in ended.out
