"""`cryptostore import-keys`: the room keys of a file that Element or another client exported."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.observers import notify
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.ownership import Mode
from cryptostore.trust.key_file import KeyFile

from .databases import DatabaseUrl, DeviceId, UserId, olm_account_of, open_for, owned_url, owner_of, the_account
from .exits import ExitCode
from .in_use import EvenIfUsed, Watch, owner_seen, refuse_used
from .output import AsJson, counting, print_json, print_line
from .passphrases import AskForPassphrase, PassphraseFile, PassphraseVariable, given_passphrase
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys

if TYPE_CHECKING:
    from nio.crypto import InboundGroupSession as LiveSession

    from cryptostore.nio import NioStore

#: Keys that are made durable at once.
_BATCH: Final = 1_000
#: Of how many entries that are of no use the ids are kept, and how many of them people see.
_MOST_NAMED: Final = 10_000
_SHOWN: Final = 20


class Skipped(NamedTuple):
    """An entry of a file that is of no use: which one, from 1 on, whose it is, and why."""

    number: int
    room_id: str
    session_id: str
    reason: str


@dataclass
class Imported:
    """What became of the entries of a file."""

    total: int = 0
    #: New, or reading more than what was stored.
    taken_in: int = 0
    skipped: int = 0
    named: list[Skipped] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


@takes_pickle_keys
def import_keys(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file of exported room keys.")],
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    passphrase_env: PassphraseVariable = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskForPassphrase = False,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    even_if_used: EvenIfUsed = False,
    watch: Watch = 5.0,
    as_json: AsJson = False,
) -> None:
    """Take the room keys of a file that Element or another client exported into an account.

    Stop the account's client first: the account is taken over, and is left alone if somebody writes to it. A program
    can import them itself while it runs, with `client.import_keys`.

    Of two keys of one session the better one stays. Entries that are of no use are listed, and the exit code is 1; the
    rest is imported. The command may be repeated, also after an interruption.
    """
    passphrase = given_passphrase(passphrase_env, passphrase_file, ask=ask_passphrase)
    pickle_key = current_pickle_key(pickle_key_options)
    keys = KeyFile(file, passphrase)
    with open_for("import-keys", url) as backend:
        account = the_account(backend, url, user_id, device_id, "keys are imported into one account at a time")
        seen = owner_seen(backend, account)
        _check_account(backend, account, pickle_key)
        if not even_if_used:
            refuse_used(backend, seen, watch, "Nothing was imported: stop that program, or give --even-if-used")
    imported = _import(keys, account, owned_url("import-keys", url), pickle_key)
    facts = {"records": imported.taken_in, "way": "import-keys", "source": str(file)}
    notify("cryptostore_keys_imported", account=account, owner=owner_of("import-keys"), **facts)
    _report(url, account, file, imported, as_json=as_json)
    if imported.skipped:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _check_account(backend: Backend, account: Account, pickle_key: str) -> None:
    with backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store:
        if olm_account_of(store) is None:
            raise ConfigurationError(
                f"{account} has no identity yet: start its client once, so that it logs in, and import the keys then"
            )


def _import(keys: KeyFile, account: Account, url: str, pickle_key: str) -> Imported:
    # nio takes half a second to import; the other commands do without it.
    from cryptostore.nio import NioStore

    imported, items = Imported(), keys.items()
    # Bound, because a URL as a program's path draws warnings.
    opened = NioStore.at(url)(account.user_id, account.device_id, "", pickle_key)
    with closing(opened) as store, counting("importing") as advance:
        while piece := list(islice(items, _BATCH)):
            sessions = [session for item in piece if (session := _session_of(item, imported)) is not None]
            _take_in(store, sessions, imported)
            advance(len(piece))
    return imported


def _take_in(store: NioStore, sessions: list[LiveSession], imported: Imported) -> None:
    known = store.load_inbound_group_sessions()
    # Held until all are compared, so that they are looked up once.
    stored = known.prefetch([(each.room_id, each.id, each.sender_key) for each in sessions])
    with store.batch():
        for session in sessions:
            if known.add(session):
                store.save_inbound_group_session(session)
                imported.taken_in += 1
    del stored


def _session_of(item: Any, imported: Imported) -> LiveSession | None:
    from cryptostore.nio.exported_keys import exported_session

    imported.total += 1
    try:
        return exported_session(item)
    except ValueError as error:
        _skip(imported, item, str(error))
        return None


def _skip(imported: Imported, item: Any, reason: str) -> None:
    imported.skipped += 1
    imported.reasons[reason] += 1
    if len(imported.named) < _MOST_NAMED:
        ids = item if isinstance(item, dict) else {}
        room_id, session_id = (str(ids.get(name, "")) for name in ("room_id", "session_id"))
        imported.named.append(Skipped(imported.total, room_id[:255], session_id[:255], reason))


def _report(url: str, account: Account, file: Path, imported: Imported, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "database": shown_url(url),
                "user_id": account.user_id,
                "device_id": account.device_id,
                "file": str(file),
                "total": imported.total,
                "taken_in": imported.taken_in,
                "skipped": imported.skipped,
                "entries": [each._asdict() for each in imported.named],
            }
        )
        return
    print_line(f"imported {file} into {account}", style="bold")
    print_line(f"  in the file    {imported.total:,}")
    print_line(f"  new or better  {imported.taken_in:,}")
    print_line(f"  of no use      {imported.skipped:,}")
    for number, room_id, session_id, reason in imported.named[:_SHOWN]:
        print_line(f"- entry {number:,} {room_id} {session_id}: {reason}")
    if imported.skipped > _SHOWN:
        print_line(f"- and {imported.skipped - _SHOWN:,} more (--json names them)")
