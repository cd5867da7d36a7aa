"""Backend URLs: options, and passwords that never show."""

from __future__ import annotations

import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cryptostore import ConfigurationError
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import CommonOptions, options_of, path_of, redact, refuse_unknown, scheme_of
from cryptostore.store.owners import default_owner
from example_records import SECRET
from fake_distributions import FakeSite


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("sqlite:///keys.db", "sqlite"),
        ("PostgreSQL://host/keys", "postgresql"),
        ("my-own.store+tls:x", "my-own.store+tls"),
    ],
)
def test_scheme(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


@pytest.mark.parametrize("url", ["", f"/home/{SECRET}", f"user={SECRET}", "1st://x", f"://{SECRET}"])
def test_what_has_no_scheme_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="begins with the name of its backend") as caught:
        scheme_of(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///keys.db", "sqlite:///keys.db"),
        ("sqlite:////var/lib/bot/keys.db?deadline=5", "sqlite:////var/lib/bot/keys.db?deadline=5"),
        ("sqlite:keys.db", "sqlite:***"),
        ("memory://", "memory://"),
        ("postgresql://host:5432/keys", "postgresql://host:5432/keys"),
        ("postgresql://bot@host/keys", "postgresql://bot@host/keys"),
        (f"postgresql://bot:{SECRET}@host/keys", "postgresql://bot:***@host/keys"),
        (f"postgresql://bot:a@{SECRET}@host/keys", "postgresql://bot:***@host/keys"),
        (f"postgresql://bot:{SECRET}@a:1,b:2/keys?owner=x", "postgresql://bot:***@a:1,b:2/keys?owner=x"),
        (f"postgresql://host/keys?password={SECRET}&owner=bot", "postgresql://host/keys?***&owner=bot"),
        (f"postgresql://host/keys?deadline=5&{SECRET}", "postgresql://host/keys?deadline=5&***"),
        (f"postgresql://host/keys?{SECRET}=1&&owner={SECRET[:1]}", f"postgresql://host/keys?***&owner={SECRET[:1]}"),
        (f"vault://host/keys?unseal_key={SECRET}&Owner={SECRET}", "vault://host/keys?***&***"),
        ("sqlite:////home/@bot:example.org/keys.db", "sqlite:////home/@bot:example.org/keys.db"),
        ("sqlite:///a@b/keys.db?owner=bot@home", "sqlite:///a@b/keys.db?owner=bot@home"),
        (f"postgresql:///bot:{SECRET}@host/keys", "postgresql:***"),
        (f"postgresql:///bot:{SECRET}?{SECRET}@host/keys", "postgresql:***"),
        (f"bot:{SECRET}://host/keys", "bot:***"),
        ("sqlite:///a\u202e%E2%80%AE.db", "sqlite:///a\\u202e%E2%80%AE.db"),
        (f"postgresql://bot:a/{SECRET}@host/keys", "postgresql:***"),
        (f"postgresql://bot:a#{SECRET}@host/keys", "postgresql:***"),
        (f"postgresql://bot:a?{SECRET}@host/keys", "postgresql:***"),
        (f"postgresql://host/keys#{SECRET}", "postgresql://host/keys"),
        (f"postgresql://bot:[{SECRET}@host/keys", "***"),
        (f"host=db password={SECRET}", "***"),
        (f"bot:{SECRET}@host/keys", "bot:***"),
        (f"postgresql:password={SECRET} host=db", "postgresql:***"),
        (f"postgresql:/bot:{SECRET}/keys", "postgresql:***"),
        (f"postgresql://bot:{SECRET}/keys", "postgresql://***/keys"),
        (f"postgresql://a:1,bot:{SECRET}/keys", "postgresql://a:1,***/keys"),
        ("postgresql://bot@[::1]:5432,[fe80::1%eth0]/keys", "postgresql://bot@[::1]:5432,[fe80::1%eth0]/keys"),
    ],
)
def test_redacted(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_options_are_shown_where_their_plugin_says_so() -> None:
    url = f"postgresql://host/keys?schema=a+b%20c&password={SECRET}&pool_size="
    assert redact(url, {"schema", "pool_size"}) == "postgresql://host/keys?schema=a+b%20c&***&pool_size="


# A letter that the rest of the URL does not have, so that a leak is no coincidence.
passwords = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(lambda text: f"Z{text}Z")


@given(passwords)
@example("Z\uff20Z")  # becomes an "@" under NFKC, which the standard library refuses with the password in its error
@example("Z]Z")
@example("Z\n@/Z")
def test_a_password_never_shows(password: str) -> None:
    urls = [
        f"postgresql://bot:{password}@host/keys",
        f"postgresql://bot:{quote(password, safe='')}@host/keys",
        f"postgresql://host/keys?user=bot&password={quote(password, safe='')}",
        f"host=host password={password}",
    ]
    for url in urls:
        assert "Z" not in redact(url)
        with suppress(ConfigurationError):
            options_of(url, {})


def test_options_of_the_url_and_of_the_call() -> None:
    url = "sqlite:///keys.db?deadline=5&owner=the%20bot&empty="
    assert options_of(url, {}) == {"deadline": "5", "owner": "the bot", "empty": ""}
    assert options_of(url, {"deadline": 7.5, "other": 1})["deadline"] == 7.5
    assert options_of("sqlite:///keys.db", {}) == {}


def test_a_plus_in_a_url_is_a_plus() -> None:
    assert options_of("postgresql://host/keys?application_name=a+b%20c&&", {}) == {"application_name": "a+b c"}


def test_an_option_is_given_once_in_a_url() -> None:
    with pytest.raises(ConfigurationError, match="'deadline' is given twice"):
        options_of("sqlite:///keys.db?deadline=5&deadline=6", {})


@pytest.mark.parametrize("stumbling_block", ["[", "\uff20"])
def test_a_url_that_cannot_be_read_is_refused(stumbling_block: str) -> None:
    with pytest.raises(ConfigurationError, match="the postgresql URL cannot be read; percent-encode") as caught:
        options_of(f"postgresql://bot:{stumbling_block}{SECRET}@host/keys", {})
    assert SECRET not in "".join(traceback.format_exception(caught.value, limit=0))


@pytest.mark.parametrize(("given_value", "seconds"), [("5", 5.0), (0.25, 0.25), ("1e2", 100.0), (86_399, 86_399.0)])
def test_deadline(given_value: Any, seconds: float) -> None:
    options = {"deadline": given_value, "owner": "bot", "other": 1}
    assert CommonOptions.take_from(options) == CommonOptions(seconds, "bot")
    assert options == {"other": 1}


@pytest.mark.parametrize("given_value", ["", "soon", None, 0, -1, 86_400, "nan", "inf", [5]])
def test_a_deadline_that_is_none_is_refused(given_value: Any) -> None:
    with pytest.raises(ConfigurationError, match="'deadline' must be a number of seconds"):
        CommonOptions.take_from({"deadline": given_value})


def test_the_owner_is_this_process_unless_it_is_named() -> None:
    assert CommonOptions.take_from({}) == CommonOptions(15.0, default_owner())
    assert CommonOptions.take_from({"owner": ""}).owner == default_owner()
    assert len(CommonOptions.take_from({"owner": "o" * 300}).owner) == 255


def test_unknown_options_are_named() -> None:
    refuse_unknown({}, "deadline")
    with pytest.raises(ConfigurationError, match=r"unknown option 'colour', 'dedline' .*known are: deadline, owner"):
        refuse_unknown({"dedline": SECRET, "colour": 1}, "deadline, owner")


def test_a_path_is_relative_after_three_slashes_and_absolute_after_four() -> None:
    assert path_of("rocksdb:///some/keys?deadline=5") == Path.cwd() / "some/keys"
    assert path_of("rocksdb:////var/lib/a%23b%20c") == Path("/var/lib/a#b c")


@pytest.mark.parametrize(
    "wrong",
    ["rocksdb:keys", "rocksdb://keys", "rocksdb:///", "rocksdb:///keys#1", "rocksdb:///%00", "rocksdb://host/keys"],
)
def test_a_url_without_a_path_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="a rocksdb URL names a path, with three slashes"):
        path_of(wrong)


WITH_OPTIONS = """
from cryptostore import BackendPlugin, hookimpl
@hookimpl
def cryptostore_backends():
    return [BackendPlugin("vault", (2, 0), print, shown_options=frozenset({"region"}))]
"""


def test_a_url_is_shown_with_what_its_plugin_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"vault://host/keys?region=eu&unseal_key={SECRET}"
    assert shown_url(url) == "vault://host/keys?***&***"
    FakeSite(tmp_path, monkeypatch).install("vaults", {"cryptostore.backends": {"vault": "vault"}}, vault=WITH_OPTIONS)
    assert shown_url(url) == "vault://host/keys?region=eu&***"
    assert shown_url(SECRET) == "***"
