"""What the page about trust says is what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cryptostore.nio import IdentityState, ProductionMatrixClient, SenderTrust, TrustPolicy
from cryptostore.nio.client.additions import Additions
from cryptostore.nio.configuration import StoreArguments
from cryptostore.nio.trust import secret_sharing, senders
from cryptostore.nio.trust.own_steps import Identity, OwnDevice, Situation, Step, Storage, next_step
from cryptostore.nio.trust.own_texts import advice
from cryptostore.nio.trust.policies import Policies
from cryptostore.nio.trust.recipients import Fit, Recipients
from cryptostore.nio.trust.verification_limits import MOST_BEGUN_OF_USER, MOST_OPEN_OF_USER, WINDOW
from cryptostore.trust import exchange, recovery_key
from cryptostore.trust.exchange_contents import Code
from cryptostore.trust.secret_storage import KeyDescription, WrongSecretStorageKey

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
ALICE, ROOM = "@alice:example.org", "!room:example.org"

#: What is known of a user and a device, for each row of the table of room keys.
SITUATIONS: dict[str, dict[str, bool]] = {
    "blacklisted": {"blacklisted": True, "verified_by_hand": True, "signed": True, "has_identity": True},
    "of a user whose verified identity has changed": {
        "has_identity": True,
        "signed": True,
        "stopped": True,
        "verified_by_hand": True,
    },
    "verified by hand": {"verified_by_hand": True},
    "signed by its owner, who was verified": {"has_identity": True, "signed": True, "verified": True},
    "signed by its owner": {"has_identity": True, "signed": True},
    "not signed, and its owner has an identity": {"has_identity": True, "verified": True},
    "of a user without an identity": {},
}
SHOWN = {Fit.KEY: "key", Fit.UNDECIDED: "nio's", Fit.LEFT_OUT: "no", Fit.BLACKLISTED: "no"}


def table(header: str) -> list[list[str]]:
    """The cells below a header of the page."""
    below = PAGE.partition(f"| {header} |\n")[2]
    assert below, header
    lines = below.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def fit(policy: TrustPolicy, known: dict[str, bool]) -> Fit:
    """What a device gets under a policy."""

    def says(name: str) -> Any:
        return lambda *_: known.get(name, False)

    decisions = SimpleNamespace(
        is_device_verified=says("verified_by_hand"),
        is_device_blacklisted=says("blacklisted"),
        is_device_ignored=says("ignored"),
    )
    identities: Any = SimpleNamespace(
        is_stopped=says("stopped"),
        is_verified=says("verified"),
        is_signed_by_owner=says("signed"),
        of=lambda _: object() if known.get("has_identity") else None,
    )
    rooms: Any = SimpleNamespace(of=lambda _, otherwise: otherwise)
    device: Any = SimpleNamespace(user_id=ALICE, id="DEVICE", ed25519="key")
    return Recipients(decisions, identities, rooms, Policies(policy)).fit(ROOM, device)


def test_every_state_is_explained() -> None:
    states = [cells[0].strip("`") for cells in table("state | meaning | what to do")]
    assert sorted(states) == sorted(state.value for state in IdentityState)


def test_what_there_is_to_do_is_what_the_log_says() -> None:
    for name, _meaning, remedy in table("state | meaning | what to do"):
        text = advice(IdentityState(name.strip("`")), "")
        assert bool(text) == (not remedy.startswith("nothing") or name == "`unsupported`"), name


@pytest.mark.parametrize(
    ("row", "state", "step"),
    [
        ("no identity", Situation(Identity.ABSENT, Storage.ABSENT, OwnDevice.UNSIGNED, may_make=True), Step.MAKE_KEYS),
        (
            "the identity of this database",
            Situation(Identity.OURS, Storage.WHOLE, OwnDevice.UNSIGNED, has_seeds=True),
            Step.SIGN_DEVICE,
        ),
        (
            "another client's identity, and a recovery key is given",
            Situation(Identity.OTHER, Storage.LOCKED, OwnDevice.UNSIGNED, has_recovery_key=True),
            Step.OPEN_STORAGE,
        ),
        (
            "another client's identity, and none is given",
            Situation(Identity.OTHER, Storage.LOCKED, OwnDevice.UNSIGNED, may_make=True, has_password=True),
            IdentityState.OTHER_IDENTITY,
        ),
    ],
)
def test_the_cases_of_a_start(row: str, state: Situation, step: Step | IdentityState) -> None:
    rows = table("the homeserver has | what happens | afterwards")
    assert row in [cells[0] for cells in rows]
    assert next_step(state) is step
    ends = {cells[2].strip("`") for cells in rows}
    assert ends == {IdentityState.SIGNED.value, IdentityState.OTHER_IDENTITY.value}


def test_who_gets_room_keys() -> None:
    rows = table("device | `all` | `signed` | `verified`")
    assert [cells[0] for cells in rows] == list(SITUATIONS)
    for name, *cells in rows:
        assert cells == [SHOWN[fit(TrustPolicy(each), SITUATIONS[name])] for each in ("all", "signed", "verified")]


def test_whose_messages_are_read() -> None:
    assert [cells[0].strip("`") for cells in table("`SenderTrust` | the device")] == [each.name for each in SenderTrust]
    for policy, accepted in senders._ACCEPTED.items():
        row = PAGE.partition(f'| | `"{policy}"` | only those that are ')[2].partition(" |")[0]
        assert sorted(re.findall(r"`(\w+)`", row)) == sorted(each.name for each in accepted)
    assert f'| `accept` | `"{Policies().accept}"` (default)' in PAGE


def test_the_arguments_and_methods_that_it_names() -> None:
    named = set(re.findall(r"`(?:await )?(?:client\.)?([a-z_]+)[`(=]", PAGE))
    methods = {name for name in named if name in dir(ProductionMatrixClient)}
    assert {
        "login_or_restore",
        "reset_identity",
        "set_room_keys_policy",
        "accept_identity",
        "restore_backup",
    } <= methods
    arguments = set(inspect.signature(ProductionMatrixClient.login_or_restore).parameters)
    assert {"recovery_key", "new_recovery_key_file", "password"} <= arguments & (named | {"password"})
    assert {"room_keys", "cross_signing"} <= set(StoreArguments.__annotations__) & named
    assert f'`"{Policies().room_keys}"` (default)' in PAGE


def test_the_errors_of_a_recovery_key() -> None:
    text = recovery_key.encode(bytes(32))
    assert len(text.split()) == 12
    with pytest.raises(recovery_key.DamagedRecoveryKey, match="has a typing error"):
        recovery_key.decode(text[:-1])
    with pytest.raises(WrongSecretStorageKey, match="without a typing error"):
        KeyDescription.make(bytes(32)).check(b"another" * 4 + b"....")
    for words in ("has a typing error", "without a typing error", "are not those of the identity"):
        assert words in PAGE


def test_every_way_to_cancel_a_verification_is_explained() -> None:
    codes = [cells[0] for cells in table("`VerificationCancelled.code` | meaning | what to do")]
    assert sorted(re.findall(r"`(m\.\w+)`", " ".join(codes))) == sorted(Code)


def test_the_limits_of_verifications() -> None:
    words = {2: "two", 3: "three", 10: "ten"}
    life, prompt, window, sharing = (
        words[int(seconds) // 60] for seconds in (exchange.LIFE, exchange.PROMPT, WINDOW, secret_sharing._ALLOWED_FOR)
    )
    assert f"lives for {life} minutes, and a request has to be accepted within {prompt}" in PAGE
    limits = f"{words[MOST_OPEN_OF_USER]} verifications at once and {words[MOST_BEGUN_OF_USER]} in {window} minutes"
    assert f"A user has {limits} at most" in PAGE
    assert f"and for {sharing} minutes, it also answers" in PAGE


def test_the_reference_has_every_method_that_nio_lacks() -> None:
    reference = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
    listed = reference.partition("ProductionMatrixClient\n   :members: ")[2].partition("\n")[0].split(", ")
    # Those are for other parts of the client, and for tests.
    inner = {"sign_before_room_keys", "check_identity", "open_restored", "check_ownership", "production_store"}
    inner |= {"machine", "prefetched"}
    assert {name for name in vars(Additions) if not name.startswith("_")} - inner <= set(listed)
