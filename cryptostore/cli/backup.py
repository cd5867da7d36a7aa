"""`cryptostore backup`: one whole account as one file that a passphrase opens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.new_files import new_private_file
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.backups import Counted, back_up
from cryptostore.store.ownership import Mode
from cryptostore.store.pickle_keys import SAFE_PASSPHRASE_CHARACTERS

from .databases import DatabaseUrl, DeviceId, UserId, open_for, the_account
from .exits import ExitCode
from .output import AsJson, if_interrupted, messages, print_json, print_line, rates, say
from .passphrases import AskForPassphrase, PassphraseFile, PassphraseVariable, given_passphrase
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys
from .rows import kinds_document, print_wrong, unreadable_document


@takes_pickle_keys
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file.")],
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    passphrase_env: PassphraseVariable = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskForPassphrase = False,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Write one whole account to a file that its passphrase opens, for `cryptostore restore`.

    Whoever has the file and its passphrase is this device; the pickle key is not needed then. Takes nothing over, and
    the client may run: the file has the account as it is at one moment. Only one of more than 64 MiB that is written to
    meanwhile is not backed up.

    The file is there whole, or not at all. Every record is opened; those that cannot be read are listed and kept as
    they are, rows that are no record's are listed and left out, and the exit code is 1 for both.
    """
    passphrase = given_passphrase(passphrase_env, passphrase_file, ask=ask_passphrase, twice=True)
    if len(passphrase) < SAFE_PASSPHRASE_CHARACTERS:
        say(
            f"warning: the passphrase has less than {SAFE_PASSPHRASE_CHARACTERS} characters, and may be guessed by who "
            "has the file; `cryptostore new-key` makes one that cannot"
        )
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("backup", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account is backed up at a time")
        started = time.monotonic()
        counted = _written(backend, account, pickle_key, passphrase, file)
        backend.notify(
            "cryptostore_keys_exported",
            account=account,
            records=counted.rows.total(),
            way="backup",
            destination=str(file),
            owner=backend.owner,
        )
    _report(url, account, file, counted, time.monotonic() - started, as_json=as_json)
    if counted.wrong:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _written(backend: Backend, account: Account, pickle_key: str, passphrase: str, file: Path) -> Counted:
    with (
        if_interrupted(f"the backup of {account} was not made, and nothing was changed: run the same command again"),
        new_private_file(file, f"the backup of {account}") as opened,
        _progress(backend, account) as passed,
    ):
        return back_up(backend, account, pickle_key, passphrase, opened, passed)


@contextmanager
def _progress(backend: Backend, account: Account) -> Iterator[Callable[[int], None]]:
    """What counts the rows on the terminal, if there is one."""
    console = messages()
    if not console.is_terminal:
        yield lambda _number: None
        return
    with backend.open_store(account, Mode.READ) as store:
        total = sum(1 for _ in store.stored_rows())
    with rates(console) as progress:
        yield partial(progress.advance, progress.add_task(f"backing up {account}", total=total))


def _report(url: str, account: Account, file: Path, counted: Counted, seconds: float, *, as_json: bool) -> None:
    rows = counted.rows.total()
    if as_json:
        print_json(
            {
                "database": shown_url(url),
                "user_id": account.user_id,
                "device_id": account.device_id,
                "file": str(file),
                "kinds": kinds_document(counted.rows),
                "rows": rows,
                "bytes": counted.size,
                **unreadable_document(counted.wrong),
                "seconds": round(seconds, 3),
            }
        )
        return
    print_line(f"backed up {account} to {file}", style="bold")
    print_line(f"  {rows:,} records, {counted.size:,} bytes, in {seconds:.1f} s ({rows / seconds:,.0f}/s)")
    print_wrong(counted.wrong)
