#!/bin/sh
# psycopg-pool: every further dead connection in a pool doubles the time that the next caller waits, although
# the server is up.
#
# Versions: psycopg 3.3.9, psycopg-pool 3.3.3, PostgreSQL 18.6.
#
# Guess, written before the run: with check=ConnectionPool.check_connection, a pool of five idle sessions that
#   the server closed (a restart, an idle timeout, a firewall) gives the next caller a working one after six
#   round trips: a few milliseconds.
#
# Seen: 1 dead session 0.00 s, 2: 0.9 s, 3: 2.8 s, 4: 7.3 s, 5: 15 s, 6: 32 s, 7: 69 s. With the default timeout
#   of 30 s, six dead sessions are "couldn't get a connection after 30.00 sec" against a healthy server. Without
#   check=, five OperationalErrors in a row and a retry of one's own take 10 ms; so does pool.check() before the
#   request.
#
# Why the guess is wrong: after each failed check the caller sleeps with the back-off that was made for a server
#   that is away (0 s, about 1, 2, 4, …). A new session was opened meanwhile, but it stands at the end of the
#   queue, behind the other dead ones, and a caller that sleeps is not in the list of those who wait for it.
#
# For somebody who stores keys: the bigger the pool, the longer the outage after each fail-over, and small test
#   pools do not show it. Call pool.check() when a first connection turns out dead, or keep min_size at 1 or 2.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9' psycopg-pool==3.3.3
start_postgres
"$python" - <<'PY'
import logging
import time

import psycopg
from psycopg_pool import ConnectionPool

logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

admin = psycopg.connect(autocommit=True)
CLOSE_OTHERS = """select pg_terminate_backend(pid, 5000) from pg_stat_activity
                  where pid <> pg_backend_pid() and backend_type = 'client backend'"""


def seconds_until_served(size, before=lambda pool: None):
    with ConnectionPool(
        min_size=size, max_size=size, timeout=60, open=False, check=ConnectionPool.check_connection
    ) as pool:
        pool.wait()
        admin.execute(CLOSE_OTHERS)
        start = time.monotonic()
        before(pool)
        with pool.connection() as connection:
            connection.execute("select 1")
        return time.monotonic() - start


def errors_without_check(size):
    with ConnectionPool(min_size=size, max_size=size, open=False) as pool:
        pool.wait()
        admin.execute(CLOSE_OTHERS)
        start, errors = time.monotonic(), 0
        while True:
            try:
                with pool.connection() as connection:
                    connection.execute("select 1")
                return errors, time.monotonic() - start
            except psycopg.OperationalError:
                errors += 1


waits = {size: seconds_until_served(size) for size in (1, 2, 3, 4, 5)}
print({size: round(wait, 2) for size, wait in waits.items()})
assert waits[1] < 0.5, "one dead session costs nothing"
assert all(waits[size + 1] > 1.6 * waits[size] for size in (2, 3, 4)), "and each further one doubles the wait"
assert waits[5] > 10

checked = seconds_until_served(5, before=ConnectionPool.check)
assert checked < 1, "pool.check() replaces all of them at once"
errors, seconds = errors_without_check(5)
assert errors == 5 and seconds < 1, "so does asking again without check="
print(f"with pool.check() first: {checked:.2f} s; without check=: {errors} errors, {seconds:.2f} s")
PY
