#!/bin/sh
# RocksDB: the lock that keeps a folder from being opened twice does not know a symbolic link. A write that was
# flushed and acknowledged is gone, without an error anywhere.
#
# Versions: rocksdict 0.3.29, which has RocksDB 9.8.4.
#
# Guess, written before the run: RocksDB locks the file LOCK in its folder, so a second opening is refused under
#   whatever name: "lock hold by current process".
#
# Seen: under the same name it is refused, as guessed. Through a symbolic link to the folder it is opened, and
#   sees the first handle's rows. Then each handle writes one row with sync on, and both close. Opened again, the
#   database has the one handle's row, the other's is gone. No call failed, and nothing is reported as damaged.
#
# Why the guess is wrong: the lock is one of fcntl(), which belongs to the process: a second lock by the same
#   process is granted. For that case RocksDB keeps a list of what this process has locked, by path as it was
#   given. Under another path the folder is not in the list, and two databases write their logs and manifests
#   over each other.
#
# For somebody who stores keys: two clients of one process, one with a relative path or a mounted link in its
#   settings, lose each other's keys after every answer said "stored". Resolve the path before it is opened
#   (and for anything else that is locked with fcntl(), look at device and inode).
. "$(dirname "$0")/common.sh"
install rocksdict==0.3.29
cd "$work"
"$python" - <<'PY'
import os

from rocksdict import Options, Rdict, WriteOptions

FLUSHED = WriteOptions()
FLUSHED.sync = True


def opened(name):
    return Rdict(name, Options(raw_mode=True))


first = opened("keys")
first.put(b"before", b"1", FLUSHED)
os.symlink("keys", "link")
try:
    opened("keys")
except Exception as error:
    assert "lock hold by current process" in str(error), error
else:
    raise AssertionError("the same name should be refused")

second = opened("link")
assert second.get(b"before") == b"1", "it is the same database"
second.put(b"of the second", b"1", FLUSHED)
first.put(b"of the first", b"1", FLUSHED)
second.close()
first.close()

again = opened("keys")
rows = {key: again.get(key) for key in (b"before", b"of the first", b"of the second")}
assert rows == {b"before": b"1", b"of the first": b"1", b"of the second": None}, rows
again.close()
print("acknowledged, flushed, and gone:", *[key.decode() for key, value in rows.items() if value is None])
PY
