"""What there is to say of one account, from its records, in READ mode: nothing is taken over or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from cryptostore.cli.databases import mark_of, olm_account_of
from cryptostore.cli.output import shown_time
from cryptostore.cli.rows import row_name
from cryptostore.cli.stored_identity import StoredIdentity
from cryptostore.errors import AccountElsewhere, CryptoStoreError
from cryptostore.plugins.findings import Finding, Level
from cryptostore.plugins.shell_commands import account_command
from cryptostore.records import Account, FallbackKey, RestoredAccount, SyncToken
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.marks import Whereabouts
from cryptostore.store.owners import is_gone
from cryptostore.store.ownership import Mode, Ownership

from .rows_read import look_at_rows

#: How long after a take-over somebody may still wonder about it.
_LATELY: Final = timedelta(hours=1)
#: How many sessions that wait for the backup are counted, and how many may wait while a client is at work.
_MOST_WAITING: Final = 1_000
_MAY_WAIT: Final = 100


def look_at_account(
    backend: Backend, account: Account, owner: Ownership, pickle_key: str | None, *, all_rows: bool
) -> Iterator[Finding]:
    """Each finding, as far as the account can be opened. What cannot be looked at is a finding as well."""
    yield _owner(owner)
    if not owner.sequence:
        yield _never_used(backend.url, account)
        return
    if pickle_key is None:
        yield Finding("ring", Level.PROBLEM, "there is no pickle key to open it with", "see the pickle key above")
        return
    try:
        store = backend.open_store(account, Mode.READ, pickle_key=pickle_key)
    except AccountElsewhere as error:
        yield _elsewhere(backend, account, error)
        return
    except CryptoStoreError as error:
        yield Finding.of_error("ring", error)
        return
    with store:
        yield Finding("home", Level.OK, "at home in this database")
        yield Finding("ring", Level.OK, "the pickle key opens it")
        yield from _told("records", partial(look_at_rows, backend, account, store, pickle_key, all_rows=all_rows))
        yield from _told("restored", partial(_put_back, backend.url, store))
        yield from _told("login", partial(_login, backend.url, store))
        yield from _told("identity", partial(_identity, store))
        yield from _told("fallback key", partial(_fallback_key, store))


def look_again(owner: Ownership, now: Ownership | None) -> Finding | None:
    """What has become of the account while the doctor looked, if anything did."""
    if now is None:
        return Finding("owner", Level.WARNING, "it was deleted while the doctor looked", "see who did that")
    if (now.epoch, now.incarnation) == (owner.epoch, owner.incarnation):
        return None
    times = now.epoch - owner.epoch
    seen = (
        f"it was taken over {'once' if times == 1 else f'{times:,} times'} while the doctor looked, now by {now.owner}"
    )
    return Finding("owner", Level.WARNING, seen, "an account has one client: stop all others that start it")


def _told(check: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except CryptoStoreError as error:
        yield Finding.of_error(check, error)


def _owner(owner: Ownership) -> Finding:
    ended = ", which has ended" if is_gone(owner.owner) else ""
    seen = f"{owner.owner}{ended}, since {shown_time(owner.since)}"
    if owner.epoch > 1 and datetime.now(UTC) - owner.since < _LATELY:
        remedy = "if you started no client then, two of them are at work on it: stop one; --watch 60 shows it"
        return Finding("owner", Level.NOTE, f"fenced lately: {seen}, take-over number {owner.epoch:,}", remedy)
    return Finding("owner", Level.OK, f"{seen}, take-over number {owner.epoch:,}")


def _never_used(url: str, account: Account) -> Finding:
    seen = "no client has ever logged in with it: nothing is stored"
    return Finding("login", Level.WARNING, seen, *_start_or_delete(url, account))


def _start_or_delete(url: str, account: Account) -> tuple[str, tuple[str, ...]]:
    command, addition = account_command("delete", url, account)
    return f"start its client, or, if there is none{addition}", (command,)


def _elsewhere(backend: Backend, account: Account, error: AccountElsewhere) -> Finding:
    try:
        mark = mark_of(backend, account)
    except CryptoStoreError as damage:
        return Finding.of_error("home", damage)
    level = Level.NOTE if mark is not None and mark.whereabouts is Whereabouts.MOVED else Level.PROBLEM
    seen, _, remedy = str(error).partition(": ")
    return Finding("home", level, seen, remedy)


def _login(url: str, store: CryptoStore) -> Iterator[Finding]:
    olm_account = olm_account_of(store)
    if olm_account is None:
        yield Finding("login", Level.WARNING, "no client has logged in with it", *_start_or_delete(url, store.account))
    elif not olm_account.shared:
        remedy = "start its client: nobody can send it keys before"
        yield Finding("login", Level.WARNING, "its device's keys were never uploaded", remedy)
    elif not store.get(SyncToken, [()]):
        yield Finding("login", Level.NOTE, "a client has logged in, and never synced", "let it sync")
    else:
        yield Finding("login", Level.OK, "a client has logged in and synced")


def _put_back(url: str, store: CryptoStore) -> Iterator[Finding]:
    restored = store.get(RestoredAccount, [()]).get(())
    if restored is None:
        yield Finding("restored", Level.OK, "no backup of it was put back")
        return
    seen = f"a backup of it was put back, which was noted on {shown_time(restored.restored_at)}"
    if restored.is_disarmed:
        remedy = "start its client, which does the rest with the homeserver"
        yield Finding("restored", Level.NOTE, f"{seen}; what is stored is safe", remedy)
    else:
        command, addition = account_command("restored", url, store.account)
        remedy = f"no client opens it before it is safe; run this again{addition}"
        yield Finding("restored", Level.PROBLEM, f"{seen}, and it was not made safe", remedy, (command,))


def _identity(store: CryptoStore) -> Iterator[Finding]:
    # Raises where it is lost or damaged: there is no device then that could be signed.
    olm_account_of(store)
    stored = StoredIdentity.read(store, _MOST_WAITING)
    for key, reason in stored.unreadable:
        seen = f"cannot be read: {row_name(key)}: {reason}"
        yield Finding("identity", Level.WARNING, seen, "restore it with `login_or_restore`")
    yield _signature(stored)
    yield _backup(stored)


def _signature(stored: StoredIdentity) -> Finding:
    unsigned = "Element neither sends to such a device nor reads from it"
    if stored.keys is None:
        remedy = f"{unsigned}; `login_or_restore` with a password makes one, with recovery_key it takes the user's"
        return Finding("identity", Level.WARNING, "no cross-signing identity is known", remedy)
    if stored.is_changed:
        remedy = "if it was not you who replaced it, somebody else did; `cryptostore identity` shows it"
        return Finding("identity", Level.PROBLEM, "the identity is another than the one that was pinned", remedy)
    if not stored.is_signed:
        remedy = f"{unsigned}; give the recovery key to `login_or_restore`"
        return Finding("identity", Level.WARNING, "the identity has not signed this device", remedy)
    keys = "here" if stored.seeds_match else "not here"
    return Finding("identity", Level.OK, f"has signed this device; its private keys are {keys}")


def _backup(stored: StoredIdentity) -> Finding:
    if stored.backup is None:
        remedy = "with one, a new device reads the history after the database was lost; `login_or_restore` makes it"
        return Finding("backup", Level.NOTE, "no key backup on the homeserver is known", remedy)
    more = " or more" if stored.sessions_waiting == _MOST_WAITING else ""
    seen = f"version {stored.backup.version}; {stored.sessions_waiting:,}{more} sessions wait for it"
    if not stored.backup.is_walked:
        seen += ", and older ones were not looked at yet"
    if stored.sessions_waiting > _MAY_WAIT or not stored.backup.is_walked:
        remedy = "let the client run, or `await client.back_up()`; `client.key_backup.problem` says what holds it up"
        return Finding("backup", Level.WARNING, f"behind: {seen}", remedy)
    return Finding("backup", Level.OK, seen)


def _fallback_key(store: CryptoStore) -> Iterator[Finding]:
    keys = store.select(FallbackKey, [()])
    for reason in keys.unreadable.values():
        yield Finding(
            "fallback key", Level.WARNING, f"cannot be read: {reason}", "start the client, which makes another"
        )
    if keys[()] and all(key.confirmed for key in keys[()]):
        yield Finding("fallback key", Level.OK, f"made {shown_time(max(key.made_at for key in keys[()]))}")
    elif keys[()]:
        remedy = "let the client sync: it is offered until the homeserver has it"
        yield Finding("fallback key", Level.NOTE, "the homeserver has not confirmed it", remedy)
    elif not keys.unreadable:
        remedy = (
            "when its one-time keys are used up while it is away, nobody can send it room keys: ProductionMatrixClient "
            "makes one at its next sync"
        )
        yield Finding("fallback key", Level.WARNING, "there is none", remedy)
