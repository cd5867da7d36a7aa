"""Arrays of bytes as the server takes them in binary, built by column.

psycopg's own lists take one Python call an element: with 10,000 rows that is as long as the server's work.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

#: The number of the type `bytea`, which no server changes.
_BYTEA: Final = 17


class ByteaArray:
    """A parameter of the type `bytea[]`."""

    __slots__ = ("data",)

    def __init__(self, values: Sequence[bytes]) -> None:
        count = len(values)
        lengths = struct.pack(f"!{count}i", *map(len, values))
        parts = [b""] * (2 * count + 1)
        # Dimensions, a flag for NULLs, the elements' type; the dimension's length and lower bound.
        parts[0] = struct.pack("!iiIii", 1, 0, _BYTEA, count, 1) if count else struct.pack("!iiI", 0, 0, _BYTEA)
        parts[1::2] = [lengths[at : at + 4] for at in range(0, 4 * count, 4)]
        parts[2::2] = values
        self.data: Final = b"".join(parts)
