"""A store class that is bound to a database, for programs whose `store_path` has to stay a folder."""

from __future__ import annotations

import copy
import pickle
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from nio import AsyncClientConfig
from nio.crypto import OlmAccount
from nio.store import DefaultStore, MatrixStore, SqliteStore

from cryptostore import Account, ConfigurationError, FencedOut, open_backend
from cryptostore.nio import NioStore
from cryptostore_contract.samples import ALICE, BOB, KEY

SECRET = "postgresql://bot:s3cr3t-canary@db.example.org/keys"


def opened(store: type[MatrixStore], store_path: str, name: str = "", account: Account = ALICE) -> NioStore:
    """A store as nio's client makes one."""
    made = store(account.user_id, account.device_id, store_path, KEY, name)
    assert isinstance(made, NioStore)
    return made


def with_identity(store: NioStore) -> dict[str, str]:
    """The keys of the device, which is made if it is not there."""
    account = store.load_account()
    if account is None:
        account = OlmAccount()
        store.save_account(account)
    return {name: str(key) for name, key in account.identity_keys.items()}


def test_the_store_path_is_what_the_program_gave(memory_url: str) -> None:
    with closing(opened(NioStore.at(memory_url), "/srv/bot/store")) as store:
        assert store.store_path == "/srv/bot/store"
        assert repr(store) == f"NioStore.at('{memory_url}')('{ALICE.user_id}', '{ALICE.device_id}', '/srv/bot/store')"


def test_a_url_that_is_given_as_the_folder_all_the_same_is_not_shown(memory_url: str) -> None:
    with closing(opened(NioStore.at(memory_url), SECRET)) as store:
        assert store.store_path == "postgresql://bot:***@db.example.org/keys"
        assert "canary" not in repr(store)


def test_no_name_and_no_repr_shows_a_password() -> None:
    bound = NioStore.at(SECRET)
    assert bound.__name__ == bound.__qualname__ == "NioStore.at('postgresql://bot:***@db.example.org/keys')"
    for text in (repr(bound), repr(AsyncClientConfig(store=bound)), bound.__doc__):
        assert "canary" not in str(text)


def test_a_database_has_one_class() -> None:
    class Mine(NioStore):
        pass

    bound = NioStore.at(SECRET)
    assert issubclass(bound, NioStore)
    assert bound is NioStore.at(SECRET)
    assert bound is not NioStore.at(SECRET + "2")
    assert bound is not Mine.at(SECRET)
    assert issubclass(Mine.at(SECRET), Mine)


class Subclass(NioStore.at(SECRET)):  # type: ignore[misc]  # a class that is made while the program runs
    """What a program may derive from a bound class."""


def test_a_configuration_with_it_goes_to_another_process() -> None:
    for store in (NioStore.at(SECRET), NioStore.at("memory://").at(SECRET), Subclass, NioStore):
        config = AsyncClientConfig(store=store)
        assert pickle.loads(pickle.dumps(config)) == config
        assert copy.deepcopy(config) == config


@pytest.mark.parametrize("url", ["", "/srv/bot/store", "store", "C:\\bot\\store", Path("/srv/bot")])
def test_what_is_no_url_is_refused_before_a_client_is_made(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"NioStore\.at.*sqlite:///"):
        NioStore.at(url)


def test_two_databases_in_one_process(url: str, memory_url: str) -> None:
    one, other = NioStore.at(url), NioStore.at(memory_url)
    with closing(opened(one, "store")) as first, closing(opened(other, "store")) as second:
        identities = with_identity(first), with_identity(second)
        assert identities[0] != identities[1]
        first.save_encrypted_rooms({"!room:example.org"})
        assert second.load_encrypted_rooms() == set()
    with closing(opened(one, "store")) as first, closing(opened(other, "store")) as second:
        assert (with_identity(first), with_identity(second)) == identities
        assert first.load_encrypted_rooms() == {"!room:example.org"}


def test_an_account_that_was_lost_in_one_database_can_be_opened_in_another(memory_url: str) -> None:
    mine, another = NioStore.at(memory_url), NioStore.at(f"memory://{uuid4()}")
    with closing(opened(mine, "store")) as store, open_backend(f"{memory_url}?owner=somebody") as backend:
        with_identity(store)
        with backend.open_store(ALICE, pickle_key=KEY), pytest.raises(FencedOut):
            store.save_encrypted_rooms({"!room:example.org"})
        with pytest.raises(FencedOut):
            opened(mine, "another store")
        opened(another, "store").close()


@pytest.mark.parametrize(("theirs", "name"), [(DefaultStore, ""), (SqliteStore, "bots.db")])
def test_an_empty_database_is_no_new_identity_for_a_device_whose_keys_lie_in_the_folder(
    theirs: type[SqliteStore], name: str, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    old = theirs(ALICE.user_id, ALICE.device_id, str(folder), KEY, name)
    old.save_account(OlmAccount())
    old.database.close()
    with pytest.raises(ConfigurationError, match="import-nio") as refusal:
        opened(NioStore.at(url), str(folder), name)
    assert str(next(folder.glob("*.db"))) in str(refusal.value)
    with open_backend(url) as backend:
        assert list(backend.accounts()) == []
    # Another device may begin beside it, and so may this one once it is known.
    opened(NioStore.at(url), str(folder), name, account=BOB).close()
    with closing(opened(NioStore.at(url), str(tmp_path), name)) as store:
        with_identity(store)
    opened(NioStore.at(url), str(folder), name).close()


@pytest.mark.parametrize("content", [b"", b"no database at all"])
def test_another_programs_file_in_the_folder_is_left_alone(content: bytes, memory_url: str, tmp_path: Path) -> None:
    file = tmp_path / "bots.db"
    file.write_bytes(content)
    opened(NioStore.at(memory_url), str(tmp_path), "bots.db").close()
    assert file.read_bytes() == content
