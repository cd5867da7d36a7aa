"""NioStore with a write buffer, for a client that flushes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

from nio.crypto import InboundGroupSession, InboundSession, OlmAccount, Session

from cryptostore import records
from cryptostore.errors import ConfigurationError
from cryptostore.nio.group_sessions import GroupSessionKey
from cryptostore.nio.pickles import Pickles, if_valid
from cryptostore.nio.receive_only import note_receive_only
from cryptostore.nio.standins import stored_id, stored_token, token_record
from cryptostore.nio.storage import Storage
from cryptostore.nio.store import NioStore
from cryptostore.nio.to_back_up import SessionsToBackUp
from cryptostore.nio.trust.identities import Identities
from cryptostore.nio.trust.own_notes import OWN_IDENTITY, OwnNotes
from cryptostore.nio.trust.policies import ROOMS, RoomPolicies
from cryptostore.nio.trust.secrets import Secrets
from cryptostore.nio.trust.sender_keys import SenderDevices
from cryptostore.nio.wholeness import Whole
from cryptostore.records.changes import Changes
from cryptostore.store.answers import Selected
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.pickle_keys import PUBLIC_PICKLE_KEYS

from .anchor import ANCHOR, AnchorRecord, StoredAnchor, parsed, read_anchor
from .buffer import BufferedStorage
from .fallback_keys import FallbackKeys
from .gap_records import Gaps
from .group_sessions import OfferedGroupSessions
from .handled import HandledMessages
from .kept import KeptRecords
from .looking import Look, Seen, identity_keys
from .outbound import OutboundSessions
from .replay import ReplayProtection
from .rotations import Rotations
from .saved_login import ACCESS_TOKEN, saved_login
from .statistics import Statistics
from .takeovers import HISTORY, NotYetError, TakeOvers, next_turn
from .tracking import TrackedUsers
from .unreached import UnreachedDevices
from .withheld import WithheldKeys

#: A second copy of the token: a stock client, which tracks no users, moves only the first.
_TRACKED_UNTIL: Final = ("client", "tracked until")


class Kept(Protocol):
    """What is in memory and has records to write."""

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""

    def collect(self) -> Changes:
        """The records to write."""


class ProductionStore(NioStore):
    """What is saved waits for the next flush; live objects are pickled then, all in one step.

    `look` is called with what was seen, right before the account is taken over, and may raise. `history` is written
    after that; without one the store makes its own, and raises NotYetError where this process has to wait for its turn.

    Raises ConfigurationError for nio's default pickle key and for an empty one, and what NioStore raises.
    """

    _storage: BufferedStorage
    _group_sessions: OfferedGroupSessions

    def __init__(
        self,
        account: records.Account,
        url: str,
        pickle_key: str,
        statistics: Statistics,
        look: Look,
        history: TakeOvers | None = None,
    ) -> None:
        if pickle_key in PUBLIC_PICKLE_KEYS:
            raise ConfigurationError(
                "the pickle key is empty or nio's default, which everybody knows; choose one of your own and give it "
                "as pickle_key=..., or by CRYPTOSTORE_PICKLE_KEY, or its _FILE, _COMMAND or _KEYRING. "
                "`cryptostore rekey` gives it to keys that are in a database already"
            )
        self._statistics = statistics
        self._look_further = look
        #: What the account held before it was taken over.
        self.seen = Seen(account)
        self._history = history
        super().__init__(account.user_id, account.device_id, url, pickle_key)
        #: Whether this device has an identity that it was known with, or one that the homeserver does not contradict.
        self.is_confirmed = self._account.account is not None
        self._account_changed = False
        self._changed_sessions: dict[tuple[str, str], Session] = {}
        self._written: set[records.RecordKey] | None = None
        try:
            self.handled = HandledMessages(self._storage)
            self.replays = ReplayProtection(self._storage, self._storage.replay_key)
            self.rotations = Rotations(self._storage)
            self.outbound = OutboundSessions(self._storage, self._pickles, self.rotations)
            self.unreached = UnreachedDevices(self._storage)
            self.withheld = WithheldKeys(self._storage)
            self.fallback_keys = FallbackKeys(self._storage, account)
            self.gaps = Gaps(self._storage)
            self.identities = Identities(self._storage)
            self.sender_devices = SenderDevices(self._storage, self.identities.signatures)
            self.room_policies = RoomPolicies(self._storage)
            self.secrets = Secrets(self._storage, self._storage.secrets)
            self.own_notes = OwnNotes(self._storage)
            self.anchor = AnchorRecord(self._storage)
            self.restored = KeptRecords(self._storage, records.RestoredAccount)
            self.verifications = KeptRecords(self._storage, records.Verification)
            #: How far the account had read when it was opened.
            self.token_at_opening = self.load_sync_token()
            is_current = not self.restored.rows and self._is_tracking_current(self.token_at_opening)
            self.tracking = TrackedUsers(self._storage, is_current=is_current)
        except BaseException:
            self._storage.close()
            raise

    @property
    def account_id(self) -> records.Account:
        """Whose keys these are."""
        return self._account_id

    @property
    def pickles(self) -> Pickles:
        """The account's pickles."""
        return self._pickles

    @property
    def storage(self) -> BufferedStorage:
        """The buffer."""
        return self._storage

    @property
    def to_back_up(self) -> SessionsToBackUp:
        """The backup in use, and what is not in it yet."""
        return self._to_back_up

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(
            self._storage.is_waiting
            or self._account_changed
            or self._changed_sessions
            or self._group_sessions.is_dirty
            or any(kept.is_dirty for kept in self._kept)
        )

    def collect(self) -> Changes:
        """The records of all live objects that changed, as they are now."""
        puts: list[records.Record] = []
        for (sender_key, session_id), session in self._changed_sessions.items():
            if not self._sessions.is_kept(sender_key, session):
                continue
            record = if_valid(partial(self._sessions.record, sender_key, session))
            if record is None:
                self._sessions.release(sender_key, session_id)
            else:
                puts.append(record)
        self._changed_sessions.clear()
        changes = self._group_sessions.collect().followed_by(Changes(puts, self._sessions.take_forgotten()))
        if self._account_changed:
            self._account_changed = False
            changes = changes.followed_by(self._account.changes())
        for kept in self._kept:
            changes = changes.followed_by(kept.collect())
        return changes

    @property
    def _kept(self) -> tuple[Kept, ...]:
        """What nio itself tells no store about."""
        return (
            self.handled,
            self.replays,
            self.outbound,
            self.tracking,
            self.unreached,
            self.withheld,
            self.fallback_keys,
            self.identities,
            self.identities.changes,
            self.sender_devices,
            self.secrets.kept,
            self.verifications,
            self.restored,
            *self.gaps.kept,
        )

    def settle(self, batch: Changes) -> None:
        """The batch is durable; what has changed since stays in memory."""
        self._account.settle(batch)
        self._sessions.settle(batch, self._changed_sessions)
        self._group_sessions.settle(batch)
        self._devices.settle(batch)
        self.replays.settle(batch)
        self.sender_devices.settle(batch)
        if self._written is not None:
            self._written.update(batch.keys())
        self._group_sessions.pin_dirty()

    @contextmanager
    def watched(self) -> Iterator[set[records.RecordKey]]:
        """What becomes durable inside the block: what was read before may have changed. Blocks do not nest."""
        written: set[records.RecordKey] = set()
        self._written = written
        try:
            yield written
        finally:
            self._written = None

    def are_group_sessions_in_memory(self, keys: Iterable[GroupSessionKey]) -> bool:
        """Whether these sessions are there, as far as is known without asking the database."""
        return self._group_sessions.are_in_memory(keys)

    def offered_sessions(self) -> list[GroupSessionKey]:
        """The keys of new Megolm sessions that were not compared with the stored ones yet."""
        return self._group_sessions.offered()

    def read_offers(
        self, keys: Iterable[GroupSessionKey]
    ) -> tuple[Iterable[GroupSessionKey], Mapping[GroupSessionKey, records.InboundGroupSession]]:
        """What is stored under these keys, for `settle_offers`. From any thread."""
        return keys, self._group_sessions.read_offers(keys)

    def settle_offers(
        self, read: tuple[Iterable[GroupSessionKey], Mapping[GroupSessionKey, records.InboundGroupSession]]
    ) -> None:
        """Keep the better one of each offer and what is stored."""
        self._group_sessions.settle_offers(*read)

    def complete_sync(self, token: str) -> None:
        """All of a sync was handled: its token goes with the next batch."""
        record = token_record(token)
        if record is not None:
            puts = [record, records.Value(*_TRACKED_UNTIL, record.token.encode())]
            self._storage.write(Changes(puts).followed_by(self.handled.forget()))

    def save_account(self, account: OlmAccount) -> None:
        """Write the account with the next flush."""
        self._account.account = account
        self._account_changed = True
        self._storage.touch()

    def save_session(self, curve_key: str, session: Session) -> None:
        """Write an Olm session with the next flush, and the account whose one-time key it consumed."""
        self._sessions.pin(curve_key, session)
        self._changed_sessions[curve_key, session.id] = session
        if isinstance(session, InboundSession):
            self._account_changed = True
            if self.restored.rows:
                # It may have begun before a backup was put back, and have been used since.
                note_receive_only(session)
        self._storage.touch()

    def save_inbound_group_session(self, session: InboundGroupSession) -> None:
        """Write an inbound Megolm session with the next flush, unless a better one is there."""
        self._group_sessions.save(session)
        self.withheld.key_came(session.id, session.sender_key)
        self._storage.touch()

    def _know_rooms(self, found: Selected[records.EncryptedRoom]) -> set[str]:
        self.rotations.load(found[()])
        return super()._know_rooms(found)

    def save_encrypted_rooms(self, rooms: Iterable[str]) -> None:
        """Remember that rooms are encrypted. All that were are known since `load_encrypted_rooms`."""
        added = set(map(stored_id, rooms)) - self._known_rooms
        self._storage.write(Changes(map(self.rotations.record, added)))
        self._known_rooms |= added

    def save_rotation(self, room_id: str, content: Mapping[str, Any]) -> None:
        """Remember how long an encrypted room's key is to be used, from the present one on."""
        session = self.outbound.in_use(room_id)
        if self.rotations.learn(room_id, content) and session is not None:
            self.rotations.limit(room_id, session)

    def save_sync_token(self, token: str) -> None:
        """Do nothing: nio calls this before it handles the sync. See `complete_sync`."""

    def _is_tracking_current(self, token: str | None) -> bool:
        marker = self._storage.get(records.Value, [_TRACKED_UNTIL]).get(_TRACKED_UNTIL)
        return token is not None and marker is not None and marker.value == stored_token(token).encode()

    def _url(self, store_path: str) -> str:
        # No program knows it as the path of a folder.
        return store_path

    def _open(self, url: str) -> Storage:
        storage = super()._open(url)
        storage.write(Changes([(self._history or TakeOvers()).record()]))
        return storage

    @property
    def _read_at_opening(self) -> tuple[tuple[type[records.Record], records.Key], ...]:
        return (
            *super()._read_at_opening,
            (records.OlmMessage, ()),
            (records.OutboundGroupSession, ()),
            (records.TrackedUser, ()),
            (records.UnreachedDevice, ()),
            (records.WithheldKey, ()),
            (records.FallbackKey, ()),
            (records.TimelineGap, ()),
            (records.GapPart, ()),
            (records.MissedEvents, ()),
            (records.CrossSigningKeys, ()),
            (records.IdentityChange, ()),
            (records.Secret, ()),
            (records.Verification, ()),
            (records.Value, _TRACKED_UNTIL),
            (records.Value, OWN_IDENTITY),
            (records.Value, ANCHOR),
            (records.RestoredAccount, ()),
            (records.Value, (ROOMS,)),
        )

    def _look(self, store: CryptoStore | None) -> None:
        super()._look(store)
        self._look_further(self.seen)

    _looked_at = (HISTORY, ACCESS_TOKEN, ANCHOR)
    _replaces_what_was_lost = True

    def _judge(self, store: CryptoStore, whole: Whole) -> None:
        super()._judge(store, whole)
        # One that cannot be read was reported, and a new login replaces it.
        login = saved_login(whole.values.get(ACCESS_TOKEN))
        keys = None if whole.olm_account is None else identity_keys(self._pickles.account(whole.olm_account))
        is_compared = whole.restored is None and ANCHOR not in whole.values.unreadable
        anchor = StoredAnchor(parsed(whole.values.get(ANCHOR)), is_compared, store.secrets, partial(read_anchor, store))
        self.seen = Seen(self._account_id, keys, login, anchor)
        if self._history is None:
            turn = next_turn(store.ownership.owner, whole.values.get(HISTORY))
            if turn.pause:
                raise NotYetError(turn)
            self._history = turn.history

    def _make_storage(self, store: CryptoStore, release: Callable[[], None]) -> Storage:
        return BufferedStorage(store, release, self._statistics)

    def _make_group_sessions(self) -> OfferedGroupSessions:
        return OfferedGroupSessions(self._storage, self._pickles, self._to_back_up)
