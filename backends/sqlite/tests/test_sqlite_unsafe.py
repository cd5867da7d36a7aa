"""Files that others use by another name or as another user, and the reasons why a database is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cryptostore import ConfigurationError, open_backend
from cryptostore_sqlite import checks
from cryptostore_sqlite.checks import HAS_SECOND_NAME, IS_MOUNTED_ALONE, IS_ON_UNSUITABLE_FILE_SYSTEM, Seen
from left_alone import refuses
from raw_databases import take_over


def test_a_second_name_is_refused(url: str, path: Path, tmp_path: Path) -> None:
    open_backend(url).close()
    os.link(path, tmp_path / "other.db")
    for name in ("keys.db", "other.db"):
        refuses(f"sqlite:///{tmp_path / name}", tmp_path, "2 names .* keep one name")
    (tmp_path / "other.db").unlink()
    open_backend(url).close()


@contextmanager
def as_root() -> Iterator[bool]:
    """As the user who began the test, and whether that is root."""
    user = os.geteuid()
    os.seteuid(os.getuid())
    try:
        yield os.getuid() == 0
    finally:
        os.seteuid(user)


def give_to_root(path: Path) -> None:
    """Let a file be root's. An ordinary user's test only takes the right to write it away."""
    with as_root() as is_root:
        if is_root:
            os.chown(path, 0, 0)
        else:
            path.chmod(0o400)


def take_back(path: Path) -> None:
    """Do what the error says."""
    user = os.geteuid()
    with as_root() as is_root:
        if is_root:
            os.chown(path, user, -1)
        path.chmod(0o600)


@pytest.mark.parametrize("suffixes", [["-wal"], ["-shm"], ["-wal", "-shm"]], ids=str)
def test_files_beside_it_that_this_user_cannot_write_are_named(
    ordinary_users_folder: Path, suffixes: list[str]
) -> None:
    url = f"sqlite:///{ordinary_users_folder}/keys.db"
    with open_backend(url) as backend:
        take_over(backend.database)
        copies = [(path, path.read_bytes()) for path in ordinary_users_folder.glob("*-*")]
    for path, content in copies:
        path.write_bytes(content)
    named = [ordinary_users_folder / f"keys.db{suffix}" for suffix in suffixes]
    for path in named:
        give_to_root(path)
    owner, names = os.geteuid(), " ".join(map(str, named))
    remedy = f"delete nothing, since the newest keys may be in it: chown {owner} {names};"
    with pytest.raises(ConfigurationError, match=re.escape(remedy)):
        open_backend(url)
    for path in named:
        take_back(path)
    open_backend(url).close()


def test_a_journal_that_another_process_deletes_meanwhile_is_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.db"
    open_backend(f"sqlite:///{path}").close()
    journal = tmp_path / "keys.db-journal"
    journal.touch()
    may_write = checks._may_write

    def deleted_before(asked: Path) -> bool:
        # As by the commit of another process that makes the tables.
        if asked == journal:
            journal.unlink()
        return may_write(asked)

    monkeypatch.setattr(checks, "_may_write", deleted_before)
    checks.refuse_unsafe(path)
    assert not journal.exists()


def test_a_reader_leaves_no_files_where_the_owner_cannot_write_them(ordinary_users_folder: Path) -> None:
    path = ordinary_users_folder / "keys.db"
    url = f"sqlite:///{path}"
    open_backend(url).close()
    path.chmod(0o400)
    refuses(url, ordinary_users_folder, "only read .* while its owner has it open")


@pytest.mark.parametrize(
    ("options", "remedy"), [("", "Permission denied.*choose a folder"), ("?create=never", "correct the path")]
)
def test_a_folder_that_this_user_may_not_enter_is_named(ordinary_users_folder: Path, options: str, remedy: str) -> None:
    ordinary_users_folder.chmod(0o600)
    try:
        with pytest.raises(ConfigurationError, match=rf"{ordinary_users_folder}/keys.db.*{remedy}"):
            open_backend(f"sqlite:///{ordinary_users_folder}/keys.db{options}")
    finally:
        ordinary_users_folder.chmod(0o700)


@pytest.mark.parametrize("create", ["auto", "never"])
def test_a_missing_file_is_an_error_where_none_may_be_created(url: str, path: Path, create: str) -> None:
    refuses(f"{url}?create=never", path.parent, "there is no database .* create=auto")
    path.touch(0o600)
    refuses(f"{url}?create=never", path.parent, "there is no database .* create=auto")
    open_backend(url).close()
    open_backend(f"{url}?create={create}").close()


@pytest.mark.parametrize(
    ("reason", "seen", "applies"),
    [
        (IS_MOUNTED_ALONE, Seen(Path("k")), False),
        (IS_MOUNTED_ALONE, Seen(Path("k"), is_mounted_alone=True), True),
        (HAS_SECOND_NAME, Seen(Path("k"), names=1), False),
        (HAS_SECOND_NAME, Seen(Path("k"), names=2), True),
        (checks.HAS_LOST_ITS_FILE, Seen(Path("k"), log_size=32), False),
        (checks.HAS_LOST_ITS_FILE, Seen(Path("k"), log_size=33), True),
        (checks.HAS_LOST_ITS_FILE, Seen(Path("k"), size=4096, log_size=33), False),
        (IS_ON_UNSUITABLE_FILE_SYSTEM, Seen(Path("k"), file_system="ext4"), False),
        (IS_ON_UNSUITABLE_FILE_SYSTEM, Seen(Path("k"), file_system="smb3"), True),
    ],
)
def test_a_reason_applies_by_what_is_seen(reason: checks.Reason, seen: Seen, applies: bool) -> None:
    assert bool(reason.applies(seen)) is applies
