"""What is wrong with the runtime and known: a pattern of the violation, and a seed that shows it.

A fault leaves this table together with its cause: a strict xfail fails when its seed shows it no more.
"""

import re
from collections.abc import Iterable, Mapping

KNOWN: Mapping[str, int] = {
    r"is FAILURE and still listed as live": 7585,
    r"^unique/\S+ is still held by": 4391,
}


def unknown(found: Iterable[str]) -> list[str]:
    """Those of the violations that no pattern knows."""
    return [text for text in found if not any(re.search(pattern, text) for pattern in KNOWN)]
