"""The languages that mails are written in: one file each in locales/, so a translator adds a language with one file.

A locale file is TOML. English is the reference: a text that another language lacks comes from English, so a language
is usable from its first translated line. Plural forms are lists, chosen by the file's own `plural` expression in
gettext's notation (https://www.gnu.org/software/gettext/manual/html_node/Plural-forms.html).
"""

import gettext
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

FALLBACK = "en"
LOCALES = Path(__file__).parent / "locales"

type Text = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Language:
    """One language's texts. `code` is the BCP 47 tag for the mail's lang attribute, `direction` is ltr or rtl."""

    code: str
    direction: Literal["ltr", "rtl"]
    texts: Mapping[str, Text]
    plural: Callable[[int], int]
    thousands: str
    months: Sequence[str]

    def text(self, key: str, **values: Any) -> str:
        """The text named `key` with its `{placeholders}` filled; of a list, the plural form for `count`.

        Whole numbers are written the language's way. Raises KeyError for a text that English lacks too, or for a
        placeholder without a value.
        """
        text = self.texts[key]
        if not isinstance(text, str):
            text = text[self.plural(values["count"])]
        return text.format_map(
            {name: self.number(value) if type(value) is int else value for name, value in values.items()}
        )

    def number(self, value: int) -> str:
        return f"{value:,}".replace(",", self.thousands)

    def days(self, first: date, last: date) -> str:
        """A span of days, both included: `16-22 November`, in the language's own order and words."""
        return self.text(
            "dates.one_month" if (first.year, first.month) == (last.year, last.month) else "dates.two_months",
            first_day=str(first.day),
            first_month=self.months[first.month - 1],
            last_day=str(last.day),
            last_month=self.months[last.month - 1],
        )


def available() -> Sequence[str]:
    """The languages there is a file for."""
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
    """The language of locales/<code>.toml. Raises FileNotFoundError, or ValueError for a file that is not one."""
    return parse(code, (LOCALES / f"{code}.toml").read_text(encoding="utf-8"))


def parse(code: str, source: str) -> Language:
    """A locale file's content as a Language, with English beneath it."""
    content = tomllib.loads(source)
    language = content.pop("language")
    months = content["dates"].pop("months")
    if len(months) != 12 or language["direction"] not in ("ltr", "rtl"):
        raise ValueError(f"locales/{code}.toml: twelve months and a direction of ltr or rtl are needed")
    texts = {f"{group}.{name}": text for group, entries in content.items() for name, text in entries.items()}
    beneath = {} if code == FALLBACK else load(FALLBACK).texts
    # A plural list of English has English's number of forms, which this language's rule would overrun.
    beneath = {key: text if isinstance(text, str) else text[-1] for key, text in beneath.items()}
    return Language(
        code=code,
        direction=language["direction"],
        texts={**beneath, **texts},
        plural=gettext.c2py(language["plural"]),
        thousands=language["thousands"],
        months=months,
    )
