"""The browser that other tests use."""

import os
from contextlib import ExitStack
from pathlib import Path

from tests.support.browser import browser

LAST = 62
"""The highest descriptor before its pipes: they once were moved by way of 63 and 64, which may be theirs."""


def test_the_browser_starts_whatever_descriptors_its_pipes_have(tmp_path: Path) -> None:
    for free in range(LAST - 3, LAST + 1):
        with ExitStack() as opened:
            while (number := os.open(os.devnull, os.O_RDONLY)) < free:
                opened.callback(os.close, number)
            os.close(number)
            with browser(tmp_path / str(free)) as page:
                assert page.send("Browser.getVersion")["product"]
