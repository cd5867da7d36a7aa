"""Pickles that libolm made, as databases of old nio releases hold them, are read and replaced."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nio.crypto import InboundGroupSession as Session
from unpaddedbase64 import decode_base64
from vodozemac import AnyOlmMessage

from cryptostore import InboundGroupSession, OlmAccount, OlmSession
from nio_places import ROOM, Ours

PICKLES: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "libolm_pickles.json").read_text())
NOW: Final = datetime.now(UTC)


def pickled(what: str) -> bytes:
    pickle: str = PICKLES[what]["pickle"]
    return pickle.encode()


def test_an_account_is_replaced_at_opening(ours: Ours) -> None:
    ours.put(OlmAccount(pickled("account"), shared=True))
    account = ours.open().load_account()
    assert account is not None
    assert account.shared
    assert account.identity_keys == {name: PICKLES["account"][name] for name in ("ed25519", "curve25519")}
    (stored,) = ours.stored(OlmAccount)
    assert stored.pickle != pickled("account")
    assert stored.key_check


def test_sessions_are_replaced_with_the_next_save(ours: Ours) -> None:
    olm, group = PICKLES["olm_session"], PICKLES["group_session"]
    ours.put(
        OlmSession(olm["sender_key"], olm["id"], pickled("olm_session"), NOW, NOW),
        InboundGroupSession(ROOM, group["id"], "curve", pickled("group_session"), "ed", (), 0, NOW),
    )
    for _ in range(2):
        store = ours.open()
        session = store.load_sessions().get(olm["sender_key"])
        group_session = store.load_inbound_group_sessions().get(ROOM, "curve", group["id"])
        assert session is not None
        assert group_session is not None
        assert group_session.decrypt(group["ciphertext"]) == (group["plaintext"], 0)
        assert len(list(store.load_inbound_group_sessions())) == 1
        store.save_encrypted_rooms({ROOM})
        ours.close(store)
        assert ours.stored(OlmSession)[0].pickle != pickled("olm_session")
        assert ours.stored(InboundGroupSession)[0].pickle != pickled("group_session")


def test_an_olm_session_goes_on(ours: Ours) -> None:
    olm = PICKLES["olm_session"]
    ours.put(OlmSession(olm["sender_key"], olm["id"], pickled("olm_session"), NOW, NOW))
    session = ours.open().load_sessions().get(olm["sender_key"])
    assert session is not None
    assert session.decrypt(AnyOlmMessage.normal(decode_base64(olm["message_for_it"]["body"]))) == "from libolm"


def test_a_worse_ratchet_does_not_replace_a_libolm_one(in_memory: Ours) -> None:
    group = PICKLES["group_session"]
    in_memory.put(InboundGroupSession(ROOM, group["id"], "curve", pickled("group_session"), "ed", (), 0, NOW))
    store = in_memory.open()
    better = store.load_inbound_group_sessions().get(ROOM, "curve", group["id"])
    assert better is not None
    exported = better.export_session(1)
    store = in_memory.reopen(store)
    store.save_inbound_group_session(Session.import_session(exported, "ed", "curve", ROOM, []))
    store = in_memory.reopen(store)
    (kept,) = store.load_inbound_group_sessions()
    assert kept.first_known_index == 0
