"""`cryptostore restore`: the account in a backup's file comes back, into a database of any backend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cryptostore.errors import BackendUnavailable, ConfigurationError, StorageFull
from cryptostore.plugins import open_backend
from cryptostore.plugins.loading import shown_url
from cryptostore.store import backups
from cryptostore.store.backend import Backend
from cryptostore.store.backup_file import BackupFile
from cryptostore.store.backups import Counted, Restored, Restoring
from cryptostore.store.pickle_keys import PUBLIC_PICKLE_KEYS

from .databases import owner_of, refuse_process_local, url_from_settings
from .exits import ExitCode
from .output import AsJson, counting, messages, print_json, print_line, rates, say, shown_time
from .passphrases import AskForPassphrase, PassphraseFile, PassphraseVariable, given_passphrase
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, given_pickle_key, takes_pickle_keys
from .restored import START_THE_CLIENT, print_changes
from .rows import kind_name, kinds_document, print_wrong, row_document

#: The steps that take long.
_DOING: Final = ("restoring", "comparing")


@takes_pickle_keys
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that `cryptostore backup` made.")],
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            envvar="CRYPTOSTORE_URL",
            show_default=False,
            help="The database, which may be new; else the one that clients find in the environment or in .env.",
        ),
    ] = None,
    passphrase_env: PassphraseVariable = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskForPassphrase = False,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the passphrase and the whole file, and open no database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the account in a backup's file into a database that has not got it, and compare every record.

    It opens there with the pickle key that is given here, which need not be the one that it had before, and is made
    safe as by `cryptostore restored`: others have seen newer keys than those in a backup.

    A damaged file writes nothing. When this is interrupted, run it again: it begins anew, and until it is complete the
    account cannot be opened. The exit code is 1 where something differs.

    Stop the client that has the account elsewhere: never run two with the keys of one device.
    """
    passphrase = given_passphrase(passphrase_env, passphrase_file, ask=ask_passphrase)
    if dry_run:
        _dry_run(BackupFile(file, passphrase), as_json=as_json)
        return
    place = url or url_from_settings()
    refuse_process_local(place)
    pickle_key = _pickle_key(pickle_key_options)
    opened = BackupFile(file, passphrase)
    started = time.monotonic()
    # Before the database is opened, which may make one.
    checked = _checked(opened)
    restored = _restored(opened, checked, place, pickle_key)
    _report(opened, place, restored, time.monotonic() - started, as_json=as_json)
    if not restored.is_complete:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _pickle_key(options: PickleKeyOptions) -> str:
    given = given_pickle_key(options)
    if given is None or given in PUBLIC_PICKLE_KEYS:
        raise ConfigurationError(
            "give the pickle key that the account is to have from now on: CRYPTOSTORE_PICKLE_KEY, --pickle-key-file or "
            "--ask-pickle-key. `cryptostore new-key` makes one; nio's default, or none, is known to everybody"
        )
    return given


def _dry_run(file: BackupFile, *, as_json: bool) -> None:
    counted = _checked(file)
    if as_json:
        print_json({**_document(file, counted), "dry_run": True})
        return
    print_line(f"{file.path} is whole, and the passphrase opens it", style="bold")
    print_line(f"  account  {file.account}")
    print_line(f"  made at  {shown_time(file.made_at)}")
    print_line(f"  holds    {counted.rows.total():,} records, {counted.size:,} bytes")
    for number, rows in sorted(counted.rows.items()):
        print_line(f"  {kind_name(number):<22} {rows:,}")


def _checked(file: BackupFile) -> Counted:
    with counting(f"checking {file.path}") as passed:
        return backups.check(file, passed)


def _restored(file: BackupFile, checked: Counted, url: str, pickle_key: str) -> Restored:
    with open_backend(url, owner=owner_of("restore")) as backend:
        try:
            with _progress(file, checked.rows.total()) as watching:
                restored = backups.restore(file, checked, backend, shown_url(url), pickle_key, watching)
        except (KeyboardInterrupt, BackendUnavailable, StorageFull):
            say(
                f"{file.account} is not restored. Nothing is lost: run the same command again, which begins anew; "
                "until it is complete the account cannot be opened there"
            )
            raise
        if restored.is_complete:
            _tell(backend, file, restored)
        return restored


def _tell(backend: Backend, file: BackupFile, restored: Restored) -> None:
    facts = {"records": restored.counted.rows.total(), "way": "restore", "source": str(file.path)}
    backend.notify("cryptostore_keys_imported", account=file.account, owner=backend.owner, **facts)


@contextmanager
def _progress(file: BackupFile, total: int) -> Iterator[Restoring]:
    """What counts the rows on the terminal, if there is one."""
    console = messages()
    if not console.is_terminal:
        yield Restoring()
        return
    with rates(console) as progress:
        written, compared = [progress.add_task(f"{doing} {file.account}", total=total) for doing in _DOING]
        yield Restoring(written=partial(progress.advance, written), compared=partial(progress.advance, compared))


def _report(file: BackupFile, url: str, restored: Restored, seconds: float, *, as_json: bool) -> None:
    if as_json:
        outcome = {
            "database": shown_url(url),
            "complete": restored.is_complete,
            "was_there": restored.is_finished,
            "different": [row_document(*each) for each in restored.counted.wrong],
            "made_safe": dict(restored.made_safe),
            "seconds": round(seconds, 3),
        }
        print_json({**_document(file, restored.counted), "dry_run": False, **outcome})
    elif restored.is_complete:
        _report_success(file, url, restored, seconds)
    else:
        print_line(
            f"{file.account} is NOT restored into {shown_url(url)}: records differ there. It cannot be opened; find "
            "out what is wrong with that database, and restore again"
        )
        print_wrong(restored.counted.wrong)


def _report_success(file: BackupFile, url: str, restored: Restored, seconds: float) -> None:
    if restored.is_finished:
        print_line(f"{file.account} was in {shown_url(url)} already, and was not made safe yet", style="bold")
    else:
        counted, rows = restored.counted, restored.counted.rows.total()
        print_line(f"restored {file.account} of {shown_time(file.made_at)} into {shown_url(url)}", style="bold")
        print_line(
            f"  {rows:,} records, {counted.size:,} bytes, read back and compared, in {seconds:.1f} s "
            f"({rows / seconds:,.0f}/s)"
        )
    print_line("made it safe: others have seen newer keys than those of a backup", style="bold")
    print_changes(restored.made_safe)
    print_line(START_THE_CLIENT)


def _document(file: BackupFile, counted: Counted) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "user_id": file.account.user_id,
        "device_id": file.account.device_id,
        "made_at": file.made_at.isoformat(),
        "kinds": kinds_document(counted.rows),
        "rows": counted.rows.total(),
        "bytes": counted.size,
    }
