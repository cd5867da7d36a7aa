"""The part that decides when a fallback key is made and offered, without a client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nio import SyncResponse
from nio.crypto import OlmAccount

from cryptostore import FallbackKey, open_backend
from cryptostore.nio.client import fallback_keys
from cryptostore.nio.client.buffer import BufferedStorage
from cryptostore.nio.client.fallback_keys import FallbackKeys
from cryptostore.nio.client.responses import SyncAnswer
from cryptostore.nio.client.statistics import Statistics
from cryptostore_contract.samples import ALICE, KEY

UNUSED = ["signed_curve25519"]
DAY = timedelta(days=1)


@dataclass
class Time:
    """Both clocks, set by the test."""

    monotonic_seconds: float = 1_000.0
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.monotonic_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(fallback_keys, "time", clock)
    monkeypatch.setattr(fallback_keys, "now", lambda: clock.now)
    return clock


@pytest.fixture
def storage(memory_url: str) -> Iterator[BufferedStorage]:
    with open_backend(memory_url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        yield BufferedStorage(store, lambda: None, Statistics())


@pytest.fixture
def keys(storage: BufferedStorage) -> FallbackKeys:
    return FallbackKeys(storage, ALICE)


@pytest.fixture
def account() -> OlmAccount:
    return OlmAccount()


def answer(unused: Any = (), *to_device: dict[str, Any]) -> SyncResponse:
    said = {} if unused is None else {"device_unused_fallback_key_types": list(unused)}
    response = SyncAnswer.from_dict({"next_batch": "s1", "to_device": {"events": list(to_device)}, **said})
    assert isinstance(response, SyncResponse), response
    return response


def upload(keys: FallbackKeys, account: OlmAccount) -> dict[str, Any]:
    content = keys.to_upload(account, lambda _content: "signature")
    account.mark_keys_as_published()
    return content


def test_nothing_is_offered_before_a_homeserver_says_that_it_has_fallback_keys(
    keys: FallbackKeys, account: OlmAccount
) -> None:
    assert not keys.is_due
    for response in (answer(None), SyncResponse.from_dict({"next_batch": "s1"})):
        keys.note_sync(response)
        assert upload(keys, account) == {}
    keys.note_sync(answer())
    assert keys.is_due


def test_the_signature_covers_the_flag(keys: FallbackKeys, account: OlmAccount) -> None:
    signed: list[dict[str, Any]] = []

    def sign(content: dict[str, Any]) -> str:
        signed.append(dict(content))
        return "signature"

    keys.note_sync(answer())
    ((key_id, key),) = keys.to_upload(account, sign)["fallback_keys"].items()
    assert key_id == f"signed_curve25519:{keys.rows[('signed_curve25519',)].key_id}"
    assert signed == [{"key": key["key"], "fallback": True}]
    assert key == signed[0] | {"signatures": {ALICE.user_id: {f"ed25519:{ALICE.device_id}": "signature"}}}


def test_a_key_that_is_refused_is_offered_with_pauses_that_grow_to_an_hour(
    keys: FallbackKeys, account: OlmAccount, clock: Time
) -> None:
    keys.note_sync(answer())
    at, offered = [], []
    for minute in range(260):
        if keys.is_due:
            at.append(minute)
            offered.append(upload(keys, account))
        clock.monotonic_seconds += 60
    assert at == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert offered == [offered[0]] * len(at)
    keys.try_now()
    assert upload(keys, account) == offered[0]
    keys.confirm()
    assert not keys.is_due


def test_an_upload_without_the_key_confirms_nothing(keys: FallbackKeys, account: OlmAccount, clock: Time) -> None:
    keys.note_sync(answer())
    first = upload(keys, account)
    assert upload(keys, account) == {}  # it has to wait
    keys.confirm()
    clock.monotonic_seconds += 60
    assert upload(keys, account) == first


def test_a_homeserver_that_forgets_the_device_during_an_upload_is_offered_the_key_again(
    keys: FallbackKeys, account: OlmAccount
) -> None:
    keys.note_sync(answer())
    first = upload(keys, account)
    keys.offer_again()
    keys.confirm()
    keys.try_now()
    assert upload(keys, account) == first


def test_a_key_that_was_confirmed_before_a_restart_is_not_offered_again(
    storage: BufferedStorage, keys: FallbackKeys, account: OlmAccount
) -> None:
    keys.note_sync(answer())
    first = upload(keys, account)
    storage.write(keys.collect())
    restarted = FallbackKeys(storage, ALICE)
    restarted.note_sync(answer())
    assert upload(restarted, account) == first
    restarted.confirm()
    assert restarted.is_dirty
    storage.write(restarted.collect())
    assert FallbackKeys(storage, ALICE).rows == restarted.rows
    (row,) = storage.select(FallbackKey, [()])[()]
    assert row.confirmed


MESSAGE = {"type": "m.unknown", "sender": "@bob:example.org", "content": {}}


@pytest.mark.parametrize(
    ("answers", "is_replaced"),
    [
        ([answer()], True),
        ([answer(["other"])], True),
        ([answer(UNUSED)], False),
        ([answer((), MESSAGE)], False),
        ([answer((), MESSAGE), answer((), MESSAGE)], False),
        ([answer((), MESSAGE), answer()], True),
        # Once is enough: what waited then was read.
        ([answer(UNUSED), answer((), MESSAGE)], True),
        ([answer(), answer(None)], False),
        ([answer(None), answer((), MESSAGE)], True),
    ],
)
def test_a_key_is_replaced_when_it_was_used_and_the_inbox_was_empty(
    keys: FallbackKeys, account: OlmAccount, clock: Time, answers: list[SyncResponse], is_replaced: bool
) -> None:
    keys.note_sync(answer())
    first = upload(keys, account)
    keys.confirm()
    # Too early: it may still be under way.
    keys.note_sync(answer())
    assert not keys.is_due
    clock.now += DAY
    for response in answers:
        keys.note_sync(response)
    assert keys.is_due is is_replaced
    second = upload(keys, account)
    assert bool(second) is is_replaced
    assert second != first


def test_no_key_is_made_for_a_used_one_while_it_is_not_confirmed(
    keys: FallbackKeys, account: OlmAccount, clock: Time
) -> None:
    keys.note_sync(answer())
    first = upload(keys, account)
    for _ in range(3):
        clock.now += DAY
        clock.monotonic_seconds += 86_400
        keys.note_sync(answer())
        assert upload(keys, account) == first
