"""A matrix-nio store on any backend of matrix-cryptostore."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, Self

from nio.crypto import InboundGroupSession, InboundSession, OlmAccount, OlmDevice, OutgoingKeyRequest, Session
from nio.store import MatrixStore

from cryptostore import records
from cryptostore.errors import ConfigurationError, FencedOut
from cryptostore.plugins.loading import shown_url
from cryptostore.records.changes import Changes
from cryptostore.records.fields import DeviceTrust
from cryptostore.store.answers import Found, Selected
from cryptostore.store.crypto_store import CryptoStore

from .account import LiveAccount
from .binding import bound
from .devices import DevicesByUser, LazyDeviceStore
from .group_sessions import LazyGroupSessionStore
from .lost import lost_accounts
from .pickles import Pickles, if_valid
from .sessions import LazySessionStore
from .standins import EncryptedRooms, stored_id, token_record, token_that_came
from .storage import Storage, backends
from .store_paths import check_folder, check_store_path, visible_path
from .to_back_up import SessionsToBackUp
from .wholeness import Whole, read_whole


class NioStore(MatrixStore):
    """Keeps the keys of a matrix-nio client in the database that `store_path` names by its URL.

    `AsyncClientConfig(store=NioStore, store_sync_tokens=True)` is the whole change for a client. With
    `NioStore.at(url)` in its place, `store_path` stays a folder. The store takes the account over from its last owner,
    whose later saves raise FencedOut. A save is durable when the call returns, except that of a sync token: that waits
    for the `save_encrypted_rooms` of its own sync, when the keys of the sync are durable, and is dropped if another
    token comes first.

    A save that raises BackendUnavailable or StorageFull is not lost while the process lives: it goes with the next one.

    `database_name` is accepted and not used: the URL names the database, which serves any number of accounts.

    A process whose save raised FencedOut does not take the account back while the new owner may be alive: opening it
    again raises FencedOut, too, until `take_back` allows it. A process that is started after that may.

    Raises ConfigurationError for a `store_path` that is not a URL, WrongPickleKey before anything is taken over,
    UnreadableRecord, before anything is taken over too, for a damaged Olm account or one that is missing although other
    records are there, and what `open_backend` and `Backend.open_store` raise.
    """

    #: The URL of the database to which `at` bound this class; empty where `store_path` is that URL.
    bound_to: ClassVar[str] = ""

    @classmethod
    def at(cls, url: str) -> type[Self]:
        """This class, bound to the database of this URL, for programs whose `store_path` is a folder.

        `AsyncClientConfig(store=NioStore.at("postgresql://host/keys"), store_sync_tokens=True)`. The store neither
        makes the folder nor writes into it, but a client needs one all the same: without a `store_path`, nio asks no
        store.
        Names and reprs show the URL without its secrets; pickling the class pickles the URL.

        Raises ConfigurationError for what is no URL. The store itself raises it for an account that the database lacks
        and nio's own store in the folder has: an empty database would give the device a new identity.
        """
        return bound(cls, url)

    def __init__(
        self, user_id: str, device_id: str, store_path: str, pickle_key: str = "", database_name: str = ""
    ) -> None:
        url = self._url(store_path)
        self.user_id = user_id
        self.device_id = device_id
        self.store_path = visible_path(store_path)
        self.pickle_key = pickle_key
        self.database_name = database_name

        self._account_id = records.Account(user_id, device_id)
        self._place = shown_url(url), self._account_id
        self._pickles = Pickles(self._account_id)
        self._storage = self._open(url)
        try:
            self._storage.read_ahead(self._read_at_opening)
            self._account = LiveAccount(self._pickles, self._storage.get(records.OlmAccount, [()]).get(()))
        except BaseException:
            self._storage.close()
            raise
        self._sessions = LazySessionStore(self._storage, self._pickles)
        self._to_back_up = SessionsToBackUp(self._storage)
        self._group_sessions = self._make_group_sessions()
        self._devices = LazyDeviceStore(self._storage)
        self._known_rooms: set[str] = set()
        self._held_token: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.user_id!r}, {self.device_id!r}, {self.store_path!r})"

    # The base class compares fields, and has no hash.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def close(self) -> None:
        """Give the database back. A token that is still held is dropped. Closing twice is no error."""
        self._held_token = None
        self._storage.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all that is saved inside the block one batch: durable whole when the block is left, or not at all.

        A client that handles one sync inside one block, its token included, can be killed at any moment: the server
        sends again what is not in the database, and the ratchets there can still read it. Room keys in bulk, such as
        those of `AsyncClient.import_keys`, cost one look-up for all and one commit, instead of both for each. Of more
        than 5,000 records, devices and room keys go first, in several commits.

        If the block raises, a token that still waits for its `save_encrypted_rooms` is dropped. The rest goes with the
        next save: the live sessions have moved on, and what they have read cannot be read again. Blocks do not nest.
        Raises what `CryptoStore.apply` raises.
        """
        try:
            with self._storage.hold_back(), self._group_sessions.compare_later():
                yield
        except BaseException:
            self._held_token = None
            raise
        self._write(Changes())

    def upgrade_to_v2(self) -> None:
        """Do nothing: the backend keeps its own tables up to date."""

    def load_account(self) -> OlmAccount | None:
        """The Olm account, or None if this device has none yet."""
        return self._account.account

    def save_account(self, account: OlmAccount) -> None:
        """Save the Olm account."""
        self._write(self._account.changes(account))

    def load_sessions(self) -> LazySessionStore:
        """The Olm sessions. Nothing is read before it is asked for."""
        return self._sessions

    def save_session(self, curve_key: str, session: Session) -> None:
        """Save an Olm session with the device that owns `curve_key`.

        A session that a pre-key message began has consumed a one-time key of the account, so that goes along: saved
        apart, a crash between the two would let the same message begin a session again.
        """
        changes = self._sessions.changes(curve_key, session)
        if isinstance(session, InboundSession):
            changes = changes.followed_by(self._account.changes())
        self._write(changes)

    def load_inbound_group_sessions(self) -> LazyGroupSessionStore:
        """The inbound Megolm sessions. Nothing is read before it is asked for."""
        return self._group_sessions

    def save_inbound_group_session(self, session: InboundGroupSession) -> None:
        """Save an inbound Megolm session, unless a better one with its id is there."""
        self._write(self._group_sessions.changes(session))

    def load_device_keys(self) -> LazyDeviceStore:
        """The devices. Nothing is read before it is asked for."""
        return self._devices

    def save_device_keys(self, device_keys: DevicesByUser) -> None:
        """Save devices, by user id and device id, in one batch; also those of a client's whole `device_store`."""
        self._write(self._devices.changes(device_keys))

    def load_encrypted_rooms(self) -> set[str]:
        """The ids of the rooms that are encrypted, also of those whose record cannot be read."""
        return self._know_rooms(self._storage.select(records.EncryptedRoom, [()]))

    def _know_rooms(self, found: Selected[records.EncryptedRoom]) -> set[str]:
        self._known_rooms = _room_ids(room.key for room in found[()]) | _room_ids(found.unreadable)
        return EncryptedRooms(self._known_rooms)

    def save_encrypted_rooms(self, rooms: Iterable[str]) -> None:
        """Remember that rooms are encrypted; in the same batch, the sync token that was held.

        What is stored of a room already, such as its settings, stays.
        """
        new = set(map(stored_id, rooms)) - self._known_rooms
        stored = self._storage.get(records.EncryptedRoom, [(room_id,) for room_id in new]) if new else Found()
        self._known_rooms |= _room_ids(stored) | _room_ids(stored.unreadable)
        added = [records.EncryptedRoom(room_id) for room_id in new - self._known_rooms]
        token = None if self._held_token is None else token_record(self._held_token)
        self._write(Changes([*added, token] if token else added))
        self._held_token = None
        self._known_rooms.update(room.room_id for room in added)

    def delete_encrypted_room(self, room: str) -> None:
        """Forget that this account has an encrypted room of this id."""
        room_id = stored_id(room)
        self._known_rooms.discard(room_id)
        self._write(Changes(deletes=[(records.EncryptedRoom, (room_id,))]))

    def save_sync_token(self, token: str) -> None:
        """Hold a sync token until the keys of its sync are durable: nio calls this before it handles the sync."""
        self._held_token = token

    def load_sync_token(self) -> str | None:
        """The last sync token whose sync was handled."""
        stored = self._storage.get(records.SyncToken, [()])
        return token_that_came(stored[()].token) if stored else None

    def load_outgoing_key_requests(self) -> dict[str, OutgoingKeyRequest]:
        """The room keys that were asked for and have not come yet, by request id."""
        return {
            row.request_id: OutgoingKeyRequest(row.request_id, row.session_id, row.room_id, row.algorithm)
            for row in self._storage.select(records.OutgoingKeyRequest, [()])[()]
        }

    def add_outgoing_key_request(self, key_request: OutgoingKeyRequest) -> None:
        """Remember that a room key was asked for."""
        record = if_valid(partial(_request_record, key_request))
        self._write(Changes([record] if record else []))

    def remove_outgoing_key_request(self, key_request: OutgoingKeyRequest) -> None:
        """Forget that a room key was asked for."""
        self._delete(partial(_request_record, key_request))

    def verify_device(self, device: OlmDevice) -> bool:
        """Trust a device. Returns whether that is new; False also for a device under another Ed25519 key."""
        return self._decide(device, DeviceTrust.VERIFIED)

    def unverify_device(self, device: OlmDevice) -> bool:
        """Take trust back. Returns whether the device was verified."""
        return self._undecide(device, DeviceTrust.VERIFIED)

    def is_device_verified(self, device: OlmDevice) -> bool:
        """Whether the owner trusts this device with this Ed25519 key."""
        return self._devices.trust(device) is DeviceTrust.VERIFIED

    def blacklist_device(self, device: OlmDevice) -> bool:
        """Exclude a device from room keys. Returns whether that is new."""
        return self._decide(device, DeviceTrust.BLACKLISTED)

    def unblacklist_device(self, device: OlmDevice) -> bool:
        """Lift an exclusion. Returns whether the device was blacklisted."""
        return self._undecide(device, DeviceTrust.BLACKLISTED)

    def is_device_blacklisted(self, device: OlmDevice) -> bool:
        """Whether the owner excluded this device."""
        return self._devices.trust(device) is DeviceTrust.BLACKLISTED

    def ignore_device(self, device: OlmDevice) -> bool:
        """Share room keys with a device without trusting it. Returns whether that is new."""
        return self._decide(device, DeviceTrust.IGNORED)

    def unignore_device(self, device: OlmDevice) -> bool:
        """No longer ignore a device. Returns whether it was ignored."""
        return self._undecide(device, DeviceTrust.IGNORED)

    def is_device_ignored(self, device: OlmDevice) -> bool:
        """Whether the owner ignores that this device is not verified."""
        return self._devices.trust(device) is DeviceTrust.IGNORED

    def ignore_devices(self, devices: list[OlmDevice]) -> None:
        """Ignore many devices, in one batch."""
        self._write(self._devices.trust_changes(devices, DeviceTrust.IGNORED))

    def _url(self, store_path: str) -> str:
        """The URL of the database."""
        if self.bound_to:
            return self.bound_to
        check_store_path(store_path)
        return store_path

    def _open(self, url: str) -> Storage:
        backend, release = backends.acquire(url)
        try:
            store = backend.open_store(self._account_id, pickle_key=self.pickle_key, look=self._look)
            lost_accounts.opened(self._place, store.ownership)
            return self._make_storage(store, release)
        except BaseException:
            release()
            raise

    @staticmethod
    def take_back(user_id: str, device_id: str, store_path: str) -> None:
        """Let this process open an account again that it has lost, although its new owner may be alive."""
        lost_accounts.forget((shown_url(store_path), records.Account(user_id, device_id)))

    def is_lost(self) -> None:
        """Note that another process has the account now."""
        lost_accounts.fenced(self._place)

    @property
    def _read_at_opening(self) -> tuple[tuple[type[records.Record], records.Key], ...]:
        """What is asked for while a client opens the account, read in one round trip."""
        return (
            (records.OlmAccount, ()),
            (records.EncryptedRoom, ()),
            (records.SyncToken, ()),
            (records.OutgoingKeyRequest, ()),
            (records.KeyBackup, ()),
        )

    def _make_storage(self, store: CryptoStore, release: Callable[[], None]) -> Storage:
        return Storage(store, release)

    def _make_group_sessions(self) -> LazyGroupSessionStore:
        return LazyGroupSessionStore(self._storage, self._pickles, self._to_back_up)

    def _look(self, store: CryptoStore | None) -> None:
        """Check the account before it is taken over. Raises if it must not be."""
        if store is not None:
            self._judge(store, read_whole(store, self._looked_at))
        elif self.bound_to:
            check_folder(self.store_path, self.database_name, self._account_id)

    #: The values that are read before the account is taken over, in one round trip.
    _looked_at: ClassVar[tuple[records.Key, ...]] = ()

    def _judge(self, store: CryptoStore, whole: Whole) -> None:
        """Check what was read. Raises if the account must not be taken over."""
        lost_accounts.check(self._place, store)
        if whole.restored is not None and not self._replaces_what_was_lost:
            raise ConfigurationError(
                f"a backup of {store.account} was put back, and the homeserver still hands out keys that were lost, "
                "which this client cannot replace: log in once with ProductionMatrixClient, and let it sync until it "
                "says that the account is whole again. Nothing was taken over"
            )

    #: Whether the client of this store completes what `cryptostore restored` began.
    _replaces_what_was_lost: ClassVar[bool] = False

    def _write(self, changes: Changes) -> None:
        """Write what nio saves; all of it comes through here."""
        if self._group_sessions.is_waiting:
            # What goes first must not get ahead of them: a token would acknowledge messages whose keys are lost.
            with self._storage.hold_back():
                self._storage.write(changes)
                changes = self._group_sessions.collect()
        try:
            batch = self._storage.write(changes)
        except FencedOut:
            self.is_lost()
            raise
        if not batch:
            return
        self._account.settle(batch)
        self._sessions.settle(batch)
        self._group_sessions.settle(batch)
        self._devices.settle(batch)

    def _delete(self, make: Callable[[], records.Record]) -> None:
        # A record that cannot exist has nothing to delete.
        record = if_valid(make)
        if record is not None:
            self._write(Changes(deletes=[(type(record), record.key)]))

    def _decide(self, device: OlmDevice, trust: DeviceTrust) -> bool:
        changes = self._devices.trust_changes([device], trust)
        self._write(changes)
        return bool(changes)

    def _undecide(self, device: OlmDevice, trust: DeviceTrust) -> bool:
        if self._devices.trust(device) is trust:
            return self._decide(device, DeviceTrust.UNSET)
        self._devices.show_trust(device)
        return False


def _room_ids(keys: Iterable[records.Key | None]) -> set[str]:
    return {str(key[0]) for key in keys if key is not None}


def _request_record(request: OutgoingKeyRequest) -> records.OutgoingKeyRequest:
    return records.OutgoingKeyRequest(request.request_id, request.session_id, request.room_id, request.algorithm)
