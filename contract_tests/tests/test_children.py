"""What the suite's child processes are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptostore_contract.children import child
from cryptostore_contract.samples import ALICE

_OTHER_COPY = "raise SystemExit('another copy than the one under test')\n"


def test_a_child_tests_the_copy_that_its_parent_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "cryptostore_contract"
    package.mkdir()
    (package / "__init__.py").write_text(_OTHER_COPY)
    monkeypatch.chdir(tmp_path)
    with child("memory://", ALICE, "write", "1") as writer:
        assert writer.finish() == ["opening", "from 0", "1"]


def test_a_child_finds_what_its_parent_has_put_on_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os.write(1, b'found\\n')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    with child("memory://", ALICE, "write", "1") as writer:
        assert "found" in writer.finish()
