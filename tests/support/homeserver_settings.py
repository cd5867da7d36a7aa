"""Everything in which the tests' Synapse differs from one that nobody has configured, with the reason for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SERVER_NAME: Final = "test.invalid"

_UNLIMITED: Final = {"per_second": 100_000, "burst_count": 100_000}
_RATE: Final = "a test sends in a second what a person sends in a day"
_ALONE: Final = "the tests reach no server on any network"
_ITS_OWN: Final = "has no default: each server has its own"


@dataclass(frozen=True)
class Setting:
    """One option of the configuration file."""

    option: str
    value: Any
    reason: str
    #: What Synapse's own configuration objects call what the option decides.
    decides: tuple[str, ...]


def settings(folder: Path, port: int, registration_secret: str) -> Sequence[Setting]:
    """The whole configuration of a server that keeps its data in a folder."""
    return (*_place(folder, port), *_access(registration_secret), *_network(), *_rates())


def _place(folder: Path, port: int) -> Sequence[Setting]:
    listener = {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "type": "http",
        "resources": [{"names": ["client"]}],
    }
    database = {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}}
    logs = ("logging.log_config",)
    return (
        Setting("server_name", SERVER_NAME, _ITS_OWN, ()),
        Setting("report_stats", False, "has no default", ()),
        Setting("signing_key_path", str(folder / "signing.key"), _ITS_OWN, ()),
        Setting("listeners", [listener], "listens on this machine only", ("server.listeners",)),
        Setting("database", database, _ITS_OWN, ("database.databases",)),
        Setting("media_store_path", str(folder / "media"), _ITS_OWN, ("media.media_store_path",)),
        Setting("log_config", str(folder / "log.yaml"), "a failure shows warnings, not a line a request", logs),
    )


def _access(registration_secret: str) -> Sequence[Setting]:
    # Synapse makes its other secrets of this one.
    secret = ("registration.registration_shared_secret", "key.macaroon_secret_key")
    rounds = ("registration.bcrypt_rounds",)
    return (
        Setting("registration_shared_secret", registration_secret, "tests make users", secret),
        Setting("bcrypt_rounds", 4, "each of hundreds of logins would take a second", rounds),
    )


def _network() -> Sequence[Setting]:
    return (
        Setting("trusted_key_servers", [], _ALONE, ("key.key_servers",)),
        Setting("federation_domain_whitelist", [], _ALONE, ("federation.federation_domain_whitelist",)),
    )


def _rates() -> Sequence[Setting]:
    return (
        _rate("rc_message"),
        _rate("rc_registration"),
        _rate("rc_room_creation"),
        _rate("rc_joins_per_room"),
        _rate("rc_login", "address", "account", "failed_attempts"),
        _rate("rc_joins", "local", "remote"),
        _rate("rc_invites", "per_room", "per_user", "per_issuer"),
    )


def _rate(option: str, *parts: str) -> Setting:
    value = dict.fromkeys(parts, _UNLIMITED) if parts else _UNLIMITED
    decides = tuple(f"ratelimiting.{option}_{part}" for part in parts) or (f"ratelimiting.{option}",)
    return Setting(option, value, _RATE, decides)
