"""Users' text, made safe to quote: compared with the Unicode data of another library (regex)."""

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from social.text import _BEFORE, direction, is_blank, isolated, one_line, shortened

ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
PIECES = [
    "a",
    "é",
    "e\u0301",
    "👩\u200d🚀",
    "🇫🇷",
    "🇩🇪",
    ENGLAND,
    "क्षत्रिय",
    "한국",
    "\u1112\u1161\u11ab",
    "สวัสดีน้ำ",
    " ",
    "👍🏽",
    "می\u200cخواهم",
    "\u0600\u0661",
    "\uff76\uff9e",
    "❤\ufe0f",
    "1\ufe0f\u20e3",
]
HANGUL = st.text(alphabet=st.characters(min_codepoint=0x1100, max_codepoint=0x11FF), max_size=12)
ANY_TEXT = st.one_of(st.text(max_size=60), HANGUL, st.lists(st.sampled_from(PIECES), max_size=20).map("".join))


@settings(max_examples=500)
@given(ANY_TEXT, st.integers(min_value=2, max_value=40))
def test_shortening_never_cuts_a_grapheme(text: str, limit: int) -> None:
    text = one_line(text)
    shown = shortened(text, limit)
    assert len(shown) <= limit
    if shown == text:
        return
    kept = shown.removesuffix("…")
    assert text.startswith(kept)
    ends = [match.end() for match in regex.finditer(r"\X", text)]
    # The libraries differ in which rare letters belong to the next (Prepend), and no cut fits into one long grapheme.
    if ends[0] < limit and not _BEFORE & set(text):
        # What was stripped off the end (spaces, dots) are graphemes of their own, unless they carry a mark.
        assert not kept or len(kept) in ends or text[len(kept)] in " ,;:.-\u2013\u2014\u200c\u200d"


def test_text_is_cut_between_words_if_it_has_several() -> None:
    assert shortened("one two three four", 12) == "one two…"
    assert shortened("one two", 7) == "one two"
    assert shortened("x" * 50, 10) == "x" * 9 + "…"
    assert shortened("🇫🇷" * 10, 10) == "🇫🇷" * 4 + "…"
    assert shortened(ENGLAND * 3, 10) == ENGLAND + "…"
    assert shortened("e\u0301" * 10, 4) == "e\u0301…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mis\u00adsion", "mission"),
        ("zero\u200bwidth\u2060\ufeff", "zerowidth"),
        ("a\u202eb\u2066c\u2069\u200f", "abc"),
        ("two\nlines\t\u2028and\u00a0more  ", "two lines and more"),
        ("esc\x1b[31m\x00", "esc[31m"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        (f"{ENGLAND} wins", f"{ENGLAND} wins"),
        ("hid\U000e0068\U000e0069den", "hidden"),
        ("\ud800lone\ufffe", "lone"),
        ("\ue000private", "private"),
        ("H\u0300\u0300\u0300\u0300\u0300\u0300\u0300\u0300\u0300i", "H\u0300\u0300\u0300\u0300\u0300\u0300i"),
        ("A" + "\u0489" * 39, "A" + "\u0489" * 6),  # a sign that encloses a letter, of combining class 0
        ("ก" + "\u0e47\u0e34" * 9 + "x", "ก" + "\u0e47\u0e34" * 3 + "x"),
        ("a" + ("\u0301" * 6 + "\u200d") * 3 + "b\u0301", "a" + "\u0301" * 6 + "\u200db\u0301"),
        ("\u0660\u06dd", "\u0660\u06dd"),
    ],
)
def test_invisible_and_bidirectional_characters_are_removed_unless_spelling_needs_them(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(st.text(max_size=200))
def test_one_line_is_idempotent_and_returns_a_single_line(text: str) -> None:
    once = one_line(text)
    assert one_line(once) == once
    assert "  " not in once
    assert len(once.splitlines()) <= 1
    once.encode()  # no lone surrogate is left


@given(st.text(st.sampled_from("aéก\u0301\u0489\u20dd\u0e47\ufe0f\u200d"), max_size=60))
def test_no_letter_has_more_marks_than_any_script_uses(text: str) -> None:
    """A grapheme of the other library, whatever its marks; joiners are invisible."""
    for grapheme in regex.findall(r"\X", one_line(text)):
        assert len(regex.findall(r"[\p{Mn}\p{Me}]", grapheme)) <= 6


@pytest.mark.parametrize("text", ["", " ", "\u3164", "\u2800", "\u200d", "\ufe0f\u034f"])
def test_text_without_a_visible_character_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", "李", "1", "❤\ufe0f", "-", "e\u0301"])
def test_text_with_a_visible_character_is_not_blank(text: str) -> None:
    assert not is_blank(text)


def test_the_first_strong_letter_decides_the_direction_of_a_text() -> None:
    texts = {"Ada": "ltr", "عمر": "rtl", "שלום Ada": "rtl", "1, 2 (Ada) עם": "ltr", "123": None, "": None, "👍": None}
    assert {text: direction(text) for text in texts} == texts
    assert isolated("عمر", "ltr") == "\u2068عمر\u2069"
    assert isolated("عمر", "rtl") == "عمر"
    assert isolated("123", "rtl") == "123"
