"""The anchor: how far the database has come, as the homeserver keeps it, so that a backup that was put back is noticed.

An anchor has a number, one higher each time, and a random draw. It is a record of the account, which is durable before
the homeserver hears of it. So a database whose anchor is behind the homeserver's, or is another one with the same
number, is older than what was written to it, or was written to in two places. It goes where the account's records go:
neither a move, another pickle key nor a new owner make a difference.

On the homeserver it is sealed with the account's own key, which the account has as long as it lives: what another
program, the homeserver or a former life of the device left there opens nothing, and is no alarm. A homeserver can only
hide an anchor, or show an older one, which is no alarm either.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cryptostore.errors import DatabaseWentBack, UnreadableRecord
from cryptostore.plugins.shell_commands import account_command
from cryptostore.records import Account, Value
from cryptostore.records.changes import Changes
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.store.secrets import SecretSeal
from cryptostore.trust import unpadded_base64

from .buffer import BufferedStorage

#: The record, by namespace and name.
ANCHOR: Final = ("client", "anchor")

_TYPE: Final = "io.github.matrix-cryptostore.anchor"
_NAME: Final = "anchor"


class Anchor(NamedTuple):
    """One anchor. The draw tells two databases apart that have come equally far."""

    number: int
    draw: str

    def record(self) -> Value:
        """What to store."""
        return Value(*ANCHOR, self._encoded())

    def sealed(self, seal: SecretSeal) -> dict[str, str]:
        """What the homeserver keeps."""
        return {"sealed": unpadded_base64.encode(seal.seal(_NAME, self._encoded()))}

    def _encoded(self) -> bytes:
        return json.dumps(self._asdict()).encode()


#: What comes before any.
_FIRST: Final = Anchor(0, "")


class StoredAnchor(NamedTuple):
    """What a database has of the anchor, before the account is taken over. `read` asks it again, from a thread.

    It is not compared where it cannot be read, or where the account is known to be older than it was.
    """

    anchor: Anchor
    is_compared: bool
    seal: SecretSeal
    read: Callable[[], Anchor]


class AnchorRecord:
    """The anchor of an account that is open."""

    def __init__(self, storage: BufferedStorage) -> None:
        self._storage = storage
        self.anchor = parsed(storage.get(Value, [ANCHOR]).get(ANCHOR))

    def advance(self, beyond: Anchor | None = None) -> None:
        """Write the next anchor, with a number above the other one's, too."""
        number = max(self.anchor.number, (beyond or _FIRST).number) + 1
        self.anchor = Anchor(number, secrets.token_hex(8))
        self._storage.write(Changes([self.anchor.record()]))


def event_type(device_id: str) -> str:
    """Under which type a device's anchor is in the account data of its user, as long for any device id."""
    return f"{_TYPE}.{hashlib.sha256(device_id.encode()).hexdigest()[:32]}"


def parsed(record: Value | None) -> Anchor:
    """The anchor in a record; what comes before any where there is none."""
    return (_decoded(record.value) if record else None) or _FIRST


def read_anchor(store: CryptoStore) -> Anchor:
    """The anchor that the database has now."""
    return parsed(store.get(Value, [ANCHOR]).get(ANCHOR))


def is_ahead(there: Anchor, ours: Anchor) -> bool:
    """Whether the homeserver's anchor shows that the database was put back."""
    return there != ours and there.number >= ours.number


def opened(content: Any, seal: SecretSeal) -> Anchor | None:
    """The anchor in account data; None for what this account has not sealed."""
    sealed = content.get("sealed") if isinstance(content, dict) else None
    try:
        return _decoded(seal.open(_NAME, unpadded_base64.decode(sealed))) if isinstance(sealed, str) else None
    except (UnreadableRecord, ValueError):
        return None


def went_back(account: Account, url: str, there: Anchor, ours: Anchor) -> DatabaseWentBack:
    """The error for a database whose anchor is behind the homeserver's. `url` may be shown."""
    command, addition = account_command("restored", url, account)
    return DatabaseWentBack(
        f"the database at {url} is older than what {account} has written since: a backup was put back, or another copy "
        "of the account was used. Other devices have seen more, so going on would use keys twice, and nothing was "
        "taken over. Put the newest copy back. If this is the newest one that there is, run "
        f"`{command}`{addition}, and start again",
        acknowledged=there.number,
        found=ours.number,
    )


def _decoded(encoded: bytes) -> Anchor | None:
    try:
        said = json.loads(encoded)
        return Anchor(int(said["number"]), str(said["draw"]))
    except (ValueError, TypeError, KeyError):
        return None
