"""`cryptostore import-nio`: the keys of a nio client move into a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cryptostore.errors import CryptoStoreError
from cryptostore.plugins.loading import shown_url
from cryptostore.plugins.observers import notify
from cryptostore.records import Account

from .databases import DatabaseUrl, open_for, owned_url, owner_of, refuse_process_local
from .exits import ExitCode
from .output import AsJson, bars, messages, print_json, print_line, print_table, say
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys

if TYPE_CHECKING:
    from cryptostore.nio.importing import AccountImport, Finding, Findings

#: How many ids of one finding people see; JSON has all.
_IDS_SHOWN: Final = 5


@takes_pickle_keys
def import_nio(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="nio's SQLite file; a DefaultStore's trust files lie beside it.")
    ],
    destination: DatabaseUrl,
    user_id: Annotated[str | None, typer.Option(help="Import only this user's accounts.")] = None,
    device_id: Annotated[str | None, typer.Option(help="Import only accounts with this device id.")] = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Read and convert all, ask the database whether it would take it, and write nothing."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Import the keys of a matrix-nio client, SqliteStore or DefaultStore, into a database.

    Stop the client first. The source is not changed. The client goes on with the same pickle key, with NioStore as its
    store and URL as its store_path.

    What a damaged source cannot give is listed, and the exit code is 1; the rest is imported. An account that is in
    the database already is refused, and an import that fails leaves nothing behind.
    """
    # nio takes half a second to import; the other commands do without it.
    from cryptostore.nio import importing

    refuse_process_local(destination)
    pickle_key = current_pickle_key(pickle_key_options)
    findings = importing.Findings()

    def wanted(account: Account) -> bool:
        return user_id in (None, account.user_id) and device_id in (None, account.device_id)

    with importing.open_source(source) as opened:
        imports = importing.read_accounts(opened, pickle_key, findings, wanted)
        why_not = _why_not_looked_at(imports, destination) if dry_run else ""
        counts = _count(imports) if dry_run else _transfer(imports, source, destination, findings)
    if why_not:
        say(f"{shown_url(destination)} was not looked at: {why_not}")
    _report(source, destination, counts, findings, dry_run=dry_run, is_looked_at=not why_not, as_json=as_json)
    if findings:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _transfer(
    imports: list[AccountImport], source: Path, destination: str, findings: Findings
) -> Mapping[Account, Counter[str]]:
    from cryptostore.nio.importing import transfer

    url = owned_url("import-nio", destination)
    with _progress(imports) as advance:
        counts = transfer(imports, url, findings, advance)
    for account, of_account in counts.items():
        facts = {"records": of_account.total(), "way": "import-nio", "source": str(source)}
        notify("cryptostore_keys_imported", account=account, owner=owner_of("import-nio"), **facts)
    return counts


@contextmanager
def _progress(imports: list[AccountImport]) -> Iterator[Callable[[], None]]:
    console = messages()
    if not console.is_terminal:
        yield lambda: None
        return
    with bars(console) as progress:
        task = progress.add_task("importing", total=sum(each.total() for each in imports))
        yield lambda: progress.advance(task)


def _why_not_looked_at(imports: list[AccountImport], destination: str) -> str:
    """Empty for a database that would take these accounts. Raises ConfigurationError for one that would refuse them."""
    from cryptostore.nio.importing import leftovers_of

    try:
        backend = open_for("import-nio", destination)
    except CryptoStoreError as error:
        return str(error)
    with backend:
        leftovers_of(backend, imports)
    return ""


def _count(imports: list[AccountImport]) -> Mapping[Account, Counter[str]]:
    counts = {}
    for each in imports:
        whole = [each.olm_account, *filter(None, [each.sync_token()]), *each.contents()]
        counts[each.account] = Counter(record.kind_name for record in whole)
        each.check_source()
    return counts


def _report(
    source: Path,
    destination: str,
    counts: Mapping[Account, Counter[str]],
    findings: Findings,
    *,
    dry_run: bool,
    is_looked_at: bool,
    as_json: bool,
) -> None:
    if as_json:
        print_json(
            {
                "source": str(source),
                "destination": shown_url(destination),
                "dry_run": dry_run,
                "destination_looked_at": is_looked_at,
                "complete": not findings,
                "accounts": [_account_document(account, kinds) for account, kinds in counts.items()],
                "findings": [_finding_document(finding) for finding in findings],
            }
        )
        return
    place = shown_url(destination)
    what = f"Would be imported into {place}" if dry_run else f"Imported into {place}"
    title = what if is_looked_at else f"Can be read; {place} was not looked at"
    rows = [(str(account), kind, str(count)) for account, kinds in counts.items() for kind, count in kinds.items()]
    print_table(title, ["account", "kind", "records"], rows)
    if findings:
        _show_findings(findings)


def _show_findings(findings: Findings) -> None:
    print_line("What the source could not give", style="bold")
    for finding in findings:
        owner = f" of {finding.account}" if finding.account else ""
        print_line(f"- {finding.kind}{owner}, {len(finding.ids)}: {finding.reason}: {_some(finding.ids)}")


def _some(ids: tuple[str, ...]) -> str:
    more = len(ids) - _IDS_SHOWN
    return ", ".join(ids[:_IDS_SHOWN]) + (f" and {more} more (--json has all)" if more > 0 else "")


def _account_document(account: Account, kinds: Mapping[str, int]) -> dict[str, Any]:
    return {"user_id": account.user_id, "device_id": account.device_id, "imported": dict(kinds)}


def _finding_document(finding: Finding) -> dict[str, Any]:
    owner = finding.account
    return {
        "user_id": owner and owner.user_id,
        "device_id": owner and owner.device_id,
        "kind": finding.kind,
        "reason": finding.reason,
        "ids": list(finding.ids),
    }
