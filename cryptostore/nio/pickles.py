"""nio's objects as records and back: the only module that handles pickles and the pickle key."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from nio.crypto import InboundGroupSession, OlmAccount, OutboundGroupSession, Session
from nio.crypto.sessions import derive_pickle_key

from cryptostore import records
from cryptostore.errors import InvalidRecord, UnreadableRecord, WrongPickleKey
from cryptostore.observers import notify

from .times import to_local, to_utc

R = TypeVar("R", bound=records.Record)
V = TypeVar("V")

_SALT_BYTES: Final = 16
#: Keeps the key check apart from everything else that could be computed with the same key.
_KEY_CHECK_PURPOSE: Final = b"matrix-cryptostore key check\0"

_log: Final = logging.getLogger(__name__)


class Pickles:
    """Pickles and unpickles one account's objects with its pickle key."""

    def __init__(self, account: records.Account, pickle_key: str) -> None:
        self._account = account
        self._pickle_key = pickle_key

    def new_key_check(self) -> bytes:
        """A salt and what this pickle key makes of it, to recognise the key by."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return salt + self._keyed(salt)

    def fits(self, key_check: bytes) -> bool:
        """Whether `key_check` was made with this pickle key."""
        salt, expected = key_check[:_SALT_BYTES], key_check[_SALT_BYTES:]
        return hmac.compare_digest(self._keyed(salt), expected)

    def account_record(self, account: OlmAccount, key_check: bytes) -> records.OlmAccount:
        """The account's record."""
        return records.OlmAccount(account.pickle(self._pickle_key), account.shared, key_check)

    def account(self, record: records.OlmAccount) -> OlmAccount:
        """The account behind a record.

        Raises WrongPickleKey if the pickle key is another one, UnreadableRecord if the pickle is damaged. Neither may
        lead to a new account: it would be a new identity over the old.
        """
        try:
            return OlmAccount.from_pickle(record.pickle, self._pickle_key, record.shared)
        except ValueError as error:
            raise self._why_unreadable(record) from error

    def olm_session_record(self, sender_key: str, session: Session) -> records.OlmSession:
        """The Olm session's record. Raises InvalidRecord."""
        return records.OlmSession(
            sender_key=sender_key,
            session_id=session.id,
            pickle=session.pickle(self._pickle_key),
            created_at=to_utc(session.creation_time),
            last_used_at=to_utc(session.use_time),
        )

    def olm_session(self, record: records.OlmSession) -> Session | None:
        """The Olm session of a record, or None for an unreadable one, which is reported and kept."""

        def unpickle() -> Session:
            created_at, last_used_at = to_local(record.created_at), to_local(record.last_used_at)
            session = Session.from_pickle(record.pickle, created_at, self._pickle_key, last_used_at)
            _check_id(session.id, record.session_id)
            return session

        return self._if_readable(record, unpickle)

    def group_session_record(self, session: InboundGroupSession, received_at: datetime) -> records.InboundGroupSession:
        """The Megolm session's record. Raises InvalidRecord."""
        return records.InboundGroupSession(
            room_id=session.room_id,
            session_id=session.id,
            sender_key=session.sender_key,
            pickle=session.pickle(self._pickle_key),
            signing_key=session.ed25519,
            forwarding_chain=tuple(session.forwarding_chain),
            first_known_index=session.first_known_index,
            received_at=received_at,
        )

    def group_session(self, record: records.InboundGroupSession) -> InboundGroupSession | None:
        """The Megolm session of a record, or None for an unreadable one, which is reported and kept."""

        def unpickle() -> InboundGroupSession:
            session = InboundGroupSession.from_pickle(
                record.pickle,
                record.signing_key,
                record.sender_key,
                record.room_id,
                self._pickle_key,
                list(record.forwarding_chain),
            )
            _check_id(session.id, record.session_id)
            return session

        return self._if_readable(record, unpickle)

    def _keyed(self, salt: bytes) -> bytes:
        return hmac.digest(derive_pickle_key(self._pickle_key), _KEY_CHECK_PURPOSE + salt, "sha256")

    def outbound_record(self, room_id: str, session: OutboundGroupSession) -> records.OutboundGroupSession:
        """The outbound Megolm session's record. Raises InvalidRecord."""
        return records.OutboundGroupSession(
            room_id=room_id,
            pickle=session.pickle(self._pickle_key),
            created_at=to_utc(session.creation_time),
            message_count=session.message_count,
            shared=session.shared,
            shared_with=frozenset(session.users_shared_with),
            ignored=frozenset(session.users_ignored),
        )

    def outbound_session(self, record: records.OutboundGroupSession) -> OutboundGroupSession | None:
        """The outbound Megolm session of a record, or None for an unreadable one, which is reported and kept."""

        def unpickle() -> OutboundGroupSession:
            session = OutboundGroupSession.from_pickle(record.pickle, self._pickle_key)
            session.creation_time = to_local(record.created_at)
            session.message_count = record.message_count
            session.shared = record.shared
            session.users_shared_with = {(user, device) for user, device in record.shared_with}
            session.users_ignored = {(user, device) for user, device in record.ignored}
            return session

        return self._if_readable(record, unpickle)

    def _why_unreadable(self, record: records.OlmAccount) -> WrongPickleKey | UnreadableRecord:
        if not record.key_check:
            return UnreadableRecord(
                f"the Olm account of {self._account} cannot be read: the pickle key is wrong or the pickle is damaged. "
                "It was left as it is; try the pickle key that it was saved with, else restore it from a backup"
            )
        if self.fits(record.key_check):
            return UnreadableRecord(
                f"the Olm account of {self._account} is damaged although the pickle key is right. "
                "It was left as it is; restore it from a backup"
            )
        return WrongPickleKey(
            f"the keys of {self._account} were saved with another pickle key; nothing is damaged: "
            "give that one, as AsyncClientConfig(pickle_key=...) in matrix-nio"
        )

    def _if_readable(self, record: records.Record, unpickle: Callable[[], V]) -> V | None:
        try:
            return unpickle()
        except (ValueError, OverflowError) as error:
            notify("cryptostore_unreadable_row", account=self._account, kind=record.kind_name)
            # The error's text may quote the pickle, so only its type is shown.
            _log.warning("skipped an unreadable %s of %s (%s)", record.kind_name, self._account, type(error).__name__)
            return None


def if_valid(make: Callable[[], R]) -> R | None:
    """The record that `make` makes, or None for one that no backend may store.

    Ids in records come from strangers on the network: one bad record is dropped and reported, and holds nothing up.
    """
    try:
        return make()
    except InvalidRecord as error:
        _log.warning("dropped what the network sent and no database can store: %s", error)
        return None


def _check_id(unpickled: str, stored: str) -> None:
    if unpickled != stored:
        raise ValueError("the pickle is another session's")
