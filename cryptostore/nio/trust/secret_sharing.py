"""The account's secrets go from one of its sessions to another, once a person has verified them for each other.

Matrix specification, section "Sharing secrets between clients".
"""

from __future__ import annotations

import asyncio
import secrets as random
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from nio import SyncResponse
from nio.crypto import OlmDevice

from cryptostore.errors import CryptoStoreError, UnreadableRecord
from cryptostore.logs import logger
from cryptostore.nio.client.prefetch import Wanted
from cryptostore.nio.client.session import Session
from cryptostore.trust import unpadded_base64
from cryptostore.trust.cross_signing import SECRET_NAMES, PublicKeys, Seeds
from cryptostore.trust.exchange import Message
from cryptostore.trust.key_backup import KEY_BACKUP

from .olm_payloads import OlmPayload
from .own_identity import OwnIdentity
from .own_steps import IdentityState
from .requests import Requests
from .verification_lines import NotSent, send_to_devices
from .vouching import Client, own_seeds

REQUEST: Final = "m.secret.request"
SEND: Final = "m.secret.send"
#: What is shared: never a key of secret storage.
SHARED: Final = (*SECRET_NAMES, KEY_BACKUP)

_SECRET_BYTES: Final = 32
#: Seconds that a session may ask after it was verified.
_ALLOWED_FOR: Final = 600.0
#: How often each secret is sent to a session that may ask.
_MOST_SENT: Final = 3
#: Requests that came before their session was verified, or while that is still being completed.
_MOST_EARLY: Final = 20
#: Longer texts are no ids.
_LONGEST: Final = 255

_log: Final = logger(__name__)


class _Request(NamedTuple):
    """A session's request for a secret."""

    device_id: str
    name: str
    request_id: str


class _Allowed(NamedTuple):
    """A session that may ask."""

    device: OlmDevice
    until: float


class SecretSharing:
    """Asks verified sessions of the account for its secrets, and answers those that the operator has allowed to ask.

    `own` is the part that uses them.
    """

    def __init__(self, client: Client, session: Session, requests: Requests, own: OwnIdentity) -> None:
        self._client = client
        self._session = session
        self._requests = requests
        self._own = own
        self._tasks: set[asyncio.Task[None]] = set()
        self.clock: Callable[[], float] = time.monotonic
        self.opened()
        session.olm_payloads.on(SEND, self._take_in)

    def opened(self) -> None:
        """An account was opened: nothing was asked, and nobody may ask."""
        self._asked: dict[str, str] = {}
        self._found: dict[str, bytes] = {}
        self._allowed: dict[str, _Allowed] = {}
        self._sent: dict[tuple[str, str], int] = {}
        self._early: OrderedDict[_Request, float] = OrderedDict()
        self._is_new = True

    async def closing(self) -> None:
        """The client is about to be closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def synced(self, _response: SyncResponse) -> None:
        """A sync was handled. After the first one, ask for what a former process did not get."""
        if self._is_new:
            self._is_new = False
            self._ask(self._signed_sessions())

    def verified(self, device: OlmDevice, *, is_identity: bool, may_ask: bool) -> None:
        """Another session of the account was verified; `is_identity` if it has vouched for the account's identity.

        `may_ask` if it may have the account's secrets.
        """
        if is_identity:
            self._ask([device.id])
        if may_ask:
            self._allowed[device.id] = _Allowed(device, self.clock() + _ALLOWED_FOR)
            for request in [each for each in self._early if each.device_id == device.id]:
                came = self._early.pop(request)
                if self.clock() < came + _ALLOWED_FOR:
                    self._answer(request)

    async def to_device(self, event: Any) -> None:
        """A to-device event came."""
        request = _request(getattr(event, "source", None), self._client.user_id)
        if request is None or request.device_id == self._client.device_id:
            return
        allowed = self._allowed.get(request.device_id)
        if allowed is not None and self.clock() < allowed.until:
            self._answer(request)
            return
        _log.info("left a request for %s alone: the session %s may not have it", request.name, request.device_id)
        self._early[request] = self.clock()
        while len(self._early) > _MOST_EARLY:
            self._early.popitem(last=False)

    def _ask(self, device_ids: Iterable[str]) -> None:
        """Ask sessions of the account for what is missing, if its identity is known to be right."""
        devices = [each for each in device_ids if each != self._client.device_id]
        is_known = self._session.store.identities.is_verified(self._client.user_id)
        if not devices or not is_known or self._own.state is IdentityState.OFF:
            return
        for name in self._missing():
            request_id = random.token_urlsafe(16)
            self._asked[request_id] = name
            content = {
                "action": "request",
                "name": name,
                "request_id": request_id,
                "requesting_device_id": self._client.device_id,
            }
            self._start(self._send(Message(REQUEST, content), devices, request_id))

    def _missing(self) -> list[str]:
        """What to ask for: all three seeds, or none. Nothing takes the place of what cannot be read."""
        secrets = self._session.store.secrets
        try:
            there = {name for name in SHARED if secrets.get(name) is not None}
        except UnreadableRecord:
            return []
        if set(SECRET_NAMES) <= there:
            return []
        return [name for name in SHARED if name in SECRET_NAMES or name not in there]

    def _signed_sessions(self) -> list[str]:
        identity = self._session.store.identities.of(self._client.user_id)
        return [] if identity is None else list(identity.signed_devices)

    def _take_in(self, payload: OlmPayload) -> None:
        """A secret came. Only what was asked for counts, from a session that is known to be the account's."""
        request_id, text = payload.content.get("request_id"), payload.content.get("secret")
        name = self._asked.get(request_id) if isinstance(request_id, str) else None
        if name is None or payload.sender != self._client.user_id or not self._is_trusted(payload):
            _log.warning("refused a secret of %s: it is not missing, or not of a verified session", payload.sender)
            return
        try:
            self._found[name] = unpadded_base64.decode(text, size=_SECRET_BYTES)
        except ValueError:
            _log.warning("refused the secret %s: it is not %d bytes in base64", name, _SECRET_BYTES)
            return
        self._keep()

    def _is_trusted(self, payload: OlmPayload) -> bool:
        machine, user_id = self._session.machine, self._client.user_id
        device = machine.device_store.device_from_sender_key(user_id, payload.sender_key)
        if device is None or device.ed25519 != payload.signing_key:
            return False
        identities = self._session.store.identities
        is_signed = identities.is_signed_by_owner(user_id, device.id, device.ed25519)
        return identities.is_verified(user_id) and (device.verified or is_signed)

    def _keep(self) -> None:
        """Keep what came, once it is known to be the account's: all three seeds together."""
        secrets = self._session.store.secrets
        is_new = own_seeds(secrets) is None
        if is_new:
            seeds = Seeds.of(self._found)
            if seeds is None:
                return
            if seeds.public != self._public_keys():
                _log.warning("refused the secrets of another session: they are not those of the account's identity")
                self._found.clear()
                return
        for name, secret in self._found.items():
            if (is_new and name in SECRET_NAMES) or self._secret(name) is None:
                secrets.put(name, secret)
        self._found.clear()
        # Every session of the account was asked: what the others answer is known.
        self._asked = {request_id: name for request_id, name in self._asked.items() if self._secret(name) is None}
        _log.info("another session of %s has sent the account's secrets", self._client.user_id)
        self._own.look_again()

    def _public_keys(self) -> PublicKeys | None:
        identity = self._session.store.identities.of(self._client.user_id)
        if identity is None:
            return None
        return PublicKeys(identity.master_key, identity.self_signing_key, identity.user_signing_key)

    def _answer(self, request: _Request) -> None:
        secret, allowed = self._secret(request.name), self._allowed[request.device_id]
        sent = self._sent.get(request[:2], 0)
        if secret is not None and sent < _MOST_SENT:
            self._sent[request[:2]] = sent + 1
            self._start(self._send_secret(request, allowed.device, secret))

    async def _send_secret(self, request: _Request, device: OlmDevice, secret: bytes) -> None:
        content = {"request_id": request.request_id, "secret": unpadded_base64.encode(secret)}
        encrypted = await self._encrypted(device, content)
        if encrypted is None:
            _log.warning("could not send %s to %s: no Olm session can begin", request.name, device.id)
            return
        await self._send(Message("m.room.encrypted", encrypted), [device.id], random.token_urlsafe(16))
        self._session.store.storage.durable.reports.secret_exported(request.name, "secret sharing", device.id)
        _log.info("sent %s to the session %s, as it may ask for it", request.name, device.id)

    async def _encrypted(self, device: OlmDevice, content: dict[str, Any]) -> dict[str, Any] | None:
        machine, user_id = self._session.machine, self._client.user_id
        async with self._client.prefetched(Wanted(partners={user_id})):
            olm_session = machine.session_store.get(device.curve25519)
            if olm_session is None:
                await self._client.keys_claim({user_id: [device.id]})
                olm_session = machine.session_store.get(device.curve25519)
            if olm_session is None:
                return None
            encrypted: dict[str, Any] = machine._olm_encrypt(olm_session, device, SEND, content)  # noqa: SLF001  # nio's
            return encrypted

    async def _send(self, message: Message, devices: list[str], transaction: str) -> None:
        await send_to_devices(self._requests, message, {self._client.user_id: devices}, transaction)

    def _secret(self, name: str) -> bytes | None:
        try:
            return self._session.store.secrets.get(name)
        except UnreadableRecord:
            return None

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_logged(sending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _logged(sending: Coroutine[Any, Any, None]) -> None:
    try:
        await sending
    except (NotSent, CryptoStoreError) as error:
        _log.warning("the account's sessions did not exchange secrets: %s", error)


def _request(source: Any, user_id: str) -> _Request | None:
    """The request in a to-device event of one of the account's sessions; None if it is something else."""
    if not isinstance(source, dict) or source.get("type") != REQUEST or source.get("sender") != user_id:
        return None
    content = source.get("content")
    fields = ("requesting_device_id", "name", "request_id")
    if not isinstance(content, dict) or content.get("action") != "request":
        return None
    device_id, name, request_id = map(partial(_text, content), fields)
    return _Request(device_id, name, request_id) if name in SHARED and device_id and request_id else None


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) and len(value) <= _LONGEST else ""
