"""The mark of an account that is not at home where it is stored: not all of it has come yet, or it was moved away.

It is stored beside the key ring, whose kind number it has. While it is there, no pickle key opens the account. A mark:

    version       1 byte    130; never the version of a sealed value or of a ring
    fields                  in MessagePack, by name
    checksum      8 bytes   SHA-256 of "cryptostore mark checksum" NUL user id NUL device id NUL, and all of the above

It is not sealed: an account is copied without its pickle key. Somebody who can write the database can forge one, which
keeps the account from being opened as deleting it would.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from cryptostore.errors import AccountElsewhere, SchemaTooNew, UnreadableRecord
from cryptostore.records.record import Account

from .aead import context

#: Where the mark is stored: after the first copy of the key ring, and before all records.
MARK_KEY: Final = b"\x00\x01"

_VERSION: Final = b"\x82"
_CHECKSUM_BYTES: Final = 8

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Whereabouts(StrEnum):
    """What a mark says of the account that it is stored in."""

    #: It is being copied here, and its key ring has not come yet.
    COMING = "coming"
    #: It was moved to another database, and is kept here as it was.
    MOVED = "moved"
    #: It is being restored here from a backup's file, and its key ring has not come yet.
    RESTORING = "restoring"


@dataclass(frozen=True, slots=True)
class Mark:
    """Where an account is, if not here.

    `other_id` is the account's id in the other database, `sequence` the number of the last batch of what is copied, and
    `place` the other database's URL as it may be shown. `reached` is the key of the last row that has come. Of an
    account that is being restored, `place` is the file, and the numbers are 0.
    """

    whereabouts: Whereabouts
    other_id: _Number
    sequence: _Number
    place: str
    at: datetime
    reached: bytes = b""


_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_decode: Final = msgspec.msgpack.Decoder(Mark).decode


def encode_mark(account: Account, mark: Mark) -> bytes:
    """The value to store under `MARK_KEY`."""
    body = _VERSION + _encode(mark)
    return body + _checksum(account, body)


def decode_mark(account: Account, value: bytes) -> Mark:
    """The mark that is stored. Raises UnreadableRecord for one that is damaged, SchemaTooNew for a newer program's."""
    body, checksum = value[:-_CHECKSUM_BYTES], value[-_CHECKSUM_BYTES:]
    if _checksum(account, body) == checksum:
        if body[:1] != _VERSION:
            raise SchemaTooNew(f"{account} was moved by a newer version of matrix-cryptostore; upgrade it")
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return _decode(body[1:])
    raise UnreadableRecord(
        f"the mark that {account} is being moved, or was moved, is damaged. Nothing was changed; restore the account "
        "from a backup, or delete it here if another database has it"
    )


def elsewhere(account: Account, mark: Mark) -> AccountElsewhere:
    """The error for who opens an account that has this mark."""
    if mark.whereabouts is Whereabouts.MOVED:
        return AccountElsewhere(
            f"{account} was moved to {mark.place} on {mark.at:%Y-%m-%d %H:%M} UTC: give its client that URL. To bring "
            "it back, use `cryptostore copy` in the other direction; to drop what is left here, `cryptostore delete`; "
            "if that database is lost, `cryptostore copy --even-if-moved`, and `cryptostore restored` on the copy"
        )
    if mark.whereabouts is Whereabouts.RESTORING:
        return AccountElsewhere(
            f"{account} is not restored here completely: run the same `cryptostore restore` of {mark.place} again, "
            "which begins anew; the file has everything. To drop what has come, use `cryptostore delete`"
        )
    return AccountElsewhere(
        f"a copy of {account} from {mark.place} is not complete here: run the same `cryptostore copy` again, which "
        "goes on where it was interrupted; the source has everything"
    )


def _checksum(account: Account, body: bytes) -> bytes:
    return hashlib.sha256(context("cryptostore mark checksum", account) + body).digest()[:_CHECKSUM_BYTES]
