"""What of a PostgreSQL URL may be shown, compared with what libpq says of its own options."""

from __future__ import annotations

import psycopg
import pytest

from cryptostore import load_backend
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.urls import redact
from cryptostore_postgres.options import OWN_OPTIONS, SHOWN_OPTIONS

LIBPQ = {option.keyword.decode(): option for option in psycopg.pq.Conninfo.get_defaults()}
#: How libpq marks a password, and what only its developers should see.
SECRET_MARKS = (b"*", b"D")


def test_libpq_has_options_that_are_secret() -> None:
    assert LIBPQ["password"].dispchar == b"*"


def test_nothing_is_shown_that_libpq_calls_secret() -> None:
    assert not {name for name in SHOWN_OPTIONS & LIBPQ.keys() if LIBPQ[name].dispchar in SECRET_MARKS}


#: Shown, and too new for the oldest libpq that is supported.
NEWER = {"load_balance_hosts", "require_auth", "sslcertmode", "sslnegotiation", "sslsni"}


def test_every_option_that_is_shown_is_one() -> None:
    assert SHOWN_OPTIONS - LIBPQ.keys() - OWN_OPTIONS <= NEWER


@pytest.mark.parametrize("name", sorted(LIBPQ.keys() - SHOWN_OPTIONS))
def test_every_other_option_is_hidden(name: str) -> None:
    assert shown_url(f"postgresql://host/keys?{name}=canary&sslmode=require") == (
        "postgresql://host/keys?***&sslmode=require"
    )


@pytest.mark.parametrize(
    "name", ["oauth_client_secret", "scram_client_key", "scram_server_key", "sslkeylogfile", "passfile", "options"]
)
def test_secrets_of_a_newer_libpq_are_hidden_with_an_older_one_too(name: str) -> None:
    assert "canary" not in redact(f"postgres://host/keys?{name}=canary", SHOWN_OPTIONS)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_names_show_the_same(scheme: str) -> None:
    assert load_backend(scheme).shown_options == SHOWN_OPTIONS
    url = f"{scheme}://bot@a:1,b:2/keys?schema=x&pool_size=2&migrate=never&target_session_attrs=read-write"
    assert shown_url(url) == url
