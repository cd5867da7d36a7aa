"""Canonical JSON: the one way to write a JSON value down, so that it can be signed.

Matrix specification, appendix "Canonical JSON".
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

#: The greatest integer that every JSON library reads as it was written.
_GREATEST: Final = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """The canonical JSON of what `json.loads` returned, or could have.

    A float that is a whole number is written as the integer. Raises ValueError for what canonical JSON does not have:
    other floats, integers beyond 53 bits, lone surrogates, keys that are not texts, values of other types.
    """
    try:
        text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply to be signed or checked") from None
    # The codec's error carries the text, so it must not become the context of ours.
    with suppress(UnicodeEncodeError):
        return text.encode()
    raise ValueError("the JSON holds half of a character, which no UTF-8 can express")


def _plain(value: Any) -> Any:
    """`value` made of what the encoder writes canonically. Raises ValueError."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return _integer(value)
    if isinstance(value, dict):
        return {_key(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    raise ValueError(f"JSON has no values of the type {type(value).__name__}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"a key of a JSON object is a text, not of the type {type(key).__name__}")
    return key


def _integer(number: float) -> int:
    if not -_GREATEST <= number <= _GREATEST or number != int(number):
        raise ValueError("canonical JSON has no numbers but the integers from -(2^53)+1 to 2^53-1")
    return int(number)
