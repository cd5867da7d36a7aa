"""The homeserver and the databases of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from homeserver import Homeserver
from homeserver_bed import Bed, Figure
from homeserver_example import ExampleBot
from homeserver_proxy import HomeserverProxy
from homeserver_selection import FIGURE
from postgres_database import PostgresDatabase
from postgres_fixtures import postgres_database
from postgres_pair import primary, standby, url_of_both

__all__ = ["postgres_database", "primary", "standby", "url_of_both"]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Shows a figure at the end of the run."""
    return lambda text: record_property(FIGURE, text)


@pytest.fixture(scope="session")
def homeserver() -> Iterator[Homeserver]:
    """One homeserver for this process of the run; without any, its tests fail and say what to do."""
    server = Homeserver()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def example_bot(tmp_path: Path) -> Iterator[ExampleBot]:
    """Processes of the example bot."""
    bot = ExampleBot(tmp_path)
    yield bot
    bot.close()


@pytest.fixture
def proxy(homeserver: Homeserver) -> Iterator[HomeserverProxy]:
    """Something between a client and the homeserver, where a test can put faults in."""
    proxy = HomeserverProxy(homeserver.url)
    yield proxy
    proxy.close()


@pytest.fixture
def postgres_urls(postgres_database: PostgresDatabase) -> Iterator[Callable[[], str]]:
    """Schemas that were not used before."""
    schemas: list[str] = []

    def new_url() -> str:
        schemas.append(postgres_database.new_schema())
        return postgres_database.url(schemas[-1])

    yield new_url
    for schema in schemas:
        postgres_database.drop_schema(schema)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """URLs of empty databases, on each of our durable backends."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{uuid4()}.db"
    urls: Callable[[], str] = request.getfixturevalue("postgres_urls")
    return urls


@pytest.fixture
def bed(homeserver: Homeserver, tmp_path: Path, new_url: Callable[[], str]) -> Iterator[Bed]:
    """The test bed on each backend."""
    bed = Bed(homeserver, tmp_path, new_url)
    yield bed
    bed.close()


@pytest.fixture
def any_bed(homeserver: Homeserver, tmp_path: Path) -> Iterator[Bed]:
    """The test bed for what does not depend on the backend."""
    bed = Bed(homeserver, tmp_path, lambda: f"sqlite:///{tmp_path}/{uuid4()}.db")
    yield bed
    bed.close()
