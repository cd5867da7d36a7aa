"""`python tests/support/golden_values.py`: adds the bytes of kinds and formats that have no golden value yet.

What is in the file is never changed: every later version must read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from cryptostore import KINDS
from cryptostore.store.keys import encode_own_key
from cryptostore.store.values import encode_value
from example_records import example

FILE: Final = Path(__file__).parents[1] / "unit" / "golden_values.json"

#: For each kind and format, the key and the value of its example record, in hexadecimal.
Golden = dict[str, dict[str, dict[str, str]]]


def load() -> Golden:
    """The golden values of every kind and format."""
    golden: Golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    return golden


def add_missing() -> None:
    """Write the golden values of kinds and formats that have none."""
    golden = load()
    for kind in KINDS:
        record = example(kind)
        value = {"key": encode_own_key(record).hex(), "value": encode_value(record).hex()}
        golden.setdefault(kind.kind_name, {}).setdefault(str(kind.format_number), value)
    FILE.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    add_missing()
