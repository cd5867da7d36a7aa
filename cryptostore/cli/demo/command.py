"""`cryptostore demo`: the main job, on real Olm and Megolm data."""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import Annotated, Any

import typer

from cryptostore.cli.exits import ExitCode
from cryptostore.cli.output import AsJson, print_error, print_json, print_line, print_table
from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account

from .audience import Audience
from .checks import Check, checks_of, repeated_deliveries
from .conversation import Conversation, Settings, Story
from .database import database, serves_one_process, temporary_accounts
from .processes import PartyFailed, exit_code_of_party
from .relay import Relay


def demo(
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="The database to use; by default SQLite in a temporary folder. "
            "Two accounts with new names are created there and deleted at the end; others are not touched. "
            "Where only one process can have a database open, each has its own, with -alice or -bob after its name.",
        ),
    ] = None,
    kills: Annotated[int, typer.Option(min=0, help="How often Bob is killed.")] = 3,
    messages: Annotated[int, typer.Option(min=1, max=10_000, help="How many messages each of the two sends.")] = 100,
    seed: Annotated[int | None, typer.Option(help="Choose the same moments for the kills again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let two encrypted clients talk, kill one of them again and again, and check that no message is lost.

    Alice and Bob are processes of their own, with real Olm and Megolm sessions. Bob is killed with SIGKILL while
    messages are on their way to him, and starts again from nothing but the database and his pickle key.
    """
    chosen = random.SystemRandom().randrange(2**32) if seed is None else seed
    with database(store) as url, Audience(messages) as watching:
        settings = Settings(url, kills, messages, chosen)
        accounts = _new_accounts()
        relay = Relay("!demo:localhost", [account.user_id for account in accounts])
        watching.say(f"seed {chosen}, database {shown_url(url)}")
        if serves_one_process(url):
            watching.say("one process at a time can have it open, so Alice and Bob get a database each beside it")
        try:
            story = play(settings, accounts, relay, watching)
        except PartyFailed as error:
            print_error(str(error))
            raise typer.Exit(exit_code_of_party(error)) from None
    if not report(settings, story, relay, as_json=as_json):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def play(settings: Settings, accounts: list[Account], relay: Relay, watching: Audience) -> Story:
    """Run the conversation of two accounts, which are gone afterwards."""
    with temporary_accounts(settings.url, accounts):
        return asyncio.run(Conversation(settings, accounts, relay, watching).run())


def report(settings: Settings, story: Story, relay: Relay, *, as_json: bool) -> bool:
    """Show what was checked, and say whether all of it is right."""
    checks = checks_of(settings, story, relay)
    passed = all(check.passed for check in checks) and not story.stalled
    if as_json:
        print_json(_document(settings, story, relay, checks, passed=passed))
    else:
        rows = [(each.name, str(each.expected), str(each.found), "yes" if each.passed else "NO") for each in checks]
        print_table(f"Demo with seed {settings.seed}", ["check", "expected", "found", "passed"], rows)
        print_line(f"Events and room keys that had to be delivered again: {repeated_deliveries(relay)}")
        if story.stalled:
            print_error(f"nothing moved for {settings.patience:g} seconds, so the demo gave up")
    return passed


def _new_accounts() -> list[Account]:
    # Two device ids, because nio takes every device with its own device id for itself, even of another user.
    run = secrets.token_hex(8)
    return [Account(f"@cryptostore-demo-{run}-{name}:localhost", name.upper()) for name in ("alice", "bob")]


def _document(settings: Settings, story: Story, relay: Relay, checks: list[Check], *, passed: bool) -> dict[str, Any]:
    return {
        "passed": passed,
        "seed": settings.seed,
        "messages": settings.messages,
        "stalled": story.stalled,
        "checks": [{**check._asdict(), "passed": check.passed} for check in checks],
        "kills": [kill._asdict() for kill in story.kills],
        "repeated_deliveries": repeated_deliveries(relay),
    }
