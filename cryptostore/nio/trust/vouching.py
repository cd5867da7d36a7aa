"""What follows a verification: signatures with the account's seeds, and what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from nio import ErrorResponse, Response
from nio.crypto import OlmDevice

from cryptostore.errors import HomeserverUnavailable, UnreadableRecord
from cryptostore.nio.client.device_keys import DeviceKeysResponse
from cryptostore.nio.client.prefetch import Wanted
from cryptostore.nio.client.session import Session
from cryptostore.trust.cross_signing import PublicIdentity, Seeds
from cryptostore.trust.sas import ED25519, DeviceId, key_ids
from cryptostore.trust.signatures import is_signed

from .requests import Requests
from .secrets import Secrets
from .verification_lines import NotSent, check


class Client(Protocol):
    """What is done through the client."""

    user_id: str
    device_id: str | None

    async def receive_response(self, response: Response) -> None:
        """Take in an answer that came another way."""

    def verify_device(self, device: OlmDevice) -> bool:
        """The device is trusted."""

    async def keys_claim(self, user_set: Mapping[str, Iterable[str]]) -> Any:
        """Begin Olm sessions with devices."""

    def prefetched(self, wanted: Wanted) -> AbstractAsyncContextManager[None]:
        """Have what is wanted in memory inside the block."""


class UnknownDevice(Exception):
    """The other side's device is not there, or is not what it was."""


class NotVouched(Exception):
    """What follows a verification could not be done, and cannot later."""


class Known(NamedTuple):
    """What the homeserver has of the other side."""

    device: dict[str, Any]
    olm_device: OlmDevice
    identity: PublicIdentity | None


class Verified(NamedTuple):
    """What a verification has shown."""

    user_id: str
    device_id: str
    #: Whether the user's master key is the right one, so that all devices that it vouches for are.
    user: bool
    #: Whether the device's own key is the right one.
    device: bool


class Vouching:
    """Finds out the other side's keys, and signs them once they are verified."""

    def __init__(self, client: Client, session: Session, requests: Requests) -> None:
        self._client = client
        self._session = session
        self._requests = requests

    @property
    def own(self) -> DeviceId:
        """This device."""
        return DeviceId(self._client.user_id, str(self._client.device_id))

    def own_keys(self) -> dict[str, str]:
        """The keys to verify, by their ids: the master key is one of them if it is known to be the account's."""
        signing_key, master_key = self._session.machine.account.identity_keys["ed25519"], self._own_master_key()
        # A device that is named after the master key cannot vouch for it.
        return key_ids(self.own, signing_key, None if master_key == self.own.device_id else master_key)

    async def learn(self, other: DeviceId) -> Known:
        """Ask for the other side's keys.

        Raises UnknownDevice if the device is not there or not to be believed, and HomeserverUnavailable.
        """
        answer = await self._ask(other.user_id)
        device = answer.device_keys.get(other.user_id, {}).get(other.device_id)
        olm_device = self._session.machine.device_store[other.user_id].get(other.device_id)
        if olm_device is None or olm_device.deleted or not _is_of(device, other, olm_device.ed25519):
            raise UnknownDevice(f"{other.user_id} has no device {other.device_id} that can be verified")
        judged = (answer.judged or {}).get(other.user_id)
        return Known(device, olm_device, judged.identity if judged else None)

    async def devices_of(self, user_id: str) -> list[str]:
        """The ids of a user's devices, without this one. Raises HomeserverUnavailable."""
        devices = (await self._ask(user_id)).device_keys.get(user_id, {})
        return [each for each in devices if (user_id, each) != self.own]

    async def vouch(self, other: DeviceId, known: Known, verified: frozenset[str]) -> Verified:
        """Sign and keep what was verified. What is signed is on the homeserver when this returns; asking it is all
        that is left to be done before others may rely on it.

        Raises NotVouched, and HomeserverUnavailable: then it may be tried again.
        """
        master_key = known.identity.master_key if known.identity else ""
        is_user = bool(master_key) and ED25519 + master_key in verified
        is_device = ED25519 + other.device_id in verified
        if other.user_id == self._client.user_id:
            if is_device:
                await self._sign_device(other, known)
        elif is_user:
            await self._sign_user(other.user_id, known.identity)
        if is_user and not self._session.store.identities.set_verified(other.user_id, master_key):
            raise NotVouched(f"the identity of {other.user_id} has changed meanwhile")
        if is_device:
            self._client.verify_device(known.olm_device)
        return Verified(other.user_id, other.device_id, is_user, is_device)

    async def _sign_user(self, user_id: str, identity: PublicIdentity | None) -> None:
        seeds = own_seeds(self._session.store.secrets)
        if seeds is None or identity is None:
            return
        signed = seeds.sign_master_key(self._client.user_id, identity.master_object)
        await self._upload_signatures({user_id: {identity.master_key: signed}})
        shown = (await self._ask(user_id)).judged or {}
        present = shown[user_id].identity if user_id in shown else None
        own = self._client.user_id
        if present is None or not is_signed(present.master_object, own, seeds.public.user_signing):
            raise NotVouched(f"the homeserver has not kept the signature for {user_id}")

    async def _sign_device(self, other: DeviceId, known: Known) -> None:
        seeds = own_seeds(self._session.store.secrets)
        identity = known.identity
        if seeds is None or identity is None or identity.public_keys != seeds.public:
            return
        if identity.signs_device(known.device):
            return
        signed = seeds.sign_device(other.user_id, known.device)
        await self._upload_signatures({other.user_id: {other.device_id: signed}})
        again = await self._learn_again(other)
        # Homeservers keep the first signature of a device id, and drop later ones in silence.
        if not identity.signs_device(again.device):
            raise NotVouched(f"the homeserver has not kept the signature for {other.user_id} {other.device_id}")

    async def _learn_again(self, other: DeviceId) -> Known:
        try:
            return await self.learn(other)
        except UnknownDevice as error:
            raise NotVouched(str(error)) from error

    async def _upload_signatures(self, content: dict[str, Any]) -> None:
        answer = await self._requests.ask("POST", "keys", "signatures", "upload", content=content)
        try:
            check(answer)
        except NotSent as error:
            raise NotVouched(f"the homeserver does not take a signature: {error}") from error
        if answer.content.get("failures"):
            raise NotVouched(f"the homeserver does not take a signature: {answer.content['failures']}")

    async def _ask(self, user_id: str) -> DeviceKeysResponse:
        answer = await self._requests.ask("POST", "keys", "query", content={"device_keys": {user_id: []}})
        response = DeviceKeysResponse.from_dict(answer.content)
        if not answer.is_ok or isinstance(response, ErrorResponse) or not isinstance(response, DeviceKeysResponse):
            raise HomeserverUnavailable(f"the homeserver does not give the keys of {user_id}: {answer.problem}")
        if answer.content.get("failures"):
            raise HomeserverUnavailable(f"the homeserver of {user_id} does not give the user's keys at present")
        await self._client.receive_response(response)
        return response

    def _own_master_key(self) -> str | None:
        store = self._session.store
        seeds = own_seeds(store.secrets)
        if seeds is not None:
            return seeds.public.master
        identity = store.identities.of(self._client.user_id)
        is_verified = store.identities.is_verified(self._client.user_id)
        return identity.master_key if identity is not None and is_verified else None


def own_seeds(secrets: Secrets) -> Seeds | None:
    """The seeds of the account's identity, if all three are there and can be read."""
    try:
        return secrets.seeds()
    except UnreadableRecord:
        return None


def _is_of(device: Any, other: DeviceId, signing_key: str) -> bool:
    """Whether this is the device, signed with the key that was known before."""
    return (
        isinstance(device, dict)
        and device.get("user_id") == other.user_id
        and device.get("device_id") == other.device_id
        and is_signed(device, other.user_id, signing_key, ED25519 + other.device_id)
    )
