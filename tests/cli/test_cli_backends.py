"""`cryptostore backends`."""

from __future__ import annotations

from command_line import Run
from cryptostore import Capability
from fake_distributions import FakeSite

GROUP = "cryptostore.backends"

OTHER_NAME = """
from cryptostore import BackendPlugin, hookimpl
@hookimpl
def cryptostore_backends():
    return [BackendPlugin("duck", (1, 0), print)]
"""


def test_json_says_what_each_backend_can_do(run: Run) -> None:
    ended = run("backends", "--json")
    assert ended.code == 0
    assert ended.document["interface"] == "2.0"
    by_name = {each["name"]: each for each in ended.document["backends"]}
    assert {"memory", "sqlite", "postgresql"} <= by_name.keys()
    memory = by_name["memory"]
    assert memory["distribution"] == "matrix-cryptostore"
    assert memory["status"] == "usable"
    assert memory["problem"] is None
    assert memory["capabilities"].keys() == {capability.value for capability in Capability}
    assert memory["capabilities"]["fencing"] == {"support": "full", "reason": None}
    assert memory["capabilities"]["survives process kill"] == {
        "support": "unsupported",
        "reason": "the database is gone with its process",
    }
    assert by_name["sqlite"]["distribution"] == "matrix-cryptostore-sqlite"
    assert by_name["sqlite"]["capabilities"]["survives process kill"]["support"] == "full"


def test_the_table_shows_the_same(run: Run) -> None:
    ended = run("backends")
    assert ended.code == 0
    for text in ("memory", "matrix-cryptostore-sqlite", "survives process kill", "there is no network", "usable"):
        assert text in ended.out


def test_a_broken_backend_is_listed_with_its_reason(run: Run, site: FakeSite) -> None:
    site.install("wrecks", {GROUP: {"wreck": "wreck"}}, "0.3", wreck="raise RuntimeError('hit a rock')")
    document = run("backends", "--json").document
    (wreck,) = (each for each in document["backends"] if each["name"] == "wreck")
    assert (wreck["distribution"], wreck["version"], wreck["status"]) == ("wrecks", "0.3", "broken")
    assert "hit a rock" in wreck["problem"]
    assert wreck["capabilities"] == {}
    ended = run("backends")
    assert ended.code == 0
    assert "broken: backend 'wreck' of wrecks 0.3 cannot be loaded: RuntimeError: hit a rock" in ended.out


def test_the_author_of_a_broken_backend_is_told_what_to_mend(run: Run, site: FakeSite) -> None:
    site.install("ducks", {GROUP: {"duck": "duck", "duckdb": "other_duck"}}, "0.3", duck="", other_duck=OTHER_NAME)
    out = run("backends").out
    assert "duck has no function cryptostore_backends that is marked @hookimpl" in out
    assert "its hook yields 'duck', but the entry point is called 'duckdb'" in out
