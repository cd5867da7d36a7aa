"""Bringing the keys of nio's own stores, SqliteStore and DefaultStore, into any backend."""

from .convert import AccountImport
from .findings import Finding, Findings
from .reading import read_accounts
from .source import NioFile, open_source
from .transfer import ReadBackFailed, leftovers_of, transfer

__all__ = [
    "AccountImport",
    "Finding",
    "Findings",
    "NioFile",
    "ReadBackFailed",
    "leftovers_of",
    "open_source",
    "read_accounts",
    "transfer",
]
