"""The linter of the project's English: which parts of a file it reads, and what it reports."""

import tomllib

import pytest

from dev import prose

RULES = prose.checks(tomllib.loads(prose.WORDS.read_text()))


def reported(text: str) -> list[tuple[int, str]]:
    return [(found.line, found.message) for found in prose.findings({"a page": text}, RULES)]


@pytest.mark.parametrize(
    "text",
    [
        "The page is personal to him.",
        "An incomplete deployment is told of once.",
        "The letter is sent anew.",
        "`nexus repair` can mend it.",
        "The table is no more.",
        "This is no message.",
        "The chain goes on.",
        "No run is such a one.",
        "A row stands for a user.",
        "It restores what is gone.",
        "The words about a text that is none.",
        "S3 answers with an error.",
        "A record is kept for ever.",
        "The function's time-out is a minute.",
        "The message is not in the dead letter queue.",
    ],
)
def test_the_projects_words_are_reported(text: str) -> None:
    assert reported(f"A first line.\n{text}")[0][0] == 2


def test_a_finding_says_what_to_write() -> None:
    assert (1, "'anew': write again") in reported("It is sent anew.")


def test_general_rules_apply() -> None:
    assert reported("It is at this point in time that it fails.")


def test_only_whole_words_are_reported() -> None:
    assert reported("It understands the recommended form for every case.") == []


def test_findings_in_comments_docstrings_and_messages_have_their_own_lines() -> None:
    source = '''"""Sends it anew."""

anew = 1  # told
raise Problem("it is sent " f"{anew} and "
    "then anew")
'''
    text = prose.of_python(source)
    assert [line for line, message in reported(text) if "anew" in message] == [1, 5]
    assert [line for line, message in reported(text) if "told" in message] == [3]


def test_a_phrase_may_span_the_lines_of_a_comment_and_of_a_message() -> None:
    assert reported(prose.of_python("# It is\n# no more.\n"))
    assert reported(prose.of_python('print("it is "\n      "no more")\n'))


def test_separate_strings_form_no_phrase() -> None:
    assert reported(prose.of_python('print("it is", "no more")\n')) == []


def test_names_and_code_are_not_prose() -> None:
    assert reported(prose.of_python('told = found["told"]  # `told` is a name\n')) == []
    assert reported(prose.of_page("`told`\n\n```sh\nnexus told\n```\n[it](anew.md)\n")) == []


def test_a_finding_names_its_own_file_and_line() -> None:
    texts = {"one.md": "Fine.\n", "two.md": "Fine.\nAnd told.\n", "three.md": "Fine.\n"}
    assert [(found.path, found.line) for found in prose.findings(texts, RULES)] == [("two.md", 2)]
