"""One word of JSON means one thing, whichever command says it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import healthy_bots
from command_line import Run
from cryptostore import Account, InboundGroupSession, new_pickle_key
from spoiling import spoil

ALICE: Final = Account("@alice:example.org", "A")
KEY: Final = new_pickle_key()
URL, OTHER = "sqlite:///keys.db", "sqlite:///other.db"
PASS: Final = ("--passphrase-env", "PASS")
NOW: Final = ("--yes", "--watch", "0")

#: In an order in which each finds what it needs.
COMMANDS: Final = [
    ("migrate", URL),
    ("migrate", OTHER),
    ("health", URL),
    ("config", URL),
    ("doctor", URL),
    ("accounts", URL),
    ("stats", URL),
    ("show", URL, "--devices"),
    ("identity", URL),
    ("verify", URL),
    ("backup", "a.backup", URL, *PASS),
    ("export-keys", "a.keys", URL, *PASS),
    ("import-keys", "a.keys", URL, *PASS, "--watch", "0"),
    ("prune", URL, "--older-than", "1", "--room", "!other:x", "--dry-run"),
    ("rekey", URL, "--new-pickle-key-env", "CRYPTOSTORE_PICKLE_KEY"),
    ("copy", URL, OTHER, "--watch", "0", "--dry-run"),
    ("copy", URL, OTHER, "--watch", "0"),
    ("verify", URL),
    ("delete", URL, *NOW),
    ("restore", "a.backup", URL, *PASS),
    ("restored", URL, *NOW),
]


def words_in(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each word of the document and of its accounts, and the type of its value, or of all that is in it."""
    accounts = document.get("accounts")
    for each in (document, *(accounts if isinstance(accounts, list) else ())):
        for word, value in each.items():
            if value is not None:
                yield word, type_of(value)
            if isinstance(value, dict) and len(types := set(map(type_of, value.values()))) == 1:
                yield f"what is in {word}", types.pop()


def type_of(value: object) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def test_a_word_has_one_type(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("PASS", new_pickle_key())
    healthy_bots.save(URL, ALICE, KEY)
    spoil(URL, ALICE, InboundGroupSession)
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for words in COMMANDS:
        ended = run(*words, "--json")
        assert "error" not in ended.document, ended.err
        for word, its_type in words_in(ended.document):
            found[word][its_type].append(words[0])
    assert {word: dict(types) for word, types in found.items() if len(types) > 1} == {}
    assert found["unreadable"].keys() == {"dict"}
    assert set(found["unreadable"]["dict"]) >= {"verify", "show", "identity", "backup", "export-keys", "rekey", "copy"}
    assert found["rows"].keys() == {"number"}
    assert set(found["unreadable_rows"]["list"]) == {"verify", "show", "identity", "backup", "copy"}
