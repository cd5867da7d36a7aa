"""Megolm sessions on their way into the backup on the server, some hundreds a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple

from cryptostore import records
from cryptostore.nio.client.session import Session
from cryptostore.nio.client.store import ProductionStore
from cryptostore.nio.client.threads import in_thread
from cryptostore.records import Key
from cryptostore.records.changes import Changes
from cryptostore.trust import unpadded_base64
from cryptostore.trust.key_backup import UNKNOWN_KEY, BackedUpSession, BackupEncryption

from .backup_versions import checked
from .requests import Requests

#: As many as the store reads in one page: about 450 KiB, below what proxies take by default.
MOST_SESSIONS: Final = 500
_TOO_LARGE: Final = 413
#: What the homeserver answers where this backup is not the present one (any more).
_NOT_THIS_ONE: Final = frozenset({"M_WRONG_ROOM_KEYS_VERSION", "M_NOT_FOUND"})


class OtherVersionError(Exception):
    """The homeserver has another backup now, or none."""


class _Batch(NamedTuple):
    """Sessions to upload, and what to write when they are there."""

    sessions: list[records.InboundGroupSession]
    noted: list[Key]
    backup: records.KeyBackup

    @property
    def is_last(self) -> bool:
        """Whether nothing was waiting."""
        return not self.sessions and not self.noted


class BackupUploads:
    """Uploads what the backup in use lacks: first the store as it was, page by page, then what came since."""

    def __init__(self, session: Session, requests: Requests) -> None:
        self._session = session
        self._requests = requests
        self._most = MOST_SESSIONS
        self._one_run = asyncio.Lock()

    async def run(self, is_stopping: Callable[[], bool]) -> None:
        """Upload until nothing waits, or it is to stop. What is up is noted before the next request leaves.

        Raises OtherVersionError, HomeserverUnavailable, ConfigurationError for what the homeserver refuses, and what
        `flush` raises.
        """
        async with self._one_run:
            while not is_stopping() and await self._upload_one():
                pass

    async def _upload_one(self) -> bool:
        store = self._session.store
        await self._session.flush()
        while store.storage.is_in_flight:
            await self._session.flush()
        backup = store.to_back_up.backup
        if backup is None:
            return False
        # All is durable: what is saved from here on is noted again, and stays noted.
        with store.to_back_up.watched() as noted:
            batch = await in_thread(self._session.threads, _read, store, backup, self._most)
            if batch.sessions and not await self._put(batch):
                return True
            if self._session.store is store:
                _settle(store, batch, noted)
        return not batch.is_last or not backup.is_walked

    async def _put(self, batch: _Batch) -> bool:
        content = await in_thread(self._session.threads, _content, batch)
        query = {"version": batch.backup.version}
        answer = await self._requests.ask("PUT", "room_keys", "keys", query=query, content=content)
        if answer.errcode in _NOT_THIS_ONE:
            raise OtherVersionError
        if answer.status == _TOO_LARGE and self._most > 1:
            self._most //= 2
            return False
        checked(answer, "takes no room keys into the backup")
        return True


def _read(store: ProductionStore, backup: records.KeyBackup, most: int) -> _Batch:
    """What to upload next. From a thread."""
    storage = store.storage
    if backup.is_walked:
        notes = [row.key for row in islice(storage.stored(records.SessionToBackUp), most)]
        found = storage.get(records.InboundGroupSession, notes)
        return _Batch(list(found.values()), notes, backup)
    page = list(islice(storage.stored(records.InboundGroupSession, tuple(backup.walked_to) or None), most))
    if not page:
        return _Batch([], [], replace(backup, is_walked=True))
    keys = [row.key for row in page]
    walked = replace(backup, walked_to=tuple(map(str, keys[-1])))
    return _Batch(page, list(storage.get(records.SessionToBackUp, keys)), walked)


def _settle(store: ProductionStore, batch: _Batch, noted_since: Collection[Key]) -> None:
    """The sessions are up: that is written with the next flush."""
    present, done = store.to_back_up.backup, batch.backup
    if present is None or (present.version, present.public_key) != (done.version, done.public_key):
        # Another backup is used since, which gets all of it.
        return
    deletes = [(records.SessionToBackUp, key) for key in batch.noted if key not in noted_since]
    store.storage.write(Changes(deletes=deletes))
    if present != done:
        store.to_back_up.use(done)


def _content(batch: _Batch) -> dict[str, Any]:
    """The body of the request. From a thread."""
    encryption = BackupEncryption(batch.backup.public_key)
    rooms: dict[str, Any] = {}
    # The backup has one entry for a session id; senders who claim the same one are told apart by the store alone.
    for session in sorted(batch.sessions, key=_distrust, reverse=True):
        sessions = rooms.setdefault(session.room_id, {"sessions": {}})["sessions"]
        sessions[session.session_id] = encryption.entry(backed_up(session))
    return {"rooms": rooms}


def _distrust(session: records.InboundGroupSession) -> tuple[bool, int, int]:
    return session.from_backup, len(session.forwarding_chain), session.first_known_index


def backed_up(session: records.InboundGroupSession) -> BackedUpSession:
    """A stored session as a backup holds it."""
    return BackedUpSession(
        room_id=session.room_id,
        session_id=session.session_id,
        sender_key=session.sender_key,
        signing_key="" if session.signing_key == UNKNOWN_KEY else session.signing_key,
        forwarding_chain=session.forwarding_chain,
        first_known_index=session.first_known_index,
        session_key=unpadded_base64.encode(session.session_key),
    )
