"""Finding backends and observers, and what they and their URLs look like."""

from .loading import InstalledBackend, installed_backends, load_backend, open_backend, open_existing
from .plugin import BackendPlugin, OpenDatabase, Setting

__all__ = [
    "BackendPlugin",
    "InstalledBackend",
    "OpenDatabase",
    "Setting",
    "installed_backends",
    "load_backend",
    "open_backend",
    "open_existing",
]
