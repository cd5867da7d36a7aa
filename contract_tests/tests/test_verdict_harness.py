"""The verdict on harnesses and fixtures that spare a database something, knowingly or not."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest

from contract_runs import CASE, CONTRACT, FEW, run, why_not_passed
from cryptostore_contract import StoreContract
from cryptostore_contract.manifest import functions_of
from cryptostore_contract.plugin import EXIT_INCOMPLETE

pytest_plugins = ["pytester"]

#: A fixture in the place of pytest's own.
_ANOTHER = "@pytest.fixture\ndef monkeypatch({self}):\n    return pytest.MonkeyPatch()"


@pytest.mark.parametrize(
    ("case_id", "name", "body", "conftest"),
    [
        ("NUMBERING-7", "monkeypatch", textwrap.indent(_ANOTHER.format(self="self"), "    "), ""),
        ("NUMBERING-7", "monkeypatch", "", _ANOTHER.format(self="")),
        (
            "OWNERSHIP-6",
            "store",
            "    import functools\n    @pytest.fixture\n"
            "    @functools.wraps(StoreContract.store.__wrapped__)\n"
            "    def store(self, handles): return handles.own()",
            "",
        ),
    ],
    ids=["of the class", "of a conftest", "wrapped"],
)
def test_a_case_that_is_given_another_fixture_is_found_out(
    pytester: pytest.Pytester, case_id: str, name: str, body: str, conftest: str
) -> None:
    function = functions_of(StoreContract)[case_id].__name__
    contract = run(pytester, "-k", function, body=body, conftest=conftest)
    assert contract["incomplete"][case_id] == f"its fixture {name!r} is not the suite's own"


#: A harness that gives up in the middle of the case at stake.
_WEARY_HARNESS = """
    @pytest.fixture
    def harness(self, request):
        class Weary(MemoryHarness):
            def open(self, **options):
                if request.node.name == "{case}":
                    pytest.{gives_up}("no time")
                return super().open(**options)
        yield from managed(Weary())
"""


@pytest.mark.parametrize(("gives_up", "said"), [("skip", "skipped: "), ("xfail", "marked xfail: ")])
def test_a_harness_that_gives_up_on_a_case_is_found_out(pytester: pytest.Pytester, gives_up: str, said: str) -> None:
    reason = why_not_passed(run(pytester, *FEW, body=_WEARY_HARNESS.format(case=CASE, gives_up=gives_up)))
    # Before pytest 9 "reason: " stands between.
    assert reason.startswith(said)
    assert reason.endswith("no time")


#: A harness for which the suite sees no call to a driver, and what may spare itself a case in its place.
_WITHOUT_A_DRIVER = """
    @pytest.fixture
    def harness(self):
        class Elsewhere(MemoryHarness):
            abilities = MemoryHarness.abilities | {{Ability.OTHER_PROCESS}}
        yield from managed(Elsewhere())
{stranger}
"""


@pytest.mark.parametrize("case_id", ["NUMBERING-11", "SCHEMA-9"])
def test_a_case_is_not_verified_where_the_suite_sees_no_driver(pytester: pytest.Pytester, case_id: str) -> None:
    contract = run(pytester, "-k", f"{case_id}.", body=_WITHOUT_A_DRIVER.format(stranger=""))
    assert contract["not_verified"][case_id] == "needs a driver whose calls the suite can see"


def test_what_stands_in_the_place_of_a_case_does_not_make_it_unverified(pytester: pytest.Pytester) -> None:
    function = functions_of(StoreContract)["NUMBERING-11"].__name__
    raises = "raise __import__('cryptostore_contract.observed').observed.Unverifiable('a driver')"
    body = _WITHOUT_A_DRIVER.format(stranger=f"    def {function}(self, harness): {raises}")
    contract = run(pytester, "-k", "NUMBERING-11.", body=body)
    assert contract["failed"] == ["NUMBERING-11"]


@pytest.mark.parametrize(
    "body",
    [
        f"        if request.node.name == '{CASE}': raise RuntimeError('no database')\n        yield",
        f"        yield\n        if request.node.name == '{CASE}': raise RuntimeError('cannot be removed')",
    ],
    ids=["setup", "teardown"],
)
def test_a_harness_that_fails_counts_as_a_failure(pytester: pytest.Pytester, body: str) -> None:
    fixture = f"    @pytest.fixture(autouse=True)\n    def part_of_the_harness(self, request):\n{body}"
    contract = run(pytester, *FEW, body=fixture)
    assert contract["verdict"] == "FAIL"
    assert contract["failed"] == ["ISOLATION-9"]


#: A harness for the case at stake alone, and how it differs from the one of the others.
_OTHER_HARNESS = """
    @pytest.fixture
    def harness(self, request):
        from cryptostore import open_backend
        class Other(MemoryHarness):
            {difference}
        yield from managed((Other if request.node.name == "{case}" else MemoryHarness)())
"""


@pytest.mark.parametrize(
    ("difference", "described"),
    [
        ("name = 'other'", "other, memory, reopen"),
        ("abilities = frozenset()", "memory, memory"),
        ("url = 'sqlite:////no/such/folder/keys.db'\n            open = lambda self: open_backend('memory://x')", ""),
    ],
    ids=["name", "abilities", "scheme"],
)
@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_a_case_on_another_harness_than_the_rest_is_found_out(
    pytester: pytest.Pytester, difference: str, described: str, processes: str
) -> None:
    body = _OTHER_HARNESS.format(difference=difference, case=CASE)
    contract = run(pytester, *FEW, processes, body=body)
    assert why_not_passed(contract) == f"ran on another harness than the rest: {described or 'memory, sqlite, reopen'}"
    assert (contract["harness"], contract["backend"]) == ("memory", "memory")


#: A file in which deleted pickles stay, and a harness that makes light of it.
_MODEST_HARNESS = """
    @pytest.fixture
    def harness(self, tmp_path, monkeypatch):
        from contract_mutants.files import deleted_rows_left_in_the_file
        deleted_rows_left_in_the_file(monkeypatch)
        class Modest(MemoryHarness):
            abilities = frozenset({Ability.RAW_STORAGE})
            url = f"sqlite:///{tmp_path}/keys.db"
            claims = lacks = lambda *_: False
            _support = lambda *_: None
            def raw_storage(self):
                return b"".join(path.read_bytes() for path in tmp_path.iterdir())
        yield from managed(Modest())
"""


def test_what_a_backend_declares_is_tested_whatever_the_harness_makes_of_it(pytester: pytest.Pytester) -> None:
    contract = run(pytester, "-k", "left_in_storage", body=_MODEST_HARNESS)
    assert contract["failed"] == ["ISOLATION-4", "ISOLATION-5"]


def test_children_that_cannot_start_show_no_absence(pytester: pytest.Pytester) -> None:
    broken = "    @pytest.fixture(autouse=True)\n    def part_of_the_harness(self, monkeypatch):\n"
    broken += "        monkeypatch.setattr('sys.executable', '/bin/false')"
    assert run(pytester, "-k", "that_is_said_to", body=broken)["failed"] == ["CAPABILITIES-1", "CAPABILITIES-2"]


def test_a_backend_that_denies_what_its_harness_demands_of_it_fails(pytester: pytest.Pytester) -> None:
    encrypted = "    @pytest.fixture\n    def harness(self):\n        class Encrypted(MemoryHarness):\n"
    encrypted += "            abilities = frozenset({Ability.TLS})\n        yield from managed(Encrypted())"
    assert run(pytester, "-k", "not_said_to_be_absent", body=encrypted)["failed"] == ["CAPABILITIES-3"]


#: A server that can be killed, and what it holds afterwards.
_KILLABLE_HARNESS = """
    @pytest.fixture
    def harness(self):
        from cryptostore import BackendUnavailable
        class Killable(MemoryHarness):
            abilities = frozenset({{Ability.STOP_SERVER, Ability.KILL_SERVER}})
            killed = False
            def open(self, **options):
                if self.killed:
                    raise BackendUnavailable("killed")
                return super().open(**options)
            def kill_server(self):
                self.killed = True
            def start_server(self):
                self.killed = False
                self._url += "{afterwards}"
        yield from managed(Killable())
"""


@pytest.mark.parametrize(("afterwards", "failed"), [("-and-empty", []), ("", ["FAULTS-6"])], ids=["gone", "there"])
def test_that_nothing_survives_a_restart_is_tested_where_it_is_said(
    pytester: pytest.Pytester, afterwards: str, failed: list[str]
) -> None:
    contract = run(
        pytester, "-k", "killed or comes_back or away_beyond", body=_KILLABLE_HARNESS.format(afterwards=afterwards)
    )
    assert contract["failed"] == failed
    [shown] = [row["shown"] for row in contract["capabilities"] if row["capability"] == "survives server restart"]
    assert shown == ("declared absent, and found otherwise" if failed else "absent")
    for case_id in ("FAULTS-3", "FAULTS-4", "FAULTS-7"):
        assert contract["not_verified"][case_id] == "needs a backend that survives server restart"


def test_cases_without_their_assertions_are_incomplete(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=CONTRACT.format(body=""))
    options = ("-p", "no:cacheprovider", "--assert=plain", "--cryptostore-report=report.json")
    ended = pytester.run(sys.executable, "-O", "-m", "pytest", *options, *FEW)
    [contract] = json.loads((pytester.path / "report.json").read_text())["contracts"]
    assert (ended.ret, contract["counts"]["passed"]) == (EXIT_INCOMPLETE, 0)
    assert contract["incomplete"]["ISOLATION-9"] == "ran without assertions, by python -O"
