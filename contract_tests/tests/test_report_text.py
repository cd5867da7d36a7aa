"""What servers and plugins say of themselves steers neither a terminal nor the page of a report."""

from __future__ import annotations

from cryptostore_contract.observed import Observed
from cryptostore_contract.report import document, markdown, terminal_lines
from hostile_text import WORST, raw_in

HOSTILE = [Observed(f"Test{WORST}", server=WORST)]


def test_the_terminal() -> None:
    assert raw_in("\n".join(terminal_lines(HOSTILE, narrowed=False)), lines=True) == []


def test_the_page() -> None:
    page = markdown(document(HOSTILE))
    assert raw_in(page, lines=True) == []
    assert "all is lost" in page
