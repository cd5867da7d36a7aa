"""What the four distributions hold: their own import package, and nothing of their siblings."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
VERSION: Final = "0.1.0"


@dataclass(frozen=True)
class Distribution:
    """One of the four, and where it is built from."""

    name: str
    folder: str
    package: str
    entry_points: Mapping[str, Mapping[str, str]]

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{VERSION}"

    @property
    def sources(self) -> set[str]:
        """What the import package must hold, below the distribution's folder."""
        folder = ROOT / self.folder
        found = (path for path in (folder / self.package).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


DISTRIBUTIONS: Final = [
    Distribution(
        "matrix-cryptostore",
        ".",
        "cryptostore",
        {
            "console_scripts": {"cryptostore": "cryptostore.cli:main"},
            "cryptostore.backends": {"memory": "cryptostore.plugins.memory"},
        },
    ),
    Distribution(
        "matrix-cryptostore-sqlite",
        "backends/sqlite",
        "cryptostore_sqlite",
        {"cryptostore.backends": {"sqlite": "cryptostore_sqlite.plugin"}},
    ),
    Distribution(
        "matrix-cryptostore-postgres",
        "backends/postgres",
        "cryptostore_postgres",
        {
            "cryptostore.backends": {
                "postgres": "cryptostore_postgres.plugin",
                "postgresql": "cryptostore_postgres.plugin",
            },
            "cryptostore.commands": {"postgres-roles": "cryptostore_postgres.roles:postgres_roles"},
        },
    ),
    Distribution(
        "matrix-cryptostore-contract",
        "contract_tests",
        "cryptostore_contract",
        {
            "pytest11": {"cryptostore_contract": "cryptostore_contract.plugin"},
            "cryptostore.commands": {"contract": "cryptostore_contract.command:contract"},
        },
    ),
]
PRODUCTION: Final = DISTRIBUTIONS[:3]

each = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda distribution: distribution.name)


def build(folder: Path, into: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(into)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and a wheel of every distribution."""
    into = tmp_path_factory.mktemp("dist")
    for distribution in DISTRIBUTIONS:
        build(ROOT / distribution.folder, into)
    return into


@pytest.fixture
def wheel(distribution: Distribution, archives: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(archives / f"{distribution.stem}-py3-none-any.whl")


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    [name] = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_string(wheel.read(name).decode())


@each
def test_a_wheel_holds_its_own_package_and_its_metadata(distribution: Distribution, wheel: zipfile.ZipFile) -> None:
    info = f"{distribution.stem}.dist-info"
    required = distribution.sources | {
        f"{info}/METADATA",
        f"{info}/WHEEL",
        f"{info}/RECORD",
        f"{info}/licenses/LICENSE",
    }
    assert set(wheel.namelist()) == required | {f"{info}/entry_points.txt"}
    assert f"{distribution.package}/py.typed" in wheel.namelist()


@each
def test_an_sdist_holds_no_more_than_its_wheel_needs(distribution: Distribution, archives: Path) -> None:
    with tarfile.open(archives / f"{distribution.stem}.tar.gz") as sdist:
        names = {name.removeprefix(f"{distribution.stem}/") for name in sdist.getnames()}
    extras = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
    extras |= {"CHANGELOG.md"} if distribution.folder == "." else set()
    assert distribution.sources <= names <= distribution.sources | extras


@each
def test_the_wheel_of_an_sdist_is_the_wheel_of_the_tree(
    distribution: Distribution, wheel: zipfile.ZipFile, archives: Path, tmp_path: Path
) -> None:
    with tarfile.open(archives / f"{distribution.stem}.tar.gz") as sdist:
        sdist.extractall(tmp_path, filter="data")
    build(tmp_path / distribution.stem, tmp_path / "dist")
    with zipfile.ZipFile(tmp_path / "dist" / f"{distribution.stem}-py3-none-any.whl") as again:
        assert {name: again.read(name) for name in again.namelist()} == {
            name: wheel.read(name) for name in wheel.namelist()
        }


@each
def test_the_metadata_is_complete(distribution: Distribution, wheel: zipfile.ZipFile) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Name"] == distribution.name
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.parametrize("distribution", PRODUCTION, ids=lambda distribution: distribution.name)
def test_what_runs_in_production_needs_no_test_tools(distribution: Distribution, wheel: zipfile.ZipFile) -> None:
    requirements = metadata_of(wheel).get_all("Requires-Dist") or []
    assert not [line for line in requirements if re.match(r"(pytest|hypothesis|matrix-cryptostore-contract)\b", line)]
    for name in wheel.namelist():
        if name.endswith(".py"):
            assert not re.search(
                r"^\s*(import|from) (pytest|hypothesis|cryptostore_contract)\b", wheel.read(name).decode(), re.MULTILINE
            )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS[1:], ids=lambda distribution: distribution.name)
def test_the_others_need_the_core_of_their_own_minor_version(wheel: zipfile.ZipFile) -> None:
    assert "matrix-cryptostore==0.1.*" in (metadata_of(wheel).get_all("Requires-Dist") or [])


@each
def test_entry_points(distribution: Distribution, wheel: zipfile.ZipFile) -> None:
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(wheel.read(f"{distribution.stem}.dist-info/entry_points.txt").decode())
    found = {group: dict(parser[group]) for group in parser.sections()}
    assert found == distribution.entry_points


def test_migrations_are_shipped() -> None:
    for distribution in PRODUCTION[1:]:
        assert [name for name in distribution.sources if name.endswith(".sql")], distribution.name
