"""What is wrong with a URL, a plugin or a database is one line with a remedy, an exit code, and never a password."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from psycopg.sql import SQL, Identifier

from command_line import Ended, Run
from cryptostore import INTERFACE_VERSION
from cryptostore.cli.exits import ExitCode
from cryptostore.nio import importing, unmodified  # noqa: F401  # root alone may be able to import them later
from cryptostore.plugins import load_backend
from fake_distributions import FakeSite
from ordinary_user import ordinary_user
from postgres_database import DATABASE, ROLE, PostgresDatabase
from postgres_server import PASSWORD_ROLE, PostgresServer

SECRET: Final = "s3cr3t-canary"
GROUP: Final = "cryptostore.backends"
MAJOR, MINOR = INTERFACE_VERSION

COMMANDS: Final = {
    "demo": ("demo", "--store"),
    "demo-json": ("demo", "--json", "--store"),
    "contract": ("contract",),
    "contract-json": ("contract", "--json"),
    "rekey": ("rekey", "--pickle-key-env", "HOME", "--new-pickle-key-env", "PATH"),
}

PLUGIN: Final = """
from cryptostore import BackendPlugin, hookimpl
@hookimpl
def cryptostore_backends():
    return [BackendPlugin("fake", INTERFACE, print)]
"""


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return COMMANDS[request.param]


@pytest.fixture
def server(breakable_database: PostgresDatabase) -> PostgresServer:
    assert breakable_database.server is not None
    return breakable_database.server


@pytest.fixture
def roles(server: PostgresServer) -> Iterator[None]:
    """A role that is asked for its password, and one without any rights."""
    with server.connect(DATABASE) as admin:
        name = Identifier(PASSWORD_ROLE)
        admin.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'another'").format(name))
        admin.execute("CREATE ROLE nobody_much LOGIN")
        yield
        admin.execute(SQL("DROP ROLE {}; DROP ROLE nobody_much").format(name))


def refused(ended: Ended, code: ExitCode, remedy: str) -> None:
    """One line of error, which says what to do; the answer is left empty, or is the same as JSON."""
    assert ended.code == code, ended.err
    if ended.out:
        assert ended.document["exit_code"] == code
        assert f"error: {ended.document['message']}" in ended.err.splitlines()
        assert set(ended.document) == {"error", "message", "exit_code"}
    [line] = [line for line in ended.err.splitlines() if not line.startswith("seed ")]
    assert line.startswith("error: ")
    assert remedy in line
    assert SECRET not in ended.err


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (f"nosuch://me:{SECRET}@host/db", "installed are: "),
        (f"/no/scheme/{SECRET}", "begins with the name of its backend, as in"),
        (f"postgresql://me:{SECRET}/db", "looks like postgresql://user:password@host"),
        (f"postgresql://me:x@{SECRET}@host/db", "write them as %2F"),
        (f"postgresql:me:{SECRET}@host/db", "write special characters in a password as %XX"),
        (f"postgresql://me:{SECRET}@host/db?colour=red", "known are: "),
        (f"postgresql://me:{SECRET}@host/db?deadline=soon", "must be a number of seconds"),
    ],
)
def test_a_bad_url(run: Run, url: str, remedy: str) -> None:
    refused(run("demo", "--store", url), ExitCode.USAGE, remedy)
    refused(run("demo", "--json", "--store", url), ExitCode.USAGE, remedy)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("import no_such_driver", "install another version of that distribution, or remove it"),
        (PLUGIN.replace("INTERFACE", f"({MAJOR + 1}, 0)"), "install versions of the two that agree"),
        ("", "install another version of that distribution, or remove it"),
    ],
    ids=["fails on import", "wrong interface", "no plugin"],
)
def test_a_bad_plugin(run: Run, site: FakeSite, source: str, remedy: str) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=source)
    for words in (("demo", "--store"), ("demo", "--json", "--store"), ("import-nio", "nio.db")):
        refused(run(*words, f"fake://me:{SECRET}@host/db"), ExitCode.USAGE, remedy)
    listed = {each["name"]: each for each in json.loads(run("backends", "--json").out)["backends"]}
    assert remedy in listed["fake"]["problem"]
    assert remedy in " ".join(run("backends").out.split())


def test_two_plugins_of_one_name(run: Run, site: FakeSite) -> None:
    for name in ("one-store", "other-store"):
        module = name.replace("-", "_")
        site.install(name, {GROUP: {"fake": module}}, **{module: PLUGIN.replace("INTERFACE", "(1, 0)")})
    for words in (("demo", "--store"), ("demo", "--json", "--store"), ("import-nio", "nio.db")):
        refused(run(*words, f"fake://me:{SECRET}@host/db"), ExitCode.USAGE, "uninstall all but one")
    assert "uninstall all but one" in run("backends").out


@pytest.mark.parametrize(
    ("user", "database", "remedy"),
    [
        (ROLE, "nowhere", "create it with createdb"),
        (PASSWORD_ROLE, DATABASE, "check user and password"),
        ("nobody_known", DATABASE, "create the role, or check the URL"),
    ],
    ids=["missing database", "wrong password", "missing role"],
)
def test_a_database_that_refuses(
    run: Run, command: tuple[str, ...], server: PostgresServer, roles: None, user: str, database: str, remedy: str
) -> None:
    url = f"postgresql://{user}:{SECRET}@127.0.0.1:{server.port}/{database}"
    refused(run(*command, url), ExitCode.USAGE, remedy)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "rekey"])
def test_a_role_without_rights(run: Run, command: str, server: PostgresServer, roles: None) -> None:
    url = f"postgresql://nobody_much@127.0.0.1:{server.port}/{DATABASE}"
    refused(run(*COMMANDS[command], url), ExitCode.USAGE, "CREATE SCHEMA ")


def test_a_command_that_makes_no_tables_says_which_one_does(run: Run, server: PostgresServer, roles: None) -> None:
    url = f"postgresql://nobody_much@127.0.0.1:{server.port}/{DATABASE}"
    refused(run(*COMMANDS["rekey"], url), ExitCode.REFUSED, "run `cryptostore migrate` once")


def test_programs_that_asked_for_json_get_errors_as_json(run: Run) -> None:
    url = f"nosuch://me:{SECRET}@host/db"
    assert run("stats", url).out == ""
    ended = run("stats", url, "--json")
    assert ended.document["error"] == "BackendNotFound"
    refused(ended, ExitCode.USAGE, "installed are: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("stats", "--json", "--nope"), "No such option: --nope"),
        (("import-nio", "--json"), "Missing argument 'SRC'."),
        (("delete", "--json", "--watch", "long", "sqlite:///k"), "Invalid value for '--watch'"),
        (("nosuch", "--json"), "No such command 'nosuch'."),
        (("--json", "stats"), "No such option: --json"),
        (("stats", "--json", "a", f"nosuch://me:{SECRET}@host/db"), "Got unexpected extra argument"),
    ],
)
def test_programs_that_asked_for_json_get_mistakes_in_the_command_line_as_json(
    run: Run, words: tuple[str, ...], told: str
) -> None:
    ended = run(*words)
    assert ended.code == ExitCode.USAGE
    assert ended.document["error"] == "UsageError"
    assert ended.document["message"].startswith(told)
    assert ended.document["exit_code"] == ExitCode.USAGE
    assert SECRET not in ended.out + ended.err


def test_no_json_is_written_for_another_programs_mistake(run: Run) -> None:
    ended = run("run", "--nope", "--json")
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")


def test_a_server_that_is_not_there(run: Run, command: tuple[str, ...]) -> None:
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/db?deadline=0.5"
    refused(run(*command, url), ExitCode.UNAVAILABLE, "check that the server runs, and host and port in the URL")


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the user of this process may not enter, beside a file that nobody may read."""
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", SECRET)
    load_backend("sqlite")
    # Not below tmp_path, which is root's alone.
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder, "locked")
        locked.mkdir(0o000)
        Path(folder, "secret.py").touch(0o000)
        with ordinary_user(Path(folder), locked, locked.with_name("secret.py")):
            yield locked
        locked.chmod(0o700)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("import-nio", "{locked}/nio.db", "sqlite:///k"), "{locked}/nio.db cannot be read: Permission denied"),
        (("import-nio", "n" * 5_000, "sqlite:///k"), "nnn cannot be read: File name too long"),
        (("run", "--store", "sqlite:///k", "{locked}/bot.py"), "{locked}/bot.py cannot be read: Permission denied"),
        (("run", "--store", "sqlite:///k", "{folder}/secret.py"), "secret.py cannot be read: Permission denied"),
        (("stats", "sqlite:///{locked}/keys.db"), "cannot look at the database {locked}/keys.db (Permission denied)"),
    ],
)
def test_a_path_that_this_user_may_not_read(run: Run, locked: Path, words: tuple[str, ...], remedy: str) -> None:
    # The command's own module, too, may be where only root may read.
    assert run(words[0], "--help").code == 0
    ended = run(*(word.format(locked=locked, folder=locked.parent) for word in words))
    refused(ended, ExitCode.USAGE, remedy.format(locked=locked))


def test_a_path_that_is_no_text(run: Run, tmp_path: Path) -> None:
    refused(run("accounts", f"sqlite:///{tmp_path}/\udcff.db"), ExitCode.USAGE, "there is no database")
    assert run("migrate", f"sqlite:///{tmp_path}/\udcff.db").code == 0
    assert (tmp_path / "\udcff.db").exists()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("accounts", "sqlite:///keys.db"), "the working directory was deleted; change into another folder"),
        (("import-nio", "nio.db", "sqlite:////nowhere"), "nio.db cannot be read: No such file or directory"),
        (("run", "--store", "sqlite:////nowhere", "-m", "nothing_of_this_name"), "has no module nothing_of_this_name"),
    ],
)
def test_a_deleted_working_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], remedy: str
) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", SECRET)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    refused(run(*words), ExitCode.USAGE, remedy)
