"""`cryptostore identity recovery-key`: the key that opens an account's secret storage, for a person to keep."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from cryptostore.errors import ConfigurationError, CryptoStoreError
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.new_files import write_private
from cryptostore.records import Account, Changes, Secret
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.owners import is_gone
from cryptostore.store.ownership import Mode
from cryptostore.trust import recovery_key as recovery_keys

from .databases import DatabaseUrl, DeviceId, UserId, open_for, the_account
from .exits import exit_code_of
from .output import AsJson, flush_output, print_error, print_json, print_line, say, shown_time
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys
from .stored_identity import newest_storage_key

_NAME: Final = "recovery key"


@takes_pickle_keys
def recovery_key(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write it to this new file, which only its owner may read.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Show it although it was shown before.")] = False,
    even_if_used: Annotated[
        bool,
        typer.Option("--even-if-used", help="Note that it was shown also under a running client, which then ends."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show an account's recovery key, once; keep it where you keep passwords.

    It opens the account's secret storage: with it, a new device of the account is signed and reads the backup when the
    database is lost. Whoever has it can do the same.

    That it was shown is noted in the database, for which the account is taken over. Where its client may be running it
    is shown and not noted, unless you give --even-if-used.
    """
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("identity recovery-key", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one recovery key is shown at a time")
        with backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store:
            secret = _newest(store)
            key = store.secrets.open(secret.name, secret.sealed)
        if secret.shown and not again:
            since = shown_time(secret.shown_at)
            raise ConfigurationError(
                f"the recovery key of {account} is known to a person since {since}; --again shows it"
            )
        _show(url, account, recovery_keys.encode(key), secret, file, as_json=as_json)
        backend.notify(
            "cryptostore_secret_exported",
            account=account,
            secret_name=_NAME,
            way="identity recovery-key",
            destination="standard output" if file is None else str(file),
            owner=backend.owner,
        )
        if not secret.shown:
            _note(backend, account, pickle_key, secret, even_if_used=even_if_used)


def _newest(store: CryptoStore) -> Secret:
    found = store.select(Secret, [()])
    newest = newest_storage_key({record.name: record for record in found[()]})
    if newest is None:
        unreadable = "" if not found.unreadable else " that can be read; `cryptostore identity` names what cannot"
        raise ConfigurationError(
            f"{store.account} has no recovery key here{unreadable}. It gets one when its client makes an identity or "
            "opens the account's secret storage: see `login_or_restore`. If another client made the identity, that one "
            "showed the recovery key"
        )
    return newest


def _show(url: str, account: Account, text: str, secret: Secret, file: Path | None, *, as_json: bool) -> None:
    if file is not None:
        write_private(file, text, "the recovery key")
        say(f"wrote the recovery key of {account} to {file}")
    if as_json:
        print_json(
            {
                "database": shown_url(url),
                "user_id": account.user_id,
                "device_id": account.device_id,
                "shown_at": secret.shown_at.isoformat() if secret.shown else None,
                **({"recovery_key": text} if file is None else {"file": str(file)}),
            }
        )
    elif file is None:
        say(f"The recovery key of {account}. Keep it where you keep passwords, not beside the database:")
        print_line(text)
    # Not noted as shown before it is.
    flush_output()


def _note(backend: Backend, account: Account, pickle_key: str, secret: Secret, *, even_if_used: bool) -> None:
    """Note that it was shown, unless its client may be running. What keeps it from being noted ends the command."""
    try:
        owner = backend.accounts()[account].owner
        if not even_if_used and not is_gone(owner):
            say(
                f"that it was shown is not noted, because the account's owner may be running ({owner}): it is shown "
                "again next time. Stop that program, or give --even-if-used"
            )
            return
        with backend.open_store(account, Mode.OWN, pickle_key=pickle_key) as store:
            store.apply(Changes([replace(secret, shown_at=datetime.now(UTC))]))
    except CryptoStoreError as error:
        # Raised, it would be a second JSON document behind the key's.
        print_error(f"that it was shown is not noted: {error}")
        raise typer.Exit(exit_code_of(error)) from error
