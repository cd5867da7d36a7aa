#!/bin/sh
# PostgreSQL: an ALTER TABLE that rewrites a table makes it empty, without an error, for an export whose
# snapshot is older.
#
# Versions: PostgreSQL 18.6, psycopg 3.3.9.
#
# Guess, written before the run: a REPEATABLE READ transaction sees the database as it was at its start,
#   whatever others commit. If a migration got in between, it sees the old rows, or it fails.
#
# Seen: the export's transaction has read another table; a migration changes a column's type, or adds a column
#   with a volatile default, or makes the table unlogged, and commits. The export then reads the table: 0 rows
#   of 100. TRUNCATE does the same. A constant default, DROP COLUMN, VACUUM FULL and CLUSTER: 100 rows.
#
# Why the guess is wrong: a rewrite puts all rows into a new file as if the migration had just inserted them. A
#   snapshot from before knows none of them, and the old file is gone. VACUUM FULL and CLUSTER, which rewrite as
#   well, keep the rows' history. Only a lock prevents it: a transaction that has touched the table, however
#   briefly, makes the ALTER wait; pg_dump locks all tables first.
#
# For somebody who stores keys: "the account has no sessions" can be what a consistent snapshot says in the
#   middle of an upgrade, and an export that is checked against the same snapshot passes. Lock (or read once)
#   every table of an export before the first is exported, and never take empty for new.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
"$python" - <<'PY'
import threading
import time

import psycopg

admin = psycopg.connect(autocommit=True)
admin.execute("create table account (id int)")


def exporter():
    connection = psycopg.connect()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("select count(*) from account")  # the snapshot is taken here
    return connection


def rows_after(migration):
    """What an export that began before the migration reads after it."""
    admin.execute("drop table if exists session")
    admin.execute("create table session (id int primary key, sequence int)")
    admin.execute("insert into session select number, number from generate_series(1, 100) as number")
    with exporter() as export:
        admin.execute(migration)
        return export.execute("select count(*) from session").fetchone()[0]


emptied = [
    "alter table session alter column sequence type bigint",
    "alter table session add column added timestamptz default clock_timestamp()",
    "alter table session set unlogged",
    "truncate session",
]
kept = [
    "alter table session add column format int default 1",
    "alter table session drop column sequence",
    "vacuum full session",
    "cluster session using session_pkey",
]
assert {migration: rows_after(migration) for migration in emptied} == dict.fromkeys(emptied, 0)
assert {migration: rows_after(migration) for migration in kept} == dict.fromkeys(kept, 100)

rows_after(kept[0])
export = exporter()
export.execute("lock table session in access share mode")  # what pg_dump does first
migration = threading.Thread(target=admin.execute, args=[emptied[0]])
migration.start()
with psycopg.connect(autocommit=True) as watch:
    while not watch.execute("select 1 from pg_locks where not granted").fetchall():
        time.sleep(0.01)
assert export.execute("select count(*) from session").fetchone() == (100,), "the migration waits for the export"
export.commit()
migration.join()
print("an export with an older snapshot read 0 of 100 rows after each of:", *emptied, sep="\n  ")
PY
