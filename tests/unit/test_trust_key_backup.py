"""Entries of a server-side key backup: made, read, and refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any, Final

import pytest
import vodozemac
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.trust import signatures, unpadded_base64
from cryptostore.trust.key_backup import (
    ALGORITHM,
    MEGOLM,
    BackedUpSession,
    BackupDecryption,
    BackupEncryption,
    BackupVersion,
    public_key,
)
from example_records import SECRET
from leaks import shown

PRIVATE_KEY: Final = bytes(range(32))
ROOM: Final = "!room:example.org"
CURVE_KEY: Final = unpadded_base64.encode(b"\1" * 32)
ED_KEY: Final = unpadded_base64.encode(b"\2" * 32)

#: Made by matrix-js-sdk: the fixtures of its own tests of key backup.
THEIR_PRIVATE_KEY: Final = base64.b64decode("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=")
THEIR_AUTH_DATA: Final[dict[str, Any]] = {
    "public_key": "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo",
    "signatures": {
        "@alice:localhost": {
            "ed25519:test_device": (
                "KDSNeumirTsd8piI0oVfv/wzg4J4HlEc7rs5XhODFcJ/YAcUdg65ajsZG+rLI0TQOSSGjorJqcrSiSB1HRSCAA"
            )
        }
    },
}
THEIR_ENTRY: Final[dict[str, Any]] = {
    "first_message_index": 1,
    "forwarded_count": 0,
    "is_verified": False,
    "session_data": {
        "ciphertext": (
            "r6HRk2/Im2yJe5cLP8R81aVjFWjYWPHpw7TVxphiSK1cdIDZTTK57r6MfU+0i/mTPn+/PosT74OvYwCnehy2d1BPGxhDl8AhPcBu3//K"
            "zlq2o5CssPsw+88gRehkAsPg9Zp5G9sL9to6giltvTWTbsaQpmvv3HLmBOYSFIxvyZrOT/Ffqu325f0IEsKcyV2BdIkw8Ob9Xt+VWoe4"
            "MYEGG6y1T8W125zeFgKWI4Ow76uput64H9zZjIo+Cc+hCTO9Ea4EnosSjizCotevkNck7C/zGgfhBikiohROb6SbaZgxicSsEDZ+f7br"
            "nri9yP3iXS3PMDHHpa1+XzG2VOG/Y9OQZpkPq+pbLrCC+NWJeJPslDAK5i+RURwzjnPmaHKCRHTq86CwhFyiCDf61MGwCY3xjrmBJg44"
            "BCdxWqCx0YJvwsvVqqnl4vTieUfrwThNPsQ81aVkDHvlmrgrTt8icDa8jTJhu34jem+pbRSEM5aJikV4B+zYiLz+dH/v6UpYA2eG8ReO"
            "vwpPXp6CAcIlplRPpWbMBeLFVcPkT4KAXTp9exFpB4on4pf8OsaDomlt4qAA0rhAZmhPWPKcU/A0Tz4gyMu54OivVtw1SPj+5Iq+YDQ8"
            "jB6Po3ApzMf6fwF9x/FjevbboFB05X2Jr0NrbFqXMOUwXHMgDAGiIWX8+gkmmbaiNWqg2etjN94pobQSGZelb18XGN7kuwMk+Zwk7A"
        ),
        "ephemeral": "q+P1WdRtEiPIEtNuuGrRcueZxUbLnSKdsuTAkxewXgU",
        "mac": "OibmACbORhI",
    },
}
THEIR_SESSION: Final = BackedUpSession(
    "!room:id",
    "ipdI6Zs/7DzFTEhiA2iGaMDfHkIYCleqXT6L+5e1/co",
    "WimPd2udAU/1S/+YBpPbmr9L+0H5H+BnAVHSwDxlPGc",
    "Bhbpt6hqMZlSH4sJV7xiEEEiPVeTWz4Vkujl1EMdIPI",
    (),
    0,
    "AQAAAABXGO+Z9jlQJhIL6ByhXrv2BwCIxkhh7MXpKLsYmXkJcWrQlirmXmD79ga1zo+I4DCtEZzyGSpDWXBC6G7ez3H4gDMBam1RE3Jm5tc+oTlI"
    "ri32UkYgSL0kBkcEnttqmIXBlK8tAfJo3cJnlh7F4ltEOAqrdME6dU0zXTkqXmURqYqXSOmbP+w8xUxIYgNohmjA3x5CGApXql0+i/uXtf3K",
)


def a_session(index: int = 0) -> BackedUpSession:
    inbound = vodozemac.InboundGroupSession(vodozemac.GroupSession().session_key)
    key = inbound.export_at(index)
    assert key is not None
    return BackedUpSession(ROOM, inbound.session_id, CURVE_KEY, ED_KEY, (), index, key.to_base64())


def entry_of(plain: Any) -> dict[str, Any]:
    """An entry for our key, whatever it holds: whoever has the public key can make one."""
    text = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    key = vodozemac.Curve25519PublicKey.from_base64(public_key(PRIVATE_KEY))
    message = vodozemac.PkEncryption.from_key(key).encrypt(text)
    parts = {"ciphertext": message.ciphertext, "mac": message.mac, "ephemeral": message.ephemeral_key}
    return {"session_data": {name: base64.b64encode(part).decode() for name, part in parts.items()}}


def plain_of(session: BackedUpSession, **changes: Any) -> dict[str, Any]:
    plain = {
        "algorithm": MEGOLM,
        "sender_key": session.sender_key,
        "sender_claimed_keys": {"ed25519": session.signing_key},
        "forwarding_curve25519_key_chain": list(session.forwarding_chain),
        "session_key": session.session_key,
    }
    return {name: value for name, value in (plain | changes).items() if value is not None}


def test_what_another_client_has_written_is_read() -> None:
    decryption = BackupDecryption(THEIR_PRIVATE_KEY)
    assert decryption.public_key == public_key(THEIR_PRIVATE_KEY) == THEIR_AUTH_DATA["public_key"]
    found = decryption.session(THEIR_SESSION.room_id, THEIR_SESSION.session_id, THEIR_ENTRY)
    assert found == THEIR_SESSION
    assert found.session_key not in repr(found)


def test_what_is_written_is_read_again() -> None:
    decryption = BackupDecryption(PRIVATE_KEY)
    encryption = BackupEncryption(decryption.public_key)
    for session in (a_session(), a_session(7), replace(a_session(), forwarding_chain=(ED_KEY, CURVE_KEY))):
        entry = encryption.entry(session)
        assert decryption.session(ROOM, session.session_id, entry) == session
        counts = {name: value for name, value in entry.items() if name != "session_data"}
        assert counts == {
            "first_message_index": session.first_known_index,
            "forwarded_count": len(session.forwarding_chain),
            "is_verified": False,
        }
        assert entry["session_data"].keys() == {"ciphertext", "ephemeral", "mac"}
        assert entry != encryption.entry(session)
        assert session.session_key not in json.dumps(entry)


def test_the_mac_is_that_of_deployed_clients() -> None:
    # Eight bytes of an HMAC over nothing, as the specification says of what is in use: it does not vouch for the text.
    session = a_session()
    entry = BackupEncryption(public_key(PRIVATE_KEY)).entry(session)
    assert len(unpadded_base64.decode(entry["session_data"]["mac"])) == 8
    entry["session_data"]["ciphertext"] = entry["session_data"]["ciphertext"][64:]
    with pytest.raises(ValueError, match="does not decrypt"):
        BackupDecryption(PRIVATE_KEY).session(ROOM, session.session_id, entry)


def test_what_other_clients_leave_out_or_add_is_no_error() -> None:
    session, decryption = a_session(), BackupDecryption(PRIVATE_KEY)
    more = plain_of(session, room_id=ROOM, **{"m.shared_history": True})
    assert decryption.session(ROOM, session.session_id, entry_of(more)) == session
    less = plain_of(session, sender_claimed_keys=None, forwarding_curve25519_key_chain=None)
    assert decryption.session(ROOM, session.session_id, entry_of(less)) == replace(session, signing_key="")
    assert decryption.session(
        ROOM, session.session_id, BackupEncryption(decryption.public_key).entry(replace(session, signing_key=""))
    ) == replace(session, signing_key="")


def test_keys_are_kept_in_one_form() -> None:
    session = a_session()
    padded = plain_of(session, sender_key=CURVE_KEY + "=")
    assert BackupDecryption(PRIVATE_KEY).session(ROOM, session.session_id, entry_of(padded)) == session


SESSION: Final = a_session()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (None, "no session_data"),
        ({}, "no session_data"),
        ({"session_data": "text"}, "no session_data"),
        ({"session_data": {}}, "ciphertext is no base64"),
        ({"session_data": {"ciphertext": "AAAA", "mac": "!", "ephemeral": "AAAA"}}, "mac is no base64"),
        ({"session_data": {"ciphertext": "A" * 70_000, "mac": "AAAA", "ephemeral": "AAAA"}}, "more than 65536"),
        ({"session_data": {"ciphertext": "", "mac": "", "ephemeral": ""}}, "does not decrypt"),
        ({"session_data": {"ciphertext": "AAAA", "mac": "AAAA", "ephemeral": "A" * 43}}, "does not decrypt"),
        (THEIR_ENTRY, "does not decrypt"),
        (entry_of(b"no json"), "does not decrypt"),
        (entry_of(b"\xff\xfe"), "does not decrypt"),
        (entry_of(b"[" * 30_000), "does not decrypt"),
        (entry_of([]), "no JSON object"),
        (entry_of({}), "another algorithm"),
        (entry_of(plain_of(SESSION, algorithm="m.other")), "another algorithm"),
        (entry_of(plain_of(SESSION, room_id="!other:example.org")), "another room"),
        (entry_of(plain_of(SESSION, room_id=7)), "another room"),
        (entry_of(plain_of(SESSION, session_key=None)), "no session_key"),
        (entry_of(plain_of(SESSION, session_key="AAAA")), "no exported Megolm session"),
        (entry_of(plain_of(a_session())), "another session"),
        (entry_of(plain_of(SESSION, sender_key=None)), "public key that is none"),
        (entry_of(plain_of(SESSION, sender_key="short")), "public key that is none"),
        (entry_of(plain_of(SESSION, sender_claimed_keys={"ed25519": 1})), "public key that is none"),
        (entry_of(plain_of(SESSION, forwarding_curve25519_key_chain="chain")), "no list"),
        (entry_of(plain_of(SESSION, forwarding_curve25519_key_chain=[None])), "public key that is none"),
    ],
)
def test_what_is_no_entry_of_this_session_is_refused(entry: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        BackupDecryption(PRIVATE_KEY).session(ROOM, SESSION.session_id, entry)
    assert SESSION.session_key not in str(caught.value)


@given(
    parts=st.fixed_dictionaries({}, optional={name: st.binary() for name in ("ciphertext", "mac", "ephemeral")}),
    whole=st.one_of(st.none(), st.integers(), st.text(), st.dictionaries(st.text(), st.none())),
)
def test_nonsense_raises_nothing_else(parts: dict[str, bytes], whole: Any) -> None:
    entry = {"session_data": {name: unpadded_base64.encode(part) for name, part in parts.items()}}
    for each in (entry, whole, entry_of(whole)):
        with pytest.raises(ValueError, match=r"^its? "):
            BackupDecryption(PRIVATE_KEY).session(ROOM, SESSION.session_id, each)


@pytest.mark.parametrize("key", ["", "short", ED_KEY + "A", None, 7])
def test_what_is_no_public_key_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="public key"):
        BackupEncryption(key)


def test_a_private_key_of_another_size_is_refused() -> None:
    for use in (public_key, BackupDecryption):
        with pytest.raises(ValueError, match="32 bytes, not 31"):
            use(bytes(31))


VERSION: Final[dict[str, Any]] = {
    "algorithm": ALGORITHM,
    "auth_data": THEIR_AUTH_DATA,
    "count": 5,
    "etag": "3",
    "version": "1",
}


def test_a_version_is_read() -> None:
    version = BackupVersion.parse(VERSION)
    assert (version.version, version.public_key, version.count) == ("1", THEIR_AUTH_DATA["public_key"], 5)
    assert BackupVersion.parse(VERSION | {"count": "many"}).count == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"algorithm": "m.other"}, "another algorithm"),
        ({"version": 1}, "no version"),
        ({"version": ""}, "no version"),
        ({"auth_data": None}, "no auth_data"),
        ({"auth_data": {}}, "public key"),
        ({"auth_data": {"public_key": "AAAA"}}, "public key"),
    ],
)
def test_what_is_no_version_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        BackupVersion.parse(VERSION | changes)
    with pytest.raises(ValueError, match="another algorithm"):
        BackupVersion.parse([])


def test_a_version_is_vouched_for_by_the_identity_alone() -> None:
    seed = bytes([7]) * 32
    master = signatures.public_key(seed)
    auth_data = {"public_key": CURVE_KEY}
    signed = signatures.sign(auth_data, "@bot:example.org", f"ed25519:{master}", seed)
    version = BackupVersion.parse(VERSION | {"auth_data": signed})
    assert version.is_signed_by("@bot:example.org", master)
    assert not version.is_signed_by("@eve:example.org", master)
    assert not version.is_signed_by("@bot:example.org", ED_KEY)
    changed = BackupVersion.parse(VERSION | {"auth_data": signed | {"public_key": ED_KEY}})
    assert not changed.is_signed_by("@bot:example.org", master)
    assert not BackupVersion.parse(VERSION).is_signed_by("@bot:example.org", master)


@pytest.mark.parametrize("plain", [SECRET.encode(), SECRET.encode() + b"\xff", b'{"session_key": "' + SECRET.encode()])
def test_an_entry_that_is_no_json_is_not_shown(plain: bytes) -> None:
    with pytest.raises(ValueError, match="does not decrypt") as caught:
        BackupDecryption(PRIVATE_KEY).session(ROOM, SESSION.session_id, entry_of(plain))
    assert SECRET not in shown(caught.value)
