"""Alice writes one message to the bot, and waits for the answer: python alice.py TEXT."""

import asyncio
import sys

from nio import MatrixRoom, RoomCreateResponse, RoomMessage, RoomMessageNotice, RoomMessageText

from cryptostore.nio import ProductionMatrixClient

BOT = "@bot:localhost"


async def main(text: str) -> None:
    answered = asyncio.Event()

    async def show(room: MatrixRoom, event: RoomMessage) -> None:
        print(f"{event.sender}: {event.body}", flush=True)
        if event.sender == BOT:
            answered.set()

    # She has a database of her own.
    async with ProductionMatrixClient(user="@alice:localhost", store="sqlite:///alice.db") as alice:
        await alice.login_or_restore(password="alice-password")
        await alice.sync()
        alice.add_event_callback(show, (RoomMessageText, RoomMessageNotice))
        room_id = next(iter(alice.rooms), None) or await invite_bot(alice)
        syncing = asyncio.create_task(alice.sync_forever(timeout=30_000))
        while room_id not in alice.rooms or BOT not in alice.rooms[room_id].users or alice.rooms[room_id].invited_users:
            await asyncio.sleep(0.1)
        content = {"msgtype": "m.text", "body": text}
        await alice.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        await answered.wait()
        syncing.cancel()


async def invite_bot(alice: ProductionMatrixClient) -> str:
    encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    created = await alice.room_create(invite=[BOT], initial_state=[encryption])
    assert isinstance(created, RoomCreateResponse), created
    return created.room_id


asyncio.run(main(sys.argv[1]))
