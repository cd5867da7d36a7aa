"""The account's own cross-signing identity: made or restored at the start, and looked after from then on."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from nio import SyncResponse

from cryptostore.errors import (
    AccessTokenRejected,
    ConfigurationError,
    CryptoStoreError,
    HomeserverUnavailable,
    UnreadableRecord,
)
from cryptostore.logs import logger
from cryptostore.nio.client.homeserver import Homeserver
from cryptostore.nio.client.pauses import growing_pause
from cryptostore.nio.client.session import Session
from cryptostore.nio.client.threads import in_thread
from cryptostore.plugins.new_files import write_private
from cryptostore.plugins.observers import notify
from cryptostore.store.private_files import read_private
from cryptostore.trust import recovery_key as recovery_keys
from cryptostore.trust.cross_signing import SECRET_NAMES
from cryptostore.trust.secret_storage import DEFAULT_KEY, KEY_DESCRIPTION

from . import uia
from .own_keys import OwnKeys
from .own_steps import IdentityState
from .own_texts import RESET, advice
from .own_walk import Client, Walk, Wishes
from .requests import Answer, Requests
from .secret_storage import NAMES, Contents, RecoveryKey

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 600.0
#: Seconds that another client has for what it does beside changing secret storage.
SETTLING: Final = 300.0
_WHAT: Final = "the recovery key"

_log: Final = logger(__name__)


class OwnIdentity:
    """Sees to it that the account's identity is on the homeserver, and that it has signed this device.

    `given` is the recovery key of the client's settings. Only `settle` makes an identity; only `reset` replaces one.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        requests: Requests,
        homeserver: Homeserver,
        given: RecoveryKey | None,
        *,
        is_on: bool,
    ) -> None:
        self._client = client
        self._session = session
        self._requests = requests
        self._homeserver = homeserver
        self._given = given
        self._is_on = is_on
        self._keys = OwnKeys(session)
        self._one_walk = asyncio.Lock()
        self._failures = 0
        self.opened()

    def opened(self) -> None:
        """An account was opened: nothing is known of its identity."""
        #: How far the identity has come, and the reason in words where there is one.
        self.state = IdentityState.UNKNOWN if self._is_on else IdentityState.OFF
        self.why = ""
        self._contents: Contents | None = None
        self._is_due = True
        self._failures, self._next, self._settled_at = 0, 0.0, 0.0

    async def settle(
        self, password: str | None, given: RecoveryKey | None, file: str | os.PathLike[str] | None
    ) -> None:
        """Make or restore the identity, and sign this device: see `login_or_restore` of the client."""
        if self._is_on:
            self._contents = None
            await self._walk(Wishes(True, password, given or self._given))
            await self._show_recovery_key(file)

    async def before_room_keys(self) -> None:
        """Complete what an earlier start has begun: who gets a room key before the signature may refuse it for good."""
        if self.state is IdentityState.UNKNOWN and self._has_begun():
            try:
                await self._walk(Wishes(recovery_key=self._given))
            except ConfigurationError as error:
                self._note_failure(error)

    async def after_sync(self, response: SyncResponse) -> None:
        """Look at the identity again if it, this device or secret storage has changed."""
        if not self._is_on or not self._notice(response):
            return
        before = self.state
        try:
            await self._walk(Wishes(recovery_key=self._given))
        except (ConfigurationError, HomeserverUnavailable, AccessTokenRejected) as error:
            self._note_failure(error)
        else:
            if self.state is not before:
                # What completes a start or a reset that was cut short may have made a recovery key.
                await self._show_recovery_key(None)

    def look_again(self) -> None:
        """Look after the next sync: secrets came, or something was seen."""
        self._is_due, self._contents, self._next, self._settled_at = True, None, 0.0, 0.0

    async def reset(self, password: str | None, given: RecoveryKey | None) -> None:
        """Replace the identity: see `reset_identity` of the client."""
        if not self._is_on:
            raise ConfigurationError("this client was made with cross_signing=False, so it has no identity to reset")
        _log.warning(RESET, self._client.user_id)
        async with self._one_walk, self._homeserver.within_deadline():
            seeds = self._keys.make_next()
            await self._session.flush()
            walk = self._new_walk(Wishes(True, password, given))
            self._contents = None
            if (refusal := await walk.replace_identity(seeds, password)) is not None:
                raise _not_replaced(self._client.user_id, refusal)
            await self._finish(walk)
        await self._show_recovery_key(None)

    def _notice(self, response: SyncResponse) -> bool:
        for event in response.account_data_events:
            kind, content = getattr(event, "type", ""), getattr(event, "content", None)
            is_ours = kind == DEFAULT_KEY or kind in NAMES or kind.startswith(KEY_DESCRIPTION)
            if is_ours and self._contents is not None and self._contents.by_type.get(kind, {}) != content:
                self._is_due, self._contents = True, None
                if kind in SECRET_NAMES and content and self.state is IdentityState.SIGNED:
                    # A client that replaces the identity writes its seeds first, then waits for a person's password.
                    self._settled_at = time.monotonic() + SETTLING
        if self._client.user_id in response.device_list.changed:
            self._is_due, self._settled_at = True, 0.0
        has_begun = self.state is not IdentityState.UNKNOWN or self._has_begun()
        return self._is_due and has_begun and time.monotonic() >= max(self._next, self._settled_at)

    async def _walk(self, wishes: Wishes) -> None:
        async with self._one_walk, self._homeserver.within_deadline():
            await self._finish(self._new_walk(wishes))

    def _new_walk(self, wishes: Wishes) -> Walk:
        return Walk(self._client, self._session, self._requests, self._keys, wishes, self._contents)

    async def _finish(self, walk: Walk) -> None:
        self._is_due = False
        try:
            state, why = await walk.run(), walk.why
        except UnreadableRecord as error:
            state, why = IdentityState.UNREADABLE, str(error)
        except BaseException:
            self._is_due, self._contents = True, None
            raise
        self._contents = walk.contents
        if state is IdentityState.REFUSED:
            # Another client may have written at the same time, or the homeserver may do it another time.
            self._look_later()
        else:
            self._failures = 0
        await self._session.flush()
        if (state, why) != (self.state, self.why):
            self.state, self.why = state, why
            account = self._session.store.account_id
            notify("cryptostore_identity_settled", account=account, state=state.value, reason=why)
            if text := advice(state, why):
                _log.warning("%s: %s", self._client.user_id, text)

    def _look_later(self) -> None:
        self._failures += 1
        self._is_due, self._contents = True, None
        self._next = time.monotonic() + growing_pause(self._failures, _FIRST_PAUSE, _LONGEST_PAUSE)

    def _note_failure(self, error: Exception) -> None:
        self._look_later()
        _log.warning("the identity of %s was not looked at: %s", self._client.user_id, error)
        if isinstance(error, ConfigurationError):
            self.state, self.why, self._is_due = IdentityState.REFUSED, str(error), False

    def _has_begun(self) -> bool:
        """Whether there is something to complete, or to restore. What cannot be read is said by the walk."""
        keys = self._keys
        try:
            return self._given is not None or any((keys.seeds, keys.next_seeds, keys.former_seeds))
        except UnreadableRecord:
            return True

    async def _show_recovery_key(self, file: str | os.PathLike[str] | None) -> None:
        """Write the recovery key into a file, or say how it is shown, until a person has seen it."""
        held = self._keys.storage_key if self.state is IdentityState.SIGNED else None
        if held is None or self._session.store.secrets.is_shown(KEY_DESCRIPTION + held.key_id):
            return
        if file is None:
            _log.warning(
                "the recovery key of %s was not shown to anybody yet; `cryptostore identity recovery-key` shows it: "
                "whoever has it can restore this account when the database is lost",
                self._client.user_id,
            )
            return
        await in_thread(self._session.threads, _write_once, Path(file), recovery_keys.encode(held.key))
        self._session.store.storage.durable.reports.secret_exported("recovery key", "login_or_restore", os.fspath(file))
        self._session.store.secrets.note_shown(KEY_DESCRIPTION + held.key_id)
        await self._session.flush()


def _write_once(file: Path, recovery_key: str) -> None:
    """Make the file, unless an earlier start that was cut short has made it. Raises ConfigurationError."""
    # Unlike a Path's own question, this does not raise.
    if not os.path.exists(file) or read_private(file, _WHAT).strip() != recovery_key:  # noqa: PTH110
        write_private(file, recovery_key, _WHAT)


def _not_replaced(user_id: str, answer: Answer) -> CryptoStoreError:
    what = f"the homeserver does not replace the identity of {user_id}"
    if uia.is_wanted(answer):
        return ConfigurationError(f"{what}: {uia.explanation(answer)}")
    return answer.failure(what)
