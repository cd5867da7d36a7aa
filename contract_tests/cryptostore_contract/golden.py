"""The contents of a golden database: what a backend writes once with each version of its schema, and reads ever after.

Written down value by value, so that no change to what makes sample records, or reads stored ones, changes what is
expected. Nothing here is changed once a backend has kept a database of it; a new kind of record gets a set of its own.
The pickle key is that of the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cryptostore import (
    Account,
    Backend,
    Changes,
    Device,
    DeviceTrust,
    EncryptedRoom,
    InboundGroupSession,
    OlmAccount,
    OlmMessage,
    OlmSession,
    OutboundGroupSession,
    OutgoingKeyRequest,
    Record,
    ReplayPage,
    SharedPart,
    SyncToken,
    TrackedUser,
    Value,
)
from cryptostore.store.interface import MAX_KEY_BYTES

from .handles import everything, own
from .raw import found, overwrite, rows_of
from .samples import exact

_FIRST_TIME: Final = datetime(1, 1, 1, 0, 0, 0, 1, UTC)
_LAST_TIME: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
_BEFORE_1970: Final = datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)
_LEAP_DAY: Final = datetime(2024, 2, 29, 23, 59, 59, 123_456, UTC)

_LAST_INTEGER: Final = 2**63 - 1
_LAST_JSON_INTEGER: Final = 2**53 - 1

#: 255 bytes, the last four of them one character.
_LONGEST: Final = "é" * 125 + "x" + "\U0001d56c"
_UNICODE: Final = "aß\u0905\U0001d56ce\u0301 \u202e\ufeff"
_QUOTES: Final = "'\"`\\%_;--{}$1"
#: Canonical base64 of 32 bytes, as real keys are.
_ZEROS: Final = "A" * 43
_ONES: Final = "/" * 42 + "8"
_EVERY_BYTE: Final = bytes(range(256))

_ALICE: Final[tuple[Record, ...]] = (
    OlmAccount(pickle=b"\0alice's account\0\xff", shared=True),
    OlmSession("curve+alice/AAAA", "session-1", b"alice's pickle", _LEAP_DAY, _LAST_TIME),
    OlmSession("curve+alice/AAAA", "session-10", b"", _FIRST_TIME, _BEFORE_1970),
    OlmSession(_LONGEST, _UNICODE, _EVERY_BYTE, _BEFORE_1970, _LEAP_DAY),
    OlmSession(_ZEROS, _ONES, b"of real keys", _LEAP_DAY, _LEAP_DAY),
    OlmMessage("curve+alice/AAAA", "hash"),
    OlmMessage(_UNICODE, _LONGEST),
    InboundGroupSession("!room:example.org", "megolm", "curve", b"direct", "ed25519+key", (), 0, _LEAP_DAY),
    InboundGroupSession(
        "!room:example.org", "megolm", "imposter", b"\0", " ", ("b", "a", "b", "", _QUOTES), _LAST_INTEGER, _FIRST_TIME
    ),
    InboundGroupSession("!room:example.org", _ONES, _ZEROS, b"of real keys", _ONES, (_ZEROS,), 3, _LEAP_DAY, True),
    InboundGroupSession(_LONGEST, " ", "\t\n\r\x01\x7f", _EVERY_BYTE, _UNICODE, (_UNICODE,), 2**32, _LAST_TIME),
    OutboundGroupSession("!room:example.org", b"alice's outbound", _LEAP_DAY),
    OutboundGroupSession(
        _QUOTES,
        b"\0\0",
        _BEFORE_1970,
        message_count=_LAST_INTEGER,
        shared=True,
        parts=_LAST_INTEGER,
    ),
    SharedPart(
        "!room:example.org",
        "megolm",
        0,
        frozenset({("@bob:example.org", "B"), ("@bob:example.org", "b"), (_UNICODE, _QUOTES)}),
        frozenset({("", "")}),
    ),
    SharedPart(_LONGEST, _UNICODE, _LAST_INTEGER),
    Device("@bob:example.org", "BOBDEVICE"),
    Device(
        "@bob:example.org",
        "bobdevice",
        keys={"ed25519": "key", "curve25519": _UNICODE, "": "", _QUOTES: '{"a": [1]}'},
        display_name=_UNICODE,
        deleted=True,
        trust=DeviceTrust.VERIFIED,
    ),
    Device("@eve:example.org", _LONGEST, keys={"a": None, "b": True, "c": False}, trust=DeviceTrust.BLACKLISTED),
    Device("@mallory:example.org", "M", display_name="\n\t\x01", trust=DeviceTrust.IGNORED),
    TrackedUser("@bob:example.org", outdated=True, generation=_LAST_INTEGER),
    TrackedUser(_UNICODE),
    EncryptedRoom("!room:example.org", {"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 100}),
    EncryptedRoom(_LONGEST, {"most": _LAST_JSON_INTEGER, "least": -_LAST_JSON_INTEGER, "zero": 0, "text": "0"}),
    EncryptedRoom("!settings:example.org"),
    OutgoingKeyRequest("request", "megolm", "!room:example.org", "m.megolm.v1.aes-sha2"),
    OutgoingKeyRequest(_QUOTES, _UNICODE, _LONGEST, " "),
    ReplayPage("megolm", "curve", 0, b"\0" * 7 + b"\x05", _EVERY_BYTE[:24]),
    ReplayPage("megolm", "curve", 10, b"\xff" * 8, bytes(768)),
    ReplayPage("megolm", "curve", 9, bytes(8), b""),
    ReplayPage(_LONGEST, _UNICODE, _LAST_INTEGER, b"", _EVERY_BYTE),
    SyncToken(f"s72594_4483_1934_{_UNICODE}"),
    Value("backup", "version", b""),
    Value("backup", "Version", b"\0" * 1_000),
    Value(_UNICODE, _LONGEST, _EVERY_BYTE),
)

#: Under the keys of Alice's, and others than hers.
_BOB: Final[tuple[Record, ...]] = (
    OlmAccount(pickle=b"bob's account"),
    OlmSession("curve+alice/AAAA", "session-1", b"bob's pickle", _FIRST_TIME, _FIRST_TIME),
    OlmMessage("curve+alice/AAAA", "hash"),
    InboundGroupSession("!room:example.org", "megolm", "curve", b"bob's", "other+key", ("x",), 7, _BEFORE_1970),
    OutboundGroupSession("!room:example.org", b"bob's outbound", _FIRST_TIME, 3, shared=True),
    Device("@bob:example.org", "BOBDEVICE", {"ed25519": "his own"}, "his own"),
    TrackedUser("@bob:example.org", outdated=False, generation=1),
    EncryptedRoom("!room:example.org"),
    OutgoingKeyRequest("request", "other", "!other:example.org", "m.other"),
    ReplayPage("megolm", "curve", 0, bytes(8), b"bob's"),
    SyncToken(""),
    Value("backup", "version", b"bob's"),
)

#: Every account of a golden database, and all that each holds; each has the epoch 2 and the sequence 3.
GOLDEN: Final[Mapping[Account, tuple[Record, ...]]] = {
    Account("@alice:example.org", "ALICEDEVICE"): _ALICE,
    Account("@bob:example.org", "BOBDEVICE"): _BOB,
    Account("@nobody:example.org", "EMPTY"): (),
    Account(_LONGEST, _QUOTES): (OlmAccount(_EVERY_BYTE), SyncToken(_QUOTES)),
}

#: Rows that each account has beside its records: of a kind that no program knows, so that any bytes will do.
RAW: Final[Mapping[bytes, bytes]] = {
    b"\xfe": b"",
    b"\xfe\0": _EVERY_BYTE,
    b"\xfe\0\0": b"\0",
    b"\xfeno UTF-8 \xff\x80": b"\xff",
    b"\xfe" * MAX_KEY_BYTES: b"\0" * 1_000,
}


def fill(backend: Backend) -> None:
    """Write the golden contents into an empty database: records that are replaced and deleted, then what stays."""
    replaced = Value("golden", "deleted", b"deleted")
    for account, records in GOLDEN.items():
        with own(backend, account) as store:
            store.apply(Changes([replaced, SyncToken("replaced")]))
        with own(backend, account) as store:
            deletes = [(Value, replaced.key)]
            stays = any(isinstance(record, SyncToken) for record in records)
            store.apply(Changes(records, deletes if stays else [*deletes, (SyncToken, ())]))
        overwrite(backend.database, RAW, account=account)


def check(backend: Backend, *added: Record) -> None:
    """Fail unless the golden contents are there, with these records more in each account, and nothing else."""
    assert backend.accounts().keys() == GOLDEN.keys()
    for account, records in GOLDEN.items():
        stored = [record for of_a_kind in everything(backend, account).values() for record in of_a_kind]
        assert sorted(map(exact, stored), key=repr) == sorted(map(exact, (*records, *added)), key=repr), account
        row = found(backend.database, account)
        beside = {key: value for key, value in rows_of(backend.database, row.id).items() if key[:1] == b"\xfe"}
        assert beside == RAW, account
