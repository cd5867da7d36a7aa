"""The key ring: what is kept of it, and what each kind of damage, move and wrong pickle key is called."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptostore import Account, ConfigurationError, CryptoStoreError, SchemaTooNew, UnreadableRecord, WrongPickleKey
from cryptostore.store import pickle_keys, ring, seal
from cryptostore.store.pickle_keys import new_pickle_key
from cryptostore.store.ring import RING_KEYS, STORE_FORMAT, DataKey, FoundRing, Ring, find_ring, unwrap, wrap
from example_records import ALICE, SECRET
from leaks import shown

GENERATED = "csk1_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqsmlwwk"
PASSPHRASE = "correct horse battery staple"
FIRST, LAST = RING_KEYS
BOB = Account("@bob:example.org", "BOBDEVICE")
NEW, OLD, GONE = DataKey(7, b"\x07" * 32), DataKey(2**32 - 1, b"\x08" * 32), DataKey(0, b"\x09" * 32)
RING = Ring(3, (NEW, OLD), (GONE,), b"\x0a" * 32, 1)

#: One copy of RING as the first release wrote it, with a generated key and with a passphrase.
GOLDEN_GENERATED = """
    81006451de20fe32af1f5bb127a7fa4f6dee839b5995716892e60b9e4ee15bf9f78a60c27a7db1f9a3a777b7f316bad54ce56413ba048ab3
    879e0e6c7c15fe945b3481dd711bce8d7fd9ad304414b1f8a06ee33f7d13f9cecdb3f662eb92a37bfde7069f2cece8d41b945f3a91a24c2a
    20c4ab5237f37d471bc3013209ec1353709143af0f3a843ef01d3c9fde1128eb2841ed4a36303afda9167bdc9f0167120366d514caab5212
    52e54ef3945acd19c06758d96103ef25b958070fa79f30231b4f8417d012c501222feeec0edffedf17bec971baa6195c7d2c221c0276a55f
    8597bf9b49889fb375ef78a31dccd85848203ed2e2b9eb8bd594359f8371ab07182746a48cc15e2b5c0e00227eece12756ba5a313ad4339e
    2a08ebda55f9a6a6f77fc3247963de
"""
GOLDEN_PASSPHRASE = """
    810f147966b83cc0d05f831c76c8698519cc36c84d9167cdc74010bc0799f71110892323a15bdb3ec93c6dc1b3dbd0fbadd2bdaf269dd2df
    d60d8568af293d1c83af1d406787e7a9331c4d5dfe3d3705f52fc60b763ccdde3ba6c6e86e157684839c700e489724643dd96cfb6b90ae5c
    d05c479682f5aa39e9be15e55d807d547aed1f257cd198a9a4354ca45abaec67aa736bc06b37208e7656f9a97abb67d4acbf44c027c1cc54
    778a1f391220e59a48c912d81c488aff28805c5e36db1b6a6824bd4a2235d98d323d84ce32b1d68a2a13ec0f9765b85e1ec014c83e29c571
    2d8f3b09e7f19d9dc330af3d144f6de13adf49925555fbc901aa86a8e567440a29e88b2027c9201cb059bd571e487a4a168154c3f980b85b
    3663c7122d63187a15cdf88cd696f9
"""

bits = st.binary(min_size=32, max_size=32)


@st.composite
def rings(draw: st.DrawFn) -> Ring:
    ids = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6, unique=True))
    every = tuple(DataKey(key_id, draw(bits)) for key_id in ids)
    opening = draw(st.integers(1, len(every)))
    generation = draw(st.integers(1, 2**63 - 1))
    return Ring(generation, every[:opening], every[opening:], draw(bits), draw(st.integers(1, STORE_FORMAT)))


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_keys, "COST", 10)


@pytest.fixture
def no_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_keys, "derive", lambda *_: pytest.fail("a key was derived"))


def refusal(error_type: type[CryptoStoreError], value: bytes, pickle_key: str = GENERATED, **moved: Any) -> str:
    """What is said of a copy that does not open. It names the account and shows no key."""
    account = moved.get("account", ALICE)
    with pytest.raises(error_type) as caught:
        unwrap(account, moved.get("raw_key", FIRST), value, pickle_key)
    assert type(caught.value) is error_type
    assert str(account) in str(caught.value)
    said = shown(caught.value)
    assert pickle_key not in said
    assert SECRET not in said
    for key in (NEW, OLD, GONE):
        assert repr(key.key)[2:-1] not in said
    return str(caught.value)


def with_checksum(body: bytes, account: Account = ALICE, raw_key: bytes = FIRST) -> bytes:
    """What somebody who can write the database can make of a copy's body."""
    place = f"cryptostore ring checksum\0{account.user_id}\0{account.device_id}\0".encode() + raw_key
    return body + hashlib.sha256(place + body).digest()[:8]


def stored(kept: Ring = RING, pickle_key: str = GENERATED, account: Account = ALICE) -> bytes:
    return wrap(account, kept, pickle_key)[FIRST]


def holding(plain: bytes) -> bytes:
    """An authentic copy that holds these bytes instead of a ring."""
    salt = bytes(16)
    return ring._wrapped(ALICE, FIRST, plain, ring._lock(GENERATED, salt, 0), (0, salt))


# The ring itself


def test_a_new_ring_has_keys_of_its_own() -> None:
    first, second = Ring.new(), Ring.new()
    assert first.generation == 1
    assert first.format_floor == STORE_FORMAT == 1
    assert first.retired == ()
    assert len(first.data_keys) == 1
    secrets_of = [{kept.data_keys[0].key, kept.replay_key} for kept in (first, second)]
    assert len(secrets_of[0] | secrets_of[1]) == 4
    assert {len(key) for key in secrets_of[0]} == {32}


@given(rings())
def test_a_new_data_key_seals_and_the_others_still_open(kept: Ring) -> None:
    renewed = kept.with_new_data_key()
    assert renewed.generation == kept.generation + 1
    assert renewed.data_keys[1:] == kept.data_keys
    assert renewed.data_keys[0].key not in {key.key for key in kept.data_keys + kept.retired}
    assert (renewed.retired, renewed.replay_key) == (kept.retired, kept.replay_key)


@given(rings())
def test_old_data_keys_leave(kept: Ring) -> None:
    newest_alone = kept.without_old_data_keys(keep_retired=False)
    assert newest_alone == replace(kept, generation=kept.generation + 1, data_keys=kept.data_keys[:1], retired=())
    for_commands = kept.without_old_data_keys(keep_retired=True)
    assert for_commands == replace(newest_alone, retired=kept.data_keys[1:] + kept.retired)


@given(rings())
def test_wrapping_again_changes_the_generation_alone(kept: Ring) -> None:
    assert kept.rewrapped() == replace(kept, generation=kept.generation + 1)


def test_an_id_in_use_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([NEW.id, GONE.id, OLD.id, 42])
    monkeypatch.setattr(secrets, "randbits", lambda _: next(drawn))
    assert RING.with_new_data_key().data_keys[0].id == 42


@pytest.mark.parametrize(
    ("data_keys", "retired"), [((), (GONE,)), ((NEW, NEW), ()), ((NEW,), (replace(OLD, id=NEW.id),))]
)
def test_a_ring_without_data_key_or_with_an_id_twice_is_none(
    data_keys: tuple[DataKey, ...], retired: tuple[DataKey, ...]
) -> None:
    with pytest.raises(ValueError, match="needs a data key, and each key an id of its own"):
        replace(RING, data_keys=data_keys, retired=retired)


def test_a_ring_shows_no_key() -> None:
    assert repr(RING) == (
        "Ring(generation=3, data_keys=(DataKey(id=7), DataKey(id=4294967295)), retired=(DataKey(id=0),), "
        "format_floor=1)"
    )
    assert str(RING) == repr(RING)


# Wrapped and unwrapped


@settings(max_examples=30)
@given(rings(), st.sampled_from([GENERATED, PASSPHRASE, ""]))
def test_both_copies_come_back(kept: Ring, pickle_key: str) -> None:
    copies = wrap(ALICE, kept, pickle_key)
    assert list(copies) == [b"\x00", b"\xff"]
    assert {unwrap(ALICE, raw_key, value, pickle_key) for raw_key, value in copies.items()} == {kept}
    assert find_ring(ALICE, copies, pickle_key) == FoundRing(kept, {})


def test_rings_of_the_first_release_open() -> None:
    generated, passphrase = (bytes.fromhex(golden) for golden in (GOLDEN_GENERATED, GOLDEN_PASSPHRASE))
    assert unwrap(ALICE, FIRST, generated, GENERATED) == RING
    assert unwrap(ALICE, LAST, passphrase, PASSPHRASE) == RING


def test_copies_never_repeat_themselves() -> None:
    copies = [*wrap(ALICE, RING, GENERATED).values(), *wrap(ALICE, RING, GENERATED).values()]
    assert len({value[34:46] for value in copies}) == 4
    assert len({value[2:18] for value in copies}) == 2


def test_no_key_is_visible() -> None:
    for key in (NEW.key, OLD.key, GONE.key, RING.replay_key, GENERATED.encode()):
        assert key[:8] not in stored()


def test_a_copy_is_no_sealed_value() -> None:
    assert stored()[0] not in {seal.VERSION, 2}


def test_a_new_wrap_uses_the_present_cost_and_an_older_one_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    older = stored(pickle_key=PASSPHRASE)
    monkeypatch.setattr(pickle_keys, "COST", 11)
    newer = stored(pickle_key=PASSPHRASE)
    assert (older[1], newer[1], stored()[1]) == (10, 11, 0)
    assert unwrap(ALICE, FIRST, older, PASSPHRASE) == unwrap(ALICE, FIRST, newer, PASSPHRASE) == RING


def test_a_generated_key_is_read_with_spaces_and_capitals() -> None:
    assert unwrap(ALICE, FIRST, stored(), f" {GENERATED[:9].upper()} {GENERATED[9:]}\n") == RING


def test_a_typing_error_is_told_before_anything_is_opened() -> None:
    for value in (stored(), stored(pickle_key=PASSPHRASE)):
        with pytest.raises(ConfigurationError, match="typing error"):
            unwrap(ALICE, FIRST, value, GENERATED[:-1])
    with pytest.raises(ConfigurationError, match="typing error"):
        wrap(ALICE, RING, GENERATED[:-1])


# Damaged, moved and forged


def test_every_flipped_bit_is_damage() -> None:
    value = stored()
    for position in range(len(value)):
        for bit in range(8):
            flipped = bytearray(value)
            flipped[position] ^= 1 << bit
            assert "restore" in refusal(UnreadableRecord, bytes(flipped))


@pytest.mark.usefixtures("no_derivation")
def test_damage_is_found_before_a_passphrase_is_derived() -> None:
    value = bytearray.fromhex(GOLDEN_PASSPHRASE)
    value[-20] ^= 1
    refusal(UnreadableRecord, bytes(value), PASSPHRASE, raw_key=LAST)


def test_every_truncated_or_longer_copy_is_damage() -> None:
    value = stored()
    for size in range(len(value)):
        refusal(UnreadableRecord, value[:size])
    refusal(UnreadableRecord, value + b"\0")


def test_a_copy_with_nothing_sealed_in_it_is_damage() -> None:
    for size in (30, 46, 62, 63):
        refusal(UnreadableRecord, with_checksum(stored()[:size]))


def test_every_bit_that_is_flipped_on_purpose_is_refused() -> None:
    body = stored()[:-8]
    for position in range(len(body)):
        for bit in range(8):
            flipped = bytearray(body)
            flipped[position] ^= 1 << bit
            with pytest.raises((UnreadableRecord, WrongPickleKey, SchemaTooNew)):
                unwrap(ALICE, FIRST, with_checksum(bytes(flipped)), GENERATED)


def test_sealed_bytes_that_were_changed_on_purpose_are_damage() -> None:
    body = bytearray(stored()[:-8])
    body[60] ^= 1
    refusal(UnreadableRecord, with_checksum(bytes(body)))


@pytest.mark.parametrize("pickle_key", [GENERATED, PASSPHRASE])
def test_a_moved_copy_is_refused(pickle_key: str) -> None:
    value = stored(pickle_key=pickle_key)
    for moved in ({"raw_key": LAST}, {"account": BOB}):
        assert "moved here" in refusal(UnreadableRecord, value, pickle_key, **moved)
        # Who moves it can make its checksum fit, too, and both accounts may have one pickle key.
        forged = with_checksum(value[:-8], **moved)
        assert "moved here" in refusal(UnreadableRecord, forged, pickle_key, **moved)


# Wrong pickle keys


def test_another_pickle_key_of_the_same_kind_is_wrong() -> None:
    for right, wrong in ((GENERATED, new_pickle_key()), (PASSPHRASE, PASSPHRASE + "!")):
        said = refusal(WrongPickleKey, stored(pickle_key=right), wrong)
        assert "Nothing is damaged" in said
        assert "was given" not in said


def test_a_passphrase_in_place_of_a_generated_key_is_named() -> None:
    said = refusal(WrongPickleKey, stored(pickle_key=GENERATED), PASSPHRASE)
    assert "saved with a generated key (csk1_…), and a passphrase was given" in said


def test_a_generated_key_in_place_of_a_passphrase_is_named() -> None:
    said = refusal(WrongPickleKey, stored(pickle_key=PASSPHRASE), GENERATED)
    assert "saved with a passphrase, and a generated key was given" in said


@pytest.mark.usefixtures("no_derivation")
@pytest.mark.parametrize(("golden", "pickle_key"), [(GOLDEN_GENERATED, GENERATED), (GOLDEN_PASSPHRASE, PASSPHRASE)])
@pytest.mark.parametrize("cost", [1, 9, 19, 63, 255])
def test_a_cost_beyond_the_bounds_is_named(golden: str, pickle_key: str, cost: int) -> None:
    body = bytearray.fromhex(golden)[:-8]
    body[1] = cost
    said = refusal(UnreadableRecord, with_checksum(bytes(body)), pickle_key)
    assert f"N = 2^{cost}; 2^10 to 2^18 are allowed" in said


def test_a_changed_cost_inside_the_bounds_opens_nothing() -> None:
    body = bytearray(stored(pickle_key=PASSPHRASE)[:-8])
    body[1] = 11
    refusal(WrongPickleKey, with_checksum(bytes(body)), PASSPHRASE)


# Newer programs


def test_a_floor_above_this_program_is_too_new() -> None:
    for floor in (STORE_FORMAT + 1, 99):
        assert "upgrade matrix-cryptostore" in refusal(SchemaTooNew, stored(replace(RING, format_floor=floor)))


def test_a_newer_ring_is_too_new_whatever_else_is_in_it() -> None:
    newer = msgspec.msgpack.encode({"format_floor": STORE_FORMAT + 1, "data_keys": {"by": SECRET}, "more": [SECRET]})
    refusal(SchemaTooNew, holding(newer))


def test_a_newer_layout_is_too_new() -> None:
    refusal(SchemaTooNew, with_checksum(b"\x82" + stored()[1:-8]))
    refusal(SchemaTooNew, with_checksum(b"\x82 short"))


def encoded(**changed: object) -> bytes:
    kept = {field.name: getattr(RING, field.name) for field in fields(RING)}
    return msgspec.msgpack.encode(kept | {"note": SECRET} | changed)


@pytest.mark.parametrize(
    "plain",
    [
        b"\xc1",
        msgspec.msgpack.encode(SECRET),
        msgspec.msgpack.encode({"format_floor": SECRET}),
        msgspec.msgpack.encode({"format_floor": 1}),
        # Text that is not UTF-8, as a value and as a name.
        b"\x82\xacformat_floor\x01\xa4note" + b"\xad\xff" + SECRET.encode(),
        b"\x82\xacformat_floor\x01\xad\xff" + SECRET.encode() + b"\x01",
        encoded(generation=0),
        encoded(generation=SECRET),
        encoded(format_floor=0),
        encoded(replay_key=SECRET.encode()),
        encoded(data_keys=[]),
        encoded(data_keys=[NEW, NEW]),
        encoded(data_keys=[{"id": 2**32, "key": NEW.key}]),
        encoded(data_keys=[{"id": 1, "key": NEW.key[1:]}]),
    ],
)
def test_an_authentic_copy_without_a_ring_is_unreadable(plain: bytes) -> None:
    refusal(UnreadableRecord, holding(plain))


def test_an_authentic_copy_may_be_read_at_all() -> None:
    assert unwrap(ALICE, FIRST, holding(encoded()), GENERATED) == RING
