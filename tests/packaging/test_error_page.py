"""The page about errors has a place for each class, and shows each text that our packages make."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, Final

import pytest

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = (DOCS / "errors.md").read_text()

#: Where all of a text is what somebody else said, as the homeserver or another error.
PASSED_ON: Final = {
    ("AccessTokenRejected", "cryptostore.nio.client.answers"),
    ("BackendUnavailable", "cryptostore.store.sequence"),
    ("BackendUnavailable", "cryptostore_postgres.connecting"),
    ("BackendUnavailable", "cryptostore_postgres.connections"),
    ("ConfigurationError", "cryptostore.nio.trust.backup_versions"),
    ("ConfigurationError", "cryptostore.nio.trust.key_backup"),
    ("ConfigurationError", "cryptostore.nio.trust.own_identity"),
    ("ConfigurationError", "cryptostore.nio.trust.secret_storage"),
    ("ConfigurationError", "cryptostore_postgres.connecting"),
    ("ConfigurationError", "cryptostore_postgres.diagnosis_of_tables"),
    ("ConfigurationError", "cryptostore_sqlite.checks"),
    ("ConfigurationError", "cryptostore_sqlite.diagnosis"),
    ("InvalidRecord", "cryptostore.records.record"),
}


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the Sphinx extension finds in the source."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("error_pages.texts")


def sections() -> dict[str, str]:
    """What the page says of each class, by name; fails for one that it names twice."""
    found = re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_each_class_says_what_it_means_before_its_texts(texts: Any) -> None:
    found = sections()
    assert set(found) == set(texts.error_names())
    for name, section in found.items():
        meaning, _, shown = section.partition("```{error-texts} ")
        assert len(meaning.split()) > 5, name
        assert shown.startswith(f"{name}\n"), name


def test_each_text_that_is_made_is_shown(texts: Any) -> None:
    shown = set(re.findall(r"^```{error-texts} (\w+)(?: (\w+))?$", PAGE, re.MULTILINE))
    made = {(place.error, place.group) for place in texts.places() if place.texts}
    assert made <= shown
    # But for the classes' own sections, none is there for nothing.
    assert {(error, group) for error, group in shown if group} <= made


def test_no_text_is_overlooked(texts: Any) -> None:
    silent = {(place.error, place.module) for place in texts.places() if not place.texts}
    assert silent == PASSED_ON
    # One that is plain, one of a class's own method, one of a function elsewhere, and one that is held for later.
    for error, words in (
        ("ReadOnlyStore", "was not taken over; take it over to write"),
        ("FencedOut", "… was taken over by … at …; an account has one owner"),
        (
            "UnreadableRecord",
            "the key ring of … is missing, and without it nothing that the account stored can be read",
        ),
    ):
        assert any(words in text for text in texts.texts_of(error)), error
    assert any("mounted as a single file" in text for text in texts.texts_of("ConfigurationError", "sqlite"))


def test_what_is_always_the_same_is_not_left_out(texts: Any) -> None:
    found = texts.texts_of("BackendLoadError")
    assert found == [
        "backend … of … cannot be loaded: …: …; install another version of that distribution, or remove it"
    ]
