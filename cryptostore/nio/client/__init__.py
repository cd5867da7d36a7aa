"""A matrix-nio client for production: nothing leaves before it is durable."""

from .client import ProductionMatrixClient
from .statistics import Statistics
from .transactions import transaction_id

__all__ = ["ProductionMatrixClient", "Statistics", "transaction_id"]
