"""Commands that people are told to run."""

from __future__ import annotations

import shlex

import pytest

from cryptostore import Account
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.shell_commands import account_command

ALICE = Account("@alice:example.org", "A")
CHOSEN = ["--user-id", ALICE.user_id, "--device-id", ALICE.device_id]


@pytest.mark.parametrize(
    "url", ["sqlite:///my keys.db", "postgresql://bot@db.example.org/keys?schema=bots&sslmode=verify-full"]
)
def test_a_url_is_one_word_of_the_shell(url: str) -> None:
    command, addition = account_command("delete", shown_url(url), ALICE)
    assert (shlex.split(command), addition) == (["cryptostore", "delete", url, *CHOSEN], "")


@pytest.mark.parametrize(
    "url", ["postgresql://bot:secret@db.example.org/keys?sslmode=verify-full", "sqlite:///keys.db?unknown=1"]
)
def test_a_command_is_without_a_url_that_cannot_be_shown(url: str) -> None:
    command, addition = account_command("delete", shown_url(url), ALICE)
    assert (shlex.split(command), addition) == (["cryptostore", "delete", *CHOSEN], ", with the database's URL")
