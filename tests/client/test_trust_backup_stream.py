"""A whole backup that comes in pieces."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.nio.trust import backup_stream
from cryptostore.nio.trust.backup_stream import Entry, EntryStream

PARTS: Final = {"ciphertext": "text", "ephemeral": "key", "mac": "mac"}
TEXTS: Final = st.text(max_size=8)


def read(body: bytes, size: int) -> list[Entry]:
    stream, found = EntryStream(), []
    for start in range(0, len(body), size):
        found += stream.feed(body[start : start + size])
    stream.end()
    return found


@given(
    rooms=st.dictionaries(TEXTS, st.dictionaries(TEXTS, st.just({"session_data": PARTS}), max_size=3), max_size=3),
    size=st.integers(1, 200),
)
def test_the_entries_are_found_however_the_body_is_cut(rooms: Any, size: int) -> None:
    body = json.dumps({"rooms": {room: {"sessions": sessions} for room, sessions in rooms.items()}}).encode()
    found = [Entry(room, session, entry) for room, sessions in rooms.items() for session, entry in sessions.items()]
    assert read(body, size) == found


def named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(["rooms", "sessions", "session_data", "!a"]), inner, max_size=3)


@given(nonsense=st.recursive(st.none() | st.integers() | TEXTS, lambda inner: st.lists(inner) | named(inner)))
def test_what_is_no_backup_has_no_entries_that_mislead(nonsense: Any) -> None:
    for body in ({"rooms": nonsense}, {"rooms": {"!a": {"sessions": nonsense}}}, nonsense):
        for entry in read(json.dumps(body).encode(), 50):
            # Whatever stands there is decrypted, and fails.
            assert entry.content.keys() == {"session_data"}


def test_other_things_beside_the_entries_are_passed_over() -> None:
    entry = {"first_message_index": 0, "session_data": PARTS | {"more": {"ciphertext": "no"}}, "others": {"mac": "no"}}
    rooms = {"!a": {"others": {"x": entry}, "sessions": {"s": entry, "t": 5}}, "!b": {"sessions": []}}
    body = {"others": {"!a": {"sessions": {"s": entry}}}, "rooms": rooms}
    assert read(json.dumps(body).encode(), 7) == [Entry("!a", "s", {"session_data": PARTS})]


@pytest.mark.parametrize("body", [b"", b"{", b'{"rooms": {"!a": {', b"no JSON", b"{} {}", b"\xff", b'{"rooms": 1,}'])
def test_what_is_cut_off_or_no_json_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|not JSON"):
        read(body, 100)


def test_an_entry_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_stream, "_LONGEST_ENTRY", 10_000)
    entry = {"session_data": PARTS | {"ciphertext": "x" * 20_000}}
    body = json.dumps({"rooms": {"!a": {"sessions": {"s": entry}}}}).encode()
    with pytest.raises(ValueError, match="does not end"):
        read(body, 1_000)
    many = {str(number): {"session_data": PARTS | {"ciphertext": "x" * 2_000}} for number in range(20)}
    assert len(read(json.dumps({"rooms": {"!a": {"sessions": many}}}).encode(), 1_000)) == 20
