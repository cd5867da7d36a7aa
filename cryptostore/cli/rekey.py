"""`cryptostore rekey`: another pickle key for keys that are in a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store import rekeying
from cryptostore.store.backend import Backend
from cryptostore.store.marks import elsewhere
from cryptostore.store.rekeying import Rekeyed

from .databases import (
    AtHome,
    DatabaseUrl,
    DeviceId,
    UserId,
    at_home,
    is_one_unreadable,
    mark_of,
    open_for,
    refuse_process_local,
    wanted_accounts,
)
from .exits import ExitCode
from .output import AsJson, counter, messages, print_json, print_table, say
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, new_pickle_key, takes_pickle_keys
from .rows import kind_name


@takes_pickle_keys
def rekey(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    new_pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    wrap_only: Annotated[
        bool,
        typer.Option("--wrap-only", help="Change the pickle key in milliseconds, and leave the records as they are."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Change the pickle key of accounts, and seal their records again with a new data key.

    Stop their clients first: each account is taken over. Start them again with the new pickle key.

    If one of the accounts has another pickle key, or is damaged, none is touched. Accounts without keys are left out.
    When this is interrupted, every account still opens with one of the two pickle keys; run it again to complete it.
    Records that cannot be opened are left as they are, and the exit code is 1. It is 1, too, where an account is not
    complete here, because a copy of it was interrupted: what comes later needs its old pickle key.

    --wrap-only does not protect from somebody who had the old pickle key and a copy of the database.
    """
    refuse_process_local(url)
    new = new_pickle_key(new_pickle_key_options)
    old = current_pickle_key(pickle_key_options)
    if old == new and wrap_only:
        raise ConfigurationError("with --wrap-only, the new pickle key must not be the old one; choose another")
    with open_for("rekey", url) as backend:
        chosen = _chosen(backend, url, user_id, device_id)
        is_one_left_out = is_one_unreadable(backend, user_id, device_id)
        done = _rekey_all(backend, chosen.accounts, old, new, wrap_only=wrap_only)
    _report(url, chosen, done, as_json=as_json)
    if is_one_left_out or chosen.is_one_missing or any(each.unreadable for each in done.values()):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _chosen(backend: Backend, url: str, user_id: str | None, device_id: str | None) -> AtHome:
    wanted = wanted_accounts(backend, url, user_id, device_id)
    for account in wanted:
        # Raises where it is damaged: then no account is touched.
        mark_of(backend, account)
    found = at_home(backend, wanted)
    chosen = [each for each in found.accounts if rekeying.has_rows(backend, each)]
    for account in found.accounts:
        if account not in chosen:
            say(f"left out {account}, which has no keys")
    if not chosen and found.marks:
        raise elsewhere(*next(iter(found.marks.items())))
    if not chosen:
        names = ", ".join(map(str, backend.accounts())) or "none"
        raise ConfigurationError(f"{shown_url(url)} has no such account with keys; it has: {names}")
    return found._replace(accounts=chosen)


def _rekey_all(
    backend: Backend, accounts: list[Account], old: str, new: str, *, wrap_only: bool
) -> Mapping[Account, Rekeyed]:
    for account in accounts:
        rekeying.check_pickle_keys(backend, account, old, new)
    done: dict[Account, Rekeyed] = {}
    with _progress() as advancing:
        for account in accounts:
            try:
                done[account] = rekeying.rekey(
                    backend, account, old, new, wrap_only=wrap_only, advance=advancing(account)
                )
            except BaseException:
                # Ctrl-C, too: what was done before needs the new pickle key.
                _show_what_is_done(done)
                raise
    return done


@contextmanager
def _progress() -> Iterator[Callable[[Account], Callable[[], None]]]:
    """For each account, what counts its rows on the terminal, if there is one."""
    console = messages()
    if not console.is_terminal:
        # Some releases of rich write an empty line even for a progress bar that is disabled.
        yield lambda _account: lambda: None
        return
    with counter(console) as progress:
        task = progress.add_task("", total=None)

        def advancing(account: Account) -> Callable[[], None]:
            progress.reset(task, description=f"sealing the records of {account}")
            return partial(progress.advance, task)

        yield advancing


def _show_what_is_done(done: Iterable[Account]) -> None:
    """The accounts need the new pickle key from now on, whatever becomes of the rest."""
    names = ", ".join(map(str, done)) or "no account"
    say(
        f"interrupted: {names} is complete with the new pickle key, and the next one may need it already: keep both, "
        "and run this again to complete the rest"
    )


def _report(url: str, chosen: AtHome, done: Mapping[Account, Rekeyed], *, as_json: bool) -> None:
    if as_json:
        documents = [_document(*each) for each in done.items()]
        print_json({"database": shown_url(url), "accounts": documents, "left_out": chosen.left_out()})
        return
    rows = [
        (str(account), "nothing" if kind is None else kind_name(kind), str(sealed), str(unreadable))
        for account, rekeyed in done.items()
        for kind, sealed, unreadable in _counts(rekeyed)
    ]
    print_table(f"New pickle key in {shown_url(url)}", ["account", "kind", "sealed again", "unreadable"], rows)


def _counts(rekeyed: Rekeyed) -> Iterator[tuple[int | None, int, int]]:
    """How many records of each kind were sealed again, and how many could not be read."""
    kinds = sorted(rekeyed.resealed | rekeyed.unreadable)
    yield from ((kind, rekeyed.resealed[kind], rekeyed.unreadable[kind]) for kind in kinds)
    if not kinds:
        yield None, 0, 0


def _document(account: Account, rekeyed: Rekeyed) -> dict[str, Any]:
    return {
        "user_id": account.user_id,
        "device_id": account.device_id,
        "resealed": {kind_name(kind): count for kind, count in sorted(rekeyed.resealed.items())},
        "unreadable": {kind_name(kind): count for kind, count in sorted(rekeyed.unreadable.items())},
    }
