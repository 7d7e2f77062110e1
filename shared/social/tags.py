"""Hashtags: where one begins and ends in a text, and when two are equal.

Follows Unicode's definition (UAX #31, "Hashtag Identifiers"), with this profile of UAX31-R8-2:

    <hashtag> := <start> <continue>* (<medial> <continue>+)*

    start     #, and its small and full-width forms; not after a letter, digit, mark or underscore, nor after "&"
    continue  XID_Continue, Extended_Pictographic, Emoji_Component, "-" and "+", without start characters and "*", and
              without the two pictographs that are punctuation (U+203C, U+2049)
    medial    allowed inside words, not at the end (UAX #31, table 3a): geresh and gershayim, the Armenian hyphen, the
    tsheg

A text is read in NFC, and anything inside a URL (https://e.com/#part) is not a hashtag. A tag is stored in NFKC,
case-folded, without invisible characters: the ignorable ones, and joiners that join nothing. It has at most MAX_LENGTH
characters and at least one letter, number or symbol: a longer one is not a hashtag, and neither is its beginning.

Pure; uses the standard library's Unicode data, except for the table of pictographs, which it lacks.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

MAX_LENGTH = 100
START = "#\ufe5f\uff03"
MEDIAL = "\u058a\u05f3\u05f4\u0f0b"
ZWNJ, ZWJ = "\u200c", "\u200d"
VIRAMA = 9
"""The combining class of the marks that join two consonants of the scripts of India."""

_ADDRESS = re.compile(
    r"""(?: (?<![a-z0-9+.-]) [a-z][a-z0-9+.-]*://           # a scheme
          | (?<!\w) www\.
          | (?<![\w@.-]) (?:[\w-]+\.)+ [^\W\d_]{2,} (?::\d+)? [/?]   # a host, followed by a path or query
        ) [^\s<>"\u3000-\u303f\uff01-\uff65]*""",
    re.IGNORECASE | re.VERBOSE,
)

_PICTOGRAPHS = """
    A9 AE 200D 20E3 2122 2139 2194-2199 21A9-21AA 231A-231B 2328 23CF 23E9-23F3 23F8-23FA 24C2 25AA-25AB 25B6 25C0
    25FB-25FE 2600-2604 260E 2611 2614-2615 2618 261D 2620 2622-2623 2626 262A 262E-262F 2638-263A 2640 2642
    2648-2653 265F-2660 2663 2665-2666 2668 267B 267E-267F 2692-2697 2699 269B-269C 26A0-26A1 26A7 26AA-26AB
    26B0-26B1 26BD-26BE 26C4-26C5 26C8 26CE-26CF 26D1 26D3-26D4 26E9-26EA 26F0-26F5 26F7-26FA 26FD 2702 2705
    2708-270D 270F 2712 2714 2716 271D 2721 2728 2733-2734 2744 2747 274C 274E 2753-2755 2757 2763-2764 2795-2797
    27A1 27B0 27BF 2934-2935 2B05-2B07 2B1B-2B1C 2B50 2B55 3030 303D 3297 3299 FE0F 1F004 1F02C-1F02F 1F094-1F09F
    1F0AF-1F0B0 1F0C0 1F0CF-1F0D0 1F0F6-1F0FF 1F170-1F171 1F17E-1F17F 1F18E 1F191-1F19A 1F1AF-1F1FF 1F201-1F20F
    1F21A 1F22F 1F232-1F23A 1F23C-1F23F 1F249-1F25F 1F266-1F321 1F324-1F393 1F396-1F397 1F399-1F39B 1F39E-1F3F0
    1F3F3-1F3F5 1F3F7-1F4FD 1F4FF-1F53D 1F549-1F54E 1F550-1F567 1F56F-1F570 1F573-1F57A 1F587 1F58A-1F58D 1F590
    1F595-1F596 1F5A4-1F5A5 1F5A8 1F5B1-1F5B2 1F5BC 1F5C2-1F5C4 1F5D1-1F5D3 1F5DC-1F5DE 1F5E1 1F5E3 1F5E8 1F5EF
    1F5F3 1F5FA-1F64F 1F680-1F6C5 1F6CB-1F6D2 1F6D5-1F6E5 1F6E9 1F6EB-1F6F0 1F6F3-1F6FF 1F7DC-1F7F0 1F80C-1F80F
    1F848-1F84F 1F85A-1F85F 1F888-1F88F 1F8AE-1F8AF 1F8BC-1F8BF 1F8C2-1F8CF 1F8D9-1F8FF 1F90C-1F93A 1F93C-1F945
    1F947-1F9FF 1FA58-1FA5F 1FA6E-1FAFF 1FC00-1FFFD E0020-E007F
"""
"""Extended_Pictographic and Emoji_Component (Unicode 17) without #, * and digits, U+203C and U+2049."""

_FIRST, _LAST = zip(
    *((int(part.split("-")[0], 16), int(part.split("-")[-1], 16)) for part in _PICTOGRAPHS.split()), strict=True
)

_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000\U000e0001\U000e0080-\U000e0fff]"
    "|(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0020-\U000e007f]+"
)
"""Default_Ignorable_Code_Point within XID_Continue, and tag characters that are not part of a region's flag."""


def found_in(text: str) -> tuple[str, ...]:
    """The hashtags of a text, normalised, without duplicates, in order."""
    tags: dict[str, None] = {}
    for found in _candidates(_ADDRESS.sub(" ", unicodedata.normalize("NFC", text))):
        try:
            tags[normalise(found)] = None
        except ValueError:
            continue
    return tuple(tags)


def normalise(text: str) -> str:
    """The normalised tag of a text, without #. "#Caf\u00e9" and "CAFE\\u0301" are one tag.

    Raises ValueError if nothing visible is left, if it is longer than MAX_LENGTH characters, or if the whole text is
    not exactly one hashtag.
    """
    if len(text) > 4 * MAX_LENGTH:
        raise ValueError(f"a hashtag of {len(text)} characters")
    tag = text.strip().lstrip(START)
    for _ in range(3):  # folding can undo NFKC and vice versa
        tag = unicodedata.normalize("NFKC", tag).casefold()
    before, tag = "", _IGNORABLE.sub("", tag)
    while tag != before:  # what is cut from an end may have been what a joiner joined, and vice versa
        before, tag = tag, unicodedata.normalize("NFKC", _joined(tag)).strip("-" + MEDIAL)
    if not any(unicodedata.category(character)[0] in "LNS" and character != "+" for character in tag):
        raise ValueError("a hashtag without visible characters")
    if len(tag) > MAX_LENGTH:
        raise ValueError(f"a hashtag of {len(tag)} characters")
    if _end(tag, 0) < len(tag):
        raise ValueError(f"a hashtag with {tag[_end(tag, 0)]!r} in it")
    return tag


def _candidates(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        place += 1
        if text[place - 1] in START and (place == 1 or _may_begin_after(text[place - 2])):
            end = _end(text, place)
            yield text[place:end]
            place = end


def _may_begin_after(character: str) -> bool:
    return character != "&" and (_is_pictograph(character) or not _is_word(character))


def _end(text: str, place: int) -> int:
    """The first position from `place` on where a hashtag does not continue."""
    while place < len(text):
        if _continues(text[place]):
            place += 1
        elif text[place] in MEDIAL and place + 1 < len(text) and _continues(text[place + 1]):
            place += 2
        else:
            break
    return place


def _continues(character: str) -> bool:
    return character in "-+" or _is_word(character) or _is_pictograph(character)


def _is_word(character: str) -> bool:
    """Whether the character is XID_Continue, by the rules of Python's own identifiers."""
    return ("a" + character).isidentifier()


def _is_pictograph(character: str) -> bool:
    place = bisect_right(_FIRST, ord(character)) - 1
    return place >= 0 and ord(character) <= _LAST[place]


def _joined(tag: str) -> str:
    """The tag without the joiners that have no visible effect: the rules of UAX #31, 2.3, abridged."""
    kept = ""
    for place, character in enumerate(tag):
        if character not in (ZWNJ, ZWJ) or _joins(kept, character, tag[place + 1 : place + 2]):
            kept += character
    return kept


def _joins(before: str, joiner: str, after: str) -> bool:
    if not before:
        return False
    if unicodedata.combining(before[-1]) == VIRAMA:
        return joiner == ZWJ or bool(after)
    if not after:
        return False
    if joiner == ZWJ and unicodedata.combining(after) == VIRAMA:
        return True
    base = next((one for one in reversed(before) if unicodedata.category(one)[0] != "M"), "")
    if not base:
        return False
    if unicodedata.bidirectional(base) in ("AL", "R") and unicodedata.bidirectional(after) in ("AL", "R"):
        return True  # letters that may join: Arabic and similar scripts
    return joiner == ZWJ and _is_pictograph(base) and _is_pictograph(after)
