"""The devices that an account of the source knows, with their keys and the owner's decisions about them."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from nio.crypto import TrustState

from cryptostore import records
from cryptostore.nio.standins import stored_name
from cryptostore.records.fields import DeviceTrust

from .findings import Findings
from .source import NioFile, Row, SourceAccount

_TWO_DECISIONS: Final = "the database and the files beside it differ about it; the owner has to decide again"


class SourceDevices:
    """Makes records of device rows of both versions of nio's schema.

    Decisions come from the SqliteStore's table and from the DefaultStore's files: the source does not say which of the
    two stores the client used.
    """

    def __init__(self, source: NioFile, row: SourceAccount, findings: Findings) -> None:
        self._account = row.account
        self._findings = findings
        self._files = source.trust_files(row.account)
        self._keys: dict[int, dict[str, str]] = defaultdict(dict)
        for key in source.rows("keys", findings):
            self._keys[key["device_id"]][key["key_type"]] = key["key"]
        self._states = {state["device_id"]: state["state"] for state in source.rows("devicetruststate", findings)}

    def record(self, row: Row) -> records.Device:
        """The device of a row. Raises InvalidRecord or ValueError for one that nio could not use."""
        keys = self._keys_of(row)
        if not all(isinstance(keys.get(name), str) for name in ("ed25519", "curve25519")):
            raise ValueError("its keys are missing, so the owner's decision about it is not kept either")
        return records.Device(
            user_id=row["user_id"],
            device_id=row["device_id"],
            keys=keys,
            display_name=stored_name(row.get("display_name")),
            deleted=bool(row["deleted"]),
            trust=self._trust(row, keys["ed25519"]),
        )

    def report_what_is_left(self) -> None:
        """Note the decisions that fit no device which was asked for, and the files that could not be read."""
        for (user_id, device_id, _), trust in self._files.not_asked_for():
            reason = f"a file says {trust}, but the database has no such device, or another Ed25519 key of it"
            self._findings.add(self._account, "device trust", reason, user_id, device_id)
        for name, damage in self._files.damage.items():
            self._findings.add(self._account, "device trust", damage, name)

    def _keys_of(self, row: Row) -> dict[str, str]:
        # Version 1 of nio's schema had two columns instead of a table of keys.
        if "fp_key" in row:
            return {"ed25519": row["fp_key"], "curve25519": row["sender_key"]}
        return self._keys[row["id"]]

    def _trust(self, row: Row, ed25519: str) -> DeviceTrust:
        decisions = {self._decision_in_table(row), self._files.decision((row["user_id"], row["device_id"], ed25519))}
        decisions.discard(DeviceTrust.UNSET)
        if len(decisions) > 1:
            self._findings.add(self._account, "device trust", _TWO_DECISIONS, row["user_id"], row["device_id"])
            # An exclusion stays until the owner lifts it.
            return DeviceTrust.BLACKLISTED if DeviceTrust.BLACKLISTED in decisions else DeviceTrust.UNSET
        return decisions.pop() if decisions else DeviceTrust.UNSET

    def _decision_in_table(self, row: Row) -> DeviceTrust:
        state = self._states.get(row["id"], TrustState.unset.value)
        try:
            return DeviceTrust(TrustState(state).name)
        except ValueError:
            reason = "its state is none that nio knows; it was imported as unset"
            self._findings.add(self._account, "device trust", reason, row["user_id"], row["device_id"])
            return DeviceTrust.UNSET
