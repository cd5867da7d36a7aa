"""Accounts that another process took from this one: a program that only tries again must not take them back."""

from __future__ import annotations

from typing import Final

from cryptostore.errors import FencedOut
from cryptostore.records import Account
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.owners import is_gone
from cryptostore.store.ownership import Ownership

#: A database, by its URL as it may be shown, and an account in it.
Place = tuple[str, Account]


class LostAccounts:
    """What this process owned last in each place, and where it was fenced out since."""

    def __init__(self) -> None:
        self._owned: dict[Place, int] = {}
        self._lost: set[Place] = set()

    def opened(self, place: Place, ownership: Ownership) -> None:
        """This process took the account over."""
        self._owned[place] = ownership.incarnation
        self._lost.discard(place)

    def fenced(self, place: Place) -> None:
        """This process was told that it does not own the account any more."""
        self._lost.add(place)

    def forget(self, place: Place) -> None:
        """This process may take the account back."""
        self._lost.discard(place)

    def check(self, place: Place, store: CryptoStore) -> None:
        """Raise FencedOut where the account was lost to a process that may be alive."""
        owner = store.ownership
        if place not in self._lost or owner.incarnation == self._owned[place] or is_gone(owner.owner):
            return
        raise FencedOut(
            f"{store.account} was taken over by {owner.owner} at {owner.since}, and this process does not take it "
            "back: two programs would take it from each other for ever. Stop the other one, and start this one again, "
            "or open it with take_over=True, or after `NioStore.take_back`",
            owner=owner.owner,
            since=owner.since,
        )


#: Those of this process.
lost_accounts: Final = LostAccounts()
