"""What the suite's child processes do: `python -m cryptostore_contract.worker TASK [ARGUMENT …]`.

The database's URL comes in the environment, since a process list shows arguments. A child says what it did in lines on
its standard output, each written as soon as it is true.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from cryptostore import (
    KINDS,
    Account,
    BackendUnavailable,
    Changes,
    CryptoStore,
    FencedOut,
    InboundGroupSession,
    Mode,
    OlmAccount,
    OlmMessage,
    OlmSession,
    Record,
    ReplayPage,
    SyncToken,
    Value,
    load_backend,
    open_backend,
)
from cryptostore.plugins.urls import scheme_of
from cryptostore.store.keys import encode_own_key
from cryptostore.store.values import encode_value

from .moments import Events, kill_this_process, killed_after, seconds_of
from .presence import attend
from .samples import KEY, one_of_each, sample

URL_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_URL"
ACCOUNT_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_ACCOUNT"

#: Kinds of which batch n adds record n, and kinds that every batch replaces.
ADDED: Final[tuple[type[Record], ...]] = (InboundGroupSession, OlmMessage, OlmSession, ReplayPage)
REPLACED: Final[tuple[type[Record], ...]] = (OlmAccount, SyncToken)

#: How many values every batch replaces: many, so that there is a middle to be killed in.
VALUES: Final = 60

#: Seconds that a forked process is given before it counts as hanging.
FORK_SECONDS: Final = 60


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


def replacement(number: int) -> Changes:
    """The batch of this number that replaces all that the one before it left: as much is stored after it as before.

    So the same commit can be made again and again, with the same events each time.
    """
    values = [Value("replaced", f"{position:03}", str(number).encode()) for position in range(VALUES)]
    replaced = [(type(record), record.key) for record in one_of_each(number - 1) if record.key]
    return Changes([*one_of_each(number), *values], replaced)


def digest(store: CryptoStore) -> str:
    """A hash over every record of an account."""
    seen = hashlib.sha256()
    for kind in KINDS:
        for record in store.scan(kind):
            seen.update(encode_own_key(record) + encode_value(record))
    return seen.hexdigest()


def write(account: Account, count: str = "0") -> None:
    """Own the account and apply batches, `count` of them or for ever; say each number once it is acknowledged."""
    with open_backend(os.environ[URL_VARIABLE]) as backend:
        say("opening")
        store = backend.open_store(account, pickle_key=KEY)
        say(f"from {store.ownership.sequence}")
        try:
            for number in range(
                store.ownership.sequence + 1, store.ownership.sequence + 1 + (int(count) or sys.maxsize)
            ):
                store.apply(batch(number))
                say(f"{number}")
        except FencedOut as error:
            say(f"fenced by {error.owner}")


def write_if_let(account: Account) -> None:
    """Apply one batch, or say that the database is not to be had."""
    try:
        write(account, "1")
    except BackendUnavailable:
        say("unavailable")


def read(account: Account) -> None:
    """Say what the account's records come to."""
    with open_backend(os.environ[URL_VARIABLE]) as backend:
        say(digest(backend.open_store(account, Mode.READ, pickle_key=KEY)))


def first_start(account: Account) -> None:
    """Wait for the word, then open the database, which may be empty."""
    say("ready")
    if not sys.stdin.readline():
        sys.exit("the parent ended before it gave the word")
    with open_backend(os.environ[URL_VARIABLE]) as backend:
        backend.open_store(account, pickle_key=KEY).close()
        say(f"schema {backend.schema().version}")


@contextmanager
def next_commit(account: Account) -> Iterator[Callable[[], None]]:
    """A call that applies the next replacement in an account, with all that comes before that done."""
    with open_backend(os.environ[URL_VARIABLE]) as backend:
        store = backend.open_store(account, pickle_key=KEY)
        yield functools.partial(store.apply, replacement(store.ownership.sequence + 1))


def count_events(account: Account) -> None:
    """Say how many events one commit has."""
    # Before the backend has threads.
    events = Events()
    with next_commit(account) as commit:
        say(f"{events.during(commit)}")


def measure(account: Account) -> None:
    """Say how many seconds one commit takes."""
    with next_commit(account) as commit:
        say(f"{seconds_of(commit)}")


def die_at_event(account: Account, number: str) -> None:
    """Apply one batch and be killed at an event in the middle of it, or behind its last; say where."""
    events = Events(int(number), say)
    with next_commit(account) as commit:
        events.during(commit)
        say("behind the last event")
        kill_this_process()


def die_after(account: Account, seconds: str) -> None:
    """Apply one batch and be killed after a time, or behind its end."""
    with next_commit(account) as commit:
        killed_after(float(seconds), commit)
        kill_this_process()


def die_around_commit(account: Account, moment: str) -> None:
    """Apply one batch and be killed "before" it, or between its commit and the answer, or when that was "said"."""
    with next_commit(account) as commit:
        if moment != "before":
            commit()
        if moment == "said":
            say("committed")
        kill_this_process()


def fork(_account: Account) -> None:
    """For each order on standard input, fork a process that carries it out, and say how that ended.

    The backend's plugin is imported once, here, which may be most of what a process costs; nothing is opened.
    """
    load_backend(scheme_of(os.environ[URL_VARIABLE]))
    # What the core works out once for each kind would be most of the events of a batch that comes first.
    one_of_each()
    for order in sys.stdin:
        process = os.fork()
        if not process:
            # If it hangs, and also if its parent is gone.
            signal.alarm(FORK_SECONDS)
            die_applying(*pickle.loads(bytes.fromhex(order)))  # noqa: S301  # the suite's own words
            sys.exit()
        _, status = os.waitpid(process, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


def die_applying(account: Account, owner: str, changes: Changes, moment: str) -> None:
    """Own an account, apply a batch and be killed at one of its events, or where `die_around_commit` says.

    Where the batch ends before that event, that is said; the event "0" is none, and only counted for.
    """
    events = Events(int(moment) if moment.isdigit() else 0)
    with open_backend(os.environ[URL_VARIABLE], owner=owner) as backend:
        store = backend.open_store(account, pickle_key=KEY)
        say(f"epoch {store.ownership.epoch}")
        if moment == "before":
            kill_this_process()
        count = events.during(functools.partial(store.apply, changes))
        if moment != "unsaid":
            say(f"applied {count}")
        if moment != "0":
            kill_this_process()


def say(line: str) -> None:
    """One line, at once, and past every buffer of this process."""
    os.write(1, f"{line}\n".encode())


TASKS: Final[Mapping[str, Callable[..., None]]] = {
    "write": write,
    "write-if-let": write_if_let,
    "read": read,
    "first-start": first_start,
    "count-events": count_events,
    "measure": measure,
    "die-at-event": die_at_event,
    "die-after": die_after,
    "die-around-commit": die_around_commit,
    "fork": fork,
}


if __name__ == "__main__":
    attend()
    user_id, device_id = os.environ[ACCOUNT_VARIABLE].split("\n")
    TASKS[sys.argv[1]](Account(user_id, device_id), *sys.argv[2:])
