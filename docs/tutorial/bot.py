"""A bot that repeats what it is told, in the rooms that it is invited to."""

import asyncio
import os

from nio import InviteMemberEvent, MatrixRoom, RoomMessageText

from cryptostore.nio import ProductionMatrixClient, transaction_id


async def main() -> None:
    # The homeserver, the user, the database and the pickle key come from the file .env.
    async with ProductionMatrixClient() as client:

        async def accept(room: MatrixRoom, event: InviteMemberEvent) -> None:
            await client.join(room.room_id)

        async def answer(room: MatrixRoom, event: RoomMessageText) -> None:
            if event.sender == client.user_id:
                return
            await client.room_send(
                room.room_id,
                "m.room.message",
                {"msgtype": "m.notice", "body": f"You said: {event.body}"},
                # After a kill the event may come again. A second answer with this id is dropped.
                tx_id=transaction_id(event),
                ignore_unverified_devices=True,
            )

        await client.login_or_restore(password=os.environ.get("MATRIX_PASSWORD"))
        if client.should_upload_keys:
            # Before anybody meets the bot: what is said earlier it could not read.
            await client.keys_upload()
        client.add_event_callback(accept, InviteMemberEvent)
        client.add_event_callback(answer, RoomMessageText)
        print(f"ready as {client.user_id} {client.device_id}", flush=True)
        await client.sync_forever(timeout=30_000)


asyncio.run(main())
