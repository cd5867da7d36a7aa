"""What a client or a command would use if it started now, and where each part of it comes from. Opens nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from cryptostore.errors import ConfigurationError, CryptoStoreError
from cryptostore.observing.audit import VARIABLE as AUDIT_LOG
from cryptostore.observing.chosen import VARIABLE as OBSERVERS
from cryptostore.observing.chosen import named_observers
from cryptostore.plugins import load_backend
from cryptostore.plugins.environment import Found, database_url, is_postgres_wanted
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.plugin import Setting
from cryptostore.plugins.urls import HIDDEN, CommonOptions, options_of, scheme_of
from cryptostore.store.pickle_key_sources import PLACES
from cryptostore.store.system_keyring import entry_of

_URL: Final = "CRYPTOSTORE_URL"
_WANTED: Final = "USE_POSTGRES_STORE"
_POSTGRES: Final = ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD")
_OBSERVERS: Final = (OBSERVERS, AUDIT_LOG)
_CLIENT: Final = ("MATRIX_HOMESERVER", "MATRIX_USER_ID", "MATRIX_DEVICE_ID")
_SECRETS: Final = {"pickle key": "CRYPTOSTORE_PICKLE_KEY", "recovery key": "CRYPTOSTORE_RECOVERY_KEY"}
_KNOWN: Final = frozenset(
    {
        _URL,
        _WANTED,
        *_POSTGRES,
        *_CLIENT,
        *_OBSERVERS,
        *(secret + form for secret in _SECRETS.values() for form in ("", *PLACES)),
    }
)
_PREFIX: Final = "CRYPTOSTORE_"
#: What the contract suite and the tests of backends have for themselves.
_OF_OTHERS: Final = ("CRYPTOSTORE_CONTRACT_", "CRYPTOSTORE_TEST_")
_NEAR: Final = 0.85


class Hidden(NamedTuple):
    """A setting that is there and not in force, and why."""

    name: str
    origin: str
    reason: str


class Unknown(NamedTuple):
    """A variable that looks like one of ours and is none, and which one is near."""

    name: str
    origin: str
    near: str


@dataclass
class InForce:
    """Everything that was found, by its subject."""

    database: list[Setting] = field(default_factory=list)
    secrets: list[Setting] = field(default_factory=list)
    client: list[Setting] = field(default_factory=list)
    observers: list[Setting] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    #: Why a client or a command would not start.
    problems: list[str] = field(default_factory=list)


def in_force(found: Iterable[Found], argument: str | None) -> InForce:
    """What these variables and the URL on the command line come to. A mistake in them is one of the problems."""
    latest: dict[str, Found] = {}
    answer = InForce()
    for each in found:
        if each.name in latest and each.name in _KNOWN:
            earlier = latest[each.name]
            answer.hidden.append(Hidden(each.name, earlier.origin, f"hidden by the one in {each.origin}"))
        latest[each.name] = each
    _add_database(answer, latest, argument)
    for what, variable in _SECRETS.items():
        _add_secret(answer, latest, what, variable)
    answer.client += [Setting(*latest[name]) for name in _CLIENT if _is_set(latest, name)]
    _add_observers(answer, latest)
    answer.unknown += _unknown(latest.values())
    return answer


def _is_set(found: Mapping[str, Found], name: str) -> bool:
    return name in found and bool(found[name].value)


def _add_observers(answer: InForce, found: Mapping[str, Found]) -> None:
    answer.observers += [Setting(*found[name]) for name in _OBSERVERS if _is_set(found, name)]
    try:
        named_observers({name: each.value for name, each in found.items()})
    except ConfigurationError as error:
        answer.problems.append(str(error))


def _add_database(answer: InForce, found: Mapping[str, Found], argument: str | None) -> None:
    values = {name: each.value for name, each in found.items()}
    try:
        url = argument or database_url(values)
        origin = _origin_of_url(found, argument)
        if url is None:
            answer.problems.append(f"no database is named: give its URL, or set {_URL}, or {_WANTED}=true")
        else:
            answer.database.append(Setting("url", shown_url(url), origin))
            answer.database += _options(url, answer)
        wanted = is_postgres_wanted(values) and origin == _WANTED
    except CryptoStoreError as error:
        answer.problems.append(str(error))
        return
    parts = [name for name in _POSTGRES if _is_set(found, name)]
    if wanted:
        answer.database += [
            Setting(name, HIDDEN if name == "POSTGRES_PASSWORD" else found[name].value, found[name].origin)
            for name in parts
        ]
    else:
        _hide(answer, found, parts, argument)


def _origin_of_url(found: Mapping[str, Found], argument: str | None) -> str:
    if argument:
        return "the command line"
    return f"{_URL} in {found[_URL].origin}" if _is_set(found, _URL) else _WANTED


def _hide(answer: InForce, found: Mapping[str, Found], parts: list[str], argument: str | None) -> None:
    """Name what would say something of the database, and does not."""
    hider = "the URL on the command line" if argument else _URL if _is_set(found, _URL) else ""
    if argument and _is_set(found, _URL):
        answer.hidden.append(Hidden(_URL, found[_URL].origin, f"hidden by {hider}"))
    if hider and _is_set(found, _WANTED):
        parts = [_WANTED, *parts]
    reason = f"hidden by {hider}" if hider else f"{_WANTED} is not true"
    answer.hidden += [Hidden(name, found[name].origin, reason) for name in parts]


def _options(url: str, answer: InForce) -> Iterator[Setting]:
    """The options of a URL, with the defaults as far as the backend says them."""
    plugin, given = load_backend(scheme_of(url)), options_of(url, {})
    options = dict(given)
    common = CommonOptions.take_from(options)
    for name, value in (("deadline", f"{common.deadline:g}"), ("owner", common.owner)):
        yield Setting(name, value, "the URL" if name in given else "default")
    if plugin.settings is None:
        for name, value in options.items():
            yield Setting(name, value if name in plugin.shown_options else HIDDEN, "the URL")
        return
    for setting in plugin.settings(url, options):
        yield setting
        if setting.hides:
            reason = f"hidden by {setting.name} ({setting.origin})"
            answer.hidden.append(Hidden(setting.hides, "the environment", reason))


def _add_secret(answer: InForce, found: Mapping[str, Found], what: str, variable: str) -> None:
    given = [name for name in (variable, *(variable + place for place in PLACES)) if _is_set(found, name)]
    if len(given) > 1:
        answer.problems.append(f"set either {given[0]} or {given[1]}, not both")
    if not given:
        answer.secrets.append(Setting(what, "none", "default"))
    for name in given:
        value, problem = _PLACES_SHOWN[name.removeprefix(variable)](found[name].value)
        if problem:
            answer.problems.append(f"{name} {problem}")
        answer.secrets.append(Setting(what, value, f"{name} in {found[name].origin}"))


# Each of these returns what is shown, and why no client could start with it, or "".


def _the_secret(_value: str) -> tuple[str, str]:
    return HIDDEN, ""


def _file(value: str) -> tuple[str, str]:
    try:
        status = Path(value).stat()
    except (OSError, ValueError):
        # A secret in the wrong variable would be no file.
        return f"{HIDDEN}, where no file is", "names no file; correct the path"
    may_read = not stat.S_ISDIR(status.st_mode) and os.access(value, os.R_OK)
    problem = "" if may_read else "names what this user cannot read as a file; correct the path or the permissions"
    return f"the file {value}, mode {stat.S_IMODE(status.st_mode):04o}", problem


def _command(value: str) -> tuple[str, str]:
    """The program, not its arguments, which may be secret."""
    try:
        program = shlex.split(value)[0]
    except (ValueError, IndexError):
        return f"{HIDDEN}, which is no command", "is no command; write it as for a shell, with its quotes closed"
    more = " …" if len(shlex.split(value)) > 1 else ""
    if shutil.which(program):
        return f"the command {program}{more}", ""
    return f"{HIDDEN}, where no program is", "names no program that is there; correct it, or install the program"


def _keyring(value: str) -> tuple[str, str]:
    try:
        service, name = entry_of(value, "")
    except ConfigurationError as error:
        return f"{HIDDEN}, which is no SERVICE/NAME", str(error).strip()
    return f"the entry {service}/{name} of the system's keyring", ""


_PLACES_SHOWN: Final = {"": _the_secret, "_FILE": _file, "_COMMAND": _command, "_KEYRING": _keyring}


def _unknown(found: Iterable[Found]) -> Iterator[Unknown]:
    for each in found:
        if each.name in _KNOWN or each.name.startswith(_OF_OTHERS):
            continue
        near = get_close_matches(each.name, _KNOWN, 1, _NEAR)
        if near or each.name.startswith(_PREFIX):
            yield Unknown(each.name, each.origin, near[0] if near else "")
