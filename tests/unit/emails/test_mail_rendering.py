"""What the mails say: both parts whole, other people's words harmless, nothing but the locale's words."""

import re
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail import rendering
from mail.languages import Language, load
from mail.rendering import Mail, Picture, Story, TemplateFault, choose_picture, excerpt, one_line, safe_name
from mail.settings import MailSettings, from_environment
from nexus.errors import ConfigurationError
from social.data.posts import Media, Rendition

SENDER = MailSettings(
    sender="no-reply@nexus.example",
    sender_name="Nexus",
    base_url="https://nexus.example",
    media_url="https://media.nexus.example",
    postal_address="1 Example Street",
)
LINK = "https://nexus.example/mail/unsubscribe?token=abc"
STORY = Story("p-1", "Bea", "Hello from the hills", 3, 1, 0, followed=True)
SOME_TEXT = st.text(max_size=300)


def digest(*stories: Story, name: str | None = "Ada", language: Language | None = None) -> Mail:
    return rendering.digest(
        language or load("en"),
        SENDER,
        name=name,
        stories=stories or (STORY,),
        first_day=date(2026, 11, 16),
        last_day=date(2026, 11, 22),
        unsubscribe_url=LINK,
    )


def welcome(name: str | None = "Ada", language: Language | None = None) -> Mail:
    return rendering.welcome(language or load("en"), SENDER, name=name, unsubscribe_url=LINK)


class Parsed(HTMLParser):
    """The tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attributes.get(attribute) or "" for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("mail", [welcome(), digest()], ids=["welcome", "digest"])
def test_both_parts_have_what_the_law_and_the_reader_want(mail: Mail) -> None:
    html = Parsed(mail.html)
    assert LINK in html.values("a", "href")
    assert LINK in mail.text
    for part in (html.text, mail.text):
        assert "1 Example Street" in part
        assert "Ada" in part
        assert "Mail settings" in part
    assert "<" not in mail.text
    assert all(len(line) <= 76 or "://" in line for line in mail.text.splitlines())


def test_the_digest_tells_of_each_post_with_its_link_in_both_parts() -> None:
    other = replace(STORY, post_id="p/2?x", author="Cleo", text="Second", followed=False, likes=1, comments=0)
    mail = digest(STORY, other)
    html = Parsed(mail.html)
    for link in ("https://nexus.example/posts/p-1", "https://nexus.example/posts/p%2F2%3Fx"):
        assert link in html.values("a", "href")
        assert link in mail.text
    for text in (html.text, mail.text):
        assert text.index("Hello from the hills") < text.index("Second")
        assert "3 likes" in text
        assert "1 like" in text
    assert "0 comments" not in html.text
    assert mail.subject == "Bea and 1 more post: your week on Nexus"
    assert digest(STORY).subject == "Bea this week on Nexus"


@settings(max_examples=60, deadline=None)
@given(SOME_TEXT, SOME_TEXT, SOME_TEXT)
def test_what_users_write_stays_text(name: str, author: str, text: str) -> None:
    story = replace(STORY, author=safe_name(author, "somebody"), text=text)
    mail = digest(story, replace(story, post_id="p-2", followed=False), name=name)
    tame = digest(STORY, replace(STORY, post_id="p-2", followed=False), name="Ada")

    assert [tag for tag, _ in Parsed(mail.html).tags] == [tag for tag, _ in Parsed(tame.html).tags]
    assert Parsed(mail.html).values("a", "href") == Parsed(tame.html).values("a", "href")
    assert mail.subject == one_line(mail.subject)
    assert "\r" not in mail.text
    assert len(mail.subject) <= rendering.SUBJECT_LIMIT


@pytest.mark.parametrize(
    "name",
    ["https://evil.example", "win at www.evil.example", "evil.com", "a@b", "C:\\x", "", "   ", None, "\u202e\u200b"],
)
def test_a_name_that_could_carry_a_message_is_left_out(name: str | None) -> None:
    assert safe_name(name) == ""
    mail = welcome(name)
    assert mail.subject == "Welcome to Nexus"
    assert "evil" not in mail.html + mail.text


@pytest.mark.parametrize(
    "name", ["Ada", "Zoë", "李明", "Jean-Luc", "O\u2019Hara", "Dr. No", "Ada\tL.", "👩\u200d🚀 Sally"]
)
def test_a_name_is_left_as_it_is(name: str) -> None:
    assert safe_name(name) == " ".join(name.split())


@settings(deadline=None)
@given(SOME_TEXT)
def test_an_excerpt_is_one_line_and_short(text: str) -> None:
    shown = excerpt(text)
    assert len(shown) <= rendering.EXCERPT_LIMIT
    assert shown == " ".join(shown.split())
    assert one_line(shown) == shown


def test_an_excerpt_ends_with_a_word() -> None:
    shown = excerpt("one two three " * 40)
    assert shown.endswith(("one…", "two…", "three…"))
    assert excerpt("x" * 500) == "x" * 219 + "…"


@pytest.mark.parametrize("part", ["html", "text"])
def test_no_word_of_the_mails_stands_in_a_template(part: str) -> None:
    """In a language whose every text is the same sign, that sign and the readers' own words are all there is."""
    texts = {key: "※" if isinstance(text, str) else ["※"] for key, text in load("en").texts.items()}
    signs = Language("xx", "rtl", texts, lambda count: 0, ",", ["※"] * 12)
    story = replace(STORY, picture=Picture("k.jpg", 1080, 720), author="李", text="你好")
    for mail in (welcome(None, signs), digest(story, replace(story, followed=False), name=None, language=signs)):
        shown = Parsed(mail.html) if part == "html" else None
        words = shown.text if shown else mail.text
        style = re.sub(r"(?s):root.*?\n}\n(?=\n|$)", "", words)
        style = style[style.rindex("}") + 1 :] if "}" in style else style
        own = style.replace("Nexus", "").replace("1 Example Street", "").replace(LINK, "")
        own = re.sub(r"https://\S+", "", own)
        assert not re.findall(r"[A-Za-z]{2,}", own), re.findall(r"[A-Za-z]{2,}", own)
        if shown:
            assert ("html", {"lang": "xx", "dir": "rtl"}) in shown.tags
            for attribute in ("alt", "aria-label"):
                for tag, attributes in shown.tags:
                    if attributes.get(attribute):
                        assert attributes[attribute] == "※", (tag, attributes)


def test_a_text_that_is_missing_is_a_fault_of_ours_and_says_which() -> None:
    texts = {key: text for key, text in load("en").texts.items() if key != "welcome.intro"}
    with pytest.raises(TemplateFault, match=r"welcome in en: KeyError: 'welcome\.intro'"):
        welcome(language=replace(load("en"), texts=texts))
    broken = {**load("en").texts, "digest.why": "{nobody}"}
    with pytest.raises(TemplateFault, match="nobody"):
        digest(language=replace(load("en"), texts=broken))


class Asked(dict[str, Any]):
    """The locale's texts, and which of them were asked for."""

    def __init__(self, texts: Any) -> None:
        super().__init__(texts)
        self.keys_asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.keys_asked.add(key)
        return super().__getitem__(key)


def test_every_text_of_a_locale_is_used() -> None:
    texts = Asked(load("en").texts)
    language = replace(load("en"), texts=texts)
    clip, photo = (Picture("k.jpg", 720, 720, is_video=is_video) for is_video in (True, False))
    bare = replace(STORY, text="", shares=2, comments=2)
    for name in ("Ada", None):
        welcome(name, language)
        digest(
            bare,
            replace(bare, picture=clip),
            replace(bare, picture=photo, followed=False),
            name=name,
            language=language,
        )
    digest(STORY, language=language)
    language.days(date(2026, 11, 30), date(2026, 12, 6))
    assert texts.keys_asked == set(texts)


def rendition(key: str, width: int, kind: str, height: int | None = None) -> Rendition:
    return Rendition(key=key, width=width, height=height or width, bytes=1, content_type=kind)


def media(**renditions: Rendition) -> Media:
    return Media(status="ready", kind="image", renditions=renditions)


def test_the_jpeg_is_shown_with_a_smaller_webp_beside_it() -> None:
    chosen = choose_picture(
        media(
            thumbnail=rendition("t.webp", 150, "image/webp"),
            w640=rendition("640.webp", 640, "image/webp"),
            w1080=rendition("1080.webp", 1080, "image/webp"),
            w1080_jpeg=rendition("1080.jpg", 1080, "image/jpeg", 720),
        )
    )
    assert chosen == Picture("1080.jpg", 1080, 720, "640.webp")
    html = Parsed(digest(replace(STORY, picture=chosen)).html)
    assert html.values("img", "src") == ["https://media.nexus.example/1080.jpg"]
    assert html.values("source", "srcset") == ["https://media.nexus.example/640.webp"]


@pytest.mark.parametrize(
    "without",
    [
        None,
        Media(status="processing"),
        Media(status="rejected", reason="bomb"),
        media(),
        media(video=rendition("v.mp4", 720, "video/mp4")),
    ],
)
def test_a_post_without_a_finished_picture_has_none(without: Media | None) -> None:
    assert choose_picture(without) is None


def test_an_incomplete_deployment_is_told_what_is_missing() -> None:
    complete: dict[str, Any] = {
        "NEXUS_MAIL_SENDER": "no-reply@nexus.example",
        "NEXUS_MAIL_BASE_URL": "https://nexus.example/",
    }
    assert from_environment(complete).base_url == "https://nexus.example"
    assert from_environment(complete).media_url == "https://nexus.example"
    for name, value in (
        ("NEXUS_MAIL_SENDER", ""),
        ("NEXUS_MAIL_SENDER", "x\r\nBcc: y@z.example"),
        ("NEXUS_MAIL_BASE_URL", "nexus.example"),
        ("NEXUS_MAIL_BASE_URL", "javascript:alert(1)"),
        ("NEXUS_MAIL_MEDIA_URL", "https://media.example/?a=b"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            from_environment({**complete, name: value})
