"""Whether a connection is encrypted, and its server's certificate checked."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from cryptostore import Finding, Level

_REMEDY: Final = (
    "put sslmode=verify-full&sslrootcert=… into the URL, with the certificate of the authority that signed the "
    "server's (or sslrootcert=system)"
)


def look_at_encryption(parameters: Mapping[str, str], *, is_encrypted: bool) -> Finding:
    """What to say of a connection that was made with these parameters of libpq's."""
    host, mode = parameters.get("hostaddr") or parameters.get("host", ""), parameters.get("sslmode")
    if not is_encrypted and is_local(host):
        return Finding("TLS", Level.OK, "off, and the server is on this machine")
    if not is_encrypted:
        return Finding("TLS", Level.WARNING, f"off, and {host} is another host: who is in between reads along", _REMEDY)
    if mode == "verify-full" or parameters.get("sslrootcert") == "system":
        return Finding("TLS", Level.OK, "on, and the server's certificate and name are checked")
    if mode == "verify-ca":
        return Finding("TLS", Level.NOTE, "on; the server's certificate is checked, its name is not", _REMEDY)
    return Finding("TLS", Level.WARNING, "on, but any server is believed: its certificate is not checked", _REMEDY)


def is_local(host: str) -> bool:
    """Whether a host is this machine: a socket's folder, a loopback address, or its name."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
