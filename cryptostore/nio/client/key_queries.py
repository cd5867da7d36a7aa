"""Other users' devices, and one-time keys of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

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
from cryptostore.nio.trust.key_answers import Judged, TrustedKeys, judged
from cryptostore.nio.trust.secrets import Secrets
from cryptostore.trust.cross_signing import MASTER, USER_SIGNING
from cryptostore.trust.signatures import public_key

from .device import Device
from .device_keys import DeviceKeysResponse
from .session import Session
from .threads import in_thread

Claimed = KeysClaimResponse | KeysClaimError
Queried = KeysQueryResponse | KeysQueryError

#: Of how many users an answer is handled before other tasks get their turn.
_USERS_AT_ONCE: Final = 20


class KeyQueries:
    """Asks for keys. `send` is the client's `_send`, which also handles the answer."""

    def __init__(self, device: Device, session: Session, send: Callable[..., Awaitable[Any]]) -> None:
        self._device = device
        self._session = session
        self._send = send

    async def query(self) -> Queried:
        """Ask about the users who are out of date; those who change meanwhile are asked about again."""
        users = self._session.machine.users_for_key_query if self._session.is_open else set()
        if not users:
            raise LocalProtocolError("No key query required.")
        tracking = self._session.machine.tracking
        asked = tracking.generations(users)
        method, path, data = Api.keys_query(self._device.access_token, users)
        response: Queried = await self._send(DeviceKeysResponse, method, path, data)
        if isinstance(response, KeysQueryResponse):
            self._session.machine.tracking.answered(asked)
        return response

    async def receive(self, response: Response, handle: Callable[[Response], Awaitable[None]]) -> None:
        """Let nio `handle` a response; an answer about keys in turns, after a thread has verified its signatures."""
        if not isinstance(response, DeviceKeysResponse) or not self._session.is_open:
            await handle(response)
            return
        response.judged = found = await self._judged(response)
        for part in response.in_parts(_USERS_AT_ONCE):
            part.judged = {user_id: found[user_id] for user_id in part.device_keys}
            await handle(part)
            response.changed.update(part.changed)
            await asyncio.sleep(0)

    async def _judged(self, response: DeviceKeysResponse) -> Mapping[str, Judged]:
        store, users = self._session.store, response.device_keys
        known = {user_id: row.self_signing_key for user_id in users if (row := store.identities.of(user_id))}
        return await in_thread(
            self._session.threads,
            judged,
            response.cross_signing,
            users,
            known,
            _trusted_keys(store.user_id, store.secrets),
            store.identities.signatures,
        )

    async def claim(self, user_set: Mapping[str, Iterable[str]]) -> Claimed:
        """Begin Olm sessions. nio's raises TypeError where the homeserver refuses."""
        method, path, data = Api.keys_claim(self._device.access_token, dict(user_set))
        response: Claimed = await self._send(KeysClaimResponse, method, path, data, response_data=("",))
        return response


def _trusted_keys(user_id: str, secrets: Secrets) -> TrustedKeys:
    """The public keys whose seeds the account has."""
    return TrustedKeys(user_id, *(_public_key(secrets, name) for name in (MASTER, USER_SIGNING)))


def _public_key(secrets: Secrets, name: str) -> str:
    try:
        seed = secrets.get(name)
    except UnreadableRecord:
        return ""
    return "" if seed is None else public_key(seed)
