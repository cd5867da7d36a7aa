"""nio's encryption machine, with what it does not keep across restarts, and without what it does too early."""

from __future__ import annotations

import logging
from typing import Any, Final

import vodozemac
from nio.crypto import Olm
from nio.events import OlmEvent

from cryptostore.errors import CryptoStoreError

from .handled import HandledMessages, MessageKey
from .statistics import Statistics
from .store import ProductionStore

_log: Final = logging.getLogger(__name__)


class ProductionOlm(Olm):
    """An Olm machine whose every change reaches the database before the network."""

    def __init__(self, store: ProductionStore, statistics: Statistics) -> None:
        self.statistics = statistics
        self._handled = store.handled
        super().__init__(store.user_id, store.device_id, store)

    def decrypt_event(self, event: Any, room_id: str | None = None) -> Any:
        """Decrypt an event, a to-device one only once: None for a ciphertext that was handled before."""
        key = self._message_key(event)
        if key is None:
            return super().decrypt_event(event, room_id)
        if key in self._handled:
            self.statistics.redelivered_events += 1
            return None
        try:
            decrypted = super().decrypt_event(event, room_id)
        except CryptoStoreError:
            # It was not handled: it will be, when the server sends it again.
            raise
        except Exception:
            self._handled.add(key)
            raise
        self._handled.add(key)
        return decrypted

    def decrypt(self, sender: str, sender_key: str, message: Any) -> Any:
        """Decrypt an Olm message; one for an unknown one-time key asks for a new session, as nio's others do."""
        try:
            return super().decrypt(sender, sender_key, message)
        except vodozemac.SessionCreationException as error:
            self.statistics.poisoned_events += 1
            _log.warning("%s began an Olm session with a key that is not ours: %s", sender, error)
            self._mark_device_for_unwedging(sender, sender_key)  # type: ignore[no-untyped-call]  # nio has no annotation
            return None

    def share_keys(self) -> dict[str, Any]:
        """The keys to upload, marked as published.

        Whatever becomes of the upload, these are never offered again: the server could hand one out twice.
        """
        content = super().share_keys()
        self.mark_keys_as_published()
        self.save_account()
        return content

    def _message_key(self, event: Any) -> MessageKey | None:
        if not isinstance(event, OlmEvent):
            return None
        own = event.ciphertext.get(self.account.identity_keys["curve25519"])
        body = own.get("body") if isinstance(own, dict) else None
        return HandledMessages.key(event.sender_key, body) if isinstance(body, str) else None
