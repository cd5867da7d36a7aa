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
from cryptostore.nio.client.additions import Additions
from cryptostore.nio.client.machine import ProductionOlm
from cryptostore.nio.trust.old_verifications import OlmWithoutVerifications
from cryptostore_contract.samples import KEY
from nio_pin import function_of, is_nios, our_classes

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
    assert {ours for ours in our_classes() if issubclass(ours, Client)} == {ProductionMatrixClient}


def test_no_other_class_is_a_machine_of_nios() -> None:
    # What one of them switches off is of no use to the other.
    assert {ours for ours in our_classes() if issubclass(ours, Olm)} == {OlmWithoutVerifications, ProductionOlm}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ProductionMatrixClient, AsyncClient),
        (OlmWithoutVerifications, Olm),
        (ProductionOlm, OlmWithoutVerifications),
    ],
)
def test_one_class_holds_all_that_differs(ours: type, theirs: type) -> None:
    overrides = {name for name in vars(ours) if function_of(inspect.getattr_static(theirs, name, None)) is not None}
    assert len(overrides) > 3
    # Apart from what Python gives every class.
    assert differences(ours, theirs) - dir_of_object() == overrides - dir_of_object()


def dir_of_object() -> set[str]:
    return set(dir(object))


def test_the_classes_beside_nios_override_nothing() -> None:
    others = [cls for cls in ProductionMatrixClient.__mro__[1:-1] if not is_nios(cls)]
    assert others == [Additions]
    functions = {name for name, value in vars(Additions).items() if function_of(value) is not None}
    assert len(functions) > 10
    assert {name for name in functions if hasattr(AsyncClient, name)} - dir_of_object() == set()


def test_no_function_of_nios_is_replaced_on_a_client(memory_url: str) -> None:
    client = ProductionMatrixClient("https://example.org", "@bot:example.org", "BOT", store=memory_url, pickle_key=KEY)
    assert replaced_on(client) == set()


def replaced_on(client: Any) -> set[str]:
    return {name for name in vars(client) if function_of(getattr(AsyncClient, name, None)) is not None}


def test_a_function_that_is_replaced_on_a_client_is_found() -> None:
    assert replaced_on(SimpleNamespace(send=None, rooms={})) == {"send"}


def test_no_part_imports_the_client() -> None:
    parts = [file for file in FOLDER.glob("*.py") if file.stem not in {"client", "__init__"}]
    assert len(parts) > 30
    for part in parts:
        assert "client" not in imported_by(part.read_text()), part.name


def imported_by(source: str) -> set[str]:
    """The modules beside it that it imports."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "").rpartition(".")[2] for node in imports} | {
        alias.name for node in imports if not node.module for alias in node.names
    }


@pytest.mark.parametrize("source", ["from .client import X", "from . import client", "from a.client import X"])
def test_an_import_is_found(source: str) -> None:
    assert "client" in imported_by(source)
