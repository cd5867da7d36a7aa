"""A homeserver that speaks just enough: to-device messages, device keys, one-time keys and one kind of room.

Real HTTP on loopback, so that a client's own transport is used. What it says about keys is what clients uploaded.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Json = dict[str, Any]
Device = tuple[str, str]

#: How long a sync with nothing new waits.
_LONG_POLL = 0.05


@dataclass
class Request:
    """What a client asked."""

    method: str
    path: str
    user: str
    body: Any
    #: The filter of a sync, or of messages.
    filter: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """The segments of the path after the version."""
        return self.path.removeprefix("/_matrix/client/").split("/")[1:]

    def is_for(self, part: str) -> bool:
        """Whether the path holds `part`."""
        return part in self.path


class HangUp(web.Response):
    """No answer: the connection is cut."""

    async def prepare(self, request: Any) -> Any:
        request.transport.abort()
        raise ConnectionResetError


@dataclass
class SmallHomeserver:
    """Users' devices, their keys and their rooms."""

    requests: list[Request] = field(default_factory=list)
    tokens: dict[str, Device] = field(default_factory=dict)
    device_keys: dict[Device, Json] = field(default_factory=dict)
    one_time_keys: defaultdict[Device, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    fallback_keys: dict[Device, dict[str, Json]] = field(default_factory=dict)
    #: The devices whose fallback key was not handed out since it was uploaded.
    unused_fallback_keys: set[Device] = field(default_factory=set)
    #: Whether this homeserver has fallback keys.
    knows_fallback_keys: bool = True
    #: Every one-time key id that was ever uploaded, to show one that was uploaded twice.
    uploaded: defaultdict[Device, list[str]] = field(default_factory=lambda: defaultdict(list))
    to_device: defaultdict[Device, list[tuple[int, Json]]] = field(default_factory=lambda: defaultdict(list))
    state: defaultdict[str, dict[tuple[str, str], Json]] = field(default_factory=lambda: defaultdict(dict))
    timeline: defaultdict[str, list[tuple[int, Json]]] = field(default_factory=lambda: defaultdict(list))
    changed: list[tuple[int, str]] = field(default_factory=list)
    transactions: dict[tuple[str, str, str], str] = field(default_factory=dict)
    #: Answers for requests that a test wants to go wrong: the first that returns something is used.
    faults: list[Callable[[Request], web.StreamResponse | None]] = field(default_factory=list)
    #: What a request waits for before it is handled, and its answer before it leaves.
    pauses: list[Callable[[Request], Awaitable[None]]] = field(default_factory=list)
    #: What other modules know of a homeserver: the first that answers a request of a device is used.
    extensions: list[Callable[[Device, Request], web.StreamResponse | None]] = field(default_factory=list)
    #: What they add to a device's question for users' keys, and to its sync after a position.
    key_answers: list[Callable[[Device, list[str]], Json]] = field(default_factory=list)
    sync_answers: list[Callable[[Device, int], Json]] = field(default_factory=list)
    #: How many to-device messages one sync brings, and how many events of a room: the newest. As Synapse's defaults.
    page_size: int = 100
    timeline_limit: int = 10
    #: Whether to-device messages that were acknowledged are gone, also for an older token.
    forgets_acknowledged: bool = True
    #: Of the specification; cross-signing came with v1.1.
    versions: list[str] = field(default_factory=lambda: ["r0.6.1"])
    url: str = ""
    position: int = 0

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    def make_room(self, room_id: str, *members: str) -> None:
        """An encrypted room."""
        self._set_state(room_id, "m.room.encryption", "", {"algorithm": "m.megolm.v1.aes-sha2"}, members[0])
        for member in members:
            self.join(room_id, member)

    def join(self, room_id: str, user: str, membership: str = "join", sender: str = "") -> None:
        """A user joins a room, or leaves it; with a sender, is invited or removed."""
        before = self.state[room_id].get(("m.room.member", user))
        event = self._set_state(room_id, "m.room.member", user, {"membership": membership}, sender or user)
        if before is not None:
            event["unsigned"] = {"prev_content": before["content"]}
        self.timeline[room_id].append((self._advance(), event))

    def delete_device(self, device: Device) -> None:
        """A device is gone."""
        self.device_keys.pop(device, None)
        self.take_all_keys(device)
        self.tokens = {token: owner for token, owner in self.tokens.items() if owner != device}
        self.changed.append((self._advance(), device[0]))

    def take_all_keys(self, device: Device) -> None:
        """The homeserver has no key left that another device could begin an Olm session with."""
        self.one_time_keys.pop(device, None)
        self.fallback_keys.pop(device, None)
        self.unused_fallback_keys.discard(device)

    def asked(self, part: str, user: str | None = None) -> list[Request]:
        """The requests whose path holds `part`."""
        return [request for request in self.requests if request.is_for(part) and user in (None, request.user)]

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body: Any = await http.json() if http.can_read_body else None
        request = self._request(http, body)
        for pause in self.pauses:
            await pause(request)
        answer = await self._handle(http, request)
        for pause in self.pauses:
            await pause(request)
        return answer

    def _request(self, http: web.Request, body: Any) -> Request:
        device = self._device_of(http)
        user = device[0] if device else ""
        asked = http.query.get("filter", ""), dict(http.query), http.headers
        return Request(http.method, http.path, user, body, *asked)

    def _device_of(self, http: web.Request) -> Device | None:
        return self.tokens.get(http.headers.get("Authorization", "").removeprefix("Bearer "))

    async def _handle(self, http: web.Request, request: Request) -> web.StreamResponse:
        device, body = self._device_of(http), request.body
        self.requests.append(request)
        if (answer := _first(fault(request) for fault in self.faults)) is not None:
            return answer
        parts = request.parts
        if http.path == "/_matrix/client/versions":
            return web.json_response({"versions": self.versions})
        if parts == ["login"]:
            flows = {"flows": [{"type": "m.login.password"}]}
            return self._login(body) if http.method == "POST" else web.json_response(flows)
        if device is None:
            return web.json_response({"errcode": "M_UNKNOWN_TOKEN", "error": "unknown token"}, status=401)
        if (answer := _first(extension(device, request) for extension in self.extensions)) is not None:
            return answer
        if parts == ["sync"]:
            given = json.loads(http.query.get("filter", "{}"))
            # A filter that is stored is a text.
            rooms = given.get("room", {}).get("rooms") if isinstance(given, dict) else None
            return await self._sync(device, http.query.get("since"), http.query.get("full_state") == "true", rooms)
        if parts[0] == "rooms" and parts[2:] == ["messages"]:
            return web.json_response(self._messages(parts[1], request.query))
        return web.json_response(self._answer(device, parts, body))

    def _answer(self, device: Device, parts: list[str], body: Any) -> Json:
        match parts:
            case ["account", "whoami"]:
                return {"user_id": device[0], "device_id": device[1]}
            case ["logout"]:
                self.delete_device(device)
                return {}
            case ["keys", what]:
                return self._answer_about_keys(device, what, body)
            case ["sendToDevice", kind, _]:
                self._send_to_device(device[0], kind, body["messages"])
                return {}
            case ["rooms", room_id, "joined_members"]:
                members = [user for (kind, user), event in self.state[room_id].items() if _is_join(kind, event)]
                return {"joined": {user: {"display_name": None, "avatar_url": None} for user in members}}
            case ["rooms", room_id, "send", kind, transaction]:
                return {"event_id": self._say(device, room_id, kind, transaction, body)}
        raise _unknown()

    def _answer_about_keys(self, device: Device, what: str, body: Any) -> Json:
        match what:
            case "upload":
                return self._upload(device, body)
            case "query":
                answer = {"device_keys": {user: self._keys_of(user) for user in body["device_keys"]}, "failures": {}}
                return answer | _merged(extra(device, list(body["device_keys"])) for extra in self.key_answers)
            case "claim":
                return {"one_time_keys": self._claim(body["one_time_keys"]), "failures": {}}
        raise _unknown()

    def _login(self, body: Json) -> web.StreamResponse:
        user = body["identifier"]["user"].lower()
        if body["password"] != "password":
            return web.json_response({"errcode": "M_FORBIDDEN", "error": "wrong password"}, status=403)
        device = (user, body.get("device_id") or f"SERVER{next(self._numbers)}")
        # As with Synapse, the device's earlier tokens stay good.
        token = f"token-{next(self._numbers)}"
        self.tokens[token] = device
        return web.json_response({"user_id": user, "device_id": device[1], "access_token": token})

    def _upload(self, device: Device, body: Json) -> Json:
        if "device_keys" in body:
            self.device_keys[device] = body["device_keys"]
            self.changed.append((self._advance(), device[0]))
        keys = body.get("one_time_keys", {})
        self.uploaded[device] += [key["key"] for key in keys.values()]
        self.one_time_keys[device] |= keys
        if self.knows_fallback_keys:
            self._upload_fallback_keys(device, body.get("fallback_keys", {}))
        return {"one_time_key_counts": {"signed_curve25519": len(self.one_time_keys[device])}}

    def _upload_fallback_keys(self, device: Device, keys: Json) -> None:
        # As with Synapse, the last one is kept, and counts as unused also where it is the one that was handed out.
        for name, key in keys.items():
            self.fallback_keys[device] = {name: key}
            self.unused_fallback_keys.add(device)

    def _keys_of(self, user: str) -> Json:
        return {device_id: keys for (owner, device_id), keys in self.device_keys.items() if owner == user}

    def _claim(self, wanted: Json) -> Json:
        claimed: Json = {}
        for user, devices in wanted.items():
            for device_id in devices:
                key = self._claim_one((user, device_id))
                if key:
                    claimed.setdefault(user, {})[device_id] = key
        return claimed

    def _claim_one(self, device: Device) -> Json:
        keys = self.one_time_keys[device]
        if keys:
            name = next(iter(keys))
            return {name: keys.pop(name)}
        self.unused_fallback_keys.discard(device)
        return self.fallback_keys.get(device, {})

    def _send_to_device(self, sender: str, kind: str, messages: Json) -> None:
        for user, devices in messages.items():
            for device_id, content in devices.items():
                event = {"type": kind, "sender": sender, "content": content}
                for each in self._keys_of(user) if device_id == "*" else [device_id]:
                    self.to_device[user, each].append((self._advance(), event))

    def _say(self, device: Device, room_id: str, kind: str, transaction: str, content: Json) -> str:
        known = self.transactions.get((*device, transaction))
        if known is not None:
            return known
        event_id = self.transactions[(*device, transaction)] = f"$event{next(self._numbers)}"
        at = int(time.time() * 1000)
        event = {"type": kind, "sender": device[0], "event_id": event_id, "origin_server_ts": at, "content": content}
        self.timeline[room_id].append((self._advance(), event))
        return event_id

    async def _sync(
        self, device: Device, since: str | None, full_state: bool, wanted: list[str] | None
    ) -> web.StreamResponse:
        after, acknowledged = _positions(since)
        if after == acknowledged == self.position and not full_state:
            await asyncio.sleep(_LONG_POLL)
        # A device's messages are gone as soon as it says that it has them.
        waiting = [entry for entry in self.to_device[device] if entry[0] > acknowledged]
        if self.forgets_acknowledged:
            self.to_device[device] = list(waiting)
        page = waiting[: self.page_size]
        reached = self.position if len(page) == len(waiting) else page[-1][0]
        joined = [room for room, state in self.state.items() if _is_join("", state.get(("m.room.member", device[0])))]
        shown = joined if wanted is None else [room for room in joined if room in wanted]
        rooms = {room: self._room(room, after, full_state or since is None, device[0]) for room in shown}
        unused = ["signed_curve25519"] if device in self.unused_fallback_keys else []
        fallback = {"device_unused_fallback_key_types": unused} if self.knows_fallback_keys else {}
        return web.json_response(
            {
                "next_batch": str(self.position) if reached == self.position else f"{self.position}_{reached}",
                "device_one_time_keys_count": {"signed_curve25519": len(self.one_time_keys[device])},
                "device_lists": {"changed": sorted({user for at, user in self.changed if at > after}), "left": []},
                "rooms": {"join": rooms, "invite": {}, "leave": {}},
                "to_device": {"events": [event for _, event in page]},
                **fallback,
                **_merged(extra(device, after) for extra in self.sync_answers),
            },
            dumps=json.dumps,
        )

    def _room(self, room_id: str, after: int, full_state: bool, user: str) -> Json:
        events = self.timeline[room_id]
        # As Synapse's: the window of a room that was joined since then goes back beyond that.
        is_new = any(at > after and _is_own_join(event, user) for at, event in events)
        new = events if is_new else [entry for entry in events if entry[0] > after]
        shown = new[-self.timeline_limit :]
        return {
            "timeline": {
                "events": [event for _, event in shown],
                "limited": is_new or len(shown) < len(new),
                "prev_batch": str(shown[0][0] - 1) if shown else str(after),
            },
            "state": {"events": list(self.state[room_id].values()) if full_state else []},
            "ephemeral": {"events": []},
            "account_data": {"events": []},
        }

    def _messages(self, room_id: str, query: Mapping[str, str]) -> Json:
        start = _positions(query.get("from"))[0]
        end = _positions(query["to"])[0] if "to" in query else None
        wanted = json.loads(query.get("filter", "{}")).get("types")
        events = [entry for entry in self.timeline[room_id] if wanted is None or entry[1]["type"] in wanted]
        if query["dir"] == "f":
            there = [entry for entry in events if start < entry[0] <= (self.position if end is None else end)]
        else:
            there = [entry for entry in reversed(events) if (end or 0) < entry[0] <= start]
        page = there[: int(query.get("limit", 10))]
        answer: Json = {"chunk": [event | {"room_id": room_id} for _, event in page], "start": query["from"]}
        if page:
            answer["end"] = f"t{page[-1][0] - (query['dir'] == 'b')}"
        return answer

    def _set_state(self, room_id: str, kind: str, key: str, content: Json, sender: str) -> Json:
        event = {
            "type": kind,
            "state_key": key,
            "sender": sender,
            "event_id": f"$state{next(self._numbers)}",
            "origin_server_ts": 1,
            "content": content,
        }
        self.state[room_id][kind, key] = event
        return event

    def _advance(self) -> int:
        self.position += 1
        return self.position


def page(status: int) -> web.StreamResponse:
    """What a proxy answers in the homeserver's place."""
    return web.Response(status=status, text="<html>Back soon</html>", content_type="text/html")


#: Statuses of pages that look like the homeserver's own word.
PAGES = [200, 403, 404]


def _unknown() -> web.HTTPNotFound:
    said = {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}
    return web.HTTPNotFound(text=json.dumps(said), content_type="application/json")


def _first(answers: Iterable[web.StreamResponse | None]) -> web.StreamResponse | None:
    return next((answer for answer in answers if answer is not None), None)


def _merged(answers: Iterable[Json]) -> Json:
    return {name: value for answer in answers for name, value in answer.items()}


def _positions(token: str | None) -> tuple[int, int]:
    """Up to where a token has the rooms, and up to where the to-device messages."""
    rooms, _, to_device = (token or "0").removeprefix("t").partition("_")
    return int(rooms), int(to_device or rooms)


def _is_join(kind: str, event: Json | None) -> bool:
    return kind in ("", "m.room.member") and event is not None and event["content"].get("membership") == "join"


def _is_own_join(event: Json, user: str) -> bool:
    was = event.get("unsigned", {}).get("prev_content", {}).get("membership")
    return event.get("state_key") == user and _is_join(event["type"], event) and was != "join"


@asynccontextmanager
async def small_homeserver() -> AsyncIterator[SmallHomeserver]:
    """The server, running."""
    homeserver = SmallHomeserver()
    application = web.Application(client_max_size=50_000_000)
    application.router.add_route("*", "/{path:.*}", homeserver.handle)
    async with TestServer(application) as server:
        homeserver.url = str(server.make_url("")).rstrip("/")
        yield homeserver
