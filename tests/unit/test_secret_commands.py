"""A pickle key that another program hands out, and every way in which that can fail; none shows the key."""

from __future__ import annotations

import shlex
import traceback
from pathlib import Path

import pytest

from cryptostore import ConfigurationError
from cryptostore.store.pickle_key_sources import pickle_key_from, secret_from
from cryptostore.store.secret_commands import output_of

VARIABLE = "CRYPTOSTORE_PICKLE_KEY_COMMAND"
SECRET = "a secret"


def shell(script: str) -> str:
    """A command for a script: there is no shell unless one is asked for."""
    return f"sh -c {shlex.quote(script)}"


def key_of(command: str) -> str | None:
    return pickle_key_from({VARIABLE: command})


def test_what_a_program_writes() -> None:
    assert key_of("echo ' a  key '") == " a  key "
    assert key_of("printf key") == "key"
    # No shell looks at it.
    assert key_of("echo $HOME | tr ; '*'") == "$HOME | tr ; *"


def test_any_secret_has_the_same_places() -> None:
    variables = {"CRYPTOSTORE_RECOVERY_KEY_COMMAND": "echo EsT1"}
    assert secret_from(variables, "CRYPTOSTORE_RECOVERY_KEY", "the recovery key") == "EsT1"


def test_the_program_can_read_nothing_and_its_standard_error_is_ours(capfd: pytest.CaptureFixture[str]) -> None:
    assert key_of(shell("cat >&2; echo touch your token >&2; echo key")) == "key"
    assert capfd.readouterr().err == "touch your token\n"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/no/such/program a", "cannot be started: No such file or directory"),
        ("/etc/passwd", "cannot be started: Permission denied"),
        ("a\0b", "cannot be started: it is no name of a program"),
        ("echo 'a secret", "is not understood: No closing quotation"),
        ("  ", "is empty"),
        (shell("echo a secret; exit 3"), "ended with the exit code 3; what it wrote to standard error says why"),
        (shell("echo a secret; kill -9 $$"), "ended by the signal 9"),
        ("true", "must write the pickle key in one line, and nothing else"),
        ("echo", "must write the pickle key in one line, and nothing else"),
        (shell("echo a secret; echo and more"), "must write the pickle key in one line, and nothing else"),
        ("printf 'a secret \\377'", "does not write UTF-8 text"),
        ("yes a secret", "writes more than 64 KiB"),
    ],
)
def test_a_program_that_hands_out_no_key(command: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        key_of(command)
    assert reason in str(refused.value)
    assert VARIABLE in str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("script", ["sleep 100", "echo a secret; exec >&-; sleep 100", "echo a secret; sleep 100 &"])
def test_a_program_that_is_not_done_in_time_is_ended(script: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"was not done after 0\.3 seconds, and was ended") as refused:
        output_of(shell(f"echo $$ > {tmp_path}/id; {script}"), VARIABLE, deadline=0.3)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert not Path(f"/proc/{int((tmp_path / 'id').read_text())}").exists()


@pytest.mark.parametrize("form", ["", "_FILE", "_KEYRING"])
def test_two_places_are_one_too_many_and_neither_is_asked(form: str, tmp_path: Path) -> None:
    other = f"CRYPTOSTORE_PICKLE_KEY{form}"
    both = f"{VARIABLE} or {other}" if form == "_KEYRING" else f"{other} or {VARIABLE}"
    with pytest.raises(ConfigurationError, match=f"set either {both}, not both"):
        pickle_key_from({VARIABLE: shell(f"echo run > {tmp_path}/run"), other: "x"})
    assert not (tmp_path / "run").exists()
