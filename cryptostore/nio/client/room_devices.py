"""Which devices of a room's members get its key, and what the others are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from nio.crypto import OlmDevice, OutboundGroupSession
from nio.exceptions import OlmUnverifiedDeviceError

from cryptostore.nio.trust.recipients import Fit, Recipients

from .outbound import DevicePair
from .store import ProductionStore
from .withheld import BLACKLISTED, NO_OLM, UNVERIFIED

#: Devices that the room's key is for, at once or when the program has decided.
_WANTED: Final = {Fit.KEY, Fit.UNDECIDED}


class RoomDevices:
    """The devices of rooms, judged by `recipients`."""

    def __init__(self, store: ProductionStore, recipients: Recipients) -> None:
        self._store = store
        self._devices = store.load_device_keys()
        self._recipients = recipients

    def active(self, users: Iterable[str]) -> Iterator[OlmDevice]:
        """The users' devices that were not deleted."""
        for user_id in users:
            yield from self._devices.active_user_devices(user_id)

    def is_wanted(self, room_id: str, device: DevicePair) -> bool:
        """Whether the room's key is for this device, at once or when the program has decided."""
        return self._fit(room_id, device) in _WANTED

    def that_should_have(self, room_id: str, users: Iterable[str], later: set[DevicePair]) -> set[DevicePair] | None:
        """The devices that should have the room's key, without those that get it later.

        None if one waits for the program's decision.
        """
        devices: set[DevicePair] = set()
        for device in self.active(users):
            pair, fit = _pair(device), self._recipients.fit(room_id, device)
            if self._is_skipped(device) or fit not in _WANTED or pair in later:
                continue
            if fit is Fit.UNDECIDED:
                return None
            devices.add(pair)
        return devices

    def that_lack(
        self,
        room_id: str,
        session: OutboundGroupSession,
        users: Iterable[str],
        can_be_sent: Callable[[OlmDevice], bool],
        *,
        ignore_unverified_devices: bool,
    ) -> list[DevicePair]:
        """The devices that are to be sent the session's key now. The session notes those that do not get it.

        Raises OlmUnverifiedDeviceError for a device that waits for the program's decision.
        """
        pairs, undecided = [], []
        for device in self.active(users):
            pair, fit = _pair(device), self._recipients.fit(room_id, device)
            if self._is_skipped(device) or fit not in _WANTED:
                session.users_ignored.add(pair)
            elif pair in session.users_shared_with or pair in session.users_ignored:
                continue
            elif can_be_sent(device):
                pairs.append(pair)
                undecided += [device] if fit is Fit.UNDECIDED else []
        if undecided and not ignore_unverified_devices:
            first = undecided[0]
            raise OlmUnverifiedDeviceError(
                first, f"Device {first.id} for user {first.user_id} is not verified or blacklisted."
            )
        self._store.ignore_devices(undecided)
        return pairs

    def fit_now(self, room_id: str, devices: Iterable[DevicePair], ignore_unverified_devices: bool) -> set[DevicePair]:
        """Those of these devices that may have the room's key; undecided ones are ignored from now on, if they may."""
        by_fit = {pair: self._fit(room_id, pair) for pair in devices}
        if ignore_unverified_devices:
            undecided = [pair for pair, fit in by_fit.items() if fit is Fit.UNDECIDED]
            self._store.ignore_devices([self._devices[user_id][device_id] for user_id, device_id in undecided])
        fit_now = _WANTED if ignore_unverified_devices else {Fit.KEY}
        return {pair for pair, fit in by_fit.items() if fit in fit_now}

    def reasons_to_withhold(
        self, room_id: str, users: Iterable[str], session: OutboundGroupSession
    ) -> dict[DevicePair, str]:
        """The codes for the devices that were left out, without those that know that they cannot be reached."""
        unreached = self._store.unreached.among(session.users_ignored) - session.users_shared_with
        codes = dict.fromkeys(self._store.unreached.untold(unreached), NO_OLM)
        for device in self.active(users):
            fit = self._recipients.fit(room_id, device)
            if not self._is_skipped(device) and fit not in _WANTED:
                # That of a device whose record is unreadable, or that was one too many, is not the owner's word.
                is_refused = device.id in self._devices[device.user_id].refused
                codes[_pair(device)] = UNVERIFIED if is_refused or fit is Fit.LEFT_OUT else BLACKLISTED
        return codes

    def _is_skipped(self, device: OlmDevice) -> bool:
        # As nio, which begins no Olm session with a device of this id, also of another user.
        return bool(device.id == self._store.device_id)

    def _fit(self, room_id: str, pair: DevicePair) -> Fit:
        return self._recipients.fit(room_id, self._devices[pair[0]][pair[1]])


def _pair(device: OlmDevice) -> DevicePair:
    return device.user_id, device.id
