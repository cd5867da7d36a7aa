"""What measurements are made with: subjects, databases and rounds; each measurement runs in a process of its own."""

from __future__ import annotations

import enum
import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from measuring.environments import variables
from measuring.figures import Figures, Missing, Unit
from measuring.network import Network
from postgres_database import PostgresDatabase

_WORKER: Final = Path(__file__).parents[1] / "worker.py"
#: No measurement takes as long.
_PATIENCE: Final = 3_600
#: What other stores take is a scale, which needs fewer rounds.
_ROUNDS_OF_REFERENCES: Final = 3


class Place(enum.StrEnum):
    """Where the database is."""

    POSTGRES = "PostgreSQL"
    NETWORK = "PostgreSQL + network"
    SQLITE = "SQLite"


@dataclass(frozen=True)
class Subject:
    """What is measured, and the Python that has it."""

    name: str
    python: Path


@dataclass(frozen=True)
class Database:
    """A schema of the server or a file, and the ways to it."""

    place: Place
    #: For backends of ours.
    url: str
    #: For drivers; empty for SQLite.
    libpq: str = ""
    schema: str = ""
    #: Empty for PostgreSQL.
    file: str = ""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    runs: int
    #: Room keys of one batch, sessions of a scan, devices.
    records: int
    #: Sessions in the database in which one is looked up.
    sessions: int
    imported: int
    #: Operations whose median is one sample.
    repeats: int
    #: Rooms, and devices of a room, that a message is measured with.
    crowd: int


class WorkerFailed(RuntimeError):
    """A measurement came to no end; the text is the last line that it wrote."""


class Lab:
    """Runs measurements and keeps their figures."""

    def __init__(
        self,
        server: PostgresDatabase,
        network: Network,
        folder: Path,
        scale: Scale,
        say: Callable[[str], None],
    ) -> None:
        self.scale: Final = scale
        self.figures: Final = Figures()
        #: This checkout and perhaps another.
        self.checkouts: Final[list[Subject]] = []
        self.mautrix: Subject | None = None
        self.nio: Subject | None = None
        #: A pickle key that this checkout generated, if it can.
        self.generated_key: str | None = None
        #: The row that is measured.
        self.row = ""
        self._server = server
        self._network = network
        self.folder: Final = folder
        self._say = say
        self._schemas: list[str] = []
        self._filled: dict[tuple[str, str, int, str], tuple[Database, list[list[str]]]] = {}

    def rounds(self, at_most: int | None = None) -> range:
        """The numbers of the rounds: in each, the subjects take turns."""
        return range(min(self.scale.runs, at_most or self.scale.runs))

    def has_references(self, number: int) -> bool:
        """Whether what stands beside takes part in this round."""
        return number < _ROUNDS_OF_REFERENCES

    def references(self, number: int, subject: Subject | None) -> list[Subject]:
        """The subject, if it is there and takes part in this round."""
        return [subject] if subject is not None and self.has_references(number) else []

    def new_database(self, place: Place) -> Database:
        """An empty one."""
        if place is Place.SQLITE:
            file = Path(tempfile.mkdtemp(dir=self.folder)) / "keys.db"
            return Database(place, f"sqlite:///{file}", file=str(file))
        self._schemas.append(self._server.new_schema())
        return self._on_server(place, self._schemas[-1])

    def at(self, place: Place, database: Database) -> Database:
        """The same database, by the other way."""
        return database if place is Place.SQLITE else self._on_server(place, database.schema)

    def _on_server(self, place: Place, schema: str) -> Database:
        url = self._server.url(schema, self._network.port if place is Place.NETWORK else None)
        return Database(place, url, url.partition("?")[0], schema)

    def filled(
        self, subject: Subject, place: Place, module: str, count: int, **arguments: Any
    ) -> tuple[Database, list[list[str]]] | None:
        """A database in which the subject has stored so many sessions, and some of their keys. None if it cannot."""
        backend = Place.SQLITE if place is Place.SQLITE else Place.POSTGRES
        of = (subject.name, backend.value, count, json.dumps(arguments))
        if of not in self._filled:
            database = self.new_database(backend)
            answer = self.run(subject, f"{module}.fill", database, count=count, **arguments)
            if answer is None:
                return None
            self._settle(database)
            self._filled[of] = (database, answer.get("keys", []))
        database, keys = self._filled[of]
        return self.at(place, database), keys

    def _settle(self, database: Database) -> None:
        """Have the server do now what it would do in the middle of a measurement."""
        if database.schema:
            with self._server.connect() as connection:
                connection.execute("VACUUM (ANALYZE)")
                if self._server.server is not None:
                    connection.execute("CHECKPOINT")

    def drop_schemas(self) -> None:
        """Remove what the row made. What was filled stays."""
        kept = {database.schema for database, _ in self._filled.values()}
        for schema in [schema for schema in self._schemas if schema not in kept]:
            self._server.drop_schema(schema)
            self._schemas.remove(schema)

    def close(self) -> None:
        """Remove everything."""
        self._filled.clear()
        self.drop_schemas()

    def measure(
        self,
        subject: Subject,
        task: str,
        database: Database,
        title: str,
        *,
        name: str | None = None,
        unit: Unit = Unit.SECONDS,
        **arguments: Any,
    ) -> dict[str, float]:
        """Run a task and keep its figures, those of the network with their round trips.

        `name` says under which subject they are kept, if not its own.
        """
        kept_as, place = name or subject.name, database.place
        answer = self.run(Subject(kept_as, subject.python), task, database, **arguments)
        if answer is None:
            return {}
        values: dict[str, float] = answer["values"]
        for part, value in values.items():
            self.keep(f"{title}: {part}" if part else title, place, unit, kept_as, value)
        if database.place is Place.NETWORK:
            for part, (began, ended, count) in answer["spans"].items():
                trips = self._network.round_trips(began, ended) / count
                self.keep(f"{title}: {part}" if part else title, place, Unit.ROUND_TRIPS, kept_as, trips)
        return values

    def keep(self, label: str, place: Place, unit: Unit, subject: str, value: float) -> None:
        """One sample of a figure of this row."""
        self.figures.add(self.row, label, place.value, unit, subject, value)

    def give_up(self, subject: Subject, place: Place | None, reason: str) -> None:
        """Note that the subject cannot do this row here. It is not tried again."""
        self.figures.missing.append(Missing(subject.name, self.row, place.value if place else "", reason))

    def run(self, subject: Subject, task: str, database: Database | None, **arguments: Any) -> dict[str, Any] | None:
        """What a task tells, or None if the subject cannot do it."""
        place = database.place if database else None
        gave_up = {(missing.subject, missing.row, missing.place) for missing in self.figures.missing}
        if (subject.name, self.row, place.value if place else "") in gave_up:
            return None
        self._say(f"{self.row}: {subject.name}, {task}, {place.value if place else 'no database'}")
        if database is not None:
            arguments["database"] = asdict(database)
        try:
            return self._told(subject, task, arguments)
        except WorkerFailed as error:
            self.give_up(subject, place, str(error))
            return None

    def _told(self, subject: Subject, task: str, arguments: dict[str, Any]) -> dict[str, Any]:
        command = [str(subject.python), str(_WORKER), *task.split(".")]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(arguments),
                capture_output=True,
                text=True,
                check=False,
                env=variables(),
                cwd=self.folder,
                timeout=_PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise WorkerFailed(f"{task} took longer than {_PATIENCE} s") from None
        if done.returncode != 0:
            raise WorkerFailed((done.stderr.strip().splitlines() or [f"{task} ended with {done.returncode}"])[-1])
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
