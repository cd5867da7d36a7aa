"""Turning stored rows into records, one unreadable row never blocking the others (promise P7)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from .errors import InvalidRecord, UnreadableRecord
from .observers import notify
from .records import Account, Record

R = TypeVar("R", bound=Record)
Row = TypeVar("Row")

_log: Final = logging.getLogger(__name__)


def read_rows(account: Account, kind: type[R], rows: Iterable[Row], decode: Callable[[Row], R]) -> Iterator[R]:
    """The records of `rows`, without those that `decode` refuses with InvalidRecord, ValueError or TypeError.

    A refused row is reported, to the log by its kind only and to the observers. Raises UnreadableRecord where the
    kind has one record an account: read as absent, it would be replaced.
    """
    for row in rows:
        try:
            record = decode(row)
        except (InvalidRecord, ValueError, TypeError) as error:
            notify("cryptostore_unreadable_row", account=account, kind=kind.kind_name)
            # The error's text may quote the row, so only its type is shown, and it is no cause.
            if not kind.key_fields:
                raise UnreadableRecord(
                    f"the {kind.kind_name} of {account} is damaged in the database ({type(error).__name__}) and was "
                    "left as it is; restore it from a backup before this account is used"
                ) from None
            _log.warning("skipped an unreadable %s of %s (%s)", kind.kind_name, account, type(error).__name__)
        else:
            yield record
