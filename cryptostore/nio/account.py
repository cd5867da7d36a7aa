"""The Olm account while it is in use: what was last saved of it, and what has changed since."""

from __future__ import annotations

from nio.crypto import OlmAccount

from cryptostore import records
from cryptostore.changes import Changes

from .pickles import Pickles


class LiveAccount:
    """The account that nio holds. Raises WrongPickleKey or UnreadableRecord for a record that cannot be read."""

    def __init__(self, pickles: Pickles, record: records.OlmAccount | None) -> None:
        self._pickles = pickles
        self._record = record
        self._key_check = (record and record.key_check) or pickles.new_key_check()
        self.account = None if record is None else pickles.account(record)

    def changes(self, account: OlmAccount | None = None) -> Changes:
        """What saving the account writes: nothing if it is as it was.

        Given an account, that is the one from now on. Pickling is deterministic, so equal pickles mean equal accounts.
        """
        if account is not None:
            self.account = account
        if self.account is None:
            return Changes()
        record = self._pickles.account_record(self.account, self._key_check)
        if record == self._record:
            return Changes()
        self._record = record
        return Changes([record])
