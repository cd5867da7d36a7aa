#!/bin/sh
# PostgreSQL: a commit whose wait for the synchronous standby was cancelled returns as a success, and one setting of
# the role takes away the only sign of it.
#
# Versions: PostgreSQL 18.6, psycopg 3.3.9.
#
# Guess, written before the run: a commit that waits for a synchronous standby and is cancelled (pg_cancel_backend, or
#   psycopg's own cancel()) raises QueryCanceled, as any other statement does; the program knows that the outcome is
#   not what it was promised.
#
# Seen: commit() returns without an error, the answer's status is COMMIT, and the row is there on this server alone. The
#   only sign is a notice of the level WARNING, which psycopg hands to nobody unless a handler was added. After
#   "ALTER ROLE ... SET client_min_messages = error" the server does not send it either: nothing at all tells this
#   commit from one that is on the standby.
#
# Why the guess is wrong: the transaction is durable here before the wait begins, and cannot be undone any more. An
#   error would be read as "not stored", so the server warns instead, and a warning is subject to the level that the
#   client, its role or its database chose.
#
# For somebody who stores keys: a batch that was acknowledged is lost with the first server, and the ratchets that went
#   on are used twice. Set client_min_messages to warning in each transaction, after whatever a role or a pooler's
#   earlier client left; listen for the notice; and write the row again until a commit comes without it.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
"$python" - <<'PY'
import threading
import time

import psycopg

admin = psycopg.connect(autocommit=True)
admin.execute("create table record (key int primary key)")
admin.execute("create role bot login superuser")
# A standby that is away.
admin.execute("alter system set synchronous_standby_names = 'standby'")
admin.execute("select pg_reload_conf()")
while admin.execute("show synchronous_standby_names").fetchone() != ("standby",):
    time.sleep(0.05)
admin.execute("set synchronous_commit = local")


def cancelled_commit(key):
    bot = psycopg.connect(user="bot", autocommit=True)
    notices = []
    bot.add_notice_handler(lambda notice: notices.append(notice.severity_nonlocalized))
    answers = []

    def commit():
        bot.execute("begin")
        bot.execute("insert into record values (%s)", [key])
        answers.append(bot.execute("commit").statusmessage)

    thread = threading.Thread(target=commit)
    thread.start()
    waiting = "select 1 from pg_stat_activity where pid = %s and wait_event = 'SyncRep'"
    while not admin.execute(waiting, [bot.info.backend_pid]).fetchone():
        time.sleep(0.05)
    assert admin.execute("select pg_cancel_backend(%s)", [bot.info.backend_pid]).fetchone() == (True,)
    thread.join()
    stored = admin.execute("select count(*) from record where key = %s", [key]).fetchone()[0]
    print(f"answer {answers}, notices {notices}, rows on this server {stored}")
    return answers, notices, stored


assert cancelled_commit(1) == (["COMMIT"], ["WARNING"], 1), "this finding has changed"
admin.execute("alter role bot set client_min_messages = error")
assert cancelled_commit(2) == (["COMMIT"], [], 1), "this finding has changed"
PY
echo "as described: two cancelled commits returned as successes, the second without a word"
