"""Files of room keys, such as other clients export: however many keys come, the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from nio import EncryptionError, LocalProtocolError
from nio.crypto import InboundGroupSession

from cryptostore.errors import ConfigurationError
from cryptostore.logs import logger
from cryptostore.nio.exported_keys import exported_session
from cryptostore.plugins.new_files import new_private_file
from cryptostore.records import InboundGroupSession as Stored
from cryptostore.records import Key
from cryptostore.store.crypto_store import CryptoStore
from cryptostore.trust.key_file import KeyFile, KeyFileWriter

from .session import Session
from .threads import in_thread

#: Keys that are taken in between two turns of the event loop. Each takes about 0.1 ms of it.
_PIECE: Final = 100

_log: Final = logger(__name__)


class KeyFiles:
    """Imports and exports any number of room keys while the client goes on syncing and sending."""

    def __init__(self, session: Session, flush: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._flush = flush

    async def take_in(self, infile: str, passphrase: str) -> None:
        """Import the keys in a file, piece by piece: every key is durable when this returns."""
        if not self._session.is_open:
            raise LocalProtocolError("this client is not open; `await client.open()` before room keys are imported")
        sessions, taken_in = _sessions(infile, passphrase), 0
        piece = await asyncio.to_thread(_next_piece, sessions)
        # Before: the client may be closed meanwhile.
        reports = self._session.store.storage.durable.reports
        try:
            while piece:
                taken_in += await self._take_in_piece(piece)
                await self._flush()
                piece = await asyncio.to_thread(_next_piece, sessions)
        finally:
            # Also of an import that failed: what was taken in stays, and the next flush saves it.
            reports.imported(taken_in, "client.import_keys", infile)

    async def write_out(self, outfile: str, passphrase: str, rounds: int) -> None:
        """Export all room keys: the new file is there whole when this returns, and not at all after an error."""
        if not self._session.is_open:
            raise LocalProtocolError("this client is not open; `await client.open()` before room keys are exported")
        store, is_given_up = self._session.store, threading.Event()
        # The export reads what is durable. A batch in flight is neither waiting nor durable yet.
        if store.is_dirty or store.storage.is_in_flight:
            await self._flush()
        call = _Export(store.storage.durable, is_given_up)
        try:
            await in_thread(self._session.threads, call.write, Path(outfile), passphrase, rounds)
        finally:
            # The thread does not notice that nobody waits for it any more.
            is_given_up.set()

    async def _take_in_piece(self, sessions: Sequence[InboundGroupSession]) -> int:
        """Take in the keys that are new or better, and return how many those were."""
        store = self._session.store
        known, taken_in = store.load_inbound_group_sessions(), 0
        keys = [(each.room_id, each.id, each.sender_key) for each in sessions]
        # Held until all are compared, so that the event loop waits for no database.
        stored = await in_thread(self._session.threads, known.prefetch, keys)
        for session in sessions:
            if known.add(session):
                store.save_inbound_group_session(session)
                taken_in += 1
        del stored
        return taken_in


def _sessions(infile: str, passphrase: str) -> Iterator[InboundGroupSession]:
    """The sessions in a file. Entries that are of no use are left out. Raises what `KeyFile` raises."""
    left_out = 0
    for item in KeyFile(Path(infile), passphrase).items():
        try:
            session = exported_session(item)
        except ValueError:
            left_out += 1
        else:
            yield session
    if left_out:
        _log.warning("left out %d entries of %s that are no room keys of use", left_out, infile)


def _next_piece(sessions: Iterator[InboundGroupSession]) -> list[InboundGroupSession]:
    """The next sessions; none at the end. Raises EncryptionError as nio does, and errors of the file."""
    try:
        return list(islice(sessions, _PIECE))
    except ConfigurationError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise EncryptionError(str(error)) from error


class _GivenUpError(Exception):
    """Nobody waits for an export any more."""


class _Export:
    """All room keys on their way into a file, in a thread."""

    def __init__(self, store: CryptoStore, is_given_up: threading.Event) -> None:
        self._store = store
        self._is_given_up = is_given_up
        self._unreadable: dict[Key | None, str] = {}

    def write(self, file: Path, passphrase: str, rounds: int) -> None:
        with new_private_file(file, "exported room keys") as opened:
            written = KeyFileWriter(opened, passphrase, rounds).write_all(self._sessions())
        if self._unreadable:
            _log.warning("left out %d room keys that cannot be read", len(self._unreadable))
        self._store.reports.exported(written, "client.export_keys", str(file))

    def _sessions(self) -> Iterator[Stored]:
        for session in self._store.scan(Stored, unreadable=self._unreadable):
            if self._is_given_up.is_set():
                raise _GivenUpError
            yield session
