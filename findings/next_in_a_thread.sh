#!/bin/sh
# asyncio: "await asyncio.to_thread(next, rows)" never returns after the last row. No error, no warning on the
# way; loop.run_in_executor() is the same.
#
# Versions: Python 3.11.7 and 3.12.1; 3.13.0 for what became of it. No package needed.
#
# Guess, written before the run: at the end of the iterator StopIteration comes out of the await, or, as from a
#   generator, a RuntimeError. next(rows, None) is a matter of taste.
#
# Seen: with 3.11 and 3.12 the first row comes, the second await is pending for ever, and so is whoever awaits
#   that task. The only trace is a TypeError in the log of the loop, "cannot be raised into a Future", which
#   names no line of the program. With 3.13 it is a RuntimeError. The thread itself has ended in all of them.
#
# Why the guess is wrong: the worker's future takes the StopIteration. A callback then copies it into the future
#   of asyncio, which refuses this one class by raising a TypeError: into the callback, whose errors are only
#   logged, and the future stays without a result. 3.13 puts a RuntimeError in its place.
#
# For somebody who stores keys: reading an iterator of rows in a thread, one at a time, is how a blocking driver
#   is used from a client. It works in each test that stops before the end, and then a start or an export hangs.
#   Give next() a default that is not a row, and turn the end into a value inside the thread.
. "$(dirname "$0")/common.sh"
"${PYTHON:-python3}" - <<'PY'
import asyncio
import sys

END = object()


def iterator_of_rows():
    return iter([("!room", b"session")])


async def read_on(call):
    """How the await after the last row ends, and what the loop's log says."""
    logged = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(str(context["exception"])))
    rows = iterator_of_rows()
    assert await call(next, rows) == ("!room", b"session")
    task = asyncio.ensure_future(call(next, rows))
    done, _ = await asyncio.wait([task], timeout=3)
    outcome = repr(task.exception()) if done else "pending"
    task.cancel()
    return outcome, logged


async def main():
    loop = asyncio.get_running_loop()
    for call in (asyncio.to_thread, lambda *what: loop.run_in_executor(None, *what)):
        outcome, logged = await read_on(call)
        if sys.version_info >= (3, 13):
            assert outcome.startswith("RuntimeError('StopIteration"), outcome
            assert not logged
        else:
            assert outcome == "pending", outcome
            assert len(logged) == 1 and "cannot be raised into a Future" in logged[0], logged
    rows = iterator_of_rows()
    assert await asyncio.to_thread(next, rows, END) != END
    assert await asyncio.to_thread(next, rows, END) is END
    return outcome


print(f"Python {sys.version.split()[0]}: three seconds after the last row, the await is: {asyncio.run(main())}")
PY
