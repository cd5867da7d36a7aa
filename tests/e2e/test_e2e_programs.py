"""Unmodified programs from PyPI on `cryptostore run`, each killed and started again, in an encrypted room."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nio.crypto import OlmAccount
from nio.store import SqliteStore

from cryptostore import Account, new_pickle_key, open_backend
from cryptostore.nio import NioStore
from cryptostore_contract.ports import free_port
from homeserver_api import User
from homeserver_bed import Bed
from homeserver_client import Client
from model_server import ModelServer
from programs_install import build_wheels, install
from programs_process import ProgramProcess, nios_stores
from programs_tried import PROGRAMS, Exchange, Place, Program

pytestmark = [pytest.mark.programs, pytest.mark.timeout(1200)]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Our distributions, built from this tree."""
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """A stand-in for a language model's server."""
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture
def new_process(wheels: list[Path], tmp_path: Path) -> Iterator[Callable[..., ProgramProcess]]:
    """Processes of programs."""
    made: list[ProgramProcess] = []

    def new(program: Program, options: Sequence[str], pickle_key: str) -> ProgramProcess:
        commands = install(program, wheels)
        made.append(ProgramProcess(program, commands, tmp_path / "program", options, pickle_key))
        return made[-1]

    yield new
    for process in made:
        process.close()


@pytest.mark.parametrize("client", [(), ("--production",)], ids=["nio", "production"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.distribution)
def test_a_program_is_killed_and_goes_on_with_its_keys(
    program: Program,
    client: Sequence[str],
    bed: Bed,
    model: ModelServer,
    new_process: Callable[..., ProgramProcess],
) -> None:
    url, pickle_key = bed.new_url(), new_pickle_key()
    owner, user = bed.device("alice"), bed.api.register("bot")
    room = bed.api.encrypted_room(owner.user, user, version=program.room_version)
    process = new_process(program, [*client, "--store", url], pickle_key)
    process.set_up(_place(bed, user, room, model))

    process.start()
    alice = bed.start(owner)
    alice.call("sync")
    alice.call("sync_forever")
    _answers(program, process, alice, room, program.first)
    devices = bed.api.device_keys(owner.user, user)
    session = alice.call("outbound", room=room)

    process.kill()
    process.start()
    _answers(program, process, alice, room, program.second)
    assert bed.api.device_keys(owner.user, user) == devices
    # Its key was sent to the first process alone.
    assert alice.call("outbound", room=room) == session

    process.kill()
    if program.sending:
        process.send()
        alice.until(partial(_was_told, alice.config.user_id, "third"))
    [(device_id, device)] = devices.items()
    with open_backend(url) as backend:
        assert list(backend.accounts()) == [Account(user.user_id, device_id)]
    _has_keys(NioStore(user.user_id, device_id, url, pickle_key), device, session)
    assert nios_stores(process.folder) == []


def _place(bed: Bed, user: User, room: str, model: ModelServer) -> Place:
    return Place(
        homeserver=bed.server.url,
        user_id=user.user_id,
        password=user.password,
        device_id=f"BOT{secrets.token_hex(4).upper()}",
        room=room,
        model=model.url,
        port=free_port(),
    )


def _answers(program: Program, process: ProgramProcess, alice: Client, room: str, exchange: Exchange) -> None:
    """Say something to a program, and wait for its answer."""
    alice.call("send", room=room, text=exchange.asked)
    if program.only_writes:
        process.until(lambda: exchange.answer in process.log())
        return
    try:
        alice.until(partial(_was_told, alice.config.user_id, exchange.answer))
    except TimeoutError as error:
        raise AssertionError(process.log()) from error


def _was_told(reader: str, text: str, told: list[dict[str, Any]]) -> bool:
    said = [each["text"] for each in told if each["event"] == "message" and each["sender"] != reader]
    return any(text in each for each in said)


def _has_keys(store: NioStore, device: dict[str, Any], session: str) -> None:
    """Fail unless the database has the device's own keys, and the room key that Alice sent it."""
    try:
        account = store.load_account()
        assert account is not None
        assert account.identity_keys["ed25519"] == device["keys"][f"ed25519:{store.device_id}"]
        assert session in {str(each.id) for each in store.load_inbound_group_sessions()}
    finally:
        store.close()


def test_a_store_of_nios_own_would_be_seen(tmp_path: Path) -> None:
    SqliteStore("@bot:example.org", "BOTDEVICE", str(tmp_path)).save_account(OlmAccount())
    assert len(nios_stores(tmp_path)) == 1
