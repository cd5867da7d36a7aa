#!/bin/sh
# libpq, psycopg: of a URL with two hosts, psql gives up at the first one if that refuses the password; psycopg,
# which is built on the same libpq, is connected to the second.
#
# Versions: psycopg 3.3.9 with its libpq 18.6 (the script prints it), psql and PostgreSQL 18.6.
#
# Guess, written before the run: the hosts of a URL are tried in turn until one takes the connection, for
#   whatever reason another did not. And since psycopg connects by libpq, both do the same.
#
# Seen: the first host asks for a password and gets a wrong one, the second would trust. psql: "password
#   authentication failed", the second host is not asked. psycopg.pq.PGconn.connect(), libpq itself: the same.
#   psycopg.connect() with the same string: connected to the second host, and nothing said about the first. With
#   a first host that is down, all three go on.
#
# Why the guess is wrong: libpq goes on to the next host only until a server has answered: "if authentication
#   fails, the remaining hosts in the list are not tried", as its manual says. psycopg takes the list apart, and
#   makes an attempt of its own for each host; whatever error ends one, it goes on.
#
# For somebody who stores keys: after a fail-over the old primary may come back with an old password or an old
#   pg_hba.conf. What an administrator tries with psql, or another program with its driver, then says nothing
#   about the client that uses the same URL, in both directions: one is out and the other is in. And a password
#   that is wrong everywhere reaches every host of the URL, at each attempt: three hosts, three failures for
#   whatever counts them.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9'
start_postgres
logged as_server "$server/pg_ctl" stop -s -D "$work/data"
printf 'local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n' >"$work/data/pg_hba.conf"
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
logged as_server "$server/pg_ctl" start -s -w -D "$work/data" -l "$work/data/log" \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=$work/data"
"$python" - "$port" "$server/psql" <<'PY'
import os
import subprocess
import sys

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, PGconn, version

port, program = sys.argv[1:]
trusting = os.environ["PGHOST"]
with psycopg.connect(port=port, autocommit=True) as admin:
    admin.execute("create role bot login password 'right'")

REFUSED_FIRST = make_conninfo(host=f"127.0.0.1,{trusting}", port=port, user="bot", password="wrong")
DOWN_FIRST = make_conninfo(host=f"{trusting}/nothing,{trusting}", port=port, user="bot", password="wrong")


def by_psql(url):
    ended = subprocess.run([program, url, "-c", "select 1"], capture_output=True, text=True)
    return ended.returncode == 0, ended.stderr


def by_libpq(url):
    connection = PGconn.connect(url.encode())
    return connection.status == ConnStatus.OK, connection.get_error_message()


def by_psycopg(url):
    with psycopg.connect(url) as connection:
        return connection.info.host == trusting, ""


ways = (by_psql, by_libpq, by_psycopg)
assert [way(DOWN_FIRST)[0] for way in ways] == [True, True, True]
answers = [way(REFUSED_FIRST) for way in ways]
assert [connected for connected, _ in answers] == [False, False, True], answers
for _, said in answers[:2]:
    assert "password authentication failed" in said and trusting not in said, "the second host was not asked"
print(f"libpq {version()}; one URL: psql and libpq are refused, psycopg is connected to its second host")
PY
