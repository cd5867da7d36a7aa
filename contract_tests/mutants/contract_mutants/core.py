"""Mutants of the core, which is the same on every backend: batches, handles and keys. They are tried on memory."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

from cryptostore import (
    Backend,
    Changes,
    CryptoStore,
    DatabaseWentBack,
    FencedOut,
    FieldType,
    InboundGroupSession,
    Key,
    Record,
    ReplayPage,
    Selected,
)
from cryptostore.store import keys, ownership
from cryptostore.store.attempts import Attempts
from cryptostore.store.keys import range_of
from cryptostore.store.lifecycle import OpenFlag
from cryptostore.store.sequence import BatchSequence, Put

from .registry import mutant

R = TypeVar("R", bound=Record)

_Send = Callable[[BatchSequence[Any], Any, Attempts], None]


def _change_sending(
    patch: pytest.MonkeyPatch, changed: Callable[[_Send, BatchSequence[Any], Any, Attempts], None]
) -> None:
    """Let a batch be sent in another way; `changed` gets the sound one before its arguments."""
    original = BatchSequence._send
    patch.setattr(BatchSequence, "_send", lambda *arguments: changed(original, *arguments))


@mutant("NUMBERING-6")
def resent_batch_sealed_again(patch: pytest.MonkeyPatch) -> None:
    """Each attempt is another batch under the same number."""

    def send(sound: _Send, sequence: BatchSequence[Any], sent: Any, attempts: Attempts) -> None:
        commit = sequence._commit
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                sequence, "_commit", lambda batch, timeout: commit(sequence._seal(batch.number, sent.changes), timeout)
            )
            sound(sequence, sent, attempts)

    _change_sending(patch, send)


@mutant("NUMBERING-6")
def pending_batch_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Lost update: the next batch takes the number of one whose outcome is open."""
    original = BatchSequence.apply

    def apply(sequence: BatchSequence[Any], changes: Changes, *attempts: Any) -> Put:
        sequence._pending = None
        return original(sequence, changes, *attempts)

    patch.setattr(BatchSequence, "apply", apply)


@mutant("NUMBERING-7")
def pending_batch_sent_under_two_numbers(patch: pytest.MonkeyPatch) -> None:
    """A caller that applies its batch again has it applied twice."""

    def send(sound: _Send, sequence: BatchSequence[Any], sent: Any, attempts: Attempts) -> None:
        pending = sequence._pending
        sound(sequence, sent, attempts)
        if pending is not None:
            sound(sequence, sent._replace(batch=sent.batch._replace(number=sent.batch.number + 1)), attempts)

    _change_sending(patch, send)


@mutant("NUMBERING-8")
def outcome_said_to_be_known(patch: pytest.MonkeyPatch) -> None:
    """FencedOut after a lost answer looks as if nothing had been committed."""

    def send(sound: _Send, *arguments: Any) -> None:
        try:
            sound(*arguments)
        except FencedOut as error:
            error.outcome_unknown = False
            raise

    _change_sending(patch, send)


@mutant("NUMBERING-9")
def interrupted_batch_forgotten(patch: pytest.MonkeyPatch) -> None:
    """An interrupt counts as a failure."""

    def send(sound: _Send, sequence: BatchSequence[Any], *arguments: Any) -> None:
        try:
            sound(sequence, *arguments)
        except KeyboardInterrupt:
            sequence._pending = None
            raise

    _change_sending(patch, send)


@mutant("NUMBERING-10")
def closing_sends_what_is_pending(patch: pytest.MonkeyPatch) -> None:
    """A store that closes commits what its caller has given up."""
    original = CryptoStore.close

    def close(store: CryptoStore) -> None:
        if store._sequence._pending is not None:
            store._commit(store._sequence._pending.batch, 5)
        original(store)

    patch.setattr(CryptoStore, "close", close)


@mutant("STORAGE-2", backend="sqlite")
def refused_batch_kept_as_pending(patch: pytest.MonkeyPatch) -> None:
    """A batch that was rolled back for certain is sent again before the next."""

    def send(sound: _Send, sequence: BatchSequence[Any], sent: Any, attempts: Attempts) -> None:
        try:
            sound(sequence, sent, attempts)
        except Exception:
            # Whatever it was: that it keeps the batch is the bug, and the error goes on.
            sequence._pending = sent
            raise

    _change_sending(patch, send)


@mutant("BACKUPS-1", "BACKUPS-3")
def older_database_gone_on_with(patch: pytest.MonkeyPatch) -> None:
    """What a database does not commit because it is older than its owner knows counts as committed."""

    def confirm(*arguments: Any) -> None:
        with contextlib.suppress(DatabaseWentBack):
            ownership.confirm(*arguments)

    patch.setattr("cryptostore.store.crypto_store.confirm", confirm)


@mutant("NUMBERING-5")
def attempts_numbered(patch: pytest.MonkeyPatch) -> None:
    """Each attempt at a batch has a number of its own."""

    def send(sound: _Send, sequence: BatchSequence[Any], sent: Any, attempts: Attempts) -> None:
        commit, numbers = sequence._commit, itertools.count(sent.batch.number)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                sequence, "_commit", lambda batch, timeout: commit(batch._replace(number=next(numbers)), timeout)
            )
            sound(sequence, sent, attempts)

    _change_sending(patch, send)


@mutant("BATCHES-4")
def empty_batch_counted(patch: pytest.MonkeyPatch) -> None:
    """Nothing is committed, and has a number."""
    patch.setattr(Changes, "__bool__", lambda _changes: True, raising=False)


@mutant("BATCHES-8")
def reader_writes(patch: pytest.MonkeyPatch) -> None:
    """A store that was opened for reading goes on as the owner that it found."""
    patch.setattr(CryptoStore, "_check_writing", lambda store: store._is_open.check())


@mutant("LIFECYCLE-1", "LIFECYCLE-3")
def closed_store_answers(patch: pytest.MonkeyPatch) -> None:
    """Closing closes nothing."""
    patch.setattr(OpenFlag, "check", lambda _flag: None)


@mutant("LIFECYCLE-2")
def closed_backend_answers(patch: pytest.MonkeyPatch) -> None:
    """Closing a backend closes nothing."""
    patch.setattr(Backend, "close", lambda _backend: None)


@mutant("LIFECYCLE-4")
def store_closes_its_backend(patch: pytest.MonkeyPatch) -> None:
    """The first store that closes takes the connections of all with it."""
    original = CryptoStore.close

    def close(store: CryptoStore) -> None:
        original(store)
        if store._is_open._within is not None:
            store._is_open._within.close()

    patch.setattr(CryptoStore, "close", close)


@mutant("LIFECYCLE-5")
def block_leaves_open(patch: pytest.MonkeyPatch) -> None:
    """The end of a with block closes nothing."""
    for owner in (CryptoStore, Backend):
        patch.setattr(owner, "__exit__", lambda *_arguments: None)


@mutant("RECORDS-5")
def keys_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Keys and prefixes go to the database as they come."""
    patch.setattr("cryptostore.store.keys.check_key", lambda _kind, key: key)
    patch.setattr("cryptostore.store.keys.check_prefix", lambda _kind, prefix: prefix)


@mutant("RECORDS-6")
def large_records_stored(patch: pytest.MonkeyPatch) -> None:
    """The size of a record is not checked."""
    patch.setattr("cryptostore.store.sealing.MAX_STORED_BYTES", 2**40)


@mutant("READING-4")
def asked_twice_answered_twice(patch: pytest.MonkeyPatch) -> None:
    """A prefix has each of its records as often as it was named."""
    original = CryptoStore.select

    def select(store: CryptoStore, kind: type[R], prefixes: Iterable[Key]) -> Selected[R]:
        asked = list(prefixes)
        selected = original(store, kind, asked)
        for prefix in selected:
            selected[prefix] *= asked.count(prefix)
        return selected

    patch.setattr(CryptoStore, "select", select)


@mutant("READING-9")
def prefixes_cut_to_one_field(patch: pytest.MonkeyPatch) -> None:
    """Of a prefix of several fields, all but the first are left out of account."""
    original = CryptoStore.select

    def select(store: CryptoStore, kind: type[R], prefixes: Iterable[Key]) -> Selected[R]:
        selected: Selected[R] = Selected()
        for prefix in prefixes:
            selected[prefix] = original(store, kind, [prefix[:1]])[prefix[:1]]
        return selected

    patch.setattr(CryptoStore, "select", select)


@mutant("READING-6")
def records_in_reverse(patch: pytest.MonkeyPatch) -> None:
    """What is selected comes with the last key first."""
    original = CryptoStore.select

    def select(store: CryptoStore, kind: type[R], prefixes: Iterable[Key]) -> Selected[R]:
        selected = original(store, kind, prefixes)
        for found in selected.values():
            found.reverse()
        return selected

    patch.setattr(CryptoStore, "select", select)


@mutant("READING-12")
def prefixes_without_a_record_left_out(patch: pytest.MonkeyPatch) -> None:
    """A prefix under which nothing is has no list."""
    original = CryptoStore.select

    def select(store: CryptoStore, kind: type[R], prefixes: Iterable[Key]) -> Selected[R]:
        selected = original(store, kind, prefixes)
        for prefix in [prefix for prefix, found in selected.items() if not found]:
            del selected[prefix]
        return selected

    patch.setattr(CryptoStore, "select", select)


@mutant("SCANNING-2")
def prefix_leaks_a_neighbour(patch: pytest.MonkeyPatch) -> None:
    """The prefix ("!a",) selects the room "!ab" as well."""
    patch.setattr("cryptostore.store.keys.range_of", lambda prefix: range_of(prefix.removesuffix(b"\x00")))


@mutant("READING-7")
def integers_written_from_their_end(patch: pytest.MonkeyPatch) -> None:
    """The bytes of an integer stand the wrong way round: 256 comes before 1."""
    patch.setattr(keys, "_forms", {})
    encoders: Any = keys._ENCODERS
    decoders: Any = keys._DECODERS
    patch.setitem(encoders, FieldType.COUNT, lambda value: value.to_bytes(8, "little"))
    patch.setitem(
        decoders, FieldType.COUNT, lambda encoded, at: (int.from_bytes(encoded[at : at + 8], "little"), at + 8)
    )


@mutant("READING-13")
def pages_of_another_session_deleted(patch: pytest.MonkeyPatch) -> None:
    """Anyone can claim a session's id: its replay pages are looked for without the sender's key."""

    def session_deletion(store: CryptoStore, session: InboundGroupSession) -> Changes:
        pages = store.select(ReplayPage, [(session.session_id,)])[session.session_id,]
        return Changes(deletes=[(type(session), session.key), *((ReplayPage, page.key) for page in pages)])

    patch.setattr(CryptoStore, "session_deletion", session_deletion)


@mutant("SCANNING-3")
def page_begins_behind_a_field(patch: pytest.MonkeyPatch) -> None:
    """The next page begins above all keys with the first field of the last one, not above that key."""
    patch.setattr("cryptostore.store.crypto_store.successor", lambda key: range_of(key[: key.index(b"\x00") + 1]).end)


@mutant("SCANNING-1")
def page_begins_with_the_last_ones_end(patch: pytest.MonkeyPatch) -> None:
    """A page begins with the row that the one before it ended with."""
    patch.setattr("cryptostore.store.crypto_store.successor", lambda key: key)
