"""What is in force for a URL, and where it comes from: the URL, a variable of libpq, a default."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from cryptostore.plugins.plugin import Setting
from cryptostore.plugins.urls import HIDDEN

from .options import SHOWN_OPTIONS, parse

#: Of what is no option of a URL that messages show, what is no secret either.
_SHOWN: Final = SHOWN_OPTIONS | {"client_encoding", "dbname", "passfile"}
_OURS: Final = ("migrate", "pool_size", "schema")
_URL, _DEFAULT, _OF_LIBPQ = "the URL", "default", "default of libpq"


def settings(url: str, options: Mapping[str, Any]) -> Iterator[Setting]:
    """Our options, and each parameter of libpq that has a value. Raises ConfigurationError as `parse` does."""
    parsed = parse(url, options)
    given = {**conninfo_to_dict(url.partition("?")[0]), **options}
    for name in _OURS:
        yield Setting(name, str(getattr(parsed, name)), _URL if name in given else _DEFAULT)
    for parameter in pq.Conninfo.get_defaults():
        yield from _parameter(parameter, given, parsed.connection)
    if not parsed.connection.get("password") and "PGPASSWORD" not in os.environ:
        yield _password_file(parsed.connection)


def _parameter(parameter: pq.ConninfoOption, given: Mapping[str, Any], sent: Mapping[str, Any]) -> Iterator[Setting]:
    name = parameter.keyword.decode()
    variable = parameter.envvar.decode() if parameter.envvar else ""
    is_set = bool(os.environ.get(variable))
    if name in sent:
        origin = _URL if name in given else _DEFAULT
        yield Setting(name, _shown(name, str(sent[name])), origin, variable if is_set else "")
    elif is_set:
        yield Setting(name, _shown(name, os.environ[variable]), f"{variable} in the environment")
    elif parameter.val:
        value = parameter.val.decode(errors="replace")
        # What libpq was built with is known to everybody.
        yield Setting(name, value if parameter.val == parameter.compiled else _shown(name, value), _OF_LIBPQ)


def _shown(name: str, value: str) -> str:
    return value if name in _SHOWN or not value else HIDDEN


def _password_file(sent: Mapping[str, Any]) -> Setting:
    """Where libpq looks for a password that is given nowhere else. It does not say when it passes the file over."""
    named = sent.get("passfile") or os.environ.get("PGPASSFILE")
    origin = _URL if sent.get("passfile") else "PGPASSFILE in the environment" if named else _OF_LIBPQ
    file = Path(named or os.path.expanduser("~/.pgpass"))  # noqa: PTH111  # that of Path raises where there is no home
    return Setting("password", f"none, but what {file} has ({_state(file)})", origin)


def _state(file: Path) -> str:
    try:
        status = file.stat()
    except OSError as error:
        return "not there" if isinstance(error, FileNotFoundError) else f"{error.strerror}"
    mode = stat.S_IMODE(status.st_mode)
    # So does libpq, with a line on standard error.
    passed_over = ", so libpq passes it over" if mode & (stat.S_IRWXG | stat.S_IRWXO) else ""
    return f"mode {mode:04o}{passed_over}"
