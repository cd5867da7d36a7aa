"""nio's encryption machine, made safe across restarts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import vodozemac
from nio import Api, KeysClaimResponse, KeysUploadResponse
from nio.crypto import InboundGroupSession, OutboundGroupSession
from nio.events import MegolmEvent, OlmEvent, RoomKeyRequest
from nio.exceptions import EncryptionError

from cryptostore.errors import CryptoStoreError
from cryptostore.logs import logger
from cryptostore.nio.provenance import as_forwarded, is_from_backup
from cryptostore.nio.trust.old_verifications import OlmWithoutVerifications
from cryptostore.nio.trust.olm_payloads import OlmPayload, OlmPayloads
from cryptostore.nio.trust.policies import Policies
from cryptostore.nio.trust.recipients import Recipients, shown_as_verified
from cryptostore.nio.trust.sender_keys import DeviceKeys, OwnDeviceKeys
from cryptostore.nio.trust.senders import Senders, SenderTrust
from cryptostore.trust import unpadded_base64
from cryptostore.trust.signatures import is_signed

from .handled import HandledMessages, MessageKey
from .looking import identity_keys
from .outbound import DevicePair, Shares
from .room_devices import RoomDevices
from .statistics import Statistics
from .store import ProductionStore
from .withheld import NO_OLM, REASONS, session_of, withheld_by

#: The types of Olm messages that nio takes in.
_KNOWN_TO_NIO: Final = ("m.room_key", "m.forwarded_room_key", "m.dummy")

_log: Final = logger(__name__)


class ProductionOlm(OlmWithoutVerifications):
    """An Olm machine whose every change reaches the database before the network.

    `payloads` takes in what nio does not know.
    """

    def __init__(
        self, store: ProductionStore, statistics: Statistics, payloads: OlmPayloads, policies: Policies
    ) -> None:
        self.statistics = statistics
        self._payloads = payloads
        self.outbound = store.outbound
        self.tracking = store.tracking
        self.replays = store.replays
        self.devices = store.load_device_keys()
        self.unreached = store.unreached
        self.withheld = store.withheld
        self.fallback_keys = store.fallback_keys
        self.identities = store.identities
        self.recipients = Recipients(store, store.identities, store.room_policies, policies)
        self.room_devices = RoomDevices(store, self.recipients)
        self.sender_devices = store.sender_devices
        proofs, accept = store.sender_devices, policies.accept
        self.senders = Senders(self.devices, store, store.identities, proofs, accept, self._is_this_device)
        self.own_device_keys = OwnDeviceKeys(store.user_id, store.device_id, store.identities.signatures)
        self._gaps = store.gaps
        self._rotations = store.rotations
        self._has_group_sessions = store.are_group_sessions_in_memory
        self._handled = store.handled
        #: What requests for room keys need that wait for the owner. The caches alone might forget it.
        self.kept_for_requests: object = None
        super().__init__(store.user_id, store.device_id, store)

    def load(self) -> None:
        """Take everything from the store, also what nio starts without."""
        super().load()
        self.outbound_group_sessions = self.outbound.live  # type: ignore[assignment]  # used as a dictionary
        self.tracked_users = self.tracking.tracked
        self.users_for_key_query = self.tracking.outdated

    def handle_to_device_event(self, event: Any) -> Any:
        """As nio's; what a device says of a room key that it does not send is kept, unless the key is there."""
        said = withheld_by(event)
        if said is not None and not self._has_group_sessions([session_of(said)]):
            self.withheld.came(said)
        return super().handle_to_device_event(event)  # type: ignore[no-untyped-call]  # nio has no annotation

    def decrypt_event(self, event: Any, room_id: str | None = None) -> Any:
        """Decrypt an event, a to-device one only once: None for a ciphertext that was handled before."""
        key = self._message_key(event)
        if key is None:
            return super().decrypt_event(event, room_id)
        if key in self._handled:
            self._handled.came_again(key)
            self.statistics.redelivered_events += 1
            return None
        try:
            decrypted = super().decrypt_event(event, room_id)
        except CryptoStoreError:
            # It was not handled: it will be, when the server sends it again.
            raise
        except Exception:
            # Refused for good: its ratchet may have moved on, and the same ciphertext again would look like a wedge.
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

    def _handle_olm_event(self, sender: str, sender_key: str, payload: dict[Any, Any]) -> Any:
        identity = self.identities.of(sender)
        known_key = "" if identity is None else identity.self_signing_key
        if not self.sender_devices.take_in(sender, sender_key, payload, known_key):
            self.statistics.poisoned_events += 1
            _log.warning("refused an Olm message of %s: the device keys inside are not the sender's", sender)
            return None
        if payload["type"] in _KNOWN_TO_NIO:
            return super()._handle_olm_event(sender, sender_key, payload)
        signing_key = str(payload["keys"].get("ed25519", ""))
        self._payloads.hand_on(OlmPayload(sender, sender_key, signing_key, payload["type"], payload["content"]))
        return None

    def _olm_encrypt(self, session: Any, recipient_device: Any, message_type: str, content: Any) -> dict[str, Any]:
        # As nio's, but with this device's keys: see OwnDeviceKeys.
        payload = {
            "sender": self.user_id,
            "sender_device": self.device_id,
            "keys": {"ed25519": self.account.identity_keys["ed25519"]},
            "recipient": recipient_device.user_id,
            "recipient_keys": {"ed25519": recipient_device.ed25519},
            "type": message_type,
            "content": content,
            **self.own_device_keys.in_payload(),
        }
        message = session.encrypt(Api.to_json(payload))
        self.store.save_session(recipient_device.curve25519, session)
        kind, ciphertext = message.to_parts()
        return {
            "algorithm": self._olm_algorithm,
            "sender_key": self.account.identity_keys["curve25519"],
            "ciphertext": {recipient_device.curve25519: {"type": kind, "body": unpadded_base64.encode(ciphertext)}},
        }

    def note_own_device(self, known: Any) -> None:
        """What the homeserver has for this device goes into its Olm messages, with its owner's signature."""
        self.own_device_keys.note(known, DeviceKeys(**identity_keys(self.account)))

    @property
    def should_upload_keys(self) -> bool:
        """As nio's, also for a fallback key alone."""
        return self._needs_one_time_keys() or self.fallback_keys.is_due

    def share_keys(self) -> dict[str, Any]:
        """The keys to upload, marked as published.

        Whatever becomes of the upload, the one-time keys are never offered again: the server could hand one out twice.
        """
        only_fallback = self.fallback_keys.is_due and not self._needs_one_time_keys()
        content = {} if only_fallback else super().share_keys()
        content |= self.fallback_keys.to_upload(self.account, self.sign_json)
        self.mark_keys_as_published()
        self.save_account()
        return content

    def handle_response(self, response: Any) -> None:
        """As nio's; an upload that was taken in confirms its fallback key."""
        if isinstance(response, KeysUploadResponse):
            self.fallback_keys.confirm()
        super().handle_response(response)  # type: ignore[no-untyped-call]  # nio has no annotation

    def _needs_one_time_keys(self) -> bool:
        return bool(super().should_upload_keys)

    def add_changed_users(self, users: set[str]) -> None:
        """The server says that these users' devices changed."""
        self.tracking.changed(users)

    def message_index_ok(self, message_index: int, event: MegolmEvent) -> bool:
        """Whether no other event used this index, in this process or an earlier one."""
        session = (str(event.session_id), str(event.sender_key))
        is_ok = self.replays.use(session, message_index, event.event_id, event.server_timestamp)
        self.statistics.replays += not is_ok
        return is_ok

    def create_outbound_group_session(self, room_id: str) -> None:
        """A new session for the room, in place of whatever it had."""
        self.outbound.forget_restored(room_id)
        super().create_outbound_group_session(room_id)
        self._rotations.limit(room_id, self.outbound_group_sessions[room_id])

    def judge_outbound_session(self, room_id: str, users: Iterable[str], shares: Shares | None) -> None:
        """Use the room's session of an earlier process if the devices that should have its key are those that do."""
        later = self.unreached.among(shares.ignored - shares.shared_with) if shares else set()
        if self.outbound.judge(room_id, self.room_devices.that_should_have(room_id, users, later), shares):
            self.statistics.adopted_sessions += 1
        else:
            self.statistics.dropped_sessions += 1

    def verify_json(self, json: Any, user_key: str, user_id: str, device_id: str) -> bool:
        """Whether a key object is signed by the device. nio's raises, or panics, for what is no key or signature."""
        return is_signed(json, user_id, user_key, f"ed25519:{device_id}")

    def _handle_key_query(self, response: Any) -> None:
        # Absent is not deleted: a device that this answer has again is served again.
        with self.devices.absent_ones_aside(response.device_keys):
            super()._handle_key_query(response)
        # Another device may be under this id now; its pauses are its own.
        self.unreached.reached((user_id, each) for user_id, devices in response.changed.items() for each in devices)
        self._take_identities_in(response)
        # nio would ask for their keys at every turn, also when they are back, as objects that it takes for others.
        self.wedged_devices = [each for each in self.wedged_devices if not each.deleted]
        waiting = self.key_request_devices_no_session
        self.key_request_devices_no_session = [each for each in waiting if not each.deleted]

    def _take_identities_in(self, response: Any) -> None:
        """What the answer proves of identities."""
        if (own := response.device_keys.get(self.user_id, {}).get(self.device_id)) is not None:
            self.note_own_device(own)
        for user_id, found in (getattr(response, "judged", None) or {}).items():
            devices = self.devices[user_id]
            kept = {*devices, self.device_id} if user_id == self.user_id else devices
            self.identities.take_in(user_id, found, kept.__contains__)
        if self.identities.changes.rows:
            self._gaps.on_change()

    def without_working_session(self) -> set[DevicePair]:
        """The devices that nio wants a new Olm session with: the last one is broken, or they asked for a room key."""
        return {(each.user_id, each.id) for each in [*self.wedged_devices, *self.key_request_devices_no_session]}

    def _handle_key_claiming(self, response: Any) -> None:
        # One by one: an invalid one-time key must not keep the others from being used.
        for user_id, devices in response.one_time_keys.items():
            for device_id, key in devices.items():
                try:
                    super()._handle_key_claiming(KeysClaimResponse({user_id: {device_id: key}}, {}))  # type: ignore[no-untyped-call]  # nio's
                except CryptoStoreError:
                    raise
                except Exception as error:  # noqa: BLE001  # the same as for events
                    _log.warning("%s %s gave a useless one-time key: %s", user_id, device_id, type(error).__name__)

    def without_olm_session(self, room_id: str, users: Iterable[str]) -> set[DevicePair]:
        """The users' devices that the room's key cannot be encrypted for, without those that do not get it."""
        return {
            (user_id, device_id)
            for user_id, device_ids in self.get_missing_sessions(list(users)).items()
            for device_id in device_ids
            if self.room_devices.is_wanted(room_id, (user_id, device_id))
        }

    def share_group_session_parallel(
        self, room_id: str, users: list[str], ignore_unverified_devices: bool = False
    ) -> Iterator[tuple[set[DevicePair], dict[str, Any]]]:
        """As nio's, for the devices that the room's policy lets have its key.

        Raises OlmUnverifiedDeviceError for a device that waits for the program's decision: see `Recipients`.
        """
        session = self._session_to_share(room_id)
        pairs = self.room_devices.that_lack(
            room_id,
            session,
            users,
            lambda device: self.session_store.get(device.curve25519) is not None,
            ignore_unverified_devices=ignore_unverified_devices,
        )
        for start in range(0, len(pairs), self._maxToDeviceMessagesPerRequest):
            part = pairs[start : start + self._maxToDeviceMessagesPerRequest]
            yield set(part), {"messages": self.encrypt_room_key(room_id, session, part)}

    def _session_to_share(self, room_id: str) -> OutboundGroupSession:
        session = self.outbound_group_sessions.get(room_id)
        if session is None or session.shared or session.expired:
            self.create_outbound_group_session(room_id)
        return self.outbound_group_sessions[room_id]

    def encrypt_room_key(
        self, room_id: str, session: OutboundGroupSession, devices: Iterable[DevicePair]
    ) -> dict[str, dict[str, Any]]:
        """The session's key, from the next message on, for devices that there are Olm sessions with."""
        content = {
            "algorithm": self._megolm_algorithm,
            "room_id": room_id,
            "session_id": session.id,
            "session_key": session.session_key,
        }
        messages: dict[str, dict[str, Any]] = {}
        for user_id, device_id in devices:
            device = self.device_store[user_id][device_id]
            olm_session = self.session_store.get(device.curve25519)
            encrypted = self._olm_encrypt(olm_session, device, "m.room_key", content)
            messages.setdefault(user_id, {})[device_id] = encrypted
        return messages

    def share_with_ourselves(self, event: RoomKeyRequest) -> None:
        """As nio's, and to a device that the account's own identity has signed without asking the program."""
        device = self.device_store[event.sender].get(event.requesting_device_id)
        if device is None or device.verified or not self.recipients.is_own(device):
            super().share_with_ourselves(event)
            return
        with shown_as_verified(device):
            super().share_with_ourselves(event)

    def _should_accept_forward(self, sender: str, sender_key: str, event: Any) -> bool:
        """As nio's, also of a device that the account's own identity has signed."""
        device = self.device_store.device_from_sender_key(sender, sender_key)
        if device is None or device.verified or not self.recipients.is_own(device):
            return bool(super()._should_accept_forward(sender, sender_key, event))
        with shown_as_verified(device):
            return bool(super()._should_accept_forward(sender, sender_key, event))

    def withheld_content(self, room_id: str, session_id: str, code: str) -> dict[str, str]:
        """What a device is told that does not get a session's key."""
        ids = {} if code == NO_OLM else {"room_id": room_id, "session_id": session_id}
        sender_key = self.account.identity_keys["curve25519"]
        own = {"algorithm": self._megolm_algorithm, "sender_key": sender_key, "from_device": self.device_id}
        return {**ids, **own, "code": code, "reason": REASONS[code]}

    def _create_inbound_session(self, sender: str, sender_key: str, message: Any) -> Any:
        session = super()._create_inbound_session(sender, sender_key, message)
        device = self.device_store.device_from_sender_key(sender, sender_key)
        if device is not None:
            self.unreached.answers((sender, device.id))
        return session

    def decrypt_megolm_event(self, event: MegolmEvent, room_id: str | None = None) -> Any:
        """As nio's; a session from a backup proves no sender.

        Raises EncryptionError also for a sender's device that is not accepted.
        """
        session = self._session_of(event, room_id)
        if session is None:
            return super().decrypt_megolm_event(event, room_id)
        self._check_sender(event, session)
        if not is_from_backup(session):
            return super().decrypt_megolm_event(event, room_id)
        with as_forwarded(session):
            decrypted = super().decrypt_megolm_event(event, room_id)
        decrypted.verified = False
        return decrypted

    def sender_trust(self, event: Any) -> SenderTrust:
        """What is known of the device that sent an event: see `sender_trust` of the client."""
        if not isinstance(event, MegolmEvent) and not getattr(event, "decrypted", False):
            return SenderTrust.UNENCRYPTED
        return self.senders.trust(event.sender, self._session_of(event))

    def is_refused(self, event: MegolmEvent) -> bool:
        """Whether a message was left undecrypted for what is known of its sender's device."""
        session = self._session_of(event)
        return session is not None and self.senders.refusal(event.sender, session) is not None

    def _check_sender(self, event: MegolmEvent, session: InboundGroupSession) -> None:
        refusal = self.senders.refusal(event.sender, session)
        if refusal is None:
            return
        if refusal is SenderTrust.UNKNOWN:
            # It may be new.
            self.users_for_key_query.add(event.sender)
        _log.warning("did not decrypt %s of %s: its sender's device is %s", event.event_id, event.sender, refusal)
        raise EncryptionError(f"the device that sent {event.event_id} is {refusal}")

    def _is_this_device(self, sender: str, session: InboundGroupSession) -> bool:
        own, shown = self.account.identity_keys, (sender, session.sender_key, session.ed25519)
        return bool(shown == (self.user_id, own["curve25519"], own["ed25519"]))

    def _session_of(self, event: Any, room_id: str | None = None) -> InboundGroupSession | None:
        return self.inbound_group_store.get(room_id or event.room_id, str(event.sender_key), str(event.session_id))

    def decrypt_message(self, event: MegolmEvent) -> Any:
        """Decrypt a room's message: the plain one, or None, which is logged."""
        return self._decrypt_megolm_no_error(event)

    def _decrypt_megolm_no_error(self, event: MegolmEvent, room_id: str | None = None) -> Any:
        try:
            decrypted = super()._decrypt_megolm_no_error(event, room_id)
        except CryptoStoreError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a stranger's event made nio raise must not stop the sync
            self.statistics.poisoned_messages += 1
            _log.warning("left the event %s undecrypted: it raised %s", event.event_id, type(error).__name__)
            return None
        said = self.withheld.about(event, room_id) if decrypted is None else None
        if said is not None:
            _log.warning("%s did not send the key of %s: %s, %s", event.sender, event.event_id, said.code, said.reason)
        return decrypted

    def _message_key(self, event: Any) -> MessageKey | None:
        if not isinstance(event, OlmEvent):
            return None
        own = event.ciphertext.get(self.account.identity_keys["curve25519"])
        body = own.get("body") if isinstance(own, dict) else None
        return HandledMessages.key(event.sender_key, body) if isinstance(body, str) else None
