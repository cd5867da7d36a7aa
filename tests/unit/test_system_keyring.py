"""A pickle key in the system's keyring: with a real backend on a file, and with those that fail."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail
from keyring.errors import InitError, KeyringLocked
from keyrings.alt.file import PlaintextKeyring

from cryptostore import ConfigurationError
from cryptostore.store.pickle_key_sources import pickle_key_from
from cryptostore.store.system_keyring import add_to_keyring, secret_in_keyring

VARIABLE = "CRYPTOSTORE_PICKLE_KEY_KEYRING"
ENTRY = "matrix-cryptostore/@bot:example.org/DEVICE"
SECRET = "a secret"


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[KeyringBackend]:
    """What keeps its entries in a file of this test."""
    before, backend = keyring.get_keyring(), PlaintextKeyring()
    backend.file_path = str(tmp_path / "entries")
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


def answering(monkeypatch: pytest.MonkeyPatch, backend: KeyringBackend, answer: Callable[..., Any]) -> None:
    for method in ("get_password", "set_password"):
        monkeypatch.setattr(backend, method, answer, raising=False)


def raising(error: Exception) -> Callable[..., Any]:
    def answer(*_words: str) -> str:
        raise error

    return answer


def test_an_entry_is_kept_and_found(backend: KeyringBackend) -> None:
    assert add_to_keyring(ENTRY, SECRET, "--keyring") == backend.name
    assert backend.get_password("matrix-cryptostore", "@bot:example.org/DEVICE") == SECRET
    assert pickle_key_from({VARIABLE: ENTRY}) == SECRET


def test_an_entry_is_never_replaced(backend: KeyringBackend) -> None:
    add_to_keyring(ENTRY, SECRET, "--keyring")
    with pytest.raises(ConfigurationError, match=r"has an entry matrix-cryptostore/@bot.*already"):
        add_to_keyring(ENTRY, "another", "--keyring")
    assert secret_in_keyring(ENTRY, VARIABLE, "the pickle key") == SECRET


@pytest.mark.parametrize("entry", ["a secret", "/a secret", "a secret/", "/"])
def test_what_is_no_entry_is_not_quoted(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{VARIABLE} must be SERVICE/NAME") as refused:
        pickle_key_from({VARIABLE: entry})
    assert SECRET not in str(refused.value)


def test_no_such_entry(backend: KeyringBackend) -> None:
    with pytest.raises(ConfigurationError, match=r"has no entry matrix-cryptostore/@bot.*looks for the pickle key"):
        pickle_key_from({VARIABLE: ENTRY})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyringLocked("the collection"), "is locked; unlock it, and try again"),
        (InitError("no bus"), r"failed \(InitError: no bus\)"),
        (ValueError(SECRET), r"failed \(ValueError\)"),
        (UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, "x"), r"failed \(UnicodeDecodeError\)"),
    ],
)
def test_a_keyring_that_fails(
    backend: KeyringBackend, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    answering(monkeypatch, backend, raising(error))
    asks: list[Callable[[], Any]] = [
        lambda: pickle_key_from({VARIABLE: ENTRY}),
        lambda: add_to_keyring(ENTRY, SECRET, VARIABLE),
    ]
    for ask in asks:
        with pytest.raises(ConfigurationError, match=reason) as refused:
            ask()
        assert VARIABLE in str(refused.value)
        assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_keyring_that_keeps_nothing(backend: KeyringBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, backend, lambda *_words: None)
    with pytest.raises(ConfigurationError, match="does not keep what it is given"):
        add_to_keyring(ENTRY, SECRET, "--keyring")


def test_a_keyring_that_waits_for_a_person(backend: KeyringBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    answering(monkeypatch, backend, lambda *_words: answered.wait())
    with pytest.raises(ConfigurationError, match=r"did not answer in 0\.1 seconds; is it waiting to be unlocked"):
        secret_in_keyring(ENTRY, VARIABLE, "the pickle key", deadline=0.1)
    answered.set()


def test_a_system_without_a_keyring(backend: KeyringBackend) -> None:
    keyring.set_keyring(fail.Keyring())
    with pytest.raises(ConfigurationError, match="this system has no keyring"):
        pickle_key_from({VARIABLE: ENTRY})


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigurationError, match="the library keyring is not installed: pip install keyring"):
        pickle_key_from({VARIABLE: ENTRY})
