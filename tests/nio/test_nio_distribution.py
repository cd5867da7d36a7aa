"""Whose package `nio` is."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryptostore import ConfigurationError
from cryptostore.nio.distribution import check_nio
from fake_distributions import FakeSite

FILE = "nio/client/async_client.py"
THEIRS = b"# that of matrix-nio\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSite:
    """A folder to install distributions into, before all others."""
    (tmp_path / "nio" / "client").mkdir(parents=True)
    return FakeSite(tmp_path, monkeypatch)


def install(site: FakeSite, name: str, source: bytes | None) -> None:
    """Install a distribution with the package nio, as pip does: over what was there."""
    site.install(name, {}, "0.40.0")
    record = f"{FILE},,\n"
    if source is not None:
        (site.folder / FILE).write_bytes(source)
        digest = base64.urlsafe_b64encode(hashlib.sha256(source).digest()).decode().rstrip("=")
        record = f"{FILE},sha256={digest},{len(source)}\n"
    (site.folder / "nio" / "__init__.py").touch()
    (site.folder / f"{name.replace('-', '_')}-0.40.0.dist-info" / "RECORD").write_text(f"{record}nio/__init__.py,,\n")


def test_the_one_that_is_installed_here_is_matrix_nios() -> None:
    check_nio()


def test_matrix_nio_that_came_last_is_used(site: FakeSite) -> None:
    install(site, "mindroom-nio", b"# a fork's\n")
    install(site, "matrix-nio", THEIRS)
    check_nio()


def test_another_distribution_that_came_last_is_named_with_the_remedy(site: FakeSite) -> None:
    install(site, "matrix-nio", THEIRS)
    install(site, "mindroom-nio", b"# a fork's\n")
    with pytest.raises(ConfigurationError, match=r"installed by mindroom-nio.*pip uninstall mindroom-nio matrix-nio`"):
        check_nio()


def test_a_file_that_is_gone_is_another_distributions(site: FakeSite) -> None:
    install(site, "matrix-nio", THEIRS)
    install(site, "mindroom-nio", b"# a fork's\n")
    (site.folder / FILE).unlink()
    with pytest.raises(ConfigurationError, match="mindroom-nio"):
        check_nio()


def test_a_file_that_was_edited_is_no_error(site: FakeSite) -> None:
    install(site, "matrix-nio", THEIRS)
    (site.folder / FILE).write_bytes(THEIRS + b"# mended\n")
    check_nio()


def test_an_installation_without_hashes_is_no_error(site: FakeSite) -> None:
    install(site, "matrix-nio", None)
    install(site, "mindroom-nio", b"# a fork's\n")
    check_nio()


def test_it_is_said_before_nio_is_imported(site: FakeSite) -> None:
    install(site, "matrix-nio", THEIRS)
    install(site, "mindroom-nio", b"raise RuntimeError('nio was imported')\n")
    (site.folder / "nio" / "__init__.py").write_text("raise RuntimeError('nio was imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    words = [sys.executable, "-c", "import cryptostore.nio"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ConfigurationError: the package nio was installed by mindroom-nio" in done.stderr
