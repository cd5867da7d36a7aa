"""What every case group stands on: the harness that the backend's author provides, and handles on its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cryptostore import BackendUnavailable, CryptoStore, CryptoStoreError
from cryptostore_contract.handles import Handles
from cryptostore_contract.harness import Harness
from cryptostore_contract.raw import RawOwner
from cryptostore_contract.waiting import finishes

#: A deadline in seconds for a handle that only looks whether there is a server.
_LOOK = 0.5


class CaseGroup:
    """A group of cases. Its cases run in subclasses that have a `harness` fixture."""

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        """An empty database for one case."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a fixture named `harness` whose body is "
            "`yield from managed(YourHarness(…))`; see cryptostore_contract.Harness"
        )

    @pytest.fixture
    def handles(self, harness: Harness) -> Iterator[Handles]:
        """Opens the database as often as a case likes."""
        handles = Handles(harness)
        try:
            yield handles
        finally:
            handles.close()

    @pytest.fixture
    def store(self, handles: Handles) -> CryptoStore:
        """Alice's account, owned."""
        return handles.own()

    @pytest.fixture
    def reader(self, store: CryptoStore, handles: Handles) -> CryptoStore:
        """The same account in READ mode, through another handle."""
        return handles.read(store.account)

    @pytest.fixture
    def raw(self, handles: Handles) -> RawOwner:
        """Alice's account, owned past the core."""
        return handles.raw()


@contextmanager
def nothing_in_the_way(reason: str) -> Iterator[None]:
    """Fails for the reason given if the database refuses what the block asks for."""
    try:
        yield
    except CryptoStoreError as error:
        pytest.fail(f"{reason}: {type(error).__name__}: {error}")


def assert_away(harness: Harness) -> None:
    """Fails if the server is within reach: what a case sees of it means nothing then."""

    def look() -> None:
        with harness.open(deadline=_LOOK) as backend:
            backend.accounts()

    with pytest.raises(BackendUnavailable):
        finishes(look)
