"""Finding and loading backends, with distributions that are installed for one test."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import cryptostore
from cryptostore import (
    INTERFACE_VERSION,
    AmbiguousBackend,
    BackendIncompatible,
    BackendInvalid,
    BackendLoadError,
    BackendNotFound,
    BackendUnavailable,
    Capability,
    ConfigurationError,
    InstalledBackend,
    PluginError,
    Support,
    installed_backends,
    load_backend,
    open_backend,
)
from cryptostore.plugins import loading
from cryptostore.plugins.loading import open_existing, shown_url
from fake_distributions import FakeSite

GROUP = "cryptostore.backends"
MAJOR, MINOR = INTERFACE_VERSION

#: A backend module; the parts in capitals are replaced.
PLUGIN = """
from cryptostore import BackendPlugin, BackendUnavailable, hookimpl
from cryptostore.store.memory import MemoryDatabase, MemoryHandle
opened = []
def open_it(url, options, timeout):
    opened.append((url, options))
    if len(opened) < int(options.get("attempts", 1)):
        raise BackendUnavailable("not yet")
    return MemoryHandle(MemoryDatabase())
@hookimpl
def cryptostore_backends():
    return [BackendPlugin("NAME", INTERFACE, open_it)]
"""


def plugin(name: str = "fake", interface: object = INTERFACE_VERSION) -> str:
    return PLUGIN.replace("NAME", name).replace("INTERFACE", repr(interface))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSite:
    return FakeSite(tmp_path / "site", monkeypatch)


def test_an_installed_backend_is_opened_with_url_and_options(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin())
    with open_backend("FAKE://host/keys?colour=red&shade=dark", deadline=3, shade="light") as backend:
        assert backend.health().server == "memory"
    assert site.module("fake_store").opened == [
        ("FAKE://host/keys?colour=red&shade=dark", {"colour": "red", "shade": "light"})
    ]


def test_what_only_looks_gives_the_options_with_which_nothing_is_made(site: FakeSite) -> None:
    source = plugin().replace("open_it)]", "open_it, existing_only={'create': 'never'})]")
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=source)
    open_existing("fake://host/keys?create=auto&colour=red").close()
    assert [options for _, options in site.module("fake_store").opened] == [{"create": "never", "colour": "red"}]


def test_opening_is_tried_again_until_the_deadline(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin())
    open_backend("fake://host/keys?attempts=3").close()
    assert len(site.module("fake_store").opened) == 3
    with pytest.raises(BackendUnavailable, match="not yet"):
        open_backend("fake://host/keys?attempts=1000&deadline=0.01")


def test_a_capability_that_is_not_named_is_unknown(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin())
    assert load_backend("fake").claim(Capability.TLS).support is Support.UNKNOWN
    assert load_backend("memory").claim(Capability.FENCING).support is Support.FULL


def test_only_the_backend_asked_for_is_imported(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin())
    site.install("other-store", {GROUP: {"other": "other_store"}}, other_store=plugin("other"))
    load_backend("fake")
    assert site.imported("fake_store")
    assert not site.imported("other_store")


def test_an_unknown_scheme_names_what_is_there(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin())
    with pytest.raises(BackendNotFound, match=r"^no backend named 'mysql' is installed; installed are: .*fake.*memory"):
        open_backend("mysql://host/keys")
    assert not site.imported("fake_store")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No distribution with a backend, and no memory of one that an earlier test saw."""
    monkeypatch.setattr(loading, "_entry_points", dict)
    monkeypatch.setattr(loading, "_load_once", loading._load_once.__wrapped__)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("scheme", "hint"),
    [
        ("sqlite", "install matrix-cryptostore-sqlite: from a checkout, pip install . ./backends/sqlite"),
        ("postgres", "install matrix-cryptostore-postgres: from a checkout, pip install . ./backends/postgres"),
        ("postgresql", "install matrix-cryptostore-postgres: from a checkout, pip install . ./backends/postgres"),
    ],
)
def test_our_own_backends_have_an_install_hint(scheme: str, hint: str) -> None:
    with pytest.raises(BackendNotFound) as caught:
        open_backend(f"{scheme}://host/keys")
    assert str(caught.value) == f"no backend named {scheme!r} is installed; {hint}"


@pytest.mark.usefixtures("nothing_installed")
def test_nothing_installed_is_said() -> None:
    with pytest.raises(BackendNotFound, match="installed are: none"):
        load_backend("mysql")


def test_a_url_without_scheme_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match="begins with the name of its backend"):
        open_backend("/var/lib/keys.db")


def test_what_is_installed_is_looked_through_once_until_something_is_installed(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    entry_points = metadata.entry_points

    def counted(*, group: str) -> metadata.EntryPoints:
        looks.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(metadata, "entry_points", counted)
    # The first import of a module would make a folder beside it, as an installation does.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(BackendNotFound):
        load_backend("fake")
    site.install("fake-one", {GROUP: {"fake": "fake_one"}}, fake_one=plugin())
    del looks[:]
    for _ in range(3):
        assert shown_url("fake://host/keys") == "fake://host/keys"
        load_backend("fake")
    assert looks == [GROUP]
    site.install("fake-two", {GROUP: {"fake": "fake_two"}}, fake_two=plugin())
    with pytest.raises(AmbiguousBackend):
        load_backend("fake")


def test_two_distributions_of_one_name_are_an_error(site: FakeSite) -> None:
    site.install("fake-one", {GROUP: {"fake": "fake_one"}}, fake_one=plugin())
    site.install("fake-two", {GROUP: {"fake": "fake_two"}}, version="2.5", fake_two=plugin())
    with pytest.raises(AmbiguousBackend, match=r"'fake' is claimed by fake-one 1\.0 and fake-two 2\.5; uninstall"):
        load_backend("fake")
    assert not site.imported("fake_one")
    assert not site.imported("fake_two")


def test_one_distribution_found_twice_is_no_ambiguity(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin())
    again = FakeSite(tmp_path / "again", monkeypatch)
    again.install("fake_store", {GROUP: {"fake": "fake_store"}}, version="1.1", fake_store=plugin())
    assert load_backend("fake").name == "fake"


BROKEN: dict[str, tuple[str, type[PluginError], str]] = {
    "raises": ("raise RuntimeError('no luck')", BackendLoadError, "cannot be loaded: RuntimeError: no luck"),
    "exits": ("import sys; sys.exit(3)", BackendLoadError, "cannot be loaded: SystemExit: 3"),
    "lacks_driver": ("import no_such_driver", BackendLoadError, "No module named 'no_such_driver'"),
    "bad_syntax": ("def", BackendLoadError, "cannot be loaded: SyntaxError"),
    "hook_raises": (
        plugin().replace("    return [", "    raise OSError('disk') or ["),
        BackendLoadError,
        "OSError: disk",
    ),
    "hook_is_no_list": (plugin().replace("return [", "return 3 or ["), BackendLoadError, "TypeError"),
    "misspelt": (plugin().replace("cryptostore_backends", "cryptostore_backend"), BackendInvalid, "unknown hook"),
    "no_hook": ("", BackendInvalid, "fake_store has no function cryptostore_backends that is marked @hookimpl"),
    "unmarked": (plugin().replace("@hookimpl", ""), BackendInvalid, "that is marked @hookimpl"),
    "other_name": (plugin("other"), BackendInvalid, "its hook yields 'other', but the entry point is called 'fake'"),
    "no_plugin": (
        plugin().replace("[BackendPlugin", "['fake'] or [BackendPlugin"),
        BackendInvalid,
        "yields a str, but",
    ),
    "nothing": (plugin().replace("[BackendPlugin", "[] and [BackendPlugin"), BackendInvalid, "no BackendPlugin"),
    "next_major": (plugin(interface=(MAJOR + 1, 0)), BackendIncompatible, f"written for interface {MAJOR + 1}.0"),
    "last_major": (plugin(interface=(MAJOR - 1, 0)), BackendIncompatible, f"written for interface {MAJOR - 1}.0"),
    "next_minor": (plugin(interface=(MAJOR, MINOR + 1)), BackendIncompatible, f"{MAJOR}.{MINOR + 1}; this"),
    "no_version": (plugin(interface=1), BackendInvalid, "names no interface version (major, minor)"),
    "text_version": (plugin(interface=("1", "0")), BackendInvalid, "names no interface version (major, minor)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_says_what_is_wrong_when_it_is_asked_for(case: str, site: FakeSite) -> None:
    source, expected, message = BROKEN[case]
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=source)
    with pytest.raises(PluginError) as caught:
        open_backend("fake://host/keys")
    assert type(caught.value) is expected
    assert message in str(caught.value)
    assert "fake-store 1.0" in str(caught.value)
    assert "install " in str(caught.value)
    has_cause = expected is BackendLoadError or case in {"misspelt", "no_hook", "unmarked"}
    assert (caught.value.__cause__ is not None) == has_cause


def test_one_distribution_under_two_spellings_of_its_folder_is_no_ambiguity(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin())
    (site.folder / "fake_store-1.0.dist-info").rename(site.folder / "fake-store-1.0.dist-info")
    site.install("fake-store", {GROUP: {"fake": "fake_store"}})
    assert load_backend("fake").name == "fake"


def test_what_is_left_of_a_distribution_harms_nobody(site: FakeSite) -> None:
    _harms_nobody(site)


def test_nor_where_a_library_has_replaced_how_distributions_are_found(site: FakeSite) -> None:
    # keyring does so on Python 3.11, and pygal on all.
    import_module("importlib_metadata")
    _harms_nobody(site)


def _harms_nobody(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "no_such_module"}})
    (site.folder / "fake_store-1.0.dist-info" / "METADATA").unlink()
    found = {backend.name: backend for backend in installed_backends()}
    assert found["memory"].plugin is not None
    assert (found["fake"].distribution, found["fake"].version) == ("?", "?")
    with pytest.raises(BackendLoadError, match="No module named 'no_such_module'"):
        load_backend("fake")


def test_the_failure_is_remembered_for_every_request(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store="raise RuntimeError('no luck')")
    for _ in range(2):
        with pytest.raises(BackendLoadError, match="RuntimeError: no luck"):
            load_backend("fake")


def test_an_attribute_as_entry_point_that_is_missing(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store:plugin"}}, fake_store="")
    with pytest.raises(BackendLoadError, match="AttributeError"):
        load_backend("fake")


def test_an_interrupt_while_loading_is_not_held_back(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_backend("fake")


def test_the_version_is_checked_before_anything_is_opened(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, fake_store=plugin(interface=(MAJOR + 1, 0)))
    with pytest.raises(BackendIncompatible):
        open_backend("fake://host/keys")
    assert site.module("fake_store").opened == []


def test_broken_plugins_break_nobody_else(site: FakeSite) -> None:
    for case, (source, _, _) in BROKEN.items():
        site.install(f"{case}-store", {GROUP: {f"broken-{case}": f"broken_{case}"}}, **{f"broken_{case}": source})
    with open_backend("memory://") as backend:
        assert backend.health().writable
    assert not any(site.imported(f"broken_{case}") for case in BROKEN)


def test_the_list_holds_good_and_broken_ones(site: FakeSite) -> None:
    site.install("fake-store", {GROUP: {"fake": "fake_store"}}, version="3.1", fake_store=plugin())
    site.install("twin-one", {GROUP: {"twin": "twin_one"}}, twin_one=plugin("twin"))
    site.install("twin-two", {GROUP: {"twin": "twin_two"}}, twin_two=plugin("twin"))
    for case, (source, _, _) in BROKEN.items():
        site.install(f"{case}-store", {GROUP: {f"broken-{case}": f"broken_{case}"}}, **{f"broken_{case}": source})
    found = {backend.name: backend for backend in installed_backends()}
    assert list(found) == sorted(found)
    memory = found["memory"]
    assert (memory.distribution, memory.version) == ("matrix-cryptostore", "0.1.0")
    assert memory.plugin is not None
    assert found["fake"] == InstalledBackend("fake", "fake-store", "3.1", load_backend("fake"))
    assert "is claimed by twin-one 1.0 and twin-two 1.0" in found["twin"].problem
    for case in BROKEN:
        broken = found[f"broken-{case}"]
        assert broken.plugin is None
        assert broken.distribution == f"{case}-store"
        assert broken.problem


def test_everything_exported_exists() -> None:
    assert sorted(set(cryptostore.__all__), key=str.lower) == sorted(cryptostore.__all__, key=str.lower)
    assert all(hasattr(cryptostore, name) for name in cryptostore.__all__)
