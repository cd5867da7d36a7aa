"""nio's objects as records and back: the only module that handles pickles."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from nio.crypto import InboundGroupSession, OlmAccount, OutboundGroupSession, Session

from cryptostore import records
from cryptostore.errors import InvalidRecord, UnreadableRecord
from cryptostore.observers import notify

from .key_ring import KeyRing, is_locked
from .times import to_local, to_utc

R = TypeVar("R", bound=records.Record)
V = TypeVar("V")
Pickled = TypeVar("Pickled", records.OlmSession, records.InboundGroupSession, records.OutboundGroupSession)

_log: Final = logging.getLogger(__name__)


class Pickles:
    """Pickles and unpickles one account's objects."""

    def __init__(self, account: records.Account, key_ring: KeyRing) -> None:
        self._account = account
        self._key_ring = key_ring
        # While the account's row does not hold the ring, no other row may depend on it.
        self._newest_key = key_ring.keys[0 if key_ring.is_stored else -1]

    def account_record(self, account: OlmAccount) -> records.OlmAccount:
        """The account's record."""
        return records.OlmAccount(account.pickle(self._key_ring.keys[0]), account.shared, self._key_ring.sealed)

    def use_key_ring(self) -> None:
        """The account's record is durable, or nobody reads the others before it is."""
        self._newest_key = self._key_ring.keys[0]

    def account(self, record: records.OlmAccount) -> OlmAccount:
        """The account behind a record.

        Raises UnreadableRecord if the pickle is damaged. That may not lead to a new account: it would be a new
        identity over the old.
        """
        try:
            account = self._unpickled(lambda key: OlmAccount.from_pickle(record.pickle, key, record.shared))
        except ValueError as error:
            raise self._why_unreadable(record) from error
        # To be saved with its new keys.
        account.upgrade_pickle |= not self._key_ring.is_stored
        return account

    def olm_session_record(self, sender_key: str, session: Session) -> records.OlmSession:
        """The Olm session's record. Raises InvalidRecord."""
        return records.OlmSession(
            sender_key=sender_key,
            session_id=session.id,
            pickle=session.pickle(self._newest_key),
            created_at=to_utc(session.creation_time),
            last_used_at=to_utc(session.use_time),
        )

    def olm_session(self, record: records.OlmSession) -> Session | None:
        """The Olm session of a record, or None for an unreadable one, which is reported and kept."""

        def unpickle(key: str) -> Session:
            created_at, last_used_at = to_local(record.created_at), to_local(record.last_used_at)
            session = Session.from_pickle(record.pickle, created_at, key, last_used_at)
            _check_id(session.id, record.session_id)
            return session

        return self._if_readable(record, unpickle)

    def group_session_record(self, session: InboundGroupSession, received_at: datetime) -> records.InboundGroupSession:
        """The Megolm session's record. Raises InvalidRecord."""
        return records.InboundGroupSession(
            room_id=session.room_id,
            session_id=session.id,
            sender_key=session.sender_key,
            pickle=session.pickle(self._newest_key),
            signing_key=session.ed25519,
            forwarding_chain=tuple(session.forwarding_chain),
            first_known_index=session.first_known_index,
            received_at=received_at,
        )

    def group_session(self, record: records.InboundGroupSession) -> InboundGroupSession | None:
        """The Megolm session of a record, or None for an unreadable one, which is reported and kept."""

        def unpickle(key: str) -> InboundGroupSession:
            session = InboundGroupSession.from_pickle(
                record.pickle,
                record.signing_key,
                record.sender_key,
                record.room_id,
                key,
                list(record.forwarding_chain),
            )
            _check_id(session.id, record.session_id)
            return session

        return self._if_readable(record, unpickle)

    def renewed(self, record: Pickled) -> Pickled | None:
        """The record with its pickle under the newest key, or None for an unreadable one, which is reported."""
        session = self._session(record)
        return None if session is None else replace(record, pickle=session.pickle(self._newest_key))

    def _session(self, record: Pickled) -> Session | InboundGroupSession | OutboundGroupSession | None:
        if isinstance(record, records.OlmSession):
            return self.olm_session(record)
        if isinstance(record, records.InboundGroupSession):
            return self.group_session(record)
        return self.outbound_session(record)

    def outbound_record(self, room_id: str, session: OutboundGroupSession) -> records.OutboundGroupSession:
        """The outbound Megolm session's record. Raises InvalidRecord."""
        return records.OutboundGroupSession(
            room_id=room_id,
            pickle=session.pickle(self._newest_key),
            created_at=to_utc(session.creation_time),
            message_count=session.message_count,
            shared=session.shared,
            shared_with=frozenset(session.users_shared_with),
            ignored=frozenset(session.users_ignored),
        )

    def outbound_session(self, record: records.OutboundGroupSession) -> OutboundGroupSession | None:
        """The outbound Megolm session of a record, or None for an unreadable one, which is reported and kept."""

        def unpickle(key: str) -> OutboundGroupSession:
            session = OutboundGroupSession.from_pickle(record.pickle, key)
            session.creation_time = to_local(record.created_at)
            session.message_count = record.message_count
            session.shared = record.shared
            session.users_shared_with = {(user, device) for user, device in record.shared_with}
            session.users_ignored = {(user, device) for user, device in record.ignored}
            return session

        return self._if_readable(record, unpickle)

    def _unpickled(self, unpickle: Callable[[str], V]) -> V:
        """What `unpickle` makes with the first of our keys that fits. Raises its error for the newest if none does."""
        try:
            return unpickle(self._newest_key)
        except ValueError:
            for other in self._key_ring.keys:
                with suppress(ValueError):
                    return _with_upgrade(unpickle(other))
            raise

    def _why_unreadable(self, record: records.OlmAccount) -> UnreadableRecord:
        if is_locked(record):
            return UnreadableRecord(
                f"the Olm account of {self._account} is damaged although the pickle key is right. "
                "It was left as it is; restore it from a backup"
            )
        return UnreadableRecord(
            f"the Olm account of {self._account} cannot be read: the pickle key is wrong or the pickle is damaged. "
            "It was left as it is; try the pickle key that it was saved with, else restore it from a backup"
        )

    def _if_readable(self, record: records.Record, unpickle: Callable[[str], V]) -> V | None:
        try:
            return self._unpickled(unpickle)
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


def _with_upgrade(unpickled: V) -> V:
    # nio's own mark. Outbound sessions have none: every message writes them anew.
    if hasattr(unpickled, "upgrade_pickle"):
        unpickled.upgrade_pickle = True
    return unpickled


def _check_id(unpickled: str, stored: str) -> None:
    if unpickled != stored:
        raise ValueError("the pickle is another session's")
