"""The keys that the homeserver knows for this device must be the account's."""

from __future__ import annotations

from typing import Any, Final

from nio import Api, ErrorResponse, KeysQueryResponse, WhoamiResponse

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger

from .device_keys import DeviceKeysResponse
from .prefetch import PrefetchingClient

_log: Final = logger(__name__)


class IdentityClient(PrefetchingClient):
    """A client that refuses to run with another identity than the homeserver's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_identity_checked = False

    async def check_identity(self) -> ErrorResponse | None:
        """Compare this account's keys with those that the homeserver has for the device, once.

        Returns None if they are the same, and the homeserver's answer if it gave no usable one. Raises
        ConfigurationError if it knows other keys: this database is not the device's.
        """
        if self._is_identity_checked:
            return None
        method, path, data = Api.keys_query(self.access_token, [self.user_id])
        response: KeysQueryResponse | ErrorResponse = await self._send(DeviceKeysResponse, method, path, data)
        if isinstance(response, ErrorResponse):
            _log.warning("the homeserver did not say which keys it knows for this device: %s", response)
            return response
        self._compare(response.device_keys.get(self.user_id, {}).get(self.device_id))
        self._is_identity_checked = True
        return None

    async def close(self) -> None:
        self._is_identity_checked = False
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
        if self.store is not None:
            self._check_account(response.user_id, response.device_id or str(self.device_id))
        super()._handle_whoami_response(response)
