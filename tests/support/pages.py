"""Extracts the documentation's code blocks, so that tests can run what a reader would copy."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its info string, the heading above it, its text and its first line's number."""

    language: str
    words: tuple[str, ...]
    heading: str
    text: str
    line: int

    def compiled(self, page: str) -> CodeType:
        """Its compiled code, with the page's line numbers for tracebacks."""
        return compile("\n" * (self.line - 1) + self.text, str(DOCS / page), "exec")


def tasks_of_the_readme(text: str) -> dict[str, tuple[str, str]]:
    """Each task in the README's table: (queue, when). A row without a queue belongs to the one above it."""
    rows: dict[str, tuple[str, str]] = {}
    queue = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and "`" in cells[1]:
            queue = cells[0].split(" ")[0] or queue
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", cells[1]), (queue, cells[2]))
    return rows


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page of docs/, in order."""
    heading, fence, inside = "", None, list[str]()
    for number, line in enumerate((DOCS / page).read_text().splitlines(), 1):
        if fence is not None:
            if line == "```":
                language, *words = fence[0]
                yield Block(language, tuple(words), heading, "\n".join(inside), fence[1])
                fence, inside = None, []
            else:
                inside.append(line)
        elif opened := re.fullmatch(r"```(\w.*)", line):
            fence = (opened[1].split(), number + 1)
        elif title := re.fullmatch(r"#+ (.*)", line):
            heading = title[1]
