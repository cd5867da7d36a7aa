"""The login that a client keeps beside its keys: an access token, and the homeserver that gave it."""

from __future__ import annotations

import json
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from cryptostore.logs import logger
from cryptostore.records import Value

#: The record, by namespace and name, in which a client keeps its login.
ACCESS_TOKEN: Final = ("client", "access token")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_log: Final = logger(__name__)


class SavedLogin(NamedTuple):
    """An access token, which is good at one homeserver and must not be shown to another."""

    homeserver: str
    token: str

    def record(self) -> Value:
        """What to store."""
        return Value(*ACCESS_TOKEN, json.dumps(self._asdict()).encode())

    def token_for(self, homeserver: str) -> str:
        """The token if it is this homeserver's, else an empty text."""
        return self.token if _identity(homeserver) == _identity(self.homeserver) else ""


def saved_login(record: Value | None) -> SavedLogin | None:
    """The login in a record, or None. What is no login is reported: a new one replaces it."""
    if record is None:
        return None
    try:
        parsed = json.loads(record.value)
        return SavedLogin(str(parsed["homeserver"]), str(parsed["token"]))
    except (ValueError, TypeError, KeyError):
        _log.warning("the stored access token does not say which homeserver it is for, and is not used")
        return None


def _identity(url: str) -> tuple[str, str, int | None, str]:
    """What tells two homeservers apart."""
    parts = urlsplit(url)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, (parts.hostname or parts.netloc), port, parts.path.rstrip("/")
