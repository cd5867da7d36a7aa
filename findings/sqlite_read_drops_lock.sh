#!/bin/sh
# SQLite: a program that reads its own database's files, for a backup or a checksum, drops its locks on them in
# the middle of a transaction. Another process then writes too, and one of two acknowledged writes is gone.
#
# Versions: Python's sqlite3 with SQLite 3.40.1 (the script prints its own), on Linux; no package needed.
#
# Guess, written before the run: SQLite's lock stays until its connection lets go of it. Reading the files beside
#   it may at worst give a torn copy.
#
# Seen: inside "begin immediate" the program does open("keys.db", "rb").read(). A second process, which was told
#   "database is locked" until then, now counts from 0 to 1 and commits. The first one's COMMIT succeeds as well,
#   with the 1 that it had worked out before: two increments, one counted. integrity_check says "ok". In WAL mode
#   the same happens by reading keys.db-shm, as everything does that copies the whole folder; reading keys.db
#   does no harm there.
#
# Why the guess is wrong: SQLite locks with fcntl(), whose locks belong to a process and a file, not to an open
#   file. When the process closes any descriptor of the file, all of its locks on it are dropped, and SQLite is
#   not told. Inside one process SQLite takes care of that itself, but it does not see what others open.
#
# For somebody who stores keys: two clients then hold "the only writer's" transaction at once: a fencing check
#   that was right when it was made lets an old owner write over a new one. Copy with the backup API or VACUUM
#   INTO, or by another process ("cp", "cat"), and let no thread of this one open the files.
. "$(dirname "$0")/common.sh"
cd "$work"
"${PYTHON:-python3}" - <<'PY'
import contextlib
import pathlib
import sqlite3
import subprocess
import sys

OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0.2)
try:
    with connection:
        connection.execute("update counter set value = value + 1")
    print("committed")
except sqlite3.OperationalError as error:
    print(error)
"""


def count_twice(mode, reads):
    """Both processes add one. What the other is told, and the counter afterwards."""
    name = f"{mode}{reads}.db"
    with contextlib.closing(sqlite3.connect(name, isolation_level=None)) as connection:
        connection.execute(f"pragma journal_mode = {mode}")
        connection.execute("create table counter (value)")
        connection.execute("insert into counter values (0)")
        connection.execute("begin immediate")
        (value,) = connection.execute("select value from counter").fetchone()
        if reads is not None:
            pathlib.Path(name + reads).read_bytes()
        other = subprocess.run([sys.executable, "-c", OTHER, name], capture_output=True, text=True).stdout.strip()
        connection.execute("update counter set value = ?", (value + 1,))
        connection.execute("commit")
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        return other, *connection.execute("select value from counter").fetchone()


refused, lost = ("database is locked", 1), ("committed", 1)
assert count_twice("delete", None) == refused
assert count_twice("delete", "") == lost, "two commits, one counted"
assert count_twice("wal", None) == refused
assert count_twice("wal", "") == refused
assert count_twice("wal", "-shm") == lost
print(f"SQLite {sqlite3.sqlite_version}: after a read of its own file, two processes committed; counted: {lost[1]}")
PY
