"""A real Prometheus endpoint of a program with clients, and what reads its metrics: alert rules and a dashboard."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from client_pairs import ALICE, BOB
from own_identities import USER
from postgres_database import PASSWORD, PostgresDatabase

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
ALERTS: Final = yaml.safe_load((DOCS / "deploy" / "prometheus-alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD: Final = json.loads((DOCS / "deploy" / "grafana-dashboard.json").read_text())
#: What Grafana puts into an expression before Prometheus sees it.
VARIABLES: Final = {"$__rate_interval": "5m", "$__range": "6h", "$user": ".*"}


@pytest.fixture(scope="module")
def samples(postgres_database: PostgresDatabase, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """What Prometheus sees of a program to which everything happened that is measured."""
    folder = tmp_path_factory.mktemp("watched")
    schema = postgres_database.new_schema()
    program_file = ROOT / "tests/support/observed_program.py"
    command: list[str | Path] = [sys.executable, program_file, postgres_database.url(schema), folder]
    environment = {**os.environ, "CRYPTOSTORE_OBSERVERS": "opentelemetry", "PYTHONPATH": str(program_file.parent)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as program:
        assert program.stdout is not None
        port = int(program.stdout.readline())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        program.communicate()
    assert program.returncode == 0
    postgres_database.drop_schema(schema)
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def of(samples: list[Sample], name: str, **labels: str) -> float:
    """The value of a metric, over all series with these labels; one that is not there is empty, as for Prometheus."""
    of_name = [each for each in samples if each.name == name]
    return sum(each.value for each in of_name if all(each.labels.get(key, "") == labels[key] for key in labels))


def test_what_happened_to_real_clients_is_measured_and_names_no_device_or_room(samples: list[Sample]) -> None:
    def value(name: str, user: str = ALICE.user_id, **labels: str) -> float:
        return of(samples, name, matrix_user_id=user, **labels)

    assert value("cryptostore_gaps_filled_total", BOB.user_id) == 1
    assert value("cryptostore_gaps_events_total", BOB.user_id) == 30
    assert value("cryptostore_gaps_missed_total", BOB.user_id, cryptostore_cause="refused") >= 1
    assert value("cryptostore_fencings_total", cryptostore_command="rekey") == 1
    assert value("cryptostore_open_failures_total", BOB.user_id, error_type="WrongPickleKey") == 1
    assert value("cryptostore_unreadable_total", cryptostore_kind="tracked_user") >= 1
    assert value("cryptostore_outages_total") == 2
    assert value("cryptostore_flush_waiting_seconds") > 0.3
    assert value("cryptostore_identity_changes_total", cryptostore_whose="other") == 1
    assert value("cryptostore_identity_signed", USER) == 1
    batches = "db_client_operation_duration_seconds_count"
    assert value(batches, db_system_name="postgresql", error_type="") > 5
    assert value(batches, db_system_name="postgresql", error_type="FencedOut") == 1
    assert value(batches, db_system_name="sqlite", error_type="BackendUnavailable") == 2
    assert of(samples, "db_client_connection_count", db_client_connection_state="idle") >= 1
    assert of(samples, "db_client_connection_pending_requests") == 0

    labels = {f"{name}={value}" for each in samples for name, value in each.labels.items()}
    assert not [each for each in labels if ALICE.device_id in each or "!room" in each or PASSWORD in each]


def names_in(expression: Any) -> set[str]:
    """The metrics that an expression reads."""
    if isinstance(expression, promql_parser.VectorSelector):
        return {str(expression.name)}
    parts = ("expr", "lhs", "rhs", "vector_selector")
    found = [getattr(expression, part) for part in parts if hasattr(expression, part)]
    found += list(getattr(expression, "args", []))
    return set().union(*map(names_in, found)) if found else set()


def labels_in(expression: str) -> set[str]:
    """The labels that an expression matches or groups by."""
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    return {name.strip() for group in grouped for name in group.split(",")} | set(re.findall(r"(\w+)=~?\"", expression))


def dashboard_expressions() -> list[str]:
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        targets = [expression.replace(variable, value) for expression in targets]
    return targets


def test_alerts_and_dashboard_read_what_is_exported_and_nothing_is_left_out(samples: list[Sample]) -> None:
    shown: set[str] = set()
    for expression in [*(rule["expr"] for rule in ALERTS), *dashboard_expressions()]:
        names = names_in(promql_parser.parse(expression))
        assert names, expression
        assert names <= {each.name for each in samples}, expression
        labels = {label for each in samples if each.name in names for label in each.labels}
        assert labels_in(expression) <= labels | {"le"}, expression
        shown |= names
    own = {each.name for each in samples if each.name.startswith(("cryptostore_", "db_client_"))}
    assert {_base(each) for each in own} == {_base(each) for each in shown}
    page = (DOCS / "monitoring.md").read_text()
    documented = set(re.findall(r"`((?:cryptostore|db\.client\.(?:operation|connection))\.[a-z_.]+)`", page))
    others = {f"cryptostore.{name}" for name in ("command", "events", "errors", "observers")}
    documented -= others | {"db.client.connection.pool.name"}
    without_unit = {re.sub(r"_(total|seconds|bytes_total)$", "", _base(each)) for each in own}
    assert {each.replace(".", "_") for each in documented} == without_unit


def _base(name: str) -> str:
    """A histogram's name, without what tells its three metrics apart."""
    return re.sub(r"_seconds_(bucket|count|sum)$", "_seconds", name.removesuffix("_created"))


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["user"]["query"]["query"] == "label_values(cryptostore_opened_total, matrix_user_id)"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do_and_where_that_is_explained(rule: dict[str, Any]) -> None:
    texts = rule["annotations"]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert texts["summary"]
    assert len(texts["remedy"]) > 30
    page, _, anchor = texts["page"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), re.MULTILINE)
    assert not anchor or anchor in {re.sub(r"[^\w-]", "", each.lower().replace(" ", "-")) for each in headings}
    labels = set(re.findall(r"\$labels\.(\w+)", texts["summary"] + texts["remedy"]))
    assert labels <= labels_in(rule["expr"]) | {"matrix_user_id"}
