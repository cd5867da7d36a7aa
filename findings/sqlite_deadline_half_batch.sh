#!/bin/sh
# SQLite: a deadline (or a full disk) that ends one statement undoes the whole transaction; what follows is
# committed as half a batch.
#
# Versions: Python's sqlite3 with SQLite 3.40.1 and 3.51.1 (the script prints its own); no package needed.
#
# Guess, written before the run: Connection.interrupt(), a progress handler that says stop, or "disk is full"
#   end one statement, as a violated constraint does: that statement is undone, the transaction goes on, and
#   commit() decides about the rest.
#
# Seen: in "with connection:" with a first write, a second one that hits its deadline and is caught, and a
#   third, the block ends without an error and the database holds the third write alone. With
#   isolation_level=None and an explicit BEGIN the third write is committed on the spot; only COMMIT then
#   complains that there is no transaction. "Database or disk is full" in a plain INSERT does the same. A
#   violated constraint keeps the first write, as guessed.
#
# Why the guess is wrong: SQLite rolls the entire transaction back when a write inside it is interrupted, or
#   where it kept no journal of the one statement (a single row needs none) and the disk is full, and is in
#   autocommit afterwards. Python's module then opens a new transaction before the next write, silently, and
#   "with" commits that one.
#
# For somebody who stores keys: a batch is no longer all or nothing once an error inside it was caught: the
#   token can be written without its keys. After each error ask connection.in_transaction, or let every error
#   leave the block. (PostgreSQL errs on the other side: see commit_of_nothing.sh.)
. "$(dirname "$0")/common.sh"
cd "$work"
"${PYTHON:-python3}" - <<'PY'
import contextlib
import sqlite3

LONG = """with recursive number (n) as (values (100) union all select n + 1 from number where n < 1000000)
          insert into record select n from number"""


def database(name, **settings):
    connection = sqlite3.connect(name, **settings)
    connection.execute("create table record (key int primary key)")
    return connection


def write_past_deadline(connection):
    """A statement that a deadline ends; the program goes on without it."""
    connection.set_progress_handler(lambda: 1, 10_000)
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute(LONG)
    connection.set_progress_handler(None, 0)


def stored(name):
    with contextlib.closing(sqlite3.connect(name)) as other:
        return [key for (key,) in other.execute("select key from record order by key")]


def batch(name, middle):
    connection = database(name)
    with connection:
        connection.execute("insert into record values (1)")
        with contextlib.suppress(sqlite3.Error):
            middle(connection)
        connection.execute("insert into record values (2)")
    return stored(name)


def write_past_disk(connection):
    connection.execute("pragma max_page_count = 10")
    connection.executemany("insert into record values (?)", ((key,) for key in range(100, 100_000)))


assert batch("constraint.db", lambda connection: connection.execute("insert into record values (1)")) == [1, 2]
assert batch("deadline.db", write_past_deadline) == [2], "half a batch, and no error"
assert batch("full.db", write_past_disk) == [2]

explicit = database("explicit.db", isolation_level=None)
explicit.execute("begin immediate")
explicit.execute("insert into record values (1)")
write_past_deadline(explicit)
assert not explicit.in_transaction
explicit.execute("insert into record values (2)")
assert stored("explicit.db") == [2], "committed before any COMMIT"
try:
    explicit.execute("commit")
except sqlite3.OperationalError as error:
    assert "no transaction is active" in str(error)
else:
    raise AssertionError("COMMIT should fail")
print(f"SQLite {sqlite3.sqlite_version}: of a batch (1, interrupted, 2) only 2 was stored, without an error")
PY
