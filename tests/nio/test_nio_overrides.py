"""Where ours differ from nio's classes: in one place each, and nowhere else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nio import AsyncClient, Client
from nio.crypto import Olm

import cryptostore.nio.client
from cryptostore.nio import ProductionMatrixClient
from cryptostore.nio.client.base import BaseClient
from cryptostore.nio.client.machine import ProductionOlm
from cryptostore.nio.client.syncing import SyncingClient
from cryptostore.nio.client.to_device import ToDeviceClient
from cryptostore_contract.samples import KEY
from nio_pin import function_of, our_classes

CLIENTS: set[type] = {ProductionMatrixClient, SyncingClient, ToDeviceClient, BaseClient}
FOLDER = Path(cryptostore.nio.client.__file__).parent


def differences(ours: type, theirs: type) -> set[str]:
    """The names of nio's functions that mean another one in our class."""
    return {
        name
        for name in dir(theirs)
        if function_of(inspect.getattr_static(theirs, name)) is not None
        and inspect.getattr_static(ours, name) is not inspect.getattr_static(theirs, name)
    }


def test_no_other_class_is_a_client_of_nios() -> None:
    assert {ours for ours in our_classes() if issubclass(ours, Client)} == CLIENTS


def test_no_other_class_is_a_machine_of_nios() -> None:
    assert [ours for ours in our_classes() if issubclass(ours, Olm)] == [ProductionOlm]


@pytest.mark.parametrize(("ours", "theirs"), [(ProductionMatrixClient, AsyncClient), (ProductionOlm, Olm)])
def test_what_differs_is_written_in_our_classes(ours: type, theirs: type) -> None:
    written = {name for cls in ours.__mro__ if not cls.__module__.startswith("nio") for name in vars(cls)}
    found = differences(ours, theirs)
    assert len(found) > 10
    assert found <= written


def test_no_function_of_nios_is_replaced_on_a_client(memory_url: str) -> None:
    client = ProductionMatrixClient("https://example.org", "@bot:example.org", "BOT", store=memory_url, pickle_key=KEY)
    assert replaced_on(client) == set()


def replaced_on(client: Any) -> set[str]:
    return {name for name in vars(client) if function_of(getattr(AsyncClient, name, None)) is not None}


def test_a_function_that_is_replaced_on_a_client_is_found() -> None:
    assert replaced_on(SimpleNamespace(send=None, rooms={})) == {"send"}


def test_no_part_imports_the_client() -> None:
    clients = {Path(inspect.getfile(cls)).stem for cls in CLIENTS}
    parts = [file for file in FOLDER.glob("*.py") if file.stem not in {*clients, "__init__"}]
    assert len(parts) > 30
    for part in parts:
        assert not imported_by(part.read_text()) & clients, part.name


def imported_by(source: str) -> set[str]:
    """The modules beside it that it imports."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "").rpartition(".")[2] for node in imports} | {
        alias.name for node in imports if not node.module for alias in node.names
    }


@pytest.mark.parametrize("source", ["from .client import X", "from . import client", "from a.client import X"])
def test_an_import_is_found(source: str) -> None:
    assert "client" in imported_by(source)
