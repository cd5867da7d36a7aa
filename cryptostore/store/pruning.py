"""Deleting what an account keeps for old messages, where its owner decides that they need not be read again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Final

from cryptostore.errors import ConfigurationError
from cryptostore.records.changes import Changes
from cryptostore.records.trust_kinds import KeyBackup

from .crypto_store import CryptoStore
from .prunable import Pruned, Rules, doomed_by, in_batches

#: Records that are deleted at once.
_BATCH: Final = 1_000


def prune(
    store: CryptoStore, rules: Rules, *, dry_run: bool = False, advance: Callable[[int], None] = lambda _number: None
) -> Pruned:
    """Delete what the rules say, for the owner; with `dry_run` count it alone, also in READ mode.

    A Megolm session goes with its replay pages in one batch; where a backup on the server is in use, one that is not
    there yet is kept. Records that cannot be read are kept. In bounded memory; after an error or a kill, the same call
    does the rest. `advance` is called with the number of records of each batch.
    Raises ConfigurationError where the backup has not seen all sessions; what look-ups and `apply` raise.
    """
    pruned = Pruned()
    if rules.has_sessions:
        _check_backup(store)
    try:
        for batch in in_batches(chain.from_iterable(doomed_by(rules, store, pruned)), _BATCH):
            keys = [key for each in batch for key in each.keys]
            if not dry_run:
                store.apply(Changes(deletes=keys))
            pruned.deleted.update(kind.kind_name for kind, _ in keys)
            advance(len(keys))
    finally:
        # What is deleted is told, also where the rest cannot be.
        if pruned.deleted and not dry_run:
            store.reports.pruned(pruned.deleted)
    return pruned


def _check_backup(store: CryptoStore) -> None:
    found = store.get(KeyBackup, [()])
    backup = found.get(())
    if found.unreadable or (backup is not None and not backup.is_walked):
        raise ConfigurationError(
            f"the key backup of {store.account} has not seen all of its sessions yet; let its client run until it has "
            "(`cryptostore identity` shows it), and delete old ones then"
        )
