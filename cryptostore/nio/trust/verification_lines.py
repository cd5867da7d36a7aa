"""Where the events of a verification go: into a room, or to devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from cryptostore.errors import HomeserverUnavailable
from cryptostore.nio.client.answers import is_homeservers
from cryptostore.nio.client.transactions import transaction_id
from cryptostore.trust import exchange_contents as contents
from cryptostore.trust.exchange import Message
from cryptostore.trust.exchange_contents import REASONS, Code, Flow
from cryptostore.trust.sas import DeviceId

from .requests import Answer, Requests

#: Statuses from which on the homeserver is at fault, so that trying again may help.
_SERVER_ERROR = 500


class NotSent(Exception):
    """The homeserver does not take an event, and will not later."""


class Line(Protocol):
    """The way to the other side. Raises HomeserverUnavailable, NotSent, and what the client's `send` raises.

    An event that is sent once more, because there was no answer, arrives once.
    """

    async def send(self, message: Message, to: DeviceId) -> None:
        """Send an event to who is there; to all that were asked as long as no device has taken the request."""

    async def tell_others(self, to: DeviceId) -> None:
        """Tell the other devices that were asked that this one has taken the request."""


class RoomLine:
    """Events in a room, in the clear: who is to be verified may not have the room's key."""

    def __init__(self, requests: Requests, room_id: str) -> None:
        self._requests = requests
        self._room_id = room_id

    async def send(self, message: Message, _to: DeviceId) -> None:
        related = message.content["m.relates_to"]["event_id"]
        transaction = transaction_id(related, message.event_type)
        path = ("rooms", self._room_id, "send", message.event_type, transaction)
        check(await self._requests.ask("PUT", *path, content=message.content))

    async def tell_others(self, _to: DeviceId) -> None:
        """They see that the request was taken."""


class DeviceLine:
    """To-device messages; `asked` are the ids of all devices that were asked."""

    def __init__(self, requests: Requests, flow: Flow, asked: Iterable[str]) -> None:
        self._requests = requests
        self._flow = flow
        self._asked = frozenset(asked)

    async def send(self, message: Message, to: DeviceId) -> None:
        devices = [to.device_id] if to.device_id else sorted(self._asked)
        await self._send(message, to.user_id, devices)

    async def tell_others(self, to: DeviceId) -> None:
        others = sorted(self._asked - {to.device_id})
        if others:
            content = contents.cancel(Code.ACCEPTED, REASONS[Code.ACCEPTED])
            await self._send(Message(contents.CANCEL, self._flow.of(content)), to.user_id, others)

    async def _send(self, message: Message, user_id: str, devices: list[str]) -> None:
        # A request id of its own for each: homeservers drop what comes under a former one.
        transaction = transaction_id(self._flow.transaction_id, "\0".join([message.event_type, user_id, *devices]))
        await send_to_devices(self._requests, message, {user_id: devices}, transaction)


async def send_to_devices(
    requests: Requests, message: Message, devices: Mapping[str, Iterable[str]], transaction: str
) -> None:
    """Send the same to-device message to devices of users. Raises as `Line` does."""
    messages: dict[str, Any] = {user: dict.fromkeys(each, message.content) for user, each in devices.items()}
    path = ("sendToDevice", message.event_type, transaction)
    check(await requests.ask("PUT", *path, content={"messages": messages}))


def check(answer: Answer) -> None:
    """Raise HomeserverUnavailable or NotSent for an answer that is an error."""
    if answer.is_ok:
        return
    if answer.status >= _SERVER_ERROR or not is_homeservers(answer.errcode):
        raise HomeserverUnavailable(f"the homeserver does not take an event of a verification: {answer.problem}")
    raise NotSent(answer.problem)
