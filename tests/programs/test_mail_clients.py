"""Each mail, in each language, for odd readers and weeks, as each mail program shows it.

The programs are in tests/support/mail_clients.py. A mail is laid out in Chromium without what the program lacks, at
each width, with and without pictures, in dark colours where the program has them. One picture of each is left in
.local/mail/screenshots.
"""

import json
from collections.abc import Iterator
from itertools import batched
from pathlib import Path

import pytest

from mail.languages import available, load
from ops.social import mail
from tests.support.browser import Page, browser
from tests.support.mail_clients import CHECKED, CLIENTS, Client, as_seen_in
from tests.unit.emails.odd_readers import NAMES, digests, welcomes

SCREENSHOTS = mail.FOLDER / "screenshots"
MAILS = {"welcome": welcomes, "digest": digests}

# Lays out documents in one frame after the other and returns the faults of each.
LAYOUT = """(async (documents, widths, styled) => {
  const frame = document.createElement('iframe');
  frame.style.cssText = 'border:0; height:900px; position:absolute; left:0; top:0';
  document.body.replaceChildren(frame);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3)
    .map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const problems = [];
  for (const [number, source] of documents.entries()) {
    const page = frame.contentDocument, view = frame.contentWindow;
    const wrong = (what) => problems.push(`${number}: ${what}`);
    page.open(); page.write(source); page.close();
    const loaded = (image) => image.complete || new Promise((done) => { image.onload = image.onerror = done; });
    await Promise.all([...page.images].map(loaded));
    const style = (e) => view.getComputedStyle(e);
    const block = (e) => (style(e).display === 'inline' ? block(e.parentElement) : e);
    const behind = (e) => {
      for (; e; e = e.parentElement) {
        const colour = rgb(style(e).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) return colour;
      }
      return [255, 255, 255];
    };
    const fits = (width, when) => {
      frame.style.width = `${width}px`;
      const over = page.documentElement.scrollWidth - width;
      if (over > 0) wrong(`${over} px too wide at ${width}${when}`);
      for (const image of page.images) {
        const box = image.getBoundingClientRect();
        if (box.right > width + 1 || box.left < -1) wrong(`${image.src} outside at ${width}${when}`);
        if (!image.naturalWidth) continue;
        const [shown, own] = [box.width / box.height, image.naturalWidth / image.naturalHeight];
        if (Math.abs(shown / own - 1) > 0.05) wrong(`${image.src} is distorted: ${box.width} x ${box.height}`);
        if (box.height > 384) wrong(`${image.src} is ${box.height} px high`);
        if (box.width < 10) wrong(`${image.src} is ${box.width} px wide`);
      }
    };
    for (const width of widths) fits(width, '');
    const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
    let before = null, apart = true;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const text = node.textContent.replaceAll('\\u200b', '');
      if (!text.trim()) { apart ||= text.length > 0; continue; }
      if (node.parentElement.closest('[data-part=preheader], style, title')) continue;
      const [end, start] = [before?.textContent ?? '', text];
      const letters = /[\\p{L}\\p{N}]$/u.test(end) && /^[\\p{L}\\p{N}]/u.test(start);
      const spaceless = /[\\p{sc=Han}\\p{sc=Hira}\\p{sc=Kana}]/u.test(end.slice(-1) + start.slice(0, 1));
      if (before && !apart && letters && !spaceless && block(before.parentElement) === block(node.parentElement))
        wrong(`glued: ${end.slice(-20)}|${start.slice(0, 20)}`);
      before = node; apart = false;
      if (styled) {
        const [a, b] = [light(rgb(style(node.parentElement).color)), light(behind(node.parentElement))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) wrong(`contrast ${ratio.toFixed(2)}: ${text.trim().slice(0, 30)}`);
      }
      if (styled && parseFloat(style(node.parentElement).fontSize) < 12) wrong(`small: ${text}`);
    }
    const article = page.querySelector('[role=article]');
    if (!article.lang || !article.dir) wrong('no language or direction');
    if (style(article).direction !== article.dir) wrong(`runs ${style(article).direction}`);
    for (const cell of page.querySelectorAll('td'))
      if (styled && cell.innerText.trim() && !style(cell).fontFamily.includes('Arial'))
        wrong(`font: ${cell.innerText.slice(0, 30)}`);
    for (const image of page.images) image.src = 'blocked:';
    for (const width of widths) fits(width, ', pictures blocked');
  }
  return problems;
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("chromium")
    (folder / "empty.html").write_text("<!doctype html><body></body>")
    with browser(folder / "profile") as opened:
        opened.open((folder / "empty.html").as_uri())
        yield opened


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("mail")
    return {
        f"{kind} in {code}": [mail.html for mail in make(load(code), folder)]
        for kind, make in MAILS.items()
        for code in available()
    }


def laid_out(page: Page, client: Client, mails: list[str], *, styled: bool = True) -> list[str]:
    seen = [as_seen_in(client, html) for html in mails]
    found: list[str] = []
    for some in batched(seen, 16, strict=False):
        arguments = ", ".join(map(json.dumps, (some, client.widths, styled)))
        found += page.evaluate(f"{LAYOUT}({arguments})")
    return found


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_mail_keeps_its_layout_in_each_mail_program(
    page: Page, rendered: dict[str, list[str]], client: Client
) -> None:
    page.look(width=1280)
    found = {name: laid_out(page, client, mails) for name, mails in rendered.items()}
    assert {name: problems for name, problems in found.items() if problems} == {}

    page.evaluate(f"{LAYOUT}({json.dumps([as_seen_in(client, rendered['digest in en'][27])])}, [640], false)")
    page.evaluate("document.querySelector('iframe').style.height = '2400px'")
    page.screenshot(SCREENSHOTS / f"client-{client.name.lower().replace(', ', '-').replace(' ', '-')}.png")


@pytest.mark.parametrize("client", [client for client in CLIENTS if client.dark], ids=lambda client: client.name)
def test_a_mail_keeps_its_layout_in_each_programs_dark_mode(
    page: Page, rendered: dict[str, list[str]], client: Client
) -> None:
    page.look(width=1280, dark=True)
    found = {name: laid_out(page, client, mails[:6]) for name, mails in rendered.items()}
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_a_mail_reads_without_any_style(page: Page, rendered: dict[str, list[str]]) -> None:
    """As a program that takes all of it away, or a reader who prints it, has it."""
    page.look(width=1280)
    bare = Client("none", style_element=False, attributes=frozenset({"style", "bgcolor"}), widths=(616, 1200))
    found = {name: laid_out(page, bare, mails, styled=False) for name, mails in rendered.items()}
    assert {name: problems for name, problems in found.items() if problems} == {}


SOUND = '<div role="article" lang="en" dir="ltr" style="font-family:Arial">{}</div>'


@pytest.mark.parametrize(
    ("broken", "client", "problem"),
    [
        ('<span style="margin-inline-end:9px">1 like</span><span>2 shares</span>', "Gmail, web", "glued"),
        (f'<p style="overflow-wrap:anywhere">{"x" * 300}</p>', "Outlook, web", "too wide"),
        (f'<p style="word-break:break-word">{"x" * 300}</p>', "Yahoo", "too wide"),
        ('<img src="tall.jpg" style="width:112px; height:112px; object-fit:cover">', "Yahoo", "distorted"),
        ('<img src="tall.jpg" width="510" style="width:100%; max-width:510px">', "Gmail, app", "px high"),
        ('<img src="wide.jpg" width="510" height="383" style="height:auto">', "Outlook, Windows", "distorted"),
        ('<p style="color:#999; background:#fff">pale</p>', "Apple Mail", "contrast"),
        ('<table><tr><td style="font-family:serif">x</td></tr></table>', "Samsung", "font"),
        ('<p style="font-size:11px">x</p>', "Samsung", "small"),
    ],
)
def test_the_layout_check_finds_each_known_fault(
    page: Page, tmp_path: Path, broken: str, client: str, problem: str
) -> None:
    """Each fault that our mails had, in the program that shows it."""
    next(digests(load("en"), tmp_path))
    (seen_in,) = [one for one in CLIENTS if one.name == client]
    html = SOUND.format(broken.replace('src="', f'src="{tmp_path.as_uri()}/'))
    found = laid_out(page, seen_in, [f"<!doctype html><html><body>{html}</body></html>"])
    assert any(problem in one for one in found), found


def test_the_docs_list_every_mail_program_that_is_checked(page: Page) -> None:
    text = Path("docs/mail.md").read_text()
    assert CHECKED in text
    for client in CLIENTS:
        assert f"| {client.name} |" in text
    assert len(NAMES) > 30
