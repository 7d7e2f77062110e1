"""Hashtags by UAX #31: words in many scripts, texts that are not hashtags, the definition by another library."""

import unicodedata

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from social.tags import MAX_LENGTH, MEDIAL, _continues, found_in, normalise

WORDS = {
    "Latin": ("Crème", "crème"),
    "Latin, decomposed": ("Cre\u0300me", "crème"),
    "Latin, Vietnamese": ("TiếngViệt", "tiếngviệt"),
    "Latin, German": ("Straße", "strasse"),
    "Latin, full-width": ("Ｔｏｋｙｏ", "tokyo"),
    "Greek": ("Καλημέρα", "καλημέρα"),
    "Cyrillic": ("Україна", "україна"),
    "Cyrillic, decomposed": ("И\u0306од", "йод"),
    "Armenian": ("Հայաստան", "հայաստան"),
    "Georgian": ("საქართველო", "საქართველო"),
    "Hebrew": ("שָׁלוֹם", "שָׁלוֹם"),
    "Hebrew, an acronym": ("צה״ל", "צה״ל"),
    "Arabic": ("السَّلام", "السَّلام"),
    "Persian": ("می\u200cخواهم", "می\u200cخواهم"),
    "Urdu": ("پاکستان", "پاکستان"),
    "Syriac": ("ܣܘܪܝܝܐ", "ܣܘܪܝܝܐ"),
    "Thaana": ("ދިވެހި", "ދިވެހި"),
    "N'Ko": ("ߒߞߏ", "ߒߞߏ"),
    "Adlam": ("𞤆𞤵𞤤𞤢𞤪", "𞤨𞤵𞤤𞤢𞤪"),
    "Ethiopic": ("ኢትዮጵያ", "ኢትዮጵያ"),
    "Devanagari": ("भारत", "भारत"),
    "Devanagari, with a conjunct": ("क्षत्रिय", "क्षत्रिय"),
    "Marathi": ("सुऱ्या", "सुऱ्या"),
    "Bengali": ("বাংলাদেশ", "বাংলাদেশ"),
    "Bengali, with a joiner": ("র\u200d্যাব", "র\u200d্যাব"),
    "Gurmukhi": ("ਪੰਜਾਬ", "ਪੰਜਾਬ"),
    "Gujarati": ("ગુજરાત", "ગુજરાત"),
    "Odia": ("ଓଡ଼ିଶା", "ଓଡ଼ିଶା"),
    "Tamil": ("தமிழ்", "தமிழ்"),
    "Telugu": ("తెలుగు", "తెలుగు"),
    "Telugu, with a non-joiner": ("సాఫ్ట్\u200cవేర్", "సాఫ్ట్\u200cవేర్"),
    "Kannada": ("ಕನ್ನಡ", "ಕನ್ನಡ"),
    "Malayalam": ("മലയാളം", "മലയാളം"),
    "Malayalam, a chillu of old": ("അവന്\u200d", "അവന്\u200d"),
    "Sinhala": ("ශ්\u200dරීලංකා", "ශ්\u200dරීලංකා"),
    "Thai": ("สวัสดี", "สวัสดี"),
    "Lao": ("ສະບາຍດີ", "ສະບາຍດີ"),
    "Khmer": ("កម្ពុជា", "កម្ពុជា"),
    "Myanmar": ("မြန်မာ", "မြန်မာ"),
    "Tibetan": ("བོད་ཡིག", "བོད་ཡིག"),
    "Han, simplified": ("中国", "中国"),
    "Han, traditional": ("臺灣", "臺灣"),
    "Hiragana": ("おはよう", "おはよう"),
    "Katakana": ("ラーメン", "ラーメン"),
    "Katakana, half-width": ("ﾗｰﾒﾝ", "ラーメン"),
    "Katakana, with a middle dot": ("スター・ウォーズ", "スター・ウォーズ"),
    "Hangul": ("한국어", "한국어"),
    "Hangul, in letters": ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국"),
    "Bopomofo": ("ㄅㄆㄇ", "ㄅㄆㄇ"),
    "Yi": ("ꆈꌠ", "ꆈꌠ"),
    "Mongolian": ("ᠮᠣᠩᠭᠣᠯ", "ᠮᠣᠩᠭᠣᠯ"),
    "Cherokee": ("ᏣᎳᎩ", "ᏣᎳᎩ"),
    "Canadian Aboriginal": ("ᐃᓄᒃᑎᑐᑦ", "ᐃᓄᒃᑎᑐᑦ"),
    "Tifinagh": ("ⵜⴰⵎⴰⵣⵉⵖⵜ", "ⵜⴰⵎⴰⵣⵉⵖⵜ"),
    "Javanese": ("ꦗꦮ", "ꦗꦮ"),
    "Balinese": ("ᬩᬮᬶ", "ᬩᬮᬶ"),
    "Ol Chiki": ("ᱥᱟᱱᱛᱟᱲᱤ", "ᱥᱟᱱᱛᱟᱲᱤ"),
    "Meetei Mayek": ("ꯃꯅꯤꯄꯨꯔ", "ꯃꯅꯤꯄꯨꯔ"),
}
"""By script: a word as it is typed, and its tag."""


@pytest.mark.parametrize("script", WORDS)
def test_a_word_of_any_script_is_one_whole_tag(script: str) -> None:
    typed, tag = WORDS[script]
    tag = unicodedata.normalize("NFC", tag)
    for text in (
        f"#{typed}",
        f"Look: #{typed}!",
        f"(#{typed})",
        f"a #{typed}, b",
        f"\uff03{typed}",
        f"\ufe5f{typed} .",
    ):
        assert found_in(text) == (tag,), text
    assert found_in(unicodedata.normalize("NFD", f"#{typed}")) == (tag,)
    assert normalise(tag) == tag


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("abc#def abc.#ghi #jkl#mno", ("ghi", "jkl")),
        ("#one#two ##three # four", ("one", "three")),
        ("#rock-n-roll #c++ #covid-19 #under_score", ("rock-n-roll", "c++", "covid-19", "under_score")),
        ("#bread- and #butter-", ("bread", "butter")),
        ("#- #-- #+ #_ #\u0301 #\ufe0f\u20e3 #\u3164 #\u200d", ()),
        ("*#bold* ~#struck~ “#quoted” #ended…", ("bold", "struck", "quoted", "ended")),
        ("#Caf\u00e9 #cafe\u0301 #CAFE\u0301", ("café",)),
        ("#a\u200db #a\u200cb #ab\u200d #a\u034fb #a\ufe0fb", ("ab",)),
        ("\U0001f389#party \u2764\ufe0f#love", ("party", "love")),
        ("#i\u2764\ufe0fny #\U0001f469\u200d\U0001f680 #wow\u203c", ("i\u2764ny", "\U0001f469\u200d\U0001f680", "wow")),
        ("#\u0645\u062d\u0645\u062f\ufdfa", ("\u0645\u062d\u0645\u062f",)),
        ("https://e.com/#frag http://e.com/a#b www.e.com/#c e.com/#d e.com:8080/x?#e https://e.com/x#f.", ()),
        ("https://e.com\u3001#after (https://e.com/) #also", ("after", "also")),
        ("&#39; &#x27; R&#D", ()),
        ("3.5/#half and/or/#both", ("half", "both")),
    ],
)
def test_a_hashtag_begins_and_ends_where_the_standard_says(text: str, tags: tuple[str, ...]) -> None:
    assert found_in(text) == tags


@pytest.mark.parametrize("letter", ["a", "भ", "\U0001f680", "\u1e9e"])
def test_a_hashtag_that_is_too_long_is_no_tag_and_neither_is_its_beginning(letter: str) -> None:
    length = len(normalise(letter))
    most = MAX_LENGTH // length
    assert [len(tag) for tag in found_in(f"#{letter * most}")] == [most * length]
    assert found_in(f"#{letter * (most + 1)} #short") == ("short",)
    assert found_in(f"#{letter * 10_000} #short") == ("short",)


def test_the_characters_of_a_hashtag_are_those_of_unicode() -> None:
    """UAX31-R8-1's Continue by another library, for all characters that both know, except where the profile differs."""
    r8 = r"[\p{XID_Continue}\p{Extended_Pictographic}\p{Emoji_Component}\-+_--[#\ufe5f\uff03]]"
    definition = regex.compile(r8, regex.V1)
    known = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) != "Cn"]
    differ = {one for one in known if _continues(one) != bool(definition.match(one))}
    assert differ == {"*", "\u203c", "\u2049"}
    assert not [one for one in MEDIAL if _continues(one)]


PIECES = (
    *"#\uff03\ufe5f-+_*&/. a1\u00df\u0130\u0301\u200c\u200d\u094d\u0930\u0645\u06cc\u05f4\u0f0b",
    *"\ufe0f\u20e3\u2764\U0001f469\U0001f3fd\U0001f3f4\U000e0067\U000e007f\u1160\u0345",
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=20).map("".join))


@settings(max_examples=500)
@given(TEXTS)
@example("#\u03b1\u0345\u0301")
@example("#\u05f3\u200c\u0620")
@example("#\u0620\u200c\u05f3\u200c")
def test_a_tag_found_is_found_again_and_normalising_it_changes_nothing(text: str) -> None:
    for tag in found_in(text):
        assert 1 <= len(tag) <= MAX_LENGTH
        assert normalise(tag) == tag
        assert found_in(f"#{tag}") == (tag,)
        assert found_in(f"so: #{tag}!") == (tag,)


@settings(max_examples=300)
@given(TEXTS)
def test_spellings_of_a_tag_are_equivalent(text: str) -> None:
    found = found_in(text)
    assert found_in(unicodedata.normalize("NFD", text)) == found
    assert found_in(unicodedata.normalize("NFC", text)) == found
