"""Devices that were never seen before, each with keys of its own and nothing else of a client."""

from __future__ import annotations

import base64
import json
from typing import Any

import vodozemac
from nio import Api
from nio.crypto import OutboundGroupSession

Json = dict[str, Any]


class RawDevice:
    """A device that writes to one device of somebody else, in a Megolm session of its own."""

    def __init__(self, user: str, device_id: str) -> None:
        self.user = user
        self.device_id = device_id
        self.account = vodozemac.Account()
        self._group_session = OutboundGroupSession()
        self._group_session.mark_as_shared()
        self._olm: vodozemac.Session | None = None
        self._receiver: Json = {}

    def begin(self, receiver: Json, claimed: Json) -> str:
        """Begin an Olm session with the device of these device keys, by the key that was claimed. Returns its id."""
        ((key_id, key),) = claimed.items()
        self._receiver = receiver
        self._olm = self.account.create_outbound_session(
            vodozemac.Curve25519PublicKey.from_base64(self._receivers("curve25519")),
            vodozemac.Curve25519PublicKey.from_base64(key["key"]),
        )
        return str(key_id)

    def room_key(self, room_id: str) -> Json:
        """The session's key for the receiver: the content of an m.room.encrypted to-device message."""
        content = {
            "algorithm": "m.megolm.v1.aes-sha2",
            "room_id": room_id,
            "session_id": self._group_session.id,
            "session_key": self._group_session.session_key,
        }
        return self._encrypted("m.room_key", content)

    def message(self, room_id: str, text: str) -> Json:
        """The content of an m.room.encrypted message in the room."""
        plain = {"type": "m.room.message", "content": {"msgtype": "m.text", "body": text}, "room_id": room_id}
        return {
            "algorithm": "m.megolm.v1.aes-sha2",
            "sender_key": self.account.curve25519_key.to_base64(),
            "ciphertext": self._group_session.encrypt(Api.to_json(plain)),
            "session_id": self._group_session.id,
            "device_id": self.device_id,
        }

    def _encrypted(self, kind: str, content: Json) -> Json:
        assert self._olm is not None, "no key was claimed"
        payload = {
            "type": kind,
            "content": content,
            "sender": self.user,
            "sender_device": self.device_id,
            "keys": {"ed25519": self.account.ed25519_key.to_base64()},
            "recipient": self._receiver["user_id"],
            "recipient_keys": {"ed25519": self._receivers("ed25519")},
        }
        number, ciphertext = self._olm.encrypt(json.dumps(payload).encode()).to_parts()
        body = base64.b64encode(ciphertext).rstrip(b"=").decode()
        return {
            "algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": self.account.curve25519_key.to_base64(),
            "ciphertext": {self._receivers("curve25519"): {"type": number, "body": body}},
        }

    def _receivers(self, algorithm: str) -> str:
        return str(self._receiver["keys"][f"{algorithm}:{self._receiver['device_id']}"])
