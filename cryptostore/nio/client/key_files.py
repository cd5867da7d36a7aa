"""Files of room keys, such as other clients export: however many keys come, the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from nio import LocalProtocolError
from nio.crypto import InboundGroupSession

from cryptostore.nio.exported_keys import ExportedKeys

from .session import Session

#: Keys that are taken in between two turns of the event loop. Each takes about 0.1 ms of it.
_PIECE: Final = 100


class KeyFiles:
    """Imports any number of room keys while the client goes on syncing and sending."""

    def __init__(self, session: Session, flush: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._flush = flush

    async def take_in(self, infile: str, passphrase: str) -> None:
        """Import the keys in a file, piece by piece: every key is durable when this returns."""
        if not self._session.is_open:
            raise LocalProtocolError("this client is not open; `await client.open()` before room keys are imported")
        keys = await asyncio.to_thread(ExportedKeys, infile, passphrase)
        pieces = keys.pieces(_PIECE)
        while piece := await asyncio.to_thread(next, pieces, None):
            self._take_in_piece(piece)
            await self._flush()

    def _take_in_piece(self, sessions: Sequence[InboundGroupSession]) -> None:
        store = self._session.store
        known = store.load_inbound_group_sessions()
        for session in sessions:
            if known.add(session):
                store.save_inbound_group_session(session)
