"""Writes the tables of docs/benchmarks.md, and one of docs/mail.md, from the run that measured them.

A table is between two comments, `<!-- table NAME -->` and `<!-- end of NAME -->`. A benchmark prints its tables;
with `NEXUS_WRITE_TABLE=1` it also replaces those in the page.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
MAIL = ROOT / "docs" / "mail.md"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every row has a cell for each heading."""
    lines = [header, ["---"] * len(header), *rows]
    assert all(len(line) == len(header) for line in lines), lines
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(name: str, table: str, page: Path = PAGE) -> None:
    """Prints a table, and replaces it in the page if `NEXUS_WRITE_TABLE` is set.

    Raises:
        ValueError: the page has no table of that name, or more than one.
    """
    print(f"\n{table}")
    if os.environ.get("NEXUS_WRITE_TABLE"):
        page.write_text(replaced(page.read_text(), name, table))


def replaced(text: str, name: str, table: str) -> str:
    """The page's text with the table `name` replaced; raises the errors of `show`."""
    begin, end = f"<!-- table {name} -->", f"<!-- end of {name} -->"
    place = re.compile(rf"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    new, count = place.subn(lambda _: f"{begin}\n\n{table}\n\n{end}", text)
    if count != 1:
        raise ValueError(f"expected one place for the table {name}, found {count}")
    return new
