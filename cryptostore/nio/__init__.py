"""Clients of matrix-nio whose keys are in a real database.

`NioStore` is the drop-in store: `AsyncClientConfig(store=NioStore, store_sync_tokens=True)`, with the URL of a database
as the client's `store_path`. `ProductionMatrixClient` is a client that sends nothing before it is durable.
"""

from .distribution import check_nio

# Before nio is imported: another distribution's may lack what ours override.
check_nio()

from .client import ProductionMatrixClient, Statistics, transaction_id  # noqa: E402  # it imports nio
from .pruning import Pruning  # noqa: E402  # as above
from .store import NioStore  # noqa: E402  # as above
from .trust.backup_restore import RestoredBackup  # noqa: E402  # as above
from .trust.key_backup import KeyBackupState  # noqa: E402  # as above
from .trust.own_steps import IdentityState  # noqa: E402  # as above
from .trust.policies import TrustPolicy  # noqa: E402  # as above
from .trust.senders import SenderTrust  # noqa: E402  # as above
from .trust.verification import Verification  # noqa: E402  # as above
from .trust.vouching import Verified  # noqa: E402  # as above

__all__ = [
    "IdentityState",
    "KeyBackupState",
    "NioStore",
    "ProductionMatrixClient",
    "Pruning",
    "RestoredBackup",
    "SenderTrust",
    "Statistics",
    "TrustPolicy",
    "Verification",
    "Verified",
    "transaction_id",
]
