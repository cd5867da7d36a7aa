"""`cryptostore restored`: an account whose backup was put back is made safe."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Final

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.ownership import Mode
from cryptostore.store.restoring import mark_restored

from .databases import DatabaseUrl, DeviceId, UserId, olm_account_of, open_for, the_account
from .in_use import EvenIfUsed, Watch, owner_seen, refuse_used
from .output import AsJson, ask_first, counting, print_json, print_line
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys

#: What is to be done after it.
START_THE_CLIENT: Final = "Start ProductionMatrixClient: it does the rest, and logs when that is done."

#: What is shown of each kind of record that is touched.
_LINES: Final = {
    "outbound_group_session": "Megolm sessions that sent into rooms are dropped",
    "olm_session": "Olm sessions decrypt only from now on",
    "fallback_key": "fallback key will be replaced",
}


@takes_pickle_keys
def restored(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    even_if_used: EvenIfUsed = False,
    watch: Watch = 5.0,
    as_json: AsJson = False,
) -> None:
    """Make an account safe after a backup of it, or of its database, was put back.

    Other devices have seen more than what a backup knows: without this, keys would be used twice, which gives something
    away of messages, or leaves them unreadable. What is stored stops encrypting now. At its next start,
    ProductionMatrixClient replaces the keys that the homeserver hands out, begins new sessions with other devices, and
    reads the room keys that came since out of the key backup.

    What cannot be brought back: messages that are on their way, encrypted for keys that are lost; room keys that came
    since and are in no key backup; and whom you verified or blocked since. Decide that again.

    Stop the account's client first: the account is taken over. When this is interrupted, no client opens the account
    before it was run again; running it again does no harm.
    """
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("restored", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account is made safe at a time")
        seen = owner_seen(backend, account)
        done = _marked(backend, account, pickle_key, dry_run=True)
        if not dry_run:
            if not yes:
                ask_first(_question(url, account, done), "to go on", "nothing was changed")
            if not even_if_used:
                refuse_used(backend, seen, watch, "Nothing was changed: stop that program, or give --even-if-used")
            done = _marked(backend, account, pickle_key, dry_run=False)
    _report(url, account, done, dry_run=dry_run, as_json=as_json)


def _marked(backend: Backend, account: Account, pickle_key: str, *, dry_run: bool) -> Counter[str]:
    mode, doing = (Mode.READ, "counting") if dry_run else (Mode.OWN, "changing")
    with backend.open_store(account, mode, pickle_key=pickle_key) as store, counting(doing) as advance:
        _check(store)
        return mark_restored(store, dry_run=dry_run, advance=advance)


def _check(store: CryptoStore) -> None:
    if olm_account_of(store) is None:
        raise ConfigurationError(f"{store.account} has no keys yet, so there is nothing that a backup could be behind")


def _question(url: str, account: Account, done: Counter[str]) -> str:
    sessions = f"{done['outbound_group_session']:,} Megolm and {done['olm_session']:,} Olm sessions"
    return (
        f"Was a backup of {account} put back in {shown_url(url)}? {sessions} will encrypt nothing more, and messages "
        "on their way that only lost keys open cannot be read. Go on"
    )


def _report(url: str, account: Account, done: Counter[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        names = {"database": shown_url(url), "user_id": account.user_id, "device_id": account.device_id}
        print_json({**names, "dry_run": dry_run, "changed": dict(done)})
        return
    print_line(f"{'would be made safe' if dry_run else 'made safe'}: {account} in {shown_url(url)}", style="bold")
    print_changes(done)
    if not dry_run:
        print_line(START_THE_CLIENT)


def print_changes(done: Counter[str]) -> None:
    """For people: how many records of each kind encrypt nothing more."""
    for kind, words in _LINES.items():
        print_line(f"  {done[kind]:>9,}  {words}")
