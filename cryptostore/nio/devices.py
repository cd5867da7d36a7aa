"""nio's container of devices, on a database instead of a dictionary, and the owner's trust in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from typing import Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from nio.crypto import DeviceStore, OlmDevice, TrustState

from cryptostore import records
from cryptostore.errors import InvalidRecord
from cryptostore.logs import logger
from cryptostore.records import Key
from cryptostore.records.changes import Changes, RecordKey
from cryptostore.records.fields import DeviceTrust

from . import bounds
from .cache import LazyMapping, LiveCache
from .pickles import if_valid
from .standins import stored_name
from .storage import Storage

_log: Final = logger(__name__)


class UserDevices(dict[str, OlmDevice]):
    """One user's devices by id, as nio mutates them, and their records as they were last handed to the database.

    `refused` are the ids of devices whose stored row cannot be read. The row may have blacklisted the device, so the
    device counts as blacklisted until the owner decides. The row stays as it is until then.
    """

    def __init__(self, refused: Iterable[str] = ()) -> None:
        super().__init__()
        self.records: dict[str, records.Device] = {}
        self.unsaved: set[str] = set()
        self.refused = set(refused)
        self.aside: dict[str, OlmDevice] = {}

    @property
    def known(self) -> int:
        """How many there are, with those that were set aside."""
        return len(self) + sum(device_id not in self for device_id in self.aside)

    def set_absent_aside(self, device_ids: Iterable[str]) -> None:
        """Let those of these devices that are deleted be unknown, until `take_back`."""
        absent = [device_id for device_id in device_ids if device_id in self and self[device_id].deleted]
        self.aside = {device_id: self.pop(device_id) for device_id in absent}

    def take_back(self) -> None:
        """Know the devices again that were set aside, unless others have come in their places."""
        aside, self.aside = self.aside, {}
        self.update({device_id: device for device_id, device in aside.items() if device_id not in self})


class _Stored(NamedTuple):
    """What the database holds of one user's devices: the records, and the ids of those that cannot be read."""

    rows: list[records.Device]
    unreadable: list[str]


class DevicesByUser(Protocol):
    """Devices by user id and device id: a dictionary, or one of nio's containers."""

    def items(self) -> Iterable[tuple[str, Mapping[str, OlmDevice]]]:
        """Each user with their devices by id."""
        ...


class LazyDeviceStore(DeviceStore):
    """The devices that the account knows, read when a user's are asked for.

    Trust is what the owner said about a device's Ed25519 key. It stays when the device's name or Curve25519 key
    changes; under another Ed25519 key only a blacklisting stays. nio itself never takes another Ed25519 key for a
    device that it knows, unless an answer of the homeserver lacked the device in between.
    """

    # Nothing here needs the base class's dictionary.
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._live: WeakValueDictionary[tuple[str, str], OlmDevice] = WeakValueDictionary()
        self._users: LiveCache[str, UserDevices] = LiveCache(self._read, self._build)
        self._by_user = LazyMapping(self._user_ids, self._users.fetch)
        self._forgotten: list[RecordKey] = []

    def __iter__(self) -> Iterator[OlmDevice]:
        for devices in self.values():
            yield from list(devices.values())

    def __getitem__(self, user_id: str) -> UserDevices:
        return self._users.fetch([user_id])[user_id]

    def items(self) -> ItemsView[str, UserDevices]:
        """Each user with their devices by id, read while they are gone through."""
        return self._by_user.items()

    def values(self) -> ValuesView[UserDevices]:
        """Each user's devices by id, read while they are gone through."""
        return self._by_user.values()

    def active_user_devices(self, user_id: str) -> Iterator[OlmDevice]:
        """The user's devices that are not deleted."""
        return iter([device for device in self[user_id].values() if not device.deleted])

    @property
    def users(self) -> KeysView[str]:
        """The users of whom devices are known, read while they are gone through."""
        return self._by_user.keys()

    def devices(self, user_id: str) -> KeysView[str]:
        """The ids of the user's devices."""
        return self[user_id].keys()

    def add(self, device: OlmDevice) -> bool:
        """Add a device, or replace the one of that id. Returns False if an equal one is there."""
        devices = self[device.user_id]
        if devices.get(device.id) == device:
            return False
        if device.id in devices.refused or not self._has_room_for(devices, device):
            self._refuse(devices, device)
        else:
            self._keep(device.user_id, devices, device)
        return True

    @contextmanager
    def absent_ones_aside(self, device_ids: Mapping[str, Iterable[str]]) -> Iterator[None]:
        """Inside the block, those of these devices that an earlier answer lacked are new to nio.

        nio leaves a device as it is that it calls deleted. One that was not added inside the block is back after it.
        """
        asked = [(self[user_id], ids) for user_id, ids in device_ids.items()]
        for devices, ids in asked:
            devices.set_absent_aside(ids)
        try:
            yield
        finally:
            for devices, _ in asked:
                devices.take_back()

    def prefetch(self, user_ids: Iterable[str]) -> Mapping[str, UserDevices]:
        """Read the devices of many users in one round trip. They stay in memory as long as the answer does."""
        return self._users.fetch(user_ids)

    def alone(self) -> AbstractContextManager[None]:
        """Inside the block nobody else comes by a device."""
        return self._users.alone()

    def let_go(self, user_id: str, device_id: str) -> bool:
        """Whether nobody uses the device, or another one of its user, so that it may be deleted, inside `alone`."""
        return self._users.let_go(user_id) and (user_id, device_id) not in self._live

    def trust(self, device: OlmDevice) -> DeviceTrust:
        """What the owner decided about this device with this Ed25519 key."""
        if self._is_refused(device):
            return DeviceTrust.BLACKLISTED
        return _trust_that_holds(self._record(device), device)

    def changes(self, device_keys: DevicesByUser) -> Changes:
        """What saving these devices writes: those that differ from what is stored. Trust stays as it is stored."""
        given = dict(device_keys.items())
        self.prefetch(given)
        changed = {}
        for user_id, by_id in given.items():
            devices = self[user_id]
            # They may be the same mapping.
            for device_id, device in list(by_id.items()):
                if device_id in devices.refused:
                    self._refuse(devices, device)
                    continue
                known = devices.records.get(device_id)
                durable = device_id not in devices.unsaved
                record = self._hand_over(devices, user_id, device_id, device, _trust_that_holds(known, device))
                if record is None or (record == known and durable):
                    self._release(user_id, device_id)
                else:
                    changed[record.key] = record
        return Changes(changed.values(), deletes=self._take_forgotten(changed))

    def trust_changes(self, devices: Iterable[OlmDevice], trust: DeviceTrust) -> Changes:
        """What deciding about these devices writes; devices that were not known yet are stored with the decision.

        Nothing for a device whose Ed25519 key is not the known one, unless it is blacklisted.
        """
        changed = {}
        for device in devices:
            record = self._decide(device, trust)
            if record is not None:
                changed[record.key] = record
            self.show_trust(device)
        return Changes(changed.values())

    def show_trust(self, device: OlmDevice) -> None:
        """Set the trust of this object, and of the one that nio goes by, to what the owner decided."""
        for shown in (device, self[device.user_id].get(device.id, device)):
            shown.trust_state = TrustState[self.trust(shown).value]

    def settle(self, batch: Changes) -> None:
        """The batch is durable."""
        for record in batch.puts(records.Device):
            user_id, device_id = record.key
            self._release(str(user_id), str(device_id))

    def _decide(self, device: OlmDevice, trust: DeviceTrust) -> records.Device | None:
        """What a decision changes, or None for nothing."""
        known = self._record(device)
        if trust is not DeviceTrust.BLACKLISTED and known is not None and not _same_key(known, device):
            _log.warning("left the trust in %s %s as it is: it has another Ed25519 key", *known.key)
            return None
        if self.trust(device) is trust and not self._is_refused(device):
            return None
        devices = self[device.user_id]
        if known is None:
            return self._hand_over(devices, device.user_id, device.id, device, trust)
        devices.records[device.id] = record = replace(known, trust=trust)
        self._keep(device.user_id, devices, devices.get(device.id, device))
        return record

    def _hand_over(
        self, devices: UserDevices, user_id: str, device_id: str, device: OlmDevice, trust: DeviceTrust
    ) -> records.Device | None:
        """Make `device` the known one of that id, and its record, or None for one that cannot be stored."""
        record = if_valid(partial(_record_of, user_id, device_id, device, trust))
        if record is None:
            self._refuse(devices, device)
        else:
            device.trust_state, device.display_name = TrustState[trust.value], record.display_name
            devices.records[device_id] = record
            devices.refused.discard(device_id)
            self._keep(user_id, devices, device)
        return record

    def _has_room_for(self, devices: UserDevices, device: OlmDevice) -> bool:
        """Whether a device may be kept: one that is known, or one more that can be stored."""
        if device.id not in devices.records and devices.known >= bounds.DEVICES:
            self._forget_gone(devices)
            if devices.known >= bounds.DEVICES:
                _log.warning("%s has more than %d devices: %s gets no keys", device.user_id, bounds.DEVICES, device.id)
                return False
        record = partial(_record_of, device.user_id, device.id, device, DeviceTrust.UNSET)
        return if_valid(record) is not None

    def _forget_gone(self, devices: UserDevices) -> None:
        """Make room: of devices that their user deleted, only decisions have to be remembered."""
        for device_id, record in list(devices.records.items()):
            is_needed = device_id in devices.unsaved or device_id in devices.aside
            if record.deleted and record.trust is DeviceTrust.UNSET and not is_needed:
                del devices.records[device_id], devices[device_id]
                self._forgotten.append(RecordKey(records.Device, record.key))

    def _take_forgotten(self, changed: Container[Key]) -> list[RecordKey]:
        forgotten, self._forgotten = self._forgotten, []
        return [each for each in forgotten if each.key not in changed]

    def _is_refused(self, device: OlmDevice) -> bool:
        return device.id in self[device.user_id].refused

    @staticmethod
    def _refuse(devices: UserDevices, device: OlmDevice) -> None:
        """Show the owner a device that gets no keys. Nothing of it is stored."""
        devices.refused.add(device.id)
        device.trust_state, device.display_name = TrustState.blacklisted, stored_name(device.display_name)
        devices[device.id] = device

    def _record(self, device: OlmDevice) -> records.Device | None:
        return self[device.user_id].records.get(device.id)

    def _keep(self, user_id: str, devices: UserDevices, device: OlmDevice) -> None:
        self._live[user_id, device.id] = device
        devices[device.id] = device
        devices.unsaved.add(device.id)
        self._users.put(user_id, devices)

    def _release(self, user_id: str, device_id: str) -> None:
        devices = self._users.peek(user_id)
        if devices is not None:
            devices.unsaved.discard(device_id)
            if not devices.unsaved:
                self._users.unpin(user_id)

    def _read(self, user_ids: list[str]) -> Mapping[str, _Stored]:
        found = self._storage.select(records.Device, [(user_id,) for user_id in user_ids])
        unreadable: dict[str, list[str]] = defaultdict(list)
        for user_id, device_id in filter(None, found.unreadable):
            unreadable[str(user_id)].append(str(device_id))
        return {user_id: _Stored(found[(user_id,)], unreadable[user_id]) for user_id in user_ids}

    def _build(self, user_id: str, stored: _Stored) -> UserDevices:
        devices = UserDevices(stored.unreadable)
        for row in stored.rows:
            device = self._live.get((user_id, row.device_id)) or _device_of(row)
            self._live[user_id, row.device_id] = device
            devices[row.device_id] = device
            devices.records[row.device_id] = row
        return devices

    def _user_ids(self) -> Iterator[str]:
        unsaved = self._users.pinned()
        for user_id, _ in groupby(str(key[0]) for key in self._storage.keys(records.Device)):
            unsaved.pop(user_id, None)
            yield user_id
        yield from unsaved


def _device_of(record: records.Device) -> OlmDevice:
    keys = {name: str(key) for name, key in record.keys.items()}
    trust = TrustState[record.trust.value]
    return OlmDevice(record.user_id, record.device_id, keys, record.display_name, record.deleted, trust)


def _record_of(user_id: str, device_id: str, device: OlmDevice, trust: DeviceTrust) -> records.Device:
    """What to store of a device. Raises InvalidRecord."""
    keys, name = device.keys, stored_name(device.display_name)
    longest = max((len(str(text)) for text in chain(keys, keys.values())), default=0)
    if len(keys) > bounds.DEVICE_KEYS or longest > bounds.KEY:
        raise InvalidRecord(records.Device.kind_name, "keys", "are too many or too long")
    return records.Device(user_id, device_id, keys, name, bool(device.deleted), trust)


def _trust_that_holds(known: records.Device | None, device: OlmDevice) -> DeviceTrust:
    if known is None:
        return DeviceTrust.UNSET
    holds = known.trust is DeviceTrust.BLACKLISTED or _same_key(known, device)
    return known.trust if holds else DeviceTrust.UNSET


def _same_key(known: records.Device, device: OlmDevice) -> bool:
    return known.keys.get("ed25519") == device.keys.get("ed25519")
