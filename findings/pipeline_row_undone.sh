#!/bin/sh
# psycopg: in a pipeline, "autocommit" does not commit. A row whose RETURNING answer was read is undone by a
# later statement's error.
#
# Versions: psycopg 3.3.9, PostgreSQL 18.6.
#
# Guess, written before the run: on a connection with autocommit=True each statement is a transaction of its
#   own. In a pipeline they are sent together, but the first INSERT stays when the third fails; all the more if
#   its RETURNING row was already fetched.
#
# Seen: the row of the first INSERT is fetched, (1,), no other session sees it, then the third statement fails,
#   and the table is empty. A thousand inserts before the error: none is left. The same without the pipeline:
#   all are left. executemany() uses a pipeline inside, so it is all or nothing, too, while a loop of execute()
#   is not.
#
# Why the guess is wrong: the server ends an implicit transaction at a Sync message. Outside a pipeline psycopg
#   sends one after each statement; inside, fetching a result sends a Flush, which brings the answer and commits
#   nothing. The commit is at pipeline.sync(), or at the end of the block.
#
# For somebody who stores keys: an answer is no acknowledgement there. What must be durable before something
#   else happens (a key before it is uploaded, the token before the next sync) needs the end of the pipeline, or
#   sync(), between.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
"$python" - <<'PY'
import contextlib

import psycopg

reader = psycopg.connect(autocommit=True)
reader.execute("create table record (key int primary key)")
writer = psycopg.connect(autocommit=True)


def stored():
    return [key for (key,) in reader.execute("select key from record order by key")]


with contextlib.suppress(psycopg.errors.UniqueViolation), writer.pipeline():
    row = writer.execute("insert into record values (1) returning key").fetchone()
    assert row == (1,), "the answer is there"
    assert stored() == [], "and nothing is committed"
    writer.execute("insert into record values (2)")
    writer.execute("insert into record values (2)")
assert stored() == [], "the row that was answered is gone"

with contextlib.suppress(psycopg.errors.UniqueViolation), writer.pipeline():
    for key in [*range(1000), 0]:
        writer.execute("insert into record values (%s)", (key,))
assert stored() == []

with contextlib.suppress(psycopg.errors.UniqueViolation):
    writer.cursor().executemany("insert into record values (%s)", [(1,), (2,), (1,)])
assert stored() == [], "executemany is a pipeline"

with contextlib.suppress(psycopg.errors.UniqueViolation), writer.pipeline() as pipeline:
    writer.execute("insert into record values (1)")
    pipeline.sync()
    assert stored() == [1], "a sync commits"
    writer.execute("insert into record values (1)")
assert stored() == [1]

with contextlib.suppress(psycopg.errors.UniqueViolation):
    for key in (2, 3, 2):
        writer.execute("insert into record values (%s)", (key,))
assert stored() == [1, 2, 3], "without a pipeline each statement is committed"
print("a row was answered, and undone by a later statement, on a connection with autocommit")
PY
