"""NioStore overrides all of nio's store, so that a new nio release cannot slip a method past it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from nio.crypto import DeviceStore, GroupSessionStore, SessionStore
from nio.store import DefaultStore, MatrixStore, SqliteStore

from cryptostore import ConfigurationError
from cryptostore.nio import NioStore
from cryptostore.nio.devices import LazyDeviceStore
from cryptostore.nio.group_sessions import LazyGroupSessionStore
from cryptostore.nio.sessions import LazySessionStore
from nio_places import Ours


def public_methods(cls: type) -> Iterator[tuple[str, Any]]:
    for owner in cls.__mro__[:-1]:
        for name, value in vars(owner).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                yield name, value


@pytest.mark.parametrize("theirs", [MatrixStore, SqliteStore, DefaultStore])
def test_every_public_method_is_overridden_with_the_same_parameters(theirs: type) -> None:
    assert len(dict(public_methods(theirs))) >= 27
    for name, method in public_methods(theirs):
        assert name in vars(NioStore), f"{theirs.__name__}.{name} is inherited"
        mine, base = inspect.signature(vars(NioStore)[name]), inspect.signature(method)
        assert list(mine.parameters) == list(base.parameters), name


def test_what_a_dataclass_adds_is_overridden() -> None:
    generated = {name for name in ("__init__", "__repr__", "__eq__", "__hash__") if name in vars(MatrixStore)}
    assert generated <= set(vars(NioStore))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [(LazySessionStore, SessionStore), (LazyGroupSessionStore, GroupSessionStore), (LazyDeviceStore, DeviceStore)],
)
def test_no_container_inherits_what_needs_nios_dictionaries(mine: type, theirs: type) -> None:
    needing = {name for name, value in vars(theirs).items() if "_entries" in source_of(value)}
    assert "add" in needing
    assert needing <= set(vars(mine))


def source_of(value: Any) -> str:
    function = value.fget if isinstance(value, property) else value
    return inspect.getsource(function) if inspect.isfunction(function) else ""


def test_the_repr_holds_no_secret() -> None:
    url = f"memory://user:canary-password@{uuid4()}"
    store = NioStore("@alice:example.org", "DEVICE", url, "canary-pickle-key", "")
    for text in (repr(store), str(store), f"{store}"):
        assert "@alice:example.org" in text
        assert "canary" not in text
    store.close()


def test_stores_compare_by_identity(in_memory: Ours) -> None:
    one, other = in_memory.open(), in_memory.open()
    assert one == one  # that is the question
    assert one != other
    assert len({one, other}) == 2


@pytest.mark.parametrize("store_path", ["", "/srv/bot/store", "store", "C:\\bot\\store", Path("/srv/bot")])
def test_a_store_path_that_is_no_url_is_refused_with_a_remedy(store_path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///.*import-nio"):
        NioStore("@alice:example.org", "DEVICE", store_path, "key", "")


def test_a_new_store_is_empty(ours: Ours) -> None:
    store = ours.open_new()
    assert store.load_account() is None
    assert list(store.load_sessions()) == []
    assert list(store.load_inbound_group_sessions()) == []
    assert list(store.load_device_keys()) == []
    assert store.load_encrypted_rooms() == set()
    assert store.load_outgoing_key_requests() == {}
    assert store.load_sync_token() is None
