#!/bin/sh
# SQLite: where a database is missing and only its -wal is left, opening it deletes the -wal, and with it the
# only copy of what was committed. A copy without the -wal is a valid, empty database.
#
# Versions: Python's sqlite3 with SQLite 3.40.1 and others (the script prints its own); no package needed.
#
# Guess, written before the run: a copy of keys.db that was made while a program has it open is at worst a few
#   transactions old, or "integrity_check" complains. If keys.db is gone and keys.db-wal is there, SQLite
#   recovers what it can, or refuses; it does not touch the log of a database that it has never seen.
#
# Seen: of a database with 2,000 committed rows the file itself has 4,096 bytes. The copy opens, is "ok", and has
#   no table. And with the -wal alone, "select count(*) from sqlite_schema" answers 0; afterwards keys.db is
#   there with 0 bytes and the -wal, 243 kB with all 2,000 rows, is gone. Both files together are whole.
#
# Why the guess is wrong: in WAL mode commits go to the -wal until 1,000 pages are in it, so a young database is
#   its -wal. A file of no bytes is to SQLite a new database, and a -wal beside a new database is a leftover of
#   another one that had its name: it is deleted before anything is read.
#
# For somebody who stores keys: after "cp keys.db backup/" or a restore that brought one of the two files, a
#   client finds a sound, empty store and makes a new identity. Copy with VACUUM INTO or the backup API; and a
#   program that expects its database looks for the file, and for a -wal, before it lets SQLite open anything.
. "$(dirname "$0")/common.sh"
cd "$work"
"${PYTHON:-python3}" - <<'PY'
import contextlib
import os
import shutil
import sqlite3

connection = sqlite3.connect("keys.db")
connection.execute("pragma journal_mode = wal")
with connection:
    connection.execute("create table record (key integer primary key, value blob)")
    connection.executemany("insert into record values (?, zeroblob(100))", ((key,) for key in range(2000)))


def ask(name, *questions):
    with contextlib.closing(sqlite3.connect(name)) as opened:
        return [opened.execute(question).fetchone()[0] for question in questions]


shutil.copyfile("keys.db", "copy.db")
assert ask("copy.db", "pragma integrity_check", "select count(*) from sqlite_schema") == ["ok", 0]

shutil.copyfile("keys.db", "both.db")
shutil.copyfile("keys.db-wal", "both.db-wal")
assert ask("both.db", "select count(*) from record") == [2000]

shutil.copyfile("keys.db-wal", "restored.db-wal")
before = os.stat("restored.db-wal").st_size
assert before > 200_000
with contextlib.closing(sqlite3.connect("restored.db")) as opened:
    assert opened.execute("select count(*) from sqlite_schema").fetchone() == (0,), "only a question"
    assert not os.path.exists("restored.db-wal")
assert os.stat("restored.db").st_size == 0
print(f"SQLite {sqlite3.sqlite_version}: one question to restored.db, and its -wal of {before} bytes is gone")
PY
