"""One party of the demo, as a process of its own: a real Olm machine whose only memory is its store.

Run as `python -m cryptostore.cli.demo.party`; the first line on standard input is its `PartyConfig`. What is sent to
the relay was made durable before, and all that one sync delivers is one batch together with its sync token.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from nio.crypto import Olm
from nio.events import Event, MegolmEvent, ToDeviceEvent
from nio.exceptions import EncryptionError
from nio.responses import KeysClaimResponse, KeysQueryResponse, KeysUploadResponse

from cryptostore.cli.demo.protocol import Connection, PartyConfig, encode, read
from cryptostore.cli.exits import exit_code_of
from cryptostore.errors import CryptoStoreError
from cryptostore.nio import NioStore


class Party:
    """A Matrix client reduced to its encryption."""

    def __init__(self, config: PartyConfig, relay: Connection) -> None:
        self._config = config
        self._relay = relay
        self._store = NioStore(config.user_id, config.device_id, config.url, config.pickle_key)
        self._olm = Olm(config.user_id, config.device_id, self._store)
        self._token = self._store.load_sync_token() or ""

    def run(self) -> None:
        """Read the history up to the stored token; then, unless that was all, take part in the conversation."""
        keys = self._olm.account.identity_keys
        answer = self._relay.ask("start", identity=dict(keys), since=self._token)
        self._relay.ask("reread", texts=self._decrypt(answer["history"]))
        if not self._config.only_read:
            self._publish_keys()
            self._meet_others()
            self._converse()
        self._store.close()

    def _publish_keys(self) -> None:
        if self._olm.account.shared:
            return
        with self._store.batch():
            content = self._olm.share_keys()
            self._olm.save_account()
        answer = KeysUploadResponse.from_dict(self._relay.ask("upload_keys", content=content))
        with self._store.batch():
            self._olm.handle_response(answer)

    def _meet_others(self) -> None:
        answer = self._relay.ask("query_keys")
        known = {(device.user_id, device.id) for device in self._others(answer["device_keys"])}
        with self._store.batch():
            self._olm.handle_response(KeysQueryResponse.from_dict(answer))
            for device in self._others(answer["device_keys"]):
                # Only at the first sight: later the trust has to come out of the store, or nothing can be sent.
                if (device.user_id, device.id) not in known:
                    self._olm.verify_device(device)
        self._members = list(answer["device_keys"])

    def _others(self, users: Iterable[str]) -> list[Any]:
        return [device for user in users for device in self._olm.device_store.active_user_devices(user)]

    def _converse(self) -> None:
        while True:
            delivery = self._relay.ask("sync", since=self._token)
            if delivery["finished"]:
                return
            texts = self._receive(delivery)
            if texts:
                self._relay.ask("read", texts=texts)
            for transaction, text in delivery["say"]:
                self._send(transaction, text)

    def _receive(self, delivery: Mapping[str, Any]) -> dict[str, Any]:
        with self._store.batch():
            for event in delivery["to_device"]:
                self._olm.handle_to_device_event(ToDeviceEvent.parse_event(event))
            texts = self._decrypt(delivery["timeline"])
            self._store.save_sync_token(delivery["next_batch"])
            # NioStore writes the token of a sync together with the rooms of that sync, the last that nio saves of it.
            self._store.save_encrypted_rooms([self._config.room_id])
        self._token = delivery["next_batch"]
        return texts

    def _decrypt(self, events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        return {event["event_id"]: self._text_of(event) for event in events}

    def _text_of(self, event: Mapping[str, Any]) -> str | None:
        encrypted = Event.parse_encrypted_event(event)
        if not isinstance(encrypted, MegolmEvent):
            return None
        try:
            decrypted = self._olm.decrypt_megolm_event(encrypted, self._config.room_id)
        except EncryptionError:
            return None
        return getattr(decrypted, "body", None)

    def _send(self, transaction: str, text: str) -> None:
        self._claim_missing_sessions()
        with self._store.batch():
            room_keys = self._share_room_key()
            payload = {"type": "m.room.message", "content": {"msgtype": "m.text", "body": text}}
            content = self._olm.group_encrypt(self._config.room_id, payload)
        for messages in room_keys:
            self._relay.ask("send_to_device", messages=messages)
        self._relay.ask("send_event", transaction=transaction, content=content)

    def _claim_missing_sessions(self) -> None:
        missing = self._olm.get_missing_sessions(self._members)
        if missing:
            answer = self._relay.ask("claim_keys", wanted=missing)
            with self._store.batch():
                self._olm.handle_response(KeysClaimResponse.from_dict(answer, self._config.room_id))

    def _share_room_key(self) -> list[dict[str, Any]]:
        room_id = self._config.room_id
        if not self._olm.should_share_group_session(room_id):
            return []
        shares = list(self._olm.share_group_session_parallel(room_id, self._members))
        session = self._olm.outbound_group_sessions[room_id]
        for shared_with, _ in shares:
            session.users_shared_with.update(shared_with)
        session.mark_as_shared()
        session.max_messages = self._config.rotate_after
        return [to_device["messages"] for _, to_device in shares]


def main() -> None:
    """Run one party to its end; what goes wrong in the store goes to the parent as its last line."""
    try:
        Party(PartyConfig(**read()), Connection()).run()
    except CryptoStoreError as error:
        sys.stdout.write(encode({"method": "failed", "params": {"error": f"{type(error).__name__}: {error}"}}))
        sys.stdout.flush()
        sys.exit(exit_code_of(error))


if __name__ == "__main__":
    main()
