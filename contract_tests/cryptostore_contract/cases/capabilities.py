"""Capabilities: what a backend says that it lacks is really lacking, as far as any database can be asked."""

from __future__ import annotations

from typing import Final

from cryptostore import Capability, ConfigurationError, SyncToken
from cryptostore_contract.cases.base import CaseGroup
from cryptostore_contract.children import child
from cryptostore_contract.handles import Handles, put
from cryptostore_contract.harness import Ability, Harness, lacks
from cryptostore_contract.manifest import case
from cryptostore_contract.samples import ALICE, BOB, sample

#: Every backend that passes the contract has these: other cases ask them of all.
_OF_ALL: Final = (Capability.FENCING, Capability.SNAPSHOT_READS, Capability.BOUNDED_SCAN)


class CapabilityCases(CaseGroup):
    """Both ways: other groups show what is declared, and these that the rest is absent."""

    @case("CAPABILITIES-1", checks=("COMMIT-4",))
    def test_a_database_that_is_said_to_end_with_its_process_does(self, handles: Handles, harness: Harness) -> None:
        denied = lacks(harness, Capability.SURVIVES_PROCESS_KILL)
        if denied or Ability.OTHER_PROCESS in harness.abilities:
            with child(harness.url, ALICE, "write", "1") as writer:
                # Nothing is found of one that could not even open the database.
                assert writer.finish()[-1:] == ["1"]
            said = "denies" if denied else "does not deny"
            assert (ALICE in handles.open().accounts()) is not denied, f"it {said} that it survives its process"

    @case("CAPABILITIES-2", checks=("BACKEND-1",))
    def test_a_database_that_is_said_to_be_for_one_process_is(self, handles: Handles, harness: Harness) -> None:
        put(handles.own(ALICE), sample(SyncToken))
        if lacks(harness, Capability.SEVERAL_PROCESSES):
            url = harness.url + ("&" if "?" in harness.url else "?") + "deadline=1"
            with child(url, BOB, "write-if-let") as writer:
                assert writer.finish()[-1:] in (["1"], ["unavailable"])
            assert BOB not in handles.open().accounts(), "declared for one process at a time, and two had it open"
        elif Ability.PROCESSES_AT_ONCE in harness.abilities:
            with child(harness.url, BOB, "write", "1") as writer:
                assert writer.finish()[-1:] == ["1"]
            assert BOB in handles.open().accounts()

    @case("CAPABILITIES-3", checks=("OPEN-2", "GET-6", "SCAN-2"))
    def test_what_every_backend_must_have_is_not_said_to_be_absent(self, harness: Harness) -> None:
        # A harness that offers TLS has URLs that demand it, and other cases see it by them.
        present = [*_OF_ALL, Capability.TLS] if Ability.TLS in harness.abilities else _OF_ALL
        assert [capability.value for capability in present if lacks(harness, capability)] == []

    @case("CAPABILITIES-4", checks=("HEALTH-1", "COMMIT-4"), needs=(Ability.UNDURABLE,))
    def test_a_server_that_does_not_wait_for_its_disk_is_refused_or_told(
        self, handles: Handles, harness: Harness
    ) -> None:
        assert not handles.open().health().not_durable, "the server is set not to be durable from the beginning"
        with harness.undurable():
            try:
                health = handles.open().health()
            except ConfigurationError:
                return
        told = health.not_durable or lacks(harness, Capability.SURVIVES_POWER_LOSS)
        assert told, "declared to survive a power failure, and does not say that this server would not"
