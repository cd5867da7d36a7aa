"""Devices that could not be sent room keys, since they offered no one-time key: when each is tried again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from cryptostore import records
from cryptostore.nio.pickles import if_valid
from cryptostore.records.changes import Changes, RecordKey

from .buffer import BufferedStorage
from .outbound import DevicePair

#: The pause after the first attempt; each further one is twice as long, up to the longest.
_FIRST_PAUSE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=1)
#: A device that nothing was sent to for so long is tried as if it were new.
_FORGOTTEN_AFTER: Final = timedelta(days=30)


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class UnreachedDevices:
    """The devices that have no Olm session with this one, though it wanted to send them a room key."""

    def __init__(self, storage: BufferedStorage) -> None:
        self._storage = storage
        found = {row.key: row for row in storage.select(records.UnreachedDevice, [()])[()]}
        forgotten = {key for key, row in found.items() if row.next_attempt_at < now() - _FORGOTTEN_AFTER}
        self._saved = {(row.user_id, row.device_id): row for row in found.values()}
        self._rows = {(row.user_id, row.device_id): row for key, row in found.items() if key not in forgotten}
        self._touched = self._saved.keys() - self._rows.keys()

    def among(self, devices: Iterable[DevicePair]) -> set[DevicePair]:
        """Those of these devices that could not be reached."""
        return self._rows.keys() & devices if self._rows else set()

    def due(self, devices: Iterable[DevicePair]) -> set[DevicePair]:
        """Those of these devices that may be tried: not before their pause is over."""
        return {device for device in devices if self._is_due(device)}

    def failed(self, devices: Iterable[DevicePair]) -> None:
        """These devices were tried in vain."""
        for device in devices:
            before = self._rows.get(device)
            attempts = before.attempts + 1 if before else 1
            pause = min(_FIRST_PAUSE * 2 ** min(attempts - 1, 10), _LONGEST_PAUSE)
            was_told = before.was_told if before else False
            row = if_valid(partial(records.UnreachedDevice, *device, attempts, now() + pause, was_told))
            if row is not None:
                self._put(row)

    def answers(self, device: DevicePair) -> None:
        """This device began an Olm session: it is tried again at once."""
        if device in self._rows:
            self._put(replace(self._rows[device], next_attempt_at=now()))

    def reached(self, devices: Iterable[DevicePair]) -> None:
        """These devices need no further attempt."""
        for device in self.among(devices):
            del self._rows[device]
            self._touched.add(device)
            self._storage.touch()

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._touched)

    def collect(self) -> Changes:
        """The records to write."""
        puts: list[records.Record] = []
        deletes: list[RecordKey] = []
        for device in self._touched:
            row, saved = self._rows.get(device), self._saved.get(device)
            if row is not None:
                self._saved[device] = row
                puts.append(row)
            elif saved is not None:
                del self._saved[device]
                deletes.append(RecordKey(records.UnreachedDevice, device))
        self._touched = set()
        return Changes(puts, deletes)

    def _put(self, row: records.UnreachedDevice) -> None:
        device = (row.user_id, row.device_id)
        self._rows[device] = row
        self._touched.add(device)
        self._storage.touch()

    def _is_due(self, device: DevicePair) -> bool:
        row = self._rows.get(device)
        # A pause longer than any is left over from a clock that was wrong.
        return row is None or not now() < row.next_attempt_at <= now() + _LONGEST_PAUSE
