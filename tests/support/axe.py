"""Checks a page's accessibility with axe-core, which `make .local/axe/ready` installs."""

from pathlib import Path
from typing import Any

from tests.support.browser import Page, PageError

AXE = Path(__file__).resolve().parents[2] / ".local" / "axe" / "node_modules" / "axe-core" / "axe.min.js"

# All of axe's rules, beyond WCAG too, except those that expect a mail or report to be part of a site.
RUN = """axe.run(document, {rules: {region: {enabled: false}, 'landmark-one-main': {enabled: false}}})
  .then((found) => found.violations
    .map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html.slice(0, 120)).join(' | ')}`))"""


def violations(page: Page) -> Any:
    """axe's violations on the open page, one line for each rule."""
    if not AXE.is_file():
        raise PageError("the tests of accessibility need axe: `make .local/axe/ready` installs it")
    page.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
    return page.evaluate(RUN)
