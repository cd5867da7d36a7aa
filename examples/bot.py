"""A complete bot: it repeats every text message in the rooms that it is invited to.

    export MATRIX_HOMESERVER=https://matrix.example.org MATRIX_USER_ID=@bot:example.org MATRIX_PASSWORD=...
    export CRYPTOSTORE_URL=postgresql://bot@db.example.org/keys CRYPTOSTORE_PICKLE_KEY_FILE=/run/secrets/pickle-key
    python bot.py

The password is needed once. Kill it at any moment and start it anywhere with the same database and pickle key: it is
the same device, reads everything that was sent meanwhile, and answers each message once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Final

from nio import InviteMemberEvent, MatrixRoom, RoomMessageText

from cryptostore import (
    AccessTokenRejected,
    AccountElsewhere,
    AccountNotFound,
    BackendUnavailable,
    ConfigurationError,
    DatabaseWentBack,
    FencedOut,
    HomeserverUnavailable,
    PluginError,
    SchemaError,
    StorageFull,
    UnreadableRecord,
    WrongPickleKey,
)
from cryptostore.nio import ProductionMatrixClient, transaction_id

#: Exit codes, for whatever restarts the bot. It must not do so after these: a person has to act, or another process
#: does the work now.
MISCONFIGURED: Final = 2
TAKEN_OVER: Final = 10
#: After this one, and any other, it may.
TRY_AGAIN: Final = 1

#: What no restart mends.
_FOR_A_PERSON: Final = (
    AccountElsewhere,
    AccountNotFound,
    ConfigurationError,
    DatabaseWentBack,
    PluginError,
    SchemaError,
    UnreadableRecord,
    WrongPickleKey,
)

#: Seconds before another try when the database or the homeserver is away.
_PAUSE: Final = 5

_log: Final = logging.getLogger("bot")


class EchoBot:
    """Callbacks on one client."""

    def __init__(self, client: ProductionMatrixClient) -> None:
        self._client = client

    async def prepare(self) -> None:
        """Register the callbacks. On its very first start the bot lets old messages rest."""
        # Before anybody can meet it in a room: what is said earlier is encrypted for others alone.
        if self._client.should_upload_keys:
            await self._client.keys_upload()
        self._client.add_event_callback(self._accept_invitation, InviteMemberEvent)  # type: ignore[arg-type]  # nio's annotation wants callbacks for every event
        if not self._client.loaded_sync_token:
            await self._client.sync()
        self._client.add_event_callback(self._repeat, RoomMessageText)  # type: ignore[arg-type]  # as above

    async def _accept_invitation(self, room: MatrixRoom, event: InviteMemberEvent) -> None:
        if event.state_key == self._client.user_id and event.membership == "invite":
            await self._client.join(room.room_id)

    async def _repeat(self, room: MatrixRoom, event: RoomMessageText) -> None:
        if event.sender == self._client.user_id:
            return
        await self._client.room_send(
            room.room_id,
            "m.room.message",
            {"msgtype": "m.notice", "body": event.body},
            # After a kill this callback may run again for the same event; the homeserver then drops the second answer.
            tx_id=transaction_id(event),
            # Replace this where only verified devices may read what the bot says.
            ignore_unverified_devices=True,
        )


async def run() -> None:
    """Log in or restore, then sync until the process is told to stop."""
    async with ProductionMatrixClient() as client:
        await client.login_or_restore(password=os.environ.get("MATRIX_PASSWORD"), device_name="echo bot")
        await EchoBot(client).prepare()
        _log.info("ready as %s %s", client.user_id, client.device_id)
        while True:
            try:
                await client.sync_forever(timeout=30_000)
            except (BackendUnavailable, StorageFull) as error:
                # Nothing was sent and nothing is lost; the next try flushes what waits.
                _log.warning("%s; trying again in %d s", error, _PAUSE)
                await asyncio.sleep(_PAUSE)


async def main() -> int:
    """The bot's exit code."""
    bot = asyncio.create_task(run())
    # Closing flushes, so a rolling update hands over cleanly. It would be safe without.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, bot.cancel)
    try:
        await bot
    except asyncio.CancelledError:
        return 0
    except _FOR_A_PERSON as error:
        _log.error("%s", error)
        return MISCONFIGURED
    except FencedOut as error:
        _log.error("%s", error)  # it names the process that does the work now
        return TAKEN_OVER
    except (AccessTokenRejected, BackendUnavailable, HomeserverUnavailable, StorageFull) as error:
        _log.error("%s", error)
        return TRY_AGAIN
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    sys.exit(asyncio.run(main()))
