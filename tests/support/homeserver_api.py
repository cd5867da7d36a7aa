"""What a test does with the homeserver itself, over plain HTTP: users, rooms, and what the server really holds."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urlencode

import vodozemac
from nio import Api as NioApi
from nio.crypto import OlmAccount

from cryptostore.trust.cross_signing import Seeds
from homeserver import Homeserver

_PASSWORD: Final = "correct horse battery"  # of users that live as long as the test
_SECONDS: Final = 60
_numbers: Final = itertools.count(1)


class Refused(RuntimeError):
    """The homeserver answered with an error."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status


@dataclass(frozen=True)
class User:
    """A user, with an access token of the test's own whose device has no keys."""

    user_id: str
    password: str
    access_token: str


class Api:
    """Requests to one homeserver, as the test."""

    def __init__(self, server: Homeserver) -> None:
        self._server = server
        self._transactions = itertools.count(1)

    def register(self, name: str) -> User:
        """A new user; the name gets a number, so that tests never meet."""
        path = "/_synapse/admin/v1/register"
        nonce = self._ask("GET", path)["nonce"]
        username = f"{name}{next(_numbers)}"
        text = f"{nonce}\0{username}\0{_PASSWORD}\0notadmin"
        mac = hmac.new(self._server.registration_secret.encode(), text.encode(), hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": username, "password": _PASSWORD, "admin": False, "mac": mac}
        answer = self._ask("POST", path, body)
        return User(f"@{username}:{self._server.name}", _PASSWORD, answer["access_token"])

    def login(self, user: User, device_id: str) -> str:
        """An access token for a device of the user."""
        identifier = {"type": "m.id.user", "user": user.user_id}
        body = {
            "type": "m.login.password",
            "identifier": identifier,
            "password": user.password,
            "device_id": device_id,
        }
        return str(self._ask("POST", "/_matrix/client/v3/login", body)["access_token"])

    def encrypted_room(self, creator: User, *others: User, version: str | None = None) -> str:
        """A room with encryption that all of them have joined; of a room version, else of the server's own choice."""
        room_id = self.inviting_room(creator, *others, version=version)
        for other in others:
            self.join(other, room_id)
        return room_id

    def inviting_room(self, creator: User, *others: User, version: str | None = None) -> str:
        """A room with encryption that others are invited to."""
        encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
        body = {
            "preset": "private_chat",
            "invite": [other.user_id for other in others],
            "initial_state": [encryption],
        }
        chosen = {} if version is None else {"room_version": version}
        return str(self._ask("POST", "/_matrix/client/v3/createRoom", body | chosen, creator)["room_id"])

    def invite(self, by: User, room_id: str, user: User) -> None:
        """Invite somebody into a room."""
        self._ask("POST", f"/_matrix/client/v3/rooms/{quote(room_id)}/invite", {"user_id": user.user_id}, by)

    def join(self, user: User, room_id: str, via: str = "") -> None:
        """Join a room, as another device of the user would; `via` another homeserver."""
        query = f"?{urlencode({'server_name': via, 'via': via})}" if via else ""
        self._ask("POST", f"/_matrix/client/v3/join/{quote(room_id)}{query}", {}, user)

    def leave(self, user: User, room_id: str) -> None:
        """Leave a room, as another device of the user would."""
        self._ask("POST", f"/_matrix/client/v3/rooms/{quote(room_id)}/leave", {}, user)

    def kick(self, by: User, room_id: str, user: User) -> None:
        """Remove somebody from a room."""
        self._ask("POST", f"/_matrix/client/v3/rooms/{quote(room_id)}/kick", {"user_id": user.user_id}, by)

    def to_device(self, user: User, device_id: str) -> list[dict[str, Any]]:
        """What waits for a device whose client never ran, at most 100 messages."""
        owner = replace(user, access_token=self.login(user, device_id))
        # For two minutes Synapse gives the same answer to the same question.
        path = f"/_matrix/client/v3/sync?timeout={next(self._transactions)}"
        events: list[dict[str, Any]] = self._ask("GET", path, None, owner)["to_device"]["events"]
        return events

    def is_joined(self, by: User, room_id: str, user: User) -> bool:
        """Whether somebody is in a room."""
        answer = self._ask("GET", f"/_matrix/client/v3/rooms/{quote(room_id)}/joined_members", None, by)
        return user.user_id in answer["joined"]

    def timeline(self, user: User, room_id: str) -> list[dict[str, Any]]:
        """Every event of a room as the server holds it, oldest first."""
        return list(self._pages(user, room_id))

    def _pages(self, user: User, room_id: str) -> Iterator[dict[str, Any]]:
        query = {"dir": "f", "limit": "500"}
        while True:
            path = f"/_matrix/client/v3/rooms/{quote(room_id)}/messages?{urlencode(query)}"
            page = self._ask("GET", path, None, user)
            yield from page["chunk"]
            if "end" not in page:
                return
            query["from"] = page["end"]

    def delete_device(self, user: User, device_id: str) -> None:
        """Remove a device of the user from the server."""
        path = f"/_matrix/client/v3/devices/{quote(device_id)}"
        identifier = {"type": "m.id.user", "user": user.user_id}
        auth = {"type": "m.login.password", "identifier": identifier, "password": user.password}
        try:
            self._ask("DELETE", path, {}, user)
        except Refused as refused:
            if refused.status != 401:
                raise
            session = json.loads(str(refused).partition(": ")[2])["session"]
            self._ask("DELETE", path, {"auth": {**auth, "session": session}}, user)

    def claim_one_time_key(self, by: User, user: User, device_id: str) -> str | None:
        """Take a one-time key of a device, as a stranger would; its id."""
        body = {"one_time_keys": {user.user_id: {device_id: "signed_curve25519"}}}
        answer = self._ask("POST", "/_matrix/client/v3/keys/claim", body, by)
        keys = answer["one_time_keys"].get(user.user_id, {}).get(device_id, {})
        return next(iter(keys), None)

    def upload_keys(self, user: User, device_id: str, one_time_keys: int = 1, seeds: Seeds | None = None) -> None:
        """Give a new device of the user real keys, and one-time keys; the seeds of the user's identity sign it."""
        account = OlmAccount()
        place = {"user_id": user.user_id, "device_id": device_id}
        keys = {f"{name}:{device_id}": key for name, key in account.identity_keys.items()}
        device = {**place, "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"], "keys": keys}
        account.generate_one_time_keys(one_time_keys)
        offered = {
            f"signed_curve25519:{key_id}": _signed({"key": key}, account, user.user_id, device_id)
            for key_id, key in account.one_time_keys["curve25519"].items()
        }
        signed = _signed(device, account, user.user_id, device_id)
        signed = signed if seeds is None else seeds.sign_device(user.user_id, signed)
        body = {"device_keys": signed, "one_time_keys": offered}
        owner = replace(user, access_token=self.login(user, device_id))
        self._ask("POST", "/_matrix/client/v3/keys/upload", body, owner)

    def upload_one_time_keys(self, access_token: str, keys: Mapping[str, Any]) -> None:
        """Upload one-time keys by their ids, with a device's own access token."""
        owner = User("", "", access_token)
        self._ask("POST", "/_matrix/client/v3/keys/upload", {"one_time_keys": keys}, owner)

    def upload_identity(self, access_token: str, keys: Mapping[str, Any]) -> None:
        """Upload cross-signing keys, with a device's own access token."""
        self._ask("POST", "/_matrix/client/v3/keys/device_signing/upload", keys, User("", "", access_token))

    def send_to_device(self, by: User, kind: str, user: User, device_id: str, content: Mapping[str, Any]) -> None:
        """Send a device whatever a stranger likes."""
        path = f"/_matrix/client/v3/sendToDevice/{quote(kind, safe='')}/{next(self._transactions)}"
        self._ask("PUT", path, {"messages": {user.user_id: {device_id: content}}}, by)

    def device_keys(self, by: User, user: User) -> dict[str, Any]:
        """The devices of a user whose keys the server knows."""
        answer = self._ask("POST", "/_matrix/client/v3/keys/query", {"device_keys": {user.user_id: []}}, by)
        devices: dict[str, Any] = answer["device_keys"].get(user.user_id, {})
        return devices

    def keys_of(self, by: User, user: User) -> dict[str, Any]:
        """The whole answer to a question for a user's keys."""
        answer = self._ask("POST", "/_matrix/client/v3/keys/query", {"device_keys": {user.user_id: []}}, by)
        assert isinstance(answer, dict)
        return answer

    def master_key(self, user: User) -> dict[str, str]:
        """The keys in a user's master key object; none if the user has no cross-signing identity."""
        keys: dict[str, str] = self.keys_of(user, user).get("master_keys", {}).get(user.user_id, {}).get("keys", {})
        return keys

    def account_data(self, user: User, kind: str) -> dict[str, Any]:
        """A user's account data of a type; empty if there is none."""
        try:
            answer = self._ask("GET", self._account_data(user, kind), None, user)
        except Refused as refused:
            if refused.status != 404:
                raise
            answer = {}
        assert isinstance(answer, dict)
        return answer

    def put_account_data(self, user: User, kind: str, content: Mapping[str, Any]) -> None:
        """What another client of the user writes."""
        self._ask("PUT", self._account_data(user, kind), content, user)

    @staticmethod
    def _account_data(user: User, kind: str) -> str:
        return f"/_matrix/client/v3/user/{quote(user.user_id)}/account_data/{quote(kind)}"

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, user: User | None = None) -> Any:
        request = urllib.request.Request(self._server.url + path, method=method)
        request.add_header("Content-Type", "application/json")
        if user is not None:
            request.add_header("Authorization", f"Bearer {user.access_token}")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from error


def _signed(content: dict[str, Any], account: OlmAccount, user_id: str, device_id: str) -> dict[str, Any]:
    signature = account.sign(NioApi.to_canonical_json(content))
    return {**content, "signatures": {user_id: {f"ed25519:{device_id}": signature}}}


def encrypted(timeline: Iterable[Mapping[str, Any]], sender: str | None = None) -> list[str]:
    """The ids of the encrypted messages in a timeline, of one sender or of all."""
    return [
        event["event_id"]
        for event in timeline
        if event["type"] == "m.room.encrypted" and sender in (None, event["sender"])
    ]


def indices_used_twice(timeline: Iterable[Mapping[str, Any]]) -> int:
    """How many messages were encrypted with a message index that their Megolm session had used before."""
    used = Counter(
        (
            event["content"]["session_id"],
            vodozemac.MegolmMessage.from_base64(event["content"]["ciphertext"]).message_index(),
        )
        for event in timeline
        if event["type"] == "m.room.encrypted"
    )
    return sum(times - 1 for times in used.values())
