"""Megolm sessions are stored as exports at their first known index: nothing that nio reads of one gets lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from nio.crypto import InboundGroupSession, OutboundGroupSession

from cryptostore import records
from cryptostore.nio.pickles import Pickles
from cryptostore_contract.samples import ALICE
from nio_places import ROOM, Ours, Ratchet, outcome

COUNT = 1_000


class Made(NamedTuple):
    """A session, as nio pickles it, and messages from before and after its first known index."""

    session: InboundGroupSession
    pickle: bytes
    messages: list[str]


def a_session(choose: random.Random) -> Made:
    creator = OutboundGroupSession()
    creator.mark_as_shared()
    messages = [creator.encrypt("before") for _ in range(choose.choice([0, 0, 1, 30]))]
    session = choose.choice([received, imported])(creator, choose)
    messages += [creator.encrypt(f"message {number}") for number in range(choose.choice([0, 1, 3, 40]))]
    for message in choose.sample(messages, len(messages) // 2):
        # The ratchet that a pickle keeps moves on with them.
        outcome(lambda message=message: session.decrypt(message))  # type: ignore[misc]  # a lambda with a default
    return Made(session, session.pickle("key"), messages)


def received(creator: OutboundGroupSession, choose: random.Random) -> InboundGroupSession:
    return InboundGroupSession(creator.session_key, key(choose), key(choose), ROOM)


def imported(creator: OutboundGroupSession, choose: random.Random) -> InboundGroupSession:
    direct = InboundGroupSession(creator.session_key, "", "", ROOM)
    exported = direct.export_session(direct.first_known_index + choose.choice([0, 5]))
    chain = [key(choose) for _ in range(choose.randrange(3))]
    return InboundGroupSession.import_session(exported, key(choose), key(choose), ROOM, chain)


def key(choose: random.Random) -> str:
    return f"a key with the number {choose.randrange(2**32)}"


def everything_read_of(session: InboundGroupSession, messages: list[str]) -> tuple[Any, ...]:
    indices = [session.first_known_index, session.first_known_index + 1, session.first_known_index + 100]
    readings: list[Callable[[], Any]] = [
        *(lambda message=message: session.decrypt(message) for message in messages),
        *(lambda index=index: session.export_session(index) for index in indices),
        # Below what it knows, vodozemac gives nothing.
        lambda: session.export_session(session.first_known_index - 1),
    ]
    return (
        session.id,
        session.first_known_index,
        session.ed25519,
        session.sender_key,
        session.room_id,
        session.forwarding_chain,
        [outcome(reading) for reading in readings],
    )


def test_a_thousand_sessions_come_back_as_from_a_pickle(in_memory: Ours) -> None:
    choose = random.Random(1)
    made = [a_session(choose) for _ in range(COUNT)]
    store = in_memory.open()
    with store.batch():
        for each in made:
            store.save_inbound_group_session(each.session)
    sessions = in_memory.reopen(store).load_inbound_group_sessions()
    for each in made:
        session = each.session
        found = sessions.get(ROOM, session.sender_key, session.id)
        assert found is not None
        unpickled = InboundGroupSession.from_pickle(
            each.pickle, session.ed25519, session.sender_key, ROOM, "key", session.forwarding_chain
        )
        assert everything_read_of(found, each.messages) == everything_read_of(unpickled, each.messages)
    assert max(len(row.session_key) for row in in_memory.stored(records.InboundGroupSession)) == 165


def test_a_record_that_is_read_and_written_again_is_the_same(in_memory: Ours) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    store.save_inbound_group_session(ratchet.advance(3).inbound("first", "second"))
    (row,) = in_memory.stored(records.InboundGroupSession)
    assert row.first_known_index == 3
    session = Pickles(ALICE).group_session(row)
    assert session is not None
    assert Pickles(ALICE).group_session_record(session, row.received_at) == row


@pytest.mark.parametrize("damage", [b"", b"damaged", bytes(165), bytes(164)])
def test_what_is_no_export_is_unreadable(in_memory: Ours, damage: bytes) -> None:
    store, ratchet = in_memory.open(), Ratchet()
    store.save_inbound_group_session(ratchet.inbound())
    in_memory.close(store)
    (row,) = in_memory.stored(records.InboundGroupSession)
    in_memory.put(replace(row, session_key=damage))
    assert ratchet.found_in(in_memory.open()) is None
