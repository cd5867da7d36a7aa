"""Keys as bytes that RocksDB sorts as the contract wants: texts by their UTF-8 bytes, integers as numbers.

An account's row is under `a`, its records are under `r`, its id, their kind and their key fields. A text ends with NUL,
which no key field may contain: so no text is the beginning of another, and a shorter one comes first.
"""

from __future__ import annotations

from typing import Final

from cryptostore import Account, Key, Record

ACCOUNTS: Final = b"a"
_RECORDS: Final = b"r"

#: Above every byte that may follow a prefix: UTF-8 has no such byte, and no key field is negative.
_ABOVE: Final = b"\xff"


def account_key(account: Account) -> bytes:
    """Where the account's row is. Rows sort by user id and device id."""
    return ACCOUNTS + _text(account.user_id) + _text(account.device_id)


def account_in(key: bytes) -> Account:
    """Whose row this is. Raises ValueError or InvalidRecord for a damaged key."""
    user_id, device_id, _ = key[len(ACCOUNTS) :].decode().split("\0")
    return Account(user_id, device_id)


def records_prefix(account_id: bytes) -> bytes:
    """What the keys of all records of an account begin with. Ids have one length."""
    return _RECORDS + account_id


def record_key(account_id: bytes, kind: type[Record], key: Key) -> bytes:
    """Where a record is; with the beginning of a key, what the keys of all such records begin with."""
    return records_prefix(account_id) + _text(kind.kind_name) + b"".join(map(_field, key))


def end_of(prefix: bytes) -> bytes:
    """The first key that is above all that begin with `prefix`."""
    return prefix + _ABOVE


def _field(value: str | int) -> bytes:
    return _text(value) if isinstance(value, str) else value.to_bytes(8, "big")


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
