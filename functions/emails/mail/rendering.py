"""Renders a mail: a subject, an HTML part and a text part, in the reader's language.

Pure except for reading its templates. Everything a user wrote (names, posts) goes through words.py and Jinja's
escaping. The HTML is made for what mail programs support (docs/mail.md has the table): separators are text, paddings
and fonts are set on table cells, pictures have their display size.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from mail import words
from mail.languages import Language
from mail.settings import MailSettings
from social.data.posts import Media, Rendition
from social.text import direction, isolated, one_line, shortened

TEMPLATES = Path(__file__).parent / "templates"
SUBJECT_LIMIT = 110
LINE_LIMIT = 900
"""The most bytes of a line in a mail; RFC 5322, 2.1.1 allows 998."""

LEAD = (510, 383)
THUMB = (112, 112)
"""The boxes, in CSS pixels, that the first post's picture and the others' fit into: 510 is what the card's paddings
leave of 600."""

FONT = Markup("font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;")
SHOWN_EVERYWHERE = ("image/jpeg", "image/png", "image/gif")
"""The types that Outlook for Windows shows too; it does not show WebP."""


class TemplateFault(Exception):
    """A template or locale text that cannot be rendered: a bug, so every attempt fails."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A rendered mail: a one-line subject, and the same content as HTML and text."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A file that every mail program shows: its rendition key, and its size in pixels."""

    key: str
    width: int
    height: int

    def within(self, box: tuple[int, int]) -> tuple[int, int]:
        """The display size in CSS pixels: fits the box, keeps its proportions, never enlarged."""
        scale = min(1.0, box[0] / self.width, box[1] / self.height)
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))


@dataclass(frozen=True, slots=True)
class Picture:
    """A post's picture in the two sizes of a mail: full width for the first post, beside the text for others."""

    lead: Image
    thumb: Image
    is_video: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """One post as the digest shows it.

    `author` is a displayable name or empty (words.person_name); `text` is as its author wrote it.
    """

    post_id: str
    author: str
    text: str
    likes: int
    comments: int
    shares: int
    followed: bool
    picture: Picture | None = None


def choose_picture(media: Media | None) -> Picture | None:
    """The picture of a post's `media` that a mail shows, or None if it has none that every program shows.

    The renditions made for mail (mail_lead, mail_square) if there are any, else the one nearest in size.
    """
    if media is None or media.status != "ready":
        return None
    shown = {
        name: one
        for name, one in media.renditions.items()
        if one.content_type in SHOWN_EVERYWHERE and one.width > 0 and one.height > 0
    }
    if not shown:
        return None
    return Picture(
        _image(shown, "mail_lead", 2 * LEAD[0]), _image(shown, "mail_square", 2 * THUMB[0]), media.kind == "video"
    )


def _image(shown: Mapping[str, Rendition], name: str, width: int) -> Image:
    own = next((one for key, one in shown.items() if key.removeprefix("poster_") == name), None)
    best = own or min(shown.values(), key=lambda one: (abs(one.width - width), one.key))
    return Image(best.key, best.width, best.height)


def welcome(language: Language, settings: MailSettings, *, name: str | None, unsubscribe_url: str) -> Mail:
    """Renders the welcome mail. Raises TemplateFault if a template or text is broken."""
    shown = words.person_name(name)
    return _render(
        "welcome",
        language,
        settings,
        subject=("welcome.subject", {"name": shown}) if shown else ("welcome.subject_nameless", {}),
        name=shown,
        unsubscribe_url=unsubscribe_url,
    )


def digest(
    language: Language,
    settings: MailSettings,
    *,
    name: str | None,
    stories: Sequence[Story],
    first_day: date,
    last_day: date,
    unsubscribe_url: str,
) -> Mail:
    """Renders the digest of `stories` (at least one, best first). Raises TemplateFault if a template is broken."""
    stories = [replace(story, author=story.author or _neutral(language)) for story in stories]
    lead, others = stories[0], len(stories) - 1
    return _render(
        "digest",
        language,
        settings,
        subject=("digest.subject" if others else "digest.subject_one", {"author": lead.author, "count": others}),
        name=words.person_name(name),
        preheader=words.excerpt(lead.text, link=""),
        days=lambda: language.source("digest.summary").days(first_day, last_day),
        sections=[
            (heading, [story for story in stories if story.followed is followed])
            for heading, followed in (("digest.followed", True), ("digest.popular", False))
        ],
        count=len(stories),
        lead=lead,
        unsubscribe_url=unsubscribe_url,
    )


def _neutral(language: Language) -> str:
    try:
        return language.text("common.somebody")
    except KeyError as error:
        raise TemplateFault(f"digest in {language.code}: {error}") from error


def _render(
    template: str,
    language: Language,
    settings: MailSettings,
    *,
    subject: tuple[str, Mapping[str, Any]],
    **values: Any,
) -> Mail:
    def plain(key: str, **placeholders: Any) -> str:
        return language.text(key, product=settings.sender_name, **placeholders)

    def marked(key: str, **placeholders: Any) -> Markup:
        return _marked(language, key, product=settings.sender_name, **placeholders)

    def foreign(key: str) -> Markup:
        """The lang and dir attributes for an element with this text, if it is in another language."""
        source = language.source(key)
        return Markup() if source is language else Markup(' lang="{}" dir="{}"').format(source.code, source.direction)

    def excerpt_of(story: Story) -> str:
        if story.followed:
            return words.excerpt_of_friend(story.text)
        return words.excerpt(story.text, link=language.text("common.link"))

    try:
        key, placeholders = subject
        heading = _subject(plain(key, **placeholders))
        shared = {**values, "subject": heading, "plain": plain, "foreign": foreign, "excerpt_of": excerpt_of}
        shared |= {"language": language, "settings": settings, "start": "left", "end": "right"}
        if language.direction == "rtl":
            shared |= {"start": "right", "end": "left"}
        environment = _environment()
        html = environment.get_template(f"{template}.html").render(shared, t=marked)
        text = environment.get_template(f"{template}.txt").render(shared, t=plain)
        return Mail(heading, html=_folded(html), text=text.strip() + "\n")
    except (jinja2.TemplateError, LookupError, ValueError) as error:
        raise TemplateFault(f"{template} in {language.code}: {type(error).__name__}: {error}") from error


def _subject(text: str) -> str:
    cut = shortened(" ".join(text.split()), SUBJECT_LIMIT)
    return cut + "\u2069" * (cut.count("\u2068") - cut.count("\u2069"))


def _marked(language: Language, key: str, **placeholders: Any) -> Markup:
    """A text as HTML: words in the other direction get their own direction, a foreign text its language."""
    source = language.source(key)

    def filled(value: Any) -> Any:
        if type(value) is int:
            return source.number(value)
        shown = words.breakable(str(value))
        if isolated(shown, source.direction) == shown:
            return shown
        return Markup('<span dir="{}">{}</span>').format(direction(shown), shown)

    template = escape(language.template(key, placeholders.get("count", 1)))
    text = template.format(**{name: filled(value) for name, value in placeholders.items()})
    if source is language:
        return text
    return Markup('<span lang="{}" dir="{}">{}</span>').format(source.code, source.direction, text)


def _folded(html: str) -> str:
    """HTML without lines over LINE_LIMIT bytes: breaks lines at spaces, which HTML treats the same."""
    return "\n".join(part for line in html.splitlines() for part in _fold(line))


def _fold(line: str) -> Sequence[str]:
    if len(line) * 4 <= LINE_LIMIT or len(line.encode()) <= LINE_LIMIT:
        return [line]
    parts, size = [[""]], 0
    for word in line.split(" "):
        size += len(word.encode()) + 1
        if size > LINE_LIMIT:
            parts.append([])
            size = len(word.encode())
        parts[-1].append(word)
    return [" ".join(part).removeprefix(" ") for part in parts]


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Callable[..., Any]] = {
        "wrap": _wrapped,
        "initial": _initial,
        "tint": _tint,
        "breakable": words.breakable,
        "runs": _runs,
    }
    environment.filters.update(filters)
    environment.globals.update(FONT=FONT, LEAD=LEAD, THUMB=THUMB)
    return environment


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, 72, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _runs(text: str, language: Language) -> str:
    """The direction of a user's text: its own, or the mail's if it has none."""
    return direction(text) or language.direction


def _initial(name: str) -> str:
    return next((character.upper() for character in one_line(name) if character.isalnum()), "•")


def _tint(name: str) -> str:
    """A colour for an author's initial, the same in every mail; each has white text at a contrast of 4.5 or more."""
    return ("#b4235a", "#6d28d9", "#1d4ed8", "#0f766e", "#a14a09", "#4d5b16")[sum(name.encode()) % 6]
