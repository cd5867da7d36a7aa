"""URLs with several hosts: which is tried first, and when a refusal is final. And servers that say nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest

from cryptostore import BackendUnavailable, ConfigurationError, open_backend
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.waiting import result_of, start
from cryptostore_postgres.database import PostgresDatabase as Database
from cryptostore_postgres.hosts import Hosts
from cryptostore_postgres.options import parse
from patience import PATIENCE, wait_until
from postgres_database import DATABASE, ROLE, PostgresDatabase
from postgres_server import PostgresServer


def given(query: str, *names: str) -> list[tuple[str | None, ...]]:
    """What libpq is given for each host of a URL."""
    url = f"postgresql://{query}"
    _, _, options = url.partition("?")
    parsed = parse(url, dict(each.split("=") for each in options.split("&") if each))
    return [tuple(host.connection.get(name) for name in names) for host in Hosts(parsed).in_order()]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a/db", [("a", None)]),
        ("a:1/db", [("a", "1")]),
        ("a,b/db", [("a", ""), ("b", "")]),
        ("a:1,b:2/db", [("a", "1"), ("b", "2")]),
        ("a,b/db?port=7", [("a", "7"), ("b", "7")]),
        ("/db?host=/tmp,b&port=1,2", [("/tmp", "1"), ("b", "2")]),
        # libpq says what is wrong with these.
        ("a,b,c/db?port=1,2", [("a,b,c", "1,2")]),
        # And this one it must see whole.
        ("a,b/db?target_session_attrs=prefer-standby", [("a,b", ",")]),
    ],
)
def test_each_host_is_tried_by_itself(query: str, expected: list[tuple[str, str | None]]) -> None:
    assert given(query, "host", "port") == expected


def test_addresses_go_with_their_hosts() -> None:
    expected = [("a", "10.0.0.1"), ("b", "10.0.0.2")]
    assert given("a,b/db?hostaddr=10.0.0.1,10.0.0.2", "host", "hostaddr") == expected


def test_of_several_hosts_only_the_primary_will_do_unless_the_url_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "target_session_attrs"
    assert given("a/db", name) == [(None,)]
    assert given("a,b/db", name) == [("read-write",)] * 2
    assert given("a,b/db?target_session_attrs=any", name) == [("any",)] * 2
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert given("a,b/db", name) == [("primary",)] * 2


def test_hosts_may_come_from_the_environment_and_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", ",".join("abcdefgh"))
    assert given("/db", "host") == [(each,) for each in "abcdefgh"]
    shuffled = [given("/db?load_balance_hosts=random", "host") for _ in range(10)]
    assert all(sorted(each) == sorted(shuffled[0]) for each in shuffled)
    assert len(set(map(tuple, shuffled))) > 1


def test_a_host_that_let_a_call_down_is_tried_last() -> None:
    hosts = Hosts(parse("postgresql://a,b,c/db", {}))
    a, b, c = hosts.in_order()
    hosts.put_last(a)
    assert hosts.in_order() == [b, c, a]
    hosts.put_last(c)
    assert hosts.in_order() == [b, a, c]


@pytest.fixture
def proxy(breakable_database: PostgresDatabase) -> Iterator[Proxy]:
    with Proxy(breakable_database.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stranger() -> Iterator[PostgresServer]:
    """A server that refuses the tests' role for good."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def refusing(stranger: PostgresServer) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", stranger.port)) as proxy:
        yield proxy


def url_of(schema: str, *ports: int) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://{ROLE}@{hosts}/{DATABASE}?schema={schema}&sslmode=disable&gssencmode=disable"


REFUSAL: Final = 'role "cryptostore" does not exist'


def test_opening_waits_for_a_host_that_is_away_while_another_one_refuses(
    schema: str, proxy: Proxy, refusing: Proxy
) -> None:
    proxy.refuse()
    opening = start(partial(open_backend, url_of(schema, proxy.port, refusing.port), deadline=PATIENCE))
    wait_until(lambda: refusing.accepted >= 2)
    proxy.accept()
    with result_of(opening) as backend:
        assert backend.health().writable


def test_at_the_deadline_what_each_host_said_is_told(schema: str, proxy: Proxy, refusing: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(BackendUnavailable, match=f"127.0.0.1:{proxy.port}.* cannot be reached") as told:
        open_backend(url_of(schema, proxy.port, refusing.port), deadline=1)
    assert REFUSAL in str(told.value)


def test_the_refusal_of_all_hosts_is_final(schema: str, refusing: Proxy, stranger: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match=f"{REFUSAL}.*{REFUSAL}"):
        open_backend(url_of(schema, stranger.port, refusing.port), deadline=PATIENCE)
    assert refusing.accepted == 1, "it is of no use to try again"


def is_asked(server: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    server.setblocking(False)
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def silent_server() -> Iterator[socket.socket]:
    """One that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_silent_host_leaves_time_for_the_others(breakable_database: PostgresDatabase, schema: str) -> None:
    assert breakable_database.server is not None
    with silent_server() as silent:
        ports = (silent.getsockname()[1], breakable_database.server.port)
        # Half of it is for the first attempt: less than the least time that the driver gives a host.
        with open_backend(url_of(schema, *ports), deadline=3.9) as backend, silent.accept()[0]:
            assert isinstance(backend.database, Database)
            # While another host answers, it is not asked again.
            with backend.database._connections.use(PATIENCE), backend.database._connections.use(PATIENCE):
                assert not is_asked(silent)


def test_openers_of_a_silent_server_do_not_wait_for_each_other(schema: str) -> None:
    with silent_server() as silent, contextlib.ExitStack() as taken:
        url = url_of(schema, silent.getsockname()[1])
        opening = [start(partial(open_backend, url, deadline=5)) for _ in range(4)]
        silent.settimeout(PATIENCE)
        accepted = [taken.enter_context(silent.accept()[0]) for _ in opening]
        # One that came after another's time was over would find that one gone.
        assert [is_open(each) for each in accepted] == [True] * 4
        for each in opening:
            with pytest.raises(
                BackendUnavailable,
                match=r"did not answer within .* s; check that the server runs",
            ) as caught:
                result_of(each)
            # By the name that users know.
            assert type(caught.value) is BackendUnavailable


def is_open(connection: socket.socket) -> bool:
    """Whether the client has not closed it, whatever it has sent."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    return False
