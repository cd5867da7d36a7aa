"""Other users' devices, and one-time keys of theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from nio import (
    Api,
    KeysClaimError,
    KeysClaimResponse,
    KeysQueryError,
    KeysQueryResponse,
    LocalProtocolError,
    Response,
)

from cryptostore.errors import UnreadableRecord
from cryptostore.nio.trust.key_answers import OwnKeys, judged
from cryptostore.nio.trust.secrets import MASTER, USER_SIGNING, Secrets
from cryptostore.trust.signatures import public_key

from .device import Device
from .device_keys import DeviceKeysResponse
from .session import Session
from .threads import in_thread

Claimed = KeysClaimResponse | KeysClaimError


class KeyQueries:
    """Asks for keys. `send` is the client's `_send`, which also handles the answer."""

    def __init__(self, device: Device, session: Session, send: Callable[..., Awaitable[Any]]) -> None:
        self._device = device
        self._session = session
        self._send = send

    async def query(self) -> KeysQueryResponse | KeysQueryError:
        """Ask about the users who are out of date; those who change meanwhile are asked about again."""
        users = self._session.machine.users_for_key_query if self._session.is_open else set()
        if not users:
            raise LocalProtocolError("No key query required.")
        tracking = self._session.machine.tracking
        asked = tracking.generations(users)
        method, path, data = Api.keys_query(self._device.access_token, users)
        response: KeysQueryResponse | KeysQueryError = await self._send(DeviceKeysResponse, method, path, data)
        if isinstance(response, KeysQueryResponse):
            self._session.machine.tracking.answered(asked)
        return response

    async def judge(self, response: Response) -> None:
        """Find out, in a thread, what an answer proves of users' identities."""
        if isinstance(response, DeviceKeysResponse) and self._session.is_open:
            store, users = self._session.store, response.device_keys
            known = {user_id: row.self_signing_key for user_id in users if (row := store.identities.of(user_id))}
            response.judged = await in_thread(
                self._session.threads,
                judged,
                response.cross_signing,
                users,
                known,
                own_keys(store.user_id, store.secrets),
                store.identities.signatures,
            )

    async def claim(self, user_set: Mapping[str, Iterable[str]]) -> Claimed:
        """Begin Olm sessions. nio's raises TypeError where the homeserver refuses."""
        method, path, data = Api.keys_claim(self._device.access_token, dict(user_set))
        response: Claimed = await self._send(KeysClaimResponse, method, path, data, response_data=("",))
        return response


def own_keys(user_id: str, secrets: Secrets) -> OwnKeys:
    """The public keys whose seeds the account has."""
    return OwnKeys(user_id, *(_public_key(secrets, name) for name in (MASTER, USER_SIGNING)))


def _public_key(secrets: Secrets, name: str) -> str:
    try:
        seed = secrets.get(name)
    except UnreadableRecord:
        return ""
    return "" if seed is None else public_key(seed)
