"""What comes next, for everything that a homeserver and a store can have between them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from cryptostore.nio.trust.own_steps import Identity, IdentityState, OwnDevice, Situation, Step, Storage, next_step

ABSENT, UNSIGNED, SIGNED = OwnDevice

#: Every situation that can be told apart, before anything was done.
EVERYTHING = [
    Situation(identity, storage, device, seeds, ours, make, recovery, password, wanted)
    for identity, storage, device in itertools.product(Identity, Storage, OwnDevice)
    for seeds, ours, make, recovery, password, wanted in itertools.product((False, True), repeat=6)
    if seeds or identity is not Identity.OURS_IN_PART
]


def done(*steps: Step) -> Counter[Step]:
    """How often each step was done."""
    return Counter(steps)


TABLE = [
    # A first start, step by step.
    (Situation(Identity.ABSENT, Storage.ABSENT, ABSENT, may_make=True), Step.MAKE_KEYS),
    (Situation(Identity.ABSENT, Storage.ABSENT, ABSENT, has_seeds=True), Step.UPLOAD_DEVICE),
    (Situation(Identity.ABSENT, Storage.ABSENT, UNSIGNED, has_seeds=True), Step.WRITE_STORAGE),
    (Situation(Identity.ABSENT, Storage.INCOMPLETE, UNSIGNED, has_seeds=True), Step.WRITE_STORAGE),
    (Situation(Identity.ABSENT, Storage.WHOLE, UNSIGNED, has_seeds=True), Step.UPLOAD_IDENTITY),
    (Situation(Identity.OURS, Storage.WHOLE, UNSIGNED, has_seeds=True), Step.SIGN_DEVICE),
    (Situation(Identity.OURS, Storage.WHOLE, SIGNED, has_seeds=True), IdentityState.SIGNED),
    # The homeserver was cut short while it stored the three keys.
    (Situation(Identity.OURS_IN_PART, Storage.WHOLE, UNSIGNED, has_seeds=True), Step.UPLOAD_IDENTITY),
    (
        Situation(
            Identity.OURS_IN_PART,
            Storage.WHOLE,
            UNSIGNED,
            has_seeds=True,
            has_password=True,
            wants_password=True,
            done=done(Step.UPLOAD_IDENTITY),
        ),
        Step.UPLOAD_WITH_PASSWORD,
    ),
    # An identity whose secret storage is not whole is in danger: that comes before the signature.
    (Situation(Identity.OURS, Storage.ABSENT, UNSIGNED, has_seeds=True), Step.WRITE_STORAGE),
    (Situation(Identity.OURS, Storage.INCOMPLETE, SIGNED, has_seeds=True), Step.WRITE_STORAGE),
    (Situation(Identity.OURS, Storage.WHOLE, ABSENT, has_seeds=True), Step.UPLOAD_DEVICE),
    # The homeserver answers with success, and keeps an older signature.
    (
        Situation(Identity.OURS, Storage.WHOLE, UNSIGNED, has_seeds=True, done=done(Step.SIGN_DEVICE)),
        IdentityState.STALE_SIGNATURE,
    ),
    (
        Situation(
            Identity.OURS,
            Storage.WHOLE,
            UNSIGNED,
            has_seeds=True,
            refused_signature=True,
            done=done(Step.SIGN_DEVICE),
        ),
        IdentityState.REFUSED,
    ),
    (
        Situation(Identity.OURS, Storage.WHOLE, ABSENT, has_seeds=True, done=done(Step.UPLOAD_DEVICE)),
        IdentityState.REFUSED,
    ),
    # Another client keeps writing into secret storage.
    (
        Situation(Identity.OURS, Storage.INCOMPLETE, SIGNED, has_seeds=True, done=done(*[Step.WRITE_STORAGE] * 3)),
        IdentityState.SIGNED,
    ),
    (
        Situation(Identity.ABSENT, Storage.ABSENT, UNSIGNED, has_seeds=True, done=done(*[Step.WRITE_STORAGE] * 3)),
        IdentityState.REFUSED,
    ),
    # A person has given our identity another recovery key.
    (Situation(Identity.OURS, Storage.LOCKED, SIGNED, has_seeds=True), IdentityState.SIGNED),
    (Situation(Identity.OURS, Storage.LOCKED, SIGNED, has_seeds=True, has_recovery_key=True), Step.OPEN_STORAGE),
    # Nobody asked for an identity.
    (Situation(Identity.ABSENT, Storage.ABSENT, UNSIGNED), IdentityState.NO_IDENTITY),
    # A client that was cut short, or a person's backup key: not to be overwritten.
    (Situation(Identity.ABSENT, Storage.LOCKED, UNSIGNED, may_make=True), IdentityState.LOCKED_STORAGE),
    (Situation(Identity.ABSENT, Storage.LOCKED, UNSIGNED, has_seeds=True), IdentityState.LOCKED_STORAGE),
    (
        Situation(Identity.ABSENT, Storage.LOCKED, UNSIGNED, may_make=True, has_recovery_key=True),
        Step.OPEN_STORAGE,
    ),
    (Situation(Identity.ABSENT, Storage.INCOMPLETE, UNSIGNED, may_make=True), Step.OPEN_STORAGE),
    (
        Situation(Identity.ABSENT, Storage.INCOMPLETE, UNSIGNED, may_make=True, done=done(Step.OPEN_STORAGE)),
        Step.MAKE_KEYS,
    ),
    # A homeserver that wants a password, although there is no other identity.
    (
        Situation(
            Identity.ABSENT,
            Storage.WHOLE,
            UNSIGNED,
            has_seeds=True,
            has_password=True,
            wants_password=True,
            done=done(Step.UPLOAD_IDENTITY),
        ),
        Step.UPLOAD_WITH_PASSWORD,
    ),
    (
        Situation(
            Identity.ABSENT,
            Storage.WHOLE,
            UNSIGNED,
            has_seeds=True,
            wants_password=True,
            done=done(Step.UPLOAD_IDENTITY),
        ),
        IdentityState.REFUSED,
    ),
    # Another client's identity.
    (
        Situation(Identity.OTHER, Storage.LOCKED, UNSIGNED, may_make=True, has_password=True),
        IdentityState.OTHER_IDENTITY,
    ),
    (Situation(Identity.OTHER, Storage.LOCKED, UNSIGNED, has_recovery_key=True), Step.OPEN_STORAGE),
    (Situation(Identity.OTHER, Storage.INCOMPLETE, UNSIGNED), Step.OPEN_STORAGE),
    (Situation(Identity.OTHER, Storage.ABSENT, UNSIGNED, has_recovery_key=True), IdentityState.OTHER_IDENTITY),
    (Situation(Identity.OTHER, Storage.LOCKED, SIGNED), IdentityState.SIGNED_ELSEWHERE),
    # The loser of two first starts drops its seeds; those of an identity that was replaced are kept, out of the way.
    (Situation(Identity.OTHER, Storage.WHOLE, UNSIGNED, has_seeds=True), Step.DROP_KEYS),
    (Situation(Identity.OTHER, Storage.WHOLE, UNSIGNED, has_seeds=True, was_ours=True), Step.SET_ASIDE),
    (Situation(Identity.FORMER, Storage.WHOLE, UNSIGNED), Step.TAKE_BACK),
    # A reset that was cut short.
    (Situation(Identity.NEXT, Storage.WHOLE, UNSIGNED, has_seeds=True), Step.ADOPT_NEXT),
    (Situation(Identity.UNSUPPORTED, Storage.ABSENT, ABSENT, may_make=True), IdentityState.UNSUPPORTED),
]


@pytest.mark.parametrize(("now", "expected"), TABLE)
def test_the_next_step(now: Situation, expected: Step | IdentityState) -> None:
    assert next_step(now) is expected


def test_no_identity_is_ever_uploaded_over_another() -> None:
    uploads = {Step.UPLOAD_IDENTITY, Step.UPLOAD_WITH_PASSWORD}
    uploaded = {now.identity for now in EVERYTHING if next_step(now) in uploads}
    assert uploaded == {Identity.ABSENT, Identity.OURS_IN_PART}


def test_no_identity_goes_up_before_secret_storage_is_whole() -> None:
    uploads = [now for now in EVERYTHING if next_step(now) is Step.UPLOAD_IDENTITY]
    assert uploads
    assert {(now.storage, now.has_seeds) for now in uploads} == {(Storage.WHOLE, True)}


def test_keys_are_made_only_where_there_is_nothing_of_anybody() -> None:
    made = [now for now in EVERYTHING if next_step(now) is Step.MAKE_KEYS]
    assert {(now.identity, now.storage, now.has_seeds, now.may_make) for now in made} == {
        (Identity.ABSENT, Storage.ABSENT, False, True)
    }


def test_secret_storage_that_cannot_be_read_is_never_written() -> None:
    assert Storage.LOCKED not in {now.storage for now in EVERYTHING if next_step(now) is Step.WRITE_STORAGE}


def test_the_device_is_signed_only_by_the_present_identity() -> None:
    assert {now.identity for now in EVERYTHING if next_step(now) is Step.SIGN_DEVICE} == {Identity.OURS}


@pytest.mark.parametrize("identity", Identity)
def test_a_homeserver_that_does_nothing_ends_the_walk(identity: Identity) -> None:
    for start in (now for now in EVERYTHING if now.identity is identity):
        taken: Counter[Step] = Counter()
        while isinstance(step := next_step(start._replace(done=taken)), Step):
            taken[step] += 1
            assert taken.total() < 10, (start, taken)
