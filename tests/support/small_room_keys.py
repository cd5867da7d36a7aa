"""Key backup for the small homeserver, as Synapse 1.163 does it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from small_homeserver import Device, Json, Request, SmallHomeserver


@dataclass
class Version:
    """A backup: what its client said of it, and its entries by room and session id."""

    algorithm: str
    auth_data: Json
    entries: defaultdict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    etag: int = 0
    is_deleted: bool = False

    @property
    def count(self) -> int:
        """How many sessions it has."""
        return sum(map(len, self.entries.values()))


@dataclass
class RoomKeys:
    """The backups of users. It is an extension of `server`."""

    server: SmallHomeserver
    versions: defaultdict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    account_data: defaultdict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    #: Every session id that came in a request, with the request's version, in order.
    put: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.extensions.append(self._answer)

    def current(self, user: str) -> Version:
        """The user's present backup."""
        return [version for version in self.versions[user] if not version.is_deleted][-1]

    def session_ids(self, user: str) -> set[str]:
        """What is in the present backup."""
        return {session_id for sessions in self.current(user).entries.values() for session_id in sessions}

    def make_another(self, user: str) -> None:
        """Another client of the user's makes a new backup with the same key."""
        version = self.current(user)
        self.versions[user].append(Version(version.algorithm, version.auth_data))

    def set_account_data(self, user: str, kind: str, content: Json) -> None:
        """Another client has put account data there."""
        self.account_data[user][kind] = content

    def _answer(self, device: Device, request: Request) -> web.StreamResponse | None:
        user = device[0]
        match request.method, request.parts:
            case "GET", ["user", _, "account_data", kind] if kind in self.account_data[user]:
                return web.json_response(self.account_data[user][kind])
            case "GET", ["user", _, "account_data", _]:
                return _error(404, "M_NOT_FOUND")
            case method, ["room_keys", "version", *number]:
                return self._answer_about_version(method, user, number, request.body)
            case method, ["room_keys", "keys", *path]:
                # A session id may hold slashes, which the path has decoded.
                place = [path[0], "/".join(path[1:])] if len(path) > 1 else path
                return self._answer_about_keys(method, user, place, request)
        return None

    def _answer_about_version(self, method: str, user: str, number: list[str], body: Any) -> web.StreamResponse:
        if method == "POST":
            self.versions[user].append(Version(body["algorithm"], body["auth_data"]))
            return web.json_response({"version": str(len(self.versions[user]))})
        found = self._find(user, number[0] if number else None)
        if found is None:
            return _error(404, "M_NOT_FOUND")
        name, version = found
        if method == "DELETE":
            version.is_deleted = True
            return web.json_response({})
        if method == "PUT":
            # As with Synapse, also another public key.
            version.auth_data = body["auth_data"]
            return web.json_response({})
        return web.json_response(
            {
                "version": name,
                "algorithm": version.algorithm,
                "auth_data": version.auth_data,
                "count": version.count,
                "etag": str(version.etag),
            }
        )

    def _answer_about_keys(self, method: str, user: str, place: list[str], request: Request) -> web.StreamResponse:
        if "version" not in request.query:
            return _error(400, "M_MISSING_PARAM")
        found = self._find(user, request.query["version"])
        if found is None:
            return _error(404, "M_NOT_FOUND")
        if method == "PUT":
            return self._put(user, found, request.body["rooms"])
        return _shown(found[1], place)

    def _put(self, user: str, found: tuple[str, Version], rooms: Json) -> web.StreamResponse:
        name, version = found
        current = self._find(user, None)
        if current is None or current[1] is not version:
            return web.json_response(
                {"errcode": "M_WRONG_ROOM_KEYS_VERSION", "current_version": current and current[0]}, status=403
            )
        for room_id, room in rooms.items():
            for session_id, entry in room["sessions"].items():
                self.put.append((session_id, name))
                if _replaces(entry, version.entries[room_id].get(session_id)):
                    version.entries[room_id][session_id] = entry
                    version.etag += 1
        return web.json_response({"etag": str(version.etag), "count": version.count})

    def _find(self, user: str, number: str | None) -> tuple[str, Version] | None:
        there = [
            (str(place), version)
            for place, version in enumerate(self.versions[user], start=1)
            if not version.is_deleted and number in (None, str(place))
        ]
        return there[-1] if there else None


def _replaces(entry: Json, present: Json | None) -> bool:
    return (
        present is None
        or (entry["is_verified"] and not present["is_verified"])
        or entry["first_message_index"] < present["first_message_index"]
        or entry["forwarded_count"] < present["forwarded_count"]
    )


def _shown(version: Version, place: list[str]) -> web.StreamResponse:
    if len(place) == 2:
        entry = version.entries.get(place[0], {}).get(place[1])
        return _error(404, "M_NOT_FOUND") if entry is None else web.json_response(entry)
    if place:
        return web.json_response({"sessions": version.entries.get(place[0], {})})
    rooms = {room_id: {"sessions": sessions} for room_id, sessions in version.entries.items()}
    return web.Response(body=json.dumps({"rooms": rooms}).encode(), content_type="application/json")


def _error(status: int, code: str) -> web.StreamResponse:
    return web.json_response({"errcode": code, "error": code}, status=status)
