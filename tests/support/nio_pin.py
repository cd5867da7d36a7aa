"""Hashes of nio's functions that ours override, rewrite or reach into. Run as a program, it pins those of today.

Before that, read what changed: `CONTRIBUTING.md` says how.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from nio import Api, AsyncClient
from nio.crypto import Olm

import cryptostore.nio

PINS: Final = Path(__file__).with_name("nio_pins.json")

#: The hash of a function's source, by the function's full name.
Hashes = dict[str, str]

#: What is called, or imitated, and has to stay as it was read, beside what our code names itself.
REACHED: Final = (
    # Our sending, syncing and sharing stand around these.
    "nio.client.async_client.AsyncClient.create_matrix_response",
    "nio.client.async_client.AsyncClient.get_timeout_retry_wait_time",
    "nio.client.async_client.AsyncClient.joined_members",
    "nio.client.async_client.AsyncClient.run_response_callbacks",
    "nio.client.async_client.AsyncClient.to_device",
    "nio.client.async_client.AsyncClient.whoami",
    "nio.client.async_client.AsyncClient._handle_joined_rooms",
    "nio.client.async_client.AsyncClient._handle_invited_rooms",
    "nio.client.async_client.AsyncClient._handle_presence_events",
    "nio.client.async_client.AsyncClient._handle_global_account_data_events",
    "nio.client.async_client.AsyncClient._handle_expired_verifications",
    "nio.client.base_client.Client._handle_joined_state",
    "nio.client.base_client.Client._handle_context_response",
    "nio.client.base_client.Client._handle_messages_response",
    "nio.client.base_client.Client._decrypt_event_array",
    "nio.client.base_client.Client._invalidate_outbound_sessions",
    "nio.client.base_client.Client.decrypt_event",
    "nio.client.base_client.Client.encrypt",
    "nio.client.base_client.Client.should_query_keys",
    "nio.client.base_client.Client.users_for_key_query",
    "nio.client.base_client.logged_in",
    "nio.client.base_client.logged_in_async",
    "nio.client.base_client.store_loaded",
    # What the machine does between our overrides.
    "nio.crypto.olm_machine.Olm.clear_verifications",
    "nio.crypto.olm_machine.Olm.collect_key_requests",
    "nio.crypto.olm_machine.Olm.continue_key_share",
    "nio.crypto.olm_machine.Olm.create_session",
    "nio.crypto.olm_machine.Olm.decrypt_megolm_event",
    "nio.crypto.olm_machine.Olm.get_missing_sessions",
    "nio.crypto.olm_machine.Olm.group_encrypt",
    "nio.crypto.olm_machine.Olm.handle_response",
    "nio.crypto.olm_machine.Olm.mark_keys_as_published",
    "nio.crypto.olm_machine.Olm.save_account",
    "nio.crypto.olm_machine.Olm.share_group_session_parallel",
    "nio.crypto.olm_machine.Olm.should_share_group_session",
    "nio.crypto.olm_machine.Olm.should_upload_keys",
    "nio.crypto.olm_machine.Olm.update_tracked_users",
    "nio.crypto.olm_machine.Olm._collect_single_key_share",
    "nio.crypto.olm_machine.Olm._handle_key_requests",
    "nio.crypto.olm_machine.Olm._handle_olm_event",
    "nio.crypto.olm_machine.Olm._handle_room_key_event",
    "nio.crypto.olm_machine.Olm._handle_forwarded_room_key_event",
    "nio.crypto.olm_machine.Olm._try_decrypt",
    # What records are made of, and made into.
    "nio.crypto.sessions.OlmAccount",
    "nio.crypto.sessions.Session",
    "nio.crypto.sessions.InboundSession",
    "nio.crypto.sessions.OutboundSession",
    "nio.crypto.sessions.InboundGroupSession",
    "nio.crypto.sessions.OutboundGroupSession",
    "nio.crypto.device.OlmDevice",
    "nio.crypto.key_export.decrypt_and_read",
    # Answers that ours take the place of, and those that ours read.
    "nio.responses.ErrorResponse",
    "nio.responses.KeysClaimResponse",
    "nio.responses.SyncResponse",
    # Ours takes the place of all of it.
    "nio.store.database.MatrixStore",
    # Who is in a room decides who gets its key.
    "nio.rooms.MatrixRoom.add_member",
    "nio.rooms.MatrixRoom.handle_membership",
    "nio.rooms.MatrixRoom.remove_member",
)


def pinned() -> dict[str, Hashes]:
    """The hashes of every version of nio that was read, the newest last."""
    versions: dict[str, Hashes] = json.loads(PINS.read_text())
    return versions


def installed() -> str:
    """The version of nio that is installed."""
    return version("matrix-nio")


def hashes() -> Hashes:
    """Those of the nio that is installed."""
    return {name: hash_of(resolved(name)) for name in sorted({*overridden(), *named_in_our_code(), *REACHED})}


def overridden() -> dict[str, str]:
    """What overrides each of nio's functions: its full name, by that of nio's."""
    found = {}
    for ours in our_classes():
        for name, theirs in _overridden_by(ours):
            found[f"{theirs.__module__}.{theirs.__qualname__}.{name}"] = f"{ours.__module__}.{ours.__name__}.{name}"
    return found


def our_classes() -> list[type]:
    """Our classes that inherit from nio's."""
    return [
        value
        for module in _our_modules()
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and any(map(is_nios, value.__mro__))
    ]


def is_nios(cls: type) -> bool:
    """Whether a class is of nio."""
    return cls.__module__.split(".")[0] == "nio"


def named_in_our_code() -> set[str]:
    """The functions of nio's client, machine and requests that our code names and that are nio's own business."""
    names = {node.attr for tree in _our_trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    own_business = {name for name in names if name.startswith("_") and not name.startswith("__")}
    return {*_defined_in(AsyncClient, own_business), *_defined_in(Olm, own_business), *_requests()}


def _requests() -> Iterator[str]:
    for tree in _our_trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == Api.__name__:
                yield f"{Api.__module__}.{Api.__qualname__}.{node.attr}"


def _defined_in(cls: type, names: set[str]) -> Iterator[str]:
    for base in filter(is_nios, cls.__mro__):
        for name in names & vars(base).keys():
            if function_of(vars(base)[name]) is not None:
                yield f"{base.__module__}.{base.__qualname__}.{name}"


def _overridden_by(ours: type) -> Iterator[tuple[str, type]]:
    for theirs in filter(is_nios, ours.__mro__):
        for name in vars(ours).keys() & vars(theirs).keys():
            function = function_of(vars(theirs)[name])
            # What Python makes for a class depends on Python's version.
            if function is not None and function.__code__.co_filename not in ("<string>", dataclasses.__file__):
                yield name, theirs


def function_of(value: Any) -> Any:
    """The function behind a class's attribute, its decorators taken off; None for what is no function."""
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    value = inspect.unwrap(value) if callable(value) else value
    return value if inspect.isfunction(value) else None


def resolved(name: str) -> Any:
    """What has this full name. A name that nio has no more is None."""
    module, parts = name, list[str]()
    while module not in sys.modules:
        module, _, part = module.rpartition(".")
        parts.insert(0, part)
    found: Any = sys.modules[module]
    for part in parts:
        found = inspect.getattr_static(found, part, None)
    return found


def hash_of(value: Any) -> str:
    """The hash of a function's source, or a class's."""
    return hashlib.sha256(_source(value).encode()).hexdigest()[:16]


def _source(value: Any) -> str:
    if value is None:
        return ""
    return inspect.getsource(value if inspect.isclass(value) else function_of(value))


def _our_modules() -> list[Any]:
    found = pkgutil.walk_packages(cryptostore.nio.__path__, f"{cryptostore.nio.__name__}.")
    return [importlib.import_module(module.name) for module in found]


def _our_trees() -> Iterator[ast.Module]:
    for module in _our_modules():
        yield ast.parse(inspect.getsource(module))


def main() -> None:
    """Pin the nio that is installed, beside the versions that were pinned before."""
    before = pinned() if PINS.exists() else {}
    PINS.write_text(json.dumps({**before, installed(): hashes()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
