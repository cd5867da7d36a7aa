"""The contract: every case group in one class."""

from __future__ import annotations

import pytest

from .cases.batches import BatchCases
from .cases.records import RecordCases


# Nothing in the interface waits for ever, so no case does either.
@pytest.mark.timeout(300)
class StoreContract(RecordCases, BatchCases):
    """What every backend must do. Subclass it, and give the subclass a fixture named `harness`."""
