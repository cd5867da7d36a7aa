"""Uploading keys: each one-time key is offered once, whatever becomes of the request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import ClientResponse
from nio import ErrorResponse, KeysUploadError, KeysUploadResponse

from cryptostore.logs import logger

from .device import Device
from .pauses import growing_pause
from .session import Session

Uploaded = KeysUploadResponse | KeysUploadError

_FIRST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 3600.0
_TOO_MANY_REQUESTS: Final = 429
#: What Synapse says of a one-time key under whose id it has another one. A database that was not put back never repeats
#: an id: the account, which counts them, is durable before a key leaves.
_ID_IS_TAKEN: Final = "already exists"
_WAS_PUT_BACK: Final = (
    "the homeserver has other one-time keys of %s than this database made under the same ids (%s). Was a backup put "
    "back, or did another store make them? Then run `cryptostore restored`, or what others send with them is lost"
)
_MOST_SHOWN: Final = 80

_log: Final = logger(__name__)


class _AlreadySentError(Exception):
    """nio repeats a request whose answer did not come. The server may have handed the keys out already."""


class KeyUploads:
    """Uploads of keys, one at a time. `upload` is nio's own; `check_identity` is asked before."""

    def __init__(
        self,
        device: Device,
        session: Session,
        check_identity: Callable[[], Awaitable[ErrorResponse | None]],
        upload: Callable[[], Awaitable[Uploaded]],
    ) -> None:
        self._device = device
        self._session = session
        self._check_identity = check_identity
        self._upload = upload
        self._one_upload = asyncio.Lock()
        self._sent: Any = None
        self._failures = 0
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the pause after the last failure is over."""
        return time.monotonic() >= self._next

    def start_over(self) -> None:
        """A new token may be good for what the homeserver refused before."""
        self._failures, self._next = 0, 0.0
        self._session.machine.fallback_keys.try_now()

    async def upload(self) -> Uploaded:
        """Upload keys, which count as published before they leave, and go out once. One upload waits for another."""
        if self._device.access_token and (answer := await self._check_identity()) is not None:
            return KeysUploadError(answer.message, answer.status_code)
        async with self._one_upload:
            return await self._upload_once()

    async def send_once(self, data: Any, send: Callable[[], Awaitable[ClientResponse]]) -> ClientResponse:
        """Send the keys, unless they were sent before."""
        if data == self._sent:
            raise _AlreadySentError
        self._sent = data
        response = await send()
        if response.status == _TOO_MANY_REQUESTS:
            self._sent = None
        return response

    async def _upload_once(self) -> Uploaded:
        try:
            response = await self._upload()
        except _AlreadySentError:
            response = KeysUploadError("the homeserver gave no answer; other keys will be uploaded")
        finally:
            self._sent = None
        if isinstance(response, KeysUploadResponse):
            self._failures = 0
        else:
            if _ID_IS_TAKEN in response.message:
                _log.warning(_WAS_PUT_BACK, self._device.user_id, response.message[:_MOST_SHOWN])
            self._failures += 1
            self._next = time.monotonic() + growing_pause(self._failures, _FIRST_PAUSE, _LONGEST_PAUSE)
        return response
