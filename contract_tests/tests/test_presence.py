"""A run of `cryptostore contract` waits for its processes, however they were started, and lets none in afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryptostore_contract.presence import VARIABLE, attend, awaited

#: Attends, says so, works on for a moment, and leaves a file behind.
_ATTENDANT = """
import pathlib, sys, time
from cryptostore_contract.presence import attend
attend()
print("present", flush=True)
time.sleep(1)
pathlib.Path(sys.argv[1]).touch()
"""


def start(done: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _ATTENDANT, str(done)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_run_is_over_when_its_last_process_has_ended(tmp_path: Path) -> None:
    with awaited(tmp_path):
        attendant = start(tmp_path / "done")
        assert attendant.stdout is not None
        assert attendant.stdout.readline() == "present\n"
        assert not (tmp_path / "done").exists()
    assert (tmp_path / "done").exists()
    assert attendant.communicate() == ("", "")


def test_a_process_that_comes_late_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with awaited(tmp_path):
        named = os.environ[VARIABLE]
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, named)
    late = start(tmp_path / "done")
    said, complaint = late.communicate()
    assert (late.returncode, said) == (1, "")
    assert complaint == "the run that this process belongs to is over\n"


def test_outside_of_a_run_anybody_may_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    attend.cache_clear()
    attend()
