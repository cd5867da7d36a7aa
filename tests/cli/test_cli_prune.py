"""`cryptostore prune`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from command_line import Run, on_a_terminal, run_process
from cryptostore import (
    Account,
    Changes,
    Device,
    DeviceTrust,
    FencedOut,
    InboundGroupSession,
    Key,
    MissedEvents,
    Mode,
    OlmSession,
    OutgoingKeyRequest,
    Record,
    ReplayPage,
    Row,
    SyncToken,
    new_pickle_key,
    open_backend,
)
from cryptostore.cli.exits import ExitCode
from cryptostore.store.keys import encode_key
from example_records import example

ALICE, BOB = Account("@alice:example.org", "A"), Account("@bob:example.org", "B")
KEY: Final = new_pickle_key()
OLD: Final = datetime.now(UTC) - timedelta(days=100)
SESSIONS: Final = [
    example(
        InboundGroupSession,
        room_id=f"!room{number % 3}:x",
        session_id=f"session{number}",
        received_at=OLD if number < 1_200 else datetime.now(UTC),
    )
    for number in range(1_210)
]
RULES: Final = ("--older-than", "50")
NOW: Final = ("--yes", "--watch", "0")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    pages = [ReplayPage(each.session_id, each.sender_key, 0, b"\x01", bytes(12)) for each in SESSIONS]
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([SyncToken("s1"), *SESSIONS, *pages]))
    return str(url)


def left(url: str, kind: type[Record] = InboundGroupSession) -> set[Key]:
    with open_backend(url) as backend, backend.open_store(ALICE, Mode.READ, pickle_key=KEY) as store:
        return set(store.keys(kind))


def test_what_is_old_is_deleted(filled: str) -> None:
    dry = run_process("prune", filled, *RULES, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.startswith(f"would be deleted of {ALICE} in ")
    assert len(left(filled)) == len(SESSIONS)
    ended = run_process("prune", filled, *RULES, *NOW)
    assert (ended.code, ended.err) == (0, "")
    assert "  inbound_group_session  1,200\n  replay_page            1,200\n" in ended.out
    assert left(filled) == {each.key for each in SESSIONS[1_200:]}
    assert {each[0] for each in left(filled, ReplayPage)} == {each.session_id for each in SESSIONS[1_200:]}
    again = run_process("prune", filled, *RULES, *NOW)
    assert (again.code, again.out.splitlines()[1]) == (0, "  nothing")


def test_every_rule_in_one_run(filled: str) -> None:
    used = [ReplayPage(each.session_id, each.sender_key, 1, b"\x01", bytes(12), 1) for each in SESSIONS[:6]]
    keys = {"curve25519": "bobs", "ed25519": "signs"}
    olm = [example(OlmSession, sender_key="bobs", session_id=f"{number}", last_used_at=OLD) for number in range(3)]
    others = [
        Device("@bob:x", "GONE", keys, deleted=True),
        Device("@bob:x", "BLOCKED", deleted=True, trust=DeviceTrust.BLACKLISTED),
        example(MissedEvents, noticed_at=OLD),
        OutgoingKeyRequest("request", "session1", "!room1:x", "m.megolm.v1.aes-sha2"),
    ]
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(Changes([*used, *olm, *others]))
        store.put_rows([Row(encode_key(InboundGroupSession, SESSIONS[0].key), b"damaged")])
    sessions = ["--room", "!room0:x", "--room", "!none:x", "--unused-for", "50", "--replay-pages", "50"]
    others_too = ["--olm-sessions", "2", "--gone-devices", "50", "--missed-events", "50", "--answered-requests"]
    rules = [*sessions, *others_too, "--json"]
    dry, done = (run_process("prune", filled, *rules, *words) for words in (["--dry-run"], NOW))
    assert dry.document | {"dry_run": False} == done.document
    # The pages of the fixture do not say when they were used.
    assert done.document["deleted"] == {
        "outgoing_key_request": 1,
        "replay_page": 1,
        "olm_session": 3,
        "device": 1,
        "missed_events": 1,
    }
    assert done.document["unreadable"] == {"inbound_group_session": 1}
    assert done.document["unknown_rooms"] == ["!none:x"]
    assert f"{ALICE} has no session of the room !none:x; is it the right one?" in done.err
    assert left(filled, Device) == {("@bob:x", "BLOCKED")}
    assert SESSIONS[0].key in left(filled)


def test_one_room_for_programs(run: Run, filled: str) -> None:
    ended = run("prune", filled, "--room", "!room1:x", *NOW, "--json")
    assert ended.document["deleted"] == {"inbound_group_session": 403, "replay_page": 403}
    assert (ended.document["dry_run"], ended.document["not_backed_up"]) == (False, 0)
    assert {key[0] for key in left(filled)} == {"!room0:x", "!room2:x"}


def test_it_asks(run: Run, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run("prune", filled, *RULES)
    assert ended.code == ExitCode.USAGE
    assert "give --yes" in ended.err
    questions: list[str] = []

    def confirm(question: str, *, err: bool) -> bool:
        questions.append(question)
        return not err

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    assert run("prune", filled, *RULES).code == ExitCode.CHECK_FAILED
    assert f"Delete 1,200 inbound_group_session, 1,200 replay_page of {ALICE} from " in questions[0]
    assert len(left(filled)) == len(SESSIONS)


def test_an_owner_that_is_silent_is_fenced_out_by_name(run: Run, filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as owner:
        assert run("prune", filled, "--room", "!room1:x", "--dry-run").code == 0
        owner.apply(Changes([SyncToken("s2")]))
        assert run("prune", filled, "--room", "!room1:x", *NOW).code == 0
        with pytest.raises(FencedOut, match="was taken over by cryptostore prune on "):
            owner.apply(Changes([SyncToken("s3")]))


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ((), "--answered-requests or --missed-events"),
        (("--older-than", "-1"), "Invalid value for '--older-than'"),
        (("--older-than", "9999999999"), "days ago is before the calendar"),
        (("--olm-sessions", "0"), "Invalid value for '--olm-sessions'"),
        (("--room", ""), "inbound_group_session.room_id must not be empty"),
        (("--unused-for", "90", "--replay-pages", "89"), "keep them for as long as sessions that are not used"),
        ((*RULES, "--user-id", "@nobody:x"), "has no such account"),
        ((*RULES, "--pickle-key-env", "WRONG"), "Nothing is damaged"),
    ],
)
def test_mistakes_delete_nothing(
    run: Run, filled: str, words: tuple[str, ...], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", new_pickle_key())
    ended = run("prune", filled, *words, *NOW)
    assert ended.code == ExitCode.USAGE
    assert remedy in ended.err
    assert len(left(filled)) == len(SESSIONS)


def test_people_see_how_far_it_is(filled: str) -> None:
    shown = on_a_terminal("prune", filled, *RULES, *NOW)
    assert "counting" in shown
    assert "deleting" in shown
