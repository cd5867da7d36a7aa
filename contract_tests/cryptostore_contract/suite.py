"""The contract: every case group in one class."""

from __future__ import annotations

import pytest

from .cases.backups import BackupCases
from .cases.batches import BatchCases
from .cases.capabilities import CapabilityCases
from .cases.concurrency import ConcurrencyCases
from .cases.crashes import CrashCases
from .cases.faults import FaultCases
from .cases.isolation import IsolationCases
from .cases.lifecycle import LifecycleCases
from .cases.machine import MachineCases
from .cases.nio import NioCases
from .cases.numbering import NumberingCases
from .cases.ownership import OwnershipCases
from .cases.performance import PerformanceCases
from .cases.reading import ReadingCases
from .cases.records import RecordCases
from .cases.restart import RestartCases
from .cases.scanning import ScanningCases
from .cases.schema import SchemaCases
from .cases.sealed import SealedCases
from .cases.secrets import SecretCases
from .cases.severing import SeveringCases
from .cases.storage import StorageCases
from .cases.unreadable import UnreadableCases


# Nothing in the interface waits for ever, so no case does either.
@pytest.mark.timeout(300)
class StoreContract(
    RecordCases,
    BatchCases,
    ReadingCases,
    ScanningCases,
    IsolationCases,
    LifecycleCases,
    OwnershipCases,
    NumberingCases,
    BackupCases,
    ConcurrencyCases,
    RestartCases,
    CrashCases,
    FaultCases,
    SeveringCases,
    StorageCases,
    SchemaCases,
    UnreadableCases,
    SealedCases,
    SecretCases,
    CapabilityCases,
    MachineCases,
    NioCases,
    PerformanceCases,
):
    """What every backend must do. Subclass it, and give the subclass a fixture named `harness`."""
