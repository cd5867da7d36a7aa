"""nio's objects as records and back: the only module that handles pickles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from nio.crypto import InboundGroupSession, OlmAccount, OutboundGroupSession, Session

from cryptostore import records
from cryptostore.errors import InvalidRecord, UnreadableRecord
from cryptostore.logs import logger
from cryptostore.plugins.observers import notify
from cryptostore.trust import unpadded_base64

from .bounds import FORWARDERS, KEY
from .provenance import is_from_backup, note_origin
from .receive_only import is_receive_only, note_receive_only
from .times import to_local, to_utc

R = TypeVar("R", bound=records.Record)
V = TypeVar("V")

#: What vodozemac encrypts pickles with; it makes none without a key. Part of the format, and no secret: the core seals
#: every record, and another key here would make every stored pickle unreadable.
PICKLE_KEY: Final = "matrix-cryptostore"

_log: Final = logger(__name__)


class Pickles:
    """Pickles and unpickles one account's objects."""

    def __init__(self, account: records.Account) -> None:
        self._account = account

    def account_record(self, account: OlmAccount) -> records.OlmAccount:
        """The account's record."""
        return records.OlmAccount(account.pickle(PICKLE_KEY), account.shared)

    def account(self, record: records.OlmAccount) -> OlmAccount:
        """The account behind a record.

        Raises UnreadableRecord if the pickle is damaged. That may not lead to a new account: it would be a new
        identity over the old.
        """
        try:
            return OlmAccount.from_pickle(record.pickle, PICKLE_KEY, record.shared)
        except ValueError:
            # vodozemac's error may quote the pickle.
            raise UnreadableRecord(
                f"the pickle in the Olm account of {self._account} is damaged. It was left as it is; restore the "
                "account from a backup"
            ) from None

    def olm_session_record(self, sender_key: str, session: Session) -> records.OlmSession:
        """The Olm session's record. Raises InvalidRecord."""
        return records.OlmSession(
            sender_key=sender_key,
            session_id=session.id,
            pickle=session.pickle(PICKLE_KEY),
            created_at=to_utc(session.creation_time),
            last_used_at=to_utc(session.use_time),
            receive_only=is_receive_only(session),
        )

    def olm_session(self, record: records.OlmSession) -> Session | None:
        """The Olm session of a record, or None for an unreadable one, which is reported and kept."""

        def unpickle() -> Session:
            created_at, last_used_at = to_local(record.created_at), to_local(record.last_used_at)
            session = Session.from_pickle(record.pickle, created_at, PICKLE_KEY, last_used_at)
            _check_id(session.id, record.session_id)
            if record.receive_only:
                note_receive_only(session)
            return session

        return self._if_readable(record, unpickle)

    def group_session_record(self, session: InboundGroupSession, received_at: datetime) -> records.InboundGroupSession:
        """The Megolm session's record. Raises InvalidRecord."""
        return records.InboundGroupSession(
            room_id=session.room_id,
            session_id=session.id,
            sender_key=session.sender_key,
            session_key=unpadded_base64.decode(session.export_session(session.first_known_index)),
            signing_key=session.ed25519,
            forwarding_chain=_bounded(session.forwarding_chain),
            first_known_index=session.first_known_index,
            received_at=received_at,
            from_backup=is_from_backup(session),
        )

    def group_session(self, record: records.InboundGroupSession) -> InboundGroupSession | None:
        """The Megolm session of a record, or None for an unreadable one, which is reported and kept."""

        def imported() -> InboundGroupSession:
            session = InboundGroupSession.import_session(
                unpadded_base64.encode(record.session_key),
                record.signing_key,
                record.sender_key,
                record.room_id,
                list(record.forwarding_chain),
            )
            _check_id(session.id, record.session_id)
            note_origin(session, from_backup=record.from_backup)
            return session

        return self._if_readable(record, imported)

    def outbound_record(self, room_id: str, session: OutboundGroupSession, parts: int) -> records.OutboundGroupSession:
        """The outbound Megolm session's record, with so many parts. Raises InvalidRecord."""
        return records.OutboundGroupSession(
            room_id=room_id,
            pickle=session.pickle(PICKLE_KEY),
            created_at=to_utc(session.creation_time),
            message_count=session.message_count,
            shared=session.shared,
            parts=parts,
        )

    def outbound_session(self, record: records.OutboundGroupSession) -> OutboundGroupSession | None:
        """The outbound Megolm session of a record, or None for an unreadable one, which is reported and kept.

        Who has its key is not known yet: that is in its parts.
        """

        def unpickle() -> OutboundGroupSession:
            session = OutboundGroupSession.from_pickle(record.pickle, PICKLE_KEY)
            session.creation_time = to_local(record.created_at)
            session.message_count = record.message_count
            session.shared = record.shared
            return session

        return self._if_readable(record, unpickle)

    def _if_readable(self, record: records.Record, unpickle: Callable[[], V]) -> V | None:
        try:
            return unpickle()
        except (ValueError, OverflowError) as error:
            # The error's text may quote the pickle, so only its type is shown.
            reason = f"vodozemac does not take what it holds ({type(error).__name__})"
            kind, key = record.kind_name, record.key
            notify("cryptostore_unreadable_row", account=self._account, kind=kind, key=key, reason=reason)
            _log.warning("an unreadable %s of %s was left as it is (%s)", kind, self._account, reason)
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


def _bounded(chain: Sequence[str]) -> tuple[str, ...]:
    if len(chain) > FORWARDERS or any(len(key) > KEY for key in chain):
        raise InvalidRecord(records.InboundGroupSession.kind_name, "forwarding_chain", "is too long")
    return tuple(chain)


def _check_id(found: str, expected: str) -> None:
    if found != expected:
        raise ValueError("it is another session")
