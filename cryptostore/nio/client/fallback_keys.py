"""The fallback key, which the homeserver hands out when the one-time keys are used up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from nio import SyncResponse
from nio.crypto import OlmAccount

from cryptostore import records
from cryptostore.nio.times import now

from .buffer import BufferedStorage
from .kept import KeptRecords
from .pauses import growing_pause
from .responses import SyncAnswer

#: How old a fallback key is at least when it is replaced: other devices may still have to send what they began with it.
LEAST_AGE: Final = timedelta(hours=1)

_ALGORITHM: Final = "signed_curve25519"
_KEY: Final = (_ALGORITHM,)
#: Seconds between two offers of the same key; each further pause is twice as long, up to the longest.
_FIRST_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0


class FallbackKeys(KeptRecords[records.FallbackKey]):
    """The fallback key of an account: made, offered until the homeserver has it, and replaced.

    An Olm account keeps the private halves of the last two. So a key is made only when nobody can need the one before
    the last any more: the last was handed out, is an hour old, and since it is, all to-device messages were read.

    A key that was not confirmed is offered again, and no other is made: the homeserver may have it, and takes the same
    one twice. A homeserver that knows no fallback keys is offered none.
    """

    def __init__(self, storage: BufferedStorage, account: records.Account) -> None:
        super().__init__(storage, records.FallbackKey)
        self._account = account
        self._is_supported = False
        self._is_used = False
        #: Whether all to-device messages were read since the key is old enough.
        self._is_inbox_read = False
        self._is_offered = False
        self._offers = 0
        self._next_offer = 0.0

    def note_sync(self, response: SyncResponse) -> None:
        """Take note of what the homeserver says of its fallback keys, and of whether the inbox is empty."""
        unused = response.unused_fallback_keys if isinstance(response, SyncAnswer) else None
        self._is_supported = unused is not None
        # Before the first upload, too: the homeserver says the same then.
        self._is_used = unused is not None and _ALGORITHM not in unused
        if self._is_old() and not response.to_device_events:
            self._is_inbox_read = True

    @property
    def is_due(self) -> bool:
        """Whether a fallback key is to be uploaded now."""
        if not self._is_supported or time.monotonic() < self._next_offer:
            return False
        return self._is_pending() or self._must_be_made()

    def to_upload(self, account: OlmAccount, sign: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        """What an upload holds of fallback keys; nothing if none is due.

        A new key is in the account then. The account has to be saved before the upload is sent.
        """
        self._is_offered = self.is_due
        if not self._is_offered:
            return {}
        if not self._is_pending():
            self._make(account, sign)
        self._next_offer = time.monotonic() + growing_pause(self._offers + 1, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._offers += 1
        return {"fallback_keys": self._signed()}

    def confirm(self) -> None:
        """The homeserver has taken in the last upload."""
        if self._is_offered:
            self.put(replace(self.rows[_KEY], confirmed=True))
            self._is_offered = False
            self.try_now()

    def offer_again(self) -> None:
        """The homeserver has forgotten this device: it has no fallback key either."""
        self._is_offered = False
        if _KEY in self.rows:
            self.put(replace(self.rows[_KEY], confirmed=False))

    def offer_now(self) -> None:
        """Offer the key that waits, or a new one where there is none, whether or not the homeserver knows of them."""
        self._is_supported = True
        self.try_now()

    def is_newest(self, public_key: object) -> bool:
        """Whether this is the public half of the newest key."""
        return _KEY in self.rows and self.rows[_KEY].public_key == public_key

    def try_now(self) -> None:
        """What was refused before may be accepted now."""
        self._offers, self._next_offer = 0, 0.0

    def _is_pending(self) -> bool:
        return _KEY in self.rows and not self.rows[_KEY].confirmed

    def _must_be_made(self) -> bool:
        return _KEY not in self.rows or (self._is_used and self._is_inbox_read and self._is_old())

    def _is_old(self) -> bool:
        # A time that is far ahead is left over from a clock that was wrong.
        return _KEY in self.rows and abs(now() - self.rows[_KEY].made_at) >= LEAST_AGE

    def _make(self, account: OlmAccount, sign: Callable[[dict[str, Any]], str]) -> None:
        olm: Any = account._account  # noqa: SLF001  # nio knows no fallback keys, nor do the annotations of vodozemac
        olm.generate_fallback_key()
        ((key_id, key),) = olm.fallback_key.items()
        public_key = key.to_base64()
        self.put(records.FallbackKey(_ALGORITHM, key_id, public_key, sign(_unsigned(public_key)), now()))
        self._is_inbox_read = False

    def _signed(self) -> dict[str, Any]:
        row, account = self.rows[_KEY], self._account
        signatures = {account.user_id: {f"ed25519:{account.device_id}": row.signature}}
        return {f"{_ALGORITHM}:{row.key_id}": _unsigned(row.public_key) | {"signatures": signatures}}


def _unsigned(public_key: str) -> dict[str, Any]:
    return {"key": public_key, "fallback": True}
