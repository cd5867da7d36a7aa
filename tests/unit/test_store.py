"""What the core does for every backend, shown on the in-memory model."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cryptostore import (
    FULL,
    AccountNotFound,
    Backend,
    Batch,
    Changes,
    Claim,
    ConfigurationError,
    Database,
    FencedOut,
    InboundGroupSession,
    InvalidRecord,
    Mode,
    ReadOnlyStore,
    ReplayPage,
    Row,
    Schema,
    StoreClosed,
    Support,
    SyncToken,
    TakeOver,
    TrackedUser,
    new_pickle_key,
    open_backend,
)
from cryptostore.store.account_keys import AccountKeys
from cryptostore.store.lifecycle import OpenFlag
from example_records import ALICE, example

#: Generated, so that opening costs nothing.
KEY = new_pickle_key()
TOKEN = Changes([SyncToken("s1")])


@pytest.fixture
def backend() -> Iterator[Backend]:
    with open_backend("memory://", owner="first") as backend:
        yield backend


def test_a_fenced_owner_is_told_by_whom_and_what_to_do(backend: Backend) -> None:
    old = backend.open_store(ALICE, pickle_key=KEY)
    backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(FencedOut) as caught:
        old.apply(TOKEN)
    assert caught.value.owner == "first"
    assert "taken over by first at 2" in str(caught.value)
    assert "stop the other program" in str(caught.value)
    assert caught.value.since is not None
    assert not caught.value.outcome_unknown


def test_reading_stores_do_not_write(backend: Backend) -> None:
    backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(ReadOnlyStore, match=r"was opened with Mode\.READ; open it with Mode\.OWN to write"):
        backend.open_store(ALICE, Mode.READ, pickle_key=KEY).apply(TOKEN)


def test_a_closed_store_says_so(backend: Backend) -> None:
    with backend.open_store(ALICE, pickle_key=KEY) as store:
        scan = store.scan(SyncToken)
    store.close()
    for use in (
        lambda: store.apply(TOKEN),
        lambda: store.get(SyncToken, [()]),
        lambda: store.select(SyncToken, [()]),
        lambda: store.scan(SyncToken),
        lambda: list(scan),
        lambda: store.keys(SyncToken),
        lambda: list(store.stored_rows()),
    ):
        with pytest.raises(
            StoreClosed, match=r"the store of @alice:example\.org ALICEDEVICE was closed; open it again"
        ):
            use()


def test_closing_a_backend_closes_its_stores() -> None:
    with open_backend("memory://") as backend:
        store = backend.open_store(ALICE, pickle_key=KEY)
    backend.close()
    for use in (
        lambda: store.get(SyncToken, [()]),
        lambda: backend.open_store(ALICE, pickle_key=KEY),
        backend.accounts,
        backend.health,
        backend.schema,
        lambda: backend.delete_account(ALICE),
    ):
        with pytest.raises(StoreClosed, match="the memory backend was closed; open it again"):
            use()


def test_deleting_a_session_takes_its_message_indices(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    session = example(InboundGroupSession)
    own = [ReplayPage(session.session_id, session.sender_key, page, bytes(8), b"") for page in (0, 1)]
    others = [ReplayPage(session.session_id, "another sender", 0, bytes(8), b"")]
    store.apply(Changes([session, *own, *others]))
    deletion = store.session_deletion(session)
    assert deletion == Changes(deletes=[(InboundGroupSession, session.key), *((ReplayPage, page.key) for page in own)])
    store.apply(deletion)
    assert list(store.scan(InboundGroupSession)) == []
    assert list(store.scan(ReplayPage)) == others


def test_a_backend_writes_eleven_methods() -> None:
    assert Database.__abstractmethods__ == {
        "take_over",
        "find",
        "accounts",
        "delete",
        "get",
        "ranges",
        "page",
        "commit",
        "health",
        "schema",
        "close",
    }


def test_the_model_commits_what_is_next_and_tells_what_is_there(backend: Backend) -> None:
    database = backend.database
    row = database.take_over("@a:x", "A", TakeOver(7, 1, "first", 0), 1)
    batch = Batch(1, 1, 1, [Row(b"k", b"v")], [])
    assert database.commit(7, batch, 1) == row._replace(sequence=1)
    assert database.commit(7, batch._replace(puts=[Row(b"k", b"late")]), 1) == row._replace(sequence=1)
    assert database.commit(7, batch._replace(number=3), 1) == row._replace(sequence=1)
    assert database.commit(8, batch, 1) is None
    assert database.get(7, [b"k"], 1) == [Row(b"k", b"v")]


def test_an_account_made_anew_is_not_the_old_owners(backend: Backend) -> None:
    old = backend.open_store(ALICE, pickle_key=KEY)
    backend.delete_account(ALICE)
    backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(AccountNotFound, match="was deleted"):
        old.apply(TOKEN)


def test_deleting_nothing_is_no_error(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    store.apply(Changes(deletes=[(TrackedUser, ("@absent:x",))]))
    store.apply(TOKEN)
    store.apply(Changes(deletes=[(SyncToken, ())]))
    assert list(store.scan(SyncToken)) == []


def test_the_model_has_one_schema(backend: Backend) -> None:
    assert backend.schema() == Schema(version=1, min_compatible=1)


def test_an_account_that_is_not_there(backend: Backend) -> None:
    with pytest.raises(AccountNotFound):
        backend.open_store(ALICE, Mode.READ, pickle_key=KEY)
    with pytest.raises(AccountNotFound):
        backend.delete_account(ALICE)


def test_the_model_pages_through_large_tables(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    users = [TrackedUser(f"@{number:04}:x") for number in range(2500)]
    store.apply(Changes(reversed(users)))
    scan = store.scan(TrackedUser)
    first = next(scan)
    store.apply(Changes([TrackedUser("@9999:x")], [(TrackedUser, first.key)]))
    assert [first, *scan] == [*users, TrackedUser("@9999:x")]


def test_keys_are_gone_through_without_their_records(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    pages = [ReplayPage(session, "sender", index, bytes(8), b"") for session in ("one", "other") for index in range(2)]
    store.apply(Changes([*pages, TrackedUser("@bob:example.org")]))
    monkeypatch.setattr(AccountKeys, "open", None)
    assert list(store.keys(ReplayPage)) == [page.key for page in pages]
    assert list(store.keys(ReplayPage, ("other",))) == [page.key for page in pages[2:]]
    assert list(store.keys(SyncToken)) == []


def test_named_memory_databases_are_shared_and_nameless_are_not() -> None:
    with open_backend("memory://shared-in-test") as one, open_backend("memory://shared-in-test") as two:
        one.open_store(ALICE, pickle_key=KEY)
        assert list(two.accounts()) == [ALICE]
    with open_backend("memory://") as one, open_backend("memory://") as two:
        one.open_store(ALICE, pickle_key=KEY)
        assert list(two.accounts()) == []


def test_the_model_refuses_unknown_options() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown option 'colour' .* known are: deadline, owner"):
        open_backend("memory://?colour=red")


def test_the_model_refuses_bad_keys(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)
    with pytest.raises(InvalidRecord):
        store.get(TrackedUser, [()])
    with pytest.raises(InvalidRecord):
        store.select(TrackedUser, [("a", "b")])
    with pytest.raises(InvalidRecord):
        store.scan(TrackedUser, ("",))


def test_a_claim_gives_its_reason() -> None:
    assert Claim(Support.FULL) == FULL
    assert Claim(Support.UNSUPPORTED, "no network").reason == "no network"
    for support in (Support.VERSIONED, Support.UNSUPPORTED, Support.NOT_IMPLEMENTED):
        with pytest.raises(ValueError, match=f"{support} needs a reason"):
            Claim(support)


def test_an_open_flag_closes_once() -> None:
    outer = OpenFlag("the outer")
    inner = OpenFlag("the inner", within=outer)
    inner.check()
    assert inner.close()
    assert not inner.close()
    with pytest.raises(StoreClosed, match="the inner was closed"):
        inner.check()
    outer.check()


def test_threads_share_one_store(backend: Backend) -> None:
    store = backend.open_store(ALICE, pickle_key=KEY)

    def work(thread: int) -> None:
        for number in range(50):
            store.apply(Changes([TrackedUser(f"@{thread}-{number}:x")]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.scan(TrackedUser))) == 200
    assert backend.accounts()[ALICE].sequence == 200
