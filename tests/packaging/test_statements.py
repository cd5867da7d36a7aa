"""Numbers and names in the documentation are those of the code."""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cryptostore import Account, Database, SharedPart
from cryptostore.cli.exits import READER_GONE, ExitCode
from cryptostore.nio import NioStore, ProductionMatrixClient
from cryptostore.plugins.urls import CommonOptions
from cryptostore.store import aead, marks, pickle_keys, ring, seal, secrets
from cryptostore.store.interface import Batch
from cryptostore.store.keys import encode_key
from cryptostore_postgres.options import parse

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference.md").read_text()
ACCOUNT = Account("@bot:example.org", "DEVICE")


def layout(page: str, heading: str) -> list[tuple[str, str]]:
    """The rows of the table of bytes below a line of a page."""
    below = (DOCS / page).read_text().partition(heading)[2]
    table = below.partition("| bytes | content |\n|---|---|\n")[2].partition("\n\n")[0]
    return [(size, content) for size, content in re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)]


def fixed_size(rows: Iterable[tuple[str, str]]) -> int:
    """The bytes of all parts whose size does not depend on what is stored, the tags among them."""
    tags = [int(size) for _, content in rows for size in re.findall(r"a tag of (\d+) bytes", content)]
    return sum(tags) + sum(int(size) for size, _ in rows if size.isdigit())


def test_the_layout_of_a_sealed_value() -> None:
    rows = layout("keys.md", "## A stored record")
    data_key = ring.DataKey(0x01020304, bytes(aead.KEY_BYTES))
    value = seal.Seal(ACCOUNT, [data_key]).seal(b"key", b"plain")
    assert fixed_size(rows) == seal.OVERHEAD_BYTES == len(value) - len(b"plain")
    assert rows[0] == ("1", f"version of the seal: {value[0]} for AES-256-GCM-SIV")
    assert rows[1] == ("4", "id of the data key")
    assert value[1:5] == bytes([1, 2, 3, 4])
    assert rows[2] == (str(aead.NONCE_BYTES), "nonce, random")


def test_the_layout_of_a_secret() -> None:
    rows = layout("keys.md", "### Secrets")
    sealed = secrets.SecretSeal(ACCOUNT, bytes(aead.KEY_BYTES)).seal("name", bytes(32))
    assert rows[0] == (str(aead.NONCE_BYTES), "nonce, random")
    assert fixed_size(rows) == len(sealed) - 32


def test_the_layout_of_a_key() -> None:
    sizes = re.search(
        r"id takes (\d+) bytes, any other text its UTF-8 bytes and a zero byte, an integer (\d+) bytes",
        (DOCS / "keys.md").read_text(),
    )
    assert sizes is not None
    session_id = base64.b64encode(bytes(32)).decode().rstrip("=")
    key = encode_key(SharedPart, ("!room", session_id, 7))
    assert key[0] == SharedPart.kind_number
    assert len(key) == 1 + len(b"!room\0") + int(sizes[1]) + int(sizes[2])


def test_the_layout_of_a_key_ring() -> None:
    rows = layout("keys.md", "## The key ring")
    new = ring.Ring.new()
    value = ring.wrap(ACCOUNT, new, pickle_keys.new_pickle_key())[ring.RING_KEYS[0]]
    assert rows[0] == ("1", f"version of the ring: {value[0]}")
    assert (rows[1][0], value[1]) == ("1", 0)
    assert fixed_size(rows) == len(value) - len(msgspec.msgpack.encode(new))


def test_the_layout_of_a_mark() -> None:
    rows = layout("keys.md", "## An account that is moved")
    mark = marks.Mark(marks.Whereabouts.COMING, 1, 2, "sqlite:///keys.db", datetime.now(UTC))
    value = marks.encode_mark(ACCOUNT, mark)
    assert rows[0] == ("1", f"version of the mark: {value[0]}")
    assert fixed_size(rows) == len(value) - len(msgspec.msgpack.encode(mark))
    assert f"under the bytes {marks.MARK_KEY.hex(' ')}." in (DOCS / "keys.md").read_text()


def test_the_cost_of_a_passphrase() -> None:
    # From the source, because the tests derive with the lowest cost.
    cost = re.search(r"^COST: Final = (\d+)$", inspect.getsource(pickle_keys), re.MULTILINE)
    assert cost is not None
    assert f"scrypt (N = 2^{cost[1]}, r = 8, p = 3)" in (ROOT / "SECURITY.md").read_text()
    length = re.search(r"one of fewer than (\d+) characters draws a warning", (DOCS / "existing-bots.md").read_text())
    assert length is not None
    assert pickle_keys.is_weak("x" * (int(length[1]) - 1))
    assert not pickle_keys.is_weak("x" * int(length[1]))


def test_the_exit_codes() -> None:
    table = (DOCS / "command-line.md").read_text().partition("## Exit codes")[2]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [*ExitCode, 130, READER_GONE]


def test_the_number_of_methods_of_a_backend() -> None:
    methods = sorted(Database.__abstractmethods__)
    assert len(methods) == 11
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", DOCS / "writing-a-backend.md"):
        assert "one class with eleven methods" in page.read_text()


def test_the_step_about_commit_names_every_field_of_a_batch() -> None:
    step = (DOCS / "writing-a-backend.md").read_text().partition("## 6. ")[2].partition("\n## ")[0]
    rule = step.partition("1. ")[2].partition("\n\n")[0]
    assert [field for field in Batch._fields if not re.search(rf"\b{field}\b", rule)] == []


def options_in(text: str) -> dict[str, str]:
    """The options and defaults of the tables in a text."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))


def test_the_options_of_every_backend() -> None:
    section = (DOCS / "configuration.md").read_text().partition("## Options of every backend")[2]
    common = options_in(section.partition("## SQLite")[0])
    assert set(common) == {"deadline", "owner"}
    assert float(common["deadline"]) == CommonOptions.take_from({}).deadline


@pytest.mark.parametrize("option", ["schema", "migrate", "pool_size"])
def test_the_options_of_postgresql(option: str) -> None:
    section = (DOCS / "configuration.md").read_text().partition("## PostgreSQL")[2].partition("## Memory")[0]
    listed = options_in(section)
    assert set(listed) == {"schema", "migrate", "pool_size"}
    assert str(getattr(parse("postgresql://host/database", {}), option)) == listed[option].strip("`")


@pytest.mark.parametrize("documented", [ProductionMatrixClient, NioStore], ids=lambda each: each.__name__)
def test_the_reference_has_the_methods_that_pages_name(documented: type) -> None:
    name = documented.__name__
    pages = "".join(page.read_text() for page in [ROOT / "README.md", *DOCS.glob("*.md")])
    named = set(re.findall(rf"(?:\bclient|{name})\.([a-z]\w*)", pages))
    ours = {each for each in named if is_ours(getattr(documented, each, None))}
    [members] = re.findall(rf"^\.\. autoclass:: \S+\.{name}\n   :members: (.+)$", REFERENCE, re.MULTILINE)
    assert ours
    assert ours - set(members.split(", ")) == set()


def is_ours(attribute: object) -> bool:
    """Whether a method or property is one that this project wrote."""
    return str(getattr(getattr(attribute, "fget", attribute), "__module__", "")).startswith("cryptostore")


def test_the_reference_has_each_class_once() -> None:
    names = re.findall(r"^\.\. autoclass:: \S+?(\w+)$", REFERENCE, re.MULTILINE)
    assert sorted(names) == sorted(set(names))


def test_the_contributors_page_names_files_and_environments_that_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    files = re.findall(r"`(?:python )?((?:tests|docs|findings|\.ci)/[\w./]*)`", page)
    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []
    environments = re.findall(r"tox run -e ([\w,]+)", page)
    assert environments
    tox = (ROOT / "tox.ini").read_text()
    assert [name for name in environments if f"[testenv:{name}]" not in tox] == []
