"""A bot on a small homeserver with cross-signing, for tests of its own identity."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from client_pairs import CONFIG
from cryptostore.nio import IdentityState, ProductionMatrixClient
from cryptostore.trust import secret_storage
from cryptostore.trust.cross_signing import SECRET_NAMES, Seeds
from cryptostore_contract.samples import KEY
from small_homeserver import HangUp, Request, SmallHomeserver, small_homeserver
from small_identities import Identities

USER = "@bot:small"
BACKUP = "m.megolm_backup.v1"
DEFAULT_KEY = "m.secret_storage.default_key"


@asynccontextmanager
async def identities() -> AsyncIterator[tuple[SmallHomeserver, Identities]]:
    """A small homeserver with cross-signing."""
    async with small_homeserver() as server:
        yield server, Identities(server)


def client_at(server: SmallHomeserver, url: str, **options: Any) -> ProductionMatrixClient:
    """A new client of the bot's on a database."""
    return ProductionMatrixClient(server.url, USER, store=url, pickle_key=KEY, config=CONFIG, env_file=None, **options)


def kept_key(client: ProductionMatrixClient) -> bytes:
    """The key of secret storage in the client's store."""
    held = client._trust.own._keys.storage_key
    assert held is not None
    return held.key


def kept_seeds(client: ProductionMatrixClient) -> Seeds | None:
    """The seeds in the client's store."""
    return client._trust.own._keys.seeds


def opened(known: Identities, key: bytes) -> dict[str, bytes]:
    """What is in secret storage under its default key."""
    key_id = secret_storage.default_key_id(known.data(USER, DEFAULT_KEY))
    assert key_id is not None
    found = {
        name: secret_storage.open_secret(name, key_id, key, known.data(USER, name)) for name in (*SECRET_NAMES, BACKUP)
    }
    return {name: secret for name, secret in found.items() if secret is not None}


def assert_whole(known: Identities, client: ProductionMatrixClient) -> None:
    """Fail unless the identity is the client's, all of it is in secret storage, and it has signed the device."""
    assert client.identity_state is IdentityState.SIGNED
    secrets, seeds = opened(known, kept_key(client)), kept_seeds(client)
    assert seeds is not None
    assert secrets.keys() == {*SECRET_NAMES, BACKUP}
    assert Seeds.of(secrets) == seeds
    assert known.master_key(USER) == seeds.public.master
    assert known.is_signed((USER, str(client.device_id)))


def uploads(server: SmallHomeserver) -> list[Request]:
    """The identities that the bot uploaded."""
    return server.asked("/keys/device_signing/upload")


def fail_at(server: SmallHomeserver, known: Identities, number: int, *, done: bool) -> list[Request]:
    """Cut the connection at a request that concerns the identity, before or after it was `done`; those that came."""
    came: list[Request] = []

    def fault(request: Request) -> web.StreamResponse | None:
        if not request.user or request.parts[:1] == ["account"]:
            return None
        came.append(request)
        if len(came) != number:
            return None
        if done:
            device = next(device for device in server.tokens.values() if device[0] == request.user)
            known.handled(device, request)
        return HangUp()

    server.faults.append(fault)
    return came
