"""docs/licences.md lists what is deployed. NEXUS_WRITE_TABLE=1 writes the table; otherwise it is compared."""

import os
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from bench.tables import markdown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- the licences -->", "<!-- the end of the licences -->"
DEPLOYED = {
    "layer": ROOT / "shared" / "requirements.txt",
    "media": ROOT / "functions" / "media" / "requirements.txt",
    "emails": ROOT / "functions" / "emails" / "requirements.txt",
}
# Licences without conditions on the code they are used with. LGPL's and MPL's concern their own files.
FREE = re.compile(r"MIT|Apache|BSD|PSF-2\.0|MPL-2\.0|LGPL")


def licence(package: str) -> str:
    """What a package's metadata says: its SPDX expression, else its classifiers, else its field `License`."""
    found = metadata(package)
    expression = found.get("License-Expression")
    classifiers = [
        line.split(" :: ")[-1] for line in found.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    said: str = expression or ", ".join(classifiers) or found.get("License") or ""
    return said


def packages() -> list[tuple[str, str, str]]:
    """Name, licence and place of each deployed package."""
    return [
        (name, licence(name), place)
        for place, file in DEPLOYED.items()
        for name in re.findall(r"^([\w.-]+)==", file.read_text(), re.MULTILINE)
    ]


def test_the_page_lists_what_is_deployed() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    table = markdown(["package", "licence", "deployed in"], packages())
    if os.environ.get("NEXUS_WRITE_TABLE"):
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    else:
        assert shown.strip() == table


@pytest.mark.parametrize(("name", "terms"), [(name, terms) for name, terms, _ in packages()])
def test_a_deployed_package_permits_any_use(name: str, terms: str) -> None:
    assert FREE.search(terms) or terms == "0BSD", f"{name}: {terms or 'says no licence'}"
