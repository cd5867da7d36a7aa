"""A database that was put back, and `cryptostore restored`: what the client does with the homeserver then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from backed_up import until
from client_pairs import ALICE, BOB
from cryptostore import (
    Changes,
    ConfigurationError,
    DeviceTrust,
    HomeserverUnavailable,
    OlmSession,
    RestoredAccount,
    open_backend,
    records,
)
from cryptostore.nio import NioStore
from cryptostore.nio.receive_only import is_receive_only
from cryptostore_contract.samples import KEY
from example_records import example
from fallback_devices import new_device, write
from patience import PATIENCE
from restored_devices import PHONE, Talk, put_back, restored, talking
from small_homeserver import PAGES, HangUp, Request, page
from small_identities import is_anchor

BOB_IDS: Final = (BOB.user_id, BOB.device_id)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(url: str) -> str:
    """A database of which there are backups."""
    return url


def test_all_that_is_said_later_is_read_and_nothing_is_used_twice(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            await talk.bob.begin_again_refused()
            restored(url)
            await talk.bob.begin_again()
            await talk.bob.is_whole()
            await talk.both_ways("after")
            assert talk.used_twice() == []

    asyncio.run(scenario())


def test_without_it_keys_are_used_twice_and_messages_are_not_read(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            talk.set_anchor({})
            await talk.bob.begin_again()
            await talk.bob.round()
            await talk.bob.say("with a key that was used")
            await talk.alice.round()
            assert talk.used_twice()
            assert "with a key that was used" not in talk.alice.read

    asyncio.run(scenario())


class Death:
    """Bob's process dies at one of its requests: before the homeserver has it, or after it was done."""

    def __init__(self, talk: Talk, number: int, *, done: bool) -> None:
        self._talk, self._number, self._done = talk, number, done
        self.came: list[Request] = []

    def __call__(self, request: Request) -> web.StreamResponse | None:
        if request.user != BOB.user_id:
            return None
        self.came.append(request)
        if len(self.came) < self._number:
            return None
        # Nothing of a process that is dead is handled any more.
        if len(self.came) == self._number and self._done:
            self._talk.identities.handled(PHONE, request)
        return HangUp()


async def dies(talk: Talk, number: int, *, done: bool) -> bool:
    """Start Bob, and kill him at his request of this number. Returns False if he was whole before."""
    death = Death(talk, number, done=done)
    talk.server.faults.append(death)
    try:
        with suppress(HomeserverUnavailable, aiohttp.ClientError):
            await talk.bob.begin_again()
            await talk.bob.client.sync()
            await until(lambda: not talk.bob.store.restored.rows or len(death.came) >= number)
    finally:
        await talk.bob.killed()
        talk.server.faults.remove(death)
    return len(death.came) >= number


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("step", "done"),
    [(7, False), (9, True), *[pytest.param(1, done, marks=pytest.mark.soak) for done in (False, True)]],
)
def test_killed_at_any_request_the_next_start_goes_on(url: str, step: int, *, done: bool) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            number = 1
            while True:
                restored(url)
                few_one_time_keys(talk)
                if not await dies(talk, number, done=done):
                    break
                await talk.bob.begin_again()
                await talk.bob.is_whole()
                await talk.both_ways(f"after {number}", 1)
                assert talk.used_twice() == []
                assert talk.lost_keys() == []
                number += step
            assert number > 20

    asyncio.run(scenario())


def few_one_time_keys(talk: Talk) -> None:
    """The homeserver has a few, so that a start makes few requests."""
    keys = talk.server.one_time_keys[PHONE]
    for name in list(keys)[3:]:
        del keys[name]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("path", ["/keys/claim", "/keys/upload"])
def test_a_start_ends_where_the_homeserver_is_busy_without_end(url: str, path: str) -> None:
    def busy(request: Request) -> web.StreamResponse | None:
        content = {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 20}
        return web.json_response(content, status=429) if request.is_for(path) else None

    async def scenario() -> None:
        async with put_back(url) as talk:
            restored(url)
            talk.bob.options |= {"homeserver_deadline": 2.0}
            talk.server.faults.append(busy)
            async with asyncio.timeout(PATIENCE / 4):
                with pytest.raises(HomeserverUnavailable, match="no usable answer within 2 s"):
                    await talk.bob.begin_again()
            talk.server.faults.remove(busy)
            await talk.bob.begin_again()
            await talk.bob.is_whole()
            assert talk.lost_keys() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_lost_key_is_handed_out_when_the_first_message_leaves(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            before = [*talk.server.one_time_keys[PHONE].values(), *talk.server.fallback_keys[PHONE].values()]
            restored(url)
            await talk.bob.begin_again()
            after = [*talk.server.one_time_keys[PHONE].values(), *talk.server.fallback_keys[PHONE].values()]
            assert len(after) == 51
            assert not [key for key in after if key in before]
            assert talk.lost_keys() == []
            # A device that begins with one of them, the fallback key last, is read.
            await talk.bob.is_whole()
            for number in range(52):
                device, _ = new_device(talk.server, f"NEW{number}")
                write(talk.server, device, f"from a new device {number}")
            await talk.bob.round()
            assert {f"from a new device {number}" for number in range(52)} <= set(talk.bob.read)

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("path", "method"), [("/keys/upload", "POST"), ("/keys/claim", "POST")])
def test_a_homeserver_that_fails_ends_the_start_and_one_that_refuses_is_told_of(
    url: str, path: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refusal(status: int) -> web.StreamResponse:
        return web.json_response({"errcode": "M_UNKNOWN", "error": "no"}, status=status)

    def fault(
        answer: Callable[[int], web.StreamResponse], status: int
    ) -> Callable[[Request], web.StreamResponse | None]:
        def faulty(request: Request) -> web.StreamResponse | None:
            is_meant = request.user == BOB.user_id and request.method == method and request.is_for(path)
            return answer(status) if is_meant else None

        return faulty

    async def scenario() -> None:
        async with put_back(url) as talk:
            restored(url)
            talk.server.requests.clear()
            for answer, status in [(refusal, 500), *((page, status) for status in PAGES)]:
                talk.server.faults[:] = [fault(answer, status)]
                with pytest.raises(HomeserverUnavailable):
                    await talk.bob.begin_again()
            sent = {each.parts[0] for each in talk.server.asked("", BOB.user_id)}
            assert sent <= {"account", "keys", "user"}
            talk.server.faults[:] = [fault(refusal, 403)]
            await talk.bob.begin_again()
            talk.server.faults.clear()
            await talk.bob.is_whole()
            await talk.both_ways("after", 1)
            assert talk.used_twice() == []
        assert "lost" in caplog.text

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_stock_client_is_refused_until_the_account_is_whole(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            restored(url)
            with pytest.raises(ConfigurationError, match="log in once with ProductionMatrixClient"):
                NioStore(*BOB_IDS, url, KEY)
            await talk.bob.begin_again()
            await talk.bob.is_whole()
            await talk.bob.client.close()
            store = NioStore(*BOB_IDS, url, KEY)
            sessions = [session for of_device in store.load_sessions().values() for session in of_device]
            # What only decrypts is not chosen by a stock client, either.
            assert len(sessions) > 1
            chosen = store.load_sessions().get(talk.alice.client.machine.account.identity_keys["curve25519"])
            assert chosen is not None
            assert not is_receive_only(chosen)
            store.close()

    asyncio.run(scenario())


def test_a_command_that_was_interrupted_is_to_be_run_again(url: str) -> None:
    async def scenario() -> None:
        async with talking(url) as talk:
            await talk.bob.client.close()
            with open_backend(url) as backend, backend.open_store(BOB, pickle_key=KEY) as store:
                store.apply(Changes([example(RestoredAccount, is_disarmed=False)]))
            with pytest.raises(ConfigurationError, match="`cryptostore restored` was interrupted for"):
                await talk.bob.begin_again()
            with pytest.raises(ConfigurationError, match="run it again"):
                NioStore(*BOB_IDS, url, KEY)
            restored(url)
            await talk.bob.begin_again()

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_others_begin_before_the_account_is_whole_is_read_and_encrypts_nothing(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            restored(url)
            await talk.bob.begin_again()
            device, _ = new_device(talk.server, "EARLY")
            write(talk.server, device, "early")
            await talk.bob.is_whole()
            assert "early" in talk.bob.read
            [session] = [
                each
                for each in talk.bob.stored(OlmSession)
                if each.sender_key == device.account.curve25519_key.to_base64()
            ]
            assert session.receive_only

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_devices_that_are_gone_or_blocked_are_not_told_and_all_are_asked_about(url: str) -> None:
    async def scenario() -> None:
        async with put_back(url) as talk:
            restored(url)
            with open_backend(url) as backend, backend.open_store(BOB, pickle_key=KEY) as store:
                [alices] = [each for each in store.scan(records.Device) if each.user_id == ALICE.user_id]
                store.apply(Changes([replace(alices, trust=DeviceTrust.BLACKLISTED)]))
            await talk.bob.begin_again()
            assert talk.bob.client.machine.users_for_key_query >= {ALICE.user_id}
            talk.server.requests.clear()
            await talk.bob.is_whole()
            assert not talk.server.asked("/sendToDevice/", BOB.user_id)

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_one_time_key_whose_id_is_taken_is_a_sign(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(request: Request) -> web.StreamResponse | None:
        said = {
            "errcode": "M_UNKNOWN",
            "error": "One time key signed_curve25519:AAAAAAAAAAQ already exists. Old key: …",
        }
        return web.json_response(said, status=400) if request.is_for("/keys/upload") else None

    async def scenario() -> None:
        async with talking(url) as talk:
            talk.server.take_all_keys(PHONE)
            talk.server.faults.append(refuse)
            await talk.bob.client.sync()
            await talk.bob.client.keys_upload()

    asyncio.run(scenario())
    assert "Was a backup put back" in caplog.text
    assert "`cryptostore restored`" in caplog.text


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_start_does_not_wait_for_ever_to_bring_an_anchor(url: str) -> None:
    def busy(request: Request) -> web.StreamResponse | None:
        if request.method != "PUT" or not is_anchor(request.path):
            return None
        return web.json_response({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 20}, status=429)

    async def scenario() -> None:
        async with talking(url) as talk:
            await talk.bob.client.close()
            anchor = talk.anchor()
            talk.server.faults.append(busy)
            talk.bob.options |= {"homeserver_deadline": 2.0}
            async with asyncio.timeout(PATIENCE / 4):
                await talk.bob.begin_again()
            assert talk.anchor() == anchor
            talk.server.faults.remove(busy)
            await talk.bob.client.sync()
            await talk.bob.client.close()
            assert talk.anchor() != anchor

    asyncio.run(scenario())
