"""Users' text in a mail: a name is never a link, a stranger's link never works, and no other text is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.words import EXCERPT_LIMIT, NAME_LIMIT, WORD_LIMIT, breakable, excerpt, excerpt_of_friend, person_name
from social.text import one_line
from tests.support.links import live_links

SOME_TEXT = st.text(max_size=300)
PIECES = [
    *(
        "a",
        "1",
        "co",
        "uk",
        "com",
        "evil.com",
        "localhost",
        "www",
        "http",
        "mailto",
        "xn--a",
        "1.2.3.4",
        "12",
        "a" * 20,
    ),
    *(".", ".", "..", "/", "//", ":", "é", "рф", "え", "💥", "¤", "²", "⒈", "㏂", "ﷺ", "ﬁ"),
    *"@-_!?,()[]<>|+=~#…‥․。．\u202f\u200b\u200d\u00ad\u0301",
]
LINKISH = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
"""Text made of the parts of links, and of characters that programs and Unicode treat as a dot, a digit or nothing."""

UNUSUAL_LINKS = [
    *("//0.0", "//+.+", "//\u200d.+", "//localhost", "💥.uk", "~.uk", "1¤.xn--a", "え.⒈\u200d.uk", "…1.2.3.4"),
    *("1.2.3.43․é", "^。3b。．31.2.3.4．1.2.3.4^3", "1.2.3.41.2.3.4)1.2.3.41.2.3.4ﷺ"),
]
"""Text that a program treats as a link, or would after it is cut or normalised."""

LINKS = [
    "https://evil.com",
    "HTTP://EVIL.COM/a?b#c",
    "//evil.com/x",
    "www.evil.com",
    "evil.com",
    "evil.co.uk",
    "EVIL.COM",
    "evil.com.",
    "evil.com:8080",
    "bit.ly/abc",
    "evil\uff0ecom",  # full-width
    "evil\u3002com",  # ideographic
    "evil\uff61com",
    "evil\u2024com",  # one dot leader
    "ｅｖｉｌ．ｃｏｍ",
    "evil.\u200dcom",
    "evil\u200b.com",
    "пример.рф",
    "пример.испытание",
    "例え.テスト",
    "موقع.وزارة.مصر",
    "xn--e1afmkfd.xn--p1ai",
    "1.2.3.4",
    "1.2.3.4/x",
    "1\uff0e2\uff0e3\uff0e4",
    "[2001:db8::1]",
    "ada@evil.com",
    "a@b",
    "mailto:ada",
    "javascript:alert(1)",
    "\\\\evil\\share",
    "C:\\x",
]
"""Text that a user may mean as a link, and text that a program may treat as one."""


@pytest.mark.parametrize("around", ["{}", "win at {}", "{} wins", "(see {})"])
@pytest.mark.parametrize("link", LINKS)
def test_a_name_that_can_only_be_a_link_is_not_shown(link: str, around: str) -> None:
    assert person_name(around.format(link)) == ""


@pytest.mark.parametrize(
    "blank",
    [None, "", "   ", "\u202e\u200b", "\u3164", "\u115f\u1160\uffa0", "\u2800\u2800", "\u200d", "\u00ad", "\ufe0f"],
)
def test_an_invisible_name_counts_as_no_name(blank: str | None) -> None:
    assert person_name(blank) == ""


@pytest.mark.parametrize(
    "name",
    [
        "Ada",
        "Zoë",
        "李明",
        "Jean-Luc",
        "O\u2019Hara",
        "Dr. No",
        "👩\u200d🚀 Sally",
        "Sam (they/them)",
        "AC/DC fan",
        "AC/DC",
        "Ada | she/her",
        "J. Doe 3.0",
        "@ada",
        "Mary & Co",
        "नमस्ते शर्मा",
        "فاطمة الزهراء",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f Ewan",
        "100% Ana",
        "Nº 5",
    ],
)
def test_a_name_is_left_as_it_is(name: str) -> None:
    assert person_name(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("J.R.R.Tolkien", "J. R. R. Tolkien"),
        ("will.i.am", "will. i. am"),
        ("St.John Smith", "St. John Smith"),
        ("Mr.Bean", "Mr. Bean"),
        ("Dr.No", "Dr. No"),
        ("J.Lo", "J. Lo"),
        ("Ph.D.Jones", "Ph. D. Jones"),
        ("Дж.Р.Толкин", "Дж. Р. Толкин"),
    ],
)
def test_a_name_with_dots_is_shown_so_that_it_cannot_be_a_link(name: str, shown: str) -> None:
    assert person_name(name).replace("\u202f", " ") == shown
    assert live_links(person_name(name)) == []


@settings(max_examples=300)
@given(st.one_of(SOME_TEXT, st.text(alphabet="ab.co/:@mwWе。．1", max_size=40)))
def test_no_program_finds_a_link_in_a_name_that_is_shown(name: str) -> None:
    shown = person_name(name)
    assert live_links(shown) == []
    assert len(shown) <= NAME_LIMIT
    assert one_line(shown).replace("\u202f", " ") == shown.replace("\u202f", " ")


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("around", ["{}", "Look: {} now", "({})", "{}, and more"])
def test_no_link_works_in_a_strangers_post(link: str, around: str) -> None:
    shown = excerpt(around.format(link), link="[link]")
    assert live_links(shown) == []
    assert "://" not in shown
    for word in ("Look:", "now", "and more"):
        assert (word in shown) is (word in around), "the rest of the post is there"


@settings(max_examples=300)
@given(st.one_of(SOME_TEXT, st.text(alphabet="ab.co/:@mw 。．1", max_size=60), LINKISH))
def test_no_program_finds_a_link_in_a_strangers_excerpt(text: str) -> None:
    shown = excerpt(text, link="[link]")
    assert live_links(shown) == []
    assert len(shown) <= EXCERPT_LIMIT
    assert "\n" not in shown


@pytest.mark.parametrize("text", UNUSUAL_LINKS)
def test_an_unusual_link_does_not_work_either(text: str) -> None:
    assert live_links(excerpt(text, link="[link]")) == []
    assert live_links(person_name(text)) == []


def test_a_strangers_post_keeps_everything_except_links() -> None:
    text = "and/or 5/6 v1.2.3 #tag @ada 3.5 km e.g. this"
    assert excerpt(text, link="[link]").replace("\u202f", "") == text
    assert excerpt("They left.Then we", link="[link]") == "They left.\u202fThen we"
    assert excerpt("See https://evil.com/x, now!", link="[link]") == "See [link], now!"
    assert excerpt("https://evil.com/x", link="") == ""
    assert excerpt("谢谢。下载吧", link="[link]") == "谢谢。下载吧"


def test_a_link_in_a_friends_post_is_kept_and_shortened() -> None:
    assert excerpt_of_friend("See https://www.example.com/a now") == "See example.com/a now"
    assert excerpt_of_friend("https://example.com/" + "a" * 200 + " there") == "example.com … there"


@pytest.mark.parametrize("make", [lambda text: excerpt(text, link="[link]"), excerpt_of_friend, person_name])
@given(text=st.one_of(SOME_TEXT, st.text(alphabet="abcW#", min_size=20, max_size=300)))
def test_no_word_is_longer_than_a_column(make: object, text: str) -> None:
    shown = make(text)  # type: ignore[operator]
    for word in shown.replace("-", " ").split():
        latin = "".join(character for character in word if character.isascii())
        assert len(latin) <= WORD_LIMIT, word


@given(SOME_TEXT)
def test_breaks_in_a_word_are_invisible(text: str) -> None:
    shown = one_line(text)
    assert breakable(shown).replace("\u200b", "") == shown


def test_a_long_word_is_given_breaks_unless_its_letters_join() -> None:
    assert breakable("Donaudampfschifffahrts") == "Donaudam\u200bpfschiff\u200bfahrts"
    assert breakable("short words stay") == "short words stay"
    assert breakable("والاستقلالية" * 2) == "والاستقلالية" * 2
