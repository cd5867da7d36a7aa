"""A hot standby of a test server: it replays what the primary commits, and can be promoted."""

from __future__ import annotations

import subprocess
import time
from typing import Final

from postgres_server import SUPERUSER, NoPostgres, PostgresServer

_PATIENCE: Final = 60.0


class PostgresStandby(PostgresServer):
    """A copy of `primary` that follows it. The primary's commits do not wait for it before `make_synchronous`."""

    def __init__(self, primary: PostgresServer) -> None:
        self._primary: Final = primary
        super().__init__()

    def make_synchronous(self) -> None:
        """From now on the primary acknowledges no commit before it is on this server's disk."""
        with self._primary.connect() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            ends = time.monotonic() + _PATIENCE
            while connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
                assert time.monotonic() < ends, f"the standby does not follow: {self.tail()}"
                time.sleep(0.02)

    def promote(self) -> None:
        """Make this the primary, and wait until it accepts writes."""
        with self.connect() as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,), self.tail()

    def _initialise(self) -> None:
        place = ["-h", str(self._primary.folder), "-p", str(self._primary.port), "-U", SUPERUSER, "-D", str(self.data)]
        copy = [str(self.binaries / "pg_basebackup"), *place, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        done = subprocess.run([*self.wrapper, *copy], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NoPostgres(f"pg_basebackup in {self.binaries} failed: {done.stderr.strip()}")
