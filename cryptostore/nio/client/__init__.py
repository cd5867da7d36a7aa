"""A matrix-nio client for production: nothing leaves before it is durable."""

from .client import ProductionMatrixClient
from .statistics import Statistics

__all__ = ["ProductionMatrixClient", "Statistics"]
