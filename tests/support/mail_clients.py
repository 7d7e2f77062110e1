"""Mail programs and what they remove from a mail: facts from caniemail.com as of CHECKED.

Only what matters to our mails is in the table; faulty support counts as none. `as_seen_in` returns the remaining HTML,
for Chromium to lay out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser

CHECKED = "2026-06-29"
"""The date of caniemail's data with which the table was last compared."""

MARGIN_INLINE = frozenset({"margin-inline", "margin-inline-start", "margin-inline-end", "padding-inline"})
WRAPPING = frozenset({"overflow-wrap", "word-wrap"})
FITTING = frozenset({"object-fit", "object-position", "aspect-ratio"})
VOID = frozenset({"br", "hr", "img", "meta", "link", "input", "source", "wbr"})


@dataclass(frozen=True, slots=True)
class Client:
    """A mail program and what it drops.

    `properties` are dropped everywhere, `on` by the tag that they are dropped from ("" for all but table cells).
    `style_element`, `media` and `dark` say whether it has the style element, media queries, and
    prefers-color-scheme. `root` whether the html and body elements are the mail's own. `conditional` whether it reads
    Outlook's comments. `tags` lose their tag and keep their content; `attributes` are dropped everywhere.
    """

    name: str
    properties: frozenset[str] = frozenset()
    on: Mapping[str, frozenset[str]] = field(default_factory=dict)
    style_element: bool = True
    media: bool = True
    dark: bool = False
    root: bool = True
    conditional: bool = False
    tags: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    widths: tuple[int, ...] = (320, 600, 1200)


_PICTURE = frozenset({"picture", "source", "bdi"})
_GMAIL = MARGIN_INLINE | WRAPPING | FITTING

CLIENTS = (
    Client("Gmail, web", _GMAIL - {"object-fit"}, root=False, tags=_PICTURE),
    Client("Gmail, app", _GMAIL, root=False, tags=_PICTURE),
    Client("Gmail, app with a foreign account", _GMAIL, style_element=False, root=False, tags=_PICTURE),
    Client(
        "Outlook, Windows",
        MARGIN_INLINE
        | WRAPPING
        | FITTING
        | {"word-break", "border-radius", "opacity", "overflow", "outline", "display"},
        on={
            "": frozenset({"padding", "width", "height"}),
            "img": frozenset({"max-width", "width", "height"}),
            "div": frozenset({"max-width"}),
            "a": frozenset({"max-width", "margin"}),
            "span": frozenset({"margin"}),
            "body": frozenset({"margin"}),
        },
        media=False,
        conditional=True,
        tags=_PICTURE,
        widths=(616, 1200),  # a program of the desktop; 600 and the 8 px around a page whose body keeps its margin
    ),
    Client("Outlook, Mac", MARGIN_INLINE | WRAPPING | {"aspect-ratio"}, dark=True, tags=_PICTURE),
    Client("Outlook, web", MARGIN_INLINE | WRAPPING | {"aspect-ratio"}, dark=True, root=False, tags=_PICTURE),
    Client("Apple Mail", dark=True),
    Client(
        "Yahoo",
        MARGIN_INLINE | WRAPPING | FITTING | {"word-break"},
        root=False,
        tags=_PICTURE,
        attributes=frozenset({"aria-label", "aria-hidden", "srcset"}),
    ),
    Client("Samsung", frozenset({"aspect-ratio"}), dark=True),
)


def as_seen_in(client: Client, html: str) -> str:
    """The HTML of a mail as the program renders it."""
    rewriter = _Rewriter(client)
    if client.conditional:
        html = re.sub(r"(?s)<!--\[if mso\]>(.*?)<!\[endif\]-->", r"\1", html)
    rewriter.feed(html)
    rewriter.close()
    return "".join(rewriter.out)


class _Rewriter(HTMLParser):
    def __init__(self, client: Client) -> None:
        super().__init__(convert_charrefs=False)
        self.client, self.out = client, list[str]()
        self._in_style = False

    def handle_decl(self, decl: str) -> None:
        self.out.append(f"<!{decl}>")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "style":
            self._in_style = True
            return
        if tag in self.client.tags:
            return
        if tag in ("html", "body") and not self.client.root:
            attrs = []
        kept = [(name, value) for name, value in attrs if name not in self.client.attributes]
        written = "".join(f' {name}="{escape(self._value(tag, name, value))}"' for name, value in kept)
        self.out.append(f"<{tag}{written}>")

    def _value(self, tag: str, name: str, value: str | None) -> str:
        if name != "style":
            return value or ""
        kept = []
        for declaration in filter(None, map(str.strip, (value or "").split(";"))):
            prop, _, given = declaration.partition(":")
            if self.client.conditional and prop == "mso-padding-alt":
                prop = "padding"
            elif self._lacks(tag, prop, given.strip()):
                continue
            kept.append(f"{prop}:{given}")
        return ";".join(kept)

    def _lacks(self, tag: str, prop: str, given: str) -> bool:
        if prop in self.client.properties:
            return not (prop == "display" and given == "none")  # which Outlook for Windows has
        cell = tag in ("td", "th", "table")
        group = prop.split("-", maxsplit=1)[0] if prop.startswith(("padding", "margin")) else prop
        return group in self.client.on.get(tag, ()) or (not cell and group in self.client.on.get("", ()))

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._in_style = False
        elif tag not in self.client.tags and tag not in VOID:
            self.out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._style(data)
        else:
            self.out.append(data)

    def _style(self, css: str) -> None:
        if not self.client.style_element:
            return
        if not self.client.media:
            css = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", css)
        if not self.client.dark:
            css = css.replace("(prefers-color-scheme: dark)", "not all")
        for prop in self.client.properties:
            css = re.sub(rf"(?<![\w-]){prop}\s*:[^;}}]*;?", "", css)
        self.out.append(f"<style>{css}</style>")

    def handle_entityref(self, name: str) -> None:
        self.out.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.out.append(f"&#{name};")
