"""What an Olm message says beside room keys: handed to the part that knows its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptostore.logs import logger

_log: Final = logger(__name__)


@dataclass(frozen=True)
class OlmPayload:
    """A decrypted message of a type that nio does not know. Who has `sender_key` wrote it for this device."""

    #: As the homeserver says. It proves nothing: look whose device the keys are.
    sender: str
    #: The Curve25519 key of the Olm session, and the Ed25519 key that the sender says is of the same device.
    sender_key: str
    signing_key: str
    type: str
    #: It may hold a secret.
    content: Mapping[str, Any] = field(repr=False)


#: What takes a payload in, in one step: it is durable with the message's own ratchet.
Handler = Callable[[OlmPayload], None]


class OlmPayloads:
    """Who takes which type in."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def on(self, kind: str, handler: Handler) -> None:
        """Let `handler` take in what has this type, in whichever account is open. There is one for each type."""
        self._handlers[kind] = handler

    def hand_on(self, payload: OlmPayload) -> None:
        """Give a payload to its handler, if it has one."""
        handler = self._handlers.get(payload.type)
        if handler is None:
            _log.warning("left out an Olm message of the unknown type %s from %s", payload.type, payload.sender)
        else:
            handler(payload)
