#!/bin/sh
# psycopg, msgspec: for two hours a year a time that was stored and read back is not equal to itself.
#
# Versions: psycopg 3.3.9, PostgreSQL 18.6, msgspec 0.22.0, tzdata 2025.2.
#
# Guess, written before the run: aware datetimes are compared as moments, so a timestamptz that comes back in
#   another time zone, or as UTC from MessagePack, is equal to what was written, and has its hash.
#
# Seen: a session whose TimeZone is Europe/Berlin gives back 00:30 UTC of 25 October 2026 as 02:30 in Berlin:
#   the same timestamp(), the difference is 0, neither is before the other, and they are not equal; a set of the
#   two has two members. The hour before and the hour after: equal. The other way round, a time from
#   datetime.now(ZoneInfo(…)) that msgspec writes and reads: not equal.
#
# Why the guess is wrong: Python (PEP 495) makes a time unequal to every time in any other zone if its offset
#   depends on "fold", that is in the hour that the clock shows twice, first and second time. "<" and "-" know
#   no such exception. psycopg names its results' zone after the session's TimeZone, which the server or the
#   role sets; msgspec writes moments and reads UTC.
#
# For somebody who stores keys: "read back and compare", "copy and verify" and "changed since last time?" fail
#   in one night of the year, and no test on a server in UTC shows it. Store integers, or turn every time into
#   UTC before it is compared.
. "$(dirname "$0")/common.sh"
install 'psycopg[binary]==3.3.9' msgspec==0.22.0 tzdata==2025.2
start_postgres
"$python" - <<'PY'
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import msgspec
import psycopg

connection = psycopg.connect(autocommit=True, options="-c TimeZone=Europe/Berlin")
connection.execute("create table session (used timestamptz)")


def stored_and_read(moment):
    connection.execute("truncate session")
    connection.execute("insert into session values (%s)", (moment,))
    return connection.execute("select used from session").fetchone()[0]


first = datetime(2026, 10, 24, 23, 30, tzinfo=timezone.utc)
moments = [first + timedelta(hours=hours) for hours in range(4)]  # 01:30, 02:30, 02:30 and 03:30 in Berlin
read = [stored_and_read(moment) for moment in moments]
assert [moment == back for moment, back in zip(moments, read)] == [True, False, False, True]
for moment, back in zip(moments, read):
    assert moment.timestamp() == back.timestamp()
    assert moment - back == timedelta(0) and not moment < back and not moment > back
assert len({moments[1], read[1]}) == 2
assert [moment == back.astimezone(timezone.utc) for moment, back in zip(moments, read)] == [True] * 4, (
    "the cure"
)

local = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
back = msgspec.msgpack.decode(msgspec.msgpack.encode(local), type=datetime)
assert back == datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc) and back.timestamp() == local.timestamp()
assert back != local
print(f"{moments[1]} came back as {read[1]}: equal {moments[1] == read[1]}, difference {moments[1] - read[1]}")
PY
