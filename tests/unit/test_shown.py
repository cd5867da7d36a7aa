"""Text of others, in errors and logs: fit to be shown, and still what it was."""

from __future__ import annotations

import logging
import traceback
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore import CryptoStoreError
from cryptostore.logs import logger
from cryptostore.shown import shown
from hostile_text import FORGED, HOSTILE, WORST, raw_in

LOG: Final = logger("cryptostore.tests.shown")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_escaped(text: str) -> None:
    assert raw_in(shown(text)) == []


@pytest.mark.parametrize("text", ["", "@bob:example.org", "naïve Ω 日本 👩", "C:\\keys [1] :x: 'q'", "{}%s"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_it_is_said_what_was_there() -> None:
    assert shown("!r\x1b[2J\n:x\ud800é\u202e\u3164") == "!r\\x1b[2J\\n:x\\ud800é\\u202e\\u3164"


@given(st.text(st.characters()))
def test_no_text_is_too_odd(text: str) -> None:
    once = shown(text)
    assert raw_in(once) == []
    assert shown(once) == once
    once.encode()


class Odd:
    """Something that is no text, and is shown by what it says of itself."""

    def __str__(self) -> str:
        return WORST


@pytest.mark.parametrize("argument", [*HOSTILE.values(), Odd(), CryptoStoreError(WORST), ValueError(WORST), [WORST]])
def test_a_log_line_is_one_line(argument: object, caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("met %s", argument)
    assert raw_in(caplog.records[-1].getMessage()) == []


def test_a_log_line_keeps_its_template_and_its_numbers(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("met %d of %.1f, %s", 3, 4.25, None)
    LOG.warning("100% met")
    LOG.warning("met %(who)s %(often)d times", {"who": WORST, "often": 2})
    record, plain, named = caplog.records
    assert (record.msg, record.getMessage()) == ("met %d of %.1f, %s", "met 3 of 4.2, None")
    assert plain.getMessage() == "100% met"
    assert named.getMessage() == f"met {shown(WORST)} 2 times"


def test_a_traceback_in_a_log_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(WORST)
    except ValueError:
        LOG.exception("met %s", "an error")
    formatted = logging.Formatter("%(levelname)s:%(name)s:%(message)s").format(caplog.records[-1])
    assert formatted.startswith(f"ERROR:{LOG.name}:met an error\n")
    assert "test_shown.py" in formatted
    assert FORGED in formatted
    assert raw_in(formatted, lines=True) == []


def test_a_logger_is_made_once(caplog: pytest.LogCaptureFixture) -> None:
    assert logger(LOG.name) is LOG
    assert len(LOG.filters) == 1


def test_what_python_shows_of_an_error_is_escaped() -> None:
    shown_by_python = "".join(traceback.format_exception(CryptoStoreError(WORST)))
    assert raw_in(shown_by_python, lines=True) == []
