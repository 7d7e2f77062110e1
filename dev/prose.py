"""Lints the project's English: pages, comments, docstrings and messages. `make lint` runs it.

proselint has the general checks, `dev/prose.toml` the project's own words. In a Python file it checks comments and
strings, in a page everything except code. A finding names the line and what to write instead.
"""

import re
import subprocess
import sys
import tokenize
import tomllib
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from proselint.checks import __register__ as general
from proselint.registry.checks import Check
from proselint.registry.checks.engine import Fancy
from proselint.registry.checks.types import PreferredForms

ROOT = Path(__file__).parents[1]
WORDS = Path(__file__).with_suffix(".toml")

MARK = "\N{MIDDLE DOT}"
"""Replaces code, so that the words before and after it do not form a phrase."""


class Finding(NamedTuple):
    """A place, and what to change there."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        """As compilers print one."""
        return f"{self.path}:{self.line}: {self.message}"


def of_python(source: str) -> str:
    """The comments and strings of a module, each in its line. A phrase may span lines of a comment or a message."""
    lines = source.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    parts, end = [], 0
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if token.type in {tokenize.COMMENT, tokenize.STRING, tokenize.FSTRING_MIDDLE}:
            start = starts[token.start[0] - 1] + token.start[1]
            parts.append(_blank(source[end:start]))
            end = starts[token.end[0] - 1] + token.end[1]
            text = source[start:end]
            is_name = token.type == tokenize.STRING and not re.search(r"\s", text)
            parts.append(MARK if is_name else text)
    return without_code("".join([*parts, _blank(source[end:])]))


def _blank(code: str) -> str:
    """A mark and the code's line breaks. Without the mark if the code only joins parts of one text."""
    joins = re.fullmatch(r"""[\sfrb"'#]*""", code) is not None
    return (" " if joins else MARK) + "\n" * code.count("\n")


def of_page(page: str) -> str:
    """A page without code blocks, diagrams and the targets of links."""
    page = re.sub(r"(?ms)^( *)```.*?^\1```", lambda block: MARK + "\n" * block[0].count("\n"), page)
    return without_code(re.sub(r"(?<=\])\([^)\s]*\)", MARK, page))


def without_code(text: str) -> str:
    """Text without code in backticks, hash signs and quotation marks; a line keeps its number, not its columns."""
    text = re.sub(r"(?<!`)`[^`\n]+`", MARK, text)
    return re.sub(r"""["# ]+""", " ", text)


def checks(settings: dict[str, Any]) -> list[Check]:
    """proselint's checks without those that the settings leave out, and one for each list of words."""
    kept = [check for check in general if not any(check.matches_partial(name) for name in settings["without"])]
    return kept + [
        Check(
            check_type=PreferredForms(
                {pattern.replace(" ", r"\s+"): advice for pattern, advice in advice_by_pattern.items()}
            ),
            engine=Fancy(),
            path=name,
            message="'{1}': write {0}",
        )
        for name, advice_by_pattern in settings["words"].items()
    ]


def findings(texts: dict[str, str], rules: list[Check]) -> Iterator[Finding]:
    """The findings of the rules in texts by path. The texts are joined: a rule's time depends on calls more than on
    length.
    """
    joined = "".join(f"\n{text}\n{MARK}" for text in texts.values())
    starts = [0, *accumulate(len(text) + 3 for text in texts.values())]
    for rule in rules:
        for result in rule.check_with_flags(joined):
            match = joined[slice(*result.span)]
            if re.search(r"\w$", match) and re.match(r"\w", joined[result.span[1] :][:1]):
                continue  # proselint also matches the beginning of a longer word: "for every"
            start = result.span[0] + len(match) - len(match.lstrip())
            which = bisect(starts, start) - 1
            line = joined.count("\n", starts[which], start)
            yield Finding(list(texts)[which], line, " ".join(result.message.split()))


def prose(path: Path) -> str:
    """The English of a file, by its kind."""
    text = path.read_text()
    return {".py": of_python, ".md": of_page}.get(path.suffix, without_code)(text)


def main() -> int:
    """Lint the repository's files."""
    settings = tomllib.loads(WORDS.read_text())
    listed = subprocess.run(
        ["git", "ls-files", *settings["files"]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    texts = {path: prose(ROOT / path) for path in listed.stdout.splitlines() if (ROOT / path).exists()}
    found = sorted(set(findings(texts, checks(settings))))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
