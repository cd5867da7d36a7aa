"""What the demo counts: every loss shows in a check of its own."""

from __future__ import annotations

from typing import Any

import pytest
from vodozemac import GroupSession

from cryptostore.cli.demo.checks import checks_of, repeated_deliveries
from cryptostore.cli.demo.conversation import Kill, Reading, Settings, Story
from cryptostore.cli.demo.relay import Relay

ALICE, BOB = "@alice:localhost", "@bob:localhost"
SETTINGS = Settings("sqlite:///unused", kills=1, messages=1, seed=1)
IDENTITY = {"curve25519": "curve", "ed25519": "ed"}


class Told:
    """A story in which all went well, to be spoilt."""

    def __init__(self) -> None:
        self.relay = Relay("!room:localhost", [ALICE, BOB])
        self.story = Story(ALICE, BOB)
        self.sessions = {user: GroupSession() for user in (ALICE, BOB)}
        self.events = {user: self.send(user, "0") for user in (ALICE, BOB)}
        for reader in (ALICE, BOB):
            self.story.identities[reader] += [IDENTITY, IDENTITY]
            self.story.final_readings.append(Reading(reader, dict(self.story.texts)))
            for event_id, text in self.story.texts.items():
                self.story.readings[reader][event_id].add(text)
        self.story.identities[BOB].append(IDENTITY)
        self.story.kills.append(Kill(0, 1, 500))
        self.story.rereadings.append(Reading(BOB, {self.events[ALICE]: "from @alice:localhost"}))

    def send(self, user: str, transaction: str) -> str:
        session = self.sessions[user]
        content: dict[str, Any] = {"session_id": session.session_id}
        content["ciphertext"] = session.encrypt(b"text").to_base64()
        event_id = self.relay.send_event(user, transaction, content)
        self.story.texts[event_id] = f"from {user}"
        self.story.senders[event_id] = user
        return event_id

    def failed(self) -> list[str]:
        return [check.name for check in checks_of(SETTINGS, self.story, self.relay) if not check.passed]


@pytest.fixture
def told() -> Told:
    return Told()


def test_all_is_well(told: Told) -> None:
    assert told.failed() == []


def test_a_message_that_nobody_read(told: Told) -> None:
    del told.story.readings[BOB][told.events[ALICE]]
    assert told.failed() == ["messages from Alice that Bob decrypted"]


def test_a_message_that_was_unreadable_once(told: Told) -> None:
    told.story.readings[ALICE][told.events[BOB]].add(None)
    assert told.failed() == ["messages from Bob that Alice decrypted"]


def test_a_message_that_was_read_wrongly(told: Told) -> None:
    told.story.readings[BOB][told.events[ALICE]] = {"something else"}
    assert told.failed() == ["messages from Alice that Bob decrypted"]


def test_a_kill_that_met_nothing_in_flight(told: Told) -> None:
    told.story.kills[0] = Kill(1, 0, 500)
    assert told.failed() == ["times Bob was killed with messages in flight"]


def test_a_kill_that_did_not_happen(told: Told) -> None:
    told.story.kills.clear()
    assert told.failed() == ["times Bob was killed with messages in flight"]


def test_a_new_identity_after_a_kill(told: Told) -> None:
    told.story.identities[BOB][1] = {"curve25519": "another", "ed25519": "ed"}
    assert told.failed() == ["later starts that found the first identity"]


def test_an_old_message_that_is_lost_after_a_kill(told: Told) -> None:
    told.story.rereadings[0] = Reading(BOB, {told.events[ALICE]: None})
    assert told.failed() == ["old messages that Bob read again after kills"]


def test_a_message_that_a_fresh_process_cannot_read(told: Told) -> None:
    told.story.final_readings[1] = Reading(BOB, {})
    assert told.failed() == ["messages that fresh processes read at the end"]


def test_a_message_index_that_was_used_twice(told: Told) -> None:
    copy = GroupSession.from_pickle(told.sessions[ALICE].pickle(bytes(32)), bytes(32))
    told.send(ALICE, "1")
    told.sessions[ALICE] = copy
    told.send(ALICE, "2")
    assert "Megolm message indices that were used twice" in told.failed()


def test_a_sync_token_that_went_back(told: Told) -> None:
    told.relay.acknowledge(BOB, "2")
    told.relay.acknowledge(BOB, "1")
    assert told.failed() == ["sync tokens that went back"]


def test_repeated_deliveries_are_counted(told: Told) -> None:
    told.relay.deliver(BOB)
    assert repeated_deliveries(told.relay) == 0
    told.relay.deliver(BOB)
    assert repeated_deliveries(told.relay) == 2
