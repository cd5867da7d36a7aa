"""A batch of records as the rows that a database is given, and whether such a row can be read again."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from cryptostore.errors import InvalidRecord
from cryptostore.records.changes import Changes
from cryptostore.records.record import KINDS_BY_NUMBER, Record

from .account_keys import AccountKeys
from .interface import MAX_STORED_BYTES, Row
from .keys import decode_key, encode_key, encode_own_key
from .seal import OVERHEAD_BYTES
from .values import decode_value, encode_value

_by_key: Final = itemgetter(0)


def seal_changes(changes: Changes, keys: AccountKeys) -> tuple[list[Row], list[bytes]]:
    """The rows to put and the keys to delete, each in key order; with them what is unwritten of the account's ring.

    Raises InvalidRecord for a record that is too large.
    """
    plain: list[tuple[bytes, bytes]] = []
    deletes: list[bytes] = []
    for kind in changes.kinds():
        plain += [(encode_own_key(record), _checked(kind, encode_value(record))) for record in changes.puts(kind)]
        deletes += [encode_key(kind, key) for key in changes.deletes(kind)]
    return sorted([*keys.unwritten, *keys.seal_all(plain)], key=_by_key), sorted(deletes)


def problem_of(row: Row, keys: AccountKeys) -> str:
    """Why a stored row cannot be read, or an empty text. Of a kind that is not known here, the seal alone counts."""
    kind = KINDS_BY_NUMBER.get(row.key[0])
    try:
        key = () if kind is None else decode_key(kind, row.key)
    except ValueError:
        # The codec's text may quote the key.
        return "its key is not a valid key of its kind"
    try:
        plain = keys.open(row)
        if kind is not None:
            decode_value(kind, key, plain)
    except ValueError as error:
        return str(error)
    return ""


def _checked(kind: type[Record], value: bytes) -> bytes:
    size = len(value) + OVERHEAD_BYTES
    if size > MAX_STORED_BYTES:
        raise InvalidRecord(
            kind.kind_name, "value", f"has {size} bytes when it is stored; {MAX_STORED_BYTES} are allowed"
        )
    return value
