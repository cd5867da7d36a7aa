"""An account with an unreadable row is left out by commands for all accounts, and they end with 1."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from nio.crypto import OlmAccount

from command_line import Run
from cryptostore import Account, Changes, SyncToken, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.nio.pickles import Pickles

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY: Final = new_pickle_key()
UNOWNED: Final = "DELETE FROM ownership WHERE account_id = (SELECT id FROM account WHERE device_id = 'B')"


@pytest.fixture(
    params=[
        "UPDATE account SET user_id = CAST(x'ff' AS TEXT) WHERE device_id = 'B'",
        UNOWNED,
        "DELETE FROM account WHERE device_id = 'B'",
    ],
    ids=["name", "ownership", "account"],
)
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    url = f"sqlite:///{tmp_path}/keys.db"
    with open_backend(url) as backend:
        for account in (ALICE, BOB):
            with backend.open_store(account, pickle_key=KEY) as store:
                store.apply(Changes([Pickles(account).account_record(OlmAccount()), SyncToken("token")]))
    with closing(sqlite3.connect(tmp_path / "keys.db", isolation_level=None)) as connection:
        connection.execute(request.param)
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    Path("new.key").write_text(new_pickle_key())
    return url


def words_for(command: str) -> tuple[str, ...]:
    if "copy" in command:
        return ("sqlite:///other.db", "--watch", "0")
    return ("--new-pickle-key-file", "new.key") if command == "rekey" else ()


@pytest.mark.parametrize("command", ["accounts", "copy", "copy --dry-run", "identity", "rekey", "stats", "verify"])
def test_a_command_for_all_accounts_tells_of_one_that_it_left_out(run: Run, url: str, command: str) -> None:
    open_backend("sqlite:///other.db").close()
    ended = run(*command.split(), url, *words_for(command))
    assert (ended.code, str(ALICE) in ended.out) == (ExitCode.CHECK_FAILED, True)
    assert "1 account has a row that cannot be read" in ended.err


@pytest.mark.parametrize("command", ["accounts", "identity", "rekey", "stats", "verify"])
def test_one_that_is_asked_for_by_name_is_whole(run: Run, url: str, command: str) -> None:
    ended = run(command, url, "--user-id", ALICE.user_id, *words_for(command))
    assert (ended.code, "cannot be read" in ended.err) == (ExitCode.DONE, False)


@pytest.mark.parametrize("url", [UNOWNED], indirect=True, ids=["ownership"])
@pytest.mark.parametrize("command", ["accounts", "delete --yes", "verify"])
def test_half_an_account_that_is_asked_for_by_name_is_refused_with_the_remedy(run: Run, url: str, command: str) -> None:
    ended = run(*command.split(), url, "--user-id", BOB.user_id)
    assert ended.code == ExitCode.REFUSED
    assert "the ownership of @bob:example.org B is missing" in ended.err
    assert "DELETE FROM account WHERE id = " in ended.err
