"""How long the changes of each account have waited that could not be saved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from cryptostore.records.record import Account

#: Seconds without another failure after which nobody waits any more: the client was closed.
_FORGOTTEN: Final = 900.0


class _Waits(NamedTuple):
    since: float
    told: float


class Waiting:
    """The oldest change of each account whose last flush failed. From any thread."""

    def __init__(self) -> None:
        self._by_account: dict[Account, _Waits] = {}

    def failed(self, account: Account, age: float) -> None:
        """A flush failed, and changes of this age wait on."""
        now = time.monotonic()
        self._by_account[account] = _Waits(now - age, now)

    def over(self, account: Account) -> None:
        """Nothing waits, or never can be saved."""
        self._by_account.pop(account, None)

    def ages(self) -> Iterator[tuple[Account, float]]:
        """The seconds that have passed since each account's oldest change."""
        now = time.monotonic()
        for account, waits in list(self._by_account.items()):
            if now - waits.told > _FORGOTTEN:
                self.over(account)
            else:
                yield account, now - waits.since
