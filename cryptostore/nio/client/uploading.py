"""Uploading keys: each one-time key is offered once, whatever becomes of the request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import ClientResponse
from nio import (
    Api,
    KeysClaimError,
    KeysClaimResponse,
    KeysQueryError,
    KeysQueryResponse,
    KeysUploadError,
    KeysUploadResponse,
    LocalProtocolError,
    SyncResponse,
)

from .device_keys import DeviceKeysResponse
from .identity import IdentityClient
from .sync_answer import SyncAnswer

_LONGEST_PAUSE: Final = 3600.0
_TOO_MANY_REQUESTS: Final = 429


class _AlreadySentError(Exception):
    """nio repeats a request whose answer did not come. The server may have handed the keys out already."""


class UploadingClient(IdentityClient):
    """A client whose one-time keys are saved as published before anybody can have them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._one_upload = asyncio.Lock()
        self._sent_upload: Any = None
        self._failed_uploads = 0
        self._next_upload = 0.0

    @property
    def should_upload_keys(self) -> bool:
        """As nio's, but after a failure not before a pause, longer each time: every upload takes new keys."""
        return bool(super().should_upload_keys) and time.monotonic() >= self._next_upload

    async def keys_upload(self) -> KeysUploadResponse | KeysUploadError:
        """As nio's. The keys count as published before they leave, and go out once; one upload waits for another.

        Raises what `check_identity` and `flush` raise, and as nio's LocalProtocolError if there is nothing to upload.
        """
        if self.logged_in and (answer := await self.check_identity()) is not None:
            return KeysUploadError(answer.message, answer.status_code)
        async with self._one_upload:
            return await self._upload_once()

    def _confirm_token(self) -> None:
        # A new token may be good for what the homeserver refused before.
        self._failed_uploads, self._next_upload = 0, 0.0
        self.machine.fallback_keys.try_now()
        super()._confirm_token()

    async def _upload_once(self) -> KeysUploadResponse | KeysUploadError:
        try:
            response: KeysUploadResponse | KeysUploadError = await super().keys_upload()
        except _AlreadySentError:
            response = KeysUploadError("the homeserver gave no answer; other keys will be uploaded")
        finally:
            self._sent_upload = None
        if isinstance(response, KeysUploadResponse):
            self._failed_uploads = 0
        else:
            self._failed_uploads += 1
            self._next_upload = time.monotonic() + min(2.0 ** min(self._failed_uploads, 12), _LONGEST_PAUSE)
        return response

    async def keys_query(self) -> KeysQueryResponse | KeysQueryError:
        """As nio's; users who change while the question is under way are asked about again."""
        if not self.users_for_key_query:
            raise LocalProtocolError("No key query required.")
        asked = self.machine.tracking.generations(self.users_for_key_query)
        method, path, data = Api.keys_query(self.access_token, self.users_for_key_query)
        response: KeysQueryResponse | KeysQueryError = await self._send(DeviceKeysResponse, method, path, data)
        if isinstance(response, KeysQueryResponse):
            self.machine.tracking.answered(asked)
        return response

    async def keys_claim(self, user_set: dict[str, Iterable[str]]) -> KeysClaimResponse | KeysClaimError:
        """As nio's, which raises TypeError where the homeserver refuses."""
        method, path, data = Api.keys_claim(self.access_token, user_set)
        response: KeysClaimResponse | KeysClaimError = await self._send(
            KeysClaimResponse, method, path, data, response_data=("",)
        )
        return response

    async def _send(self, response_class: type, *args: Any, **kwargs: Any) -> Any:
        # nio leaves out what a sync says of fallback keys.
        return await super()._send(SyncAnswer if response_class is SyncResponse else response_class, *args, **kwargs)

    async def send(self, method: str, path: str, data: Any = None, *args: Any, **kwargs: Any) -> ClientResponse:
        if not path.split("?")[0].endswith("/keys/upload"):
            return await super().send(method, path, data, *args, **kwargs)
        if data == self._sent_upload:
            raise _AlreadySentError
        self._sent_upload = data
        response = await super().send(method, path, data, *args, **kwargs)
        if response.status == _TOO_MANY_REQUESTS:
            self._sent_upload = None
        return response
