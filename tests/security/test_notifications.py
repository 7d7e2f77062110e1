"""An attacker who can have a notification sent: its link leads to a page of the site, however a browser reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.errors import InvalidMessage
from social import catalogue


def link_of(link: str) -> str | None:
    args = catalogue.send_notification.check({"user_id": "u", "kind": "like", "text": "hello", "link": link})
    taken: str | None = args.link
    return taken


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,<script>",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://example.com/",
        "mailto:a@example.com",
        "//evil.example/x",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "https:/evil.example",
        "https:///evil.example",
        "https://example.com@evil.example/",
        "https://",
        "http://[::1",
        "posts/1",
        "evil.example",
        "/posts/1\u202egpj.exe",
        "/a b",
        "/a\nb",
        '/"onclick="x',
        "",
        "/" + "x" * 2000,
    ],
)
def test_a_link_that_is_not_a_page_is_refused_before_it_is_sent(link: str) -> None:
    with pytest.raises(InvalidMessage, match="link: "):
        link_of(link)


@pytest.mark.parametrize(
    "link", ["/", "/posts/1?a=b#c", "/posts/Gr\u00fc\u00dfe", "https://example.com/x", "http://localhost:8000/posts/1"]
)
def test_a_page_of_the_application_or_of_another_is_taken(link: str) -> None:
    assert link_of(link) == link


@given(st.text(max_size=40))
def test_every_accepted_link_is_a_path_or_an_http_address(link: str) -> None:
    try:
        taken = link_of(link)
    except InvalidMessage:
        return
    assert taken is not None
    assert taken.startswith(("https://", "http://")) or (taken[0] == "/" and taken[1:2] not in ("/", "\\"))
