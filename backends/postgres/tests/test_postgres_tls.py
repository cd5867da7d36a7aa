"""Encrypted connections: to a server by the name that is in its certificate, or not at all."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from cryptostore import ConfigurationError, open_backend
from cryptostore_contract.proxy import Direction, Proxy
from postgres_database import PostgresDatabase
from postgres_server import PostgresServer


def test_a_server_whose_certificate_is_for_another_name_is_refused(
    breakable_database: PostgresDatabase, server: PostgresServer, schema: str
) -> None:
    if not server.speaks_tls:
        pytest.skip("not verified: these binaries were built without TLS")
    sent: list[bytes] = []

    def tap(_number: int, direction: Direction, chunk: bytes) -> None:
        if direction is Direction.TO_SERVER:
            sent.append(chunk)

    with server.only_encrypted() as (trusted, _), Proxy(breakable_database.address, tap=tap) as proxy:
        by_address = (
            f"{breakable_database.url(schema, proxy.port)}&sslmode=verify-full&sslrootcert={quote(str(trusted))}"
        )
        by_name = by_address.replace("127.0.0.1", "localhost")
        with pytest.raises(ConfigurationError, match=r"localhost.* sslmode"):
            open_backend(by_name)
        assert schema.encode() not in b"".join(sent)
        open_backend(by_address).close()
        # Which certificate it is may be left open, but not by what this project recommends.
        open_backend(by_name.replace("verify-full", "verify-ca")).close()
