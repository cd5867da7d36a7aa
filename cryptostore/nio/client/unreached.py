"""Devices that could not be sent room keys, since they offered no one-time key: when each is tried again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

from cryptostore import records
from cryptostore.nio.pickles import if_valid
from cryptostore.nio.times import now

from .buffer import BufferedStorage
from .kept import KeptRecords
from .outbound import DevicePair
from .pauses import growing_pause

#: The pause after the first attempt; each further one is twice as long, up to the longest.
_FIRST_PAUSE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=1)
#: A device that nothing was sent to for so long is tried as if it were new.
_FORGOTTEN_AFTER: Final = timedelta(days=30)


class UnreachedDevices(KeptRecords[records.UnreachedDevice]):
    """The devices that have no Olm session with this one, though it wanted to send them a room key."""

    def __init__(self, storage: BufferedStorage) -> None:
        super().__init__(storage, records.UnreachedDevice)
        for key, row in list(self.rows.items()):
            if row.next_attempt_at < now() - _FORGOTTEN_AFTER:
                self.drop(key)

    def among(self, devices: Iterable[DevicePair]) -> set[DevicePair]:
        """Those of these devices that could not be reached."""
        return {device for device in devices if device in self.rows} if self.rows else set()

    def due(self, devices: Iterable[DevicePair]) -> set[DevicePair]:
        """Those of these devices that may be tried: not before their pause is over."""
        return {device for device in devices if self._is_due(device)}

    def failed(self, devices: Iterable[DevicePair]) -> None:
        """These devices were tried in vain."""
        for device in devices:
            before = self.rows.get(device)
            attempts = before.attempts + 1 if before else 1
            pause = growing_pause(attempts, _FIRST_PAUSE, _LONGEST_PAUSE)
            row = if_valid(partial(records.UnreachedDevice, *device, attempts, now() + pause, self._was_told(device)))
            if row is not None:
                self.put(row)

    def answers(self, device: DevicePair) -> None:
        """This device began an Olm session: it is tried again at once."""
        if device in self.rows:
            self.put(replace(self.rows[device], next_attempt_at=now()))

    def untold(self, devices: Iterable[DevicePair]) -> set[DevicePair]:
        """Those of these devices that could not be reached, and were not told so."""
        return {device for device in self.among(devices) if not self._was_told(device)}

    def told(self, devices: Iterable[DevicePair]) -> None:
        """These devices were told that they could not be reached. Nothing of it is noted of others."""
        for device in self.among(devices):
            self.put(replace(self.rows[device], was_told=True))

    def reached(self, devices: Iterable[DevicePair]) -> None:
        """These devices need no further attempt."""
        for device in self.among(devices):
            self.drop(device)

    def _was_told(self, device: DevicePair) -> bool:
        row = self.rows.get(device)
        return row is not None and row.was_told

    def _is_due(self, device: DevicePair) -> bool:
        row = self.rows.get(device)
        # A pause longer than any is left over from a clock that was wrong.
        return row is None or not now() < row.next_attempt_at <= now() + _LONGEST_PAUSE
