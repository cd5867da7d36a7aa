"""Mutants of the PostgreSQL backend, and of a store on it, that say what they should keep to themselves."""

from __future__ import annotations

import pytest

from cryptostore import BackendUnavailable, Changes, CryptoStore
from cryptostore_postgres.options import PostgresOptions

from .registry import mutant


@mutant("SECRETS-1", "SECRETS-2", "SECRETS-6", backend="postgres")
def password_beside_the_host(patch: pytest.MonkeyPatch) -> None:
    """Errors name the database by all that its URL says."""
    patch.setattr(PostgresOptions, "place", property(lambda options: str(dict(options.connection))))


@mutant("SECRETS-2", backend="postgres")
def pickle_key_among_the_circumstances(patch: pytest.MonkeyPatch) -> None:
    """What could not be saved is reported with everything that the store knows."""
    original = CryptoStore.apply

    def apply(store: CryptoStore, changes: Changes) -> None:
        try:
            original(store, changes)
        except BackendUnavailable as error:
            error.add_note(f"the store's keys: {vars(store._keys)}")
            raise

    patch.setattr(CryptoStore, "apply", apply)
