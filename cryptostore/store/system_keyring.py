"""Secrets in the keyring of the system: Secret Service, KWallet, the keychain of macOS, by the library `keyring`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from cryptostore.errors import ConfigurationError

#: Seconds. Long enough for a person to unlock the keyring.
DEADLINE: Final = 60.0

_Answer = TypeVar("_Answer")


def entry_of(text: str, source: str) -> tuple[str, str]:
    """The service and the name under which a secret is kept, from SERVICE/NAME; the name may have slashes.

    Raises ConfigurationError, which does not quote what may be a secret in the wrong place.
    """
    service, _, name = text.partition("/")
    if not service or not name:
        raise ConfigurationError(f"{source} must be SERVICE/NAME, such as matrix-cryptostore/my-bot")
    return service, name


def secret_in_keyring(entry: str, source: str, what: str, deadline: float = DEADLINE) -> str:
    """The secret under SERVICE/NAME. `source` is where that was given, and `what` the secret.

    Raises ConfigurationError where `keyring` is not installed, the system has no keyring, it is locked, does not answer
    in `deadline` seconds, or has no such entry.
    """
    service, name = entry_of(entry, source)
    found = _asked(lambda: _get(service, name), source, deadline)
    if not found:
        raise ConfigurationError(
            f"the keyring has no entry {service}/{name}, where {source} looks for {what}; `cryptostore new-key "
            "--keyring` makes one, or correct the name. Each user of a machine has a keyring of their own"
        )
    return found


def add_to_keyring(entry: str, secret: str, source: str, deadline: float = DEADLINE) -> str:
    """Keep a new secret under SERVICE/NAME, read it again, and return what the keyring calls itself.

    Raises ConfigurationError as `secret_in_keyring` does, and for an entry that is there: it is never replaced, since
    it may be the only copy of another secret.
    """
    service, name = entry_of(entry, source)

    def add() -> str:
        import keyring

        if keyring.get_password(service, name) is not None:
            raise ConfigurationError(f"the keyring has an entry {service}/{name} already; give another name")
        keyring.set_password(service, name, secret)
        if keyring.get_password(service, name) != secret:
            raise ConfigurationError(f"the keyring {keyring.get_keyring().name} does not keep what it is given")
        return str(keyring.get_keyring().name)

    return _asked(add, source, deadline)


def _get(service: str, name: str) -> str | None:
    import keyring

    found: str | None = keyring.get_password(service, name)
    return found


def _asked(question: Callable[[], _Answer], source: str, deadline: float) -> _Answer:
    """What the keyring answers. It waits for a person without end, where it may show a dialog that nobody sees."""
    answers: list[_Answer] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:  # noqa: BLE001  # a stranger's backend may raise anything
            errors.append(error)

    # Not an executor's, which Python would wait for at its end.
    thread = threading.Thread(target=ask, name="keyring", daemon=True)
    thread.start()
    thread.join(deadline)
    if errors:
        raise _error(errors[0], source) from None
    if not answers:
        raise ConfigurationError(
            f"the keyring, which {source} names, did not answer in {deadline:g} seconds; is it waiting to be unlocked?"
        )
    return answers[0]


def _error(error: Exception, source: str) -> ConfigurationError:
    if isinstance(error, ConfigurationError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name == "keyring":
        return ConfigurationError(
            f"{source} names an entry of the system's keyring, for which the library keyring is not installed: pip "
            "install keyring"
        )
    from keyring.errors import KeyringError, KeyringLocked, NoKeyringError

    if isinstance(error, NoKeyringError):
        return ConfigurationError(
            f"this system has no keyring, which {source} needs: servers and containers seldom have one; keep the "
            "secret in a file, or let a command fetch it (_FILE, _COMMAND)"
        )
    if isinstance(error, KeyringLocked):
        return ConfigurationError(f"the keyring, which {source} names, is locked; unlock it, and try again")
    # The text of another error may quote what was read.
    reason = f": {error}" if isinstance(error, KeyringError) else ""
    return ConfigurationError(f"the keyring, which {source} names, failed ({type(error).__name__}{reason}); mend it")
