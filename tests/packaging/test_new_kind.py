"""A kind of record that is added in one file is kept by a backend's wheel that was built before."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Final

import pytest

from cryptostore import new_pickle_key

ROOT: Final = Path(__file__).parents[2]

#: The one file.
KIND: Final = '''
from cryptostore import Record, record_kind
from cryptostore.records.fields import Count, Identifier, Text


@record_kind
class Gap(Record):
    """A part of a room's history that is not read yet."""

    kind_number = 200
    kind_name = "gap"
    key_fields = ("room_id", "position")

    room_id: Identifier
    position: Count
    cursor: Text
'''

GAPS: Final = """
import sys
from pathlib import Path

import cryptostore, cryptostore_sqlite
from cryptostore import Account, Changes, Mode, open_backend
from gap import Gap

for package in (cryptostore, cryptostore_sqlite):
    assert Path(package.__file__).is_relative_to(sys.prefix), package

GAPS = [Gap("!room:x", position, f"t{position}") for position in (1, 2, 300)]


def opened(mode):
    return open_backend(sys.argv[1]).open_store(Account("@alice:x", "A"), mode, pickle_key=sys.argv[2])
"""
STORE: Final = "opened(Mode.OWN).apply(Changes(GAPS))"
READ: Final = """
store = opened(Mode.READ)
assert store.get(Gap, [gap.key for gap in GAPS]) == {gap.key: gap for gap in GAPS}
assert store.select(Gap, [("!room:x",), ("!other:x",)]) == {("!room:x",): GAPS, ("!other:x",): []}
assert list(store.scan(Gap)) == GAPS
"""
DELETE: Final = "opened(Mode.OWN).apply(Changes(deletes=[(Gap, GAPS[1].key)]))"
READ_THE_REST: Final = "assert list(opened(Mode.READ).scan(Gap)) == [GAPS[0], GAPS[2]]"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The Python of an environment with the wheels of the core and of the SQLite backend."""
    wheels, home = tmp_path / "wheels", tmp_path / "environment"
    for folder in (ROOT, ROOT / "backends" / "sqlite"):
        run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels], folder)
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels.iterdir()], tmp_path)
    # What the wheels need is here already. The wheels come before it.
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return python


def run(command: list[str | Path], folder: Path) -> None:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_wheel_that_was_built_before_holds_a_new_kind(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "gap.py").write_text(KIND)
    url, pickle_key = f"sqlite:///{tmp_path}/keys.db", new_pickle_key()
    for step in (STORE, READ, DELETE, READ_THE_REST):
        program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{GAPS}\n{step}"
        run([installed, "-c", program, url, pickle_key], tmp_path)
