"""Clients on a small homeserver, with real HTTP, real Olm and a database of each backend."""

from database_urls import memory_url, url
from postgres_fixtures import postgres_database, postgres_url

__all__ = ["memory_url", "postgres_database", "postgres_url", "url"]
