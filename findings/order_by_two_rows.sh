#!/bin/sh
# PostgreSQL: "order by key" on a query with two rows of result makes it hundreds of times slower; one more
# "order by key" inside cures it.
#
# Versions: PostgreSQL 18.6, psycopg 3.3.9, defaults (but jit = off, which changes the times and not the plan),
#   statistics fresh.
#
# Guess, written before the run: 1,000 key ranges, joined with a table by its primary key, are 1,000 short index
#   scans. An ORDER BY sorts what they found: for two or three rows that is free.
#
# Seen, with 100,000 rows: without ORDER BY 7 to 25 ms; with it 4 to 15 s. The plan walks the whole index in key
#   order and compares each row with each of the 1,000 ranges. An ORDER BY that changes nothing, inside a
#   LATERAL subquery for each range, brings it back. With 5 ranges the plan is good, with 50 it is bad already.
#   With a million rows: 17 ms against 87 s, and 3 ranges are enough for a bad plan.
#
# Why the guess is wrong: the bounds of a range come from another relation, so the planner has no idea how
#   narrow it is and assumes that each range holds a ninth of the table. 1,000 of them are 11 million rows, and
#   not having to sort those looks worth a walk through the whole index. The inner ORDER BY keeps the subquery
#   from being merged into the join, so no plan can start from the table's end.
#
# For somebody who stores keys: "everything under these prefixes, in key order" is what a store asks all day.
#   Look at the plan at a million rows and with many ranges, not at a hundred rows with three.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
"$python" - <<'PY'
import hashlib
import time

import psycopg

BOUNDS = "unnest(%s::bytea[], %s::bytea[]) as bound(low, high)"
INSIDE = "account = 1 and key >= bound.low and key < bound.high"
PLAIN = f"select key, value from {BOUNDS} join record on {INSIDE}"
ORDERED = PLAIN + " order by key"
TWICE = f"""select key, value from {BOUNDS}
            cross join lateral (select key, value from record where {INSIDE} order by key) as part order by key"""

connection = psycopg.connect(autocommit=True)
connection.execute("set jit = off")
connection.execute("create table record (account bigint, key bytea, value bytea, primary key (account, key))")
connection.execute("""insert into record select 1, sha256(int8send(number)), decode(repeat('ab', 64), 'hex')
                      from generate_series(1, 100000) as number""")
connection.execute("vacuum analyze record")

lows = sorted(hashlib.sha256(b"range %d" % number).digest() for number in range(1000))
highs = [low[:3] + b"\xff" * 29 for low in lows]  # so narrow that few of them hold a row


def run(query, ranges=1000):
    bounds = lows[:ranges], highs[:ranges]
    plan = "\n".join(line for (line,) in connection.execute("explain " + query, bounds))
    start = time.monotonic()
    rows = connection.execute(query, bounds).fetchall()
    return sorted(rows), time.monotonic() - start, "Join Filter" in plan, "Sort" in plan


plain_rows, plain, whole_index, sorts = run(PLAIN)
assert not whole_index and not sorts and len(plain_rows) < 50
ordered_rows, ordered, whole_index, sorts = run(ORDERED)
assert whole_index and not sorts and ordered_rows == plain_rows, "each row is compared with each range"
twice_rows, twice, whole_index, sorts = run(TWICE)
assert not whole_index and sorts and twice_rows == plain_rows
assert ordered > 50 * max(plain, twice)
assert [run(ORDERED, ranges)[2] for ranges in (5, 50)] == [False, True]
milliseconds = [round(1000 * seconds) for seconds in (plain, ordered, twice)]
print(f"{len(plain_rows)} rows; ms unordered, ordered, ordered inside as well: {milliseconds}")
PY
