"""Commands of `cryptostore` that people are told to run."""

from __future__ import annotations

import shlex

from cryptostore.records import Account

from .urls import HIDDEN


def account_command(name: str, url: str, account: Account) -> tuple[str, str]:
    """A command for one account, fit for a shell, and what to say behind it.

    `url` may be shown. It is in the command: the environment may name another database, which has such an account, too.
    Where something in it is hidden, the command cannot have it, and a person is told to give it.
    """
    chosen = ["--user-id", account.user_id, "--device-id", account.device_id]
    if HIDDEN in url:
        return shlex.join(["cryptostore", name, *chosen]), ", with the database's URL"
    return shlex.join(["cryptostore", name, url, *chosen]), ""
