"""`cryptostore verify`."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Run, on_a_terminal, run_process
from cryptostore import Account, Changes, OlmAccount, Row, SyncToken, TrackedUser, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.store.keys import encode_key
from cryptostore.store.marks import MARK_KEY
from cryptostore.store.ring import RING_KEYS
from example_records import example
from spoiling import put_rows

ALICE = Account("@alice:example.org", "A")
BOB, CAROL = Account("@bob:example.org", "B"), Account("@carol:example.org", "C")
KEY = new_pickle_key()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)
    monkeypatch.setenv("OTHER", new_pickle_key())


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.apply(
            Changes([example(OlmAccount), SyncToken("s1"), *[TrackedUser(f"@{number}:x") for number in range(1_200)]])
        )
    return str(url)


def damage(url: str, number: int) -> None:
    with open_backend(url) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(encode_key(TrackedUser, (f"@\x1b{each}:x",)), b"damaged") for each in range(number)])


def test_all_can_be_read_beside_the_owner(filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as owner:
        ended = run_process("verify", filled, "--json")
        owner.apply(Changes([SyncToken("s2")]))
    assert (ended.code, ended.err) == (0, "")
    (alice,) = ended.document["accounts"]
    assert alice["readable"] == {
        "key_ring 00": 1,
        "olm_account": 1,
        "sync_token": 1,
        "tracked_user": 1_200,
        "key_ring ff": 1,
    }
    assert (alice["unreadable"], alice["unreadable_rows"]) == ({}, [])


def test_what_cannot_be_read_is_listed_by_kind_and_key(filled: str) -> None:
    damage(filled, 25)
    ended = run_process("verify", filled)
    assert ended.code == ExitCode.CHECK_FAILED
    assert f"- tracked_user @\\x1b0:x of {ALICE}: " in ended.out
    assert f"- and 5 more of {ALICE} (--json names them)" in ended.out
    document = run_process("verify", filled, "--json").document
    assert document["accounts"][0]["unreadable"] == {"tracked_user": 25}
    assert document["accounts"][0]["unreadable_rows"][0]["key"] == "@\x1b0:x"
    assert len(document["accounts"][0]["unreadable_rows"]) == 25


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_one_account_that_cannot_be_opened_hides_no_other(run: Run, filled: str) -> None:
    for account in (BOB, CAROL):
        with open_backend(filled) as backend, backend.open_store(account, pickle_key=KEY) as store:
            store.apply(Changes([example(OlmAccount)]))
    put_rows(filled, BOB, *(Row(key, b"damaged") for key in RING_KEYS))
    put_rows(filled, CAROL, Row(MARK_KEY, b"damaged"))
    ended = run("verify", filled, "--json")
    alice, bob = ended.document["accounts"]
    assert (ended.code, alice["unreadable"], alice["readable"]["tracked_user"]) == (ExitCode.CHECK_FAILED, {}, 1_200)
    assert (bob["unreadable"], bob["readable"]) == ({"key_ring 00": 1, "key_ring ff": 1}, {})
    [carol] = ended.document["left_out"]
    assert (carol["user_id"], carol["whereabouts"], carol["place"]) == (CAROL.user_id, None, None)
    assert f"left out: the mark that {CAROL} is being moved" in ended.err
    assert "- key_ring 00 of " in run("verify", filled).out


def test_a_row_whose_key_cannot_be_read_is_named_by_its_bytes(run: Run, filled: str) -> None:
    with open_backend(filled) as backend, backend.open_store(ALICE, pickle_key=KEY) as store:
        store.put_rows([Row(b"\x04\xff", b"damaged")])
    assert "- tracked_user 04ff of " in run("verify", filled).out


def test_a_wrong_pickle_key(filled: str) -> None:
    ended = run_process("verify", filled, "--pickle-key-env", "OTHER")
    assert ended.code == ExitCode.USAGE
    assert "Nothing is damaged" in ended.err


def test_no_accounts(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    open_backend(url).close()
    ended = run("verify", url)
    assert ended.code == 0
    assert "holds no account" in ended.err


def test_a_mistyped_path(run: Run, tmp_path: Path) -> None:
    ended = run("verify", f"sqlite:///{tmp_path}/mistyped.db")
    assert ended.code == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_people_see_how_far_it_is(filled: str) -> None:
    assert f"verifying {ALICE}" in on_a_terminal("verify", filled)
