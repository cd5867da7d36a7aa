"""`cryptostore verify`: whether everything that is stored can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.records import Account
from cryptostore.store.backend import Backend
from cryptostore.store.ownership import Mode
from cryptostore.store.verifying import Verified
from cryptostore.store.verifying import verify as verify_account

from .databases import (
    AtHome,
    DatabaseUrl,
    DeviceId,
    UserId,
    accounts_to_show,
    at_home,
    is_one_unreadable,
    names_of,
    open_for,
)
from .exits import ExitCode
from .output import AsJson, bars, messages, print_json, print_line, print_table
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys
from .rows import kind_name, row_document, row_name

#: How many unreadable rows people see; JSON has more.
_SHOWN: Final = 20


@takes_pickle_keys
def verify(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Open and check every record, and list those that cannot be read by kind and key.

    Takes nothing over and changes nothing. The exit code is 1 where something cannot be read, or an account is not
    complete here. Accounts that were moved elsewhere are left out. All accounts that are
    chosen must have the same pickle key.
    """
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("verify", url) as backend:
        is_one_left_out = is_one_unreadable(backend, user_id, device_id)
        chosen = at_home(backend, accounts_to_show(backend, url, user_id, device_id))
        verified = {account: with_progress(backend, account, pickle_key) for account in chosen.accounts}
    _report(url, chosen, verified, as_json=as_json)
    if is_one_left_out or chosen.is_one_missing or any(each.unreadable for each in verified.values()):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def with_progress(backend: Backend, account: Account, pickle_key: str) -> Verified:
    """Open and check every record of an account; on a terminal, people see how far it is."""
    console = messages()
    if not console.is_terminal:
        return verify_account(backend, account, pickle_key)
    with backend.open_store(account, Mode.READ) as store:
        total = sum(1 for _ in store.stored_rows())
    with bars(console) as progress:
        task = progress.add_task(f"verifying {account}", total=total)
        return verify_account(backend, account, pickle_key, lambda: progress.advance(task))


def _report(url: str, chosen: AtHome, verified: Mapping[Account, Verified], *, as_json: bool) -> None:
    if as_json:
        documents = [_document(*each) for each in verified.items()]
        print_json({"database": shown_url(url), "accounts": documents, "left_out": chosen.left_out()})
        return
    rows = [
        (str(account), kind, f"{readable:,}", f"{unreadable:,}")
        for account, each in verified.items()
        for kind, readable, unreadable in _counts(each)
    ]
    print_table(f"Verified in {shown_url(url)}", ["account", "kind", "readable", "unreadable"], rows)
    for account, each in verified.items():
        for key, reason in each.named[:_SHOWN]:
            print_line(f"- {row_name(key)} of {account}: {reason}")
        more = each.unreadable.total() - _SHOWN
        if more > 0:
            print_line(f"- and {more:,} more of {account} (--json names them)")


def _counts(verified: Verified) -> Iterator[tuple[str, int, int]]:
    readable, unreadable = _by_name(verified.readable), _by_name(verified.unreadable)
    for kind in dict.fromkeys([*readable, *unreadable]):
        yield kind, readable[kind], unreadable[kind]


def _by_name(numbers: Counter[int]) -> Counter[str]:
    """The counts by the names of kinds."""
    return Counter({kind_name(number): numbers[number] for number in sorted(numbers)})


def _document(account: Account, verified: Verified) -> dict[str, Any]:
    return {
        **names_of(account),
        "readable": _by_name(verified.readable),
        "unreadable": _by_name(verified.unreadable),
        "unreadable_rows": [row_document(*each) for each in verified.named],
    }
