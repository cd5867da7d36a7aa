"""Settings from outside: the variables of the environment and of a `.env` file, and the database that they name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from dotenv.parser import Binding, parse_stream

from cryptostore.errors import ConfigurationError
from cryptostore.store.private_files import is_others_to_write, read_private, warn_if_shared

#: Looked for in the working directory, and not missed.
ENV_FILE: Final = ".env"

#: The parts of the URL, and the variables that fill those that are not given.
_PARTS: Final = {
    "host": "POSTGRES_HOST",
    "port": "POSTGRES_PORT",
    "database": "POSTGRES_DB",
    "user": "POSTGRES_USER",
    "password": "POSTGRES_PASSWORD",
}
#: What stands for parts that are given nowhere, unless libpq finds the server in another way.
_DEFAULTS: Final = {"host": "localhost", "port": "5432"}
_OTHER_WAYS: Final = frozenset({"hostaddr", "service"})
_SECRETS: Final = ("CRYPTOSTORE_PICKLE_KEY", "CRYPTOSTORE_RECOVERY_KEY", "POSTGRES_PASSWORD")
#: What somebody else's file must not name, since it is run.
_COMMANDS: Final = ("CRYPTOSTORE_PICKLE_KEY_COMMAND", "CRYPTOSTORE_RECOVERY_KEY_COMMAND")
_URL_WITH_A_PASSWORD: Final = re.compile(r"://[^/]*:.*@|password=", re.DOTALL)
_OURS: Final = re.compile(r"\b(CRYPTOSTORE|MATRIX|POSTGRES|USE_POSTGRES)_")
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})


class Found(NamedTuple):
    """A variable, and where it was found: "the environment", or the file with the line."""

    name: str
    value: str
    origin: str


def variables(env_file: str | os.PathLike[str] | None = ENV_FILE) -> dict[str, str]:
    """The variables of the environment, over those of the `.env` file, whose values are taken as they are written.

    Raises ConfigurationError for a file that is missing, unless it is the default one, or cannot be read, for a line of
    ours that is not understood, and for a command in a file that others may write. Warns of a file with secrets that
    others may read.
    """
    return {each.name: each.value for each in found_variables(env_file)}


def found_variables(env_file: str | os.PathLike[str] | None = ENV_FILE) -> list[Found]:
    """Every variable as often as it is set; a later one hides an earlier one. Raises and warns as `variables` does."""
    in_file = _found_in(Path(env_file)) if env_file else []
    return [*in_file, *(Found(name, value, "the environment") for name, value in os.environ.items())]


def has_secrets(found: Iterable[Found]) -> bool:
    """Whether one of the variables is a secret, or holds one."""
    return any(
        (each.name in _SECRETS and each.value)
        or (each.name == "CRYPTOSTORE_URL" and _URL_WITH_A_PASSWORD.search(each.value))
        for each in found
    )


def is_postgres_wanted(variables: Mapping[str, str]) -> bool:
    """Whether USE_POSTGRES_STORE says so. Raises ConfigurationError for a value that is neither true nor false."""
    return _flag(variables, "USE_POSTGRES_STORE")


def database_url(variables: Mapping[str, str], *, use_postgres: bool | None = None) -> str | None:
    """The database that `CRYPTOSTORE_URL` names, or `USE_POSTGRES_STORE=true` with `POSTGRES_*`.

    Raises ConfigurationError as `postgres_url` does, and for a USE_POSTGRES_STORE that is neither true nor false.
    """
    if variables.get("CRYPTOSTORE_URL"):
        return variables["CRYPTOSTORE_URL"]
    if use_postgres is None and is_postgres_wanted(variables):
        return postgres_url({}, variables)
    return None


def postgres_url(pg_config: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """The URL of a PostgreSQL database, its parts from `pg_config` and, where that is silent, from `POSTGRES_*`.

    Everything else in `pg_config` becomes an option of the URL, for the backend to judge. Raises ConfigurationError
    where there is no database name, for a port that is no number, and for hosts and ports that do not go together.
    """
    given = {name: str(value) for name, value in pg_config.items() if value not in (None, "")}
    options = {name: value for name, value in given.items() if name not in _PARTS}
    defaults = {} if options.keys() & _OTHER_WAYS else _DEFAULTS
    parts = {
        name: given.get(name) or variables.get(variable) or defaults.get(name, "") for name, variable in _PARTS.items()
    }
    if not parts["database"] and not options.keys() & {"dbname", "service"}:
        held = f"; pg_config has {', '.join(map(repr, given))}" if given else ""
        raise ConfigurationError(f"no database is named: give pg_config={{'database': ...}} or set POSTGRES_DB{held}")
    query = f"?{urlencode(options, quote_via=quote)}" if options else ""
    user = f"{_encoded(parts['user'])}:{_encoded(parts['password'])}".rstrip(":")
    at = "@" if user else ""
    return f"postgresql://{user}{at}{_hosts(parts['host'], parts['port'])}/{_encoded(parts['database'])}{query}"


def _hosts(host: str, port: str) -> str:
    # A URL has a port behind each host.
    hosts, ports = host.split(","), port.split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts):
        raise ConfigurationError(f"there are {len(hosts)} PostgreSQL hosts and {len(ports)} ports; give one for all")
    if not all(number.isdecimal() or not number for number in ports):
        raise ConfigurationError("pg_config's port, or POSTGRES_PORT, is not a number; correct it")
    return ",".join(f"{_encoded(name)}:{number}".rstrip(":") for name, number in zip(hosts, ports, strict=True))


def _found_in(file: Path) -> list[Found]:
    # Unlike a Path's own questions, these do not raise.
    if not os.path.exists(file) or os.path.isdir(file):  # noqa: PTH110, PTH112
        # Many a virtual environment is a folder of this name.
        if file == Path(ENV_FILE):
            return []
        raise ConfigurationError(f"there is no file {file}, which env_file names; correct it, or give env_file=None")
    lines = _parsed(file, read_private(file, "the settings"))
    if any(each.value for each in lines if each.name in _COMMANDS) and is_others_to_write(file):
        raise ConfigurationError(
            f"{file} names a command to run, and belongs to another user or may be written by everybody; make it yours "
            "(chown, chmod 600), or set the variable in the environment"
        )
    if has_secrets(lines):
        warn_if_shared(file, "the secret")
    return lines


def _parsed(file: Path, text: str) -> list[Found]:
    """The file's variables. Not by dotenv_values, which takes ${…} in a password for a variable."""
    found = list(parse_stream(StringIO(text)))
    for binding in found:
        # A line of another program, which understands it, is left to that.
        is_clear = not binding.error and "\0" not in (binding.value or "")
        if not is_clear and _OURS.search(binding.original.string):
            raise ConfigurationError(
                f"line {_line(binding)} of {file} is not understood, or holds a NUL; write NAME=value, the value in "
                "single quotes"
            )
    return [
        Found(binding.key, binding.value, f"{file}, line {_line(binding)}")
        for binding in found
        if binding.key and binding.value is not None
    ]


def _line(binding: Binding) -> int:
    blank = len(binding.original.string) - len(binding.original.string.lstrip("\n"))
    return binding.original.line + blank


def _flag(variables: Mapping[str, str], variable: str) -> bool:
    value = variables.get(variable, "").strip().lower()
    if value not in _YES | _NO:
        raise ConfigurationError(f"{variable} must be true or false")
    return value in _YES


def _encoded(text: str) -> str:
    return quote(text, safe="")
