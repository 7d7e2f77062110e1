"""Accessibility of a page, as axe-core finds it: `make .local/axe/ready` installs it."""

from pathlib import Path
from typing import Any

from tests.support.browser import Page, PageError

AXE = Path(__file__).resolve().parents[2] / ".local" / "axe" / "node_modules" / "axe-core" / "axe.min.js"

# Everything that axe knows, beyond WCAG too, but what asks of a mail or report to be part of a site.
RUN = """axe.run(document, {rules: {region: {enabled: false}, 'landmark-one-main': {enabled: false}}})
  .then((found) => found.violations
    .map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html.slice(0, 120)).join(' | ')}`))"""


def violations(page: Page) -> Any:
    """What axe finds wrong with the page that is open: a line for each rule."""
    if not AXE.is_file():
        raise PageError("the tests of accessibility need axe: `make .local/axe/ready` installs it")
    page.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
    return page.evaluate(RUN)
