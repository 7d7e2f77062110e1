"""generate_content_analytics, compared with counting every row, and its report."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import day_sums
import generate_content_analytics as job
import update_user_statistics as statistics
from nexus import clock
from nexus.aws.dynamodb import Write
from nexus.backend.transport import Message
from nexus.envelope import Envelope
from nexus.errors import InvalidMessage, Reject
from nexus.testing import memory_backend, run_task
from ops.social.seed import Network
from social import application, catalogue, day_report
from social.data import analytics, comments, objects, posts, users
from social.data.analytics import ContentDay, PopularPost, ReportFormat, Totals
from social.data.comments import Comment
from social.data.days import DAY_SECONDS, add_days, day_of, start_of
from social.data.posts import Post
from social.parts import PublishDay
from tests.support.axe import violations
from tests.support.browser import Page, browser
from tests.support.sandboxes import Queue, small_pages, throttled
from tests.unit.jobs.conftest import NOW, Filled, jobs, seeds

DAY = add_days(day_of(NOW), -1)


def active(user: users.User, day: str) -> bool:
    """The days that the bits mean, computed with dates and text."""
    age = (date.fromisoformat(user.last_active_day) - date.fromisoformat(day)).days
    return 0 <= age < 36 and f"{user.active_days:036b}"[::-1][age] == "1"


def expected(network: Network, day: str) -> ContentDay:
    """docs/data-model.md's definitions of a day's numbers, by counting every row."""
    made = [post for post in network.posts if day_of(post.created_at) == day]
    weights = (3, 5, 7, 1)
    scores = {p.post_id: sum(w * n for w, n in zip(weights, p.counters.values, strict=True)) for p in made}
    best = sorted((p for p in made if p.visibility == "public"), key=lambda p: (-scores[p.post_id], p.post_id))[:10]
    names = {user.user_id: user.name for user in network.users}
    return ContentDay(
        day=day,
        counted_at=NOW,
        posts=dict(Counter(post.visibility for post in made)),
        comments=sum(day_of(comment.created_at) == day for comment in network.comments),
        active_users=sum(active(user, day) for user in network.users),
        new_users=sum(day_of(user.created_at) == day for user in network.users),
        total_users=len(network.users),
        total_posts=len(network.posts),
        total_follows=len(network.follows),
        totals_at=NOW,
        popular=tuple(
            PopularPost(
                p.post_id, p.author_id, scores[p.post_id], day_report.excerpt(p.text), names.get(p.author_id, "")
            )
            for p in best
        ),
    )


@jobs
@given(seeds, st.integers(1, 25), st.integers(1, 20))
def test_a_days_figures_are_those_of_counting_every_row(filled: Filled, seed: int, people: int, ago: int) -> None:
    network = filled(people, seed)
    day = add_days(day_of(NOW), -ago)
    report = run_task(job.generate_content_analytics, {"day": day})
    assert analytics.content_day(day) == expected(network, day)
    assert (report.day, report.failed) == (day, 0)


@pytest.mark.simulation
@settings(jobs, max_examples=4)
@given(seeds)
def test_sandboxes_that_die_and_messages_that_come_twice_change_nothing(filled: Filled, seed: int) -> None:
    network = filled(12, seed)
    with small_pages(3):
        report = Queue.unreliable(seed).run(job.generate_content_analytics)
    assert analytics.content_day(DAY) == expected(network, DAY)
    assert objects.get("archive", report.report_key).startswith(b"<!doctype html>")
    assert json.loads(objects.get("archive", analytics.report_key(report.day, "json")))["day"] == report.day
    rows: list[tuple[ReportFormat, int]] = [("csv", 1), ("popular", len(expected(network, DAY).popular))]
    for form, number in rows:
        table = objects.get("archive", analytics.report_key(report.day, form)).decode()
        assert len(list(csv.DictReader(StringIO(table)))) == number


def test_throttling_slows_the_job_and_loses_nothing(filled: Filled) -> None:
    network = filled(25, 3)
    with throttled(one_in=3, seed=4) as refused:
        run_task(job.generate_content_analytics)
    assert refused["requests"] > 3
    assert analytics.content_day(DAY) == expected(network, DAY)


def test_a_run_that_comes_days_late_counts_the_day_that_it_was_fired_for(filled: Filled) -> None:
    """As one from a queue that was paused, or a dead letter that is sent again."""
    network = filled(5, 3)
    report = run_task(job.generate_content_analytics, sent_at=NOW - 2 * DAY_SECONDS)
    day = add_days(day_of(NOW), -3)
    assert report.day == day
    assert analytics.content_day(day) == expected(network, day)


def test_two_delayed_firings_count_their_own_days(filled: Filled) -> None:
    """As after a queue was paused for two days: both runs are live at once."""
    filled(3, 3)
    with memory_backend() as tasks:
        for ago in (1, 0):
            fired = Envelope.of(
                id=str(uuid4()), task="generate_content_analytics", sent_at=clock.date(NOW - ago * DAY_SECONDS)
            )
            tasks.transport.send("analytics", [Message(fired.id, fired.encode(), "generate_content_analytics")])
        tasks.run()
    assert [content.day for content in analytics.all_days()] == [add_days(DAY, -1), DAY]


def test_a_count_whose_partial_sums_have_expired_says_what_to_do(empty: Callable[[], None]) -> None:
    """As when a segment's dead letter is sent again after days: trying again cannot help."""
    publishing = PublishDay(day=DAY, work="run", parts=2, counted_at=NOW, totals=(1, 1, NOW))
    day_sums.keep("run", "users#0", day_sums.DaySums())
    with pytest.raises(Reject, match="1 of 2 partial sums have expired: send the task again"):
        run_task(job.generate_content_analytics, publishing)
    assert analytics.content_day(DAY) is None


def test_a_day_that_a_newer_version_counted_is_read_after_a_roll_back(empty: Callable[[], None]) -> None:
    day = ContentDay(DAY, NOW, {"public": 1}, popular=(PopularPost("p", "a", 3),))
    analytics.put_day(day)
    item = analytics.TABLE.get({"kind": "content", "period": DAY})
    assert item is not None
    item["popular"]["L"][0]["M"]["added"] = {"N": "1"}
    analytics.TABLE.put_item({**item, "added": {"M": {"x": {"N": "1"}}}})
    assert analytics.content_day(DAY) == day
    assert list(analytics.all_days()) == [day]


def test_a_user_active_yesterday_and_again_today_was_active_yesterday(empty: Callable[[], None]) -> None:
    user = application.register("a@example.com", "A", user_id="a", at=NOW - 10 * DAY_SECONDS)
    application.record_login(user.user_id, "t1", at=start_of(DAY) + 60)
    application.record_login(user.user_id, "t2", at=NOW)
    application.register("b@example.com", "B", user_id="b", at=NOW)
    run_task(job.generate_content_analytics)
    content = analytics.content_day(DAY)
    assert content is not None
    assert (content.active_users, content.new_users, content.total_users) == (1, 0, 2)


def test_a_post_made_private_while_the_day_is_counted_is_not_in_the_report(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for post_id in ("kept", "hidden"):
        application.new_post("a", f"The text of {post_id}", post_id=post_id, at=start_of(DAY))
    total = day_sums.total

    def meanwhile(work: str, parts: int, **options: Any) -> day_sums.DaySums:
        application.set_visibility("hidden", "private")
        return total(work, parts, **options)

    monkeypatch.setattr(day_sums, "total", meanwhile)
    report = run_task(job.generate_content_analytics)
    assert report.report_key is not None
    page = objects.get("archive", report.report_key).decode()
    assert "The text of kept" in page
    assert "The text of hidden" not in page


def orphaned(network: Network) -> Network:
    """The network without every other user, whose posts and follows stay."""
    gone = network.users[::2]
    users.TABLE.delete_many([{"user_id": user.user_id} for user in gone])
    return replace(network, users=network.users[1::2])


@pytest.mark.parametrize("counted_before", [True, False], ids=["counted in the night", "never counted"])
def test_totals_include_everything_that_exists(filled: Filled, *, counted_before: bool) -> None:
    network = orphaned(filled(12, 4))
    someone = application.register("new@example.com", "New", at=NOW)
    network.users.append(someone)
    if counted_before:
        run_task(statistics.update_user_statistics)
    with small_pages(3):
        Queue.unreliable(5).run(job.generate_content_analytics)
    content = analytics.content_day(DAY)
    assert content == expected(network, DAY)
    rows = [users.read(item) for page in users.TABLE.scan() for item in page.items]
    assert content.total_follows > sum(user.following_count for user in rows)


def test_totals_of_the_night_before_will_do_and_older_ones_are_counted_again(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = filled(6, 9)
    run_task(statistics.update_user_statistics)
    posts.put_many([Post("late", "a", NOW)], now=NOW)
    run_task(job.generate_content_analytics)
    content = analytics.content_day(DAY)
    assert content is not None
    assert (content.total_posts, content.totals_at) == (len(network.posts), NOW), "as of the night's count"

    tomorrow = NOW + DAY_SECONDS + 3_600  # this night's count is not done yet
    monkeypatch.setattr("time.time", lambda: tomorrow)
    run_task(job.generate_content_analytics, {"day": DAY})
    content = analytics.content_day(DAY)
    assert content is not None
    assert (content.total_posts, content.totals_at) == (len(network.posts), NOW)

    later = NOW + job.TOTALS_KEPT
    monkeypatch.setattr("time.time", lambda: later)
    run_task(job.generate_content_analytics, {"day": DAY})
    content = analytics.content_day(DAY)
    assert content is not None
    assert (content.total_posts, content.totals_at) == (len(network.posts) + 1, later)
    assert not analytics.put_totals(Totals(1, 1, NOW - 1)), "an older count does not replace a newer one"


def test_late_rows_count_when_the_day_is_counted_again(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = start_of(DAY) + 43_200
    posts.put_many([Post("p", "a", noon)], now=NOW)
    run_task(job.generate_content_analytics, {"day": DAY})
    posts.put_many([Post("late", "a", noon, visibility="private")], now=NOW)
    comments.put_many([Comment("p", "c", "b", noon)])
    monkeypatch.setattr("time.time", lambda: NOW + 60)
    run_task(job.generate_content_analytics, {"day": DAY})
    content = analytics.content_day(DAY)
    assert content is not None
    assert (content.posts, content.comments) == ({"public": 1, "private": 1}, 1)
    monkeypatch.setattr("time.time", lambda: NOW - 60)
    overtaken = run_task(job.generate_content_analytics, {"day": DAY})
    assert overtaken.skipped == 1, "a count that began earlier does not replace a later one"


def test_a_day_counted_again_after_activity_is_forgotten_keeps_its_active_users(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's item covers the last 36 days: an earlier day is unknown, which is not "inactive"."""
    user = application.register("a@example.com", "A", user_id="a", at=start_of(DAY) + 60)
    run_task(job.generate_content_analytics, {"day": DAY})
    later = NOW + 40 * DAY_SECONDS
    users.record_activity(user.user_id, day_of(later))
    posts.put_many([Post("late", "a", start_of(DAY) + 43_200)], now=later)
    monkeypatch.setattr("time.time", lambda: later)
    run_task(job.generate_content_analytics, {"day": DAY})
    content = analytics.content_day(DAY)
    assert content is not None
    assert (content.active_users, content.posts) == (1, {"public": 1})


def test_the_report_has_the_day_just_counted_although_a_replica_lacks_it(
    empty: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB runs a Query on a replica that may lack the latest write."""
    read = analytics.content_days
    monkeypatch.setattr(
        analytics, "content_days", lambda *days, **meter: [day for day in read(*days, **meter) if day.day != DAY]
    )
    report = run_task(job.generate_content_analytics, {"day": DAY})
    assert f"Content on {DAY}".encode() in objects.get("archive", str(report.report_key))


@pytest.mark.parametrize(
    ("day", "fault"),
    [
        ("2026-02-30", "day"),
        ("2026-13-01", "month must be in"),
        ("0000-01-01", "year 0"),
        (add_days(day_of(NOW), 1), "the day has not begun, in UTC"),
    ],
)
def test_an_invalid_or_future_day_is_refused_before_it_is_sent(day: str, fault: str) -> None:
    with pytest.raises(InvalidMessage, match=rf"day: .*{fault}.* \(got '{day}'\)"):
        catalogue.generate_content_analytics.s(day=day)
    with pytest.raises(InvalidMessage, match=f"since: .*{fault}"):
        catalogue.cleanup_old_posts.s(since=day)


def test_bad_rows_are_counted_and_skipped(filled: Filled) -> None:
    network = filled(10, 5)
    users.TABLE.update(Write({"user_id": network.users[0].user_id}, set={"last_active_day": "yesterday"}))
    users.TABLE.update(Write({"user_id": network.users[1].user_id}, remove=("created_at",)))
    noon = start_of(DAY) + 43_200
    posts.TABLE.put({"post_id": "x", "bucket": f"{DAY}#0", "created_at": noon, "author_id": "a"})
    good = expected(replace(network, users=network.users[2:]), DAY)
    report = run_task(job.generate_content_analytics)
    assert report.failed == 3
    assert analytics.content_day(DAY) == replace(good, total_posts=good.total_posts + 1)


def history(days: int) -> list[ContentDay]:
    popular = (PopularPost("p<1>", "a&b", 1234, 'She said "<script>alert(1)</script>" & left'),)
    return [
        ContentDay(add_days(DAY, n - days + 1), NOW, {"public": 100 + n * 7 % 40}, 50, 900 + n, 3, 9, 5, 7, popular)
        for n in range(days)
    ]


class _Balanced(HTMLParser):
    """Every tag is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags[tag] += 1
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("days", [1, 2, 30])
def test_the_report_is_self_contained_and_escapes_text(days: int) -> None:
    page = day_report.as_html(history(days))
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.tags["svg"] == 4
    assert parser.tags["rect"] == 4 * days
    assert parser.tags["table"] == 5
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=|url\(|@import", page), "nothing from elsewhere"


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_a_figure_is_compared_with_the_day_before_and_the_week_before_only() -> None:
    *_, day = days = history(8)
    numbers = {content.day: content.comments for content in days} | {day.day: 150, days[-2].day: 100, days[0].day: 200}
    days = [replace(content, comments=numbers[content.day]) for content in days]
    text = text_of(day_report.as_html(days))
    assert "150 Comments +50% on the day before (100) -25% on a week before (200)" in text
    gaps = text_of(day_report.as_html([content for content in days if content not in (days[-2], days[0])]))
    assert "150 Comments the day before: not counted a week before: not counted" in gaps
    nothing = text_of(day_report.as_html([replace(days[-2], comments=0), days[-1]]))
    assert "150 Comments the day before: 0 a week before: not counted" in nothing


def test_a_day_that_was_not_counted_is_shown_as_a_gap() -> None:
    days = history(30)
    counted = [content for content in days if content.day not in (days[3].day, days[4].day)]
    page = day_report.as_html(counted)
    places = [float(x) for x in re.findall(r'<rect class="\w+" x="([\d.]+)"', page.split("</svg>")[0])]
    assert places == [place * 10 + 1 for place in range(30) if place not in (3, 4)]
    for table in page.split("<table>")[1:5]:
        assert table.count("<tr>") == 31, "the heading and every day"
        assert text_of(table).count("not counted") == 2
        for content in counted:
            assert content.day in table


def test_each_value_is_in_the_table_under_its_chart() -> None:
    days = history(30)
    tables = [text_of(table) for table in day_report.as_html(days).split("<table>")[1:5]]
    for content in days:
        figures = (content.total_of_posts, content.comments, content.active_users, content.new_users)
        for table, figure in zip(tables, figures, strict=True):
            assert f"{content.day} {figure:,}" in table


def test_the_report_names_people_and_quotes_posts_in_one_piece() -> None:
    posts_of_the_day = (
        PopularPost("post-1", "author-1", 5, day_report.excerpt("word " * 60), "Ada \u202eLovelace\x1b[0m"),
        PopularPost("post-2", "author-2", 4, "صباح الخير", "عمر"),
        PopularPost("post-3", "author-3", 3, "", ""),
    )
    page = day_report.as_html([ContentDay(DAY, NOW, popular=posts_of_the_day)])
    assert "by <bdi>Ada Lovelace[0m</bdi>" in page
    assert '<div dir="rtl">صباح الخير</div>' in page
    assert "word…" in page
    assert "(no text)" in page
    assert "by a deleted user" in page
    for post in posts_of_the_day:
        assert post.post_id not in page
        assert post.author_id not in page


def test_the_report_is_written_as_json_and_csv_too() -> None:
    days = [content for content in history(8) if content.day != add_days(DAY, -3)]
    formula = replace(days[-1].popular[0], text='=HYPERLINK("https://evil.example")', author="＠ada", author_id="-1")
    days[-1] = replace(days[-1], popular=(formula,))

    report = json.loads(day_report.as_json(days))
    assert (report["day"], report["figures"]["comments"]) == (DAY, 50)
    assert report["days"][add_days(DAY, -3)] is None
    assert report["days"][days[0].day]["posts"] == days[0].total_of_posts
    assert report["popular"][0]["text"] == formula.text

    rows = list(csv.DictReader(StringIO(day_report.as_csv(days))))
    assert [row["day"] for row in rows] == [add_days(DAY, n - 7) for n in range(8)]
    assert rows[4] == dict.fromkeys(rows[4], "") | {"day": add_days(DAY, -3)}
    assert int(rows[-1]["posts_public"]) == days[-1].posts["public"]

    (row,) = csv.DictReader(StringIO(day_report.popular_csv(days)))
    assert row["text"] == "'" + formula.text, "a spreadsheet would run it"
    assert (row["author"], row["author_id"], row["engagement_score"]) == ("'＠ada", "'-1", "1234")


def test_an_empty_network_has_a_report_too() -> None:
    assert "No public posts" in day_report.as_html([ContentDay(DAY, NOW)])


@pytest.fixture(scope="module")
def browsing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.mark.programs
@pytest.mark.parametrize("days", [1, 30])
@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (800, False), (1280, True)])
def test_the_report_is_legible_on_any_screen(
    browsing: Page, tmp_path: Path, days: int, width: int, *, dark: bool
) -> None:
    """No text under 12 px, no single tile in a row, nothing outside the page, no finding of axe; with tables opened."""
    month = history(days)
    long = PopularPost("p", "a", 1, "W" * 140, "صباح " * 20)
    month[-1] = replace(month[-1], active_users=12_345_678, popular=(*month[-1].popular, long))
    shown = tmp_path / "report.html"
    shown.write_text(day_report.as_html(month), encoding="utf-8")
    browsing.look(width=width, dark=dark)
    browsing.open(shown.as_uri())
    for opened in (False, True):
        browsing.evaluate(
            f"document.querySelectorAll('details').forEach((one) => {{ one.open = {str(opened).lower()}; }})"
        )
        seen = browsing.evaluate(
            """(() => {
              const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), small = [];
              for (let node = texts.nextNode(); node; node = texts.nextNode())
                if (node.textContent.trim() && parseFloat(getComputedStyle(node.parentElement).fontSize) < 12)
                  small.push(node.textContent);
              const rows = {};
              for (const tile of document.querySelectorAll('.tiles .card')) {
                const top = Math.round(tile.getBoundingClientRect().top);
                rows[top] = (rows[top] ?? 0) + 1;
              }
              return {over: document.documentElement.scrollWidth - innerWidth, small, rows: Object.values(rows),
                scaled: document.querySelectorAll('svg text').length};
            })()"""
        )
        assert seen["over"] <= 0
        assert seen["small"] == []
        assert seen["scaled"] == 0, "text in a picture shrinks with it"
        assert len(set(seen["rows"])) == 1, "each row has as many tiles"
        assert violations(browsing) == []
