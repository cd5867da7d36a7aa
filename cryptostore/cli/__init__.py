"""The command line: `cryptostore COMMAND`, one module a command."""

from .app import main

__all__ = ["main"]
