"""Which accounts of a source can be imported, and what the source lost by keeping several in one file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from nio.crypto import InboundGroupSession, Session

from cryptostore.errors import ConfigurationError, UnreadableRecord, WrongPickleKey
from cryptostore.records import Account

from .convert import AccountImport, is_too_old, why_too_old
from .findings import Findings
from .source import NioFile, SourceAccount, pickle_of

_DAMAGED: Final = "its own pickle is damaged, although the pickle key opens its sessions"
_LOCKED: Final = "the pickle key does not open it"


class _Belonging(NamedTuple):
    """A table whose rows belong to rows of another."""

    table: str
    column: str
    owners: str
    owners_column: str
    kind: str
    id_columns: tuple[str, ...]


_BELONGINGS: Final = (
    _Belonging("olmsessions", "account_id", "accounts", "id", "Olm session", ("session_id",)),
    _Belonging("megolminboundsessions", "account_id", "accounts", "id", "Megolm session", ("room_id", "session_id")),
    _Belonging("devicekeys", "account_id", "accounts", "id", "device", ("user_id", "device_id")),
    _Belonging("encryptedrooms", "account_id", "accounts", "id", "encrypted room", ("room_id",)),
    _Belonging("outgoingkeyrequests", "account_id", "accounts", "id", "key request", ("request_id",)),
    _Belonging("synctokens", "account_id", "accounts", "id", "sync token", ("account_id",)),
    _Belonging("keys", "device_id", "devicekeys", "id", "device key", ("device_id", "key_type")),
    _Belonging("devicetruststate", "device_id", "devicekeys", "id", "device trust", ("device_id",)),
    _Belonging(
        "forwardedchains", "session_id", "megolminboundsessions", "session_id", "forwarding chain", ("session_id",)
    ),
)


def read_accounts(
    source: NioFile, pickle_key: str, findings: Findings, wanted: Callable[[Account], bool] = lambda _: True
) -> list[AccountImport]:
    """The accounts of the source that are wanted and that the pickle key opens; the others become findings.

    Raises ConfigurationError if none is wanted; if none can be opened, UnreadableRecord or WrongPickleKey.
    """
    rows = source.accounts(findings)
    chosen = [row for row in rows if wanted(row.account)]
    if not chosen:
        there = ", ".join(str(row.account) for row in rows) or "none that can be read"
        raise ConfigurationError(f"the source has no account of that user id and device id; it has: {there}")
    opened = [each for row in chosen if (each := _open(source, row, pickle_key, findings))]
    if not opened:
        raise _why_none(chosen, findings)
    _report_orphans(source, findings)
    source.report_what_is_unknown(findings)
    for each in opened:
        _report_taken_olm_sessions(source, each, findings)
        _report_taken_group_sessions(source, each, findings)
    return opened


def _open(source: NioFile, row: SourceAccount, pickle_key: str, findings: Findings) -> AccountImport | None:
    try:
        return AccountImport(source, row, pickle_key, findings)
    except ValueError as error:
        damaged_or_locked = _DAMAGED if _opens_a_session(source, row, pickle_key) else _LOCKED
        reason = why_too_old(error) or damaged_or_locked
        findings.add(row.account, "account", reason, row.account)
        return None


def _opens_a_session(source: NioFile, row: SourceAccount, pickle_key: str) -> bool:
    unpickle: dict[str, Callable[[bytes], object]] = {
        "olmsessions": lambda pickle: Session.from_pickle(pickle, datetime.now(UTC), pickle_key),
        "megolminboundsessions": lambda pickle: InboundGroupSession.from_pickle(pickle, "", "", "", pickle_key),
    }
    for table, from_pickle in unpickle.items():
        for session in source.rows(table, Findings(), row):
            try:
                from_pickle(pickle_of(session["session"]))
            except (ValueError, KeyError):
                continue
            return True
    return False


def _why_none(chosen: list[SourceAccount], findings: Findings) -> UnreadableRecord | WrongPickleKey:
    names = ", ".join(str(row.account) for row in chosen)
    reasons = {finding.reason for finding in findings}
    if _DAMAGED in reasons:
        return UnreadableRecord(f"the source holds no readable account ({names}): {_DAMAGED}; restore it from a backup")
    if too_old := [reason for reason in reasons if is_too_old(reason)]:
        return UnreadableRecord(f"the source holds no readable account ({names}): {too_old[0]}")
    return WrongPickleKey(
        f"the pickle key opens no account of the source ({names}); give the one that the client uses, "
        "with CRYPTOSTORE_PICKLE_KEY, --pickle-key-file or --ask-pickle-key. A client that never set one has nio's "
        "default: give none then, and set no variable"
    )


def _report_orphans(source: NioFile, findings: Findings) -> None:
    """Note the rows whose owner is gone: nio's tables do not all delete them with it."""
    for each in _BELONGINGS:
        there = {row.get(each.owners_column) for row in source.rows(each.owners, findings)}
        for row in source.rows(each.table, findings):
            if row.get(each.column) not in there:
                reason = f"it belongs to a row of the table {each.owners} that is not there"
                findings.add(None, each.kind, reason, *(row.get(name) for name in each.id_columns))


def _report_taken_olm_sessions(source: NioFile, mine: AccountImport, findings: Findings) -> None:
    """Note the Olm sessions with another account of the file: of the two sides, the file keeps the last that wrote."""
    for row in source.rows("olmsessions", findings):
        if row.get("account_id") != mine.row_id and row.get("sender_key") == mine.identity_key:
            reason = "nio keeps a session id once in a file, and another account of this file saved its side over this"
            findings.add(mine.account, "Olm session", reason, row.get("session_id"))


def _report_taken_group_sessions(source: NioFile, mine: AccountImport, findings: Findings) -> None:
    """Note the Megolm sessions of this account's rooms that the file has under another account."""
    rooms = {
        row.get("room_id") for row in source.rows("encryptedrooms", findings) if row.get("account_id") == mine.row_id
    }
    for row in source.rows("megolminboundsessions", findings):
        if row.get("account_id") != mine.row_id and row.get("room_id") in rooms:
            reason = (
                "nio keeps a session id once in a file, and this one is under another account; "
                "a copy that this account had is not in the file"
            )
            findings.add(mine.account, "Megolm session", reason, row.get("room_id"), row.get("session_id"))
