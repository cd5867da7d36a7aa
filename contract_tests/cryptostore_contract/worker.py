"""What the suite's child processes do: `python -m cryptostore_contract.worker TASK [NUMBER]`.

The database's URL comes in the environment, since a process list shows arguments. A child says what it did in lines on
its standard output, each written as soon as it is true.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Final

from cryptostore import (
    KINDS,
    Account,
    Changes,
    CryptoStore,
    FencedOut,
    InboundGroupSession,
    MessageIndex,
    Mode,
    OlmAccount,
    OlmMessage,
    OlmSession,
    Record,
    SyncToken,
    Value,
    fields_of,
    open_backend,
)

from .samples import sample

URL_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_URL"
ACCOUNT_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_ACCOUNT"

#: Kinds of which batch n adds record n, and kinds that every batch replaces.
ADDED: Final[tuple[type[Record], ...]] = (InboundGroupSession, MessageIndex, OlmMessage, OlmSession)
REPLACED: Final[tuple[type[Record], ...]] = (OlmAccount, SyncToken)

#: How many values every batch replaces: many, so that there is a middle to be killed in.
VALUES: Final = 60


def batch(number: int) -> Changes:
    """The batch of a writer that has this number: added to and replacing what the batches before it left."""
    records: list[Record] = [sample(kind, number) for kind in (*ADDED, *REPLACED)]
    values = [Value("replaced", f"{position:03}", str(number).encode()) for position in range(VALUES)]
    return Changes([*records, *values], [(OlmMessage, sample(OlmMessage, number - 1).key)])


def left_by(number: int) -> dict[type[Record], list[Record]]:
    """All that is stored after a writer's batches up to `number`."""
    if number == 0:
        return {}
    stored: dict[type[Record], list[Record]] = {kind: [sample(kind, number)] for kind in (*REPLACED, OlmMessage)}
    stored |= {kind: [sample(kind, n) for n in range(1, number + 1)] for kind in ADDED if kind is not OlmMessage}
    return stored | {Value: batch(number).puts(Value)}


def digest(store: CryptoStore) -> str:
    """A hash over every record of an account."""
    seen = hashlib.sha256()
    for kind in KINDS:
        for record in store.scan(kind):
            seen.update(repr(sorted_fields(record)).encode())
    return seen.hexdigest()


def sorted_fields(record: Record) -> list[object]:
    """A record's values in a form that has one repr, whatever the order in a set or mapping."""
    values = [getattr(record, name) for name, _ in fields_of(type(record))]
    return [
        sorted(value.items() if isinstance(value, Mapping) else value, key=repr)
        if isinstance(value, (Mapping, frozenset))
        else value
        for value in values
    ]


def write(account: Account, count: int) -> None:
    """Own the account and apply batches, `count` of them or for ever; say each number once it is acknowledged."""
    with open_backend(os.environ[URL_VARIABLE]) as backend:
        say("opening")
        store = backend.open_store(account)
        say(f"from {store.ownership.sequence}")
        try:
            for number in range(store.ownership.sequence + 1, store.ownership.sequence + 1 + (count or sys.maxsize)):
                store.apply(batch(number))
                say(f"{number}")
        except FencedOut as error:
            say(f"fenced by {error.owner}")


def read(account: Account, _count: int) -> None:
    """Say what the account's records come to."""
    with open_backend(os.environ[URL_VARIABLE]) as backend, backend.open_store(account, Mode.READ) as store:
        say(digest(store))


def first_start(account: Account, _count: int) -> None:
    """Wait for the word, then open the database, which may be empty."""
    say("ready")
    sys.stdin.readline()
    with open_backend(os.environ[URL_VARIABLE]) as backend:
        backend.open_store(account).close()
        say(f"schema {backend.schema().version}")


def say(line: str) -> None:
    """One line, at once, and past every buffer of this process."""
    os.write(1, f"{line}\n".encode())


TASKS: Final[Mapping[str, Callable[[Account, int], None]]] = {
    "write": write,
    "read": read,
    "first-start": first_start,
}


if __name__ == "__main__":
    user_id, device_id = os.environ[ACCOUNT_VARIABLE].split("\n")
    TASKS[sys.argv[1]](Account(user_id, device_id), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
