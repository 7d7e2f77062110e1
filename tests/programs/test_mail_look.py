"""How the mails look: rendered in Chromium at two widths, light and dark, and checked as a reader would.

The screenshots are left in .local/mail/screenshots, for looking at.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ops.social import mail
from tests.support.browser import Page, browser

SCREENSHOTS = mail.FOLDER / "screenshots"

# Contrast as in WCAG 2.2 (relative luminance, 1.4.3) of each text against the nearest painted background behind it.
LOOK = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3)
    .map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement, text = node.textContent.trim();
    if (!text || element.closest('[data-part=preheader]')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect(), style = getComputedStyle(element);
    const [a, b] = [light(rgb(style.color)), light(behind(element))].sort((x, y) => y - x);
    texts.push({text, width: box.width, height: box.height, right: box.right, left: box.left,
                size: parseFloat(style.fontSize), contrast: (a + 0.05) / (b + 0.05)});
  }
  const boxes = [...document.querySelectorAll('td, p, a, img, table, h1, h2')]
    .map((e) => [e, e.getBoundingClientRect()]);
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    outside: boxes.filter(([, b]) => b.right > innerWidth + 0.5 || b.left < -0.5)
      .map(([e]) => e.outerHTML.slice(0, 80)),
    texts,
    images: [...document.images].map((i) => ({
      src: i.currentSrc, loaded: i.complete && i.naturalWidth > 0, alt: i.alt,
      width: i.getBoundingClientRect().width, height: i.getBoundingClientRect().height,
    })),
    targets: [...document.querySelectorAll('a.button')].map((a) => a.getBoundingClientRect().height),
    page: rgb(getComputedStyle(document.body).backgroundColor),
    preheader: document.querySelector('[data-part=preheader]').getBoundingClientRect().height,
    headings: [...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName),
    lang: document.documentElement.lang, title: document.title,
    layoutTables: [...document.querySelectorAll('table:not([role])')].length,
    height: document.documentElement.scrollHeight,
  };
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mail")


def look_at(page: Page, shown: mail.Preview, width: int, dark: bool, note: str = "") -> dict[str, Any]:
    page.errors.clear()
    page.look(width=width, dark=dark)
    page.open(shown.html.as_uri())
    page.wait_for("[...document.images].every((image) => image.complete)")
    seen: dict[str, Any] = page.evaluate(LOOK)
    page.look(width=width, height=seen["height"], dark=dark)
    name = f"{shown.html.stem}-{seen['lang']}-{width}-{'dark' if dark else 'light'}{note}.png"
    page.screenshot(SCREENSHOTS / name)
    return {**seen, "png": SCREENSHOTS / name}


@pytest.mark.parametrize(("width", "dark"), [(width, dark) for width in (320, 1024) for dark in (False, True)])
@pytest.mark.parametrize(("kind", "locale"), [("welcome", "en"), ("welcome", "fr"), ("digest", "en"), ("digest", "fr")])
def test_a_mail_fits_its_width_and_every_text_is_legible(
    page: Page, folder: Path, *, kind: mail.Kind, locale: str, width: int, dark: bool
) -> None:
    shown = mail.preview(kind, locale=locale, folder=folder)

    seen = look_at(page, shown, width, dark)

    assert seen["overflow"] <= 0
    assert not seen["outside"]
    assert not page.errors
    assert seen["lang"] == locale
    assert seen["title"] == shown.subject
    # Every text is there, big enough and distinct enough (WCAG 2.2 AA).
    assert len(seen["texts"]) > 10
    for text in seen["texts"]:
        assert text["width"] > 0, text
        assert text["height"] > 0, text
        assert text["size"] >= 12, text
        assert text["contrast"] >= 4.5, text
    # Every picture is, with words for those who do not see it, and in its proportions.
    assert len(seen["images"]) == (3 if kind == "digest" else 0)
    for image in seen["images"]:
        assert image["loaded"], image
        assert image["alt"], image
        assert image["width"] >= 80, image
        assert image["height"] >= 80, image
    assert all(height >= 44 for height in seen["targets"]), "a finger is that wide"
    assert seen["preheader"] == 0
    assert seen["headings"][0] == "H1"
    assert seen["headings"].count("H1") == 1
    assert seen["layoutTables"] == 0, "a layout table is hidden from screen readers"
    assert (sum(seen["page"][:3]) < 120) is dark


@pytest.mark.parametrize("kind", ["welcome", "digest"])
def test_a_screenshot_has_the_mails_colours(page: Page, folder: Path, kind: mail.Kind) -> None:
    seen = look_at(page, mail.preview(kind, locale="en", folder=folder), 1024, dark=False)
    with Image.open(seen["png"]) as opened:
        picture = opened.convert("RGB")
    assert picture.width == 1024
    # The card is white in the middle, the page around it grey, and there is ink on both.
    colours = picture.getcolors(1 << 24)
    assert colours is not None
    by_count = [colour for _, colour in sorted(colours, reverse=True)]
    assert by_count[:2] in ([(255, 255, 255), (242, 243, 247)], [(242, 243, 247), (255, 255, 255)])
    assert len(colours) > 100


def test_a_mail_without_its_pictures_says_what_they_are(page: Page, folder: Path) -> None:
    """Most mail programs load no picture before they are asked to."""
    shown = mail.preview("digest", locale="en", folder=folder)
    for picture in (*folder.glob("*.jpg"), *folder.glob("*.webp")):
        picture.unlink()

    seen = look_at(page, shown, 320, dark=False, note="-no-pictures")

    assert seen["overflow"] <= 0
    assert [image["loaded"] for image in seen["images"]] == [False] * 3
    assert all("picture" in image["alt"].lower() or "video" in image["alt"].lower() for image in seen["images"])
    assert "Maya Chen" in json.dumps(seen["texts"])


def test_a_mail_without_its_style_element_still_has_its_shape(page: Page, folder: Path) -> None:
    """Some mail programs drop the style element: what matters is inline."""
    shown = mail.preview("digest", locale="en", folder=folder)
    html = shown.html.read_text()
    begin, end = html.index("<style>"), html.index("</style>") + len("</style>")
    shown.html.write_text(html[:begin] + html[end:])

    seen = look_at(page, shown, 320, dark=False, note="-no-style")

    assert seen["overflow"] <= 0
    assert all(text["contrast"] >= 4.5 and text["size"] >= 12 for text in seen["texts"])
