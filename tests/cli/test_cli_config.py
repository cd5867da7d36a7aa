"""`cryptostore config`: what is in force and where it comes from, and that no secret is among it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import cryptostore
from command_line import Run, run_process
from cryptostore.cli.exits import ExitCode
from fake_distributions import FakeSite

KEY = "CRYPTOSTORE_PICKLE_KEY"
CANARY = "k3y-canary"
PLUGIN = """
from cryptostore import BackendPlugin, hookimpl
@hookimpl
def cryptostore_backends():
    return [BackendPlugin("vault", (2, 0), print, shown_options=frozenset({"region"}))]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and an environment that names nothing."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("CRYPTOSTORE_", "POSTGRES_", "USE_POSTGRES", "MATRIX_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(*lines: str) -> None:
    Path(".env").touch(0o600)
    Path(".env").write_text("\n".join(lines))


def settings(document: Any, section: str = "database") -> dict[str, tuple[str, str]]:
    return {each["name"]: (each["value"], each["origin"]) for each in document["settings"][section]}


def test_as_a_user_sees_it(tmp_path: Path) -> None:
    write(
        "USE_POSTGRES_STORE=true",
        f"POSTGRES_PASSWORD={CANARY}",
        "POSTGRES_DB=keys",
        "CRYPTOSTORE_PICKLEKEY=x",
        f"{KEY}_FILE=key",
    )
    Path("key").touch(0o600)
    Path("key").write_text(CANARY)
    ended = run_process(
        "config", env={"PGSSLMODE": "verify-full", "PGHOST": "elsewhere", "PGOPTIONS": f"-c a={CANARY}"}
    )
    assert (ended.code, ended.err) == (ExitCode.CHECK_FAILED, "")
    assert CANARY not in ended.out
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    for line in (
        "url postgresql://:***@localhost:5432/keys (USE_POSTGRES_STORE)",
        "deadline 15 (default)",
        "pool_size 4 (default)",
        "password *** (the URL)",
        "sslmode verify-full (PGSSLMODE in the environment)",
        "options *** (PGOPTIONS in the environment)",
        "target_session_attrs any (default of libpq)",
        "POSTGRES_PASSWORD *** (.env, line 2)",
        f"pickle key the file key, mode 0600 ({KEY}_FILE in .env, line 5)",
        "recovery key none (default)",
        "PGHOST (the environment): hidden by host (the URL)",
        "CRYPTOSTORE_PICKLEKEY (.env, line 4): did you mean CRYPTOSTORE_PICKLE_KEY?",
    ):
        assert line in lines
    assert not list(tmp_path.glob("*.db"))


def test_the_command_line_wins_over_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write("CRYPTOSTORE_URL=sqlite:///file.db", "CRYPTOSTORE_URL=sqlite:///again.db", "POSTGRES_DB=keys")
    monkeypatch.setenv("CRYPTOSTORE_URL", f"postgresql://bot:{CANARY}@db/keys")
    ended = run("config", "sqlite:///keys.db?create=never&deadline=3", "--json")
    assert ended.code == 0, ended.out
    found = settings(ended.document)
    assert found["url"] == ("sqlite:///keys.db?create=never&deadline=3", "the command line")
    assert (found["create"], found["file_system"]) == (("never", "the URL"), ("local", "default"))
    assert found["deadline"] == ("3", "the URL")
    assert found["file"][0] == f"{Path('keys.db').absolute()}, not there yet"
    assert [(each["name"], each["origin"], each["reason"]) for each in ended.document["not_in_force"]] == [
        ("CRYPTOSTORE_URL", ".env, line 1", "hidden by the one in .env, line 2"),
        ("CRYPTOSTORE_URL", ".env, line 2", "hidden by the one in the environment"),
        ("CRYPTOSTORE_URL", "the environment", "hidden by the URL on the command line"),
        ("POSTGRES_DB", ".env, line 3", "hidden by the URL on the command line"),
    ]
    assert CANARY not in ended.out


def test_parts_that_nothing_asks_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DB", "keys")
    ended = run("config", "--json")
    assert ended.code == ExitCode.CHECK_FAILED
    assert ended.document["problems"] == [
        "no database is named: give its URL, or set CRYPTOSTORE_URL, or USE_POSTGRES_STORE=true"
    ]
    assert [each["reason"] for each in ended.document["not_in_force"]] == ["USE_POSTGRES_STORE is not true"]


@pytest.mark.parametrize(
    ("name", "value", "shown", "problem"),
    [
        (KEY, CANARY, "***", ""),
        (f"{KEY}_FILE", CANARY, "***, where no file is", "names no file"),
        (f"{KEY}_FILE", "/", "the file /, mode 0755", "names what this user cannot read"),
        (f"{KEY}_COMMAND", f"cat {CANARY}", "the command cat …", ""),
        (f"{KEY}_COMMAND", CANARY, "***, where no program is", "names no program"),
        (f"{KEY}_COMMAND", f"{CANARY}'s", "***, which is no command", "is no command"),
        (
            f"{KEY}_KEYRING",
            "matrix-cryptostore/my-bot",
            "the entry matrix-cryptostore/my-bot of the system's keyring",
            "",
        ),
        (f"{KEY}_KEYRING", CANARY, "***, which is no SERVICE/NAME", "must be SERVICE/NAME"),
        ("CRYPTOSTORE_RECOVERY_KEY", CANARY, "***", ""),
        ("CRYPTOSTORE_RECOVERY_KEY_FILE", CANARY, "***, where no file is", "names no file"),
    ],
)
def test_where_a_secret_is(run: Run, name: str, value: str, shown: str, problem: str) -> None:
    write(f"{name}={value}" if "'" in value else f"{name}='{value}'")
    ended = run("config", "sqlite:///keys.db", "--json")
    assert (shown, f"{name} in .env, line 1") in settings(ended.document, "secrets").values()
    assert [each[: len(name) + 1 + len(problem)] for each in ended.document["problems"]] == (
        [f"{name} {problem}"] if problem else []
    )
    assert ended.code == (ExitCode.CHECK_FAILED if problem else ExitCode.DONE)
    assert CANARY not in ended.out + ended.err


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://bot:{CANARY}@db/keys",
        f"postgresql://db/keys?password={CANARY}&sslmode=require",
        f"postgresql://db/keys?sslpassword={CANARY}",
        f"postgresql://db/keys?options={quote('-c a=' + CANARY)}",
        f"postgresql://bot:{CANARY}/x@db/keys",
        f"postgresql:{CANARY}",
        f"sqlite:///keys.db?{CANARY}=1",
        f"vault://h/keys?token={CANARY}&region=eu",
        CANARY,
    ],
)
def test_no_place_of_a_url_gives_a_secret_away(run: Run, site: FakeSite, url: str) -> None:
    site.install("vaults", {"cryptostore.backends": {"vault": "vault"}}, vault=PLUGIN)
    for words in (("config", url), ("config", url, "--json")):
        ended = run(*words)
        shown = (ended.out + ended.err).replace(f"unknown option '{CANARY}'", "")
        assert CANARY not in shown
        assert "Traceback" not in shown


def test_options_of_a_backend_that_does_not_describe_them(run: Run, site: FakeSite) -> None:
    site.install("vaults", {"cryptostore.backends": {"vault": "vault"}}, vault=PLUGIN)
    found = settings(run("config", f"vault://h/keys?token={CANARY}&region=eu", "--json").document)
    assert (found["token"], found["region"]) == (("***", "the URL"), ("eu", "the URL"))


@pytest.mark.parametrize(("mode", "said"), [(0o600, "mode 0600)"), (0o644, "mode 0644, so libpq passes it over)")])
def test_the_password_file_of_libpq(run: Run, here: Path, mode: int, said: str) -> None:
    (here / ".pgpass").write_text(f"*:*:*:*:{CANARY}")
    (here / ".pgpass").chmod(mode)
    value, origin = settings(run("config", "postgresql://db/keys", "--json").document)["password"]
    assert (value, origin) == (f"none, but what {here}/.pgpass has ({said}", "default of libpq")


def test_two_places_of_a_secret_are_a_problem(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(f"{KEY}_COMMAND=touch ran")
    monkeypatch.setenv(f"{KEY}_KEYRING", "a/b")
    ended = run("config", "sqlite:///keys.db", "--json")
    assert ended.code == ExitCode.CHECK_FAILED
    assert ended.document["problems"] == [f"set either {KEY}_COMMAND or {KEY}_KEYRING, not both"]
    assert not Path("ran").exists()


def test_every_variable_that_the_code_reads_is_known(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(cryptostore.__file__).parent
    code = "".join(file.read_text() for file in package.rglob("*.py"))
    named = set(re.findall(r'"(CRYPTOSTORE_[A-Z_]*[A-Z])"', code))
    assert {"CRYPTOSTORE_URL", "CRYPTOSTORE_OBSERVERS"} <= named
    for name in named:
        monkeypatch.setenv(name, "memory://" if name == "CRYPTOSTORE_URL" else "")
    assert run("config", "--json").document["not_known"] == []


def test_a_name_that_is_near_is_no_problem_of_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATRIX_USERID", "@a:b")
    monkeypatch.setenv("CRYPTOSTORE_TEST_CACHE", "x")
    ended = run("config", "memory://", "--json")
    assert ended.code == 0, ended.out
    (near,) = ended.document["not_known"]
    assert (near["name"], near["near"]) == ("MATRIX_USERID", "MATRIX_USER_ID")


def test_observers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write("CRYPTOSTORE_URL=sqlite:///keys.db", f"{KEY}=x", "CRYPTOSTORE_AUDIT_LOG=/var/log/audit.jsonl")
    monkeypatch.setenv("CRYPTOSTORE_OBSERVERS", "logging,opentelemetry")
    ended = run("config", "--json")
    assert (ended.code, ended.document["not_known"]) == (0, [])
    assert settings(ended.document, "observers") == {
        "CRYPTOSTORE_OBSERVERS": ("logging,opentelemetry", "the environment"),
        "CRYPTOSTORE_AUDIT_LOG": ("/var/log/audit.jsonl", ".env, line 3"),
    }
    assert run("config").out.count("CRYPTOSTORE_OBSERVERS ") == 1
    monkeypatch.setenv("CRYPTOSTORE_OBSERVERS", "loging")
    ended = run("config", "--json")
    assert ended.code == ExitCode.CHECK_FAILED
    assert ended.document["problems"] == ["CRYPTOSTORE_OBSERVERS names 'loging'; it takes logging and opentelemetry"]
