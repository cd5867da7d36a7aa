"""The verdict: however a case is kept from passing with the suite's own function, it is not PASS."""

from __future__ import annotations

import json

import pytest

from contract_runs import CASE, CONTRACT, FEW, STRICT, run, why_not_passed
from cryptostore_contract import StoreContract
from cryptostore_contract.manifest import functions_of
from cryptostore_contract.plugin import EXIT_INCOMPLETE
from cryptostore_contract.verdict import Judged, Outcome, Verdict, manifest, verdict_on

pytest_plugins = ["pytester"]


def test_a_single_case_that_did_not_pass_makes_all_the_difference() -> None:
    passed = [Judged(case, Outcome.PASSED) for case in manifest()]
    assert verdict_on(passed) is Verdict.PASS
    for position, judged in enumerate(passed):
        for outcome, verdict in ((Outcome.INCOMPLETE, Verdict.INCOMPLETE), (Outcome.FAILED, Verdict.FAIL)):
            spoilt = [*passed[:position], Judged(judged.case, outcome), *passed[position + 1 :]]
            assert verdict_on(spoilt) is verdict
    assert verdict_on([Judged(case, Outcome.NOT_VERIFIED) for case in manifest()]) is Verdict.INCOMPLETE


def test_it_is_pass_when_every_case_passes(pytester: pytest.Pytester) -> None:
    contract = run(pytester, "-n2")
    assert contract["verdict"] == "PASS"
    assert contract["incomplete"] == {}
    assert contract["failed"] == []
    assert "RESTART-4" in contract["not_verified"]
    assert contract["soak"] != []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"    def {CASE}(self): pass", "is not the suite's own function"),
        (f"    {CASE} = None", "did not run"),
        (f"    @pytest.mark.skip(reason='no time')\n    def {CASE}(self): pass", "skipped: no time"),
        (
            "    @pytest.fixture(autouse=True)\n"
            "    def hindered(self, request):\n"
            f"        if request.node.name == '{CASE}': pytest.skip('no time')",
            "skipped: no time",
        ),
        (
            f"    import functools\n    @functools.wraps(StoreContract.{CASE})\n    def {CASE}(self, handles): pass",
            "is not the suite's own function",
        ),
        (
            "    @pytest.fixture\n"
            "    def handles(self, harness, request):\n"
            "        from cryptostore_contract.handles import Handles\n"
            f"        return Handles(MemoryHarness() if request.node.name == '{CASE}' else harness)",
            "its fixture 'handles' is not the suite's own",
        ),
    ],
    ids=["overridden", "removed", "overridden and skipped", "autouse fixture", "wrapped", "given another database"],
)
def test_a_subclass_that_keeps_a_case_from_running_is_found_out(
    pytester: pytest.Pytester, body: str, reason: str
) -> None:
    assert why_not_passed(run(pytester, *FEW, body=body)) == reason


_MODIFY = (
    "def pytest_collection_modifyitems(items):\n    item = next(item for item in items if item.name == '{case}')\n    "
)


@pytest.mark.parametrize(
    ("conftest", "reason"),
    [
        (_MODIFY.format(case=CASE) + "items.remove(item)", "did not run"),
        (
            _MODIFY.format(case=CASE) + "item.add_marker(pytest.mark.skip(reason='no time'))",
            "skipped: no time",
        ),
        (_MODIFY.format(case=CASE) + "item.add_marker(pytest.mark.xfail(reason='known'))", "marked xfail: known"),
        (_MODIFY.format(case=CASE) + "item.obj = lambda **fixtures: None", "is not the suite's own function"),
        (
            f"def pytest_runtest_setup(item):\n    if item.name == '{CASE}': pytest.skip('no time')",
            "skipped: no time",
        ),
        (
            "def pytest_runtest_call(item):\n"
            f"    if item.name == '{CASE}': item.get_closest_marker('timeout') and pytest.skip('no time')",
            "skipped: no time",
        ),
        (
            f"def pytest_pycollect_makeitem(collector, name, obj):\n    if name == '{CASE}': return []",
            "did not run",
        ),
        (
            "@pytest.hookimpl(tryfirst=True)\n"
            f"def pytest_pyfunc_call(pyfuncitem):\n    return True if pyfuncitem.name == '{CASE}' else None",
            "did not run to its end",
        ),
        (
            "from cryptostore.store.memory import MemoryHandle\n"
            "@pytest.hookimpl(wrapper=True)\n"
            "def pytest_pyfunc_call(pyfuncitem):\n"
            "    with pytest.MonkeyPatch.context() as patch:\n"
            f"        if pyfuncitem.name == '{CASE}': patch.setattr(MemoryHandle, 'accounts', None)\n"
            "        try: return (yield)\n"
            "        except TypeError: return True",
            "did not run to its end",
        ),
        (
            f"def pytest_runtest_protocol(item):\n    return True if item.name == '{CASE}' else None",
            "did not run",
        ),
        (
            "from cryptostore.store.memory import MemoryHandle\n"
            "@pytest.hookimpl(wrapper=True)\n"
            "def pytest_pyfunc_call(pyfuncitem):\n"
            "    with pytest.MonkeyPatch.context() as patch:\n"
            f"        if pyfuncitem.name == '{CASE}': patch.setattr(MemoryHandle, 'accounts', None)\n"
            "        return (yield)\n"
            "@pytest.hookimpl(wrapper=True)\n"
            "def pytest_runtest_makereport():\n"
            "    report = yield\n"
            "    report.outcome = 'passed'\n"
            "    return report",
            "did not run to its end",
        ),
        (
            f"from cryptostore_contract import StoreContract\nStoreContract.{CASE} = lambda self: None",
            "is not the suite's own function",
        ),
        (
            "from cryptostore_contract.cases.isolation import IsolationCases\n"
            f"monkeypatch = pytest.MonkeyPatch()\nmonkeypatch.setattr(IsolationCases, '{CASE}', lambda self: None)",
            "is not the suite's own function",
        ),
        (
            f"from cryptostore_contract.cases.isolation import IsolationCases\ndel IsolationCases.{CASE}",
            "did not run",
        ),
    ],
    ids=[
        "deselected",
        "skipped",
        "xfailed",
        "replaced",
        "skipped in setup",
        "skipped at run time",
        "not collected",
        "not called",
        "its error swallowed",
        "its protocol left out",
        "its report changed",
        "replaced in the class",
        "patched in its group",
        "deleted from its group",
    ],
)
def test_a_conftest_that_keeps_a_case_from_passing_is_found_out(
    pytester: pytest.Pytester, conftest: str, reason: str
) -> None:
    assert why_not_passed(run(pytester, *FEW, conftest=conftest)) == reason


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "not_found"),
        (*FEW, "--deselect", f"test_it.py::TestMemory::{CASE}"),
        ("-n2", "-k", "not_found"),
        (
            "test_it.py::TestMemory::test_an_account_that_is_not_there_is_not_found",
            "test_it.py::TestMemory::test_an_account_deleted_under_its_owner_is_not_found",
        ),
    ],
    ids=["-k", "--deselect", "-k in two processes", "by name"],
)
def test_a_case_left_out_on_the_command_line_is_found_out(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    assert why_not_passed(run(pytester, *arguments)) == "did not run"


def test_a_marker_expression_that_leaves_cases_out_is_found_out(pytester: pytest.Pytester) -> None:
    contract = run(pytester, "-m", "not timeout")
    assert contract["verdict"] == "INCOMPLETE"
    assert contract["incomplete"]["ISOLATION-9"] == "did not run"
    assert contract["counts"]["passed"] == 0


def test_a_part_of_a_parametrized_case_is_not_the_case(pytester: pytest.Pytester) -> None:
    contract = run(pytester, "-k", "a_batch_after_a_gap_is_refused and not 1000")
    assert contract["incomplete"]["NUMBERING-3"] == "4 of its 5 parts passed"


def test_an_xpass_is_no_pass(pytester: pytest.Pytester) -> None:
    conftest = _MODIFY.format(case=CASE) + "item.add_marker(pytest.mark.xfail(reason='known', strict=False))"
    assert why_not_passed(run(pytester, *FEW, conftest=conftest)) == "marked xfail: known"


def test_a_run_without_a_contract_is_incomplete(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    pytester.runpytest_inprocess(*STRICT)
    report = json.loads((pytester.path / "report.json").read_text())
    assert (report["verdict"], report["contracts"]) == ("INCOMPLETE", [])


def test_a_class_that_is_tried_with_every_parameter_passes_with_none_left_out(pytester: pytest.Pytester) -> None:
    module = CONTRACT.format(body="    @pytest.fixture(autouse=True)\n    def each(self, number): assert number != 2")
    pytester.makepyfile(test_it=module.replace("class Test", "@pytest.mark.parametrize('number', [1, 2])\nclass Test"))
    ended = pytester.runpytest_inprocess(*STRICT, *FEW)
    [contract] = json.loads((pytester.path / "report.json").read_text())["contracts"]
    assert (ended.ret, contract["verdict"], contract["counts"]["passed"]) == (1, "FAIL", 0)


@pytest.mark.parametrize(
    ("body", "conftest"),
    [
        ("    __test__ = False", ""),
        ("", "def pytest_pycollect_makeitem(name):\n    if name == 'TestMemory': return []"),
        ("", "def pytest_pycollect_makeitem(name):\n    if name.startswith('test_'): return []"),
        ("", "def pytest_collection_modifyitems(items):\n    items.clear()"),
        ("    def __init__(self, database): pass", ""),
    ],
    ids=["__test__", "the class not collected", "no case collected", "all cases deselected", "a constructor"],
)
def test_a_class_of_which_nothing_runs_is_reported(pytester: pytest.Pytester, body: str, conftest: str) -> None:
    pytester.makepyfile(test_it=CONTRACT.format(body=body), test_other="def test_other(): pass")
    pytester.makeconftest(conftest)
    options = ("-p", "no:cacheprovider", "-W", "ignore", "--cryptostore-report=report.json")
    ended = pytester.runpytest_inprocess(*options)
    [contract] = json.loads((pytester.path / "report.json").read_text())["contracts"]
    assert (contract["contract"], contract["verdict"]) == ("test_it.py::TestMemory", "INCOMPLETE")
    assert contract["counts"]["incomplete"] + contract["counts"]["soak"] == len(manifest())
    # Where nothing at all is left, pytest says so itself.
    assert ended.ret in (EXIT_INCOMPLETE, pytest.ExitCode.NO_TESTS_COLLECTED)


def test_a_second_class_does_not_speak_for_the_first(pytester: pytest.Pytester) -> None:
    other = f"class TestOther(TestMemory):\n    {CASE} = None"
    pytester.makepyfile(test_it=CONTRACT.format(body="") + other)
    pytester.runpytest_inprocess(*STRICT, *FEW)
    contracts = json.loads((pytester.path / "report.json").read_text())["contracts"]
    assert [("ISOLATION-9" in contract["incomplete"]) for contract in contracts] == [False, True]


def test_a_case_that_ended_on_a_strangers_fixture_does_not_speak_for_the_next_class(pytester: pytest.Pytester) -> None:
    other = (
        "from cryptostore_contract.handles import Handles\n"
        "class TestOther(TestMemory):\n    @pytest.fixture\n    def handles(self, harness): return Handles(harness)\n"
    )
    pytester.makepyfile(test_it=CONTRACT.format(body="") + other)
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items): items.reverse()\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_pyfunc_call(pyfuncitem): return pyfuncitem.cls.__name__ == 'TestMemory' or None"
    )
    pytester.runpytest_inprocess(*STRICT, *FEW)
    contracts = json.loads((pytester.path / "report.json").read_text())["contracts"]
    assert [contract["incomplete"]["ISOLATION-9"] for contract in contracts] == [
        "did not run to its end",
        "its fixture 'handles' is not the suite's own",
    ]


def test_what_failed_last_is_not_the_whole(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=CONTRACT.format(body=f"    def {CASE}(self): assert False"))
    pytester.runpytest_inprocess(*FEW)
    pytester.makepyfile(test_it=CONTRACT.format(body=""))
    ended = pytester.runpytest_inprocess(*FEW, "--lf", "--cryptostore-report=report.json")
    [contract] = json.loads((pytester.path / "report.json").read_text())["contracts"]
    assert (ended.ret, contract["verdict"], contract["counts"]["passed"]) == (EXIT_INCOMPLETE, "INCOMPLETE", 1)


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_a_run_that_stops_at_a_failure_leaves_the_rest_incomplete(pytester: pytest.Pytester, option: str) -> None:
    fails = "    @pytest.fixture(autouse=True)\n    def part_of_the_harness(self): assert False"
    contract = run(pytester, *FEW, option, body=fails)
    assert contract["counts"]["failed"] == 1
    assert contract["counts"]["incomplete"] + contract["counts"]["soak"] == len(manifest()) - 1


def test_a_run_that_only_collects_is_incomplete(pytester: pytest.Pytester) -> None:
    assert run(pytester, "--collect-only")["counts"]["passed"] == 0


@pytest.mark.parametrize(
    ("arguments", "ini", "ends"),
    [
        (FEW, "", pytest.ExitCode.OK),
        ((*FEW, "--cryptostore-report=report.md"), "", EXIT_INCOMPLETE),
        ((), f'addopts = -k "{FEW[1]}"', EXIT_INCOMPLETE),
        (("--collect-only",), "", pytest.ExitCode.OK),
    ],
    ids=["narrowed by hand", "with a report", "narrowed by a file", "collected by hand"],
)
def test_less_than_all_is_no_failure_only_where_it_was_asked_for_by_hand(
    pytester: pytest.Pytester, arguments: tuple[str, ...], ini: str, ends: int
) -> None:
    pytester.makepyfile(test_it=CONTRACT.format(body=""))
    pytester.makeini(f"[pytest]\n{ini}\n")
    assert pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments).ret == ends


@pytest.mark.parametrize("argument", ["-v", "--color=no", "--confcutdir=.", "--continue-on-collection-errors"])
def test_an_override_fails_a_run_without_a_report(pytester: pytest.Pytester, argument: str) -> None:
    pytester.makepyfile(
        "from cryptostore_contract import StoreContract\n\n"
        "class TestMine(StoreContract):\n"
        + "".join(f"    {function.__name__} = None\n" for function in functions_of(StoreContract).values())
        + "    def test_mine(self): pass\n"
    )
    assert pytester.runpytest_inprocess("-p", "no:cacheprovider", argument).ret == EXIT_INCOMPLETE


def test_the_report_on_an_earlier_run_does_not_outlive_the_start_of_another(pytester: pytest.Pytester) -> None:
    (pytester.path / "report.json").write_text('{"verdict": "PASS"}')
    pytester.makeconftest("def pytest_collection_modifyitems(): raise SystemExit(3)")
    pytester.makepyfile(test_it=CONTRACT.format(body=""))
    pytester.runpytest_subprocess(*STRICT)
    report = pytester.path / "report.json"
    assert not report.exists() or json.loads(report.read_text())["verdict"] == "INCOMPLETE"


def test_a_report_in_a_folder_that_is_not_there_is_refused_before_the_run(pytester: pytest.Pytester) -> None:
    ended = pytester.runpytest_inprocess("--cryptostore-report=no/such/report.json")
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
