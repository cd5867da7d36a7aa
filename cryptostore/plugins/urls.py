"""Backend URLs: their scheme, their options, and how to show one without its secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urlsplit

from cryptostore.errors import ConfigurationError
from cryptostore.shown import shown
from cryptostore.store.backend import DEFAULT_DEADLINE
from cryptostore.store.owners import default_owner

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]@]*)(:[0-9]*)?")
_COMMON: Final = frozenset({"deadline", "owner"})
#: What stands for a secret.
HIDDEN: Final = "***"


def scheme_of(url: str) -> str:
    """The URL's scheme in lower case. Raises ConfigurationError; the text never quotes the URL."""
    if not isinstance(url, str):
        raise ConfigurationError(
            f"a database is named by the text of a URL, such as 'sqlite:///keys.db', not by a {type(url).__name__}; a "
            "Path would change the URL's slashes"
        )
    match = _SCHEME.match(url)
    if match is None:
        raise ConfigurationError(
            "a database URL begins with the name of its backend, as in sqlite:///keys.db or postgresql://host/database"
        )
    return match[1].lower()


def redact(url: str, shown_options: Collection[str] = ()) -> str:
    """The URL, fit for a terminal or a log line: scheme, user, hosts and path, and of the options those named here.

    Every other option is hidden with its name, and what is not formed like a URL is hidden whole.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    if not parts.scheme:
        return HIDDEN
    if _may_hide_a_password(url, parts):
        return f"{parts.scheme}:{HIDDEN}"
    user, at, hosts = parts.netloc.rpartition("@")
    if ":" in user:
        user = f"{user.partition(':')[0]}:{HIDDEN}"
    # A password stands in the port's place where the host was forgotten.
    hosts = ",".join(host if is_host(host) else HIDDEN for host in hosts.split(","))
    # Not urlunsplit: it would drop the empty host of sqlite:///keys.db, and with it the path's meaning.
    return shown(f"{parts.scheme}://{user}{at}{hosts}{parts.path}{_shown_query(parts.query, shown_options)}")


def _may_hide_a_password(url: str, parts: SplitResult) -> bool:
    """Whether a password may stand where another part is taken for granted."""
    if not url.partition(":")[2].startswith("//"):
        return True
    # An "@" behind the host means a password whose "/", "?" or "#" was not percent-encoded. In a path without a host,
    # it is part of a name, unless there is one slash too many before a user and a password.
    behind_host = parts.path + parts.query + parts.fragment
    return "@" in (behind_host if parts.netloc else behind_host.partition(":")[2])


def _shown_query(query: str, shown_options: Collection[str]) -> str:
    options = [part if _is_shown(part, shown_options) else HIDDEN for part in query.split("&") if part]
    return f"?{'&'.join(options)}" if options else ""


def _is_shown(part: str, shown_options: Collection[str]) -> bool:
    name, given, _ = part.partition("=")
    return bool(given) and (name in _COMMON or name in shown_options)


def is_host(text: str) -> bool:
    """Whether `text` has the form of one host of a URL, with or without a port."""
    return _HOST.fullmatch(text) is not None


def options_of(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the URL's query, overridden by those given in Python.

    Raises ConfigurationError for an option that the URL gives twice, and for text that is not a URL.
    """
    try:
        query = urlsplit(url).query
    except ValueError:
        # The standard library's error may quote the host part, password included.
        raise ConfigurationError(
            f"the {scheme_of(url)} URL cannot be read; percent-encode special characters in its user and password"
        ) from None
    options: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        # Not parse_qsl, which takes a "+" for a space: in a URL that is no form, it is a "+".
        name, _, value = map(unquote, part.partition("="))
        if name in options:
            raise ConfigurationError(f"the option {name!r} is given twice in the database URL; give it once")
        options[name] = value
    return options | dict(given)


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The options of every backend: `deadline` in seconds, and `owner`, the name that a fenced owner is shown."""

    deadline: float
    owner: str

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> CommonOptions:
        """Remove the common options from `options` and check them. Raises ConfigurationError."""
        given = options.pop("deadline", DEFAULT_DEADLINE)
        try:
            deadline = float(given)
        except (TypeError, ValueError):
            deadline = 0.0
        if not 0 < deadline < 86_400:
            raise ConfigurationError("the option 'deadline' must be a number of seconds above 0 and below 86400")
        return cls(deadline, str(options.pop("owner", "") or default_owner())[:255])


def path_of(url: str) -> Path:
    """The absolute path that a URL names: a relative one after three slashes, an absolute one after four.

    Raises ConfigurationError for a URL with a host, a fragment, or no path.
    """
    parts = urlsplit(url)
    name = unquoted_path(parts.path[1:])
    if parts.netloc or parts.fragment or not url.partition(":")[2].startswith("///") or not name or "\0" in name:
        scheme = scheme_of(url)
        raise ConfigurationError(
            f"a {scheme} URL names a path, with three slashes before a relative one ({scheme}:///keys) and four before "
            f"an absolute one ({scheme}:////var/lib/bot/keys); '#' is written %23 there, and '?' %3F"
        )
    return absolute(name)


def unquoted_path(quoted: str) -> str:
    """The path that stands percent-encoded in a URL. On a command line it may hold bytes that are no UTF-8."""
    return os.fsdecode(unquote_to_bytes(quoted.encode(errors="surrogateescape")))


def absolute(path: str) -> Path:
    """The path below the working directory. Raises ConfigurationError where that was deleted."""
    try:
        return Path(path).absolute()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} is a relative path, and the working directory was deleted; change into another folder, or give an "
            "absolute path"
        ) from error


def refuse_unknown(options: Mapping[str, Any], known: str) -> None:
    """Raise ConfigurationError for options that are left over; `known` lists what the backend understands."""
    if options:
        names = ", ".join(sorted(repr(name) for name in options))
        raise ConfigurationError(f"unknown option {names} in the database URL; known are: {known}")
