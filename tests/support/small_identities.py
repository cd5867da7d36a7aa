"""Cross-signing and account data for the small homeserver, as Synapse 1.163 does them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from cryptostore.trust import secret_storage
from cryptostore.trust.cross_signing import Seeds, public_identity
from cryptostore.trust.secret_storage import KeyDescription, Passphrase
from cryptostore.trust.signatures import is_signed
from small_homeserver import Device, Json, Request, SmallHomeserver

KEYS = ("master_key", "self_signing_key", "user_signing_key")
PASSWORD = "password"


@dataclass
class Identities:
    """What the homeserver knows of identities, signatures and account data. It is an extension of `server`."""

    server: SmallHomeserver
    #: By user, the three keys as they were uploaded.
    keys: dict[str, Json] = field(default_factory=dict)
    #: By signer's key id, user and device id or bare master key: the first signature of each, which stays for ever.
    signatures: dict[tuple[str, str, str], str] = field(default_factory=dict)
    #: By user and type: the content, and when it was put there.
    account_data: defaultdict[str, dict[str, tuple[int, Json]]] = field(default_factory=lambda: defaultdict(dict))
    #: The same, of what clients keep there to notice a backup that was put back.
    anchors: defaultdict[str, dict[str, tuple[int, Json]]] = field(default_factory=lambda: defaultdict(dict))
    #: What the homeserver offers where it wants more than the access token, and what it says of it.
    flows: list[list[str]] = field(default_factory=lambda: [["m.login.password"]])
    params: Json = field(default_factory=dict)
    #: As homeservers before version 1.11 of the specification do.
    wants_password_at_first: bool = False
    #: Which keys of an upload are stored before the homeserver dies: Synapse stores one after the other.
    keeps: tuple[str, ...] = KEYS
    #: As Synapse does with uploads at the same moment: one is stored, and all are answered with success.
    takes_all_first_ones: bool = False
    #: As conduit and its like: an answer has no groups that are empty.
    leaves_empty_out: bool = False

    def __post_init__(self) -> None:
        self.server.versions.append("v1.11")
        self._used: defaultdict[str, set[str]] = defaultdict(set)
        self.server.extensions.append(self._answer)
        self.server.key_answers.append(self._key_answer)
        self.server.sync_answers.append(self._sync_answer)

    def master_key(self, user: str) -> str:
        """The public master key of a user."""
        identity = public_identity(user, self._key_answer((user, ""), [user]))
        assert identity is not None
        return identity.master_key

    def set_identity(self, user: str, seeds: Seeds) -> None:
        """Another client has uploaded an identity, with whatever it takes."""
        self._keep(user, seeds.upload(user))

    def set_up(self, user: str, secrets: dict[str, bytes], passphrase: str = "") -> bytes:
        """Another client makes secret storage for these secrets; its key."""
        how = Passphrase.new() if passphrase else None
        key = how.derive(passphrase) if how else secret_storage.new_key()
        description = KeyDescription.make(key, how)
        self.put(user, description.event_type, description.content())
        for name, secret in secrets.items():
            self.put(user, name, secret_storage.seal(name, description.key_id, key, secret))
        self.put(user, "m.secret_storage.default_key", {"key": description.key_id})
        return key

    def handled(self, device: Device, request: Request) -> None:
        """Do what a request wants, whatever becomes of the answer."""
        if self._answer(device, request) is None:
            self.server._answer(device, request.parts, request.body)

    def used_keys(self, user: str) -> set[str]:
        """Every public key that was ever uploaded of this user's identities."""
        return self._used[user]

    def put(self, user: str, kind: str, content: Json) -> None:
        """Another client has put account data there."""
        self._data_of(user, kind)[kind] = (self.server._advance(), content)

    def data(self, user: str, kind: str) -> Json:
        """Account data; empty if there is none."""
        return self._data_of(user, kind).get(kind, (0, {}))[1]

    def _data_of(self, user: str, kind: str) -> dict[str, tuple[int, Json]]:
        return (self.anchors if is_anchor(kind) else self.account_data)[user]

    def is_signed(self, device: Device) -> bool:
        """Whether the present identity has signed the device's present keys."""
        answer = self._key_answer(device, [device[0]])
        identity = public_identity(device[0], answer)
        return identity is not None and identity.signs_device(answer["device_keys"][device[0]].get(device[1]))

    def _answer(self, device: Device, request: Request) -> web.StreamResponse | None:
        match request.method, request.parts:
            case "POST", ["keys", "device_signing", "upload"]:
                return self._upload(device[0], request.body)
            case "POST", ["keys", "signatures", "upload"]:
                failures = self._sign(device[0], request.body)
                return web.json_response({"failures": failures})
            case method, ["user", user, "account_data", kind]:
                return self._account_data(method, user, kind, request.body) if user == device[0] else _error(403)
        return None

    def _account_data(self, method: str, user: str, kind: str, body: Any) -> web.StreamResponse:
        if method == "PUT":
            self.put(user, kind, body)
            return web.json_response({})
        there = self._data_of(user, kind).get(kind)
        return web.json_response(there[1]) if there else _error(404, "M_NOT_FOUND")

    def _upload(self, user: str, body: Json) -> web.StreamResponse:
        uploaded = {name: body[name] for name in KEYS if name in body}
        present = self.keys.get(user, {})
        if uploaded and all(present.get(name) == key for name, key in uploaded.items()):
            return web.json_response({})
        if present and self.takes_all_first_ones:
            return web.json_response({})
        wants_password = bool(present) or self.wants_password_at_first
        # An answer of older aiohttp is an empty mapping, and so false.
        if wants_password and (refusal := self._refusal(user, body.get("auth"))) is not None:
            return refusal
        if any(_key_of(key) in self._used[user] for key in uploaded.values()):
            # A public key is stored for ever.
            return _error(500, "M_UNKNOWN")
        self._keep(user, {name: key for name, key in uploaded.items() if name in self.keeps})
        return web.json_response({}) if self.keeps == KEYS else _error(502, "M_UNKNOWN")

    def _refusal(self, user: str, auth: Any) -> web.StreamResponse | None:
        wanted = {"flows": [{"stages": stages} for stages in self.flows], "params": self.params, "session": "session"}
        if auth is None or [auth.get("type")] not in self.flows:
            return web.json_response(wanted, status=401)
        if auth["identifier"]["user"] != user:
            return _error(403, "M_FORBIDDEN")
        if auth["password"] != PASSWORD:
            wrong = {"errcode": "M_FORBIDDEN", "error": "Invalid password"}
            return web.json_response(wanted | wrong, status=401)
        return None

    def _keep(self, user: str, uploaded: Json) -> None:
        self.keys[user] = self.keys.get(user, {}) | uploaded
        self._used[user] |= {_key_of(key) for key in uploaded.values()}
        self.server.changed.append((self.server._advance(), user))

    def _sign(self, user: str, body: Json) -> Json:
        failures: Json = {}
        for owner, objects in body.items():
            for name, signed in objects.items():
                if (problem := self._sign_one(user, owner, name, signed)) is not None:
                    failures.setdefault(owner, {})[name] = problem
        self.server.changed.append((self.server._advance(), user))
        return failures

    def _sign_one(self, user: str, owner: str, name: str, signed: Json) -> Json | None:
        there = self._there(owner, name)
        if there is None:
            return {"errcode": "M_NOT_FOUND", "error": "No such device"}
        key = self.keys.get(user, {}).get("self_signing_key" if owner == user else "user_signing_key", {})
        key_id = f"ed25519:{_key_of(key)}"
        if (key_id, owner, name) in self.signatures:
            # The first one stays, without a word.
            return None
        is_same = _without_signatures(signed) == _without_signatures(there)
        if not is_same or not is_signed(signed, user, _key_of(key)):
            return {"errcode": "M_INVALID_SIGNATURE", "error": "Invalid signature"}
        self.signatures[key_id, owner, name] = signed["signatures"][user][key_id]
        self.server.changed.append((self.server._advance(), owner))
        return None

    def _there(self, owner: str, name: str) -> Json | None:
        master = self.keys.get(owner, {}).get("master_key")
        return master if master and _key_of(master) == name else self.server.device_keys.get((owner, name))

    def _key_answer(self, device: Device, users: list[str]) -> Json:
        devices = {user: self._devices_of(user) for user in users}
        groups: Json = {f"{name}s": {} for name in KEYS}
        for user in users:
            for name, key in self.keys.get(user, {}).items():
                if name != "user_signing_key" or user == device[0]:
                    groups[f"{name}s"][user] = self._with_signatures(device[0], user, _key_of(key), key)
        shown = {name: group for name, group in groups.items() if group or not self.leaves_empty_out}
        return {"device_keys": devices, **shown}

    def _devices_of(self, user: str) -> Json:
        # A user's signatures are shown to everybody on the user's own devices.
        return {
            device_id: self._with_signatures(user, user, device_id, keys)
            for device_id, keys in self.server._keys_of(user).items()
        }

    def _with_signatures(self, signer: str, owner: str, name: str, content: Json) -> Json:
        copied: Json = json.loads(json.dumps(content))
        for (key_id, signed_owner, signed_name), signature in self.signatures.items():
            is_signers = key_id.removeprefix("ed25519:") in self._used[signer]
            if (signed_owner, signed_name) == (owner, name) and is_signers:
                copied.setdefault("signatures", {}).setdefault(signer, {})[key_id] = signature
        return copied

    def _sync_answer(self, device: Device, after: int) -> Json:
        events = [
            {"type": kind, "content": content}
            for kind, (at, content) in (self.account_data[device[0]] | self.anchors[device[0]]).items()
            if at > after
        ]
        return {"account_data": {"events": events}}


def is_anchor(kind: str) -> bool:
    """Whether this is the type of an anchor, or a path with it."""
    return "matrix-cryptostore.anchor." in kind


def asked_for_data(server: SmallHomeserver) -> list[Request]:
    """The requests for account data, but for anchors."""
    return [request for request in server.asked("/account_data/") if not is_anchor(request.path)]


def _key_of(key: Json) -> str:
    return str(next(iter(key.get("keys", {}).values()), ""))


def _without_signatures(content: Json) -> Json:
    return {name: value for name, value in content.items() if name not in ("signatures", "unsigned")}


def _error(status: int, errcode: str = "M_FORBIDDEN") -> web.StreamResponse:
    return web.json_response({"errcode": errcode, "error": "no"}, status=status)
