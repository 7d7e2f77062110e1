"""The mails' text: both parts are complete, users' text is harmless, and all other text is from the locale."""

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
from mail.rendering import Image, Mail, Picture, Story, TemplateFault, choose_picture
from mail.settings import MailSettings, from_environment
from mail.words import person_name
from nexus.errors import ConfigurationError
from social.data.posts import Media, Rendition
from tests.support.links import live_links
from tests.support.template import template

SENDER = MailSettings(
    sender="no-reply@nexus.example",
    digest_sender="digest@nexus.example",
    sender_name="Nexus",
    base_url="https://nexus.example",
    media_url="https://media.nexus.example",
    postal_address="1 Example Street",
)
LINK = "https://nexus.example/mail/unsubscribe?token=abc"
PICTURE = Picture(Image("lead.jpg", 1080, 720), Image("square.jpg", 224, 224))
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
def test_both_parts_of_a_mail_have_the_name_the_address_and_the_links(mail: Mail) -> None:
    html = Parsed(mail.html)
    assert LINK in html.values("a", "href")
    assert LINK in mail.text
    for part in (html.text, mail.text):
        assert "1 Example Street" in part
        assert "Ada" in part
        assert "Mail settings" in part
    assert "<" not in mail.text
    assert all(len(line) <= 76 or "://" in line for line in mail.text.splitlines())


def test_both_parts_of_the_digest_have_each_post_with_its_link() -> None:
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


@settings(max_examples=60)
@given(SOME_TEXT, SOME_TEXT, SOME_TEXT)
def test_users_text_in_a_mail_adds_no_tag_link_or_line(name: str, author: str, text: str) -> None:
    story = replace(STORY, author=person_name(author), text=text)
    mail = digest(story, replace(story, post_id="p-2", followed=False), name=name)
    tame = digest(STORY, replace(STORY, post_id="p-2", followed=False), name="Ada")

    def tags(mail: Mail) -> list[str]:
        return [tag for tag, _ in Parsed(mail.html).tags if tag != "span"]  # around words that run the other way

    assert tags(mail) == tags(tame)
    assert Parsed(mail.html).values("a", "href") == Parsed(tame.html).values("a", "href")
    assert len(mail.subject.splitlines()) == 1
    assert mail.subject.count("\u2068") == mail.subject.count("\u2069")
    assert "\r" not in mail.text
    assert len(mail.subject) <= rendering.SUBJECT_LIMIT + 2
    for part in (mail.html, mail.text):
        assert all(len(line.encode()) <= 998 for line in part.split("\n"))


def test_a_name_that_could_carry_a_message_is_left_out_and_its_owners_posts_are_not() -> None:
    mail = welcome("win at evil.com")
    assert mail.subject == "Welcome to Nexus"
    assert "evil" not in mail.html + mail.text
    nameless = digest(replace(STORY, author=""))
    assert nameless.subject == "Somebody this week on Nexus"
    for part in (nameless.html, nameless.text):
        assert "Somebody" in part
        assert "Hello from the hills" in part
    assert digest(replace(STORY, author=""), language=load("de")).subject == "Jemand diese Woche auf Nexus"


@pytest.mark.parametrize("followed", [True, False])
def test_the_preheader_has_no_links_and_strangers_links_appear_nowhere(followed: bool) -> None:
    mail = digest(replace(STORY, text="Win: https://evil.com/x or evil.org now", followed=followed))
    preheader = mail.html.partition('data-part="preheader">')[2].partition("</div>")[0]
    assert "Win:" in preheader
    assert "or" in preheader
    assert live_links(preheader.split("&#847;")[0]) == []
    shown = Parsed(mail.html).text
    assert ("evil.com/x" in shown) is followed
    assert ("evil.com/x" in mail.text) is followed
    assert ("[link]" in shown) is not followed
    assert [link for link in live_links(mail.text) if "evil" in link] == (
        ["evil.com/x", "evil.org"] if followed else []
    )


def test_counts_and_links_are_separated_by_a_character_and_not_only_by_a_margin() -> None:
    """Gmail, Outlook and Yahoo do not support margin-inline-end, and no program styles the text part."""
    mail = digest(replace(STORY, likes=1284, comments=97, shares=41))
    for part in (" ".join(Parsed(mail.html).text.split()), mail.text):
        assert "1,284 likes · 97 comments · 41 shares" in part
    assert "Unsubscribe · Mail settings" in " ".join(Parsed(mail.html).text.split())


def test_a_text_that_is_not_translated_yet_says_that_it_is_english() -> None:
    texts = {key: text for key, text in load("ar").texts.items() if key not in ("digest.read", "common.picture_by")}
    mail = digest(replace(STORY, picture=PICTURE), language=replace(load("ar"), texts=texts))
    assert '<span lang="en" dir="ltr">Read the post</span>' in mail.html
    alt = next(attributes for tag, attributes in Parsed(mail.html).tags if tag == "img")
    assert alt["alt"] == "Picture in the post by Bea"
    assert (alt["lang"], alt["dir"]) == ("en", "ltr")
    assert "Read the post" not in mail.text
    whole = digest(replace(STORY, picture=PICTURE), language=load("ar"))
    assert 'lang="en"' not in whole.html


@pytest.mark.parametrize(("code", "direction"), [("ar", "rtl"), ("fr", "ltr")])
def test_language_and_direction_are_stated_inside_the_html_element_too(code: str, direction: str) -> None:
    """Gmail and Yahoo drop it."""
    for mail in (welcome(language=load(code)), digest(replace(STORY, picture=PICTURE), language=load(code))):
        (article,) = [attributes for _, attributes in Parsed(mail.html).tags if attributes.get("role") == "article"]
        assert (article["lang"], article["dir"]) == (code, direction)


def test_paddings_are_mirrored() -> None:
    pictured = replace(STORY, picture=PICTURE)
    story = digest(STORY, replace(pictured, post_id="p-2"), language=load("ar")).html
    assert "padding:18px 16px 18px 0" in story
    assert "padding:18px 0 18px 16px" in digest(STORY, replace(pictured, post_id="p-2")).html


@pytest.mark.parametrize("part", ["html", "text"])
def test_the_templates_contain_no_text(part: str) -> None:
    """In a language in which every text is the same sign, a mail has only that sign and users' own text."""
    texts = {key: "※" if isinstance(text, str) else ["※"] for key, text in load("en").texts.items()}
    signs = Language("xx", "rtl", texts, lambda count: 0, ",", ["※"] * 12)
    story = replace(STORY, picture=PICTURE, author="李", text="你好")
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


def test_a_missing_or_broken_text_raises_a_template_fault_that_names_it() -> None:
    texts = {key: text for key, text in load("en").texts.items() if key != "welcome.intro"}
    with pytest.raises(TemplateFault, match=r"welcome in en: KeyError: 'welcome\.intro'"):
        welcome(language=replace(load("en"), texts=texts))
    for text, fault in (("{nobody}", "nobody"), ("{count", "ValueError"), ("100}", "ValueError")):
        broken = {**load("en").texts, "digest.why": text}
        with pytest.raises(TemplateFault, match=fault):
            digest(language=replace(load("en"), texts=broken))


class Asked(dict[str, Any]):
    """The locale's texts, and which of them were used."""

    def __init__(self, texts: Any) -> None:
        super().__init__(texts)
        self.keys_asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.keys_asked.add(key)
        return super().__getitem__(key)


def test_every_text_of_a_locale_is_used() -> None:
    texts = Asked(load("en").texts)
    language = replace(load("en"), texts=texts)
    clip, photo = replace(PICTURE, is_video=True), PICTURE
    bare = replace(STORY, text="", shares=2, comments=2)
    for name in ("Ada", None):
        welcome(name, language)
        digest(
            bare,
            replace(bare, picture=clip),
            replace(bare, picture=photo, author="", text="https://evil.com", followed=False),
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


def test_the_renditions_made_for_mail_are_shown_in_their_proportions() -> None:
    chosen = choose_picture(
        media(
            thumbnail=rendition("t.webp", 150, "image/webp"),
            w1080_jpeg=rendition("1080.jpg", 1080, "image/jpeg", 1920),
            mail_lead=rendition("lead.jpg", 1080, "image/jpeg", 810),
            mail_square=rendition("square.jpg", 224, "image/jpeg"),
        )
    )
    assert chosen == Picture(Image("lead.jpg", 1080, 810), Image("square.jpg", 224, 224))
    html = Parsed(digest(replace(STORY, picture=chosen), replace(STORY, post_id="p-2", picture=chosen)).html)
    assert html.values("img", "src") == [
        "https://media.nexus.example/lead.jpg",
        "https://media.nexus.example/square.jpg",
    ]
    assert html.values("img", "width") == ["510", "112"]
    assert html.values("img", "height") == ["382", "112"]
    assert not html.values("source", "srcset"), "Gmail, Outlook and Yahoo drop picture and source"


def test_a_clips_poster_is_shown_as_its_picture() -> None:
    clip = Media(
        status="ready",
        kind="video",
        renditions={
            "poster_mail_lead": rendition("l.jpg", 1080, "image/jpeg", 810),
            "poster_mail_square": rendition("s.jpg", 224, "image/jpeg"),
            "video": rendition("v.mp4", 720, "video/mp4"),
        },
    )
    assert choose_picture(clip) == Picture(Image("l.jpg", 1080, 810), Image("s.jpg", 224, 224), is_video=True)


@pytest.mark.parametrize(
    ("size", "lead", "thumb"),
    [((1080, 1920), (215, 383), (63, 112)), ((1080, 108), (510, 51), (112, 11)), ((90, 60), (90, 60), (90, 60))],
)
def test_a_post_without_mail_renditions_shows_its_picture_in_its_proportions(
    size: tuple[int, int], lead: tuple[int, int], thumb: tuple[int, int]
) -> None:
    chosen = choose_picture(media(w1080_jpeg=rendition("1080.jpg", size[0], "image/jpeg", size[1])))
    assert chosen is not None
    assert chosen.lead.within(rendering.LEAD) == lead
    assert chosen.thumb.within(rendering.THUMB) == thumb


def test_a_post_with_webp_alone_has_words_in_the_place_of_a_picture_that_outlook_cannot_show() -> None:
    only_webp = choose_picture(media(w640=rendition("640.webp", 640, "image/webp")))
    assert only_webp is None
    mail = digest(replace(STORY, text="", picture=only_webp))
    assert "A new post" in mail.html
    assert "A new post" in mail.text


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


def test_an_incomplete_deployment_gets_an_error_that_names_what_is_missing() -> None:
    complete: dict[str, Any] = {
        "NEXUS_MAIL_SENDER": "no-reply@nexus.example",
        "NEXUS_MAIL_BASE_URL": "https://nexus.example/",
    }
    assert from_environment(complete).base_url == "https://nexus.example"
    assert from_environment(complete).media_url == "https://nexus.example"
    assert from_environment(complete).digest_sender == "digest@nexus.example"
    assert from_environment({**complete, "NEXUS_MAIL_BASE_URL": "http://localhost:8000"}).base_url.startswith("http:")
    for name, value in (
        ("NEXUS_MAIL_SENDER", ""),
        ("NEXUS_MAIL_SENDER", "x\r\nBcc: y@z.example"),
        ("NEXUS_MAIL_DIGEST_SENDER", "digest@other.example"),
        ("NEXUS_MAIL_DIGEST_SENDER", "digest"),
        ("NEXUS_MAIL_BASE_URL", "nexus.example"),
        ("NEXUS_MAIL_BASE_URL", "http://nexus.example"),
        ("NEXUS_MAIL_MEDIA_URL", "http://media.example"),
        ("NEXUS_MAIL_BASE_URL", "javascript:alert(1)"),
        ("NEXUS_MAIL_MEDIA_URL", "https://media.example/?a=b"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            from_environment({**complete, name: value})


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        ("https://nexus.example", True),
        ("http://localhost:8000", True),
        ("http://127.0.0.1", True),
        ("http://nexus.example", False),
        ("http://localhost.evil.example", False),
        ("ftp://nexus.example", False),
        ("https://xn--mnchen-3ya.example", True),
        ("https://münchen.example", False),
        ("https://nexus .example", False),
    ],
)
def test_the_template_takes_the_origins_that_the_function_takes(origin: str, accepted: bool) -> None:
    """A link in a mail carries a token: https, but on this machine. CloudFormation matches the whole value."""
    for parameter, value in (("BaseUrl", origin), ("MediaUrl", f"{origin}/media")):
        pattern = template()["Parameters"][parameter]["AllowedPattern"]
        assert (re.fullmatch(pattern, value) is not None) is accepted, parameter
    environment = {"NEXUS_MAIL_SENDER": "no-reply@nexus.example", "NEXUS_MAIL_BASE_URL": origin}
    if accepted:
        assert from_environment(environment).base_url == origin
    else:
        with pytest.raises(ConfigurationError, match="NEXUS_MAIL_BASE_URL"):
            from_environment(environment)
