"""`login_or_restore`: once with a password, and everywhere else without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import web

from client_pairs import BOB, CONFIG, abandon, people
from cryptostore import (
    AccessTokenRejected,
    Account,
    Changes,
    ConfigurationError,
    Row,
    Value,
    WrongPickleKey,
    hookimpl,
    open_backend,
)
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.saved_login import ACCESS_TOKEN, SavedLogin, saved_login
from cryptostore.plugins.observers import observers
from cryptostore.store.keys import encode_key
from cryptostore.store.rekeying import rekey
from cryptostore_contract.samples import KEY
from small_homeserver import Request, SmallHomeserver, small_homeserver
from spoiling import put_rows, stored_rows

USER = "@bot:small"


def client_at(
    server: SmallHomeserver, url: str, device_id: str | None = None, key: str = KEY
) -> ProductionMatrixClient:
    return ProductionMatrixClient(server.url, USER, device_id, store=url, pickle_key=key, config=CONFIG)


def logins(server: SmallHomeserver) -> list[Request]:
    """The logins that were tried."""
    return [request for request in server.asked("/login") if request.method == "POST"]


async def started(server: SmallHomeserver, url: str, password: str | None) -> tuple[str, str]:
    """The device id and the identity key of a client that logged in, uploaded its keys, and closed."""
    async with client_at(server, url) as client:
        await client.login_or_restore(password)
        await client.sync()
        if client.should_upload_keys:
            await client.keys_upload()
        return str(client.device_id), client.machine.account.identity_keys["ed25519"]


def test_a_second_host_needs_only_url_and_pickle_key(url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            first = await started(server, url, "password")
            assert await started(server, url, None) == first
            assert len(logins(server)) == 1
            assert server.device_keys[USER, first[0]]["keys"][f"ed25519:{first[0]}"] == first[1]

    asyncio.run(scenario())


def test_a_rejected_token_leads_to_a_login_as_the_same_device(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            first = await started(server, memory_url, "password")
            server.tokens.clear()
            assert await started(server, memory_url, "password") == first
            assert [request.body["device_id"] for request in logins(server)] == [first[0], first[0]]
            server.tokens.clear()
            with pytest.raises(ConfigurationError, match="give a password"):
                await started(server, memory_url, None)

    asyncio.run(scenario())


def test_a_login_after_a_logout_uploads_the_keys_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with people(memory_url) as (server, alice, bob):
            await alice.say("before")
            await bob.round()
            device = (BOB.user_id, BOB.device_id)
            server.delete_device(device)
            with pytest.raises(AccessTokenRejected):
                await bob.client.sync_forever(timeout=50)
            await bob.client.login_or_restore("password")
            assert bob.client.machine.uploaded_key_count is None
            await bob.errands()
            await bob.round()
            assert len(server.asked("/login")) == 1
            assert device in server.device_keys
            assert len(server.one_time_keys[device]) == bob.client.machine.account.max_one_time_keys
            for _ in range(2):
                await alice.round()
            await alice.say("after")
            await bob.round()
            assert bob.read == ["before", "after"]

    asyncio.run(scenario())


def test_keys_that_could_not_be_uploaded_wait_for_no_pause_after_a_new_login(memory_url: str) -> None:
    def refuse(asked: Request) -> web.StreamResponse | None:
        return web.json_response({"errcode": "M_UNKNOWN"}, status=500) if asked.is_for("/keys/upload") else None

    async def scenario() -> None:
        async with people(memory_url) as (server, _alice, bob):
            server.delete_device((BOB.user_id, BOB.device_id))
            await bob.client.login_or_restore("password")
            server.faults.append(refuse)
            await bob.client.keys_upload()
            assert not bob.client.should_upload_keys
            server.faults.clear()
            server.delete_device((BOB.user_id, BOB.device_id))
            await bob.client.login_or_restore("password")
            assert bob.client.should_upload_keys

    asyncio.run(scenario())


def test_a_device_that_was_deleted_uploads_its_keys_again(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            device_id, key = await started(server, memory_url, "password")
            server.delete_device((USER, device_id))
            assert await started(server, memory_url, "password") == (device_id, key)
            assert (USER, device_id) in server.device_keys

    asyncio.run(scenario())


class KilledError(BaseException):
    """Where the process would have ended."""


@pytest.mark.parametrize("with_keys", [False, True])
def test_the_device_survives_a_kill_between_the_answer_to_a_login_and_saving_its_token(
    url: str, monkeypatch: pytest.MonkeyPatch, *, with_keys: bool
) -> None:
    write = BufferedStorage.write

    def killed(storage: BufferedStorage, changes: Changes) -> Changes:
        if any(row.key == ACCESS_TOKEN for row in changes.puts(Value)):
            raise KilledError
        return write(storage, changes)

    async def scenario() -> None:
        async with small_homeserver() as server:
            with open_backend(url):
                before = await started(server, url, "password") if with_keys else None
                server.tokens.clear()
                doomed = client_at(server, url)
                with monkeypatch.context() as patch:
                    patch.setattr(BufferedStorage, "write", killed)
                    with pytest.raises(KilledError):
                        await doomed.login_or_restore("password")
                known = str(doomed.device_id), doomed.machine.account.identity_keys["ed25519"]
                await abandon(doomed)
                assert list(server.tokens.values()) == [(USER, known[0])]
                assert before in (None, known)
                assert await started(server, url, "password") == known
                assert await started(server, url, None) == known
                assert list(server.device_keys) == [(USER, known[0])]

    asyncio.run(scenario())


def test_another_pickle_key_needs_no_new_login(url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            with open_backend(url) as backend:
                first = await started(server, url, "password")
                await asyncio.to_thread(rekey, backend, Account(USER, first[0]), KEY, "another")
                async with client_at(server, url) as stale:
                    with pytest.raises(WrongPickleKey):
                        await stale.login_or_restore()
                async with client_at(server, url, key="another") as client:
                    await client.login_or_restore()
                    assert (client.device_id, client.machine.account.identity_keys["ed25519"]) == first
                assert len(logins(server)) == 1

    asyncio.run(scenario())


def test_another_database_for_a_known_device_is_refused(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            device_id, _ = await started(server, memory_url, "password")
            async with client_at(server, "memory://", device_id) as stranger:
                with pytest.raises(ConfigurationError, match="other keys than the database at memory://"):
                    await stranger.login_or_restore("password")

    asyncio.run(scenario())


def test_a_token_of_another_device_is_refused(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            device_id, _ = await started(server, memory_url, "password")
            ((token, _),) = server.tokens.items()
            server.tokens[token] = (USER, "OTHER")
            with pytest.raises(ConfigurationError, match=f"is that of {USER} OTHER, .* opened for {USER} {device_id}"):
                await started(server, memory_url, None)

    asyncio.run(scenario())


def test_several_devices_of_one_user_must_be_told_apart(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            for device_id in ("ONE", "TWO"):
                async with client_at(server, memory_url, device_id) as client:
                    await client.login_or_restore("password")
            with pytest.raises(ConfigurationError, match="ONE, TWO; say which one is meant"):
                await started(server, memory_url, "password")

    asyncio.run(scenario())


def test_the_access_token_is_sealed(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            device_id, _ = await started(server, memory_url, "password")
            (token,) = server.tokens
            rows = stored_rows(memory_url, Account(USER, device_id), Value)
            assert encode_key(Value, ACCESS_TOKEN) in [row.key for row in rows]
            assert all(token.encode() not in row.value for row in rows)

    asyncio.run(scenario())


def test_a_token_goes_to_no_other_homeserver(memory_url: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server, small_homeserver() as other:
            with open_backend(memory_url):
                first = await started(server, memory_url, "password")
                (token,) = server.tokens
                other.tokens[token] = (USER, first[0])
                with pytest.raises(ConfigurationError, match=rf"was stored for {server.url}.*give a password"):
                    await started(other, memory_url, None)
                assert other.requests == []
                assert await started(server, memory_url, None) == first
                assert len(logins(server)) == 1
                # A password is given to whom the caller names.
                assert await started(other, memory_url, "password") == first

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("other", "is_the_same"),
    [
        ("https://matrix.example.org/", True),
        ("HTTPS://Matrix.example.org:443", True),
        ("http://matrix.example.org", False),
        ("https://matrix.example.org:8448", False),
        ("https://matrix.example.org.evil", False),
        ("https://matrix.example.org@evil", False),
        ("https://matrix.example.org/evil", False),
        ("https://matrix.example.org:evil", False),
        ("", False),
    ],
)
def test_one_homeserver_may_be_spelt_in_several_ways(other: str, *, is_the_same: bool) -> None:
    login = SavedLogin("https://matrix.example.org", "token")
    assert login.token_for(other) == ("token" if is_the_same else "")


@pytest.mark.parametrize("stored", [b"a token", b"\xff", b"[]", b'{"token": "a token"}'])
def test_a_token_that_names_no_homeserver_is_not_used(stored: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert saved_login(Value(*ACCESS_TOKEN, stored)) is None
    assert "does not say which homeserver" in caplog.text


def damage_the_token(url: str, device_id: str) -> None:
    put_rows(url, Account(USER, device_id), Row(encode_key(Value, ACCESS_TOKEN), b"damaged"))


class Witness:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def cryptostore_unreadable_row(self, account: object, kind: str, key: object) -> None:
        self.seen.append(f"{kind} {key} of {account}")


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    observers().add("witness", witness)
    yield witness
    observers().remove("witness")


def test_a_damaged_token_is_reported_and_a_new_login_replaces_it(
    memory_url: str, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            with open_backend(memory_url):
                first = await started(server, memory_url, "password")
                damage_the_token(memory_url, first[0])
                with pytest.raises(ConfigurationError, match="give a password"):
                    await started(server, memory_url, None)
                assert await started(server, memory_url, "password") == first
                assert witness.seen == [f"value {ACCESS_TOKEN} of {Account(USER, first[0])}"] * 2
                assert "an unreadable value" in caplog.text
                assert await started(server, memory_url, None) == first

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["", "DEFAULT_KEY"])
def test_a_pickle_key_that_everybody_knows_is_refused(memory_url: str, key: str) -> None:
    async def scenario() -> None:
        async with small_homeserver() as server:
            with pytest.raises(ConfigurationError, match="pickle key is empty or nio's default"):
                await client_at(server, memory_url, "D", key).open()

    asyncio.run(scenario())
