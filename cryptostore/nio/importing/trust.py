"""The three files beside a DefaultStore's database, which say what the owner decided about devices."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nio.store import KeyStore

from cryptostore.records import Account
from cryptostore.records.fields import DeviceTrust

#: In the order in which a decision counts, should a device be in two files: an exclusion is never overruled.
_FILES: Final = (
    (DeviceTrust.BLACKLISTED, "blacklisted_devices"),
    (DeviceTrust.VERIFIED, "trusted_devices"),
    (DeviceTrust.IGNORED, "ignored_devices"),
)

#: User id, device id and Ed25519 key.
Fingerprint = tuple[str, str, str]


class TrustFiles:
    """The decisions in the files of one account; a file that is not there holds none."""

    def __init__(self, folder: Path, account: Account) -> None:
        #: The files that cannot be read, and how many lines of the others are no entries.
        self.damage: dict[str, str] = {}
        self._decisions: dict[Fingerprint, DeviceTrust] = {}
        self._asked_for: set[Fingerprint] = set()
        for trust, ending in _FILES:
            self._read(folder / f"{account.user_id}_{account.device_id}.{ending}", trust)

    def decision(self, device: Fingerprint) -> DeviceTrust:
        """What the owner decided about a device with this key."""
        self._asked_for.add(device)
        return self._decisions.get(device, DeviceTrust.UNSET)

    def not_asked_for(self) -> list[tuple[Fingerprint, DeviceTrust]]:
        """The decisions about devices, or keys, that the database does not have."""
        return [(device, trust) for device, trust in self._decisions.items() if device not in self._asked_for]

    def _read(self, path: Path, trust: DeviceTrust) -> None:
        try:
            entries = list(KeyStore(str(path)))
            lines = path.read_text().splitlines() if entries or path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            self.damage[path.name] = f"the file cannot be read ({type(error).__name__})"
            return
        for entry in entries:
            self._decisions.setdefault((entry.user_id, entry.device_id, entry.key), trust)
        unread = sum(1 for line in map(str.strip, lines) if line and not line.startswith("#")) - len(entries)
        if unread:
            self.damage[path.name] = f"{unread} of its lines are not entries of nio's format"
