"""The account's backup on the server: sessions go up in the background, and come back when they are needed."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from nio import AsyncClient, MegolmEvent, SyncResponse

from cryptostore import records
from cryptostore.errors import (
    ConfigurationError,
    CryptoStoreError,
    HomeserverUnavailable,
    UnreadableRecord,
)
from cryptostore.logs import logger
from cryptostore.nio.client.pauses import growing_pause
from cryptostore.nio.client.session import Session
from cryptostore.trust import recovery_key as recovery_keys
from cryptostore.trust.key_backup import KEY_BACKUP, BackupVersion, public_key

from .backup_on_demand import PASSING, LateEvents
from .backup_restore import BackupRestore, Progress, RestoredBackup
from .backup_uploads import BackupUploads, OtherVersionError
from .backup_versions import BackupVersions, Found
from .requests import Requests
from .secret_storage import RecoveryKey, SecretStorage, opened

#: Seconds from a sync that brought room keys to their upload, at most. Their number is random, so that not all clients
#: who got a key ask their homeservers at the same time.
LONGEST_DELAY: Final = 10.0
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 900.0
#: Seconds after which a backup that is not used is looked at again.
_LOOK_AGAIN: Final = 3600.0
#: Seconds that `close` waits for the request under way.
_GRACE: Final = 5.0

_log: Final = logger(__name__)


@dataclass(frozen=True)
class KeyBackupState:
    """The backup that is used: its version, or an empty text and the reason in words, if there is one.

    `can_restore` says that its private key is held.
    """

    version: str = ""
    problem: str = ""
    can_restore: bool = False


class KeyBackups:
    """Looks after the backup of whichever account is open. Nothing is asked before a sync was handled."""

    def __init__(self, client: AsyncClient, session: Session, requests: Requests) -> None:
        self._client = client
        self._session = session
        self._requests = requests
        self._versions = BackupVersions(client, session, requests)
        self._uploads = BackupUploads(session, requests)
        self._restore = BackupRestore(client, session, requests)
        self.late_events: Final = LateEvents(session, self._fetch, lambda: self._private_key is not None)
        #: Seconds that new sessions wait for others, at most.
        self.longest_delay = LONGEST_DELAY
        self._task: asyncio.Task[None] | None = None
        self._one_look = asyncio.Lock()
        self.opened()

    def opened(self) -> None:
        """An account was opened: nothing is known of its backup."""
        #: What is used, or why nothing is.
        self.state = KeyBackupState()
        self._looked_with: bytes | None = None
        self._look_at = 0.0
        self._failures = 0
        self._wake, self._stopping = asyncio.Event(), asyncio.Event()

    async def after_sync(self, response: SyncResponse) -> None:
        """Begin, or go on, beside the syncs."""
        self.late_events.check()
        if any(getattr(event, "type", "") == KEY_BACKUP for event in response.account_data_events):
            self._look_at = 0.0
        if self._is_look_due() or (self.state.version and self._session.store.to_back_up.has_new):
            self._wake.set()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())

    async def closing(self) -> None:
        """The client is closed. A request under way may end, so that what it did is noted."""
        self._stopping.set()
        self._wake.set()
        await self.late_events.closing()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait([task], timeout=_GRACE)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def back_up(self) -> None:
        """Upload what waits, now: see `back_up` of the client."""
        if self._is_look_due():
            await self._look()
        if not self.state.version:
            raise ConfigurationError(self.state.problem or "this account has no key for a key backup")
        try:
            await self._uploads.run(self._stopping.is_set)
        except OtherVersionError:
            self._look_at = 0.0
            raise HomeserverUnavailable("the homeserver has another key backup now; try again") from None

    async def replace(self) -> None:
        """Make a backup in the place of one that is not ours: see `replace_backup` of the client."""
        current = await self._usable()
        if current is not None:
            self._use(current)
            return
        async with self._one_look:
            self._decide(await self._versions.make())
        if problem := self.state.problem:
            raise ConfigurationError(problem)

    async def _usable(self) -> BackupVersion | None:
        """The present backup, if it may be used."""
        try:
            current = await self._versions.current()
        except ConfigurationError:
            # One that no client of ours can use, of another algorithm, say, is just what is to be replaced.
            return None
        return None if current is None or self._versions.why_not(current) else current

    async def after_reset(self) -> None:
        """The account has a new identity: what only the former one could use is replaced."""
        try:
            await self.replace()
        except (ConfigurationError, HomeserverUnavailable) as error:
            _log.warning("there is no key backup with the new identity yet: %s", error)

    async def decrypted(self, event: MegolmEvent) -> Any:
        """The plain event of a message whose key the backup has, or None: see `decrypt_with_backup` of the client."""
        machine = self._session.machine
        if (plain := machine.decrypt_message(event)) is not None:
            return plain
        if self._is_look_due():
            await self._look()
        is_there = await self._fetch(event.room_id, str(event.session_id))
        return machine.decrypt_message(event) if is_there else None

    async def restore(self, progress: Progress | None, recovery_key: str | None) -> RestoredBackup:
        """Take in the whole backup: see `restore_backup` of the client."""
        backup = await self._versions.current()
        if backup is None:
            raise ConfigurationError("the homeserver has no key backup of this account")
        held = self._versions.private_key if recovery_key is None else await self._found_with(recovery_key, backup)
        if held is None:
            raise ConfigurationError(
                "the private key of the key backup is not in this database; give the recovery key of the account"
            )
        if public_key(held) != backup.public_key:
            raise ConfigurationError(
                f"the key backup {backup.version!r} on the homeserver is for another private key: it was replaced, or "
                "is another's. Give the recovery key of the client that made it"
            )
        if not self._versions.why_not(backup):
            self._use(backup)
            # What is here goes up first: after that, what comes from there need not.
            with suppress(ConfigurationError, HomeserverUnavailable):
                await self.back_up()
        return await self._restore.all(backup.version, held, backup.count, progress)

    async def _found_with(self, given: str, backup: BackupVersion) -> bytes:
        """The private key that a recovery key is, or opens: older clients gave people the key of the backup itself."""
        with suppress(ValueError):
            if public_key(itself := recovery_keys.decode(given)) == backup.public_key:
                return itself
        storage = SecretStorage(self._requests, self._client.user_id)
        contents = await storage.read()
        held = await opened(contents, RecoveryKey(given), self._session.threads)
        private_key = contents.secret(KEY_BACKUP, held)
        if private_key is None:
            raise ConfigurationError("the account's secret storage does not hold the key of the key backup")
        return private_key

    @property
    def _private_key(self) -> bytes | None:
        try:
            return self._versions.private_key
        except UnreadableRecord:
            return None

    def _is_look_due(self) -> bool:
        """Whether to ask which backup there is: at each start, with another key, and some time after a refusal."""
        try:
            is_possible = self._versions.may_be_there
        except UnreadableRecord:
            return False
        return is_possible and (self._looked_with != (self._private_key or b"") or time.monotonic() >= self._look_at)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
            except OtherVersionError:
                await self._go_on_after("the homeserver has another key backup now")
                self._look_at = 0.0
            except PASSING as error:
                await self._go_on_after(str(error))
            except ConfigurationError as error:
                self._refuse(str(error))
            except CryptoStoreError as error:
                # Another process has the account, or it is gone: the syncs say so, too.
                _log.debug("the key backup ends: %s", error)
                return
            except Exception as error:  # noqa: BLE001  # it must neither end in silence nor end the syncs
                self._refuse(f"the key backup failed: {type(error).__name__}")

    async def _round(self) -> None:
        if self._is_look_due():
            await self._look()
        if self.state.version:
            await self._sleep(random.uniform(0, self.longest_delay))
            await self._uploads.run(self._stopping.is_set)
        self._failures = 0

    async def _go_on_after(self, why: str) -> None:
        self._failures += 1
        pause = growing_pause(self._failures, _FIRST_PAUSE, _LONGEST_PAUSE)
        _log.warning("the key backup goes on in %.0f s: %s", pause, why)
        self._wake.set()
        await self._sleep(pause)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _look(self) -> None:
        async with self._one_look:
            self._decide(await self._versions.find())

    def _decide(self, found: Found) -> None:
        self._looked_with, self._look_at = self._private_key or b"", float("inf")
        if found.backup is None or found.problem:
            self._refuse(found.problem)
        else:
            self._use(found.backup)

    def _use(self, backup: BackupVersion) -> None:
        held = self._private_key
        to_back_up, present = self._session.store.to_back_up, self._session.store.to_back_up.backup
        if present is None or (present.version, present.public_key) != (backup.version, backup.public_key):
            _log.info("the key backup %s of the homeserver is used", ascii(backup.version))
            to_back_up.use(records.KeyBackup(backup.version, backup.public_key))
        can_restore = held is not None and public_key(held) == backup.public_key
        self.state = KeyBackupState(backup.version, can_restore=can_restore)
        if can_restore:
            self.late_events.begin()
        else:
            self.late_events.give_up()

    def _refuse(self, problem: str) -> None:
        """No backup is used; what is new goes on being noted if one was."""
        if problem != self.state.problem:
            _log.warning("%s", problem)
        self.state = KeyBackupState(problem=problem)
        self._look_at = time.monotonic() + _LOOK_AGAIN
        self.late_events.give_up()

    async def _fetch(self, room_id: str, session_id: str) -> bool:
        held = self._private_key
        if held is None or not self.state.can_restore:
            return False
        return await self._restore.one(self.state.version, held, room_id, session_id)
