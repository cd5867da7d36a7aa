"""Short authentication strings against other implementations: vectors, and the same computed without vodozemac."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cryptostore.trust.emoji import EMOJI
from cryptostore.trust.sas import (
    MAC,
    OLD_MAC,
    DeviceId,
    EphemeralKey,
    Macs,
    Side,
    commitment,
    key_ids,
    public_key,
    sas_info,
)

ALICE = DeviceId("@alice:example.org", "ALICEDEVICE")
BOB = DeviceId("@bob:example.org", "BOBDEVICE")
BOBS_KEYS = {"ed25519:BOBDEVICE": "device key", "ed25519:master": "master"}


def unpadded(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


class Peer:
    """The other side of a key agreement, with another library."""

    def __init__(self, ours: EphemeralKey) -> None:
        own = X25519PrivateKey.generate()
        self.public = unpadded(own.public_key().public_bytes_raw())
        self.shared = own.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(ours.public + "=")))

    def derived(self, info: str, length: int) -> bytes:
        return HKDF(SHA256(), length, salt=None, info=info.encode()).derive(self.shared)

    def mac(self, text: str, info: str) -> str:
        return unpadded(hmac.digest(self.derived(info, 32), text.encode(), "sha256"))


def test_the_emoji_are_the_specifications() -> None:
    assert len(set(EMOJI)) == 64
    # matrix-spec, data-definitions/sas-emoji.json: the code points by number, and all names.
    assert [EMOJI[number].symbol for number in (0, 21, 29, 38, 63)] == [
        "\U0001f436",
        "\u2601\ufe0f",
        "\u2764\ufe0f",
        "\u231b",
        "\U0001f4cc",
    ]
    text = ",".join(f"{symbol}{name}" for symbol, name in EMOJI)
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "58390ff0387d2a82d1ac0b7aaab28b68952f3d00e9594ccf46e1493fefc1fde5"
    )


def test_a_commitment_is_that_of_the_clients_in_use() -> None:
    # matrix-rust-sdk, crates/matrix-sdk-crypto/src/verification/sas/helpers.rs.
    start = {
        "from_device": "XOWLHHFSWM",
        "transaction_id": "bYxBsirjUJO9osar6ST4i2M2NjrYLA7l",
        "method": "m.sas.v1",
        "key_agreement_protocols": ["curve25519-hkdf-sha256", "curve25519"],
        "hashes": ["sha256"],
        "message_authentication_codes": ["hkdf-hmac-sha256", "hmac-sha256"],
        "short_authentication_string": ["decimal", "emoji"],
    }
    key = "Q/NmNFEUS1fS+YeEmiZkjjblKTitrKOAk7cPEumcMlg"
    assert commitment(key, start) == "CCQmB4JCdB0FW21FdAnHj/Hu8+W9+Nb0vgwPEnZZQ4g"
    assert commitment(key, {**start, "extra": 1}) != commitment(key, start)


def test_the_short_string_is_the_specifications() -> None:
    ours = EphemeralKey()
    peer = Peer(ours)
    info = sas_info(Side(ALICE, ours.public), Side(BOB, peer.public), "transaction")
    assert info == (
        f"MATRIX_KEY_VERIFICATION_SAS|@alice:example.org|ALICEDEVICE|{ours.public}"
        f"|@bob:example.org|BOBDEVICE|{peer.public}|transaction"
    )
    short = ours.agree(peer.public).short_auth(info, ["decimal", "emoji"])
    bits = f"{int.from_bytes(peer.derived(info, 6)):048b}"
    assert short.emoji == tuple(EMOJI[int(bits[at : at + 6], 2)] for at in range(0, 42, 6))
    assert short.decimals == tuple(int(bits[at : at + 13], 2) + 1000 for at in range(0, 39, 13))


def test_without_emoji_there_are_decimals_alone() -> None:
    ours = EphemeralKey()
    short = ours.agree(Peer(ours).public).short_auth("info", ["decimal"])
    assert short.emoji == ()
    assert all(1000 <= number <= 9191 for number in short.decimals)


def test_macs_are_the_specifications() -> None:
    ours = EphemeralKey()
    peer = Peer(ours)
    macs = Macs(ours.agree(peer.public), MAC, ALICE, BOB, "transaction")
    info = "MATRIX_KEY_VERIFICATION_MAC@alice:example.orgALICEDEVICE@bob:example.orgBOBDEVICEtransaction"
    assert macs.own({"ed25519:b": "key b", "ed25519:a": "key a"}) == (
        {"ed25519:b": peer.mac("key b", info + "ed25519:b"), "ed25519:a": peer.mac("key a", info + "ed25519:a")},
        peer.mac("ed25519:a,ed25519:b", info + "KEY_IDS"),
    )


def bobs_macs(method: str, keys: dict[str, str]) -> tuple[Macs, dict[str, str], str]:
    """How Alice checks MACs, and those that Bob sends of these keys."""
    alices, bobs = EphemeralKey(), EphemeralKey()
    at_alice = Macs(alices.agree(bobs.public), method, ALICE, BOB, "transaction")
    at_bob = Macs(bobs.agree(alices.public), method, BOB, ALICE, "transaction")
    return at_alice, *at_bob.own(keys)


@pytest.mark.parametrize("method", [MAC, OLD_MAC])
def test_keys_are_verified_by_their_macs(method: str) -> None:
    checks, macs, of_ids = bobs_macs(method, BOBS_KEYS)
    assert checks.verified(macs, of_ids, BOBS_KEYS) == set(BOBS_KEYS)
    padded = {key_id: mac + "=" for key_id, mac in macs.items()}
    assert checks.verified(padded, of_ids + "=", BOBS_KEYS) == set(BOBS_KEYS)
    # What is not known here says nothing.
    assert checks.verified(macs, of_ids, {"ed25519:master": "master"}) == {"ed25519:master"}
    assert checks.verified(macs, of_ids, {}) == set()


@pytest.mark.parametrize("method", [MAC, OLD_MAC])
def test_one_wrong_mac_verifies_nothing(method: str) -> None:
    checks, macs, of_ids = bobs_macs(method, BOBS_KEYS)
    assert not checks.verified(macs, of_ids, {**BOBS_KEYS, "ed25519:master": "another"})
    assert not checks.verified(macs, macs["ed25519:master"], BOBS_KEYS)
    assert not checks.verified({"ed25519:master": macs["ed25519:master"]}, of_ids, BOBS_KEYS)
    assert not checks.verified({**macs, "ed25519:another": macs["ed25519:master"]}, of_ids, BOBS_KEYS)
    # The MAC of one key under the id of the other.
    swapped = dict(zip(macs, reversed(macs.values()), strict=True))
    assert not checks.verified(swapped, of_ids, BOBS_KEYS)


def test_both_macs_differ() -> None:
    ours = EphemeralKey()
    secret = ours.agree(Peer(ours).public)
    assert secret.mac(MAC, "text", "info") != secret.mac(OLD_MAC, "text", "info")


@pytest.mark.parametrize(
    "given",
    ["", "AAAA", "no base64", unpadded(bytes(32)), *(unpadded(b"1" * size) for size in (31, 33, 34, 64)), "\ud800"],
)
def test_what_is_no_key_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"base64|lacked contributory"):
        EphemeralKey().agree(given)


def test_a_padded_key_is_the_same_key() -> None:
    key = EphemeralKey().public
    assert public_key(key + "=") == key


def test_the_keys_of_one_side_have_ids_of_their_own() -> None:
    assert key_ids(BOB, "device key") == {"ed25519:BOBDEVICE": "device key"}
    assert key_ids(BOB, "device key", "master") == {"ed25519:BOBDEVICE": "device key", "ed25519:master": "master"}


def test_a_device_that_is_named_after_the_master_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"@bob:example\.org has a device that is named after the master key"):
        key_ids(DeviceId(BOB.user_id, "master"), "device key", "master")
    with pytest.raises(ValueError, match="named after"):
        key_ids(DeviceId(BOB.user_id, "master"), "master", "master")
