"""Whether the file `.env` can be used, and who else may read the secrets in it."""

from __future__ import annotations

import shlex

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.environment import ENV_FILE, found_variables, has_secrets
from cryptostore.plugins.findings import Finding, Level
from cryptostore.store.private_files import open_to_others


def look_at_env_file() -> Finding:
    """What there is to say of it."""
    try:
        lines = [each for each in found_variables() if each.origin.startswith(f"{ENV_FILE}, ")]
    except ConfigurationError as error:
        return Finding.of_error("env file", error, prevents_opening=True)
    if not lines:
        return Finding("env file", Level.OK, f"no settings come from {ENV_FILE}")
    mode = open_to_others(ENV_FILE)
    if mode is not None and has_secrets(lines):
        seen = f"{ENV_FILE} holds secrets, and is open to other users of this machine (mode {mode:04o})"
        command = shlex.join(["chmod", "600", ENV_FILE])
        return Finding("env file", Level.WARNING, seen, "make it its owner's alone", (command,))
    return Finding("env file", Level.OK, f"{ENV_FILE} has {len(lines):,} variables")
