"""The hosts of a URL, and which of them is tried first."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from .options import PostgresOptions

#: The environment variables that are not called like their parameters.
_VARIABLES: Final = {"load_balance_hosts": "PGLOADBALANCEHOSTS", "target_session_attrs": "PGTARGETSESSIONATTRS"}


class Hosts:
    """The hosts that a URL names, each with what libpq is given for it, in the order in which they are tried."""

    def __init__(self, options: PostgresOptions) -> None:
        self._hosts = [replace(options, connection=each) for each in _one_by_one(options.connection)]
        if _given(options.connection, "load_balance_hosts") == "random":
            random.shuffle(self._hosts)

    def in_order(self) -> list[PostgresOptions]:
        """All hosts, the first to be tried first."""
        return self._hosts

    def put_last(self, host: PostgresOptions) -> None:
        """From now on, try every other host before this one."""
        self._hosts = sorted(self._hosts, key=lambda each: each is host)


def _one_by_one(connection: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What libpq is given for each host alone: where it is given all, it tells what the last of them answered."""
    names: Final = ("host", "hostaddr", "port")
    listed = [_given(connection, name).split(",") for name in names]
    count = max(len(listed[0]), len(listed[1]))
    if count == 1 or _given(connection, "target_session_attrs") == "prefer-standby":
        return [connection]
    # One port is for all hosts.
    columns = [each * count if len(each) == 1 else each for each in listed]
    if any(len(each) != count for each in columns):
        return [connection]
    # Of several hosts, all but the primary may be behind it.
    common = {"target_session_attrs": _given(connection, "target_session_attrs") or "read-write", **connection}
    return [common | dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _given(connection: Mapping[str, Any], name: str) -> str:
    variable = _VARIABLES.get(name, f"PG{name.upper()}")
    return str(connection.get(name) or os.environ.get(variable, ""))
