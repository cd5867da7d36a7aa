"""Which accounts are in a database, and a client that writes all the while that a command runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from cryptostore import Account, Changes, FencedOut, SyncToken, open_backend


def accounts_in(url: str) -> list[Account]:
    """The accounts in a database."""
    with open_backend(url) as backend:
        return list(backend.accounts())


@contextmanager
def written_to(url: str, account: Account, pickle_key: str) -> Iterator[list[FencedOut]]:
    """An account's client writes all the time, until it is fenced out, which is noted."""
    stop = threading.Event()
    fenced: list[FencedOut] = []
    with open_backend(url) as backend, backend.open_store(account, pickle_key=pickle_key) as store:

        def write() -> None:
            for number in count(2):
                try:
                    store.apply(Changes([SyncToken(f"s{number}")]))
                except FencedOut as error:
                    fenced.append(error)
                    return
                if stop.wait(0.01):
                    return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield fenced
        finally:
            stop.set()
            writer.join()
