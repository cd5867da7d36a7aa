"""Files of room keys, such as other clients export: however many keys come, the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from nio import LocalProtocolError
from nio.crypto import InboundGroupSession

from cryptostore.nio.exported_keys import ExportedKeys

from .durable import DurableClient

#: Keys that are taken in between two turns of the event loop. Each takes about 0.1 ms of it.
_PIECE: Final = 100


class KeyFileClient(DurableClient):
    """A client that imports any number of room keys while it goes on syncing and sending."""

    async def import_keys(self, infile: str, passphrase: str) -> None:
        """As nio's, piece by piece: every key is durable when this returns.

        Raises LocalProtocolError before the client is open; EncryptionError for another passphrase or a damaged file,
        with nothing imported; errors of the file; and what `flush` raises: importing it again takes in what is missing.
        """
        if self.store is None:
            raise LocalProtocolError("this client is not open; `await client.open()` before room keys are imported")
        keys = await asyncio.to_thread(ExportedKeys, infile, passphrase)
        pieces = keys.pieces(_PIECE)
        while piece := await asyncio.to_thread(next, pieces, None):
            self._take_in(piece)
            await self.flush()

    def _take_in(self, sessions: Sequence[InboundGroupSession]) -> None:
        store = self.production_store
        known = store.load_inbound_group_sessions()
        for session in sessions:
            if known.add(session):
                store.save_inbound_group_session(session)
