"""Run one measurement in a process of its own: `worker.py MODULE FUNCTION`, its arguments as JSON on standard input.

The answer is one line of JSON on standard output. This script and `workers/` run in the environment of whatever is
measured, so they use what every checkout has.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys


def main() -> None:
    """Do what the command line names."""
    module, function = sys.argv[1:]
    # Warnings about a pickle key, or about a read on the event loop, are no news to a measurement.
    logging.disable(logging.WARNING)
    arguments = json.load(sys.stdin)
    measured = getattr(importlib.import_module(f"workers.{module}"), function)(**arguments)
    sys.stdout.write(f"\n{json.dumps(measured)}\n")


if __name__ == "__main__":
    main()
