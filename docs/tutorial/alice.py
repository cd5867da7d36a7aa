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

    # She has a database of her own; the rest comes from the file .env.
    alice = ProductionMatrixClient(user="@alice:localhost", store="sqlite:///alice.db")
    async with alice, asyncio.TaskGroup() as tasks:
        await alice.login_or_restore(password="alice-password")
        await alice.sync()
        alice.add_event_callback(show, (RoomMessageText, RoomMessageNotice))
        room_id = next(iter(alice.rooms), None) or await invite_bot(alice)
        syncing = tasks.create_task(alice.sync_forever(timeout=30_000))
        while not has_joined(alice, room_id):
            await asyncio.sleep(0.1)
        await alice.room_send(
            room_id,
            "m.room.message",
            {"msgtype": "m.text", "body": text},
            ignore_unverified_devices=True,
        )
        await answered.wait()
        syncing.cancel()


def has_joined(alice: ProductionMatrixClient, room_id: str) -> bool:
    room = alice.rooms.get(room_id)
    return room is not None and BOT in room.users and not room.invited_users


async def invite_bot(alice: ProductionMatrixClient) -> str:
    algorithm = {"algorithm": "m.megolm.v1.aes-sha2"}
    encryption = {"type": "m.room.encryption", "content": algorithm}
    created = await alice.room_create(invite=[BOT], initial_state=[encryption])
    assert isinstance(created, RoomCreateResponse), created
    return created.room_id


asyncio.run(main(sys.argv[1]))
