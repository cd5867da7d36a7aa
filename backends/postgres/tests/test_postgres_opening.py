"""What can be wrong with a URL, a server, a role or a schema, and what the user is told."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cryptostore import (
    KINDS,
    BackendUnavailable,
    Changes,
    ConfigurationError,
    CryptoStoreError,
    SchemaError,
    SyncToken,
    open_backend,
)
from cryptostore_contract.handles import own, read
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.samples import ALICE, samples
from cryptostore_postgres.migrations import _lock_number
from patience import wait_until
from postgres_database import DATABASE, ROLE, PostgresDatabase
from postgres_server import PASSWORD_ROLE, PostgresServer

SECRET: Final = "s3cr3t-canary"


@pytest.fixture
def role(admin: psycopg.Connection) -> Iterator[str]:
    """A role that may log in and nothing else."""
    admin.execute("CREATE ROLE guest LOGIN")
    yield "guest"
    admin.execute("DROP OWNED BY guest; DROP ROLE guest")


def refused(url: str, kind: type[CryptoStoreError] = ConfigurationError, **options: Any) -> str:
    """What the user is told; no part of it, nor of its causes, holds the password."""
    with pytest.raises(kind) as caught:
        open_backend(url, **options).close()
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    return str(caught.value)


def url_of(server: PostgresServer, schema: str, user: str = ROLE, database: str = DATABASE, more: str = "") -> str:
    return f"postgresql://{user}@127.0.0.1:{server.port}/{database}?schema={schema}{more}"


@pytest.fixture
def with_password(admin: psycopg.Connection) -> Iterator[str]:
    name = Identifier(PASSWORD_ROLE)
    admin.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, SECRET))
    admin.execute(SQL("GRANT CREATE ON DATABASE {} TO {}").format(Identifier(DATABASE), name))
    yield f"{PASSWORD_ROLE}:{SECRET}"
    admin.execute(SQL("DROP OWNED BY {} CASCADE").format(name))
    admin.execute(SQL("DROP ROLE {}").format(name))


def test_a_url_without_a_slash_may_have_options(server: PostgresServer, schema: str) -> None:
    url = f"postgres://{ROLE}@127.0.0.1:{server.port}?dbname={DATABASE}&schema={schema}"
    with open_backend(url) as backend:
        assert backend.health().writable


def test_the_right_password_opens(server: PostgresServer, schema: str, with_password: str) -> None:
    with open_backend(url_of(server, schema, with_password)) as backend:
        assert SECRET not in repr(backend)
        own(backend).apply(Changes([SyncToken("t")]))


def test_a_password_may_be_given_as_an_option(server: PostgresServer, schema: str, with_password: str) -> None:
    with open_backend(url_of(server, schema, PASSWORD_ROLE), password=SECRET) as backend:
        assert backend.health().writable


def test_a_password_in_a_file_changes_without_a_restart(
    server: PostgresServer, schema: str, with_password: str, admin: psycopg.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "passfile"
    file.touch(0o600)
    file.write_text(f"*:*:*:{with_password}\n")
    with open_backend(url_of(server, schema, PASSWORD_ROLE, more=f"&passfile={file}")) as backend:
        store = own(backend)
        admin.execute(SQL("ALTER ROLE {} PASSWORD 'another'").format(Identifier(PASSWORD_ROLE)))
        store.apply(Changes([SyncToken("over the connection that is open")]))
        file.write_text(f"*:*:*:{PASSWORD_ROLE}:another\n")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [PASSWORD_ROLE])
        store.apply(Changes([SyncToken("over a new one")]))


def test_a_wrong_password_is_told_at_once(server: PostgresServer, schema: str, with_password: str) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy:
        url = f"postgresql://{PASSWORD_ROLE}:{SECRET}-wrong@127.0.0.1:{proxy.port}/{DATABASE}?sslmode=disable"
        told = refused(url, deadline=600)
        assert proxy.accepted == 1, "it is of no use to try again"
    assert "password" in told
    assert f"127.0.0.1:{proxy.port}" in told


def test_a_missing_password_is_told(server: PostgresServer, schema: str, with_password: str) -> None:
    assert "password" in refused(url_of(server, schema, PASSWORD_ROLE))


def test_a_missing_database_is_named(server: PostgresServer, schema: str) -> None:
    assert '"nowhere" does not exist' in refused(url_of(server, schema, database="nowhere"))


def test_a_missing_role_is_named(server: PostgresServer, schema: str) -> None:
    assert '"nobody_known" does not exist' in refused(url_of(server, schema, "nobody_known"))


#: What the server says of a refused login, and the same in another language, of the same length.
TRANSLATIONS: Final = {
    b"password authentication failed for user": b"Passwort falsch, gescheitert: Benutzer",
    b"role": b"Name",
    b"database": b"Speicher",
    b"does not exist": b"gibt es nicht.",
    b"permission denied": b"Recht nicht da .",
}


@contextlib.contextmanager
def translating(server: PostgresServer) -> Iterator[int]:
    """The port of a relay to the server, behind which that speaks another language."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=relay, args=(listener, server.port), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def relay(listener: socket.socket, port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            upstream = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=pump, args=(client, upstream, {}), daemon=True).start()
            threading.Thread(target=pump, args=(upstream, client, TRANSLATIONS), daemon=True).start()


def pump(source: socket.socket, target: socket.socket, translations: Mapping[bytes, bytes]) -> None:
    with source, contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            for english, translated in translations.items():
                chunk = chunk.replace(english, translated.ljust(len(english)))
            target.sendall(chunk)
        target.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("user", "database", "said", "remedy"),
    [
        (f"{PASSWORD_ROLE}:{SECRET}-wrong", DATABASE, "Passwort falsch", "check user and password"),
        (PASSWORD_ROLE, DATABASE, "no password supplied", "put the password into the URL"),
        ("nobody_known", DATABASE, "gibt es nicht", "check the user"),
        (ROLE, "nowhere", "Speicher", "createdb"),
        ("guest", "closed", "Recht nicht da", "GRANT CONNECT"),
    ],
)
def test_a_refusal_in_another_language_is_understood(
    server: PostgresServer,
    admin: psycopg.Connection,
    with_password: str,
    role: str,
    user: str,
    database: str,
    said: str,
    remedy: str,
) -> None:
    admin.execute("CREATE DATABASE closed")
    admin.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    with translating(server) as port:
        told = refused(f"postgresql://{user}@127.0.0.1:{port}/{database}?sslmode=disable&gssencmode=disable")
    admin.execute("DROP DATABASE closed")
    assert said in told
    assert remedy in told


def test_a_host_that_cannot_be_one_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert "check the URL" in refused(f"postgresql://me:{SECRET}@{'a' * 70}/db")
    assert capfd.readouterr().err == ""


def test_a_server_without_tls_is_no_place_for_required_tls(server: PostgresServer, schema: str) -> None:
    assert "sslmode" in refused(url_of(server, schema, more="&sslmode=require"))


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{nobody.getsockname()[1]}"
        told = refused(f"postgresql://me:{SECRET}@{place}/db", BackendUnavailable, deadline=0.5)
    assert place in told


def test_a_server_that_says_nothing_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        told = refused(f"postgresql://me:{SECRET}@{place}/db", BackendUnavailable, deadline=0.5)
    assert place in told


def test_a_role_that_may_not_create_the_schema_is_told_what_to_run(
    server: PostgresServer, admin: psycopg.Connection, schema: str, role: str
) -> None:
    told = refused(url_of(server, schema, role))
    command = re.search(r"CREATE SCHEMA .*", told)
    assert command is not None
    admin.execute(command[0].encode())
    with open_backend(url_of(server, schema, role)) as backend:
        own(backend).close()


def test_a_role_without_rights_on_the_schema_is_refused(server: PostgresServer, schema: str, role: str) -> None:
    open_backend(url_of(server, schema)).close()
    assert "GRANT" in refused(url_of(server, schema, role))


def test_a_role_that_may_only_read_is_told_what_it_lacks_and_reads(
    server: PostgresServer, admin: psycopg.Connection, schema: str, role: str
) -> None:
    with open_backend(url_of(server, schema)) as backend:
        own(backend).apply(Changes([SyncToken("t")]))
    name = Identifier(schema)
    admin.execute(
        SQL("GRANT USAGE ON SCHEMA {0} TO guest; GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO guest").format(name)
    )
    admin.execute(SQL("UPDATE {} SET role = 'guest'").format(Identifier(schema, "account")))
    with open_backend(url_of(server, schema, role, more="&migrate=never")) as backend:
        with pytest.raises(
            ConfigurationError, match="permission denied for table account; GRANT the right to the role"
        ):
            own(backend)
        assert read(backend).get(SyncToken, [()]) == {(): SyncToken("t")}


def test_without_migrations_missing_tables_are_told(
    server: PostgresServer, admin: psycopg.Connection, schema: str
) -> None:
    assert "migrate=auto" in refused(url_of(server, schema, more="&migrate=never"), SchemaError)
    assert admin.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None


def test_a_role_that_may_only_change_rows_does_all_the_work(
    server: PostgresServer, admin: psycopg.Connection, schema: str, role: str
) -> None:
    open_backend(url_of(server, schema)).close()
    name = Identifier(schema)
    admin.execute(SQL("GRANT USAGE ON SCHEMA {} TO guest").format(name))
    admin.execute(SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO guest").format(name))
    with open_backend(url_of(server, schema, role, more="&migrate=never")) as backend:
        store = own(backend)
        records = [record for kind in KINDS for record in samples(kind, 2)]
        store.apply(Changes(records))
        store.apply(Changes(deletes=[(type(record), record.key) for record in records]))
        backend.delete_account(ALICE)


def test_first_starts_migrate_once_whatever_the_roles_defaults_are(
    server: PostgresServer, admin: psycopg.Connection, schema: str
) -> None:
    defaults = (
        "-c default_transaction_isolation=serializable -c lock_timeout=1ms -c default_transaction_deferrable=on "
        "-c standard_conforming_strings=off -c search_path=nowhere -c plpgsql.variable_conflict=use_column"
    )
    with ThreadPoolExecutor() as threads:
        with admin.transaction():
            admin.execute("SELECT pg_advisory_xact_lock(%s)", [_lock_number(schema)])
            starts = [threads.submit(open_backend, url_of(server, schema), options=defaults) for _ in range(3)]
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_until(lambda: admin.execute(waiting).fetchone() == (3,))
        for start in starts:
            with start.result() as backend:
                own(backend).apply(Changes(samples(SyncToken, 1)))


def test_a_role_that_may_not_write_is_told(server: PostgresServer, schema: str) -> None:
    open_backend(url_of(server, schema)).close()
    with open_backend(url_of(server, schema), options="-c default_transaction_read_only=on", deadline=1) as backend:
        assert not backend.health().writable
        with pytest.raises(BackendUnavailable, match="target_session_attrs=read-write"):
            own(backend)


def test_schemas_and_databases_side_by_side_know_nothing_of_each_other(
    server: PostgresServer, admin: psycopg.Connection, schema: str, breakable_database: PostgresDatabase
) -> None:
    other = breakable_database.new_schema()
    admin.execute(SQL("CREATE DATABASE beside OWNER {}").format(Identifier(ROLE)))
    urls = [url_of(server, schema), url_of(server, other), url_of(server, schema, database="beside")]
    for number, url in enumerate(urls):
        with open_backend(url) as backend:
            assert backend.accounts() == {}
            own(backend).apply(Changes([SyncToken(str(number))]))
    for number, url in enumerate(urls):
        with open_backend(url) as backend:
            assert own(backend).get(SyncToken, [()]) == {(): SyncToken(str(number))}
    breakable_database.drop_schema(other)
    admin.execute("DROP DATABASE beside WITH (FORCE)")


def test_a_database_in_another_encoding_is_refused(
    server: PostgresServer, admin: psycopg.Connection, schema: str
) -> None:
    admin.execute(
        SQL("CREATE DATABASE latin OWNER {} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'").format(Identifier(ROLE))
    )
    assert "UTF8" in refused(url_of(server, schema, database="latin"))
    admin.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Upper",
        "1st",
        "a-b",
        "a.b",
        "a b",
        'x"; DROP SCHEMA public; --',
        "x'; --",
        "pg$",
        "ü",
        "a" * 64,
        "{schema}",
        "%s",
        "pg_keys",
    ],
)
def test_a_schema_that_is_no_plain_name_is_refused(name: str) -> None:
    assert "schema" in refused("postgresql://me@127.0.0.1:1/db", schema=name)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}%ZZ@127.0.0.1/db",
        f"postgresql://me:{SECRET}/x@127.0.0.1/db",
        f"postgresql://me:{SECRET}#x@127.0.0.1/db",
        f"postgresql://me:{SECRET}?x@127.0.0.1/db",
        f"postgresql://me:1234/{SECRET}@127.0.0.1/db",
        f"postgresql://me:x#{SECRET}@127.0.0.1/db",
        f"postgresql://me:x?{SECRET}@127.0.0.1/db",
        f"postgresql://me:x?{SECRET}=@127.0.0.1/db",
        f"postgresql://me:x@{SECRET}@127.0.0.1/db/@",
        f"postgresql://me:{SECRET}@127.0.0.1:port/db",
        f"postgresql://me:{SECRET}@127.0.0.1/db?colour=red",
        f"postgresql://me:{SECRET}@127.0.0.1/db?schema=a&schema=b",
        f"postgresql://me:{SECRET}@127.0.0.1/db?migrate=perhaps",
        f"postgresql://me:{SECRET}@127.0.0.1/db?pool_size=0",
        f"postgresql://me:{SECRET}@127.0.0.1/db?pool_size=many",
        f"postgresql://me:{SECRET}@127.0.0.1/db?pool_size=1001",
        f"postgresql://me:{SECRET}@127.0.0.1/db?deadline=never",
        f"postgresql://me:{SECRET}@127.0.0.1/db?sslmode=perhaps",
        f"postgresql://127.0.0.1/db?user=me&password={SECRET}&colour=red",
        f"postgresql://[::1/db?password={SECRET}",
        f"postgresql://me:x@{SECRET}@127.0.0.1/db",
        f"postgresql://me:{SECRET}/db",
        f"postgresql://127.0.0.1,me:{SECRET}/db",
        f"postgresql:/me:{SECRET}/db",
        f"postgresql:password={SECRET} host=127.0.0.1",
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str) -> None:
    refused(url)
