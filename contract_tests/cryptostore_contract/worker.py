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
    CryptoStoreError,
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
from cryptostore.plugins import loading
from cryptostore.plugins.observers import observers
from cryptostore.plugins.urls import scheme_of
from cryptostore.store.keys import encode_own_key
from cryptostore.store.values import encode_value

from .moments import Events, kill_this_process, killed_after, seconds_of
from .presence import attend
from .samples import KEY, one_of_each, sample
from .steps import Steps

URL_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_URL"
ACCOUNT_VARIABLE: Final = "CRYPTOSTORE_CONTRACT_ACCOUNT"

#: Kinds of which batch n adds record n, and kinds that every batch replaces.
ADDED: Final[tuple[type[Record], ...]] = (InboundGroupSession, OlmMessage, OlmSession, ReplayPage)
REPLACED: Final[tuple[type[Record], ...]] = (OlmAccount, SyncToken)

#: How many values every batch replaces: many, so that there is a middle to be killed in.
VALUES: Final = 60

#: How often each of two processes asks, and the deadline in seconds of what both use.
FORK_LOOKS: Final = 300
FORK_DEADLINE: Final = 5.0
#: One child alone may be told by chance that the connection is in disorder, and stop before answers are mixed up.
FORKS: Final = 4

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
    """For each order on standard input, fork a process that applies a batch and is killed; see `die_applying`."""
    # What the core works out once for each kind would be most of the events of a batch that comes first.
    one_of_each()
    fork_for_each_order(lambda order: die_applying(*pickle.loads(bytes.fromhex(order))))  # noqa: S301  # our own words


def fork_starts(account: Account, *, owns: bool = False) -> None:
    """For each step on standard input, fork a process that opens the database and is killed behind that step."""
    fork_for_each_order(lambda step: die_starting(account, int(step), owns=owns))


def fork_for_each_order(carry_out: Callable[[str], None]) -> None:
    """For each line on standard input, fork a process that carries it out, and say how that ended.

    The backend's plugin and observers are looked for and imported once, here, which is most of its cost and no step of
    the backend's; nothing is opened.
    """
    loading.load_backend = functools.cache(load_backend)
    loading.load_backend(scheme_of(os.environ[URL_VARIABLE]))
    observers()
    for order in sys.stdin:
        process = os.fork()
        if not process:
            # If it hangs, and also if its parent is gone.
            signal.alarm(FORK_SECONDS)
            carry_out(order)
            sys.exit()
        _, status = os.waitpid(process, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


def die_starting(account: Account, step: int, *, owns: bool) -> None:
    """Open the database, and own the account or not; be killed behind a step of that, if it has so many."""

    def start() -> None:
        with open_backend(os.environ[URL_VARIABLE]) as backend:
            if owns:
                backend.open_store(account, pickle_key=KEY).close()

    Steps(scheme_of(os.environ[URL_VARIABLE]), step, kill_this_process, with_files=True).during(start)


def use_after_fork(account: Account) -> None:
    """Open the database, fork, and use it in both processes at once; say what was answered wrongly, and applied.

    This goes through several forks, one after the other.
    """
    with open_backend(os.environ[URL_VARIABLE], deadline=FORK_DEADLINE) as backend:
        store = backend.open_store(account, pickle_key=KEY)
        store.apply(Changes([Value("fork", name, name.encode()) for name in ("parent", "child")]))
        for _ in range(FORKS):
            process = os.fork()
            if not process:
                signal.alarm(FORK_SECONDS)
                use_in_child(store)
                backend.close()
                # As multiprocessing ends what it has forked off.
                os._exit(0)
            look_again_and_again(store, "parent")
            os.waitpid(process, 0)
            look_again_and_again(store, "parent")
        store.apply(Changes([Value("fork", "parent, later", b"")]))
        say("applied parent, later")


def use_in_child(store: CryptoStore) -> None:
    """Use a store that was opened before a fork, as long as that is not refused."""
    try:
        look_again_and_again(store, "child")
        store.apply(Changes([Value("fork", "child, later", b"")]))
        say("applied child, later")
    except CryptoStoreError as error:
        say(f"refused {type(error).__name__}")


def look_again_and_again(store: CryptoStore, name: str) -> None:
    """Say each answer that is not the one to the question."""
    for _ in range(FORK_LOOKS):
        found = store.get(Value, [("fork", name)])
        if found != {("fork", name): Value("fork", name, name.encode())}:
            say(f"wrong {name} was answered with {len(found)} values, of {[key[-1] for key in found]}")


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
    "fork-starts": fork_starts,
    "fork-owning-starts": functools.partial(fork_starts, owns=True),
    "use-after-fork": use_after_fork,
}


if __name__ == "__main__":
    attend()
    user_id, device_id = os.environ[ACCOUNT_VARIABLE].split("\n")
    TASKS[sys.argv[1]](Account(user_id, device_id), *sys.argv[2:])
