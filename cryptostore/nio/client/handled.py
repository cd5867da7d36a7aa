"""To-device ciphertexts that were handled before their sync was: the server may send them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from cryptostore import records
from cryptostore.nio.standins import stored_id
from cryptostore.records.changes import Changes

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
        found = storage.select(records.OlmMessage, [()])
        #: A record that cannot be read says as much by its key.
        self._saved: set[MessageKey] = {
            (str(key[0]), str(key[1]))
            for key in [*(row.key for row in found[()]), *found.unreadable]
            if key is not None
        }
        self._unsaved: set[MessageKey] = set()
        #: Those that came after the durable token; of an earlier process it is not known.
        self._ahead = set(self._saved)
        #: Of the sync that is being handled, and whether they came after the token that completes it.
        self._noted: dict[MessageKey, bool] = {}
        self._is_ahead = False

    @staticmethod
    def key(sender_key: str, ciphertext: str) -> MessageKey:
        """What a ciphertext is remembered by."""
        return stored_id(sender_key), hashlib.sha256(ciphertext.encode(errors="surrogatepass")).hexdigest()

    def __contains__(self, key: MessageKey) -> bool:
        return key in self._saved or key in self._unsaved

    def add(self, key: MessageKey) -> None:
        """Remember a ciphertext until the token of its sync is durable."""
        self._unsaved.add(key)
        self._noted[key] = self._is_ahead
        self._storage.touch()

    def came_again(self, key: MessageKey) -> None:
        """The server sent a ciphertext that was handled before: others that came after it may follow."""
        self._noted[key] = self._is_ahead

    @contextmanager
    def ahead_of_token(self) -> Iterator[None]:
        """What is handled inside the block came after the token that completes this sync: later ones cover it."""
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
        rows = [records.OlmMessage(*key) for key in self._unsaved]
        self._saved |= self._unsaved
        self._unsaved = set()
        return Changes(rows)

    def forget(self) -> Changes:
        """What the batch with the token writes: the server will not send these again."""
        ahead = {key for key, is_ahead in self._noted.items() if is_ahead}
        if not self._ahead.isdisjoint(self._noted):
            # The server keeps what was acknowledged, and brings it page by page.
            ahead |= self._ahead.difference(self._noted)
        gone = self._saved - ahead
        self._saved, self._unsaved, self._ahead, self._noted = self._saved & ahead, self._unsaved & ahead, ahead, {}
        return Changes(deletes=[(records.OlmMessage, key) for key in gone])
