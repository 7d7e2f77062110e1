"""What a person reads about a refused upload: a sentence for each code and language, without technical terms."""

import re
from pathlib import Path

import pytest

from social.refusals import LIMITED, SENTENCES, Code, Rejected, sentence


@pytest.mark.parametrize("language", SENTENCES)
def test_every_code_has_its_sentence_in_every_language(language: str) -> None:
    sentences = SENTENCES[language]

    assert set(sentences) == set(Code)
    for code, words in sentences.items():
        assert ("{limit}" in words) == (code in LIMITED), code
        reported = sentence(code, language, 17 if code in LIMITED else None)
        assert reported.endswith(".")
        assert not re.search(r"[{}<>_]|0x", reported), code
    assert len(set(sentences.values())) == len(sentences)


def test_a_language_is_found_by_its_tag_and_english_is_the_fallback() -> None:
    assert sentence("tiff", "fr-CA").startswith("Les images TIFF")
    assert sentence("tiff", "pt") == sentence("tiff")
    with pytest.raises(ValueError, match="no such"):
        sentence("no such")


def test_a_refusal_has_a_limit_exactly_where_its_sentence_names_one() -> None:
    assert "300" in Rejected(Code.TOO_LONG, "lasts 400 seconds", 300).reason
    with pytest.raises(ValueError, match="limit"):
        Rejected(Code.TOO_LONG, "lasts 400 seconds")
    with pytest.raises(ValueError, match="limit"):
        Rejected(Code.TIFF, "begins with II*", 3)


def test_the_docs_have_every_code_with_its_sentence() -> None:
    page = (Path(__file__).parents[3] / "docs" / "media.md").read_text()
    page = page.partition("## Reasons\n")[2].partition("\n## ")[0]

    for code, words in SENTENCES["en"].items():
        assert f"| `{code}` | {words} |" in page
    assert len(re.findall(r"^\| `[a-z_0-9]+` \|", page, re.MULTILINE)) == len(Code)
