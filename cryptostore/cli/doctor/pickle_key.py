"""Whether there is a pickle key, where it comes from, and how good it is. The key itself is never shown."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptostore.cli.pickle_keys import VARIABLE, PickleKeyOptions, given_pickle_key
from cryptostore.errors import ConfigurationError
from cryptostore.plugins.environment import Found, found_variables
from cryptostore.plugins.findings import Finding, Level
from cryptostore.store.pickle_key_sources import PLACES
from cryptostore.store.pickle_keys import PUBLIC_PICKLE_KEYS, is_generated, is_weak
from cryptostore.store.private_files import open_to_others

#: What nio encrypts pickles with unless it is told otherwise.
_DEFAULT: Final = "DEFAULT_KEY"
_EMPTY: Final = Found(VARIABLE, "", "the environment")
_NEW_KEY: Final = (
    "make one with `cryptostore new-key`, bring it into force with `cryptostore rekey`, and give it to the client"
)


def look_at_pickle_key(options: PickleKeyOptions) -> tuple[str | None, list[Finding]]:
    """The key to open accounts with, and what there is to say of it. No key where what is given is none."""
    try:
        key = given_pickle_key(options)
        findings = list(_findings(key, options))
    except ConfigurationError as error:
        return None, [Finding.of_error("pickle key", error)]
    return _DEFAULT if key is None else key, findings


def _findings(key: str | None, options: PickleKeyOptions) -> Iterator[Finding]:
    if key is None:
        remedy = f"give the client's: {VARIABLE}, {VARIABLE}_FILE or --pickle-key-file"
        yield Finding("pickle key", Level.WARNING, "none is given, so nio's default is tried", remedy)
        return
    origin, file = _origin(options)
    mode = None if file is None else open_to_others(file)
    if mode is not None:
        seen = f"the file {file} is open to other users of this machine (mode {mode:04o})"
        command = shlex.join(["chmod", "600", str(file)])
        yield Finding("pickle key", Level.WARNING, seen, "make it its owner's alone", (command,))
    if key in PUBLIC_PICKLE_KEYS:
        yield Finding("pickle key", Level.WARNING, f"{origin}: one that everybody knows", _NEW_KEY)
    elif is_weak(key):
        yield Finding("pickle key", Level.WARNING, f"{origin}: a passphrase that can be guessed", _NEW_KEY)
    else:
        what = "a generated key" if is_generated(key) else "a passphrase"
        yield Finding("pickle key", Level.OK, f"{what}, {origin}")


def _origin(options: PickleKeyOptions) -> tuple[str, Path | None]:
    """Where it is from, in words, and the file that holds nothing else."""
    if options.names():
        return f"given by {options.names()[0]}", options.file
    places = {VARIABLE, *(VARIABLE + place for place in PLACES)}
    # The last one hides those before it.
    found = [each for each in found_variables() if each.name in places and each.value] or [_EMPTY]
    file = Path(found[-1].value) if found[-1].name == f"{VARIABLE}_FILE" else None
    return f"given by {found[-1].name} ({found[-1].origin})", file
