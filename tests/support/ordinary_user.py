"""Going on as an ordinary user where the tests are root's, whom permissions do not bind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest import mock

from cryptostore.plugins import loading

#: "nobody", wherever there is one.
_NOBODY: Final = 65_534


@contextmanager
def ordinary_user(*paths: Path) -> Iterator[None]:
    """While the context is open, this process is an ordinary user's, who owns these files and folders.

    What it will open must have been open before: modules are imported from places that only root may read.
    """
    if os.geteuid() != 0:
        yield
        return
    for path in paths:
        os.chown(path, _NOBODY, -1)
    # They are looked for in such places, too, at every opening.
    found = loading._entry_points()
    with mock.patch.object(loading, "_entry_points", return_value=found):
        os.seteuid(_NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
