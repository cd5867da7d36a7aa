"""Record keys as bytes, whose order is the order of every answer.

A key is the kind's number (one byte) and the key fields. Each field's form delimits itself, so that a prefix of whole
fields is a range of keys.

    text        UTF-8, 0x00; texts hold no NUL
    public key  0x01 and 32 bytes where the text is canonical unpadded base64 of 32 bytes; else 0x02 and as a text
    count       8 bytes, big-endian
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from cryptostore.errors import InvalidRecord
from cryptostore.records.fields import MAX_COUNT, MAX_IDENTIFIER_BYTES, FieldType
from cryptostore.records.record import Key, Record, check_key, check_prefix, key_fields_of

from .interface import MAX_KEY_BYTES, Range

_RAW: Final = b"\x01"
_AS_TEXT: Final = b"\x02"
_END: Final = b"\x00"
_RAW_BYTES: Final = 32
_BASE64_CHARACTERS: Final = 43
#: What 43 characters of base64 end with where they are the one spelling of their 32 bytes.
_NO_SPARE_BITS: Final = frozenset("AEIMQUYcgkosw048")
_COUNT_BYTES: Final = 8


def encode_key(kind: type[Record], key: Key) -> bytes:
    """The bytes of a whole key. Raises InvalidRecord."""
    return _encoded(kind, check_key(kind, key))


def encode_own_key(record: Record) -> bytes:
    """The bytes of a record's key, whose fields were checked when the record was made. Raises InvalidRecord."""
    return _encoded(type(record), record.key)


def prefix_range(kind: type[Record], prefix: Key) -> Range:
    """All keys of the kind that begin with these fields; `()` for the whole kind. Raises InvalidRecord."""
    return range_of(_encoded(kind, check_prefix(kind, prefix)))


def range_of(prefix: bytes) -> Range:
    """All keys that begin with these bytes."""
    kept = prefix.rstrip(b"\xff")
    return Range(prefix, kept[:-1] + bytes([kept[-1] + 1]) if kept else None)


def successor(key: bytes) -> bytes:
    """The least key above this one."""
    return key + b"\x00"


def decode_key(kind: type[Record], encoded: bytes) -> Key:
    """The key that these bytes stand for. Raises ValueError for bytes that `encode_key` never makes of this kind."""
    form = _form_of(kind)
    values: list[str | int] = []
    position = 1
    for decode in form.decoders:
        value, position = decode(encoded, position)
        values.append(value)
    if position != len(encoded) or encoded[:1] != form.number:
        raise ValueError("is not the encoding of a key")
    return tuple(values)


class _Form(NamedTuple):
    """How the keys of one kind are written and read: looked up once, because every record asks for it."""

    number: bytes
    encoders: tuple[Callable[[str | int], bytes], ...]
    decoders: tuple[Callable[[bytes, int], tuple[str | int, int]], ...]


_forms: Final[dict[type[Record], _Form]] = {}


def _form_of(kind: type[Record]) -> _Form:
    if kind not in _forms:
        types = [field.type for field in key_fields_of(kind)]
        _forms[kind] = _Form(
            bytes([kind.kind_number]),
            tuple(_ENCODERS[each] for each in types),
            tuple(_DECODERS[each] for each in types),
        )
    return _forms[kind]


def _encoded(kind: type[Record], values: Key) -> bytes:
    form = _form_of(kind)
    encoded = form.number + b"".join([encode(value) for encode, value in zip(form.encoders, values, strict=False)])
    if len(encoded) > MAX_KEY_BYTES:
        raise InvalidRecord(kind.kind_name, "key", f"has {len(encoded)} bytes; {MAX_KEY_BYTES} are allowed")
    return encoded


def _encode_text(value: str | int) -> bytes:
    return str(value).encode() + _END


def _encode_public_key(value: str | int) -> bytes:
    text = str(value)
    if len(text) != _BASE64_CHARACTERS or text[-1] not in _NO_SPARE_BITS:
        return _AS_TEXT + _encode_text(text)
    try:
        return _RAW + binascii.a2b_base64(text + "=", strict_mode=True)
    except ValueError:
        return _AS_TEXT + _encode_text(text)


def _encode_count(value: str | int) -> bytes:
    return int(value).to_bytes(_COUNT_BYTES, "big")


# These refuse what is never encoded: a damaged row is reported then, and breaks nobody who makes a record of its key.
# Encoding again what was decoded would show it, too, and takes four times as long.
def _decode_text(encoded: bytes, start: int) -> tuple[str, int]:
    end = encoded.index(_END, start)
    if not 0 < end - start <= MAX_IDENTIFIER_BYTES:
        raise ValueError("is no identifier")
    return encoded[start:end].decode(), end + 1


def _decode_public_key(encoded: bytes, start: int) -> tuple[str, int]:
    form, begins = encoded[start : start + 1], start + 1
    if form == _RAW:
        return _base64(encoded[begins : begins + _RAW_BYTES]), begins + _RAW_BYTES
    text, end = _decode_text(encoded, begins)
    if form != _AS_TEXT or _encode_public_key(text)[:1] != _AS_TEXT:
        raise ValueError("is no public key")
    return text, end


def _decode_count(encoded: bytes, start: int) -> tuple[int, int]:
    end = start + _COUNT_BYTES
    count = int.from_bytes(encoded[start:end], "big")
    if count > MAX_COUNT:
        raise ValueError("is no count")
    return count, end


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False)[:-1].decode()


_ENCODERS: Final[Mapping[FieldType, Callable[[str | int], bytes]]] = {
    FieldType.IDENTIFIER: _encode_text,
    FieldType.PUBLIC_KEY: _encode_public_key,
    FieldType.COUNT: _encode_count,
}
_DECODERS: Final[Mapping[FieldType, Callable[[bytes, int], tuple[str | int, int]]]] = {
    FieldType.IDENTIFIER: _decode_text,
    FieldType.PUBLIC_KEY: _decode_public_key,
    FieldType.COUNT: _decode_count,
}
