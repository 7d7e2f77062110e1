"""Builds the docs site into a folder: `python -m dev.site .local/site`. `make docs` runs it.

Fails on Sphinx's warnings, on broken links, and on anything that a page would load from another host.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.cmd.build import build_main

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "docs/site"
COMMANDS = SETTINGS / "reference/cli.md"

LOADED = {"audio", "embed", "iframe", "img", "input", "link", "script", "source", "track", "video"}
"""Elements whose `src` or `href` a browser fetches with the page."""


class Page(HTMLParser):
    """A page's links, the addresses that it loads, and the ids that links can point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.ids = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element's id and addresses."""
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        addresses = {given[name] for name in ("src", "href") if name in given}
        if tag in LOADED:
            self.loaded |= addresses
        elif tag == "a":
            self.links |= addresses


def faults(site: Path) -> Iterator[str]:
    """Broken links, and addresses that are loaded from another host, each with its page."""
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html") if "_static" not in path.parts}
    for path, page in sorted(pages.items()):
        where = path.relative_to(site)
        for address in sorted(page.loaded | page.links):
            parts = urlsplit(address)
            if parts.netloc:
                if address in page.loaded:
                    yield f"{where}: loads {address}"
            elif parts.scheme not in {"mailto", "data"}:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                if not target.exists():
                    yield f"{where}: {address} does not exist"
                elif target in pages and unquote(parts.fragment) not in pages[target].ids:
                    yield f"{where}: {address} has no such heading"
    for sheet in sorted(site.rglob("*.css")):
        for address in re.findall(r"""(?:url\(|@import )["']?((?:https?:)?//[^"')]+)""", sheet.read_text()):
            yield f"{sheet.relative_to(site)}: loads {address}"


def main(folder: Path) -> int:
    """Write the page of the commands, build the site, check it."""
    docs = ["ops.main", "utils", "docs", "--name", "nexus", "--title", "The nexus command"]
    made = subprocess.run([sys.executable, "-m", "typer", *docs], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    COMMANDS.write_bytes(made.stdout)
    shutil.rmtree(folder, ignore_errors=True)  # pages whose source is no longer there
    options = ["-q", "-a", "-W", "--keep-going", "-j", "2", "-b", "html"]
    status = build_main([*options, "-c", str(SETTINGS), "-d", f"{folder}-doctrees", str(ROOT), str(folder)])
    found = list(faults(folder))
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return status or bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
