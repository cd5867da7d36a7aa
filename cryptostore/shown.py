"""Text of others, fit to be shown: on a terminal, in a line of a log, in an error.

Ids, display names, owners and what servers answer are chosen by strangers, who could otherwise steer a terminal, forge
a line of a log, or make one id look like another. What takes markup is told to take none; here is all the rest.
"""

from __future__ import annotations

import re
from typing import Final

#: Letters and marks by their category, and not seen: Unicode ignores them by default.
_UNSEEN: Final = re.compile(
    "[\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180d\\u180f\\u3164\\ufe00-\\ufe0f\\uffa0\\U000e0100-\\U000e01ef]"
)


def shown(text: str) -> str:
    """`text` in one line, with everything escaped that is not seen or changes how the rest is seen.

    That is controls, line ends, bidirectional overrides and marks, and characters without a width. What this function
    returned stays as it is.
    """
    if text.isprintable() and _UNSEEN.search(text) is None:
        return text
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    seen = char.isprintable() and _UNSEEN.match(char) is None
    return char if seen else char.encode("unicode_escape").decode()
