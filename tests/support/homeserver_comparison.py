"""Run by Synapse's Python with Synapse's arguments: what its configuration has that is not Synapse's own default.

Writes the names as JSON, each a section of Synapse's configuration and an attribute of it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from synapse.config.homeserver import HomeServerConfig  # type: ignore[import-not-found]  # in another Python

#: Without these Synapse has no configuration.
_REQUIRED = ("server_name", "report_stats", "signing_key_path")


def differing(arguments: list[str]) -> list[str]:
    """What a Synapse with these arguments runs with, and an unconfigured one does not."""
    real = HomeServerConfig.load_config("", arguments)
    file = Path(arguments[arguments.index("-c") + 1])
    given = json.loads(file.read_text())
    default = HomeServerConfig()
    default.parse_config_dict({name: given[name] for name in _REQUIRED}, str(file.parent), str(file.parent))
    ours, theirs = _values(real), _values(default)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _values(config: Any) -> dict[str, str]:
    sections = {each.section: vars(getattr(config, each.section)) for each in config.config_classes}
    return {
        f"{section}.{name}": re.sub(" at 0x[0-9a-f]+", "", repr(value))
        for section, values in sections.items()
        for name, value in values.items()
        if name != "root"
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(differing(sys.argv[1:])))
