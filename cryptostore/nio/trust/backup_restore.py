"""Megolm sessions out of the backup on the server: all of them, or one that a message needs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from aiohttp import ClientError, ClientTimeout
from nio import AsyncClient
from nio.crypto import InboundGroupSession

from cryptostore import records
from cryptostore.errors import ConfigurationError, HomeserverUnavailable, InvalidRecord
from cryptostore.logs import logger
from cryptostore.nio import bounds
from cryptostore.nio.client.homeserver import request_headers
from cryptostore.nio.client.session import Session
from cryptostore.nio.client.store import ProductionStore
from cryptostore.nio.client.threads import in_thread
from cryptostore.nio.group_sessions import GroupSessionKey
from cryptostore.nio.provenance import note_origin
from cryptostore.trust.key_backup import UNKNOWN_KEY, BackedUpSession, BackupDecryption

from .backup_stream import Entry, EntryStream
from .backup_versions import checked
from .requests import Answer, Requests

_KEYS: Final = "/_matrix/client/v3/room_keys/keys"
#: Bytes that are parsed, decrypted and looked up in one turn of a thread: some hundred sessions.
_PIECE: Final = 128 * 1024
#: Sessions that are taken in between two turns of the event loop. Comparing one may take 0.5 ms of it.
_TURN: Final = 50
#: Sessions that are made durable at once.
_BATCH: Final = 500
_LONGEST_SILENCE: Final = 60.0

#: Told how many entries were read, and how many there are, as far as is known.
Progress = Callable[[int, int], None]

_log: Final = logger(__name__)


@dataclass(frozen=True)
class RestoredBackup:
    """What became of a backup's entries.

    `total` were there, `taken_in` are new or read more than what was stored, and `skipped` were of no use.
    """

    version: str
    total: int
    taken_in: int
    skipped: int


class _Readable(NamedTuple):
    """Sessions out of the backup, and why others were left out."""

    sessions: list[InboundGroupSession]
    problems: Counter[str]
    #: What is stored under their keys, so that it stays in memory.
    known: object = None


class BackupRestore:
    """Reads the backup, checks what it finds, and saves it as coming from there."""

    def __init__(self, client: AsyncClient, session: Session, requests: Requests) -> None:
        self._client = client
        self._session = session
        self._requests = requests

    async def all(self, version: str, private_key: bytes, expected: int, progress: Progress | None) -> RestoredBackup:
        """Take in the whole backup. It may be repeated: what is there already is not written again.

        Raises HomeserverUnavailable, also for an answer that is cut off, with what came before saved;
        ConfigurationError for what the homeserver refuses; and what `flush` raises.
        """
        decryption = BackupDecryption(private_key)
        total = taken_in = unsaved = 0
        problems: Counter[str] = Counter()
        reports = self._session.store.storage.durable.reports
        try:
            async for entries in self._entries(version):
                found = await self._read(decryption, entries)
                new = await self._take_in(found)
                total, taken_in, unsaved = total + len(entries), taken_in + new, unsaved + new
                problems += found.problems
                if unsaved >= _BATCH:
                    await self._session.flush()
                    unsaved = 0
                if progress is not None:
                    progress(total, max(total, expected))
            await self._session.flush()
        finally:
            # Also of a restore that failed: what was taken in stays, and the next flush saves it.
            if taken_in:
                reports.imported(taken_in, "client.restore_backup", self._client.homeserver)
        _report(problems)
        return RestoredBackup(version, total, taken_in, problems.total())

    async def one(self, version: str, private_key: bytes, room_id: str, session_id: str) -> bool:
        """Take in one session. Returns whether the backup had it. Raises what `all` raises."""
        answer = await self._requests.ask("GET", "room_keys", "keys", room_id, session_id, query={"version": version})
        if checked(answer, "does not give a room key from the backup").is_missing:
            return False
        found = await self._read(BackupDecryption(private_key), [Entry(room_id, session_id, answer.content)])
        await self._take_in(found)
        await self._session.flush()
        _report(found.problems)
        return bool(found.sessions)

    async def _read(self, decryption: BackupDecryption, entries: Iterable[Entry]) -> _Readable:
        return await in_thread(self._session.threads, _readable, self._session.store, decryption, entries)

    async def _take_in(self, found: _Readable) -> int:
        """Save what is new or better, and return how many that are."""
        taken_in = 0
        for start in range(0, len(found.sessions), _TURN):
            store = self._session.store
            known = store.load_inbound_group_sessions()
            for session in found.sessions[start : start + _TURN]:
                if known.add(session):
                    store.save_inbound_group_session(session)
                    taken_in += 1
            await asyncio.sleep(0)
        return taken_in

    async def _entries(self, version: str) -> AsyncIterator[list[Entry]]:
        """The entries, as many at a time as come together."""
        stream = EntryStream()
        try:
            async for piece in self._body(f"{_KEYS}?{urlencode({'version': version})}"):
                if entries := await in_thread(self._session.threads, stream.feed, piece):
                    yield entries
            stream.end()
        except (ClientError, OSError, ValueError) as error:
            raise HomeserverUnavailable(
                f"the homeserver did not send the whole key backup: {str(error) or type(error).__name__}. What came is "
                "saved; try again later"
            ) from error

    async def _body(self, path: str) -> AsyncIterator[bytes]:
        """The body of an answer, which may be larger than memory and longer than a request's usual time."""
        headers = request_headers(self._client.config, self._client.access_token)
        timeout: Any = ClientTimeout(total=None, sock_connect=_LONGEST_SILENCE, sock_read=_LONGEST_SILENCE)
        response = await self._client.send("GET", path, None, headers, None, timeout)
        try:
            if response.status != 200:
                answer = Answer(response.status, await self._client.parse_body(response))
                checked(answer, "does not give the key backup")
                raise ConfigurationError("the homeserver has no key backup of this version any more")
            piece = b""
            async for part in response.content.iter_any():
                piece += part
                if len(piece) >= _PIECE:
                    yield piece
                    piece = b""
            yield piece
        finally:
            response.close()


def _readable(store: ProductionStore, decryption: BackupDecryption, entries: Iterable[Entry]) -> _Readable:
    """The sessions in entries, and what is stored under their keys. From a thread."""
    sessions: dict[GroupSessionKey, InboundGroupSession] = {}
    problems: Counter[str] = Counter()
    for entry in entries:
        try:
            found = decryption.session(*entry)
            key = found.room_id, found.session_id, found.sender_key
            records.check_key(records.InboundGroupSession, key)
            if len(found.forwarding_chain) > bounds.FORWARDERS:
                raise ValueError("its forwarding chain is too long")
        except (ValueError, InvalidRecord) as error:
            problems[str(error)] += 1
        else:
            sessions[key] = _live(found)
    known = store.load_inbound_group_sessions().prefetch(sessions)
    return _Readable(list(sessions.values()), problems, known)


def _live(session: BackedUpSession) -> InboundGroupSession:
    made = InboundGroupSession.import_session(
        session.session_key,
        session.signing_key or UNKNOWN_KEY,
        session.sender_key,
        session.room_id,
        list(session.forwarding_chain),
    )
    note_origin(made, from_backup=True)
    return made


def _report(problems: Counter[str]) -> None:
    for why, count in problems.items():
        _log.warning("left out %d entries of the key backup: %s", count, why)
