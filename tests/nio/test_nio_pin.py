"""nio's functions that ours override, rewrite or reach into are as they were when they were read."""

from __future__ import annotations

from typing import Any

import pytest
from nio import AsyncClient, Client
from nio.crypto import Olm

import nio_pin
from nio_pin import Hashes, function_of, hashes, installed, is_nios, our_classes, overridden, pinned

RENEW = "read what changed, as CONTRIBUTING.md says, then run `python tests/support/nio_pin.py`"


def last_pin() -> tuple[str, Hashes]:
    """That of the nio that is installed, or of the newest that was read."""
    pins = pinned()
    version = installed() if installed() in pins else list(pins)[-1]
    return version, pins[version]


def changed_functions() -> list[str]:
    """Each with what of ours overrides it."""
    _, before = last_pin()
    ours = overridden()
    return [
        f"{name}, which {ours[name]} overrides" if name in ours else f"{name}, which ours reach into"
        for name, known in hashes().items()
        if name in before and known != before[name]
    ]


def test_nio_is_as_it_was_read() -> None:
    changed = changed_functions()
    assert not changed, f"changed since matrix-nio {last_pin()[0]}: {'; '.join(changed)}. To go on, {RENEW}"


def test_what_ours_touch_is_pinned() -> None:
    _, before = last_pin()
    new, gone = hashes().keys() - before.keys(), before.keys() - hashes().keys()
    assert not new, f"ours override or reach into what was not pinned yet: {sorted(new)}. To go on, {RENEW}"
    assert not gone, f"no longer overridden or reached into: {sorted(gone)}. Run `python tests/support/nio_pin.py`"


def test_every_name_is_one_of_nios() -> None:
    assert [name for name in hashes() if nio_pin.resolved(name) is None] == []


def test_all_that_matters_is_found() -> None:
    found = hashes()
    assert len(found) > 150
    for name in (
        "nio.client.async_client.AsyncClient.send",
        "nio.client.async_client.AsyncClient._send",
        "nio.client.base_client.Client.load_store",
        "nio.crypto.olm_machine.Olm._olm_encrypt",
        "nio.crypto.olm_machine.Olm.share_keys",
        "nio.crypto.memorystores.GroupSessionStore.add",
        "nio.responses.KeysQueryResponse.from_dict",
        "nio.store.database.MatrixStore.save_account",
        "nio.api.Api.keys_query",
    ):
        assert name in found


async def _sync(self: Any) -> None:
    """Another one than nio's."""


@pytest.mark.parametrize(
    ("owner", "name", "whose"),
    [
        (AsyncClient, "sync", "overrides"),
        (Client, "should_upload_keys", "overrides"),
        (Olm, "share_keys", "overrides"),
        (AsyncClient, "joined_members", "reach into"),
    ],
)
def test_a_change_is_named(owner: type, name: str, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = property(_sync) if isinstance(vars(owner)[name], property) else _sync
    monkeypatch.setattr(owner, name, other)
    (change,) = changed_functions()
    assert change.startswith(f"{owner.__module__}.{owner.__qualname__}.{name}, which ")
    assert whose in change


def test_what_nio_has_no_more_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Client, "encrypt")
    assert changed_functions() == ["nio.client.base_client.Client.encrypt, which ours reach into"]


def test_nothing_of_nio_is_replaced_at_run_time() -> None:
    for theirs in {base for ours in our_classes() for base in ours.__mro__ if is_nios(base)}:
        for name, value in vars(theirs).items():
            function = function_of(value)
            module = "nio" if function is None else function.__module__
            assert module.split(".")[0] in ("nio", "builtins", "dataclasses"), f"{theirs.__qualname__}.{name}"
