"""The job that the page about Kubernetes shows dumps a database whole, and keeps what is young enough."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Final

import yaml

from cryptostore import Account, Changes, Mode, SyncToken, new_pickle_key, open_backend
from postgres_database import DATABASE, PostgresDatabase
from postgres_roles import ALICES, BOBS, OWNER, Roles

_DOCS: Final = Path(__file__).parents[3] / "docs"
_MANIFEST: Final = _DOCS / "deploy" / "kubernetes-backup.yaml"
_PAGE: Final = _DOCS / "backups.md"
_ALICE: Final = Account("@alice:example.org", "ALICEDEVICE")
_KEY: Final = new_pickle_key()
_DAY: Final = 86_400


def _command(schema: str) -> list[str]:
    """The container's command, for the test's schema."""
    [job] = [each for each in yaml.safe_load_all(_MANIFEST.read_text()) if each["kind"] == "CronJob"]
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    [script] = container["args"]
    assert "--schema=cryptostore " in script
    return [*container["command"], script.replace("--schema=cryptostore ", f"--schema={schema} ")]


def _by_the_page(program: str, url: str, dump: Path) -> list[str]:
    """The command of the page about backups, for this dump."""
    [command] = re.findall(rf"^{program} .*$", _PAGE.read_text(), re.MULTILINE)
    assert "keys.dump" in command
    there = re.sub(r"postgresql://\S+", lambda _: shlex.quote(url), command)
    return shlex.split(there.replace("keys.dump", str(dump)))


def test_the_nightly_dump_holds_every_table_and_old_ones_go(
    breakable_database: PostgresDatabase, tmp_path: Path
) -> None:
    schema = breakable_database.new_schema()
    with open_backend(breakable_database.url(schema)) as backend, backend.open_store(_ALICE, pickle_key=_KEY) as store:
        store.apply(Changes([SyncToken("s1")]))
    _make_dump(tmp_path / "old.dump", days=32)
    _make_dump(tmp_path / "young.dump", days=2)
    environment = _environment(breakable_database, tmp_path)
    subprocess.run(_command(schema), env=environment, check=True)
    [new] = {file.name for file in tmp_path.iterdir()} - {"young.dump"}
    assert (tmp_path / new).stat().st_mode & 0o777 == 0o600

    breakable_database.drop_schema(schema)
    restore = _by_the_page("pg_restore", environment["DATABASE"], tmp_path / new)
    subprocess.run(restore, env=environment, check=True)
    with (
        open_backend(breakable_database.url(schema)) as backend,
        backend.open_store(_ALICE, Mode.READ, pickle_key=_KEY) as store,
    ):
        assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}
    breakable_database.drop_schema(schema)


def test_a_dump_by_the_page_brings_the_rights_of_roles_back(
    roles: Roles, breakable_database: PostgresDatabase, tmp_path: Path
) -> None:
    with open_backend(roles.url(ALICES)) as backend, backend.open_store(_ALICE, pickle_key=_KEY) as store:
        store.apply(Changes([SyncToken("s1")]))
    environment, dump = _environment(breakable_database, tmp_path), tmp_path / "roles.dump"
    command = _by_the_page("pg_dump", roles.url(OWNER).partition("?")[0], dump)
    command[command.index("--schema=cryptostore")] = f"--schema={roles.schema}"
    subprocess.run(command, env=environment, check=True)

    breakable_database.drop_schema(roles.schema)
    subprocess.run(_by_the_page("pg_restore", roles.server.url(DATABASE), dump), env=environment, check=True)
    with open_backend(roles.url(ALICES)) as backend, backend.open_store(_ALICE, pickle_key=_KEY) as store:
        assert store.get(SyncToken, [()]) == {(): SyncToken("s1")}
    with open_backend(roles.url(BOBS)) as backend:
        assert not backend.accounts()


def test_a_dump_that_fails_leaves_no_dump_and_removes_none(
    breakable_database: PostgresDatabase, tmp_path: Path
) -> None:
    _make_dump(tmp_path / "old.dump", days=32)
    environment = _environment(breakable_database, tmp_path)
    done = subprocess.run(_command("not_there"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no matching schemas" in done.stderr
    assert [file.name for file in tmp_path.glob("*.dump")] == ["old.dump"]


def _environment(database: PostgresDatabase, folder: Path) -> dict[str, str]:
    assert database.server is not None
    url = database.url("ours alone").partition("?")[0]
    path = f"{database.server.binaries}:{os.environ['PATH']}"
    return {"PATH": path, "BACKUPS": str(folder), "DATABASE": url}


def _make_dump(file: Path, days: int) -> None:
    file.write_bytes(b"")
    made = file.stat().st_mtime - days * _DAY
    os.utime(file, (made, made))
