"""Logging in once, and restoring that login later, with the same call."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from typing import Final

from nio import LoginResponse, WhoamiResponse

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.nio.storage import backends
from cryptostore.records import Account, Value
from cryptostore.records.changes import Changes

from .answers import failure, is_token_rejected
from .identity import IdentityClient
from .saved_login import ACCESS_TOKEN, SavedLogin, saved_login
from .threads import in_thread

_DEVICE_ID_LENGTH: Final = 10

_log: Final = logger(__name__)


class LoginClient(IdentityClient):
    """A client that keeps its device id and its access token beside its keys."""

    #: Why the stored access token was not used, for an error's text.
    _token_elsewhere = ""

    async def login_or_restore(
        self, password: str | None = None, device_name: str = "", token: str | None = None
    ) -> LoginResponse:
        """Log in once; later, on any host with the same database and pickle key, restore that login.

        Without a device id, the one device of this user in the database is meant, and in a database without one a
        new device id is chosen and saved before the homeserver hears of it. A token that the homeserver rejects leads
        to a new login as the same device. `token` is a login token (single sign-on), in place of a password.

        Raises ConfigurationError if the homeserver refuses, if the database holds several devices of this user and
        none was named, and if homeserver and database do not belong together. Raises HomeserverUnavailable if the
        homeserver gives no usable answer: calling this again later may work.
        """
        if not self.user_id.startswith("@"):
            raise ConfigurationError(
                f"{self.user!r} is no full user id such as @bot:example.org, which finds the account"
            )
        makes_device = self.store is None and not self.device_id
        await self._openings.run(self._open_found_account())
        if makes_device or self.production_store.is_confirmed:
            # The homeserver must not know a device whose keys could still be lost. One that it may know has to wait.
            await self.flush()
        self.access_token = self.access_token or await self._saved_token()
        if not await self._is_token_accepted():
            await self._log_in(password, device_name, token)
        if (answer := await self.check_identity()) is not None:
            raise failure("the homeserver does not say which keys it knows for this device", answer)
        return LoginResponse(self.user_id, str(self.device_id), self.access_token)

    async def _open_found_account(self) -> None:
        await self._open_account(await self._find_account())

    async def _find_account(self) -> Account:
        if self.store is None and not self.device_id:
            return await self._openings.in_thread(self._look_for_account, _keep_nothing_open)
        return Account(self.user_id, str(self.device_id))

    def _look_for_account(self, _check: Callable[[], None]) -> Account:
        backend, release = backends.acquire(self._url)
        try:
            found = [account for account in backend.accounts() if account.user_id == self.user_id]
        finally:
            release()
        if len(found) > 1:
            names = ", ".join(account.device_id for account in found)
            raise ConfigurationError(
                f"the database holds several devices of {self.user_id}: {names}; say which one is meant, as "
                "device_id=... or MATRIX_DEVICE_ID"
            )
        return found[0] if found else Account(self.user_id, _new_device_id())

    async def _saved_token(self) -> str:
        return await in_thread(self.threads, self._read_token)

    def _read_token(self) -> str:
        # One that cannot be read was reported, and a new login replaces it.
        saved = saved_login(self.production_store.storage.get(Value, [ACCESS_TOKEN]).get(ACCESS_TOKEN))
        token = saved.token_for(self.homeserver) if saved else ""
        if saved and not token:
            self._token_elsewhere = f" (the stored one was stored for {saved.homeserver}, and is sent nowhere else)"
            _log.warning("the access token was stored for %s, and is not sent to %s", saved.homeserver, self.homeserver)
        return token

    async def _is_token_accepted(self) -> bool:
        if not self.access_token:
            return False
        answer = await self.whoami()
        if isinstance(answer, WhoamiResponse):
            return True
        if not is_token_rejected(answer):
            raise failure("the homeserver does not say whose access token this is", answer)
        self.access_token = ""
        return False

    async def _log_in(self, password: str | None, device_name: str, token: str | None) -> None:
        if password is None and token is None:
            raise ConfigurationError(
                f"{self.user_id} {self.device_id} has no access token that the homeserver accepts"
                f"{self._token_elsewhere}; give a password"
            )
        answer = await self.login(password, device_name, token)
        if not isinstance(answer, LoginResponse):
            raise failure(f"the homeserver does not log {self.user_id} in", answer)
        self._has_shown(self.access_token)
        self.production_store.storage.write(Changes([SavedLogin(self.homeserver, self.access_token).record()]))
        await self.flush()


def _keep_nothing_open(_found: Account) -> None:
    """Looking for an account opens nothing that has to be closed."""


def _new_device_id() -> str:
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(_DEVICE_ID_LENGTH))
