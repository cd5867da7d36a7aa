"""The rows of the table: what each measures, and beside what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from measuring.figures import Unit
from measuring.lab import Database, Lab, Place, Subject
from workers.sizes import stored_bytes  # runs here, too

#: Sessions of the account beside which a large one is opened; rooms and devices beside which many are measured.
_FEW: Final = 10
#: Where each record is a commit of its own, fewer tell as much.
_COMMITS_OF_NIO: Final = 1_000
#: Bytes of a device in what is stored of a shared session, at the least.
_LEAST_BYTES_OF_A_DEVICE: Final = 10


def _floor(lab: Lab, subject: Subject, task: str, name: str, database: Database, title: str, count: int) -> None:
    """What PostgreSQL itself takes for the rows of a checkout."""
    lab.measure(subject, f"floor.{task}", database, title, name=f"{name}, {subject.name}", count=count)


def batch(lab: Lab) -> None:
    """Room keys in one batch."""
    count = lab.scale.records
    title = f"{count:,} room keys in one batch, each"
    for place in Place:
        for number in lab.rounds():
            for subject in lab.checkouts:
                database = lab.new_database(place)
                lab.measure(subject, "nio_store.batch", database, title, count=count)
                if database.schema and lab.has_references(number):
                    _floor(lab, subject, "copy", "COPY", database, title, count)
            _others(lab, number, place, "batch", title, nio_task="save", count=count)


def save(lab: Lab) -> None:
    """One room key."""
    title, count = "save a room key", lab.scale.repeats
    for place in Place:
        for number in lab.rounds():
            for subject in lab.checkouts:
                database = lab.new_database(place)
                lab.measure(subject, "nio_store.save", database, title, count=count)
                if database.schema and lab.has_references(number):
                    _floor(lab, subject, "upsert", "upsert", database, title, count)
            _others(lab, number, place, "save", title, nio_task="save", count=count)


def _others(lab: Lab, number: int, place: Place, task: str, title: str, *, nio_task: str, count: int) -> None:
    """The other stores, each where it can be."""
    if place is Place.SQLITE:
        for subject in lab.references(number, lab.nio):
            database = lab.new_database(place)
            lab.measure(subject, f"stock_nio.{nio_task}", database, title, count=min(count, _COMMITS_OF_NIO))
    # Over the network each of mautrix's statements takes milliseconds: one round says it.
    elif place is Place.POSTGRES or number == 0:
        for subject in lab.references(number, lab.mautrix):
            lab.measure(subject, f"mautrix_store.{task}", lab.new_database(place), title, count=count)


def find(lab: Lab) -> None:
    """One session of many, which is not in memory."""
    title, count = f"find one of {lab.scale.sessions:,} sessions", lab.scale.sessions
    for place in Place:
        subjects = dict.fromkeys(lab.checkouts, "nio_store")
        if lab.mautrix is not None and place is not Place.SQLITE:
            subjects[lab.mautrix] = "mautrix_store"
        filled = {subject: lab.filled(subject, place, module, count) for subject, module in subjects.items()}
        for number in lab.rounds():
            for subject, module in subjects.items():
                _find_in(lab, subject, module, filled[subject], title, number)


def _find_in(
    lab: Lab, subject: Subject, module: str, filled: tuple[Database, list[list[str]]] | None, title: str, number: int
) -> None:
    if filled is None:
        return
    database, keys = filled
    # Others in each round: what one has read, the server has in memory.
    size = lab.scale.repeats + 10
    start = number * size % max(1, len(keys) - size)
    lab.measure(subject, f"{module}.find", database, title, keys=keys[start : start + size])
    if database.schema and subject in lab.checkouts and lab.has_references(number):
        _floor(lab, subject, "select", "select", database, title, lab.scale.repeats)


def scan(lab: Lab) -> None:
    """All sessions of an account, on the interface."""
    count = lab.scale.records
    title = f"scan {count:,} sessions, each"
    for place in (Place.POSTGRES, Place.SQLITE):
        filled = {subject: lab.filled(subject, place, "nio_store", count) for subject in lab.checkouts}
        of_nio = lab.filled(lab.nio, place, "stock_nio", count) if lab.nio and place is Place.SQLITE else None
        for number in lab.rounds():
            for subject, found in filled.items():
                if found:
                    lab.measure(subject, "interface.scan", found[0], title, count=count)
                    lab.measure(subject, "nio_store.scan", found[0], title, count=count)
                    if found[0].schema and lab.has_references(number):
                        _floor(lab, subject, "scan", "select", found[0], title, count)
            for subject in lab.references(number, lab.nio if of_nio else None):
                assert of_nio is not None
                lab.measure(subject, "stock_nio.scan", of_nio[0], title, count=count)


def devices(lab: Lab) -> None:
    """Devices of many users."""
    title, count = f"{lab.scale.records:,} devices", lab.scale.records
    for place in (Place.POSTGRES, Place.SQLITE):
        for number in lab.rounds():
            for subject in lab.checkouts:
                _save_and_load(lab, subject, "nio_store", lab.new_database(place), title, count)
            if place is Place.POSTGRES:
                for subject in lab.references(number, lab.mautrix):
                    _save_and_load(lab, subject, "mautrix_store", lab.new_database(place), title, count)
            # It takes a quarter of a minute for 10,000.
            elif lab.nio is not None and number == 0:
                _save_and_load(lab, lab.nio, "stock_nio", lab.new_database(place), title, count)


def _save_and_load(lab: Lab, subject: Subject, module: str, database: Database, title: str, count: int) -> None:
    lab.measure(subject, f"{module}.save_devices", database, title, count=count)
    lab.measure(subject, f"{module}.load_devices", database, title, count=count)


def opening(lab: Lab) -> None:
    """A client, with few sessions in its account and with many."""
    keys: dict[str, dict[str, Any]] = {"passphrase": {}}
    if lab.generated_key is not None:
        keys["generated key"] = {"pickle_key": lab.generated_key}
    for place in Place:
        for kind, arguments in keys.items():
            subjects = lab.checkouts if kind == "passphrase" else lab.checkouts[:1]
            for count in (_FEW, lab.scale.sessions):
                _open(lab, subjects, place, count, f"open with {count:,} sessions, {kind}", arguments)


def _open(
    lab: Lab, subjects: Iterable[Subject], place: Place, count: int, title: str, arguments: Mapping[str, Any]
) -> None:
    filled = {subject: lab.filled(subject, place, "nio_store", count, **arguments) for subject in subjects}
    for _ in lab.rounds():
        for subject, found in filled.items():
            if found:
                lab.measure(subject, "client.open_account", found[0], title, **arguments)


def size(lab: Lab) -> None:
    """Bytes of a session, table and index, as they are after the sessions came in batches."""
    title = "bytes a session"
    for place in (Place.POSTGRES, Place.SQLITE):
        subjects = dict.fromkeys(lab.checkouts, ("nio_store", lab.scale.sessions))
        if lab.mautrix is not None and place is Place.POSTGRES:
            subjects[lab.mautrix] = ("mautrix_store", lab.scale.sessions)
        if lab.nio is not None and place is Place.SQLITE:
            subjects[lab.nio] = ("stock_nio", lab.scale.records)
        for subject, (module, count) in subjects.items():
            if filled := lab.filled(subject, place, module, count):
                lab.keep(title, place, Unit.BYTES, subject.name, _bytes(filled[0]) / count)


def _bytes(database: Database) -> int:
    return stored_bytes({"file": database.file, "libpq": database.libpq, "schema": database.schema})


def messages(lab: Lab) -> None:
    """A message in a client with many rooms, and in a room with many devices, beside one with few of both."""
    crowd = lab.scale.crowd
    sizes = {
        f"message and flush, {_FEW} rooms and devices": (_FEW, _FEW),
        f"message and flush, {crowd:,} rooms": (crowd, _FEW),
        f"message and flush, {crowd:,} devices": (_FEW, crowd),
    }
    for place in (Place.POSTGRES, Place.SQLITE):
        for _ in lab.rounds():
            for subject in lab.checkouts:
                _measure_messages(lab, subject, place, sizes)


def _measure_messages(lab: Lab, subject: Subject, place: Place, sizes: Mapping[str, tuple[int, int]]) -> None:
    few, stored = 0.0, 0
    for title, (rooms, devices) in sizes.items():
        database, count = lab.new_database(place), max(20, lab.scale.repeats // 4)
        values = lab.measure(subject, "client.messages", database, title, rooms=rooms, devices=devices, count=count)
        if not values:
            return
        if not few:
            few, stored = values[""], _bytes(database)
            continue
        lab.keep(f"{title}: times that of {_FEW}", place, Unit.TIMES, subject.name, values[""] / few)
        if devices > _FEW and _bytes(database) - stored < devices * _LEAST_BYTES_OF_A_DEVICE:
            lab.give_up(subject, place, "did not store who was given the session, so its figure says nothing")


def importing(lab: Lab) -> None:
    """`import_keys`, and for how long it holds the event loop."""
    title, count = f"import {lab.scale.imported:,} keys", lab.scale.imported
    file = str(lab.folder / "exported.txt")
    lab.run(lab.checkouts[0], "client.export_file", None, file=file, count=count)
    for place in (Place.POSTGRES, Place.SQLITE):
        for _ in lab.rounds(at_most=3):
            for subject in lab.checkouts:
                lab.measure(subject, "client.import_keys", lab.new_database(place), title, file=file, count=count)


def replays(lab: Lab) -> None:
    """What replay protection keeps of each message that was read."""
    read = 2 * lab.scale.records
    for place in (Place.POSTGRES, Place.SQLITE):
        for each in (100, 5):
            title = f"replay protection: bytes a message, {each} a session"
            for subject in lab.checkouts:
                lab.measure(
                    subject,
                    "client.replays",
                    lab.new_database(place),
                    title,
                    unit=Unit.BYTES,
                    senders=read // each,
                    each=each,
                )


#: By the names that `--only` takes.
ROWS: Final[Mapping[str, Callable[[Lab], None]]] = {
    "batch": batch,
    "save": save,
    "find": find,
    "scan": scan,
    "devices": devices,
    "open": opening,
    "size": size,
    "messages": messages,
    "import": importing,
    "replays": replays,
}
