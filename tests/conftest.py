"""Settings of the core's own tests."""

from hypothesis import settings

# Machines that run tests are busy: a slow example is no failure.
settings.register_profile("cryptostore", deadline=None)
settings.load_profile("cryptostore")
