"""Whose `nio` it is: another distribution installs a package of that name, and the later one overwrites the files."""

from __future__ import annotations

import base64
import hashlib
from importlib import metadata
from pathlib import Path
from typing import Final

from cryptostore.errors import ConfigurationError

_OURS: Final = "matrix-nio"
#: The file that is looked at: the largest, and different in each release.
_FILE: Final = "nio/client/async_client.py"


def check_nio() -> None:
    """Raise ConfigurationError if `nio` is not matrix-nio's, but that of another distribution, which it names.

    Ours override private functions of nio, so that another code base under its name could lose keys. A file that
    differs and that no other distribution claims, one that was edited say, is no error.
    """
    if not _is_as_installed():
        others = sorted(name for name in _claimants() if name != _OURS)
        if others:
            raise ConfigurationError(_told(others))


def _is_as_installed() -> bool:
    try:
        distribution = metadata.distribution(_OURS)
    except metadata.PackageNotFoundError:
        return False
    # Not `files`: newer Pythons leave out those that are gone.
    for line in (distribution.read_text("RECORD") or "").splitlines():
        if line.startswith(f"{_FILE},sha256="):
            return _hash_of(Path(str(distribution.locate_file(_FILE)))) == line.partition("=")[2].split(",")[0]
    # An editable installation lists no files, and a distributor's may have no hashes.
    return True


def _hash_of(file: Path) -> str:
    try:
        digest = hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _claimants() -> set[str]:
    return {name.lower() for name in metadata.packages_distributions().get("nio", ())}


def _told(others: list[str]) -> str:
    names = " and ".join(others)
    return (
        f"the package nio was installed by {names}, over or in place of {_OURS}, which matrix-cryptostore is made for: "
        f"run `pip uninstall {' '.join(others)} {_OURS}` and then `pip install {_OURS}`, or keep {names} in an "
        "environment of its own"
    )
