#!/bin/sh
# PostgreSQL: two sessions of one login, with the same settings, may not see or end each other, although each of them
# may do all that the other's transaction did.
#
# Versions: PostgreSQL 18.6, psycopg 3.3.9.
#
# Guess, written before the run: a login that was given another role for good ("ALTER ROLE relay SET role = bot", for
#   rotating passwords: two logins, one role that owns the rows) is that role in every way. Its sessions are those of
#   bot, and may end each other: any role may end its own sessions.
#
# Seen: current_user is bot in both, pg_stat_activity calls both relay. Each sees of the other neither its state nor
#   what it waits for, and pg_terminate_backend is refused: "permission denied to terminate process". After
#   "SET ROLE none" the same session may. Of a query "WHERE usename = current_user" nothing comes, not even the session
#   itself.
#
# Why the guess is wrong: a session belongs to the role that logged in, and rights are those of the role that is set. bot
#   is no member of relay; relay is one of bot.
#
# For somebody who stores keys: half a batch that a silent network left behind holds its rows' locks, perhaps for hours,
#   and the next owner, who has the very same login, can neither find nor end it. Compare with session_user, and end it
#   after SET ROLE none; or let each role log in itself.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
"$python" - <<'PY'
import psycopg

admin = psycopg.connect(autocommit=True)
admin.execute("create role bot")
admin.execute("create role relay login in role bot")
admin.execute("alter role relay set role = bot")

stalled = psycopg.connect(user="relay", autocommit=True)
stalled.execute("begin")
owner = psycopg.connect(user="relay", autocommit=True)
assert owner.execute("select current_user, session_user").fetchone() == ("bot", "relay")

LOOK = "select usename, state, wait_event from pg_stat_activity where pid = %s"
pid = stalled.info.backend_pid


def ended():
    try:
        return owner.execute("select pg_terminate_backend(%s, 5000)", [pid]).fetchone()[0]
    except psycopg.errors.InsufficientPrivilege as error:
        return error.diag.message_primary


as_bot = owner.execute(LOOK, [pid]).fetchone(), ended()
own = owner.execute("select count(*) from pg_stat_activity where usename = current_user").fetchone()
owner.execute("set role none")
as_relay = owner.execute(LOOK, [pid]).fetchone(), ended()
print("as bot:  ", *as_bot)
print("as relay:", *as_relay)
assert as_bot == (("relay", None, None), "permission denied to terminate process"), "this finding has changed"
assert own == (0,), "this finding has changed"
assert as_relay == (("relay", "idle in transaction", "ClientRead"), True), "this finding has changed"
PY
echo "as described: the same login sees and ends its session only after SET ROLE none"
