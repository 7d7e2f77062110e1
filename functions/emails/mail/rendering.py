"""Turns what a mail says into what is sent: a subject, an HTML part and a text part, in the reader's language.

Pure but for reading its templates. Everything a user wrote (names, posts) passes through `one_line`, `safe_name` or
`excerpt` and through Jinja's escaping: a mail carries other people's words under our name.
"""

import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jinja2

from mail.languages import Language
from mail.settings import MailSettings
from social.data.posts import Media, Rendition

TEMPLATES = Path(__file__).parent / "templates"
NAME_LIMIT = 40
SUBJECT_LIMIT = 110
EXCERPT_LIMIT = 220
# U+200C and U+200D join letters and emoji; every other format character can only mislead (bidi overrides, blanks).
_JOINERS = "\u200c\u200d"
_LOOKS_LIKE_A_LINK = re.compile(r"://|www\.|[@/\\]|\.[a-z]{2,}", re.IGNORECASE)


class TemplateFault(Exception):
    """A template or a locale's text that cannot be rendered: a fault of ours, the same for every attempt."""


@dataclass(frozen=True, slots=True)
class Mail:
    """What is sent: a subject of one line, and the same content twice."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A post's picture: a JPEG that every mail client shows and, where there is one, a smaller WebP for those that can.

    `key` and `small_key` are the renditions' keys; `width` and `height` are the JPEG's, in pixels.
    """

    key: str
    width: int
    height: int
    small_key: str | None = None
    is_video: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """One post as the digest shows it. `text` is as its author wrote it."""

    post_id: str
    author: str
    text: str
    likes: int
    comments: int
    shares: int
    followed: bool
    picture: Picture | None = None


class _Kept(dict[int, str]):
    """str.translate's table: what a character becomes in a mail, found out when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        misleads = unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs") and character not in _JOINERS
        self[code] = kept = " " if misleads else character
        return kept


_KEPT = _Kept()


def one_line(text: str) -> str:
    """The text without control and misleading format characters, its white space collapsed to single spaces."""
    return " ".join(text.translate(_KEPT).split())


def shortened(text: str, limit: int) -> str:
    """The text cut to at most `limit` characters, at a word's end where there is one, with an ellipsis."""
    if len(text) <= limit:
        return text
    cut = text[: limit - 1]
    at_word = cut.rsplit(" ", 1)[0] if " " in cut[limit // 2 :] else cut
    # A joiner or combining mark at the cut belongs to a character that is not there any more.
    while at_word and (at_word[-1] in _JOINERS or unicodedata.combining(at_word[-1]) or not at_word[-1].isprintable()):
        at_word = at_word[:-1]
    return at_word.rstrip(" ,;:.-\u2013\u2014") + "…"


def safe_name(name: str | None, fallback: str = "") -> str:
    """A person's name for a heading or a subject, or `fallback`.

    A name that reads as a link is not used: signing up a stranger's address under the name `win at evil.example`
    would make our welcome mail carry the message.
    """
    cleaned = one_line(name or "")
    return fallback if not cleaned or _LOOKS_LIKE_A_LINK.search(cleaned) else shortened(cleaned, NAME_LIMIT)


def excerpt(text: str) -> str:
    """A post's text as a mail shows it."""
    return shortened(one_line(text), EXCERPT_LIMIT)


def choose_picture(media: Media | None) -> Picture | None:
    """The picture of a post's `media` that a mail shows, or None.

    A JPEG rendition where there is one (Outlook on Windows shows no WebP), else the picture nearest to 640 px wide.
    """
    if media is None or media.status != "ready":
        return None
    pictures = [one for one in media.renditions.values() if one.content_type.startswith("image/") and one.height > 0]
    if not pictures:
        return None
    near_640 = partial(_distance, 640)
    jpeg = [one for one in pictures if one.content_type == "image/jpeg"]
    webp = [one for one in pictures if one.content_type == "image/webp"]
    best = min(jpeg, key=partial(_distance, 1080)) if jpeg else min(pictures, key=near_640)
    smaller = min(webp, key=near_640) if webp else best
    return Picture(
        key=best.key,
        width=best.width,
        height=best.height,
        small_key=smaller.key if smaller is not best else None,
        is_video=media.kind == "video",
    )


def _distance(width: int, rendition: Rendition) -> tuple[int, int]:
    return abs(rendition.width - width), abs(rendition.height - width)


def welcome(language: Language, settings: MailSettings, *, name: str | None, unsubscribe_url: str) -> Mail:
    """The welcome mail. Raises TemplateFault."""
    shown = safe_name(name)
    return _render(
        "welcome",
        language,
        settings,
        subject_key="welcome.subject" if shown else "welcome.subject_nameless",
        subject_values={"name": shown},
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
    """The digest of `stories` (at least one, best first). Raises TemplateFault."""
    lead = stories[0]
    others = len(stories) - 1
    return _render(
        "digest",
        language,
        settings,
        subject_key="digest.subject" if others else "digest.subject_one",
        subject_values={"author": lead.author, "count": others},
        name=safe_name(name),
        preheader=excerpt(lead.text),
        days=language.days(first_day, last_day),
        sections=[
            (heading, [story for story in stories if story.followed is followed])
            for heading, followed in (("digest.followed", True), ("digest.popular", False))
        ],
        count=len(stories),
        lead=lead,
        unsubscribe_url=unsubscribe_url,
    )


def _render(
    template: str,
    language: Language,
    settings: MailSettings,
    *,
    subject_key: str,
    subject_values: Mapping[str, Any],
    **values: Any,
) -> Mail:
    def text(key: str, **placeholders: Any) -> str:
        return language.text(key, product=settings.sender_name, **placeholders)

    try:
        subject = shortened(one_line(text(subject_key, **subject_values)), SUBJECT_LIMIT)
        context = {**values, "subject": subject, "t": text, "language": language, "settings": settings}
        environment = _environment()
        return Mail(
            subject=subject,
            html=environment.get_template(f"{template}.html").render(context),
            text=environment.get_template(f"{template}.txt").render(context).strip() + "\n",
        )
    except (jinja2.TemplateError, KeyError, IndexError) as error:
        raise TemplateFault(f"{template} in {language.code}: {type(error).__name__}: {error}") from error


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
    environment.filters["excerpt"] = excerpt
    environment.filters["wrap"] = _wrapped
    environment.filters["initial"] = _initial
    environment.filters["tint"] = _tint
    return environment


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, 72, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _initial(name: str) -> str:
    return next((character.upper() for character in name if character.isalnum()), "•")


def _tint(name: str) -> str:
    """A colour for an author's initial, the same in every mail; each has white text at a contrast of 4.5 or more."""
    return ("#b4235a", "#6d28d9", "#1d4ed8", "#0f766e", "#a14a09", "#4d5b16")[sum(name.encode()) % 6]
