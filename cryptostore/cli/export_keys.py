"""`cryptostore export-keys`: an account's room keys in the file that Element and other clients read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.new_files import new_private_file
from cryptostore.records import Account, InboundGroupSession, Key
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.ownership import Mode
from cryptostore.trust.key_file import KeyFileWriter

from .databases import DatabaseUrl, DeviceId, UserId, open_for, the_account
from .exits import ExitCode
from .output import AsJson, if_interrupted, messages, print_json, print_line, rates, say
from .passphrases import AskForPassphrase, PassphraseFile, PassphraseVariable, given_passphrase
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys


class Exported(NamedTuple):
    """How many room keys were written, how many cannot be read, and the rooms that were asked for and have none."""

    keys: int
    unreadable: int
    unknown_rooms: Sequence[str]


@takes_pickle_keys
def export_keys(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file.")],
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    room: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this room's keys; may be repeated.")
    ] = None,
    passphrase_env: PassphraseVariable = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskForPassphrase = False,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Write an account's room keys to a file that Element and other clients import.

    Whoever has the file and its passphrase can read every message of these rooms. Takes nothing over. The file is there
    whole, or not at all. Room keys that cannot be read are left out, and the exit code is 1, as it is where a room has
    none. Where all rooms have none, no file is made.
    """
    passphrase = given_passphrase(passphrase_env, passphrase_file, ask=ask_passphrase, twice=True)
    pickle_key = current_pickle_key(pickle_key_options)
    prefixes: list[Key] = [(each,) for each in dict.fromkeys(room)] if room else [()]
    with open_for("export-keys", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account's keys are exported at a time")
        with (
            if_interrupted("no room keys were exported, and nothing was changed: run the same command again"),
            backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store,
        ):
            exported = _export(store, prefixes, file, passphrase)
        is_made = len(exported.unknown_rooms) < len(prefixes)
        if is_made:
            backend.notify(
                "cryptostore_keys_exported",
                account=account,
                records=exported.keys,
                way="export-keys",
                destination=str(file),
                owner=backend.owner,
            )
    _report(url, account, file if is_made else None, exported, as_json=as_json)
    if exported.unreadable or exported.unknown_rooms:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _export(store: CryptoStore, prefixes: Sequence[Key], file: Path, passphrase: str) -> Exported:
    # First, because a key that comes meanwhile is no unreadable one.
    counts = {prefix: sum(1 for _ in store.keys(InboundGroupSession, prefix)) for prefix in prefixes}
    unknown = [str(prefix[0]) for prefix, count in counts.items() if prefix and not count]
    for room in unknown:
        say(f"{store.account} has no key of the room {room}; is it the right one?")
    if len(unknown) == len(prefixes):
        return Exported(0, 0, unknown)
    stored = sum(counts.values())
    with new_private_file(file, "exported room keys") as opened, _progress(stored) as advance:
        sessions = chain.from_iterable(store.scan(InboundGroupSession, prefix) for prefix in prefixes)
        written = KeyFileWriter(opened, passphrase).write_all(_counted(sessions, advance))
    return Exported(written, max(0, stored - written), unknown)


def _counted(sessions: Iterable[InboundGroupSession], advance: Callable[[], None]) -> Iterator[InboundGroupSession]:
    for session in sessions:
        yield session
        advance()


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    console = messages()
    if not console.is_terminal:
        yield lambda: None
        return
    with rates(console) as progress:
        yield partial(progress.advance, progress.add_task("exporting", total=total))


def _report(url: str, account: Account, file: Path | None, exported: Exported, *, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"user_id": account.user_id, "device_id": account.device_id}
        document |= {"file": file and str(file), "keys": exported.keys, "unknown_rooms": exported.unknown_rooms}
        unreadable = {InboundGroupSession.kind_name: exported.unreadable} if exported.unreadable else {}
        print_json({"database": shown_url(url), **document, "unreadable": unreadable})
        return
    if file is None:
        print_line("exported no room keys, and made no file")
        return
    print_line(f"exported {exported.keys:,} room keys of {account} to {file}")
    if exported.unreadable:
        print_line(f"{exported.unreadable:,} cannot be read, and were left out; `cryptostore verify` lists them")
