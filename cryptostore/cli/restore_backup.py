"""`cryptostore restore-backup`: the room keys of an account's backup on its homeserver, brought into the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.environment import variables
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account, Value
from cryptostore.store.ownership import Mode
from cryptostore.store.pickle_key_sources import read_secret, secret_from

from .databases import DatabaseUrl, DeviceId, UserId, open_for, owned_url, the_account
from .exits import ExitCode
from .in_use import EvenIfUsed, Watch, owner_seen, refuse_used
from .output import AsJson, ask_secret, bars, messages, print_json, print_line
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys

if TYPE_CHECKING:
    from cryptostore.nio.client.saved_login import SavedLogin
    from cryptostore.nio.trust.backup_restore import Progress, RestoredBackup

_NAME = "restore-backup"
_VARIABLE = "CRYPTOSTORE_RECOVERY_KEY"


@takes_pickle_keys
def restore_backup(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    recovery_key_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help=f"Take the recovery key from this file instead of {_VARIABLE}.")
    ] = None,
    ask_recovery_key: Annotated[bool, typer.Option("--ask-recovery-key", help="Ask for the recovery key.")] = False,
    even_if_used: EvenIfUsed = False,
    watch: Watch = 5.0,
    as_json: AsJson = False,
) -> None:
    """Take the room keys of an account's key backup on its homeserver into the database.

    Stop the account's client first: the account is taken over, and is left alone if somebody writes to it. A program
    can restore the backup itself while it runs, with `client.restore_backup`. The homeserver and the access token are
    those of the client's last login. The backup is opened with the recovery key that is given, which may be that of the
    account's secret storage, its passphrase, or the backup's own, or else with the private key in the database.

    Keys that came directly stay as they are, and read what is older, too. The command may be repeated. Entries that are
    of no use are named, and the exit code is 1; the rest is restored.
    """
    pickle_key = current_pickle_key(pickle_key_options)
    recovery_key = _recovery_key(recovery_key_file, ask=ask_recovery_key)
    with open_for(_NAME, url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account's backup is restored at a time")
        with backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store:
            seen = owner_seen(backend, account)
            login = _login(account, {row.key: row for row in store.select(Value, [()])[()]})
        if not even_if_used:
            refuse_used(backend, seen, watch, "Nothing was restored: stop that program, or give --even-if-used")
    with _shown_progress() as progress:
        restored = asyncio.run(_restore(account, login, url, pickle_key, recovery_key, progress))
    _report(url, account, restored, as_json=as_json)
    if restored.skipped:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _recovery_key(file: Path | None, *, ask: bool) -> str | None:
    if file is not None and ask:
        raise ConfigurationError("give one of --recovery-key-file and --ask-recovery-key")
    if ask:
        return ask_secret("recovery key", f"--recovery-key-file, or set {_VARIABLE}")
    if file is not None:
        return read_secret(file, "the recovery key")
    return secret_from(variables(), _VARIABLE, "the recovery key") or None


def _login(account: Account, values: dict[tuple[str | int, ...], Value]) -> SavedLogin:
    from cryptostore.nio.client.saved_login import ACCESS_TOKEN, saved_login

    login = saved_login(values.get(ACCESS_TOKEN))
    if login is None:
        raise ConfigurationError(
            f"the database has no login of {account}: only a ProductionMatrixClient that has logged in with "
            "`login_or_restore` leaves one. Start it once, or restore in the program, with `client.restore_backup()`"
        )
    return login


async def _restore(
    account: Account,
    login: SavedLogin,
    url: str,
    pickle_key: str,
    recovery_key: str | None,
    progress: Progress | None,
) -> RestoredBackup:
    # nio takes half a second to import; the other commands do without it.
    from cryptostore.nio import ProductionMatrixClient

    async with ProductionMatrixClient(
        login.homeserver,
        account.user_id,
        account.device_id,
        store=owned_url(_NAME, url),
        pickle_key=pickle_key,
        cross_signing=False,
    ) as client:
        client.restore_login(account.user_id, account.device_id, login.token)
        await client.open()
        return await client.restore_backup(progress, recovery_key=recovery_key)


@contextmanager
def _shown_progress() -> Iterator[Progress | None]:
    console = messages()
    if not console.is_terminal:
        yield None
        return
    with bars(console) as progress:
        task = progress.add_task("restoring", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _report(url: str, account: Account, restored: RestoredBackup, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "database": shown_url(url),
                "user_id": account.user_id,
                "device_id": account.device_id,
                "version": restored.version,
                "total": restored.total,
                "taken_in": restored.taken_in,
                "skipped": restored.skipped,
            }
        )
        return
    print_line(f"Restored the key backup {restored.version} of {account} into {shown_url(url)}", style="bold")
    print_line(f"  in the backup  {restored.total:,}")
    print_line(f"  new or better  {restored.taken_in:,}")
    print_line(f"  of no use      {restored.skipped:,}")
