"""What is said of connections that are not encrypted, or to a server whose certificate nobody checks."""

from __future__ import annotations

import pytest

from cryptostore import Level
from cryptostore_postgres.tls import is_local, look_at_encryption


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1", "127.8.8.8", "::1", "/var/run/postgresql", "@abstract"])
def test_this_machine_needs_no_encryption(host: str) -> None:
    assert is_local(host)
    assert look_at_encryption({"host": host}, is_encrypted=False).level is Level.OK


@pytest.mark.parametrize("host", ["db", "db.example.org", "10.0.0.5", "2001:db8::1", "localhost.example.org"])
def test_another_host_does(host: str) -> None:
    found = look_at_encryption({"host": host}, is_encrypted=False)
    assert found.level is Level.WARNING
    assert host in found.seen
    assert "sslmode=verify-full" in found.remedy


def test_the_address_decides_where_there_is_one() -> None:
    assert look_at_encryption({"host": "db", "hostaddr": "127.0.0.1"}, is_encrypted=False).level is Level.OK
    assert look_at_encryption({"host": "localhost", "hostaddr": "10.0.0.5"}, is_encrypted=False).level is Level.WARNING


def test_the_systems_authorities_are_checked_by_libpq_whatever_the_mode() -> None:
    assert look_at_encryption({"host": "db", "sslrootcert": "system"}, is_encrypted=True).level is Level.OK
