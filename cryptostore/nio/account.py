"""The Olm account while it is in use: what was last saved of it, and what has changed since."""

from __future__ import annotations

from nio.crypto import OlmAccount

from cryptostore import records
from cryptostore.records.changes import Changes

from .pickles import Pickles


class LiveAccount:
    """The account that nio holds. Raises UnreadableRecord for a record that cannot be read."""

    def __init__(self, pickles: Pickles, record: records.OlmAccount | None) -> None:
        self._pickles = pickles
        self._record: records.Record | None = record
        self.account = None if record is None else pickles.account(record)

    def changes(self, account: OlmAccount | None = None) -> Changes:
        """What saving the account writes: nothing if it is as it was.

        Given an account, that is the one from now on. Pickling is deterministic, so equal pickles mean equal accounts.
        """
        if account is not None:
            self.account = account
        if self.account is None:
            return Changes()
        record = self._pickles.account_record(self.account)
        return Changes() if record == self._record else Changes([record])

    def settle(self, batch: Changes) -> None:
        """The batch is durable."""
        for record in batch.puts(records.OlmAccount):
            self._record = record
