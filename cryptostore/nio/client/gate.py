"""The one way to the homeserver: nothing leaves before what it depends on is durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from aiohttp import ClientConnectionError, ClientResponse

from cryptostore.errors import ConfigurationError, StoreClosed

from .answers import NOT_JSON
from .device import Device
from .identity import Identity
from .session import Session
from .uploading import KeyUploads

#: Requests of who has no device yet.
_NEEDS_NO_ACCOUNT: Final = ("/login", "/register", "/versions")
#: What a client asks, and says, before its identity is known to be the device's: nothing of it depends on a key.
_ASKED_BEFORE: Final = ("/account/whoami", "/keys/query", "/login", "/logout", "/register", "/versions")
_CLOSED: Final = "this client was closed; `await client.open()` opens it again"
#: With what keys are replaced that a backup which was put back does not know.
_REPLACES_KEYS: Final = ("/keys/claim", "/keys/upload")


class Gate:
    """Lets requests through when what they depend on is durable. `send` is nio's own.

    `replace_keys` is done before whatever could use a key that was lost.
    """

    def __init__(
        self,
        device: Device,
        session: Session,
        identity: Identity,
        key_uploads: KeyUploads,
        replace_keys: Callable[[], Awaitable[None]],
        send: Callable[..., Awaitable[ClientResponse]],
    ) -> None:
        self._device = device
        self._session = session
        self._identity = identity
        self._key_uploads = key_uploads
        self._replace_keys = replace_keys
        self._send = send

    async def send(self, method: str, path: str, data: Any, *rest: Any) -> ClientResponse:
        """As `AsyncClient.send`. Raises what its override in the client says."""
        through = partial(self._confirmed, method, path, data, *rest)
        if _ends(path, ("/keys/upload",)):
            return await self._key_uploads.send_once(data, through)
        return await through()

    async def _confirmed(self, method: str, path: str, *rest: Any) -> ClientResponse:
        if not _ends(path, _NEEDS_NO_ACCOUNT):
            await self._identity.open_restored()
        if not _ends(path, _ASKED_BEFORE):
            await self._identity.confirm()
            if not _ends(path, _REPLACES_KEYS):
                await self._replace_keys()
        return await self._durable(method, path, *rest)

    async def _durable(self, method: str, path: str, *rest: Any) -> ClientResponse:
        store = self._session.store if self._session.is_open else None
        if store is not None:
            await self._session.flush_before_sending()
        if self._session.is_closed or (self._session.store if self._session.is_open else None) is not store:
            raise StoreClosed(_CLOSED)
        if store is None and self._device.access_token and not _ends(path, _NEEDS_NO_ACCOUNT):
            raise ConfigurationError(
                "this client has an access token but no open store: use `await client.login_or_restore(...)` or "
                "`client.restore_login(...)`"
            )
        try:
            return await self._send(method, path, *rest)
        except ClientConnectionError as error:
            # Closing the client closes its connections, also under a request that has just begun.
            if self._session.is_closed:
                raise StoreClosed(_CLOSED) from error
            raise


async def body_of(transport: ClientResponse, parse: Callable[[ClientResponse], Awaitable[dict[Any, Any]]]) -> Any:
    """What nio parses from an answer; one that is not JSON is an error: nio takes it for an empty one, a success."""
    try:
        parsed = await parse(transport)
    except (ValueError, LookupError, RecursionError):
        # No UTF-8, an unknown character set, an endless number, or too many brackets.
        parsed = {}
    if parsed or (transport.ok and (await transport.read()).strip() == b"{}"):
        return parsed
    return {"errcode": NOT_JSON, "error": f"HTTP status {transport.status} without a usable body"}


def _ends(path: str, ends: tuple[str, ...]) -> bool:
    return path.split("?")[0].endswith(ends)
