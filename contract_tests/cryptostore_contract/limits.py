"""Limits of this process, in the place of a disk that is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited_files(size: int = 512 * 1024) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes while the context is open: a body for `Harness.full_disk`.

    The default is more than a new database's files have, and less than the megabyte that the cases write. The limit
    needs no rights, acts on open files, and is an error of write(2) as a full disk is.
    """
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
