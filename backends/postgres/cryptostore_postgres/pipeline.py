"""Statements that go to the server together: one message each way, however many there are.

psycopg's own pipelines send each statement by itself, which takes the client four times as long for a small batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import Error, OperationalError, error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from .arrays import ByteaArray
from .connecting import Connection

Parameter: TypeAlias = int | str | bytes | ByteaArray | None
Rows: TypeAlias = list[tuple[Any, ...]]

_FAILED: Final = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE})


class Statement(NamedTuple):
    """One statement, with `$1` for its first parameter, each of which it casts to its type."""

    text: bytes
    parameters: Sequence[Parameter] = ()


def run(connection: Connection, *statements: Statement) -> list[Rows]:
    """Do the statements as one round trip, and return the rows of each.

    Outside a transaction, they are one. The first that raises makes the server skip the rest.
    """
    messages = [(text, [_encoded(value) for value in parameters]) for text, parameters in statements]
    try:
        results = _exchanged(connection, messages)
    except BaseException:
        # In the middle of a pipeline, it is of no more use.
        connection.close()
        raise
    for result in results:
        if result.status in _FAILED:
            raise _error(result)
    if len(results) != len(statements):
        raise OperationalError("the connection was lost before every statement was answered")
    return [_rows(connection, result) for result in results]


def _error(result: PGresult) -> Error:
    error = error_from_result(result)
    # What libpq itself says of a connection that was lost.
    return OperationalError(str(error)) if error.sqlstate is None else error


def _exchanged(connection: Connection, messages: Iterable[tuple[bytes, list[bytes | None]]]) -> list[PGresult]:
    """The results of statements, of which there are fewer where the connection was lost."""
    pgconn = connection.pgconn
    pgconn.enter_pipeline_mode()
    for text, values in messages:
        formats = [Format.BINARY] * len(values)
        pgconn.send_query_params(text, values, param_formats=formats, result_format=Format.BINARY)
    pgconn.pipeline_sync()
    results = connection.wait(_communicate(pgconn))
    if pgconn.status != ConnStatus.BAD:
        pgconn.exit_pipeline_mode()
    return results


def _communicate(pgconn: PGconn) -> PQGen[list[PGresult]]:
    """Send what is queued, and fetch the result of each statement."""
    while pgconn.flush():
        # The server may stop reading until its answers are read.
        if _is_readable((yield Wait.RW)):
            _consume(pgconn)
    results: list[PGresult] = []
    while True:
        result = yield from _fetch(pgconn)
        if result is not None and result.status != ExecStatus.PIPELINE_SYNC:
            results.append(result)
        elif result is not None or pgconn.status == ConnStatus.BAD:
            return results


def _fetch(pgconn: PGconn) -> PQGen[PGresult | None]:
    """The next result; None stands behind that of each statement."""
    while pgconn.is_busy():
        if _is_readable((yield Wait.R)):
            _consume(pgconn)
    return pgconn.get_result()


def _consume(pgconn: PGconn) -> None:
    """Read what the server sent. Its last words may have come together with the end of the connection."""
    try:
        pgconn.consume_input()
    except OperationalError:
        if pgconn.is_busy():
            raise


def _is_readable(ready: int | None) -> bool:
    # After an interrupt, psycopg cancels the statement and begins to wait again, with nothing ready yet.
    return bool((ready or 0) & Ready.R)


def _encoded(value: Parameter) -> bytes | None:
    """A parameter in the server's binary form."""
    if isinstance(value, int):
        return value.to_bytes(8, "big", signed=True)
    if isinstance(value, ByteaArray):
        return value.data
    return value.encode() if isinstance(value, str) else value


def _rows(connection: Connection, result: PGresult) -> Rows:
    transformer = Transformer(connection)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)
