"""The keys that the homeserver knows for this device must be the account's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from aiohttp import ClientResponse
from nio import Api, ErrorResponse, KeysQueryResponse, WhoamiResponse

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.records import Account

from .answers import failure
from .device_keys import DeviceKeysResponse
from .homeserver import Homeserver
from .looking import Seen, identity_keys
from .prefetch import PrefetchingClient

#: What a client asks, and says, before its identity is known to be the device's: nothing of it depends on a key.
_ASKED_BEFORE: Final = ("/account/whoami", "/keys/query", "/login", "/logout", "/register", "/versions")

_WHOSE_TOKEN: Final = "the homeserver does not say whose access token this is"  # noqa: S105  # no token
_WHICH_KEYS: Final = "the homeserver does not say which keys it knows for this device"

_log: Final = logger(__name__)


class _Looked(NamedTuple):
    """A token that is the account's, with what the homeserver knows of the device."""

    seen: Seen
    token: str
    device_keys: Any


class IdentityClient(PrefetchingClient):
    """A client that refuses to run with another identity than the homeserver's."""

    def __init__(self, *args: Any, homeserver_deadline: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._homeserver = Homeserver(self, homeserver_deadline)
        #: The access tokens that are known to be this device's, and with which its keys were compared.
        self._shown_token = ""
        self._checked_token = ""
        self._looked: _Looked | None = None

    async def check_identity(self) -> ErrorResponse | None:
        """Compare this account with the device whose access token this is, and its keys with those that the homeserver
        has for the device: once for each token. Opens the account if `restore_login` has named it alone.

        Returns None if they are the same, and the homeserver's answer if it gave no usable one. Raises
        ConfigurationError if the token is another device's, or if the homeserver knows other keys: this database is not
        the device's. Until then nothing of a new identity is written. Raises what `open` raises.
        """
        await self.open_restored()
        if self.access_token == self._checked_token:
            return None
        answer = await self._show_token() or await self._compare_keys()
        if answer is not None:
            return answer
        self._confirm_token()
        return None

    async def open_restored(self) -> None:
        """Open the account whose login was restored, if it is not open. Raises what `open` raises."""
        if self.store is None and self.access_token and not self._closed:
            await self.open()

    async def flush(self) -> None:
        """As without a login; a new identity is written only after `check_identity`.

        Raises what that raises, too, and HomeserverUnavailable if the homeserver gives no usable answer.
        """
        await self._confirm()
        await super().flush()

    async def send(self, method: str, path: str, *args: Any, **kwargs: Any) -> ClientResponse:
        if self.needs_account(path):
            await self.open_restored()
        if not path.split("?")[0].endswith(_ASKED_BEFORE):
            await self._confirm()
        return await super().send(method, path, *args, **kwargs)

    async def _confirm(self) -> None:
        if self.store is None or self.production_store.is_confirmed or not self.access_token:
            return
        if (answer := await self.check_identity()) is not None:
            raise failure(_WHICH_KEYS, answer)

    async def _look(self, seen: Seen) -> None:
        self._looked = None
        if self.access_token:
            async with self._homeserver.within_deadline():
                if (answer := await self._ask_whose(seen.account, self.access_token)) is not None:
                    raise failure(_WHOSE_TOKEN, answer)
                await self._look_at_keys(seen, self.access_token)

    async def _ask_whose(self, account: Account, token: str) -> ErrorResponse | None:
        """None if this token is the account's. Raises ConfigurationError if it is another's."""
        method, path = Api.whoami(token)
        answer = await self._homeserver.ask(WhoamiResponse, method, path, token=token)
        if isinstance(answer, ErrorResponse):
            return answer
        _check_owner(account, answer)
        return None

    async def _look_at_keys(self, seen: Seen, token: str) -> None:
        """Raise ConfigurationError if the homeserver knows the device with other keys than the account's."""
        method, path, data = Api.keys_query(token, [seen.account.user_id])
        answer = await self._homeserver.ask(DeviceKeysResponse, method, path, data, token)
        if isinstance(answer, ErrorResponse):
            raise failure(_WHICH_KEYS, answer)
        known = answer.device_keys.get(seen.account.user_id, {}).get(seen.account.device_id)
        if known is not None:
            self._check_keys(seen.account, seen.identity_keys or {}, known)
        self._looked = _Looked(seen, token, known)

    def _use(self, opened: Any) -> None:
        super()._use(opened)
        self._use_what_was_seen()

    def _use_what_was_seen(self) -> None:
        """Go on with the token that was looked at. If the account is another one since, it is looked at once more."""
        looked, self._looked = self._looked, None
        if looked is None:
            return
        self.access_token = self._shown_token = looked.token
        expected = looked.seen.identity_keys
        if self._own_keys() == expected or (expected is None and not self.production_store.is_confirmed):
            self._compare(looked.device_keys)
            self._confirm_token()

    def _confirm_token(self) -> None:
        self._checked_token = self.access_token
        self._buffer().confirm()

    async def _show_token(self) -> ErrorResponse | None:
        if self.access_token == self._shown_token:
            return None
        answer = await self.whoami()
        return answer if isinstance(answer, ErrorResponse) else None

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
        # What a device's earlier token was told of its keys may be out of date.
        self.machine.uploaded_key_count = None
        if known is not None:
            self._check_keys(self.production_store.account_id, self._own_keys(), known)
            return
        self.machine.fallback_keys.offer_again()
        if self.machine.account.shared:
            _log.warning("the homeserver has no keys of %s any more; they will be uploaded again", self.device_id)
            self.machine.account.shared = False
            self.machine.save_account()

    def _own_keys(self) -> dict[str, str]:
        return identity_keys(self.machine.account)

    def _check_keys(self, account: Account, ours: Mapping[str, str], known: Any) -> None:
        keys = known.get("keys", {})
        theirs = {name: keys.get(f"{name}:{account.device_id}") for name in ("ed25519", "curve25519")}
        if theirs != ours:
            raise ConfigurationError(
                f"the homeserver knows {account} with other keys than the database at {self.store_path} holds: the "
                f"Ed25519 key there is {theirs['ed25519']}, and here {ours.get('ed25519', 'none')}. Use the database "
                "that belongs to the device (`cryptostore import-nio` brings the keys of a nio store over), or log in "
                "as a new device"
            )

    def _handle_whoami_response(self, response: WhoamiResponse) -> None:
        if self.store is not None:
            _check_owner(self.production_store.account_id, response)
            self._shown_token = self.access_token
        super()._handle_whoami_response(response)


def _check_owner(account: Account, answer: WhoamiResponse) -> None:
    shown = Account(answer.user_id, answer.device_id or account.device_id)
    if shown != account:
        raise ConfigurationError(
            f"the access token is that of {shown}, and this client was opened for {account}: give that device's token, "
            f"or log in again as this device, or open {shown}"
        )
