"""What `cryptostore restored` leaves to the client: all that needs the homeserver. A kill between any steps is no harm.

Before anything else is sent, no key is left on the homeserver whose private half may be lost:

1. A new fallback key takes the place of the one that is there. It is durable before it is uploaded, and the same one is
   uploaded again after a kill: an account keeps two, and the one before it may have been handed out.
2. The account's own one-time keys are claimed until none is left. There is no other way to take them back, and new ones
   may have the ids of those.
3. New ones are uploaded.

Then, beside the syncs, each device that there was an Olm session with is told of a new one, or it would go on with one
whose newer state is lost; and the room keys that came since are read out of the key backup. Then the mark goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol
from uuid import uuid4

from nio import ErrorResponse, KeysUploadError, KeysUploadResponse, SyncResponse
from nio.crypto import OlmDevice

from cryptostore import records
from cryptostore.errors import ConfigurationError, CryptoStoreError, HomeserverUnavailable
from cryptostore.logs import logger
from cryptostore.nio.trust.backup_on_demand import PASSING
from cryptostore.nio.trust.backup_restore import RestoredBackup
from cryptostore.nio.trust.requests import Requests
from cryptostore.records import Key

from .answers import failure, is_homeservers
from .homeserver import Homeserver
from .key_queries import Claimed
from .outbound import DevicePair
from .pauses import growing_pause
from .prefetch import Wanted
from .session import Session
from .store import ProductionStore
from .threads import in_thread

_ALGORITHM: Final = "signed_curve25519"
#: A homeserver that hands out more one-time keys of one device than this makes them up.
_MOST_KEYS: Final = 10_000
#: Devices that are told in one request.
_TOLD_AT_ONCE: Final = 20
#: Seconds, more than keys wait after a refusal.
_REFUSAL_ENDS: Final = 5
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 600.0
_REFUSED: Final = range(400, 500)

_log: Final = logger(__name__)


class Client(Protocol):
    """What makes an account whole, of the client's own."""

    @property
    def should_upload_keys(self) -> bool:
        """Whether keys are to be uploaded."""

    async def keys_upload(self) -> KeysUploadResponse | KeysUploadError:
        """Upload keys."""

    async def keys_claim(self, user_set: Mapping[str, Iterable[str]]) -> Claimed:
        """Begin Olm sessions."""

    def prefetched(self, wanted: Wanted) -> AbstractAsyncContextManager[None]:
        """Have what is wanted in memory inside the block."""

    async def restore_backup(self) -> RestoredBackup:
        """Take in all room keys of the backup."""


class _Partner(NamedTuple):
    """A device that there was an Olm session with, and the key of the last of these sessions."""

    device: DevicePair
    session: Key


class Restoring:
    """Makes an account whole whose backup was put back."""

    def __init__(self, client: Client, session: Session, requests: Requests, homeserver: Homeserver) -> None:
        self._client = client
        self._session = session
        self._requests = requests
        self._homeserver = homeserver
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def _mark(self) -> records.RestoredAccount | None:
        return self._session.store.restored.rows.get(()) if self._session.is_open else None

    async def replace_keys(self) -> None:
        """Leave no lost key on the homeserver, if a backup was put back. Nothing else is sent before.

        Raises HomeserverUnavailable where a request has no usable answer inside the deadline, and what `flush` raises.
        """
        mark = self._mark
        if mark is None or mark.keys_replaced:
            return
        async with self._one_at_a_time:
            if self._mark is mark:
                await self._replace_keys()
                self._session.store.restored.put(replace(mark, keys_replaced=True))
                await self._session.flush()

    async def after_sync(self, _response: SyncResponse) -> None:
        """Begin to tell other devices, beside the syncs."""
        mark = self._mark
        if mark is not None and mark.keys_replaced and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def closing(self) -> None:
        """The client is closed. The next start goes on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _replace_keys(self) -> None:
        machine = self._session.machine
        # What was made and not offered yet may have been offered since.
        machine.mark_keys_as_published()
        machine.save_account()
        machine.fallback_keys.offer_now()
        if machine.fallback_keys.is_due:
            await self._upload("fallback key")
        await self._take_one_time_keys_back()
        machine.uploaded_key_count = 0
        await self._upload("one-time keys")

    async def _upload(self, what: str) -> None:
        """Upload what is due. A homeserver that refuses it has none of ours that is lost, or keeps what it has."""
        for _ in range(_REFUSAL_ENDS):
            if self._client.should_upload_keys:
                break
            await asyncio.sleep(1)
        async with self._homeserver.within_deadline():
            with self._requests.reaching():
                answer = await self._client.keys_upload()
        if not isinstance(answer, KeysUploadError):
            return
        status = getattr(answer.transport_response, "status", None)
        if status not in _REFUSED or status in (401, 429) or not is_homeservers(answer.status_code):
            raise failure(f"the homeserver does not take a new {what} in place of those that were lost", answer)
        _log.warning("the homeserver does not take a new %s in place of those that were lost: %s", what, answer)

    async def _take_one_time_keys_back(self) -> None:
        store = self._session.store
        wanted = {store.user_id: {store.device_id: _ALGORITHM}}
        for _ in range(_MOST_KEYS):
            async with self._homeserver.within_deadline():
                answer = await self._requests.ask("POST", "keys", "claim", content={"one_time_keys": wanted})
            if not answer.is_ok:
                error = answer.failure("the homeserver does not hand out this device's own one-time keys")
                if not isinstance(error, ConfigurationError):
                    raise error
                _log.warning("%s; messages that are begun with one that was lost cannot be read", error)
                return
            if not self._is_one_time_key(answer.content.get("one_time_keys")):
                return
        _log.warning("the homeserver has no end of one-time keys of this device")

    def _is_one_time_key(self, claimed: Any) -> bool:
        """Whether a key was handed out that is no fallback key."""
        store = self._session.store
        keys = _below(_below(claimed, store.user_id), store.device_id)
        key = next(iter(keys.values()), None) if isinstance(keys, Mapping) else None
        if not isinstance(key, Mapping) or key.get("fallback") is True:
            return False
        return not self._session.machine.fallback_keys.is_newest(key.get("key"))

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._complete()
            except PASSING as error:
                failures += 1
                _log.warning("the restored account is made whole later: %s", error)
                await asyncio.sleep(growing_pause(failures, _FIRST_PAUSE, _LONGEST_PAUSE))
                continue
            except CryptoStoreError as error:
                _log.warning("the restored account is made whole at the next start: %s", error)
            except Exception as error:  # noqa: BLE001  # it must neither end in silence nor end the syncs
                _log.warning("the restored account is made whole at the next start: %s", type(error).__name__)
            return

    async def _complete(self) -> None:
        told = await self._tell_devices()
        await self._read_backup()
        store = self._session.store
        store.restored.drop(())
        await self._session.flush()
        _log.warning("%s is whole again; %d devices were told of new Olm sessions", store.account_id, told)

    async def _tell_devices(self) -> int:
        mark, store, told = self._mark, self._session.store, 0
        if mark is None:
            return told
        partners = iter(await in_thread(self._session.threads, _partners, store, mark.told_to or None))
        while part := list(islice(partners, _TOLD_AT_ONCE)):
            told += await self._tell([partner.device for partner in part])
            store.restored.put(mark := replace(mark, told_to=tuple(map(str, part[-1].session))))
        return told

    async def _tell(self, pairs: list[DevicePair]) -> int:
        """Begin Olm sessions with devices that have none that may encrypt, and send each something with it."""
        async with self._client.prefetched(Wanted(partners={user_id for user_id, _ in pairs})):
            devices = [device for pair in pairs if (device := self._device(pair)) is not None]
            await self._begin_sessions(devices)
            messages = dict(self._dummies(devices))
            if not messages:
                return 0
            by_user: dict[str, dict[str, Any]] = {}
            for (user_id, device_id), content in messages.items():
                by_user.setdefault(user_id, {})[device_id] = content
            path = ("sendToDevice", "m.room.encrypted", str(uuid4()))
            answer = await self._requests.ask("PUT", *path, content={"messages": by_user})
        if not answer.is_ok:
            raise HomeserverUnavailable(f"the homeserver does not tell other devices of new sessions: {answer.problem}")
        return len(messages)

    def _device(self, pair: DevicePair) -> OlmDevice | None:
        device = self._session.machine.device_store[pair[0]].get(pair[1])
        return None if device is None or device.deleted or device.blacklisted else device

    async def _begin_sessions(self, devices: list[OlmDevice]) -> None:
        wanted: dict[str, list[str]] = {}
        for device in devices:
            if self._session.machine.session_store.get(device.curve25519) is None:
                wanted.setdefault(device.user_id, []).append(device.id)
        if not wanted:
            return
        with self._requests.reaching():
            answer = await self._client.keys_claim(wanted)
        if isinstance(answer, ErrorResponse):
            raise HomeserverUnavailable(f"the homeserver hands out no one-time keys: {answer}")

    def _dummies(self, devices: list[OlmDevice]) -> Iterator[tuple[DevicePair, dict[str, Any]]]:
        machine = self._session.machine
        for device in devices:
            session = machine.session_store.get(device.curve25519)
            # Who offers no one-time key is told with the first room key.
            if session is not None:
                yield (device.user_id, device.id), machine._olm_encrypt(session, device, "m.dummy", {})  # noqa: SLF001  # nio's

    async def _read_backup(self) -> None:
        """Read the room keys that came since the backup of the database was made."""
        try:
            found = await self._client.restore_backup()
        except ConfigurationError as error:
            _log.warning("room keys that came since the backup of the database are missing: %s", error)
        else:
            _log.info("read %d room keys out of the key backup", found.taken_in)


def _partners(store: ProductionStore, told_to: Key | None) -> list[_Partner]:
    """The devices whose Olm sessions only decrypt, in the order of these, after this one. From a thread."""
    last: dict[str, Key] = {}
    for session in store.storage.stored(records.OlmSession, after=told_to):
        if session.receive_only:
            last[session.sender_key] = session.key
    by_key = {
        str(device.keys.get("curve25519")): (device.user_id, device.device_id)
        for device in store.storage.stored(records.Device)
        if not device.deleted
    }
    return [_Partner(by_key[sender_key], key) for sender_key, key in last.items() if sender_key in by_key]


def _below(mapping: Any, name: str) -> Any:
    return mapping.get(name) if isinstance(mapping, Mapping) else None
