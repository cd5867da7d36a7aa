"""Fixtures of the PostgreSQL backend's tests."""

from postgres_fixtures import breakable_database, postgres_database, postgres_harness, postgres_url

__all__ = ["breakable_database", "postgres_database", "postgres_harness", "postgres_url"]
