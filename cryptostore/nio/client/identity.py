"""The keys that the homeserver knows for this device must be the account's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from nio import Api, ErrorResponse, KeysQueryResponse, WhoamiResponse

from cryptostore.errors import ConfigurationError, HomeserverUnavailable
from cryptostore.logs import logger
from cryptostore.plugins.urls import redact
from cryptostore.records import Account

from .answers import failure
from .device import Device
from .device_keys import DeviceKeysResponse
from .homeserver import Homeserver
from .looking import Seen, identity_keys
from .session import Session

_WHOSE_TOKEN: Final = "the homeserver does not say whose access token this is"  # noqa: S105  # no token
_WHICH_KEYS: Final = "the homeserver does not say which keys it knows for this device"

_log: Final = logger(__name__)


class _Looked(NamedTuple):
    """A token that is the account's, with what the homeserver knows of the device."""

    seen: Seen
    token: str
    device_keys: Any


class Client(Protocol):
    """What checking an identity does with the client."""

    async def open(self) -> None:
        """Open the account."""

    async def whoami(self) -> WhoamiResponse | ErrorResponse:
        """Ask whose the token is."""


class Identity:
    """Refuses to run with another identity than the homeserver's.

    `send` is the client's `_send`. `on_confirmed` is called for each token that is known to be the device's.
    `look_further` asks more about an account before it is taken over, with a token that is the device's.
    """

    def __init__(
        self,
        device: Device,
        session: Session,
        homeserver: Homeserver,
        client: Client,
        send: Callable[..., Awaitable[Any]],
        on_confirmed: Callable[[], None],
        look_further: Callable[[Seen, str], Awaitable[None]],
    ) -> None:
        self._device = device
        self._session = session
        self._homeserver = homeserver
        self._client = client
        self._send = send
        self._on_confirmed = on_confirmed
        self._look_further = look_further
        #: The access tokens that are known to be this device's, and with which its keys were compared.
        self._shown_token = ""
        self._checked_token = ""
        self._looked: _Looked | None = None

    async def check(self) -> ErrorResponse | None:
        """Compare the account with the homeserver's device: see `check_identity` of the client."""
        await self.open_restored()
        if self._device.access_token == self._checked_token:
            return None
        answer = await self._show_token() or await self._compare_keys()
        if answer is not None:
            return answer
        try:
            await self._look_further(self._session.store.seen, self._device.access_token)
        except HomeserverUnavailable as error:
            return ErrorResponse(str(error))
        self._confirm_token()
        return None

    async def open_restored(self) -> None:
        """Open the account whose login was restored, if it is not open. Raises what `open` raises."""
        if not self._session.is_open and self._device.access_token and not self._session.is_closed:
            await self._client.open()

    async def confirm(self) -> None:
        """Check the identity, if it is new. Raises HomeserverUnavailable if there is no usable answer."""
        if not self._session.is_open or self._session.store.is_confirmed or not self._device.access_token:
            return
        if (answer := await self.check()) is not None:
            raise failure(_WHICH_KEYS, answer)

    async def look(self, seen: Seen) -> None:
        """Ask about an account before it is taken over. Raises if it must not be."""
        self.look_away()
        if self._device.access_token:
            async with self._homeserver.within_deadline():
                if (answer := await self.ask_whose(seen.account, self._device.access_token)) is not None:
                    raise failure(_WHOSE_TOKEN, answer)
                await self.look_at_keys(seen, self._device.access_token)

    def look_away(self) -> None:
        """Forget what was seen."""
        self._looked = None

    async def ask_whose(self, account: Account, token: str) -> ErrorResponse | None:
        """None if this token is the account's. Raises ConfigurationError if it is another's."""
        method, path = Api.whoami(token)
        answer = await self._homeserver.ask(WhoamiResponse, method, path, token=token)
        if isinstance(answer, ErrorResponse):
            return answer
        _check_owner(account, answer)
        return None

    async def look_at_keys(self, seen: Seen, token: str) -> None:
        """Raise ConfigurationError if the homeserver knows the device with other keys than the account's.

        Raises what looking further raises, too.
        """
        method, path, data = Api.keys_query(token, [seen.account.user_id])
        answer = await self._homeserver.ask(DeviceKeysResponse, method, path, data, token)
        if isinstance(answer, ErrorResponse):
            raise failure(_WHICH_KEYS, answer)
        known = answer.device_keys.get(seen.account.user_id, {}).get(seen.account.device_id)
        if known is not None:
            self._check_keys(seen.account, seen.identity_keys or {}, known)
        await self._look_further(seen, token)
        self._looked = _Looked(seen, token, known)

    def go_on(self) -> None:
        """Go on with the token that was looked at. If the account is another one since, it is looked at once more."""
        looked, self._looked = self._looked, None
        if looked is None:
            return
        self._device.access_token = self._shown_token = looked.token
        expected = looked.seen.identity_keys
        if self.own_keys() == expected or (expected is None and not self._session.store.is_confirmed):
            self._compare(looked.device_keys)
            self._confirm_token()

    def _confirm_token(self) -> None:
        self._on_confirmed()
        self._checked_token = self._device.access_token
        self._session.flusher.confirm()

    async def _show_token(self) -> ErrorResponse | None:
        if self._device.access_token == self._shown_token:
            return None
        answer = await self._client.whoami()
        return answer if isinstance(answer, ErrorResponse) else None

    async def _compare_keys(self) -> ErrorResponse | None:
        method, path, data = Api.keys_query(self._device.access_token, [self._device.user_id])
        response: KeysQueryResponse | ErrorResponse = await self._send(DeviceKeysResponse, method, path, data)
        if isinstance(response, ErrorResponse):
            _log.warning("the homeserver did not say which keys it knows for this device: %s", response)
            return response
        self._compare(response.device_keys.get(self._device.user_id, {}).get(self._device.device_id))
        return None

    def forget_tokens(self) -> None:
        """The account is closed: what is opened next is checked again."""
        self._shown_token = self._checked_token = ""

    def _compare(self, known: Any) -> None:
        # What a device's earlier token was told of its keys may be out of date.
        self._session.machine.uploaded_key_count = None
        if known is not None:
            self._check_keys(self._session.store.account_id, self.own_keys(), known)
            self._session.machine.note_own_device(known)
            return
        self._session.machine.fallback_keys.offer_again()
        if self._session.machine.account.shared:
            _log.warning(
                "the homeserver has no keys of %s any more; they will be uploaded again", self._device.device_id
            )
            self._session.machine.account.shared = False
            self._session.machine.save_account()

    def own_keys(self) -> dict[str, str]:
        """The public keys of the open account."""
        return identity_keys(self._session.machine.account)

    def _check_keys(self, account: Account, ours: Mapping[str, str], known: Any) -> None:
        keys = known.get("keys", {})
        theirs = {name: keys.get(f"{name}:{account.device_id}") for name in ("ed25519", "curve25519")}
        if theirs != ours:
            raise ConfigurationError(
                f"the homeserver knows {account} with other keys than the database at {redact(self._session.url)} "
                f"holds: the Ed25519 key there is {theirs['ed25519']}, and here {ours.get('ed25519', 'none')}. Use the "
                "database that belongs to the device (`cryptostore import-nio` brings the keys of a nio store over), "
                "or log in as a new device"
            )

    def note_owner(self, answer: WhoamiResponse) -> None:
        """The token is that of the device that answered. Raises ConfigurationError if the account is another's."""
        if self._session.is_open:
            _check_owner(self._session.store.account_id, answer)
            self._shown_token = self._device.access_token


def _check_owner(account: Account, answer: WhoamiResponse) -> None:
    shown = Account(answer.user_id, answer.device_id or account.device_id)
    if shown != account:
        raise ConfigurationError(
            f"the access token is that of {shown}, and this client was opened for {account}: give that device's token, "
            f"or log in again as this device, or open {shown}"
        )
