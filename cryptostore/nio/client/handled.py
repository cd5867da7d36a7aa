"""To-device ciphertexts that were handled before their sync was: the server may send them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from cryptostore import records
from cryptostore.changes import Changes
from cryptostore.nio.pickles import if_valid

from .buffer import BufferedStorage

#: Sender key and hash: the record's key.
MessageKey = tuple[str, str]


class HandledMessages:
    """Which ciphertexts were handled since the last durable token.

    An Olm ratchet reads a message once. Without this memory a message that comes again after a crash looks
    undecryptable, and nio would call the session wedged.
    """

    def __init__(self, storage: BufferedStorage) -> None:
        self._storage = storage
        rows = storage.select(records.OlmMessage, [()])[()]
        self._saved: set[MessageKey] = {(row.sender_key, row.hash) for row in rows}
        self._unsaved: set[MessageKey] = set()
        self._ahead: set[MessageKey] = set()
        self._is_ahead = False

    @staticmethod
    def key(sender_key: str, ciphertext: str) -> MessageKey:
        """What a ciphertext is remembered by."""
        return sender_key, hashlib.sha256(ciphertext.encode()).hexdigest()

    def __contains__(self, key: MessageKey) -> bool:
        return key in self._saved or key in self._unsaved

    def add(self, key: MessageKey) -> None:
        """Remember a ciphertext until the token of its sync is durable."""
        self._unsaved.add(key)
        if self._is_ahead:
            self._ahead.add(key)
        self._storage.touch()

    @contextmanager
    def ahead_of_token(self) -> Iterator[None]:
        """What is handled inside the block came after the token that completes this sync: the next one covers it."""
        self._is_ahead = True
        try:
            yield
        finally:
            self._is_ahead = False

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._unsaved)

    def collect(self) -> Changes:
        """What a flush in the middle of a sync writes."""
        rows = [if_valid(partial(records.OlmMessage, *key)) for key in self._unsaved]
        self._saved |= self._unsaved
        self._unsaved = set()
        return Changes(row for row in rows if row is not None)

    def forget(self) -> Changes:
        """What the batch with the token writes: the server will not send these again."""
        gone = self._saved - self._ahead
        valid = [row for key in gone if (row := if_valid(partial(records.OlmMessage, *key))) is not None]
        self._saved, self._unsaved, self._ahead = self._saved & self._ahead, self._unsaved & self._ahead, set()
        return Changes(deletes=[(records.OlmMessage, row.key) for row in valid])
