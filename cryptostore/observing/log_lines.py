"""The observer `logging`: one line of JSON an event, in the log of the program."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from cryptostore.logs import logger
from cryptostore.plugins.hookspecs import hookimpl

from .documents import document, line

#: Below this logger, each event has one of its own.
EVENTS: Final = "cryptostore.events"

_LEVELS: Final = {
    # Each change that is saved ends in one of these.
    "batch_applied": logging.DEBUG,
    "flushed": logging.DEBUG,
    "open_failed": logging.WARNING,
    "batch_failed": logging.WARNING,
    "fenced": logging.WARNING,
    "unavailable": logging.WARNING,
    "retried": logging.WARNING,
    "unreadable_row": logging.WARNING,
    "flush_failed": logging.WARNING,
    "events_missed": logging.WARNING,
    "identity_changed": logging.WARNING,
}


@hookimpl
def cryptostore_event(event: str, facts: Mapping[str, object]) -> None:
    """Log the event. Its document is also the record's attribute `cryptostore`, for formatters that take one."""
    log, level = logger(f"{EVENTS}.{event}"), _LEVELS.get(event, logging.INFO)
    if log.isEnabledFor(level):
        found = document(event, facts)
        log.log(level, "%s", line(found), extra={"cryptostore": found})
