"""`cryptostore copy`: accounts move from one database to another, of any two backends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

import typer

from cryptostore.errors import AccountElsewhere, ConfigurationError
from cryptostore.plugins import open_backend, open_existing
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.shell_commands import account_command
from cryptostore.records import Account
from cryptostore.store import copying
from cryptostore.store.backend import Backend
from cryptostore.store.copying import UNWATCHED, Beginning, Copied, How, Place, Watching, beginning_of
from cryptostore.store.ownership import Mode

from .databases import DeviceId, UserId, is_one_unreadable, open_for, owner_of, refuse_process_local, wanted_accounts
from .exits import ExitCode
from .in_use import Watch, refuse_used
from .output import AsJson, messages, print_json, print_line, rates, say
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, given_pickle_key, takes_pickle_keys
from .rows import kinds_document, print_wrong, row_document, unreadable_document
from .stats import count

Source = Annotated[str, typer.Argument(metavar="SRC", help="The database that has the accounts.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="The database that gets them; it may be new.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Take the source over first: its clients are fenced out.")]
LeaveSource = Annotated[bool, typer.Option("--leave-source", help="Make a second copy, and leave the source as it is.")]
EvenIfMoved = Annotated[
    bool,
    typer.Option(
        "--even-if-moved",
        help="Copy what accounts left whose new database is lost. Then run `cryptostore restored` on the copies.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be copied, and write nothing.")]

#: What a dry run says.
_PLANS: Final = {
    Beginning.NEW: "would be copied",
    Beginning.RESUMED: "would be gone on with, where an interrupted copy ended",
    Beginning.ANEW: "would be copied from the beginning: it was written to since an interrupted copy",
    Beginning.BACK: "would be brought back, in place of what it left there",
    Beginning.FINISHED: "would be completed, after an interruption in the last step",
    Beginning.DONE: "is moved already",
    Beginning.EMPTY: "has no keys yet, so there is nothing to copy",
}


class Ended(NamedTuple):
    """What became of one account, and how long that took."""

    account: Account
    copied: Copied
    seconds: float


@takes_pickle_keys
def copy(
    source: Source,
    destination: Destination,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    take_over: TakeOver = False,
    leave_source: LeaveSource = False,
    even_if_moved: EvenIfMoved = False,
    watch: Watch = 5.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Move accounts to another database, sealed as they are, and compare every row that was written.

    Stop their clients first: an account that is written to is refused. Afterwards it opens at the destination alone,
    with the same pickle key, and the source says where it went; delete it there once nothing is missed.

    When this is interrupted, run it again: it goes on where it was. Until an account is complete, the source has
    everything.

    Needs no pickle key; with one, every record is opened, too. The exit code is 1 where something differs or cannot be
    opened, or an account was left out because its row cannot be read.

    --leave-source makes a backup. Never run two clients with copies of one account.
    """
    for url in (source, destination):
        refuse_process_local(url)
    pickle_key = given_pickle_key(pickle_key_options)
    how = How(pickle_key=pickle_key, take_over=take_over, leave_source=leave_source, even_if_moved=even_if_moved)
    open_destination = open_existing if dry_run else open_backend
    with open_for("copy", source) as begins, open_destination(destination, owner=owner_of("copy")) as ends:
        places = Place(begins, shown_url(source)), Place(ends, shown_url(destination))
        begun = _unused(places, _chosen(begins, source, user_id, device_id), how, watch)
        is_one_left_out = is_one_unreadable(begins, user_id, device_id)
        if dry_run:
            _report_plan(places, begun, as_json=as_json)
        ended = [] if dry_run else [_copied(places, account, how) for account in begun]
    if not dry_run:
        _report(places, ended, is_opened=how.pickle_key is not None, as_json=as_json)
        _warn_of_old_keys(places[1], ended)
    if is_one_left_out or any(each.copied.different or each.copied.unreadable for each in ended):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _chosen(backend: Backend, url: str, user_id: str | None, device_id: str | None) -> list[Account]:
    accounts = wanted_accounts(backend, url, user_id, device_id)
    if not accounts:
        raise ConfigurationError(f"the database {shown_url(url)} holds no account; is it the right one?")
    return accounts


def _unused(
    places: tuple[Place, Place], accounts: Sequence[Account], how: How, watch: float
) -> dict[Account, Beginning]:
    """How each account would begin. Raises ConfigurationError for one in use, unless it is to be taken over."""
    source = places[0].backend
    seen = source.accounts()
    begun = _beginnings(places, accounts, how)
    if not how.take_over:
        to_copy = {each: seen[each] for each in seen if not begun.get(each, Beginning.DONE).is_end}
        refuse_used(source, to_copy, watch, "Nothing was copied: stop that program, or give --take-over")
    return begun


def _beginnings(places: tuple[Place, Place], accounts: Sequence[Account], how: How) -> dict[Account, Beginning]:
    """How each account would begin. Of several, those that are not at home in the source are left out and told."""
    begun: dict[Account, Beginning] = {}
    for account in accounts:
        try:
            begun[account] = beginning_of(*places, account, how)
        except AccountElsewhere as error:
            if len(accounts) == 1:
                raise
            say(f"left out: {error}")
    return begun


def _copied(places: tuple[Place, Place], account: Account, how: How) -> Ended:
    started = time.monotonic()
    try:
        with _progress(places[0].backend, account) as watching:
            copied = copying.copy(*places, account, how, watching)
    except BaseException:
        # Ctrl-C, too.
        say(f"the copy of {account} is not complete. Nothing is lost: run the same command again, and it goes on")
        raise
    return Ended(account, copied, time.monotonic() - started)


@contextmanager
def _progress(backend: Backend, account: Account) -> Iterator[Watching]:
    """What counts the rows on the terminal, if there is one."""
    console = messages()
    if not console.is_terminal:
        yield UNWATCHED
        return
    with backend.open_store(account, Mode.READ) as store:
        total = sum(1 for _ in store.stored_rows())
    with rates(console) as progress:
        tasks = [progress.add_task(f"{doing} {account}", total=total) for doing in ("copying", "comparing")]
        yield Watching(*(partial(progress.advance, task) for task in tasks))


def _report_plan(places: tuple[Place, Place], begun: Mapping[Account, Beginning], *, as_json: bool) -> None:
    stored = {account: count(places[0].backend, account) for account in begun}
    if as_json:
        documents = [
            {**_names(account), "beginning": begun[account], "rows": each.rows.total(), "bytes": each.size.total()}
            for account, each in stored.items()
        ]
        print_json({**_urls(places), "dry_run": True, "accounts": documents})
        return
    print_line(f"From {places[0].url} to {places[1].url}", style="bold")
    for account, each in stored.items():
        held = f"{each.rows.total():,} rows, {each.size.total():,} bytes"
        print_line(f"{account} {_PLANS[begun[account]]} ({held})")


def _report(places: tuple[Place, Place], ended: Sequence[Ended], *, is_opened: bool, as_json: bool) -> None:
    if as_json:
        documents = [_document(each, is_opened=is_opened) for each in ended]
        print_json({**_urls(places), "dry_run": False, "accounts": documents})
        return
    print_line(f"From {places[0].url} to {places[1].url}", style="bold")
    for account, copied, seconds in ended:
        print_line(f"{account} {_outcome(copied, seconds, is_opened=is_opened)}")
        print_wrong([*copied.different, *copied.unreadable])


def _warn_of_old_keys(destination: Place, ended: Sequence[Ended]) -> None:
    for account, copied, _ in ended:
        if copied.is_what_a_move_left and not (copied.beginning.is_end or copied.different):
            command, addition = account_command("restored", destination.url, account)
            say(
                f"{account} is as it was when it was moved. If its client ran since, others have seen newer keys: "
                f"before it starts, run `{command}`{addition}"
            )


def _outcome(copied: Copied, seconds: float, *, is_opened: bool) -> str:
    if copied.beginning.is_end:
        return _PLANS[copied.beginning]
    if copied.different and copied.is_source_marked:
        return (
            "is NOT copied: rows differ, and the source says already that it was moved. It has everything: delete "
            "nothing there. Delete the copy with `cryptostore delete`, and copy again with --even-if-moved"
        )
    if copied.different:
        return (
            "is NOT copied: rows differ. The source is as it was, and the copy is not to be used: delete it with "
            "`cryptostore delete`, and copy again"
        )
    rows = copied.rows.total()
    checked = "read back, compared and opened" if is_opened else "read back and compared"
    return f"is copied: {rows:,} rows, {copied.size:,} bytes, {checked}, in {seconds:.1f} s ({rows / seconds:,.0f}/s)"


def _document(ended: Ended, *, is_opened: bool) -> dict[str, Any]:
    account, copied, seconds = ended
    return {
        **_names(account),
        "beginning": copied.beginning,
        "complete": not copied.different,
        "source_is_marked": copied.is_source_marked,
        "kinds": kinds_document(copied.rows),
        "rows": copied.rows.total(),
        "bytes": copied.size,
        "opened": is_opened,
        "different": [row_document(*each) for each in copied.different],
        **unreadable_document(copied.unreadable),
        "seconds": round(seconds, 3),
    }


def _names(account: Account) -> dict[str, str]:
    return {"user_id": account.user_id, "device_id": account.device_id}


def _urls(places: tuple[Place, Place]) -> dict[str, str]:
    return {"source": places[0].url, "destination": places[1].url}
