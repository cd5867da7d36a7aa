#!/bin/sh
# PostgreSQL: one statement that loses a race says "no row matched" and, in the same answer, shows the row that
# should have matched.
#
# Versions: PostgreSQL 18.6, psycopg 3.3.9; default isolation (READ COMMITTED).
#
# Guess, written before the run: a conditional UPDATE in a WITH and a SELECT of the same row in one statement
#   see one state. If the UPDATE waited for another session and then did not match, the SELECT shows the row
#   that the other session has written.
#
# Seen: with (sequence 5, owner 'me') and a session that commits (6, 'other') meanwhile, the statement answers:
#   updated 0, sequence 5, owner 'me', which is exactly its own condition. Asked again as a second statement: 6,
#   'other'.
#
# Why the guess is wrong: a statement has one snapshot, taken before it waits. An UPDATE that waited looks again
#   at the newest version of its row, and of that row only; the SELECT beside it goes on reading the snapshot.
#   In REPEATABLE READ the same holds for a whole transaction: after waiting for an advisory lock as its first
#   statement it reads the state from before the wait (LOCK TABLE is different: it takes no snapshot).
#
# For somebody who stores keys: a fencing check that reports "who owns this now" from the statement that was
#   refused names the loser itself, and "the row is as I left it, so try again" ends in a loop. Read the reason
#   in a second statement.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
"$python" - <<'PY'
import threading
import time

import psycopg

ROW = "select sequence, owner from ownership"
CONDITIONAL = """with updated as (update ownership set sequence = 6 where sequence = 5 and owner = 'me' returning 1)
                 select (select count(*) from updated), sequence, owner from ownership"""

admin = psycopg.connect(autocommit=True)
admin.execute("create table ownership (sequence int, owner text)")
admin.execute("insert into ownership values (5, 'me')")


def while_another_holds(lock, change, waiting):
    """Let a session wait for another's lock; what the waiting one returns."""
    other, answers = psycopg.connect(), []
    other.execute(lock)
    other.execute(change)
    thread = threading.Thread(target=lambda: answers.append(waiting()))
    thread.start()
    while not admin.execute("select 1 from pg_locks where not granted").fetchall():
        time.sleep(0.01)
    other.commit()
    thread.join()
    return answers[0]


me = psycopg.connect(autocommit=True)
answer = while_another_holds(
    "select 1", "update ownership set sequence = 6, owner = 'other'", lambda: me.execute(CONDITIONAL).fetchone()
)
assert answer == (0, 5, "me"), answer
assert me.execute(ROW).fetchone() == (6, "other")


def first_read_after(lock):
    connection = psycopg.connect()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute(lock)
    return connection.execute(ROW).fetchone()


advisory, table = "select pg_advisory_xact_lock(1)", "lock table ownership in exclusive mode"
assert while_another_holds(
    advisory, "update ownership set sequence = 7", lambda: first_read_after(advisory)
) == (6, "other")
assert while_another_holds(table, "update ownership set sequence = 8", lambda: first_read_after(table)) == (
    8,
    "other",
)
print(f"refused, and told that the row is {answer[1:]}; it was (6, 'other')")
PY
