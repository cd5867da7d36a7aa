"""The keys that the homeserver knows for this device must be the account's."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import ClientResponse
from nio import Api, ErrorResponse, KeysQueryResponse, WhoamiResponse

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger

from .answers import failure
from .device_keys import DeviceKeysResponse
from .prefetch import PrefetchingClient

#: What a client asks, and says, before its identity is known to be the device's: nothing of it depends on a key.
_ASKED_BEFORE: Final = ("/account/whoami", "/keys/query", "/login", "/logout", "/register", "/versions")

_log: Final = logger(__name__)


class IdentityClient(PrefetchingClient):
    """A client that refuses to run with another identity than the homeserver's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The access tokens that are known to be this device's, and with which its keys were compared.
        self._shown_token = ""
        self._checked_token = ""

    async def check_identity(self) -> ErrorResponse | None:
        """Compare this account with the device whose access token this is, and its keys with those that the homeserver
        has for the device: once for each token.

        Returns None if they are the same, and the homeserver's answer if it gave no usable one. Raises
        ConfigurationError if the token is another device's, or if the homeserver knows other keys: this database is not
        the device's. Until then nothing of a new identity is written.
        """
        if self.access_token == self._checked_token:
            return None
        answer = await self._show_token() or await self._compare_keys()
        if answer is not None:
            return answer
        self._checked_token = self.access_token
        self._buffer().confirm()
        return None

    async def flush(self) -> None:
        """As without a login; a new identity is written only after `check_identity`.

        Raises what that raises, too, and HomeserverUnavailable if the homeserver gives no usable answer.
        """
        await self._confirm()
        await super().flush()

    async def send(self, method: str, path: str, *args: Any, **kwargs: Any) -> ClientResponse:
        if not path.split("?")[0].endswith(_ASKED_BEFORE):
            await self._confirm()
        return await super().send(method, path, *args, **kwargs)

    async def _confirm(self) -> None:
        if self.store is None or self.production_store.is_confirmed or not self.access_token:
            return
        if (answer := await self.check_identity()) is not None:
            raise failure("the homeserver does not say which keys it knows for this device", answer)

    async def _show_token(self) -> ErrorResponse | None:
        if self.access_token == self._shown_token:
            return None
        answer = await self.whoami()
        return answer if isinstance(answer, ErrorResponse) else None

    def _has_shown(self, token: str) -> None:
        """The homeserver says that this token is the device's."""
        self._shown_token = token

    async def _compare_keys(self) -> ErrorResponse | None:
        method, path, data = Api.keys_query(self.access_token, [self.user_id])
        response: KeysQueryResponse | ErrorResponse = await self._send(DeviceKeysResponse, method, path, data)
        if isinstance(response, ErrorResponse):
            _log.warning("the homeserver did not say which keys it knows for this device: %s", response)
            return response
        self._compare(response.device_keys.get(self.user_id, {}).get(self.device_id))
        return None

    async def close(self) -> None:
        self._shown_token = self._checked_token = ""
        await super().close()

    def _compare(self, known: Any) -> None:
        account = self.machine.account
        if known is None:
            if account.shared:
                _log.warning("the homeserver has no keys of %s any more; they will be uploaded again", self.device_id)
                account.shared = False
                self.machine.save_account()
            return
        ours = {name: str(key) for name, key in account.identity_keys.items()}
        keys = known.get("keys", {})
        theirs = {name: keys.get(f"{name}:{self.device_id}") for name in ours}
        if theirs != ours:
            raise ConfigurationError(
                f"the homeserver knows {self.user_id} {self.device_id} with other keys than the database at "
                f"{self.store_path} holds: the Ed25519 key there is {theirs.get('ed25519')}, and here "
                f"{ours['ed25519']}. Use the database that belongs to the device (`cryptostore import-nio` brings the "
                "keys of a nio store over), or log in as a new device"
            )

    def _handle_whoami_response(self, response: WhoamiResponse) -> None:
        store = self.store
        if store is not None:
            shown = (response.user_id, response.device_id or store.device_id)
            if shown != (store.user_id, store.device_id):
                raise ConfigurationError(
                    f"the access token is that of {shown[0]} {shown[1]}, and this client was opened for "
                    f"{store.user_id} {store.device_id}: give that device's token, or log in again as this device"
                )
            self._has_shown(self.access_token)
        super()._handle_whoami_response(response)
