"""The variables of the environment and of a `.env` file, and what is said of files that others may read."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from cryptostore import ConfigurationError
from cryptostore.plugins.environment import database_url, variables
from cryptostore.store import private_files
from cryptostore.store.pickle_key_sources import read_pickle_key

SECRET = "k3y${x}y!"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRYPTOSTORE_PICKLE_KEY", raising=False)
    monkeypatch.setenv("x", "not a part of it")


def write(text: str, mode: int = 0o600, name: str = ".env", encoding: str = "utf-8") -> Path:
    Path(name).write_text(text, encoding=encoding)
    Path(name).chmod(mode)
    return Path(name)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f"CRYPTOSTORE_PICKLE_KEY={SECRET}", SECRET),
        (f"CRYPTOSTORE_PICKLE_KEY='{SECRET} #'", f"{SECRET} #"),
        (f'export CRYPTOSTORE_PICKLE_KEY="{SECRET}"', SECRET),
        ("CRYPTOSTORE_PICKLE_KEY=$HOME/${HOME:-x}", "$HOME/${HOME:-x}"),
        ("CRYPTOSTORE_PICKLE_KEY", None),
    ],
)
def test_a_value_is_taken_as_it_is_written(line: str, value: str | None) -> None:
    write(f"# ours\n{line}\nOTHER=1\n")
    assert variables().get("CRYPTOSTORE_PICKLE_KEY") == value


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    write("CRYPTOSTORE_PICKLE_KEY=key\n", encoding="utf-8-sig")
    assert variables()["CRYPTOSTORE_PICKLE_KEY"] == "key"


def test_a_byte_order_mark_is_no_part_of_a_key() -> None:
    assert read_pickle_key(write("csk1_key\r\n", name="key", encoding="utf-8-sig")) == "csk1_key"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    write("CRYPTOSTORE_PICKLE_KEY=file\n")
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", "environment")
    assert variables()["CRYPTOSTORE_PICKLE_KEY"] == "environment"


def test_only_the_default_file_may_be_missing() -> None:
    assert variables() == variables(None) == dict(os.environ)
    Path(".env").mkdir()
    assert variables() == dict(os.environ)
    Path("folder").mkdir()
    for name in ("prod.env", "folder"):
        with pytest.raises(ConfigurationError, match=f"there is no file {name}"):
            variables(name)


def test_a_line_of_ours_that_is_not_understood_is_named_and_not_quoted() -> None:
    write(f"A=1\n\n\nCRYPTOSTORE_PICKLE_KEY='{SECRET}\nB=2\n")
    with pytest.raises(ConfigurationError, match=r"line 4 of \.env is not understood") as refused:
        variables()
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("name", ["CRYPTOSTORE_PICKLE_KEY_FILE", "CRYPTOSTORE_AUDIT_LOG", "CRYPTOSTORE_PICKLE_KEY"])
def test_a_value_of_ours_with_a_nul_is_refused(name: str) -> None:
    write(f"A=1\n{name}=a secret\0path\n")
    with pytest.raises(ConfigurationError, match=r"line 2 of \.env is not understood, or holds a NUL") as refused:
        variables()
    assert "a secret" not in str(refused.value)
    write("OTHER=a\0b\n")
    assert variables()["OTHER"] == "a\0b"


def test_a_line_of_others_is_left_to_them() -> None:
    write("OTHER='it\n=\nCRYPTOSTORE_PICKLE_KEY=key\n")
    assert variables()["CRYPTOSTORE_PICKLE_KEY"] == "key"


def test_a_file_that_is_not_text_is_not_quoted() -> None:
    Path(".env").write_bytes(b"CRYPTOSTORE_PICKLE_KEY=a secret \xff\n")
    with pytest.raises(ConfigurationError, match=r"\.env, which holds the settings, is not UTF-8 text") as refused:
        variables()
    assert "a secret" not in "".join(traceback.format_exception(refused.value))


def test_which_database() -> None:
    assert database_url({}) is None
    assert database_url({"USE_POSTGRES_STORE": "no"}) is None
    assert database_url({"USE_POSTGRES_STORE": "yes", "POSTGRES_DB": "x"}) == "postgresql://localhost:5432/x"
    assert database_url({"USE_POSTGRES_STORE": "yes", "CRYPTOSTORE_URL": "memory://"}) == "memory://"
    assert database_url({"USE_POSTGRES_STORE": "yes", "POSTGRES_DB": "x"}, use_postgres=False) is None


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_key_that_others_may_read_is_named(mode: int, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    file = write("key", mode, "pickle.key")
    assert read_pickle_key(file) == "key"
    assert [
        f"the pickle key in pickle.key is open to other users of this machine (mode {mode:04o}); chmod 600" in said
        for said in caplog.messages
    ] == [True] * warned


def test_a_group_that_lets_this_process_in_is_no_stranger(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As Kubernetes does with fsGroup: the file is root's, and the container's user is of its group."""
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    read_pickle_key(write("key", 0o440, "pickle.key"))
    assert caplog.messages == []
    read_pickle_key(write("key", 0o444, "pickle.key"))
    assert len(caplog.messages) == 1


def test_a_pipe_is_read_once_and_is_nobodys_file(caplog: pytest.LogCaptureFixture) -> None:
    reads, writes = os.pipe()
    os.write(writes, b"key\n")
    os.close(writes)
    assert read_pickle_key(f"/dev/fd/{reads}") == "key"
    os.close(reads)
    assert caplog.messages == []


def test_a_key_that_is_gone_after_it_was_read(caplog: pytest.LogCaptureFixture) -> None:
    private_files.warn_if_shared("gone", "the pickle key")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("CRYPTOSTORE_PICKLE_KEY=key", 1),
        ("CRYPTOSTORE_PICKLE_KEY=", 0),
        ("POSTGRES_PASSWORD=secret", 1),
        ("CRYPTOSTORE_URL=postgresql://bot:secret@host/keys", 1),
        ("CRYPTOSTORE_URL=postgresql://host/keys?user=bot&sslpassword=secret", 1),
        ("CRYPTOSTORE_URL=postgresql://bot@host:5432/keys?schema=x", 0),
        ("CRYPTOSTORE_URL=sqlite:////home/@bot:x/keys.db", 0),
        ("MATRIX_USER_ID=@a:b", 0),
    ],
)
def test_an_env_file_with_secrets_that_others_may_read(
    text: str, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    write(text, 0o644)
    variables()
    assert len(caplog.messages) == warned


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o660, False), (0o646, True)])
def test_no_command_is_taken_from_a_file_that_others_may_write(mode: int, refused: bool) -> None:
    write("CRYPTOSTORE_PICKLE_KEY_COMMAND=pass show bot\n", mode)
    if not refused:
        assert variables()["CRYPTOSTORE_PICKLE_KEY_COMMAND"] == "pass show bot"
        return
    with pytest.raises(ConfigurationError, match="names a command to run, and belongs to another user or may be"):
        variables()


def test_no_command_is_taken_from_a_file_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("CRYPTOSTORE_PICKLE_KEY_COMMAND=pass show bot\n")
    if os.geteuid() == 0:
        os.chown(file, 1, -1)
    else:
        # Only root can give a file away.
        monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="names a command to run, and belongs to another user or may be"):
        variables()
