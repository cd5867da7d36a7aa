#!/bin/sh
# psycopg: commit() of a transaction that PostgreSQL has given up returns as if all were well, and nothing is
# stored.
#
# Versions: psycopg 3.3.9, PostgreSQL 18.6; Python's sqlite3 for comparison.
#
# Guess, written before the run: after an error inside a transaction that the program caught, commit() raises
#   (InFailedSqlTransaction). At least "with connection.transaction():" does.
#
# Seen: commit() returns None; leaving "with connection.transaction():" or "with connection:" raises nothing
#   either. Not one row is stored, neither those before the error. The only trace is the status of the answer,
#   "ROLLBACK", and psycopg does not look at it there. The same program on SQLite keeps the rows before the
#   error.
#
# Why the guess is wrong: for PostgreSQL, COMMIT of a failed transaction is a valid command that means ROLLBACK
#   and succeeds. Every other command raises in that state; the one that ends it does not.
#
# For somebody who stores keys: an except inside a batch ("this record is a duplicate, go on") turns the whole
#   batch, the sync token with it, into nothing, acknowledged. A test with SQLite does not show it. Let no error
#   stay inside a transaction, give what may fail a savepoint (a nested transaction()), or ask
#   connection.info.transaction_status before the commit.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
"$python" - <<'PY'
import contextlib
import sqlite3

import psycopg

reader = psycopg.connect(autocommit=True)
reader.execute("create table record (key int primary key)")


def write(connection, error):
    connection.execute("insert into record values (1)")
    with contextlib.suppress(error):
        connection.execute("insert into record values (1)")  # a duplicate that the program means to tolerate


def stored():
    return reader.execute("select key from record").fetchall()


plain = psycopg.connect()
write(plain, psycopg.errors.UniqueViolation)
assert plain.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
assert plain.commit() is None and stored() == []

with psycopg.connect() as block:
    write(block, psycopg.errors.UniqueViolation)
assert stored() == []

with psycopg.connect(autocommit=True) as connection, connection.transaction():
    write(connection, psycopg.errors.UniqueViolation)
assert stored() == []

by_hand = psycopg.connect(autocommit=True)
by_hand.execute("begin")
write(by_hand, psycopg.errors.UniqueViolation)
assert by_hand.execute("commit").statusmessage == "ROLLBACK" and stored() == []

lite = sqlite3.connect(":memory:")
lite.execute("create table record (key int primary key)")
write(lite, sqlite3.IntegrityError)
lite.commit()
assert lite.execute("select key from record").fetchall() == [(1,)]

with psycopg.connect(autocommit=True) as connection, connection.transaction():  # the cure: a savepoint
    connection.execute("insert into record values (1)")
    with contextlib.suppress(psycopg.errors.UniqueViolation), connection.transaction():
        connection.execute("insert into record values (1)")
assert stored() == [(1,)]
print("three kinds of commit returned without an error; nothing was stored")
PY
