"""The error tree."""

from __future__ import annotations

import inspect
import pickle
from datetime import UTC, datetime

import pytest

import cryptostore
from cryptostore import AccountNotFound, CryptoStoreError, DatabaseWentBack, FencedOut, InvalidRecord, errors
from hostile_text import WORST, raw_in

ERRORS = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, BaseException) and member.__module__ == errors.__name__
]


def drawn_tree(text: str) -> dict[str, str]:
    """The parent of each class in a drawing where every level is four columns deep."""
    path: list[str] = []
    parents: dict[str, str] = {}
    for line in text.splitlines():
        stem = line.lstrip(" │├└─")
        depth = (len(line) - len(stem)) // 4 - 1
        if not stem.isidentifier() or depth < 0:
            continue
        if depth:
            parents[stem] = path[depth - 1]
        path[depth:] = [stem]
    return parents


def test_the_tree_is_as_drawn() -> None:
    assert errors.__doc__ is not None
    built = {error.__name__: error.__mro__[1].__name__ for error in ERRORS if error is not CryptoStoreError}
    assert drawn_tree(errors.__doc__) == built


def test_the_root_is_a_plain_exception() -> None:
    assert CryptoStoreError.__base__ is Exception


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_exported_and_documented(error: type[CryptoStoreError]) -> None:
    assert error.__name__ in cryptostore.__all__
    assert error.__doc__


@pytest.mark.parametrize("error", ERRORS)
def test_matrix_nio_does_not_retry_them(error: type[CryptoStoreError]) -> None:
    assert not issubclass(error, (OSError, TimeoutError))


@pytest.mark.parametrize("error", [error for error in ERRORS if error is not InvalidRecord])
def test_errors_cross_processes(error: type[CryptoStoreError]) -> None:
    copy = pickle.loads(pickle.dumps(error("what happened")))
    assert type(copy) is error
    assert str(copy) == "what happened"


def test_an_invalid_record_keeps_its_parts_across_processes() -> None:
    copy = pickle.loads(pickle.dumps(InvalidRecord("device", "user_id", "must not be empty")))
    assert (copy.kind, copy.field, copy.reason) == ("device", "user_id", "must not be empty")
    assert str(copy) == "device.user_id must not be empty"


def test_fenced_out_keeps_its_facts_across_processes() -> None:
    error = FencedOut("fenced", owner="host:1", since=datetime(2024, 1, 1, tzinfo=UTC), outcome_unknown=True)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


@pytest.mark.parametrize("error", [AccountNotFound.missing("@a:b D"), AccountNotFound.deleted("@a:b D")])
def test_an_account_that_is_not_there_is_named_and_what_to_do(error: AccountNotFound) -> None:
    assert str(error).startswith("@a:b D ")
    assert "open the account with Mode.OWN" in str(error) or "restore the account from a backup" in str(error)


@pytest.mark.parametrize("error", [error for error in ERRORS if error is not InvalidRecord])
def test_text_of_strangers_is_escaped(error: type[CryptoStoreError]) -> None:
    assert raw_in(str(error(f"no {WORST} there"))) == []
    assert raw_in(repr(error(f"no {WORST} there"))) == []


@pytest.mark.parametrize(
    "error",
    [
        FencedOut.by(WORST, datetime(2024, 1, 1, tzinfo=UTC), WORST),
        DatabaseWentBack.to(WORST, 3, 2),
        AccountNotFound.missing(WORST),
        AccountNotFound.deleted(WORST),
        InvalidRecord(WORST, WORST, WORST),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_errors_are_made_of_is_escaped(error: CryptoStoreError) -> None:
    assert raw_in(str(error)) == []


def test_programs_get_the_owner_as_it_is() -> None:
    assert FencedOut.by(WORST, datetime(2024, 1, 1, tzinfo=UTC), "@a:b D").owner == WORST
