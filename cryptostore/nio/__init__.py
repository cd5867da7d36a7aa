"""Clients of matrix-nio whose keys are in a real database.

`NioStore` is the drop-in store: `AsyncClientConfig(store=NioStore, store_sync_tokens=True)`, with the URL of a database
as the client's `store_path`. `ProductionMatrixClient` is a client that sends nothing before it is durable.
"""

from .client import ProductionMatrixClient, Statistics, transaction_id
from .store import NioStore

__all__ = ["NioStore", "ProductionMatrixClient", "Statistics", "transaction_id"]
