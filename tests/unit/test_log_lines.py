"""The observer `logging`: one line of JSON an event, which no id can forge."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cryptostore import Account
from cryptostore.observing import log_lines
from cryptostore.plugins.observers import Observers
from example_records import ALICE
from hostile_text import HOSTILE

NAMES = {"event", "user_id", "device_id"}


@pytest.fixture
def observers(caplog: pytest.LogCaptureFixture) -> Iterator[Observers]:
    made = Observers({"CRYPTOSTORE_OBSERVERS": "logging"})
    with caplog.at_level(logging.DEBUG, log_lines.EVENTS):
        yield made


def documents(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records]


def test_an_event_is_a_line_with_all_its_facts(observers: Observers, caplog: pytest.LogCaptureFixture) -> None:
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    facts = {"account": ALICE, "owner": "new", "since": since, "previous_owner": "old", "backend": "memory"}
    observers.notify("cryptostore_fenced", facts)
    [record] = caplog.records
    expected = {
        "event": "fenced",
        "user_id": ALICE.user_id,
        "device_id": ALICE.device_id,
        "owner": "new",
        "since": "2026-01-02T03:04:05+00:00",
        "previous_owner": "old",
        "backend": "memory",
    }
    assert documents(caplog) == [expected] == [vars(record)["cryptostore"]]
    assert (record.name, record.levelno) == ("cryptostore.events.fenced", logging.WARNING)


def test_keys_numbers_and_what_is_no_data(observers: Observers, caplog: pytest.LogCaptureFixture) -> None:
    key = ("!room:x", 7, b"\xff")
    observers.notify(
        "cryptostore_unreadable_row", {"account": ALICE, "kind": "value", "key": key, "reason": "was altered"}
    )
    observers.notify(
        "cryptostore_database_opened", {"backend": "memory", "database": "memory://", "connections": lambda: None}
    )
    observers.notify("cryptostore_flushed", {"account": ALICE, "records": 1, "age": 0.123456789})
    row, opened, flushed = documents(caplog)
    assert row["key"] == ["!room:x", 7, "ff"]
    assert opened == {"event": "database_opened", "backend": "memory", "database": "memory://"}
    assert flushed["age"] == 0.123457
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "DEBUG"]


@pytest.mark.parametrize("text", [*HOSTILE.values(), "\x7f", "\ud800"])
def test_no_id_forges_a_line_or_steers_a_terminal(
    text: str, observers: Observers, caplog: pytest.LogCaptureFixture
) -> None:
    observers.notify(
        "cryptostore_identity_changed", {"account": ALICE, "identity_of": text, "previous": "", "present": ""}
    )
    [line] = [record.getMessage() for record in caplog.records]
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["identity_of"] == text


def test_an_event_whose_logger_is_off_is_not_written(observers: Observers, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "cryptostore.events.retried"):
        observers.notify("cryptostore_retried", {"account": Account("@a:x", "A"), "backend": "b", "reason": "away"})
    assert caplog.records == []
