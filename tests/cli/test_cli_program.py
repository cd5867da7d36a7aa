"""The program around the commands: help, version, exit codes, errors, and commands of other distributions."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from command_line import Run, run_process
from cryptostore import errors
from cryptostore.cli import exits
from cryptostore.cli.exits import READER_GONE, ExitCode, exit_code_of
from fake_distributions import FakeSite

GROUP = "cryptostore.commands"


def test_help_names_every_command_and_every_exit_code(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    for command in ("backends", "demo", "import-nio"):
        assert command in ended.out
    for code in ExitCode:
        assert f"{code.value} " in exits.EXPLAINED
    assert "130 interrupted" in " ".join(ended.out.split())


@pytest.mark.parametrize("command", ["backends", "demo", "import-nio"])
def test_every_command_explains_itself(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.code == 0
    assert "--json" in ended.out


def test_version(run: Run) -> None:
    ended = run("--version")
    assert ended.code == 0
    assert ended.out == f"matrix-cryptostore {metadata.version('matrix-cryptostore')}\n"


@pytest.mark.parametrize("words", [["nonsense"], ["backends", "--nonsense"], ["demo", "--kills", "-1"], []])
def test_a_wrong_command_line_is_a_usage_error(run: Run, words: list[str]) -> None:
    ended = run(*words)
    assert ended.code == ExitCode.USAGE
    assert "Traceback" not in ended.err


def test_a_users_mistake_is_one_line_without_a_traceback() -> None:
    ended = run_process("demo", "--store", "nosuchbackend://user:secret@host/database")
    assert ended.code == ExitCode.USAGE
    assert ended.out == ""
    assert ended.err.startswith("error: no backend named 'nosuchbackend' is installed; installed are: ")
    assert ended.err.count("\n") == 1
    assert "secret" not in ended.err


@pytest.mark.parametrize("command", [(), ("demo",), ("backends",), ("import-nio", "keys.db", "sqlite:///keys.db")])
@pytest.mark.parametrize(
    "url", ["postgresql://bot:secret@host/keys", "bot:secret@host", r"postgresql://bot:\'secret@host/keys"]
)
def test_a_url_in_the_wrong_place_is_quoted_without_its_password(run: Run, command: list[str], url: str) -> None:
    ended = run(*command, url)
    assert ended.code == ExitCode.USAGE
    assert ":***" in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize("command", [("stats", "sqlite:///keys.db"), ("backends",)])
def test_connection_parameters_in_the_wrong_place_are_not_quoted(run: Run, command: list[str]) -> None:
    ended = run(*command, "host=db password=s3cr3t-canary")
    assert ended.code == ExitCode.USAGE
    assert "***" in ended.err
    assert "s3cr3t-canary" not in ended.err


@pytest.mark.parametrize("words", [["new-key"], ["--version"], ["backends"], ["backends", "--json"]])
def test_an_output_without_room_is_said_in_one_line(words: list[str]) -> None:
    program = [sys.executable, "-c", "from cryptostore.cli import main; main()", *words]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == ExitCode.REFUSED
    assert (
        ended.stderr == "error: standard output cannot be written (No space left on device); make room, and try again\n"
    )


def test_an_error_without_room_for_its_json_is_told() -> None:
    program = [sys.executable, "-c", "from cryptostore.cli import main; main()", "stats", "nosuch://host", "--json"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    first, second = ended.stderr.splitlines()
    assert first.startswith("error: no backend named 'nosuch' is installed")
    assert second.startswith("error: standard output cannot be written (No space left on device)")
    assert ended.returncode == ExitCode.REFUSED


@pytest.mark.parametrize(
    ("unbuffered", "words", "says"),
    [
        ("", ["--help"], ""),
        ("", ["backends", "--json"], ""),
        ("1", ["backends"], ""),
        ("", ["stats", "nosuch://host", "--json"], "error: no backend named 'nosuch' is installed"),
        ("1", ["stats", "nosuch://host", "--json"], "error: no backend named 'nosuch' is installed"),
    ],
)
def test_who_reads_the_output_may_leave(unbuffered: str, words: list[str], says: str) -> None:
    program = [sys.executable, "-c", "from cryptostore.cli import main; main()", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as left:
        ended = subprocess.run(program, stdout=left, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert ended.returncode == READER_GONE
    assert ended.stderr.startswith(says)
    assert ended.stderr.count("\n") == bool(says)


@pytest.mark.parametrize("words", [["--version"], ["backends"], ["backends", "--json"]])
def test_a_closed_output_is_no_error(words: list[str]) -> None:
    program = [sys.executable, "-c", "from cryptostore.cli import main; main()", *words]
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *program], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_error_that_nobody_reads_has_its_exit_code() -> None:
    program = [sys.executable, "-c", "from cryptostore.cli import main; main()", "stats", "nosuch://host", "--json"]
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *program], stdout=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == ExitCode.USAGE
    assert '"exit_code": 2' in ended.stdout


def test_every_error_has_its_exit_code() -> None:
    expected = {
        errors.BackendNotFound: ExitCode.USAGE,
        errors.ConfigurationError: ExitCode.USAGE,
        errors.WrongPickleKey: ExitCode.USAGE,
        errors.BackendUnavailable: ExitCode.UNAVAILABLE,
        errors.StorageFull: ExitCode.REFUSED,
        errors.FencedOut: ExitCode.REFUSED,
        errors.SchemaTooNew: ExitCode.REFUSED,
        errors.UnreadableRecord: ExitCode.REFUSED,
    }
    assert {kind: exit_code_of(kind("text")) for kind in expected} == expected


def test_listing_and_help_do_without_nio() -> None:
    """The program starts quickly: nio alone takes as long as everything else together."""
    code = (
        "import sys; from cryptostore.cli import main\n"
        "try: main({!r})\nexcept SystemExit: pass\n"
        "sys.exit('nio' in sys.modules)"
    )
    for words in (["--version"], ["--help"], ["backends"]):
        subprocess.run([sys.executable, "-c", code.format(words)], check=True, capture_output=True)


def test_another_distribution_adds_a_command(run: Run, site: FakeSite) -> None:
    source = "def greet(name: str) -> None:\n    print('hello', name)\n"
    site.install("greeting", {GROUP: {"greet": "greeting_command:greet"}}, greeting_command=source)
    assert "greet" in run("--help").out
    ended = run("greet", "world")
    assert (ended.code, ended.out) == (0, "hello world\n")


def test_another_distribution_adds_a_group_of_commands(run: Run, site: FakeSite) -> None:
    source = (
        "import typer\napp = typer.Typer()\n@app.callback()\ndef group(): pass\n"
        "@app.command()\ndef inner(): print('inside')\n"
    )
    site.install("grouping", {GROUP: {"outer": "grouping_command:app"}}, grouping_command=source)
    ended = run("outer", "inner")
    assert (ended.code, ended.out) == (0, "inside\n")


@pytest.mark.parametrize(
    "source",
    ["raise RuntimeError('no luck')", "import no_such_module_anywhere", "import sys; sys.exit(7)", "broken = 3"],
)
def test_a_broken_command_is_reported_by_name_and_breaks_no_other(run: Run, site: FakeSite, source: str) -> None:
    site.install("breaking", {GROUP: {"broken": "breaking_command:broken"}}, "4.2", breaking_command=source)
    listed = run("--help")
    assert listed.code == 0
    assert "broken" in listed.out
    assert "backends" in listed.out
    assert run("backends").code == 0
    ended = run("broken")
    assert ended.code == ExitCode.USAGE
    assert ended.err.startswith("error: the command 'broken' of breaking 4.2 cannot be loaded: ")
    assert ended.err.count("\n") == 1


def test_only_the_command_that_is_asked_for_is_imported(run: Run, site: FakeSite) -> None:
    site.install("lazy", {GROUP: {"lazy": "lazy_command:lazy"}}, lazy_command="def lazy(): pass\n")
    run("backends")
    assert not site.imported("lazy_command")
    run("lazy")
    assert site.imported("lazy_command")


def test_our_commands_cannot_be_taken_over(run: Run, site: FakeSite) -> None:
    source = "def backends(): print('mine now')\n"
    site.install("thief", {GROUP: {"backends": "thief_command:backends"}}, thief_command=source)
    assert "mine now" not in run("backends").out
