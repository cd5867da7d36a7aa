"""What a client counts about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Statistics:
    """Counts since the client was made; they only grow."""

    #: Batches that became durable, and the records and deletions in them.
    flushes: int = 0
    records: int = 0
    #: Batches that failed because the database was away or full; they are kept and tried again.
    failed_flushes: int = 0
    #: Database look-ups on the event loop, which they block. Everything that nio itself needs is fetched in a thread.
    loop_reads: int = 0
    #: Checks that this client still owns the account, after syncs with nothing to write.
    ownership_checks: int = 0
    #: Further pages of to-device messages that were read before a timeline that lacked keys.
    further_pages: int = 0
    #: To-device events that raised and were skipped.
    poisoned_events: int = 0
    #: Timeline events that raised and were left undecrypted.
    poisoned_messages: int = 0
    #: To-device ciphertexts that the server sent again and that had been handled.
    redelivered_events: int = 0
    #: Outbound group sessions used again after a restart, and those that were not fit for it.
    adopted_sessions: int = 0
    dropped_sessions: int = 0
    #: Messages refused because another event had used their Megolm message index.
    replays: int = 0
    #: Timelines that the homeserver cut short, requests for what it left out, and events handed on from them.
    gaps: int = 0
    gap_requests: int = 0
    gap_events: int = 0
    #: Records that were deleted because they were old: see `Pruning`.
    pruned: int = 0
