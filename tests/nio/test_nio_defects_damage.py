"""A damaged row, and a wrong pickle key: defects of nio's own store, absent here and present there.

A test named `…_in_nio` shows the defect of that number in matrix-nio 0.26, by the same scenario where there is one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from nio.store.models import MegolmInboundSessions

from cryptostore import UnreadableRecord, WrongPickleKey, records
from nio_accounts import with_account
from nio_places import Ours, Ratchet, Theirs, olm_session, outcome

# 16: one damaged row, or a wrong pickle key


def test_16_a_damaged_session_hides_no_other(ours: Ours, caplog: pytest.LogCaptureFixture) -> None:
    store, good, bad = with_account(ours), Ratchet(), Ratchet()
    for ratchet in (good, bad):
        store.save_inbound_group_session(ratchet.inbound())
    ours.close(store)
    (row,) = (row for row in ours.stored(records.InboundGroupSession) if row.session_id == bad.id)
    damaged = replace(row, session_key=b"damaged")
    ours.put(damaged)
    store = ours.open()
    assert good.found_in(store) is not None
    assert bad.found_in(store) is None
    assert [session.id for session in store.load_inbound_group_sessions()] == [good.id]
    assert "unreadable inbound_group_session" in caplog.text
    assert damaged in ours.stored(records.InboundGroupSession)
    # Once its key is received again, it is as good as new.
    store.save_inbound_group_session(bad.inbound())
    assert bad.found_in(ours.reopen(store)) is not None


def test_16_a_damaged_olm_session_hides_no_other(ours: Ours) -> None:
    store = with_account(ours)
    sessions = [olm_session() for _ in range(2)]
    for session in sessions:
        store.save_session("curve", session)
    ours.close(store)
    (damaged,) = (row for row in ours.stored(records.OlmSession) if row.session_id == sessions[0].id)
    ours.put(replace(damaged, pickle=b"damaged"))
    assert [session.id for session in ours.open().load_sessions()["curve"]] == [sessions[1].id]


def test_16_another_sessions_pickle_is_a_damaged_one(ours: Ours) -> None:
    store, ratchets = with_account(ours), [Ratchet(), Ratchet()]
    for ratchet in ratchets:
        store.save_inbound_group_session(ratchet.inbound())
        store.save_session("curve", olm_session())
    store.save_session("other curve", olm_session())
    ours.close(store)
    groups, (damaged, kept, other) = ours.stored(records.InboundGroupSession), ours.stored(records.OlmSession)
    ours.put(replace(groups[0], session_key=groups[1].session_key), replace(damaged, pickle=other.pickle))
    store = ours.open()
    assert [session.id for session in store.load_inbound_group_sessions()] == [groups[1].session_id]
    assert [session.id for session in store.load_sessions()["curve"]] == [kept.session_id]


def test_16_a_wrong_pickle_key_is_told_from_a_damaged_account(ours: Ours) -> None:
    store = with_account(ours)
    identity = store.load_account().identity_keys
    with pytest.raises(WrongPickleKey, match="Nothing is damaged"):
        ours.open(pickle_key="another key")
    # It was refused before anything was taken over.
    store.save_inbound_group_session(Ratchet().inbound())
    ours.close(store)
    (sealed,), (kept,) = ours.rows(records.OlmAccount), ours.stored(records.OlmAccount)
    ours.put_rows(sealed._replace(value=sealed.value[::-1]))
    with pytest.raises(UnreadableRecord, match=r"olm_account of .* cannot be read"):
        ours.open()
    ours.put(replace(kept, pickle=b"damaged"))
    with pytest.raises(UnreadableRecord, match="the pickle in the Olm account"):
        ours.open()
    ours.put_rows(sealed)
    assert ours.open().load_account().identity_keys == identity  # type: ignore[union-attr]  # it is there


def test_16_in_nio(theirs: Theirs) -> None:
    store, good, bad = with_account(theirs), Ratchet(), Ratchet()
    for ratchet in (good, bad):
        store.save_inbound_group_session(ratchet.inbound())
    with store.database.bind_ctx(store.models):
        MegolmInboundSessions.update(session=b"damaged").where(MegolmInboundSessions.session_id == bad.id).execute()
    assert isinstance(outcome(lambda: good.found_in(theirs.reopen(store))), type)


def test_16_a_wrong_pickle_key_in_nio(theirs: Theirs) -> None:
    theirs.close(with_account(theirs))
    assert outcome(lambda: theirs.open(pickle_key="another key").load_account()).__name__ == "LibolmPickleException"
