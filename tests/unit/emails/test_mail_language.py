"""Languages: each locale file is complete and valid, and a reader gets the nearest one."""

import string
import tomllib
from collections import Counter
from datetime import date, timedelta

import pytest

from mail.languages import LOCALES, Language, available, choose, load, parse


def placeholders(text: object) -> set[str]:
    forms = [text] if isinstance(text, str) else list(text)  # type: ignore[call-overload]
    return {name for form in forms for _, name, _, _ in string.Formatter().parse(form) if name}


@pytest.mark.parametrize("code", available())
def test_a_locale_says_all_that_english_says_with_the_same_placeholders(code: str) -> None:
    english, language = load("en"), load(code)
    assert set(language.texts) == set(english.texts)
    for key, text in language.texts.items():
        if isinstance(text, str):
            assert placeholders(text) == placeholders(english.texts[key]), key
            continue
        counts = Counter(language.plural(count) for count in range(200))
        for place, form in enumerate(text):
            # A form for a single count need not contain the number: Arabic has a word for two likes.
            missing = placeholders(english.texts[key]) - placeholders(form)
            assert missing <= ({"count"} if counts[place] == 1 else set()), (key, form)
            assert placeholders(form) <= placeholders(english.texts[key]), (key, form)


@pytest.mark.parametrize("code", available())
def test_a_locale_has_no_text_that_english_lacks(code: str) -> None:
    """A key with a typo would silently stay English."""
    raw = tomllib.loads((LOCALES / f"{code}.toml").read_text())
    own = {f"{group}.{name}" for group, entries in raw.items() for name in entries if group != "language"}
    assert own - {"dates.months"} == set(load("en").texts)


@pytest.mark.parametrize("code", available())
def test_a_plural_exists_for_every_count(code: str) -> None:
    language = load(code)
    for key, text in language.texts.items():
        if not isinstance(text, str):
            assert {language.plural(count) for count in range(200)} == set(range(len(text))), key


@pytest.mark.parametrize(
    ("locale", "code"),
    [
        ("fr", "fr"),
        ("fr-CA", "fr"),
        ("fr_CA.UTF-8", "fr"),
        ("FR", "fr"),
        ("en-GB", "en"),
        ("de-AT", "de"),
        ("ar_EG.UTF-8", "ar"),
        ("pl", "en"),
        ("", "en"),
        (None, "en"),
        ("../../etc/passwd", "en"),
        ("french", "en"),
    ],
)
def test_a_reader_gets_the_nearest_language(locale: str | None, code: str) -> None:
    assert choose(locale).code == code


def test_english_and_french_have_their_own_plurals_and_separators() -> None:
    english, french = load("en"), load("fr")
    assert [english.text("digest.likes", count=n) for n in (0, 1, 2, 1284)] == [
        "0 likes",
        "1 like",
        "2 likes",
        "1,284 likes",
    ]
    assert french.text("digest.shares", count=0) == "0 partage"
    assert french.text("digest.shares", count=12_345) == "12\u202f345 partages"


def test_a_span_of_days_is_written_as_in_its_language() -> None:
    week, over_the_year = (date(2026, 11, 16), date(2026, 11, 22)), (date(2026, 12, 28), date(2027, 1, 3))
    assert load("en").days(*week) == "16\u201322 November"
    assert load("fr").days(*week) == "du 16 au 22 novembre"
    assert load("en").days(*over_the_year) == "28 December \u2013 3 January"
    assert load("fr").days(*over_the_year) == "du 28 décembre au 3 janvier"


@pytest.mark.parametrize("code", available())
@pytest.mark.parametrize("first", [date(2026, 11, 16), date(2026, 12, 28), date(2028, 2, 26)])
def test_each_language_writes_both_days_of_a_span(code: str, first: date) -> None:
    language = load(code)
    last = first + timedelta(days=6)
    written = language.days(first, last)
    assert str(first.day) in written
    assert str(last.day) in written
    assert language.months[last.month - 1] in written


def test_arabic_counts_in_its_six_forms_and_japanese_in_one() -> None:
    arabic, japanese = load("ar"), load("ja")
    assert [arabic.text("digest.comments", count=n) for n in (0, 1, 2, 3, 11, 100)] == [
        "لا تعليقات",
        "تعليق واحد",
        "تعليقان",
        "3 تعليقات",
        "11 تعليقًا",
        "100 تعليق",
    ]
    assert [japanese.text("digest.comments", count=n) for n in (0, 1, 2)] == [f"コメント{n}件" for n in (0, 1, 2)]


def test_a_name_that_runs_the_other_way_is_isolated() -> None:
    """Otherwise it would change the direction of the words and signs around it."""
    assert load("en").text("digest.title", name="عمر") == "Your week, \u2068عمر\u2069"
    assert load("ar").text("digest.title", name="عمر") == "أسبوعك يا عمر"
    assert load("ar").text("digest.title", name="Ada") == "أسبوعك يا \u2068Ada\u2069"


def test_a_translator_adds_a_language_with_one_file(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polish has three plural forms; untranslated texts are English."""
    source = """
    [language]
    direction = "ltr"
    plural = "n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2"
    thousands = " "
    [dates]
    months = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]
    [digest]
    likes = ["{count} polubienie", "{count} polubienia", "{count} polubień"]
    """
    polish: Language = parse("pl", source)
    assert [polish.text("digest.likes", count=n) for n in (1, 2, 5, 22)] == [
        "1 polubienie",
        "2 polubienia",
        "5 polubień",
        "22 polubienia",
    ]
    assert polish.text("digest.read") == "Read the post"
    assert polish.text("digest.comments", count=7) == "7 comments"
    assert polish.text("digest.comments", count=1) == "1 comment", "by English's rule, not by Polish"


@pytest.mark.parametrize("broken", ['direction = "sideways"', 'direction = "ltr"\nmonths = ["one"]'])
def test_a_broken_file_is_reported_when_it_is_read(broken: str) -> None:
    months = ", ".join(f'"{n}"' for n in range(1, 13))
    source = f'[language]\nplural = "n != 1"\nthousands = ","\n{broken.split(chr(10), maxsplit=1)[0]}\n[dates]\n'
    source += broken.split("\n")[1] if "\n" in broken else f"months = [{months}]"
    with pytest.raises(ValueError, match="twelve months"):
        parse("xx", source)
