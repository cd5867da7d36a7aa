"""Why a server refused a login, whatever language it speaks.

The driver has no SQLSTATE for a connection that was not made: libpq keeps no more of the server's answer than its text,
which is in the language of the server's `lc_messages`. Only libpq's trace of the protocol shows the rest.
"""

from __future__ import annotations

import os
import re
import selectors
import time
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, PollingStatus

#: The beginning of an error in the trace; what follows is text, which must not be taken for a code.
_REFUSED: Final = re.compile(rb'\tErrorResponse\t S "[^"]*" V "[A-Z]+" C "([0-9A-Z]{5})"')

#: More than the trace of a login.
_MOST: Final = 1 << 20


def state_of_refusal(parameters: Mapping[str, Any], seconds: float) -> str | None:
    """Try to connect once more, for at most `seconds`, and return the SQLSTATE of the server's refusal, if it shows."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        # In memory, because the trace holds all that was sent.
        with os.fdopen(os.memfd_create("cryptostore-login"), "rb") as trace:
            _connect(make_conninfo(**parameters), trace.fileno(), time.monotonic() + seconds)
            states = _REFUSED.findall(os.pread(trace.fileno(), _MOST, 0))
    except (psycopg.Error, OSError):
        # As for too many open files, which may have been what prevented the login.
        return None
    return states[-1].decode() if states else None


def _connect(conninfo: str, trace: int, ends: float) -> None:
    connection = PGconn.connect_start(conninfo.encode())
    try:
        connection.trace(trace)
        while (status := PollingStatus(connection.connect_poll())) in _EVENTS and time.monotonic() < ends:
            with selectors.DefaultSelector() as selector:
                selector.register(connection.socket, _EVENTS[status])
                selector.select(max(0.0, ends - time.monotonic()))
        connection.untrace()
    finally:
        connection.finish()


_EVENTS: Final[Mapping[PollingStatus, int]] = {
    PollingStatus.READING: selectors.EVENT_READ,
    PollingStatus.WRITING: selectors.EVENT_WRITE,
}
