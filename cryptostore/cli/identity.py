"""`cryptostore identity`: who an account is to others, and what is needed to restore it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from cryptostore.errors import UnreadableRecord
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account, KeyBackup
from cryptostore.store.backend import Backend
from cryptostore.store.ownership import Mode
from cryptostore.store.verifying import UnreadableRow

from .databases import (
    AtHome,
    DatabaseUrl,
    DeviceId,
    UserId,
    accounts_to_show,
    at_home,
    is_one_unreadable,
    names_of,
    open_for,
)
from .exits import ExitCode
from .output import AsJson, print_json, print_line, shown_time
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys
from .recovery_key import recovery_key
from .rows import row_name, unreadable_document
from .stored_identity import StoredIdentity, StoredStorageKey


class _WithDefault(TyperGroup):
    """A group whose command `show` is meant where no other is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Every URL has a colon; what has none is a command, also a mistyped one.
        is_named = bool(args) and (args[0] in ctx.help_option_names or not (":" in args[0] or args[0].startswith("-")))
        return super().parse_args(ctx, args if is_named else ["show", *args])


#: `cryptostore identity [URL]`, and its other commands.
identity = typer.Typer(
    cls=_WithDefault,
    help="Show the cross-signing identities, recovery keys and key backups of accounts. `identity URL` is `identity "
    "show URL`.",
    add_completion=False,
)


@identity.command()
@takes_pickle_keys
def show(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Show each account's public keys, whether its device is signed, its recovery key's state and its key backup.

    This is what the database knows since the client last ran: no homeserver is asked. No secret is shown, nothing is
    taken over, and nothing is changed. Accounts that were moved elsewhere are left out. All accounts that are chosen
    must have the same pickle key.
    """
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("identity", url) as backend:
        is_one_left_out = is_one_unreadable(backend, user_id, device_id)
        chosen = at_home(backend, accounts_to_show(backend, url, user_id, device_id))
        found = _read_all(backend, chosen, pickle_key)
    _report(url, chosen, found, as_json=as_json)
    if is_one_left_out or chosen.is_one_missing or any(each.unreadable for each in found.values()):
        raise typer.Exit(ExitCode.CHECK_FAILED)


identity.command("recovery-key")(recovery_key)


def _read_all(backend: Backend, chosen: AtHome, pickle_key: str) -> dict[Account, StoredIdentity]:
    found: dict[Account, StoredIdentity] = {}
    for account in chosen.accounts:
        try:
            with backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store:
                found[account] = StoredIdentity.read(store)
        except UnreadableRecord as damage:
            chosen.leave_out(account, damage)
    return found


def _report(url: str, chosen: AtHome, found: Mapping[Account, StoredIdentity], *, as_json: bool) -> None:
    if as_json:
        documents = [
            {**names_of(account), **identity_document(stored), **unreadable_document(stored.unreadable)}
            for account, stored in found.items()
        ]
        print_json({"database": shown_url(url), "accounts": documents, "left_out": chosen.left_out()})
        return
    print_line(f"Identities in {shown_url(url)}", style="bold")
    for account, stored in found.items():
        # Lines, not columns: keys are as long as half a terminal is wide.
        print_line(str(account))
        for name, text in (*identity_lines(stored), *unreadable_lines(stored.unreadable)):
            print_line(f"  {name:<13} {text}")


def identity_lines(stored: StoredIdentity) -> Iterator[tuple[str, str]]:
    """For people: what each line is about, and what it says."""
    yield "device", stored.signing_key or ("not known" if stored.is_device_lost else "no keys yet")
    yield "signed", _signed(stored)
    keys = stored.keys
    if keys is not None:
        yield "master", keys.master_key
        yield "self-signing", keys.self_signing_key
        yield "user-signing", keys.user_signing_key or "not known"
    yield "private keys", _seeds(stored)
    yield "recovery key", _recovery_key(stored.storage_key)
    yield "backup", _backup(stored)
    if stored.backup is not None:
        yield "waiting", _waiting(stored.sessions_waiting, stored.backup)


def unreadable_lines(unreadable: Iterable[UnreadableRow]) -> Iterator[tuple[str, str]]:
    """For people: what cannot be read, and why."""
    for key, reason in unreadable:
        yield "unreadable", f"{row_name(key)}: {reason}"


def _signed(stored: StoredIdentity) -> str:
    if stored.keys is None:
        return "no: no identity is known"
    if stored.is_changed:
        return f"{_yes(stored.is_signed)}; another identity was pinned"
    return _yes(stored.is_signed)


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def _seeds(stored: StoredIdentity) -> str:
    if stored.seeds_match:
        return "here"
    return "here, but of another identity" if stored.has_seeds else "not here"


def _recovery_key(storage_key: StoredStorageKey | None) -> str:
    if storage_key is None:
        return "not here"
    if storage_key.shown_at is None:
        return "not shown yet: cryptostore identity recovery-key"
    return f"known to a person since {shown_time(storage_key.shown_at)}"


def _backup(stored: StoredIdentity) -> str:
    if stored.backup is None:
        return "none is known"
    return f"version {stored.backup.version}, its key is {'here' if stored.has_backup_key else 'not here'}"


def _waiting(number: int, backup: KeyBackup) -> str:
    sessions = f"{number:,} session{'s' * (number != 1)}"
    return sessions if backup.is_walked else f"{sessions}, and older ones that were not looked at yet"


def identity_document(stored: StoredIdentity) -> dict[str, Any]:
    """For JSON."""
    keys, storage_key, backup = stored.keys, stored.storage_key, stored.backup
    return {
        "signing_key": stored.signing_key,
        "signed": stored.is_signed,
        "identity": keys
        and {
            "master_key": keys.master_key,
            "self_signing_key": keys.self_signing_key,
            "user_signing_key": keys.user_signing_key or None,
            "pinned_master_key": keys.pinned_master_key,
        },
        "private_keys": stored.seeds_match,
        "recovery_key": storage_key
        and {
            "key_id": storage_key.key_id,
            "made_at": storage_key.made_at.isoformat(),
            "shown_at": storage_key.shown_at and storage_key.shown_at.isoformat(),
        },
        "backup": backup
        and {
            "version": backup.version,
            "public_key": backup.public_key,
            "private_key": stored.has_backup_key,
            "all_sessions_seen": backup.is_walked,
        },
        # Without a backup, nothing is noted as waiting for one.
        "sessions_waiting": backup and stored.sessions_waiting,
    }
