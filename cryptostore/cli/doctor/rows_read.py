"""Whether stored rows can be read: a few of each kind, which a large database answers at once, or all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cryptostore.cli.rows import row_name
from cryptostore.cli.verify import with_progress
from cryptostore.plugins.findings import Finding, Level
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.interface import MAX_KEY_BYTES, Row
from cryptostore.store.marks import MARK_KEY
from cryptostore.store.ring import RING_KEYS
from cryptostore.store.verifying import UnreadableRow

_NAMED: Final = 3


def look_at_rows(
    backend: Backend, account: Account, store: CryptoStore, pickle_key: str, *, all_rows: bool
) -> Iterator[Finding]:
    """The rows that cannot be read, and how many were looked at."""
    if all_rows:
        verified = with_progress(backend, account, pickle_key)
        yield _told(verified.named, verified.unreadable.total(), f"all of {verified.readable.total():,}")
        return
    sample = list(sampled(backend, account))
    found = [UnreadableRow(row.key, problem) for row in sample if (problem := store.problem_of(row))]
    kinds, readable = len({row.key[0] for row in sample}), len(sample) - len(found)
    yield _told(found, len(found), f"{readable:,} rows of {kinds} kinds; --all opens every one")


def sampled(backend: Backend, account: Account) -> Iterator[Row]:
    """The first hundred rows of each kind, or all that there are, in about two round trips for each large kind."""
    stored = backend.sealed(account)
    stored.find()
    after = b""
    while page := next(stored.pages(after), []):
        last = page[-1].key[0]
        # The kind with which a page ends begins the next one, unless it is all of the page.
        whole = [row for row in page if row.key[0] != last]
        yield from (row for row in whole or page if row.key not in (*RING_KEYS, MARK_KEY))
        after = bytes([last - 1 if whole else last]) + b"\xff" * (MAX_KEY_BYTES - 1)


def _told(found: list[UnreadableRow], number: int, looked_at: str) -> Finding:
    if not found:
        return Finding("records", Level.OK, f"can be read: {looked_at}")
    named = ", ".join(f"{row_name(row.key)} ({row.reason})" for row in found[:_NAMED])
    more = f", and {number - _NAMED:,} more" if number > _NAMED else ""
    remedy = "`cryptostore verify` lists all of them; what they held is lost unless a backup of the database has it"
    return Finding("records", Level.WARNING, f"{number:,} cannot be read: {named}{more}", remedy)
