"""The tables of docs/benchmarks.md and docs/mail.md: each has one place, and one benchmark that writes it."""

import re
from pathlib import Path

import pytest

from bench import tables


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = "above\n<!-- table a -->\n\nold\n\n<!-- end of a -->\nbetween\n<!-- table b -->\nb\n<!-- end of b -->\n"
    table = tables.markdown(["way", "ms"], [["ours", "1"]])
    assert tables.replaced(page, "a", table) == page.replace("old", "| way | ms |\n| --- | --- |\n| ours | 1 |")


@pytest.mark.parametrize("page", ["", "<!-- table a -->\n<!-- end of a -->\n" * 2])
def test_a_table_without_its_own_place_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="the table a"):
        tables.replaced(page, "a", "")


def test_printing_does_not_change_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NEXUS_WRITE_TABLE", raising=False)
    page = tmp_path / "page.md"
    page.write_text("<!-- table a -->\n<!-- end of a -->")
    tables.show("a", "new", page)
    assert "new" not in page.read_text()
    monkeypatch.setenv("NEXUS_WRITE_TABLE", "1")
    tables.show("a", "new", page)
    assert "new" in page.read_text()
    assert capsys.readouterr().out.count("new") == 2


def test_each_place_on_the_page_is_written_by_a_benchmark() -> None:
    pages = "".join(page.read_text() for page in (tables.PAGE, tables.MAIL))
    places = re.findall(r"<!-- table ([\w-]+) -->", pages)
    sources = "".join(path.read_text() for path in (tables.ROOT / "bench").rglob("*.py"))
    written = re.findall(r"\bshow\(\s*\"([\w-]+)\"", sources)
    assert sorted(places) == sorted(written)
