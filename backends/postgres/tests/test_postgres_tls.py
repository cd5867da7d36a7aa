"""Encrypted connections: to a server by the name that is in its certificate, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import pytest

from cryptostore import Changes, ConfigurationError, SyncToken, open_backend
from cryptostore_contract.handles import own
from cryptostore_contract.proxy import Direction, Proxy
from postgres_database import PASSWORD, ROLE, PostgresDatabase
from postgres_server import PostgresServer

#: What a URL may name in place of the authority's certificate.
ABSENT: Final = Path("/nonexistent/ca.pem")


class Encrypted(NamedTuple):
    """A server that takes encrypted connections alone, and what clients sent to it."""

    url: str
    authority: Path
    stranger: Path
    sent: list[bytes]

    def verifying(self, authority: Path, mode: str = "verify-full") -> str:
        """The URL that trusts one authority."""
        return f"{self.url}&sslmode={mode}&sslrootcert={quote(str(authority))}"


@pytest.fixture
def encrypted(breakable_database: PostgresDatabase, server: PostgresServer, schema: str) -> Iterator[Encrypted]:
    if not server.speaks_tls:
        pytest.skip("not verified: these binaries were built without TLS")
    sent: list[bytes] = []

    def tap(_number: int, direction: Direction, chunk: bytes) -> None:
        if direction is Direction.TO_SERVER:
            sent.append(chunk)

    with server.only_encrypted() as (authority, stranger), Proxy(breakable_database.address, tap=tap) as proxy:
        yield Encrypted(breakable_database.url(schema, proxy.port), authority, stranger, sent)


def assert_refused(encrypted: Encrypted, url: str, told: str) -> None:
    """At once, and without a word of who wanted what."""
    with pytest.raises(ConfigurationError, match=told):
        open_backend(url, deadline=600)
    for secret in (ROLE, PASSWORD, url.partition("schema=")[2].partition("&")[0]):
        assert secret.encode() not in b"".join(encrypted.sent)


def test_an_authority_of_ones_own_is_enough(encrypted: Encrypted) -> None:
    with open_backend(encrypted.verifying(encrypted.authority)) as backend:
        own(backend).apply(Changes([SyncToken("t")]))
    assert ROLE.encode() not in b"".join(encrypted.sent)


def test_an_authority_gives_way_to_another_in_one_file(encrypted: Encrypted, tmp_path: Path) -> None:
    both = tmp_path / "ca.crt"
    both.write_bytes(encrypted.stranger.read_bytes() + encrypted.authority.read_bytes())
    open_backend(encrypted.verifying(both)).close()


def test_a_server_whose_certificate_another_authority_signed_is_refused(encrypted: Encrypted) -> None:
    told = r"certificate verify failed.*; check sslrootcert, the server's certificate and sslmode"
    for mode in ("verify-full", "verify-ca"):
        assert_refused(encrypted, encrypted.verifying(encrypted.stranger, mode), told)


def test_a_server_whose_certificate_is_for_another_name_is_refused(encrypted: Encrypted) -> None:
    by_name = encrypted.verifying(encrypted.authority).replace("127.0.0.1", "localhost")
    assert_refused(encrypted, by_name, r"does not match host name \"localhost\"; check sslrootcert.* and sslmode")
    # Which certificate it is may be left open, but not by what this project recommends.
    open_backend(by_name.replace("verify-full", "verify-ca")).close()


def test_an_authority_whose_file_is_missing_is_told(encrypted: Encrypted) -> None:
    assert_refused(encrypted, encrypted.verifying(ABSENT), rf"root certificate file \"{ABSENT}\" does not exist")


def test_a_server_that_takes_encrypted_connections_alone_says_so(encrypted: Encrypted) -> None:
    with pytest.raises(ConfigurationError, match=r"pg_hba.conf.*sslmode=verify-full"):
        open_backend(f"{encrypted.url}&sslmode=disable")
