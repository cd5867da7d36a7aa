"""`cryptostore doctor`: what is installed, the settings, and databases that cannot be opened."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

import healthy_bots
from command_line import Ended, Run
from cryptostore import Account, new_pickle_key, open_backend
from cryptostore.cli.exits import ExitCode
from cryptostore.plugins import observers
from cryptostore.store import aead
from cryptostore_contract.ports import free_port
from fake_distributions import FakeSite
from hostile_text import WORST, raw_in

ALICE: Final = Account("@alice:example.org", "A")
KEY: Final = new_pickle_key()
BACKENDS: Final = "cryptostore.backends"

#: A backend in memory that says nothing of itself, or what a test lets it say. The parts in capitals are replaced.
PLUGIN: Final = """
from cryptostore import *
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
database, looks = MemoryDatabase(), []
class Handle(MemoryHandle):
    def accounts(self, timeout):
        looks.append(1)
        if len(looks) in BROKEN:
            raise ERROR("it is away; wait for it")
        return super().accounts(timeout)
def open_it(url, options, timeout):
    OPENING
    return Handle(database)
def diagnose(url, options, timeout):
    yield Finding("weather", Level.OK, "fine")
    DIAGNOSING
@hookimpl
def cryptostore_backends():
    return [BackendPlugin("fake", INTERFACE_VERSION, open_it, diagnose=DIAGNOSE)]
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", KEY)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db"
    healthy_bots.save(url, ALICE, KEY)
    return url


@pytest.fixture
def first_use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observers are looked for once a process."""
    assert url
    monkeypatch.setattr(observers, "_observers", None)


@pytest.fixture
def plugin(site: FakeSite) -> Callable[..., str]:
    """Install the backend, and return a URL of it."""

    def install(
        diagnose: str = "diagnose",
        diagnosing: str = "pass",
        opening: str = "pass",
        broken: str = "[]",
        error: str = "BackendUnavailable",
    ) -> str:
        source = PLUGIN.replace("DIAGNOSE)", f"{diagnose})").replace("DIAGNOSING", diagnosing)
        source = source.replace("OPENING", opening).replace("BROKEN", broken).replace("ERROR", error)
        site.install("fakes", {BACKENDS: {"fake": "fake_store"}}, fake_store=source)
        return "fake://here"

    return install


def faults(ended: Ended) -> dict[str, dict[str, Any]]:
    amiss = [each for each in ended.document["findings"] if each["level"] != "ok"]
    return {each["check"]: each for each in amiss if not each["seen"].startswith("not looked at")}


def fault(run: Run, *words: object) -> dict[str, Any]:
    ended = run("doctor", *words, "--json")
    [found] = faults(ended).values()
    assert ended.code == int(found["level"] != "note")
    assert KEY not in ended.out
    return found


def test_distributions_of_several_versions(run: Run, site: FakeSite, url: str) -> None:
    site.install("matrix-cryptostore-contract", {}, "0.0.1")
    found = fault(run, url)
    assert (found["check"], found["level"]) == ("distributions", "warning")
    assert "matrix-cryptostore-contract 0.0.1" in found["seen"]
    assert found["commands"] == ["pip install --upgrade . ./contract_tests ./backends/postgres ./backends/sqlite"]


def test_an_openssl_without_the_cipher(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_key: bytes) -> None:
        raise UnsupportedAlgorithm("AES-GCM-SIV")

    monkeypatch.setattr(aead, "AESGCMSIV", missing)
    found = faults(run("doctor", url, "--json"))
    assert found["encryption"]["level"] == "problem"
    assert "install the wheel" in found["encryption"]["remedy"]


def test_the_nio_of_another_distribution(run: Run, site: FakeSite, url: str) -> None:
    (site.folder / "nio" / "client").mkdir(parents=True)
    # Python 3.12, and importlib_metadata anywhere, leave out what a distribution lists and has not got.
    for file in ("__init__.py", "client/async_client.py"):
        (site.folder / "nio" / file).touch()
    for name, digest in (("matrix-nio", "other"), ("mindroom-nio", "one")):
        site.install(name, {}, "0.40.0")
        record = site.folder / f"{name.replace('-', '_')}-0.40.0.dist-info" / "RECORD"
        record.write_text(f"nio/client/async_client.py,sha256={digest},1\nnio/__init__.py,,\n")
    found = faults(run("doctor", url, "--json"))["nio"]
    assert found["level"] == "problem"
    assert "installed by mindroom-nio" in found["seen"]
    assert "pip uninstall mindroom-nio matrix-nio" in found["seen"]


def test_a_nio_that_cannot_be_imported(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptostore.nio.distribution", None)
    found = fault(run, url)
    assert (found["check"], found["level"]) == ("nio", "problem")
    assert found["commands"] == ["pip install --force-reinstall 'matrix-nio[e2e]'"]


def test_a_library_of_clients_that_is_missing(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in sys.modules if name.partition(".")[0] == "ijson" or name.startswith("cryptostore.nio")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ijson", None)
    found = faults(run("doctor", url, "--json"))["nio"]
    assert "the library ijson is missing" in found["seen"]
    assert "ijson" in found["remedy"]
    assert found["commands"] == ["pip install ."]


@pytest.mark.usefixtures("first_use")
def test_an_observer_that_cannot_be_loaded(run: Run, site: FakeSite, url: str) -> None:
    group = {"cryptostore.observers": {"wreck": "wreck", "scribe": "scribe"}}
    site.install("wrecks", group, wreck="raise RuntimeError('hit a rock')", scribe="")
    found = fault(run, url)
    assert (found["check"], found["level"]) == ("observers", "warning")
    assert found["seen"] == "wrecks:wreck cannot be loaded (RuntimeError: hit a rock)"


@pytest.mark.usefixtures("first_use")
def test_an_observer_that_there_is_not(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_OBSERVERS", "loging")
    found = fault(run, url)
    assert (found["check"], found["level"]) == ("observers", "problem")
    assert found["seen"] == "CRYPTOSTORE_OBSERVERS names 'loging'"
    assert found["remedy"] == "it takes logging and opentelemetry"


@pytest.mark.usefixtures("first_use")
def test_observers_are_named(run: Run, site: FakeSite, url: str) -> None:
    site.install("scribes", {"cryptostore.observers": {"scribe": "scribe"}}, scribe="")
    out = run("doctor", url).out
    assert "scribes:scribe" in out


def test_a_backend_that_is_not_installed_or_broken(run: Run, site: FakeSite) -> None:
    site.install("wrecks", {BACKENDS: {"wreck": "wreck"}}, wreck="raise RuntimeError('hit a rock')")
    assert fault(run, "wreck://here")["check"] == "plugin"
    found = fault(run, "oracle://scott:tiger@here")
    assert "no backend named 'oracle'" in found["seen"]
    assert "tiger" not in str(found)


def test_what_names_no_database_is_a_users_mistake(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ((), ("keys.db",)):
        ended = run("doctor", *words, "--json")
        assert (ended.code, ended.document["error"]) == (ExitCode.USAGE, "ConfigurationError")


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ("memory://", "keeps nothing beyond its process"),
        ("sqlite:///keys.db?colour=red", "unknown option 'colour'"),
        ("sqlite:///keys.db?deadline=never", "the option 'deadline'"),
        ("sqlite:///keys.db?create=auto&create=auto", "given twice"),
        ("sqlite:keys.db", "three slashes"),
        ("postgresql://u:secret@here:port/db", "a number for its port"),
    ],
)
def test_a_url_that_cannot_be_right(run: Run, changed: str, seen: str) -> None:
    found = fault(run, changed)
    assert (found["check"], found["level"]) == ("opening", "problem")
    assert seen in found["seen"]
    assert "secret" not in str(found)


def test_a_server_that_is_away_is_a_finding(run: Run) -> None:
    found = fault(run, f"postgresql://bot@127.0.0.1:{free_port()}/keys")
    assert (found["check"], found["level"]) == ("server", "problem")


def test_a_backend_that_says_nothing_of_itself_is_opened(run: Run, plugin: Callable[..., str]) -> None:
    found = fault(run, plugin("None"))
    assert (found["check"], found["seen"]) == ("accounts", "there is no account")


def test_what_opening_raises_is_told(run: Run, plugin: Callable[..., str]) -> None:
    found = fault(run, plugin(opening="raise SchemaError('the tables are gone; restore a backup')"))
    assert (found["check"], found["seen"], found["remedy"]) == ("opening", "the tables are gone", "restore a backup")
    assert "accounts       not looked at" in run("doctor", "fake://here").out


def test_what_a_backend_says_is_shown_as_text(run: Run, plugin: Callable[..., str]) -> None:
    saying = f"yield Finding('sky', Level.NOTE, {WORST!r}, {WORST!r}, ({WORST!r},))"
    ended = run("doctor", plugin(diagnosing=saying))
    assert raw_in(ended.out, lines=True) == []
    assert "sky" in ended.out


@pytest.mark.parametrize(
    ("raising", "level"), [("raise RuntimeError('a secret')", "warning"), ("raise StorageFull('no room')", "problem")]
)
def test_a_backend_that_fails_to_say_what_is_wrong(
    run: Run, plugin: Callable[..., str], raising: str, level: str
) -> None:
    ended = run("doctor", plugin(diagnosing=raising), "--json")
    found = faults(ended)["opening"]
    assert (found["level"], ended.code) == (level, ExitCode.CHECK_FAILED)
    assert "a secret" not in ended.out
    assert "weather" in ended.out


@pytest.mark.parametrize("error", ["BackendUnavailable", "ConfigurationError"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_database_that_goes_away_or_refuses(run: Run, plugin: Callable[..., str], number: int, error: str) -> None:
    url = f"{plugin(broken=f'range({number}, 99)', error=error)}?deadline=0.2"
    with open_backend(url) as backend:
        backend.open_store(ALICE, pickle_key=KEY).close()
    found = faults(run("doctor", url, "--json"))
    away = [each["check"] for each in found.values() if each["seen"] == "it is away"]
    assert away == ["owner" if number == 2 else "accounts"]


@pytest.mark.parametrize(
    "damage", ["UPDATE ownership SET since = 9000000000000000000", "DELETE FROM ownership", "DELETE FROM account"]
)
def test_an_account_whose_row_cannot_be_read(run: Run, url: str, tmp_path: Path, damage: str) -> None:
    with closing(sqlite3.connect(tmp_path / "keys.db", isolation_level=None)) as connection:
        connection.execute(damage)
    found = fault(run, url)
    assert (found["check"], found["level"]) == ("accounts", "warning")
    assert "1 account has a row that cannot be read" in found["seen"]


@pytest.mark.parametrize(
    ("given", "level", "seen"),
    [
        ("short", "warning", "a passphrase that can be guessed"),
        ("", "warning", "one that everybody knows"),
        ("DEFAULT_KEY", "warning", "one that everybody knows"),
        ("a key, mistyped", "problem", "a typing error"),
    ],
)
def test_a_pickle_key_that_is_none_to_keep(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, given: str, level: str, seen: str
) -> None:
    # By its name: a key that is drawn is another in each process.
    given = given.replace("a key, mistyped", KEY[:-6] + KEY[:6])
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY", given)
    ended = run("doctor", url, "--json")
    found = faults(ended)
    assert (found["pickle key"]["level"], found["ring"]["level"]) == (level, "problem")
    assert seen in found["pickle key"]["seen"]
    assert len(given) < 20 or given not in ended.out


def test_no_pickle_key(run: Run, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CRYPTOSTORE_PICKLE_KEY")
    monkeypatch.chdir(tmp_path)
    found = faults(run("doctor", url, "--json"))
    assert found["pickle key"]["level"] == "warning"
    assert "CRYPTOSTORE_PICKLE_KEY_FILE" in found["pickle key"]["remedy"]
    assert "Nothing is damaged" in found["ring"]["seen"]


def test_where_the_pickle_key_is_from(run: Run, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "it's key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    assert "a generated key, given by CRYPTOSTORE_PICKLE_KEY (the environment)\n" in run("doctor", url).out
    assert "a generated key, given by --pickle-key-file\n" in run("doctor", url, "--pickle-key-file", file).out
    monkeypatch.delenv("CRYPTOSTORE_PICKLE_KEY")
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY_FILE", str(file))
    ended = run("doctor", url)
    assert (ended.code, ended.err) == (0, "")
    assert "a generated key, given by CRYPTOSTORE_PICKLE_KEY_FILE (the environment)\n" in ended.out
    file.chmod(0o644)
    found = fault(run, url)
    assert "(mode 0644)" in found["seen"]
    assert found["commands"] == [f"chmod 600 '{tmp_path}/it'\"'\"'s key'"]
    file.unlink()
    found = faults(run("doctor", url, "--json"))
    assert found["pickle key"]["level"] == "problem"
    assert "cannot be read" in found["pickle key"]["seen"]


def test_a_pickle_key_in_the_env_file(run: Run, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CRYPTOSTORE_PICKLE_KEY")
    monkeypatch.chdir(tmp_path)
    env_file = tmp_path / ".env"
    env_file.write_text(f"# settings\nCRYPTOSTORE_PICKLE_KEY={KEY}\n")
    env_file.chmod(0o600)
    ended = run("doctor", url)
    assert (ended.code, ended.err) == (0, "")
    assert "given by CRYPTOSTORE_PICKLE_KEY (.env, line 2)\n" in ended.out
    env_file.chmod(0o640)
    found = fault(run, url)
    assert (found["check"], found["level"]) == ("env file", "warning")
    assert found["commands"] == ["chmod 600 .env"]
    env_file.write_text(f"CRYPTOSTORE_PICKLE_KEY='{KEY}\n")
    broken = run("doctor", url, "--json")
    assert [each["check"] for each in broken.document["findings"] if each["level"] == "problem"] == ["env file"]
    assert broken.document["findings"][-1]["about"].startswith("Database ")
    assert broken.document["findings"][-1]["seen"].startswith("not looked at: ")
    env_file.write_text("MATRIX_USER_ID=@alice:x\n")
    assert "env file" not in faults(run("doctor", url, "--json"))


def test_two_places_for_one_pickle_key(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOSTORE_PICKLE_KEY_FILE", "somewhere")
    assert "not both" in faults(run("doctor", url, "--json"))["pickle key"]["seen"]


def test_logs_go_on_afterwards(run: Run, url: str, caplog: pytest.LogCaptureFixture) -> None:
    run("doctor", url)
    with open_backend(url) as backend:
        backend.open_store(Account("@bob:x", "B"), pickle_key="short").close()
    assert "can be guessed" in caplog.text
