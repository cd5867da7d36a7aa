"""What people call stored rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptostore.records import KINDS_BY_NUMBER
from cryptostore.store.interface import MAX_KEY_BYTES
from cryptostore.store.keys import decode_key
from cryptostore.store.marks import MARK_KEY
from cryptostore.store.ring import RING_KEYS

from .output import print_line

#: How many rows people see that are not as they should be; JSON has more.
_SHOWN: Final = 20


def kind_name(number: int) -> str:
    """The name of the kind of record with this number; a newer program may have kinds that this one does not.

    The two copies of the key ring are told apart as its errors do.
    """
    if bytes([number]) in RING_KEYS:
        return f"key_ring {number:02x}"
    kind = KINDS_BY_NUMBER.get(number)
    return f"kind {number}" if kind is None else kind.kind_name


def kind_of_row(key: bytes) -> str:
    """The name of the kind of the row with this key."""
    if key == MARK_KEY:
        return "mark"
    is_stray = key[:1] in RING_KEYS and key not in RING_KEYS
    return f"kind {key[0]}" if is_stray else kind_name(key[0])


def row_name(key: bytes) -> str:
    """The kind and the key of a row."""
    is_named_by_kind = len(key) == 1 or key == MARK_KEY
    return kind_of_row(key) if is_named_by_kind else f"{kind_of_row(key)} {shown_key(key)}"


def shown_key(key: bytes) -> str:
    """The key of a row by its fields, or in hexadecimal where they cannot be read."""
    kind = KINDS_BY_NUMBER.get(key[0])
    try:
        fields = () if kind is None else decode_key(kind, key)
    except ValueError:
        fields = ()
    return " ".join(map(str, fields)) or (key.hex() if len(key) <= MAX_KEY_BYTES else f"{key[:32].hex()}…")


def row_document(key: bytes, reason: str) -> dict[str, Any]:
    """For JSON: which row it is, and what is wrong with it."""
    return {"kind": kind_of_row(key), "key": shown_key(key), "raw_key": key.hex(), "reason": reason}


def kinds_document(rows: Mapping[int, int]) -> dict[str, dict[str, int]]:
    """For JSON: how many rows there are of each kind, from their numbers."""
    return {kind_name(number): {"rows": count} for number, count in sorted(rows.items())}


def unreadable_document(rows: Sequence[tuple[bytes, str]]) -> dict[str, Any]:
    """For JSON: how many rows of each kind cannot be read, and which."""
    return {
        "unreadable": Counter(kind_of_row(key) for key, _ in rows),
        "unreadable_rows": [row_document(*each) for each in rows],
    }


def print_wrong(wrong: Sequence[tuple[bytes, str]]) -> None:
    """For people: the first of the rows that are not as they should be, by key and reason."""
    for key, reason in wrong[:_SHOWN]:
        print_line(f"- {row_name(key)} {reason}")
    if len(wrong) > _SHOWN:
        print_line(f"- and {len(wrong) - _SHOWN:,} more (--json names them)")
