"""Where a command takes a pickle key from. Never from its arguments themselves: every process sees them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from cryptostore.errors import ConfigurationError
from cryptostore.plugins.environment import ENV_FILE, variables
from cryptostore.store.pickle_key_sources import pickle_key_from, read_pickle_key, secret_from_command
from cryptostore.store.pickle_keys import PUBLIC_PICKLE_KEYS
from cryptostore.store.system_keyring import secret_in_keyring

from .output import ask_secret, say

#: Where clients find theirs.
VARIABLE: Final = "CRYPTOSTORE_PICKLE_KEY"
#: What nio encrypts pickles with unless it is told otherwise.
_DEFAULT: Final = "DEFAULT_KEY"


class PickleKeyOptions(NamedTuple):
    """What the options of a command say about where a pickle key is. `words` are the key's in their names."""

    words: str = "pickle-key"
    env: str | None = None
    file: Path | None = None
    command: str | None = None
    keyring: str | None = None
    ask: bool = False

    def names(self) -> list[str]:
        """The options that were given."""
        forms = {"env": self.env, "file": self.file, "command": self.command, "keyring": self.keyring}
        named = [f"--{self.words}-{form}" for form, value in forms.items() if value is not None]
        return [*named, f"--ask-{self.words}"] if self.ask else named


#: The default of a command's parameter.
NO_OPTIONS: Final = PickleKeyOptions()


def takes_pickle_keys(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a pickle key for each parameter of the type PickleKeyOptions.

    The parameter `pickle_key_options` becomes --pickle-key-env and so on, and `new_pickle_key_options`
    --new-pickle-key-env.
    """
    signature = inspect.signature(command, eval_str=True)
    expanded = {
        name: _options(name.removesuffix("_options"))
        for name, each in signature.parameters.items()
        if each.annotation is PickleKeyOptions
    }
    parameters = [
        option for name, each in signature.parameters.items() for option in [*expanded.get(name, {}).values()] or [each]
    ]

    @wraps(command)
    def with_options(**given: Any) -> None:
        for name, options in expanded.items():
            values = {field: given.pop(option.name) for field, option in options.items()}
            given[name] = PickleKeyOptions(name.removesuffix("_options").replace("_", "-"), **values)
        command(**given)

    vars(with_options)["__signature__"] = signature.replace(parameters=parameters)
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options


def _options(name: str) -> dict[str, inspect.Parameter]:
    """The parameters for the fields of PickleKeyOptions, in the order in which help texts have them."""
    key = name.replace("_", " ")
    is_new = name.startswith("new_")
    instead = "" if is_new else f" instead of {VARIABLE}"
    env = typer.Option(metavar="NAME", help=f"Take the {key} from this variable{instead}.")
    file = typer.Option(metavar="PATH", help=f"Take the {key} from this file of one line.")
    command = typer.Option(metavar="COMMAND", help=f"Take the {key} from what this program writes.")
    keyring = typer.Option(metavar="SERVICE/NAME", help=f"Take the {key} from the system's keyring.")
    ask = typer.Option(f"--ask-{name.replace('_', '-')}", help=f"Ask for the {key}{', twice' * is_new}.")
    return {
        "env": _parameter(f"{name}_env", Annotated[str | None, env], None),
        "file": _parameter(f"{name}_file", Annotated[Path | None, file], None),
        "command": _parameter(f"{name}_command", Annotated[str | None, command], None),
        "keyring": _parameter(f"{name}_keyring", Annotated[str | None, keyring], None),
        "ask": _parameter(f"ask_{name}", Annotated[bool, ask], default=False),
    }


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def current_pickle_key(options: PickleKeyOptions) -> str:
    """The pickle key that keys were saved with; nio's default, with a warning, if the user names none."""
    given = given_pickle_key(options)
    if given is None:
        say(
            "warning: no pickle key was given, so nio's default is tried; everybody knows it. To give yours: "
            f"{VARIABLE}, --pickle-key-file or --ask-pickle-key"
        )
    return _DEFAULT if given is None else given


def given_pickle_key(options: PickleKeyOptions) -> str | None:
    """The pickle key that the user names, or that clients find; None where there is none."""
    given = _given(options)
    return pickle_key_from(variables()) if given is None else given


def new_pickle_key(options: PickleKeyOptions) -> str:
    """The pickle key that keys are to have. Raises ConfigurationError if none is given, and for one everybody knows."""
    given = _given(options, twice=True)
    if given is None:
        raise ConfigurationError(
            "there is no new pickle key: give --new-pickle-key-file, --new-pickle-key-env, --new-pickle-key-command, "
            "--new-pickle-key-keyring or --ask-new-pickle-key"
        )
    if given in PUBLIC_PICKLE_KEYS:
        raise ConfigurationError("the new pickle key is empty or nio's default, which everybody knows; choose another")
    return given


def _given(options: PickleKeyOptions, *, twice: bool = False) -> str | None:
    names, what = options.names(), f"the {options.words.replace('-', ' ')}"
    if len(names) > 1:
        raise ConfigurationError(f"give either {names[0]} or {names[1]}, not both")
    if options.ask:
        return ask_secret(what.removeprefix("the "), f"--{options.words}-file or --{options.words}-env", twice=twice)
    if options.file is not None:
        return read_pickle_key(options.file)
    if options.command is not None:
        return secret_from_command(options.command, names[0], what)
    if options.keyring is not None:
        return secret_in_keyring(options.keyring, names[0], what)
    return None if options.env is None else _from_environment(options.env)


def _from_environment(variable: str) -> str:
    key = variables().get(variable)
    if key is None:
        raise ConfigurationError(f"the environment has no variable {variable}, nor has {ENV_FILE}")
    try:
        key.encode()
    except UnicodeEncodeError:
        # Its text would quote the key.
        raise ConfigurationError(f"the pickle key in the variable {variable} is not UTF-8 text") from None
    return key
