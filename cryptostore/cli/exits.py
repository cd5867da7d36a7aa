"""What the exit codes mean, and which error ends in which."""

from __future__ import annotations

import enum
from typing import Final

from cryptostore.errors import (
    AccountElsewhere,
    AccountNotFound,
    BackendUnavailable,
    ConfigurationError,
    CryptoStoreError,
    HomeserverUnavailable,
    InvalidRecord,
    PluginError,
    WrongPickleKey,
)


class ExitCode(enum.IntEnum):
    """How a command ended. Scripts depend on the numbers."""

    DONE = 0
    #: The command did its work, and the work showed that something is missing or wrong.
    CHECK_FAILED = 1
    #: The command line, the URL, the pickle key, the plugin or the database's set-up must be changed by the user.
    USAGE = 2
    #: The database, or the homeserver, did not answer inside the deadline.
    UNAVAILABLE = 3
    #: The database answered and refused: no room, tables of another version, a damaged row, a newer owner.
    REFUSED = 4


#: 128 and the number of SIGPIPE: whoever read the output, as `head`, closed it before all was written.
READER_GONE: Final = 141

#: For the help text, in plain words.
EXPLAINED: Final = (
    "Exit codes: "
    "0 done, and nothing is missing; "
    "1 something was found missing or wrong; "
    "2 the command line, the configuration or a plugin has to be changed; "
    "3 the database or the homeserver did not answer; "
    "4 the database refused (full, newer tables, damaged, taken over); "
    "130 interrupted; "
    "141 the output was closed before all was written."
)

_USERS_TO_MEND: Final = (
    PluginError,
    ConfigurationError,
    WrongPickleKey,
    AccountNotFound,
    AccountElsewhere,
    InvalidRecord,
)


def exit_code_of(error: CryptoStoreError) -> ExitCode:
    """The exit code that tells a script what kind of remedy `error` needs."""
    if isinstance(error, BackendUnavailable | HomeserverUnavailable):
        return ExitCode.UNAVAILABLE
    if isinstance(error, _USERS_TO_MEND):
        return ExitCode.USAGE
    return ExitCode.REFUSED
