"""Copying while others write, open, copy or delete the account."""

from __future__ import annotations

import pytest

from copied import PLAIN, handle, interrupted, is_opened, refuses, save, token
from cryptostore import (
    AccountRow,
    Changes,
    ConfigurationError,
    FencedOut,
    SyncToken,
)
from cryptostore.store import copying
from cryptostore.store.copying import Beginning, How, Place, Watching, copy
from example_records import ALICE
from sealed_database import KEY


def test_a_source_that_is_written_to_while_it_is_copied(source: Place, destination: Place) -> None:
    handle(destination).after = lambda number: save(source, SyncToken("s2")) if number == 2 else None
    with pytest.raises(ConfigurationError, match="was written to while it was copied"):
        copy(source, destination, ALICE, PLAIN)
    assert token(source) == "s2"
    refuses(destination, "is not complete")
    handle(destination).after = lambda _number: None
    assert copy(source, destination, ALICE, PLAIN).beginning is Beginning.ANEW
    assert token(destination) == "s2"


def test_a_source_that_is_written_to_in_the_last_moment(source: Place, destination: Place) -> None:
    compared = Watching(lambda _number: None, lambda _number: save(source, SyncToken("s2")))
    with pytest.raises(ConfigurationError, match="was written to while it was copied"):
        copy(source, destination, ALICE, PLAIN, compared)
    assert token(source) == "s2"


def test_a_source_that_is_deleted_while_it_is_copied(source: Place, destination: Place) -> None:
    handle(destination).after = lambda number: source.backend.delete_account(ALICE) if number == 2 else None
    with pytest.raises(ConfigurationError, match="was written to while it was copied"):
        copy(source, destination, ALICE, PLAIN)
    assert not is_opened(destination)


def test_taking_over_fences_the_sources_owner_before_the_first_row(source: Place, destination: Place) -> None:
    fenced: list[FencedOut] = []
    owner = source.backend.open_store(ALICE, pickle_key=KEY)

    def write(number: int) -> None:
        if number == 2:
            with pytest.raises(FencedOut) as caught:
                owner.apply(Changes([SyncToken("s2")]))
            fenced.append(caught.value)

    handle(destination).after = write
    copy(source, destination, ALICE, How(take_over=True))
    assert "was taken over by source" in str(fenced[0])
    assert token(destination) == "s1"


def test_taking_over_begins_with_what_the_owner_wrote_until_then(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    begun = copying._Copy(source, destination, ALICE, How(take_over=True))
    assert begun.beginning is Beginning.RESUMED
    save(source, SyncToken("s2"))
    assert begun.run(copying.UNWATCHED).beginning is Beginning.ANEW
    assert token(destination) == "s2"


def test_an_idle_owner_is_fenced_at_the_end(source: Place, destination: Place) -> None:
    owner = source.backend.open_store(ALICE, pickle_key=KEY)
    copy(source, destination, ALICE, PLAIN)
    with pytest.raises(FencedOut):
        owner.apply(Changes([SyncToken("s2")]))


def test_two_copies_at_once(source: Place, destination: Place) -> None:
    def rival(number: int) -> None:
        if number == 2:
            handle(destination).after = lambda _number: None
            copy(source, destination, ALICE, PLAIN)

    handle(destination).after = rival
    with pytest.raises(FencedOut):
        copy(source, destination, ALICE, PLAIN)
    assert token(destination) == "s1"


def test_a_client_that_opens_the_destination_before_the_first_row(source: Place, destination: Place) -> None:
    def open_it(number: int) -> None:
        if number == 0:
            handle(destination).before = lambda _number: None
            save(destination, SyncToken("a new identity"))

    handle(destination).before = open_it
    with pytest.raises(FencedOut):
        copy(source, destination, ALICE, PLAIN)
    assert (token(source), token(destination)) == ("s1", "a new identity")


def test_a_destination_that_is_deleted_in_the_last_moment_does_not_take_the_source_with_it(
    source: Place, destination: Place
) -> None:
    take_over = handle(source).take_over

    def take_over_and_delete(user_id: str, device_id: str, claim: object, timeout: float) -> AccountRow:
        destination.backend.delete_account(ALICE)
        return take_over(user_id, device_id, claim, timeout)  # type: ignore[arg-type]  # handed on as it came

    handle(source).take_over = take_over_and_delete  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="another program opened, copied or deleted"):
        copy(source, destination, ALICE, PLAIN)
    assert token(source) == "s1"


def test_another_program_between_the_look_and_the_first_batch(source: Place, destination: Place) -> None:
    begun = copying._Copy(source, destination, ALICE, PLAIN)
    save(destination, SyncToken("its own"))
    with pytest.raises(ConfigurationError, match="another program opened, copied or deleted"):
        begun.run(copying.UNWATCHED)
    assert token(destination) == "its own"


def test_another_program_between_the_look_and_going_on(source: Place, destination: Place) -> None:
    interrupted(source, destination)
    begun = copying._Copy(source, destination, ALICE, PLAIN)
    copy(source, destination, ALICE, How(leave_source=True))
    with pytest.raises(ConfigurationError, match="another program opened, copied or deleted"):
        begun.run(copying.UNWATCHED)
    assert token(destination) == "s1"
