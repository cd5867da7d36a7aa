"""Where a pickle key is kept, and that no mistake shows it."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from cryptostore import ConfigurationError
from cryptostore.store.pickle_key_sources import pickle_key_from, read_pickle_key


def test_a_variable_or_a_file_or_neither(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" a key \n")
    assert pickle_key_from({}) is None
    assert pickle_key_from({"CRYPTOSTORE_PICKLE_KEY": " another "}) == " another "
    assert pickle_key_from({"CRYPTOSTORE_PICKLE_KEY_FILE": str(file)}) == " a key "
    with pytest.raises(ConfigurationError, match="not both"):
        pickle_key_from({"CRYPTOSTORE_PICKLE_KEY": "a", "CRYPTOSTORE_PICKLE_KEY_FILE": str(file)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "in one line"),
        (b"\n", "in one line"),
        (b"a secret\nand more\n", "in one line"),
        (b"a secret of \xff bytes", "is not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason) as refused:
        read_pickle_key(file)
    assert "a secret" not in "".join(traceback.format_exception(refused.value))
