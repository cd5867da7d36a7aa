"""Ports for servers that come and go."""

from __future__ import annotations

import secrets
import socket
from typing import Final

#: Below those that the system gives to outgoing connections, Linux's from 32,768 on: one of these could be taken while
#: its server is away, or before it has come.
_PORTS: Final = range(10_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, and that the system does not give to a process by itself."""
    while True:
        # Not from a generator that a test may have seeded, as others may have done with theirs.
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
