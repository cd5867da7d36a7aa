"""Observers that come with this distribution, each switched on by a setting. See `docs/monitoring.md`."""
