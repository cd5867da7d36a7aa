"""What makes a database file unsafe to open, and what to do about it. Looked at before SQLite touches anything."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from cryptostore import ConfigurationError

from . import files
from .mounts import Mount, mount_of, mounts

#: File systems on which processes cannot share memory through a file, or do not see the locks of other machines.
_OF_THE_NETWORK: Final = {"afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
#: Docker Desktop's are "fakeowner", and "virtiofs" with a name behind a dot.
_OF_A_VIRTUAL_MACHINES_HOST: Final = {
    *("9p", "fakeowner", "fuse.grpcfuse", "fuse.vmhgfs-fuse", "prl_fs", "vboxsf", "virtiofs"),
}
_OF_PROGRAMS: Final = {
    f"fuse.{name}" for name in ("ceph-fuse", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs")
}
UNSUITABLE_FILE_SYSTEMS: Final = frozenset(_OF_THE_NETWORK | _OF_A_VIRTUAL_MACHINES_HOST | _OF_PROGRAMS)


class Seen(NamedTuple):
    """What can be seen of a database without opening it. A file that is missing has no size and no names."""

    path: Path
    size: int = 0
    names: int = 0
    is_mounted_alone: bool = False
    file_system: str = ""
    log_size: int = 0
    would_be_littered: bool = False
    is_mounted_read_only: bool = False
    not_writable: tuple[Path, ...] = ()


class Reason(NamedTuple):
    """Why a database is refused."""

    applies: Callable[[Seen], object]
    text: str


IS_MOUNTED_ALONE: Final = Reason(
    lambda seen: seen.is_mounted_alone,
    "{path} is mounted as a single file, so SQLite's files beside it, which hold the newest keys, are lost with the "
    "container; mount the folder that it is in",
)
HAS_SECOND_NAME: Final = Reason(
    lambda seen: seen.names > 1,
    "{path} has {names} names (hard links), and programs that use different ones do not see each other; keep one name "
    "(find -samefile shows them), and copy the file where you wanted a copy",
)
HAS_LOST_ITS_FILE: Final = Reason(
    lambda seen: seen.size == 0 and files.holds_data(seen.log_size),
    "{path} is missing or empty, but {path}-wal beside it holds data of it; put back the file that belongs to it, or "
    "move {path}-wal away and restore a backup. Nothing was changed",
)
BELONGS_TO_ANOTHER_USER: Final = Reason(
    lambda seen: seen.not_writable,
    "this user may write {path}, but not what SQLite keeps beside it; give it to this user, and delete nothing, since "
    "the newest keys may be in it: chown {user} {not_writable}; chmod u+rw {not_writable}",
)
IS_MOUNTED_READ_ONLY: Final = Reason(
    lambda seen: seen.would_be_littered and seen.is_mounted_read_only,
    "{path} is on a file system that is mounted read-only, and SQLite has to keep files beside it; mount it so that it "
    "can be written, or copy it, with {path}-wal if that is there, to a folder that can",
)
WOULD_BE_LITTERED: Final = Reason(
    lambda seen: seen.would_be_littered,
    "this user may only read {path}, and SQLite would leave files beside it that its owner cannot write; read it as "
    "its owner, or while its owner has it open",
)
IS_ON_UNSUITABLE_FILE_SYSTEM: Final = Reason(
    lambda seen: not UNSUITABLE_FILE_SYSTEMS.isdisjoint({seen.file_system, seen.file_system.partition(".")[0]}),
    "{path} is on a file system of the type {file_system}, on which SQLite's write-ahead log can lose data; move it to "
    "a local disk. If nothing outside this machine uses it, and shared memory works there: file_system=any",
)

REASONS: Final = (
    IS_MOUNTED_ALONE,
    HAS_SECOND_NAME,
    HAS_LOST_ITS_FILE,
    BELONGS_TO_ANOTHER_USER,
    IS_MOUNTED_READ_ONLY,
    WOULD_BE_LITTERED,
)


def refuse_unsafe(path: Path, *, any_file_system: bool = False) -> None:
    """Raise ConfigurationError for a database that would lose data, or that cannot be used, if it were opened."""
    for text in reasons_against(look_at(path), any_file_system=any_file_system):
        raise ConfigurationError(text)


def reasons_against(seen: Seen, *, any_file_system: bool) -> Iterator[str]:
    """Each reason for which a database is refused, with the remedy."""
    for reason in REASONS if any_file_system else (*REASONS, IS_ON_UNSUITABLE_FILE_SYSTEM):
        if reason.applies(seen):
            yield _text(reason, seen)


def look_at(path: Path) -> Seen:
    """What there is at `path`, which is absolute and no link."""
    # The -wal first: a database that another program is making has its file before it has a -wal.
    log = files.status_of(files.beside(path, "-wal"))
    status = files.status_of(path)
    is_file = status is not None and stat.S_ISREG(status.st_mode)
    table = mounts()
    folder = mount_of(path.parent, table or [])
    return Seen(
        path,
        size=status.st_size if status and is_file else 0,
        names=status.st_nlink if status and is_file else 0,
        is_mounted_alone=is_file and is_mounted_alone(path, table),
        file_system=folder.type if folder else "",
        log_size=log.st_size if log else 0,
        would_be_littered=is_file and _would_be_littered(path),
        is_mounted_read_only=is_file and _is_mounted_read_only(path),
        not_writable=_not_writable(path),
    )


def is_mounted_alone(path: Path, table: list[Mount] | None) -> bool:
    """Whether this file was mounted without its folder. Without a table of mounts, their devices tell."""
    if table is None:
        return path.stat().st_dev != path.parent.stat().st_dev
    # Not the devices: on an overlay, a file and its folder may differ in them.
    return any(mount.point == path for mount in table)


def _not_writable(path: Path) -> tuple[Path, ...]:
    """SQLite's files beside the database that keep a user from writing who may write the database."""
    if not _may_write(path):
        return ()
    beside = (files.beside(path, suffix) for suffix in ("-wal", "-shm", "-journal"))
    return tuple(filter(_is_refused, beside))


def _is_refused(path: Path) -> bool:
    """Whether there is a file that this user may not write. One that another process deletes meanwhile is none."""
    before = files.identity(path)
    return before is not None and not _may_write(path) and files.identity(path) == before


def _would_be_littered(path: Path) -> bool:
    """Whether SQLite would have to make its files to read a database that this user may not write."""
    is_in_use = all(files.status_of(files.beside(path, suffix)) for suffix in ("-wal", "-shm"))
    return may(os.R_OK, path) and not _may_write(path) and not is_in_use


def _is_mounted_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _may_write(path: Path) -> bool:
    return may(os.R_OK | os.W_OK, path)


def may(access: int, path: Path) -> bool:
    """Whether this process, as the user that it is now, has this access (of `os`) to a file or a folder."""
    return os.access(path, access, effective_ids=os.access in os.supports_effective_ids)


def _text(reason: Reason, seen: Seen) -> str:
    not_writable = shlex.join(map(str, seen.not_writable))
    return reason.text.format(**{**seen._asdict(), "not_writable": not_writable, "user": os.geteuid()})
