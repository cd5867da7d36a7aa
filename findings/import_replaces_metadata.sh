#!/bin/sh
# importlib_metadata: who imports it, for instance by importing keyring, changes what the standard library's
# importlib.metadata answers, for every module of the process. What was no error before is one.
#
# Versions: importlib_metadata 10.2.0; keyring 25.7.0 imports it before Python 3.12, pygal 3.1.3 on any.
#
# Guess, written before the run: it is a library beside the standard library's, for who wants a newer one. A module
#   that calls importlib.metadata gets the standard library's answers, whoever has imported what.
#
# Seen: a folder `half-1.0.dist-info` that an installation left half done. `importlib.metadata.distributions()` lists
#   it, without a name, and with no entry points. After `import importlib_metadata`, the same call of the standard
#   library gives objects of the other library's class, and their name is an error, MetadataNotFound.
#
# Why the guess is wrong: the standard library asks the finders in `sys.meta_path`. The other library puts a finder of
#   its own there, and takes the standard library's out of that question, so that each distribution is found once.
#
# For somebody who finds plugins by entry points, as backends for keys: whether one half-installed distribution stops
#   all others depends on whether the keyring was imported before.
. "$(dirname "$0")/common.sh"
install importlib_metadata==10.2.0
mkdir -p "$work/packages/half-1.0.dist-info"
"$python" - "$work/packages" <<'PY'
import importlib.metadata
import sys


def look():
    """The class of the only distribution in the folder, as the standard library finds it, and its name."""
    [found] = importlib.metadata.distributions(path=[sys.argv[1]])
    assert isinstance(found, importlib.metadata.Distribution) or "importlib_metadata" in sys.modules
    try:
        name = found.metadata["Name"]
    except Exception as error:  # which one depends on the library
        name = type(error).__name__
    return type(found).__module__.partition(".")[0], name


before = look()
print("before:", *before)
assert before == ("importlib", None), before

import importlib_metadata  # noqa: E402, F401  # that is what changes it

after = look()
print("after: ", *after)
assert after == ("importlib_metadata", "MetadataNotFound"), after
PY
