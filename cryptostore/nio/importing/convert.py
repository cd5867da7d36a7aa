"""One account's rows in nio's tables as records. What cannot be converted becomes a finding and holds nothing up."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, TypeVar

from nio.crypto import InboundGroupSession, OlmAccount, Session

from cryptostore import records
from cryptostore.errors import InvalidRecord
from cryptostore.nio.pickles import Pickles
from cryptostore.nio.standins import stored_id, stored_token
from cryptostore.nio.times import to_local, to_utc

from .devices import SourceDevices
from .findings import Findings
from .one_time_keys import UnknownPickleError, keep_for_the_homeserver
from .source import NioFile, Row, SourceAccount, pickle_of

R = TypeVar("R", bound=records.Record)

#: How nio writes times: naive and local; some rows have no fraction.
_TIME_FORMATS: Final = ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S")

_TABLES: Final = ("olmsessions", "megolminboundsessions", "devicekeys", "encryptedrooms", "outgoingkeyrequests")

#: vodozemac's words.
_OLD_VERSION: Final = re.compile(r"unsupported version, expected ([0-9]+), got ([0-9]+)")
_TOO_OLD: Final = "pickle of version"

_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")

#: In vodozemac's words for a pickle that another key encrypted, or whose bytes were changed.
_WRONG_MAC: Final = "MAC"


class AccountImport:
    """One account of the source. Raises ValueError if the pickle key does not open the account itself."""

    def __init__(self, source: NioFile, row: SourceAccount, pickle_key: str, findings: Findings) -> None:
        self.account: Final = row.account
        self._source = source
        self._row = row
        #: Opens the source, and seals what is imported from it.
        self.pickle_key: Final = pickle_key
        self._findings = findings
        self._pickles = Pickles(row.account)
        self._imported_at = datetime.now(UTC)
        olm_account = self._kept_for_the_homeserver(OlmAccount.from_pickle(row.pickle, pickle_key, row.shared))
        #: The account's own record.
        self.olm_account: Final = self._pickles.account_record(olm_account)
        #: The account's Curve25519 key.
        self.identity_key: Final = str(olm_account.identity_keys["curve25519"])

    @property
    def row_id(self) -> int:
        """The account's number in the source."""
        return self._row.row_id

    def total(self) -> int:
        """How many rows there are to go through."""
        return sum(self._source.count(table, self._row) for table in _TABLES)

    def check_source(self) -> None:
        """Raise ConfigurationError if the source was changed since it was opened."""
        self._source.check_unchanged()

    def sync_token(self) -> records.SyncToken | None:
        """How far the account had read, if the source knows."""
        tokens = list(self._all("synctokens", "sync token", (), _sync_token))
        return tokens[-1] if tokens else None

    def contents(self) -> Iterator[records.Record]:
        """Everything but the account itself and its sync token, kind by kind."""
        yield from self._all("olmsessions", "Olm session", ("session_id",), self._olm_session)
        yield from self._all("megolminboundsessions", "Megolm session", ("room_id", "session_id"), self._group_session)
        devices = SourceDevices(self._source, self._row, self._findings)
        yield from self._all("devicekeys", "device", ("user_id", "device_id"), devices.record)
        devices.report_what_is_left()
        yield from self._all("encryptedrooms", "encrypted room", ("room_id",), _encrypted_room)
        yield from self._all("outgoingkeyrequests", "key request", ("request_id",), _key_request)

    def _kept_for_the_homeserver(self, olm_account: OlmAccount) -> OlmAccount:
        try:
            return keep_for_the_homeserver(olm_account)
        except UnknownPickleError as error:
            reason = f"vodozemac writes it in an unknown form ({error}): its next one-time key may replace another one"
            self._findings.add(self.account, "account", reason, self.account)
            return olm_account

    def _all(self, table: str, kind: str, id_columns: tuple[str, ...], make: Callable[[Row], R]) -> Iterator[R]:
        for row in self._source.rows(table, self._findings, self._row):
            try:
                yield make(row)
            except (InvalidRecord, ValueError, KeyError) as error:
                self._findings.add(self.account, kind, _reason(error), *(row.get(name) for name in id_columns))

    def _olm_session(self, row: Row) -> records.OlmSession:
        created_at, last_used_at = self._time(row, "creation_time"), self._time(row, "last_usage_date")
        session = Session.from_pickle(pickle_of(row["session"]), created_at, self.pickle_key, last_used_at)
        _check_id(session.id, row)
        return self._pickles.olm_session_record(row["sender_key"], session)

    def _group_session(self, row: Row) -> records.InboundGroupSession:
        pickle, chain = pickle_of(row["session"]), self._chains[row["session_id"]]
        session = InboundGroupSession.from_pickle(
            pickle, row["fp_key"], row["sender_key"], row["room_id"], self.pickle_key, chain
        )
        _check_id(session.id, row)
        # The source does not say when the session came.
        return self._pickles.group_session_record(session, self._imported_at)

    @cached_property
    def _chains(self) -> dict[str, list[str]]:
        """The forwarding chains by session id, in the order in which nio wrote them, the only one that is known."""
        chains: dict[str, list[str]] = defaultdict(list)
        for row in self._source.rows("forwardedchains", self._findings):
            chains[row["session_id"]].append(row["sender_key"])
        return chains

    def _time(self, row: Row, column: str) -> datetime:
        for time_format in _TIME_FORMATS:
            try:
                local = datetime.strptime(row[column], time_format)  # noqa: DTZ007  # nio's times have no zone
                to_utc(local)
            except (TypeError, ValueError, OverflowError):
                continue
            return local
        reason = f"its {column} is damaged; it was imported with the present time instead"
        self._findings.add(self.account, "Olm session", reason, row["session_id"])
        return to_local(self._imported_at)


def _encrypted_room(row: Row) -> records.EncryptedRoom:
    room_id = row["room_id"]
    # Without its record, messages to a room would leave in the clear.
    return records.EncryptedRoom(room_id if _is_damaged(room_id) else stored_id(room_id))


def _sync_token(row: Row) -> records.SyncToken:
    token = row["token"]
    return records.SyncToken(token if _is_damaged(token) else stored_token(token))


def _is_damaged(text: Any) -> bool:
    """Whether this is no text, or one that was not UTF-8 in the file: then it has lone surrogates, and is refused."""
    return not isinstance(text, str) or bool(_SURROGATES.search(text))


def _key_request(row: Row) -> records.OutgoingKeyRequest:
    return records.OutgoingKeyRequest(row["request_id"], row["session_id"], row["room_id"], row["algorithm"])


def _check_id(unpickled: str, row: Row) -> None:
    if unpickled != row["session_id"]:
        raise ValueError("the row holds another session than it says")


def _reason(error: Exception) -> str:
    """Why a row could not be used. Libraries may quote what they read, so only our own words are shown."""
    if isinstance(error, InvalidRecord):
        return f"no database may store it: {error.field} {error.reason}"
    if isinstance(error, KeyError):
        return f"its table has no column {error}"
    if _WRONG_MAC in str(error):
        return "its pickle was written with another pickle key (by another account of this file), or is damaged"
    if type(error) is ValueError:
        return str(error)
    return why_too_old(error) or "its pickle is damaged"


def why_too_old(error: Exception) -> str:
    """What is wrong with a pickle of an old libolm; empty for another error."""
    found = _OLD_VERSION.search(str(error))
    if found is None:
        return ""
    expected, version = found.groups()
    return (
        f"it is a {_TOO_OLD} {version}, of an old libolm, and vodozemac reads version {expected}: let a client with "
        "matrix-nio before 0.26 and python-olm 3.2 use it once, which writes a newer one"
    )


def is_too_old(reason: str) -> bool:
    """Whether this is the reason that `why_too_old` gives."""
    return _TOO_OLD in reason
