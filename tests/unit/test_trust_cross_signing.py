"""Cross-signing keys: made, uploaded, read from an answer and verified."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.trust.cross_signing import (
    SECRET_NAMES,
    PublicIdentity,
    PublicKeys,
    Seeds,
    public_identity,
)
from cryptostore.trust.signatures import is_signed, sign
from leaks import shown

ALICE, BOB = "@alice:localhost", "@bob:xyz"
#: The seeds that matrix-js-sdk is tested with, and what it makes of them.
SEEDS = Seeds(
    b"doyouspeakwhaaaaaaaaaaaaaaaaaale", b"selfselfselfselfselfselfselfself", b"useruseruseruseruseruseruseruser"
)
PUBLIC = PublicKeys(
    "J+5An10v1vzZpAXTYFokD1/PEVccFnLC61EfRXit0UY",
    "aU2+2CyXQTCuDcmWW0EL2bhJ6PdjFW2LbAsbHqf02AY",
    "g5TC/zjQXyZYuDLZv7a41z5fFVrXpYPypG//AFQj8hY",
)
SIGNATURES = {
    "self_signing": "XfhYEhZmOs8BJdb3viatILBZ/bElsHXEW28V4tIaY5CxrBR0YOym3yZHWmRmypXessHZAKOhZn3yBMXzdajyCw",
    "user_signing": "6AkD1XM2H0/ebgP9oBdMKNeft7uxsrb0XN1CsjjHgeZCvCTMmv3BHlLiT/Hzy4fe8H+S1tr484dcXN/PIdnfDA",
}
DEVICE_SIGNATURE = "LmQC/yAUZJmkxZ+3L0nEwvtVWOzjqQqADWBhk+C47SPaFYHeV+E291mgXaSCJVeGltX+HC49Aw7nb6ga7sw0Aw"
#: Its device, with the device's own signature.
DEVICE: dict[str, Any] = {
    "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
    "device_id": "test_device",
    "keys": {
        "curve25519:test_device": "F4uCNNlcbRvc7CfBz95ZGWBvY1ALniG1J8+6rhVoKS0",
        "ed25519:test_device": "YI/7vbGVLpGdYtuceQR8MSsKB/QjgfMXM1xqnn+0NWU",
    },
    "user_id": ALICE,
    "signatures": {ALICE: {"ed25519:test_device": DEVICE_SIGNATURE}},
}
OTHER = Seeds(*(bytes([number]) * 32 for number in range(3)))


def answer_of(seeds: Seeds, user_id: str = ALICE) -> dict[str, Any]:
    """What `/keys/query` answers after these seeds were uploaded."""
    return {f"{name}s": {user_id: content} for name, content in seeds.upload(user_id).items()}


def identity_of(seeds: Seeds, user_id: str = ALICE) -> PublicIdentity:
    """The identity that a client reads from that."""
    identity = public_identity(user_id, answer_of(seeds, user_id))
    assert identity is not None
    return identity


def refusal(answer: Any) -> str:
    """What is said of an answer whose keys are not taken."""
    with pytest.raises(ValueError, match=ALICE) as caught:
        public_identity(ALICE, answer)
    return str(caught.value)


def test_the_upload_is_what_other_clients_make_of_these_seeds() -> None:
    upload = SEEDS.upload(ALICE)
    assert SEEDS.public == PUBLIC
    assert upload["master_key"] == {
        "user_id": ALICE,
        "usage": ["master"],
        "keys": {f"ed25519:{PUBLIC.master}": PUBLIC.master},
    }
    for usage, public_key in (("self_signing", PUBLIC.self_signing), ("user_signing", PUBLIC.user_signing)):
        assert upload[f"{usage}_key"] == {
            "user_id": ALICE,
            "usage": [usage],
            "keys": {f"ed25519:{public_key}": public_key},
            "signatures": {ALICE: {f"ed25519:{PUBLIC.master}": SIGNATURES[usage]}},
        }


@given(st.binary(min_size=96, max_size=96))
def test_the_upload_is_a_function_of_the_seeds_alone(raw: bytes) -> None:
    parts = raw[:32], raw[32:64], raw[64:]
    assert json.dumps(Seeds(*parts).upload(ALICE)) == json.dumps(Seeds(*parts).upload(ALICE))
    assert identity_of(Seeds(*parts)).public_keys == Seeds(*parts).public


def test_seeds_show_nothing() -> None:
    assert repr(SEEDS) == "Seeds()"
    with pytest.raises(ValueError, match=r"m.cross_signing.user_signing has 6 bytes instead of 32") as caught:
        Seeds(SEEDS.master, SEEDS.self_signing, b"secret")
    assert "secret" not in shown(caught.value)


def test_new_seeds_are_new_and_known_by_their_names() -> None:
    seeds = Seeds.new()
    assert len({*seeds.by_name().values(), *Seeds.new().by_name().values()}) == 6
    assert tuple(seeds.by_name()) == SECRET_NAMES
    assert Seeds.of({**seeds.by_name(), "m.megolm_backup.v1": b""}) == seeds
    for name in SECRET_NAMES:
        assert Seeds.of({**seeds.by_name(), name: None}) is None
    assert Seeds.of({}) is None


def test_the_identity_in_an_answer_is_read_and_shown_without_what_signed_it() -> None:
    identity = identity_of(SEEDS)
    assert identity.public_keys == PUBLIC
    assert identity.master_object == SEEDS.upload(ALICE)["master_key"]
    assert identity.user_id == ALICE


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        [],
        {"master_keys": None},
        {"master_keys": {BOB: {}}},
        {"failures": {"localhost": {}}, "device_keys": {}},
    ],
)
def test_a_user_without_a_master_key_has_no_identity(answer: Any) -> None:
    assert public_identity(ALICE, answer) is None


def test_without_the_other_keys_nothing_is_signed() -> None:
    identity = public_identity(ALICE, {"master_keys": answer_of(SEEDS)["master_keys"]})
    assert identity is not None
    assert identity.public_keys == PublicKeys(PUBLIC.master)
    assert not identity.signs_device(SEEDS.sign_device(ALICE, DEVICE))


@pytest.mark.parametrize("usage", ["self_signing", "user_signing"])
def test_a_key_that_the_present_master_key_did_not_sign_is_refused(usage: str) -> None:
    answer = answer_of(SEEDS)
    answer[f"{usage}_keys"] = answer_of(OTHER)[f"{usage}_keys"]
    assert f"the {usage} key of {ALICE} is not signed by the user's present master key" in refusal(answer)


@pytest.mark.parametrize("usage", ["master", "self_signing", "user_signing"])
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"user_id": BOB}, "does not say that it is this user's"),
        ({"user_id": None}, "does not say that it is this user's"),
        ({"usage": ["other"]}, "is not for this use"),
        ({"usage": "master self_signing user_signing"}, "is not for this use"),
        ({"keys": {}}, "not exactly one key"),
        ({"keys": []}, "not exactly one key"),
        ({"keys": ["ed25519:A"]}, "not exactly one key"),
        ({"keys": None}, "not exactly one key"),
        ({"keys": {"ed25519:A": "A", "ed25519:B": "B"}}, "not exactly one key"),
        ({"keys": {"ed25519:A": "B"}}, "under its own name"),
        ({"keys": {"ed25519:": ""}}, "not exactly one key"),
        ({"keys": {"ed25519:5": 5}}, "not exactly one key"),
    ],
)
def test_a_key_in_a_wrong_form_is_refused(usage: str, changed: dict[str, Any], reason: str) -> None:
    answer = answer_of(SEEDS)
    answer[f"{usage}_keys"][ALICE].update(changed)
    assert f"the {usage} key of {ALICE}" in refusal(answer)
    assert reason in refusal(answer)


@pytest.mark.parametrize("content", ["text", 5, []])
def test_a_key_that_is_no_object_is_refused(content: Any) -> None:
    answer = answer_of(SEEDS)
    answer["self_signing_keys"][ALICE] = content
    assert "does not say that it is this user's" in refusal(answer)


def test_a_key_for_another_use_is_not_taken_although_it_is_signed() -> None:
    answer = answer_of(SEEDS)
    answer["self_signing_keys"] = answer["user_signing_keys"]
    assert f"the self_signing key of {ALICE} is not for this use" in refusal(answer)


def test_a_signed_device_is_told_and_keeps_its_own_signature() -> None:
    signed = SEEDS.sign_device(ALICE, {**DEVICE, "unsigned": {"device_display_name": "Bot"}})
    assert "unsigned" not in signed
    assert is_signed(signed, ALICE, DEVICE["keys"]["ed25519:test_device"], "ed25519:test_device")
    assert identity_of(SEEDS).signs_device(signed)
    assert identity_of(SEEDS).signs_device({**signed, "unsigned": {"device_display_name": "Other"}})
    assert not identity_of(SEEDS).signs_device(DEVICE)


def test_a_stale_signature_does_not_sign() -> None:
    signed = SEEDS.sign_device(ALICE, DEVICE)
    renewed = Seeds(SEEDS.master, OTHER.self_signing, SEEDS.user_signing)
    assert not identity_of(renewed).signs_device(signed)
    other_keys = copy.deepcopy(signed)
    other_keys["keys"]["ed25519:test_device"] = PUBLIC.master
    assert not identity_of(SEEDS).signs_device(other_keys)
    assert not identity_of(SEEDS).signs_device({**signed, "algorithms": []})


def test_another_users_device_or_no_device_is_not_signed() -> None:
    other = SEEDS.sign_device(ALICE, {**DEVICE, "user_id": BOB})
    no_device = SEEDS.sign_device(ALICE, {"user_id": ALICE, "usage": ["master"], "keys": {}})
    contents: list[Any] = [other, no_device, None, "text", []]
    for content in contents:
        assert not identity_of(SEEDS).signs_device(content)


def test_the_master_key_does_not_sign_devices() -> None:
    signed = sign(DEVICE, ALICE, f"ed25519:{PUBLIC.master}", SEEDS.master)
    assert not identity_of(SEEDS).signs_device(signed)


def test_a_verified_user_is_signed_by_the_user_signing_key() -> None:
    bob = identity_of(OTHER, BOB)
    signed = SEEDS.sign_master_key(ALICE, {**bob.master_object, "unsigned": {"age": 1}})
    assert signed.keys() == {"user_id", "usage", "keys", "signatures"}
    answer = answer_of(OTHER, BOB)
    answer["master_keys"][BOB] = signed
    verified = public_identity(BOB, answer)
    assert verified is not None
    assert is_signed(verified.master_object, ALICE, PUBLIC.user_signing)
    assert not is_signed(bob.master_object, ALICE, PUBLIC.user_signing)
