"""The check of the docs site: no link is broken, and nothing is loaded from another host."""

from pathlib import Path

import pytest

from dev.site import faults

OTHER = "https://example.com"


def check(folder: Path, body: str, style: str = "") -> list[str]:
    (folder / "index.html").write_text(f"<h1 id='top'>It</h1>{body}")
    (folder / "other.html").write_text("<p id='here'></p>")
    (folder / "style.css").write_text(style)
    return list(faults(folder))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<a href='missing.html'>", "index.html: missing.html does not exist"),
        ("<a href='other.html#there'>", "index.html: other.html#there has no such heading"),
        ("<a href='#bottom'>", "index.html: #bottom has no such heading"),
        ("<img src='missing.png'>", "index.html: missing.png does not exist"),
        (f"<script src='{OTHER}/a.js'></script>", f"index.html: loads {OTHER}/a.js"),
        ("<link rel='stylesheet' href='//example.com/a.css'>", "index.html: loads //example.com/a.css"),
    ],
)
def test_a_broken_link_or_a_loaded_resource_is_reported(tmp_path: Path, body: str, fault: str) -> None:
    assert check(tmp_path, body) == [fault]


@pytest.mark.parametrize("style", [f"a {{ background: url('{OTHER}/a.png') }}", f'@import "{OTHER}/a.css";'])
def test_style_sheets_are_read(tmp_path: Path, style: str) -> None:
    assert len(check(tmp_path, "", style)) == 1


@pytest.mark.parametrize(
    "body", [f"<a href='{OTHER}'>", "<a href='other.html#here'>", "<a href='#top'>", "<a href='#'>"]
)
def test_other_pages_and_links_to_other_hosts_are_fine(tmp_path: Path, body: str) -> None:
    assert check(tmp_path, body) == []
