"""matrix-nio end to end: what real Olm and Megolm machines keep in the database is enough to go on from."""

from __future__ import annotations

from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.cases.nio_machines import Event, Machine, in_a_new_process
from cryptostore_contract.harness import Ability, Harness
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, BOB, KEY


class NioCases(CaseGroup):
    """Alice writes to Bob, who is reopened from nothing but his store and his pickle key."""

    @case("NIO-1", checks=("COMMIT-1", "COMMIT-4", "GET-1", "SELECT-1"), needs=(Ability.OTHER_PROCESS,))
    def test_bob_reads_old_and_new_messages_in_new_processes(self, harness: Harness) -> None:
        # Alice is in this process, and the database may serve one process at a time.
        alice, old = _first_messages("memory://", harness.url)
        for life in range(2):
            key, *messages = _three_messages(alice, after=len(old))
            *heard, answering_key, answer = in_a_new_process(BOB, harness.url, KEY, [*old, key, *messages])
            assert heard == [*_said(old), _session_id(messages[0]), *_said(messages)], f"life {life}"
            assert alice.hear(answering_key) == _session_id(answer)
            assert alice.hear(answer) == "an answer"
            old += messages
        alice.close()

    @case("NIO-2", checks=("COMMIT-1", "GET-1", "SELECT-1"), needs=(Ability.REOPEN,))
    def test_both_go_on_through_new_handles(self, harness: Harness) -> None:
        alice, old = _first_messages(harness.url, harness.url)
        for _ in range(2):
            alice.close()
            alice = Machine(ALICE, harness.url, KEY)
            bob = Machine(BOB, harness.url, KEY)
            key, *messages = _three_messages(alice, after=len(old))
            assert [bob.hear(event) for event in old] == _said(old)
            assert bob.hear(key) == _session_id(messages[0])
            assert [bob.hear(event) for event in messages] == _said(messages)
            answering_key = bob.share_room_key(ALICE.user_id)
            answer = bob.say("an answer", len(old) + 1_000)
            bob.close()
            assert alice.hear(answering_key) == _session_id(answer)
            assert alice.hear(answer) == "an answer"
            old += messages
        alice.close()


def _first_messages(alices_url: str, bobs_url: str) -> tuple[Machine, list[Event]]:
    """Alice, and what Bob heard from her before his machine was closed."""
    alice, bob = Machine(ALICE, alices_url, KEY), Machine(BOB, bobs_url, KEY)
    alice.meet(bob)
    key, *messages = _three_messages(alice, after=0)
    assert bob.hear(key) == _session_id(messages[0])
    bob.meet(alice)
    assert [bob.hear(event) for event in messages] == _said(messages)
    bob.close()
    return alice, messages


def _three_messages(alice: Machine, after: int) -> list[Event]:
    """The key of a new Megolm session for Bob, and three messages encrypted with it."""
    key = alice.share_room_key(BOB.user_id)
    return [key, *(alice.say(f"message ${number}", number) for number in range(after + 1, after + 4))]


def _said(messages: list[Event]) -> list[str]:
    return [f"message {event['event_id']}" for event in messages]


def _session_id(event: Event) -> str:
    return str(event["content"]["session_id"])
