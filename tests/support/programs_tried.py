"""The programs from PyPI that run on `cryptostore run`, with all that each of them needs for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias


@dataclass(frozen=True)
class Place:
    """Where a program is to work: everything that its user would write into its configuration."""

    homeserver: str
    user_id: str
    password: str
    device_id: str
    room: str
    #: The URL of a language model's server.
    model: str
    #: A port that the program may listen on.
    port: int


#: The texts of files by their names, in the folder that a program is started in.
Files: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Exchange:
    """What somebody says to a program, and what is in its answer."""

    asked: str
    answer: str


@dataclass(frozen=True)
class Program:
    """One program: which, how it is set up and started, and what it does."""

    distribution: str
    version: str
    #: What follows `cryptostore run --store URL`.
    command: Sequence[str]
    #: What it writes when it listens.
    ready: str
    #: Before it is killed, and after it was started again.
    first: Exchange
    second: Exchange
    #: Its configuration.
    files: Callable[[Place], Files] | None = None
    #: A command of its own that logs in, and ends.
    login: Callable[[Place], Sequence[str]] | None = None
    #: It writes what it read, and does not answer.
    only_writes: bool = False
    #: The version of the room, if not the server's own choice.
    room_version: str | None = None
    #: What has to be installed beside it for a reason of its own.
    beside: Sequence[str] = ()
    #: A command of it that sends the text "third" and ends, in the place of `command`.
    sending: Sequence[str] = ()


def _simplematrixbotlib(place: Place) -> Files:
    return {
        "bot.py": f"""\
import simplematrixbotlib as botlib

config = botlib.Config()
config.encryption_enabled = True
creds = botlib.Creds({place.homeserver!r}, {place.user_id!r}, {place.password!r})
bot = botlib.Bot(creds, config)


@bot.listener.on_message_event
async def echo(room, message):
    match = botlib.MessageMatch(room, message, bot, "!")
    if match.is_not_from_this_bot() and match.prefix() and match.command("echo"):
        await bot.api.send_text_message(room.room_id, " ".join(match.args()))


bot.run()
"""
    }


def _nio_bot(place: Place) -> Files:
    return {
        "bot.py": f"""\
import niobot

bot = niobot.NioBot({place.homeserver!r}, {place.user_id!r}, {place.device_id!r}, "./store", command_prefix="!")


@bot.on_event("ready")
async def ready(result):
    print("listening")


@bot.command()
async def echo(ctx, text: str):
    await ctx.respond(text)


bot.run(password={place.password!r})
"""
    }


def _matrix_reminder_bot(place: Place) -> Files:
    matrix = {
        "user_id": place.user_id,
        "user_password": place.password,
        "homeserver_url": place.homeserver,
        "device_id": place.device_id,
        "device_name": "reminders",
    }
    return _as_yaml(
        "config.yaml",
        matrix=matrix,
        storage={"database": "sqlite://bot.db", "store_path": "store"},
        reminders={"timezone": "UTC"},
        logging={"file_logging": {"enabled": False, "filepath": "bot.log"}},
        allowlist={"enabled": False, "regexes": []},
        blocklist={"enabled": False, "regexes": []},
    )


def _matrix_commander_login(place: Place) -> Sequence[str]:
    login = ("matrix-commander", "--login", "password", "--homeserver", place.homeserver)
    user = ("--user-login", place.user_id, "--password", place.password, "--device", "commander")
    return (*login, *user, "--room-default", place.room)


def _opsdroid(place: Place) -> Files:
    skill = """\
from opsdroid.matchers import match_regex
from opsdroid.skill import Skill


class Echo(Skill):
    @match_regex(r"!echo (?P<text>.*)")
    async def echo(self, message):
        await message.respond(message.regex.group("text"))
"""
    connector = {
        "mxid": place.user_id,
        "password": place.password,
        "homeserver": place.homeserver,
        "rooms": {"main": place.room},
        "device_id": place.device_id,
        "store_path": "store",
        "enable_encryption": True,
    }
    configuration = _as_yaml(
        "configuration.yaml",
        connectors={"matrix": connector},
        skills={"echo": {"path": "echo.py"}},
        web={"host": "127.0.0.1", "port": place.port},
    )
    return {**configuration, "echo.py": skill}


def _ollamarama_matrix(place: Place) -> Files:
    matrix = {
        "server": place.homeserver,
        "username": place.user_id,
        "password": place.password,
        "channels": [place.room],
        "device_id": place.device_id,
    }
    model = {
        "api_url": f"{place.model}/api/chat",
        "models": {"small": "small"},
        "default_model": "small",
        "personality": "a test",
        "thinking": False,
    }
    return _as_yaml("config.json", matrix=matrix, ollama=model)


def _as_yaml(name: str, **content: Any) -> Files:
    # JSON is YAML.
    return {name: json.dumps(content, indent=1)}


PROGRAMS: Final = (
    Program(
        distribution="simplematrixbotlib",
        version="2.13.1",
        files=_simplematrixbotlib,
        command=("bot.py",),
        ready="Connected to",
        first=Exchange("!echo first", "first"),
        second=Exchange("!echo second", "second"),
    ),
    Program(
        distribution="matrix-reminder-bot",
        version="0.4.0",
        files=_matrix_reminder_bot,
        command=("matrix-reminder-bot", "config.yaml"),
        ready="Startup complete",
        first=Exchange("!remindme 1d; water the plants", "OK, I will remind you"),
        second=Exchange("!listreminders", "water the plants"),
    ),
    Program(
        distribution="nio-bot",
        version="1.2.1",
        files=_nio_bot,
        command=("bot.py",),
        ready="listening",
        first=Exchange("!echo first", "first"),
        second=Exchange("!echo second", "second"),
    ),
    Program(
        distribution="matrix-commander",
        version="8.0.6",
        login=_matrix_commander_login,
        command=("matrix-commander", "--listen", "forever"),
        ready="ready and listening",
        first=Exchange("first", "first"),
        second=Exchange("second", "second"),
        only_writes=True,
        # It adds a server's name to ids of rooms without one, as those of version 12 are, and then knows no such room.
        room_version="11",
        sending=("matrix-commander", "--message", "third"),
    ),
    Program(
        distribution="opsdroid",
        version="0.31.0",
        # It imports pkg_resources, and newer ones have none.
        beside=("setuptools<82",),
        files=_opsdroid,
        command=("opsdroid", "start", "-f", "configuration.yaml"),
        ready="started web server",
        first=Exchange("!echo first", "first"),
        second=Exchange("!echo second", "second"),
    ),
    Program(
        distribution="ollamarama-matrix",
        version="1.6.1",
        files=_ollamarama_matrix,
        command=("ollamarama-matrix", "-c", "config.json"),
        ready=" joined",
        first=Exchange(".ai first", "you said first"),
        second=Exchange(".ai second", "you said second"),
    ),
)
