"""Logging in once, and restoring that login later, with the same call."""

from __future__ import annotations

import secrets
import string
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from nio import Api, ErrorResponse, LoginInfoResponse, LoginResponse, LogoutResponse

from cryptostore.errors import ConfigurationError, CryptoStoreError
from cryptostore.logs import logger
from cryptostore.nio.storage import backends
from cryptostore.records import Account
from cryptostore.records.changes import Changes

from .answers import failure, is_token_rejected
from .device import Device
from .homeserver import Homeserver
from .identity import Identity
from .looking import Seen
from .saved_login import SavedLogin
from .session import Session
from .threads import in_thread

_DEVICE_ID_LENGTH: Final = 10

_log: Final = logger(__name__)


class _Credentials(NamedTuple):
    """What a login needs. `token` is a login token, in place of a password."""

    password: str | None
    device_name: str
    token: str | None


class Login:
    """Keeps a device id and an access token beside the keys. `flush` is the client's own."""

    def __init__(
        self,
        device: Device,
        session: Session,
        identity: Identity,
        homeserver: Homeserver,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._device = device
        self._session = session
        self._identity = identity
        self._homeserver = homeserver
        self._flush = flush
        #: A login whose token is not stored yet.
        self._new_login: SavedLogin | None = None

    async def log_in_or_restore(
        self, password: str | None, device_name: str, token: str | None, *, take_over: bool
    ) -> LoginResponse:
        """Have an open account and a token that is its: see `login_or_restore` of the client."""
        if not self._device.user_id.startswith("@"):
            raise ConfigurationError(
                f"{self._device.user!r} is no full user id such as @bot:example.org, which finds the account"
            )
        self._new_login = None
        credentials = _Credentials(password, device_name, token)
        if not self._session.is_open:
            self._session.begin()
            await self._session.openings.run(self._open_logged_in(credentials, take_over=take_over))
        else:
            await self._log_in_again(credentials)
        await self._save_login()
        return LoginResponse(self._device.user_id, str(self._device.device_id), self._device.access_token)

    async def _open_logged_in(self, credentials: _Credentials, *, take_over: bool) -> None:
        found = await self._find_account()
        if found is None and not self._device.access_token:
            await self._begin_device(Account(self._device.user_id, _new_device_id()), credentials)
        else:
            account = found or Account(self._device.user_id, _new_device_id())
            await self._session.take(account, partial(self._look_and_log_in, credentials), take_over=take_over)

    async def _begin_device(self, account: Account, credentials: _Credentials) -> None:
        """Make a device. The homeserver must not know one whose keys could still be lost: they are durable before."""
        await self._check_credentials(Seen(account), credentials)
        async with self._homeserver.within_deadline():
            answer = await self._homeserver.ask(LoginInfoResponse, *Api.login_info())
        if isinstance(answer, ErrorResponse):
            raise failure("the homeserver does not say how users log in", answer)
        await self._session.take(account, _ask_nothing)
        try:
            await self._flush()
            await self._log_in_again(credentials)
        except ConfigurationError:
            await self._forget_device(account)
            raise

    async def _log_in_again(self, credentials: _Credentials) -> None:
        """Make sure of a token for the open account."""
        store = self._session.store
        seen = Seen(store.account_id, self._identity.own_keys(), store.seen.login, store.seen.anchor)
        await self._look_and_log_in(credentials, seen)
        self._identity.go_on()

    async def _look_and_log_in(self, credentials: _Credentials, seen: Seen) -> None:
        self._identity.look_away()
        async with self._homeserver.within_deadline():
            token = await self._accepted_token(seen) or await self._token_of_login(seen, credentials)
            await self._identity.look_at_keys(seen, token)

    async def _accepted_token(self, seen: Seen) -> str:
        """The token that there is already, or an empty text if the homeserver does not accept it."""
        token = self._device.access_token or (seen.login.token_for(self._device.homeserver) if seen.login else "")
        if not token:
            return ""
        answer = await self._identity.ask_whose(seen.account, token)
        if answer is not None and not is_token_rejected(answer):
            raise failure("the homeserver does not say whose access token this is", answer)
        return token if answer is None else ""

    async def _token_of_login(self, seen: Seen, credentials: _Credentials) -> str:
        await self._check_credentials(seen, credentials)
        method, path, data = Api.login(
            self._device.user,
            password=credentials.password,
            device_name=credentials.device_name,
            device_id=seen.account.device_id,
            token=credentials.token,
        )
        answer = await self._homeserver.ask(LoginResponse, method, path, data)
        if not isinstance(answer, LoginResponse):
            raise failure(f"the homeserver does not log {seen.account.user_id} in", answer)
        self._new_login = SavedLogin(self._device.homeserver, answer.access_token)
        if (named := Account(answer.user_id, answer.device_id)) != seen.account:
            raise ConfigurationError(
                f"the homeserver calls this device {named}, and not {seen.account}: give user={named.user_id!r}, or "
                "MATRIX_USER_ID, as the homeserver spells it"
            )
        return self._new_login.token

    async def _check_credentials(self, seen: Seen, credentials: _Credentials) -> None:
        if credentials.password is not None or credentials.token is not None:
            return
        raise ConfigurationError(
            f"{seen.account} has no access token that the homeserver accepts{self._elsewhere(seen.login)}; give a "
            f"password{await self._other_devices(seen.account)}"
        )

    def _elsewhere(self, login: SavedLogin | None) -> str:
        if login is None or login.token_for(self._device.homeserver):
            return ""
        return f" (the stored one was stored for {login.homeserver}, and is sent nowhere else)"

    async def _other_devices(self, account: Account) -> str:
        found = [other for other in await in_thread(self._session.threads, self._stored_accounts) if other != account]
        names = ", ".join(other.device_id for other in found)
        return f", or is the device id mistyped? The database has {names}" if names else ""

    async def _find_account(self) -> Account | None:
        """The account that is meant, or None for a device that is to be made."""
        if self._device.device_id:
            return Account(self._device.user_id, self._device.device_id)
        found = await self._session.openings.in_thread(self._look_for_accounts, _keep_nothing_open)
        if len(found) > 1:
            names = ", ".join(account.device_id for account in found)
            raise ConfigurationError(
                f"the database holds several devices of {self._device.user_id}: {names}; say which one is meant, as "
                "device_id=... or MATRIX_DEVICE_ID"
            )
        return found[0] if found else None

    def _look_for_accounts(self, _check: Callable[[], None]) -> list[Account]:
        return self._stored_accounts()

    def _stored_accounts(self) -> list[Account]:
        backend, release = backends.acquire(self._session.url)
        try:
            return [account for account in backend.accounts() if account.user_id == self._device.user_id]
        finally:
            release()

    async def _save_login(self) -> None:
        login, self._new_login = self._new_login, None
        if login is not None:
            self._session.store.storage.write(Changes([login.record()]))
            await self._flush()

    async def _forget_device(self, account: Account) -> None:
        """Undo the beginning of a device, unless another process has taken it over since."""
        try:
            await self._session.check_ownership()
            await in_thread(self._session.threads, self._delete, account)
            await self._log_out()
        except CryptoStoreError as error:
            # The caller gets the error that it began with.
            _log.warning("%s, whose login failed, was not deleted: %s", account, error)
        self._session.was_asked_about = True
        await self._session.close_store()
        self._device.device_id = None

    def _delete(self, account: Account) -> None:
        backend, release = backends.acquire(self._session.url)
        try:
            backend.delete_account(account)
        finally:
            release()

    async def _log_out(self) -> None:
        if self._new_login is not None:
            token = self._new_login.token
            method, path = Api.logout(token)
            async with self._homeserver.within_deadline():
                await self._homeserver.ask(LogoutResponse, method, path, "{}", token)


async def _ask_nothing(_seen: Seen) -> None:
    """The homeserver does not know a device that is being made."""


def _keep_nothing_open(_found: list[Account]) -> None:
    """Looking for an account opens nothing that has to be closed."""


def _new_device_id() -> str:
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(_DEVICE_ID_LENGTH))
