"""The languages that mails are written in: one file each in locales/, so adding a language takes one file.

A locale file is TOML. English is the reference: a text missing in another language comes from English, marked as
English, so a language is usable from its first translated line. Plural forms are lists, chosen by the file's own
`plural` expression in gettext's notation (https://www.gnu.org/software/gettext/manual/html_node/Plural-forms.html).
"""

import gettext
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from social.text import Direction, isolated

FALLBACK = "en"
LOCALES = Path(__file__).parent / "locales"

type Text = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Language:
    """One language's texts. `code` is the BCP 47 tag for the mail's lang attribute, `direction` its script's.

    `fallback` has the missing texts; None for English.
    """

    code: str
    direction: Direction
    texts: Mapping[str, Text]
    plural: Callable[[int], int]
    thousands: str
    months: Sequence[str]
    fallback: "Language | None" = None

    def source(self, key: str) -> "Language":
        """The language that has a text named `key`: this one or its fallback."""
        return self if key in self.texts or self.fallback is None else self.fallback.source(key)

    def template(self, key: str, count: int = 1) -> str:
        """The text named `key` with its placeholders; for a list, the plural form for `count`. Raises KeyError."""
        source = self.source(key)
        text = source.texts[key]
        return text if isinstance(text, str) else text[source.plural(count)]

    def text(self, key: str, **values: Any) -> str:
        """The text named `key` with its `{placeholders}` filled.

        Integers follow the language's conventions; words in the other direction are isolated. Raises KeyError for a
        text that English lacks too, or a placeholder without a value.
        """
        source = self.source(key)
        filled = {
            name: source.number(value) if type(value) is int else isolated(str(value), source.direction)
            for name, value in values.items()
        }
        return self.template(key, values.get("count", 1)).format_map(filled)

    def number(self, value: int) -> str:
        return f"{value:,}".replace(",", self.thousands)

    def days(self, first: date, last: date) -> str:
        """A span of days, both included: `16-22 November`, in the language's order and words."""
        return self.template(
            "dates.one_month" if (first.year, first.month) == (last.year, last.month) else "dates.two_months"
        ).format(
            first_day=first.day,
            first_month=self.months[first.month - 1],
            last_day=last.day,
            last_month=self.months[last.month - 1],
        )


def available() -> Sequence[str]:
    """The languages with a locale file."""
    return sorted(path.stem for path in LOCALES.glob("*.toml"))


def choose(locale: str | None) -> Language:
    """The best language for a user's locale (fr, fr-CA, fr_CA.UTF-8): the whole tag, shorter ones, English."""
    parts = (locale or "").split(".")[0].replace("_", "-").lower().split("-")
    known = set(available())
    for length in range(len(parts), 0, -1):
        tag = "-".join(parts[:length])
        if tag in known:
            return load(tag)
    return load(FALLBACK)


@cache
def load(code: str) -> Language:
    """The language of locales/<code>.toml. Raises FileNotFoundError, or ValueError if the file is invalid."""
    return parse(code, (LOCALES / f"{code}.toml").read_text(encoding="utf-8"))


def parse(code: str, source: str) -> Language:
    """Parses a locale file into a Language that falls back to English. Raises ValueError if it is invalid."""
    content = tomllib.loads(source)
    language = content.pop("language")
    months = content["dates"].pop("months")
    if len(months) != 12 or language["direction"] not in ("ltr", "rtl"):
        raise ValueError(f"locales/{code}.toml: twelve months and a direction of ltr or rtl are needed")
    return Language(
        code=code,
        direction=language["direction"],
        texts={f"{group}.{name}": text for group, entries in content.items() for name, text in entries.items()},
        plural=gettext.c2py(language["plural"]),
        thousands=language["thousands"],
        months=months,
        fallback=None if code == FALLBACK else load(FALLBACK),
    )
