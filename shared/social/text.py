"""Makes users' texts safe to quote in a mail, a subject or a report: clean, on one line, cut between words.

Pure; uses only the standard library's Unicode data. The terms are Unicode's: format characters (Cf), grapheme clusters
(UAX #29), strong directions (UAX #9).
"""

import re
import unicodedata
from typing import Literal

Direction = Literal["ltr", "rtl"]

JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner: they spell words in Persian and Indic scripts, and combine emoji."""

_MARKS_IN_A_ROW = 6
"""More marks on one letter than any script uses; a stack of them covers the lines above and below."""

_MARKS = frozenset({"Mn", "Me"})
"""The categories of marks on or around a letter. Those around one (Me) and vowel signs have no combining class."""

_PAST_LATIN = re.compile("[\u0300-\U0010ffff]")
"""Every mark is among these characters; most texts have none of them, and searching costs a twentieth of asking."""

_PREPENDED = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters that are visible: signs that enclose a number."""

_BEFORE = frozenset(
    "\u0d4e\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85\U00011a86\U00011a87\U00011a88\U00011a89"
    "\U00011d46\U00011f02"
)
"""Letters that belong to the next one (Grapheme_Cluster_Break=Prepend)."""

_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters and a symbol that are invisible: the Hangul fillers and the empty Braille cell."""

_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f)|[\U000e0000-\U000e007f]")
"""The flags of regions such as Scotland, spelt in tag characters; anywhere else those are invisible text."""


class _Kept(dict[int, str]):
    """A table for str.translate: the replacement of a character, determined on first use."""

    def __missing__(self, code: int) -> str:
        self[code] = kept = _kept(chr(code))
        return kept


def _kept(character: str) -> str:
    code = ord(character)
    if character.isspace():
        return " "
    if character in JOINERS or character in _PREPENDED or 0xE0000 <= code <= 0xE007F:
        return character
    noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF  # XML and SQS refuse these
    return "" if noncharacter or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs") else character


_KEPT = _Kept()


def one_line(text: str) -> str:
    """The text on one line, with single spaces, without invisible characters or direction changes.

    Removes control characters, format characters (bidirectional controls, soft hyphens, zero width spaces) except
    joiners, flags and visible signs, private use, lone surrogates, and more stacked marks than any script uses.
    """
    kept = _TAGS.sub(lambda match: match[1] or "", text.translate(_KEPT))
    return " ".join(_without_piles(kept).split())


def _without_piles(text: str) -> str:
    if not _PAST_LATIN.search(text) or _MARKS.isdisjoint(map(unicodedata.category, text)):
        return text
    kept, marks = [], 0
    for character in text:
        if character not in JOINERS:  # marks on both sides of one are on the same letter
            marks = marks + 1 if unicodedata.category(character) in _MARKS else 0
        if marks <= _MARKS_IN_A_ROW:
            kept.append(character)
    return "".join(kept)


def is_blank(text: str) -> bool:
    """Whether a text is invisible to a reader."""
    return all(character in _BLANK or unicodedata.category(character)[0] not in "LNSP" for character in text)


def shortened(text: str, limit: int) -> str:
    """The text in at most `limit` code points: cut at the end of a word if possible, else between two graphemes.

    A cut text ends in an ellipsis. No combining sequence, flag or emoji is split.
    """
    if len(text) <= limit:
        return text
    space = text.rfind(" ", limit // 2, limit)
    at = space if space > 0 else _boundary(text, limit - 1)
    return text[:at].rstrip(" ,;:.-\u2013\u2014" + JOINERS) + "…"


def _boundary(text: str, at: int) -> int:
    """The last position up to `at` between two graphemes; `at` itself if the text is a single grapheme."""
    return next((place for place in range(at, 0, -1) if _parts(text, place)), at)


def _parts(text: str, at: int) -> bool:
    """Whether a grapheme ends before text[at] (UAX #29; where its rules are finer, errs on the safe side)."""
    before, after = text[at - 1], text[at]
    if _extends(after) or before in _PREPENDED or before in _BEFORE:
        return False
    if before == JOINERS[1] and (unicodedata.category(after)[0] == "S" or _indian(after)):
        return False  # one emoji of several, or one consonant of two
    if _regional(before) and _regional(after):
        run = at - 1
        while run > 0 and _regional(text[run - 1]):
            run -= 1
        return (at - run) % 2 == 0  # two make a flag
    if unicodedata.combining(before) == 9 and _indian(after):
        return False  # a virama joins two consonants of the scripts of India
    return _hangul(after) not in _JOINED_BY[_hangul(before)]


def _extends(character: str) -> bool:
    return (
        unicodedata.category(character)[0] == "M"
        or character in JOINERS
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"
        or character in "\u0e33\u0eb3\uff9e\uff9f"  # Thai and Lao am, the voicing of narrow katakana
    )


def _indian(character: str) -> bool:
    return "\u0900" <= character <= "\u0d7f" and character.isalpha()


def _regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


_JOINED_BY = {"L": ("L", "V", "LV", "LVT"), "V": ("V", "T"), "LV": ("V", "T"), "T": ("T",), "LVT": ("T",), "": ()}
"""Which part of a Hangul syllable may follow which (UAX #29, GB6 to GB8)."""


def _hangul(character: str) -> str:
    """A leading consonant, vowel or trailing consonant, or a whole syllable of two or three; empty for others."""
    if "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    if "\u1160" <= character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6":
        return "V"
    if "\u11a8" <= character <= "\u11ff" or "\ud7cb" <= character <= "\ud7fb":
        return "T"
    if "\uac00" <= character <= "\ud7a3":
        return "LVT" if (ord(character) - 0xAC00) % 28 else "LV"
    return ""


def direction(text: str) -> Direction | None:
    """The direction of a text, by its first strong character (UAX #9, rule P2); None if it has none."""
    for character in text:
        match unicodedata.bidirectional(character):
            case "L":
                return "ltr"
            case "R" | "AL":
                return "rtl"
    return None


def isolated(text: str, around: Direction) -> str:
    """A text for insertion into another that runs `around`: isolated (UAX #9) if it runs the other way."""
    return f"\u2068{text}\u2069" if direction(text) not in (None, around) else text
