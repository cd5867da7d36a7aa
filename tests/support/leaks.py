"""Whether an exception shows a secret anywhere that a log, a debugger's report or a crash reporter looks."""

from __future__ import annotations

from collections.abc import Iterator


def shown(error: BaseException) -> str:
    """Everything that an exception shows: text, repr, arguments and attributes, with those of all that led to it."""
    return "\n".join(_parts(error))


def _parts(error: BaseException | None) -> Iterator[str]:
    if error is not None:
        yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
        if isinstance(error, UnicodeError):
            yield repr(getattr(error, "object", None))
        yield from _parts(error.__cause__)
        yield from _parts(error.__context__)
