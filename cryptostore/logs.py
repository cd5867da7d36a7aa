"""Loggers whose lines hold text of others in a form that is fit to be shown."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping

from .shown import shown


def logger(name: str) -> logging.Logger:
    """The logger of this name. What is logged through it cannot forge a line, or steer a terminal that shows it."""
    made = logging.getLogger(name)  # noqa: TID251  # the one place
    if _show not in made.filters:
        made.addFilter(_show)
    return made


def _show(record: logging.LogRecord) -> bool:
    if isinstance(record.args, Mapping):
        record.args = {name: _fit(value) for name, value in record.args.items()}
    else:
        record.args = tuple(map(_fit, record.args or ()))
    if record.exc_info and record.exc_info[1]:
        # Formatters take what is there. Indented, so that no line of an error's text can be taken for one of the log.
        lines = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n").split("\n")
        record.exc_text = "\n".join(f"  {shown(line)}" for line in lines)
    return True


def _fit(argument: object) -> object:
    # Templates format numbers themselves.
    return argument if isinstance(argument, (int, float)) else shown(str(argument))
