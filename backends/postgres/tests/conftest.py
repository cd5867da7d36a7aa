"""Fixtures of the PostgreSQL backend's tests."""

from postgres_fixtures import postgres_database, postgres_harness, postgres_url

__all__ = ["postgres_database", "postgres_harness", "postgres_url"]
