"""Mutants of the core's seal and key rings, and of what it does with rows that it cannot read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

from cryptostore import Account, Backend, Batch, CryptoStore, Found, Key, Mode, Record, Row, TakeOver
from cryptostore.store import ring
from cryptostore.store.account_keys import AccountKeys
from cryptostore.store.aead import NONCE_BYTES, TAG_BYTES
from cryptostore.store.keys import range_of
from cryptostore.store.ring import RING_KEYS, DataKey
from cryptostore.store.seal import Seal, Unsealable

from .registry import mutant

R = TypeVar("R", bound=Record)

_log = logging.getLogger(__name__)


@mutant("SECRETS-8", backend="sqlite")
def rows_in_plain(patch: pytest.MonkeyPatch) -> None:
    """A value has all the fields of a sealed one, and between them its text as it is."""
    sealed_with_nothing(patch)


@mutant("SEALED-1", "SEALED-2", "SEALED-3")
def sealed_with_nothing(patch: pytest.MonkeyPatch) -> None:
    """A value has all the fields of a sealed one, and its text is believed as it stands between them."""
    original = Seal.open

    def sealed(seal: Seal, _raw_key: bytes, plain: bytes, nonce: bytes) -> bytes:
        return seal._header + nonce + plain + bytes(TAG_BYTES)

    def opened(seal: Seal, raw_key: bytes, value: bytes) -> bytes:
        if value[: len(seal._header)] not in seal._openers:
            return original(seal, raw_key, value)
        return value[len(seal._header) + NONCE_BYTES : -TAG_BYTES]

    patch.setattr(Seal, "_sealed", sealed)
    patch.setattr(Seal, "open", opened)


def _bind_to(patch: pytest.MonkeyPatch, bound: Callable[[bytes], bytes]) -> None:
    """Let values be sealed under another key than their own."""
    sealed, opened = Seal._sealed, Seal.open
    patch.setattr(Seal, "_sealed", lambda seal, raw_key, *rest: sealed(seal, bound(raw_key), *rest))
    patch.setattr(Seal, "open", lambda seal, raw_key, value: opened(seal, bound(raw_key), value))


@mutant("SEALED-2", "SEALED-3")
def values_not_bound_to_their_keys(patch: pytest.MonkeyPatch) -> None:
    """A value is believed wherever in its account it is found."""
    _bind_to(patch, lambda _raw_key: b"")


@mutant("SEALED-3")
def values_not_bound_to_their_kinds(patch: pytest.MonkeyPatch) -> None:
    """A value is believed under the same fields of another kind."""
    _bind_to(patch, lambda raw_key: raw_key[1:])


@mutant("SEALED-4")
def accounts_share_a_data_key(patch: pytest.MonkeyPatch) -> None:
    """Every account's values are sealed with one key, and bound to no account."""
    patch.setattr(ring, "_random_data_key", lambda _others: DataKey(1, bytes(32)))
    patch.setattr("cryptostore.store.seal.context", lambda purpose, _account: purpose.encode())


@mutant("SEALED-5")
def newer_format_taken_for_damage(patch: pytest.MonkeyPatch) -> None:
    """What a newer program wrote is left out, and overwritten by the next batch."""
    patch.setattr("cryptostore.store.crypto_store.NewerFormat", ZeroDivisionError)


@mutant("SEALED-6")
def ring_not_bound_to_its_account(patch: pytest.MonkeyPatch) -> None:
    """Another account's key ring opens, if its pickle key is the same."""
    patch.setattr(ring, "context", lambda purpose, _account: purpose.encode())


@mutant("SEALED-7")
def missing_ring_made_anew(patch: pytest.MonkeyPatch) -> None:
    """An account whose key ring is gone gets a new one, which opens nothing of what is there."""
    patch.setattr(Backend, "_load", lambda _backend, _account, _row, keys, _attempts: keys.load())


@mutant("SEALED-8")
def lost_copy_of_the_ring_left_lost(patch: pytest.MonkeyPatch) -> None:
    """One copy of the key ring opens, and the other is not read."""
    original = AccountKeys.take

    def take(keys: AccountKeys, rows: Sequence[Row]) -> bool:
        found = original(keys, rows)
        keys._unwritten = ()
        return found

    patch.setattr(AccountKeys, "take", take)


@mutant("SEALED-6", "SEALED-7", "SEALED-9", "SEALED-10")
def taken_over_before_the_ring_is_opened(patch: pytest.MonkeyPatch) -> None:
    """A wrong pickle key fences a running client out."""
    original = Backend._own

    def own(backend: Backend, account: Account, *arguments: Any) -> Any:
        if backend.database.find(account.user_id, account.device_id, 5) is not None:
            backend.database.take_over(account.user_id, account.device_id, TakeOver(1, 1, "", 0), 5)
        return original(backend, account, *arguments)

    patch.setattr(Backend, "_own", own)


@mutant("SEALED-10")
def newer_program_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """Opening does not check which programs may open an account."""
    patch.setattr(ring, "STORE_FORMAT", 1_000)


@mutant("SEALED-11")
def keyless_store_finds_nothing(patch: pytest.MonkeyPatch) -> None:
    """Without a pickle key no record is found, as if there were none."""
    original = CryptoStore.get

    def get(store: CryptoStore, kind: type[R], keys: Iterable[Key]) -> Found[R]:
        return Found() if store._keys is None else original(store, kind, keys)

    patch.setattr(CryptoStore, "get", get)


@mutant("SEALED-12")
def ring_read_once(patch: pytest.MonkeyPatch) -> None:
    """A data key that came after a store was opened stays unknown to it."""
    original = AccountKeys.take

    def take(keys: AccountKeys, rows: Sequence[Row]) -> bool:
        if not keys.__dict__.get("was_read"):
            keys.__dict__["was_read"] = original(keys, rows)
        return bool(keys.__dict__["was_read"])

    patch.setattr(AccountKeys, "take", take)


@mutant("UNREADABLE-1", "UNREADABLE-2", "UNREADABLE-7", "UNREADABLE-8")
def unreadable_row_skipped_without_a_word(patch: pytest.MonkeyPatch) -> None:
    """What cannot be read is not there; of an Olm account, a new one would take its place."""
    patch.setattr(CryptoStore, "_report", lambda *_arguments: None)


@mutant("UNREADABLE-6")
def unreadable_row_quoted(patch: pytest.MonkeyPatch) -> None:
    """The warning shows the row, to be helpful."""
    original = CryptoStore._record

    def record(store: CryptoStore, kind: type[R], key: Key, row: Row, unreadable: Any) -> R | None:
        found = original(store, kind, key, row, unreadable)
        if found is None:
            _log.warning("unreadable %s: %r", kind.kind_name, row)
        return found

    patch.setattr(CryptoStore, "_record", record)


def _opens(keys: AccountKeys, row: Row) -> bool:
    try:
        keys.open(row)
    except Unsealable:
        return row.key in RING_KEYS
    return True


@mutant("UNREADABLE-3")
def unreadable_row_cleaned_away(patch: pytest.MonkeyPatch) -> None:
    """Taking an account over deletes what cannot be read."""
    original = Backend._own

    def own(backend: Backend, *arguments: Any) -> Any:
        row, keys, previous_owner = original(backend, *arguments)
        assert keys is not None
        rows = backend.database.page(row.id, range_of(b""), 1_000_000, 5)
        damaged = [each.key for each in rows if not _opens(keys, each)]
        if damaged:
            batch = Batch(row.epoch, row.incarnation, row.sequence + 1, [], damaged)
            row = backend.database.commit(row.id, batch, 5) or row
        return row, keys, previous_owner

    patch.setattr(Backend, "_own", own)


@mutant("UNREADABLE-5")
def every_account_looked_at(patch: pytest.MonkeyPatch) -> None:
    """Opening one account reports the damage to another's."""
    original = Backend.open_store

    def open_store(backend: Backend, account: Account, mode: Mode = Mode.OWN, **named: Any) -> CryptoStore:
        opened = original(backend, account, mode, **named)
        for other in backend.accounts():
            looked_at = original(backend, other, Mode.READ, **named)
            for row in looked_at.stored_rows():
                if looked_at._keys is not None and not _opens(looked_at._keys, row):
                    backend.notify(
                        "cryptostore_unreadable_row", account=other, kind="row", key=None, reason="is damaged"
                    )
        return opened

    patch.setattr(Backend, "open_store", open_store)
