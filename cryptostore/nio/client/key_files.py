"""Files of room keys, such as other clients export: however many keys come, the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from nio.client.base_client import store_loaded
from nio.crypto import InboundGroupSession, Olm

from .durable import DurableClient

#: Keys that are taken in between two turns of the event loop. Each takes about 0.1 ms of it.
_PIECE: Final = 100


class KeyFileClient(DurableClient):
    """A client that imports any number of room keys while it goes on syncing and sending."""

    @store_loaded
    async def import_keys(self, infile: str, passphrase: str) -> None:
        """As nio's, piece by piece: every key is durable when this returns.

        Raises what `flush` raises. Calling this again takes in what is missing.
        """
        sessions = await asyncio.to_thread(Olm.import_keys_static, infile, passphrase)
        for start in range(0, len(sessions), _PIECE):
            self._take_in(sessions[start : start + _PIECE])
            await self.flush()
            # A flush without anything to write waits for nothing.
            await asyncio.sleep(0)

    def _take_in(self, sessions: Sequence[InboundGroupSession]) -> None:
        store = self.production_store
        known = store.load_inbound_group_sessions()
        for session in sessions:
            if known.add(session):
                store.save_inbound_group_session(session)
