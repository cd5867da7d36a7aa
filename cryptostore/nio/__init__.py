"""The drop-in store for matrix-nio: `AsyncClientConfig(store=NioStore, store_sync_tokens=True)`.

The client's `store_path` is the URL of a database.
"""

from .store import NioStore

__all__ = ["NioStore"]
