"""The weekly digest against moto and an SES that can refuse, throttle, stay silent and be slow.

Whatever happens, nobody gets two mails of one week, and nobody is lost whose mail SES has certainly not taken.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends

import send_content_digest_email as digest_task
from mail import delivery, languages
from nexus import worker
from nexus.aws.dynamodb import Write
from nexus.errors import InvalidMessage, Reject, Retry
from nexus.testing import run_task
from send_content_digest_email import segments, send_content_digest_email, span
from social import catalogue
from social.data import blocks, follows, mail_ledger, objects, posts, users
from social.data.posts import Counters, Media, Post, Rendition
from social.parts import DigestPart, DigestSegment
from tests.support.template import ACCOUNT, REGION, STACK
from tests.unit.emails.conftest import NOW, Ses, entries, person, refusal

RUN = "01900000-0000-7000-8000-000000000001"
OTHER = "01900000-0000-7000-8000-000000000002"
WEEK = "2026-W48"
SEGMENTS = 3


class Killed(BaseException):
    """The sandbox dies."""


@pytest.fixture(autouse=True)
def _small(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments, so that a few users make several."""
    monkeypatch.setattr(digest_task, "segments", lambda people, per_second: SEGMENTS)
    monkeypatch.setattr(digest_task, "READERS_AT_ONCE", 4)


def run(run_id: str = RUN, *, sent_at: float | None = None, **args: Any) -> catalogue.DigestReport:
    report: catalogue.DigestReport = run_task(
        send_content_digest_email,
        args,
        seconds=100,
        id=run_id,
        task="send_content_digest_email",
        parent=run_id,
        sent_at=digest_task._now() if sent_at is None else sent_at,
    )
    return report


def post(post_id: str, author_id: str, *, likes: int = 1, hours: float = 24, **values: Any) -> Post:
    made = Post(
        post_id=post_id,
        author_id=author_id,
        created_at=int(NOW - hours * 3600),
        text=values.pop("text", f"This is {post_id}"),
        counters=Counters(likes=likes),
        engagement_score=3 * likes,
        **values,
    )
    posts.put_many([made], now=NOW)
    return made


def town(people: int) -> list[str]:
    """This many readers, and one author whose post is new to all of them."""
    person("author", last_active_day="2026-10-01")
    post("news", "author", likes=9, hours=48)
    return [person(f"r{number:02}").email for number in range(people)]


def text_to(ses: Ses, user_id: str) -> str:
    (request,) = [one for one in ses.sent if one["Destination"]["ToAddresses"] == [f"{user_id}@example.com"]]
    text: str = request["Content"]["Simple"]["Body"]["Text"]["Data"]
    return text


# --- who gets what ---------------------------------------------------------------------------------------------------


def test_each_active_reader_gets_their_own_digest(ses: Ses) -> None:
    person("ada")
    person("bea", name="Bea Follows", locale="fr")
    person("cleo", last_active_day="2026-11-16")
    person("idle", last_active_day="2026-11-15")
    person("eve", name="Eve")
    follows.add("bea", "ada", NOW)
    blocks.add("bea", "eve", NOW)
    post("adas", "ada", likes=2)
    post("eves", "eve", likes=50)
    post("cleos", "cleo", likes=30)
    post("hidden", "ada", likes=99, visibility="private")
    post("for-followers", "ada", likes=98, visibility="followers")
    post("old", "cleo", likes=999, hours=24 * 8)

    report = run()

    assert ses.recipients == ["ada@example.com", "bea@example.com", "cleo@example.com", "eve@example.com"]
    reported = {
        user_id: [
            name for name in ("adas", "eves", "cleos", "hidden", "for-followers", "old") if f"This is {name}" in text
        ]
        for user_id in ("ada", "bea", "cleo", "eve")
        for text in [text_to(ses, user_id)]
    }
    assert reported == {
        "ada": ["eves", "cleos"],
        "bea": ["adas", "cleos"],
        "cleo": ["adas", "eves"],
        "eve": ["adas", "cleos"],
    }
    in_french = text_to(ses, "bea")
    assert in_french.index("DES PERSONNES QUE VOUS SUIVEZ") < in_french.index("This is adas")
    assert in_french.index("POPULAIRE") < in_french.index("This is cleos")
    assert "du 16 au 22 novembre" in in_french
    assert (report.week, report.considered, report.sent, report.skipped) == (WEEK, 4, 4, {})


def test_the_digest_has_its_own_sender_and_list_headers(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that readers can filter it, and complaints about one mailing do not count for the other."""
    town(1)
    run()
    (request,) = ses.sent
    assert request["FromEmailAddress"] == "Nexus <digest@nexus.example>"
    headers = {header["Name"]: header["Value"] for header in request["Content"]["Simple"]["Headers"]}
    assert headers["List-Id"] == "Nexus <digest.nexus.example>"
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    tags = {tag["Name"]: tag["Value"] for tag in request["EmailTags"]}
    assert (tags["ses:feedback-id-a"], tags["ses:feedback-id-b"]) == ("digest", STACK)


def test_the_report_counts_each_post_that_no_one_was_shown_once(ses: Ses) -> None:
    town(7)
    post("orphan", "nobody", likes=99)
    report = run()
    assert report.left_out == {"their author was deleted": 1}, "once, and not by each segment"


def test_the_report_counts_why_readers_were_skipped(ses: Ses) -> None:
    person("author")
    post("news", "author")
    person("ada")
    person("bea", digest=False)
    person("cleo", suppressed="complaint")
    person("dan", email="dan")
    person("fay", last_active_day="2026-01-01")
    users.TABLE.put({"user_id": "broken", "email": "broken@example.com", "created_at": 1})

    report = run()

    assert ses.recipients == ["ada@example.com"]
    assert report.considered == 6
    assert report.sent == 1
    assert report.skipped == {
        "nothing new": 1,  # the author's own post is the week's only one
        "does not want it": 1,
        "suppressed: complaint": 1,
        "the address cannot be mailed": 1,
    }
    assert report.failed == {"unreadable user": 1}
    assert report.requests > 0
    assert report.read_units > 0


def test_a_picture_comes_from_the_renditions(ses: Ses) -> None:
    person("author", last_active_day="2026-10-01")
    person("ada")
    jpeg = Rendition(key="media/p/h/w1080_jpeg.jpg", width=1080, height=720, bytes=1, content_type="image/jpeg")
    post("photo", "author", media=Media(status="ready", kind="image", renditions={"w1080_jpeg": jpeg}))
    run()
    html = ses.sent[0]["Content"]["Simple"]["Body"]["Html"]["Data"]
    assert 'src="https://media.nexus.example/media/p/h/w1080_jpeg.jpg"' in html


def test_a_post_made_private_since_it_was_scored_is_left_out(ses: Ses) -> None:
    person("author", last_active_day="2026-10-01")
    person("ada")
    post("gone", "author")
    posts.TABLE.update(Write({"post_id": "gone"}, set={"visibility": "private"}))  # still in the feed index
    report = run()
    assert (report.sent, report.left_out) == (0, {"no longer public": 1})


def test_a_week_without_posts_sends_nothing(ses: Ses) -> None:
    """And looks no reader up: `nexus test` sends the digest of such a week."""
    person("ada")
    report = run()
    assert (report.considered, report.sent, ses.asked) == (0, 0, 0)


def test_next_weeks_digest_repeats_no_post_of_this_weeks(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second digest goes out only a day later, in the next ISO week, so most of its days overlap the first's."""
    town(2)
    sunday = NOW - 86_400
    monkeypatch.setattr(digest_task, "_now", lambda: sunday)
    assert run().week == "2026-W47"
    monkeypatch.setattr(digest_task, "_now", lambda: NOW)
    assert run(OTHER).skipped == {"nothing new": 2}
    post("fresh", "author", hours=1)
    assert run("01900000-0000-7000-8000-000000000003").sent == 2
    assert Counter(ses.recipients) == {"r00@example.com": 2, "r01@example.com": 2}
    assert all("This is news" not in request["Content"]["Simple"]["Body"]["Text"]["Data"] for request in ses.sent[2:])


@pytest.mark.parametrize(("hours_ago", "week"), [(10, "2026-W47"), (73, WEEK)], ids=["retried", "late"])
def test_a_run_that_is_retried_after_midnight_on_sunday_keeps_its_week(ses: Ses, hours_ago: int, week: str) -> None:
    """NOW is 09:00 on the Monday of week 48. A dead letter that is sent again days later is of the current week."""
    town(2)
    report = run(sent_at=NOW - hours_ago * 3600)
    assert (report.week, report.sent) == (week, 2)


def test_a_digest_sent_late_repeats_no_post_of_the_newer_one(ses: Ses) -> None:
    """NOW is in week 48, whose digest shows most of the posts of week 47."""
    town(2)
    assert run().sent == 2
    report = run(OTHER, week="2026-W47")
    assert (report.week, report.sent, report.skipped) == ("2026-W47", 0, {"nothing new": 2})
    post("left", "author", hours=100, text="Nobody has seen this")
    assert run("01900000-0000-7000-8000-000000000003", week="2026-W47").sent == 2


# --- once ------------------------------------------------------------------------------------------------------------


def test_delivered_twice_it_is_sent_once_and_reports_the_same(ses: Ses) -> None:
    readers = town(7)
    first, second = run(), run()
    assert ses.recipients == readers
    assert (first.sent, second.sent, second.considered) == (7, 7, 7)


def test_two_overlapping_digests_send_once(ses: Ses) -> None:
    """The second begins while the first waits for SES, in the middle of every other send."""
    readers = town(6)
    others: list[catalogue.DigestReport] = []

    def meanwhile(request: dict[str, Any], number: int) -> None:
        if not others:
            others.append(catalogue.DigestReport())
            others[0] = run(OTHER)

    ses.answers = meanwhile
    first = run()
    assert ses.recipients == readers
    reasons = Counter(first.skipped) + Counter(others[0].skipped)
    assert first.sent + others[0].sent == 6
    assert set(reasons) <= {"already sent", "being sent by another run"}
    assert first.considered + others[0].considered == 12


@pytest.mark.simulation
@pytest.mark.parametrize("dies_at", [0, 3, 7])
def test_a_sandbox_that_dies_leaves_few_mails_unknown_and_the_next_attempt_sends_the_rest(
    ses: Ses, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = town(8)
    monkeypatch.setattr(digest_task, "THREADS", 1)

    def die(request: dict[str, Any], number: int) -> None:
        if number == dies_at + 1:
            raise Killed

    ses.answers = die
    with pytest.raises(Killed):
        run()
    ses.answers = lambda request, number: None
    report = run()

    assert max(Counter(ses.recipients).values()) == 1
    assert (report.considered, report.sent, report.unknown) == (8, 7, 1)
    unknown = [entry for entry in entries(mail_ledger.digest(WEEK)) if entry.status == "unknown"]
    assert {f"{entry.user_id}@example.com" for entry in unknown} == set(readers) - set(ses.recipients)


def test_a_continued_segment_counts_every_reader_once(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        users.TABLE.put({"user_id": f"broken{number}", "email": "broken@example.com", "created_at": 1})
    readers = town(13)
    looks = Counter[str]()

    def short(run: worker.Run) -> bool:
        looks["at the clock"] += 1
        return looks["at the clock"] % 7 == 0

    monkeypatch.setattr(worker.Run, "short_of_time", property(short))
    report = run()
    assert ses.recipients == readers
    assert (report.considered, report.sent, report.failed) == (16, 13, {"unreadable user": 3})


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_throttling_loses_no_reader(ses: Ses) -> None:
    readers = town(12)

    def every_third(request: dict[str, Any], number: int) -> None:
        if number % 3 == 0:
            raise refusal("TooManyRequestsException", "Maximum sending rate exceeded.")

    ses.answers = every_third
    report = run()
    assert ses.recipients == readers
    assert report.sent == 12
    assert report.throttled >= 4


def test_a_throttled_hour_ends_the_attempt_and_the_next_one_continues(ses: Ses) -> None:
    readers = town(5)

    def throttle(request: dict[str, Any], number: int) -> None:
        raise refusal("TooManyRequestsException", "Maximum sending rate exceeded.")

    ses.answers = throttle
    with pytest.raises(Retry, match="Maximum sending rate"):
        run()
    assert list(entries(mail_ledger.digest(WEEK))) == []
    ses.answers = lambda request, number: None
    assert run().sent == 5
    assert ses.recipients == readers


def test_an_attempt_whose_time_ends_while_ses_accepts_nothing_is_retried_with_a_wait(
    ses: Ses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reader alone does not reach the number of refusals that ends an attempt early."""
    town(1)
    looks = itertools.count(1)
    monkeypatch.setattr(worker.Run, "short_of_time", property(lambda run: next(looks) == 11))

    def throttle(request: dict[str, Any], number: int) -> None:
        raise refusal("TooManyRequestsException", "Maximum sending rate exceeded.")

    ses.answers = throttle
    with pytest.raises(Retry, match="Maximum sending rate"):
        run()
    assert 0 < ses.asked < digest_task.REFUSED_IN_A_ROW


def test_when_the_days_quota_is_used_up_the_rest_goes_out_later(ses: Ses) -> None:
    readers = town(9)

    def quota(request: dict[str, Any], number: int) -> None:
        if len(ses.sent) >= 4:
            raise refusal("TooManyRequestsException", "Daily message quota exceeded.")

    ses.answers = quota
    with pytest.raises(Retry) as raised:
        run()
    assert raised.value.after == delivery.QUOTA_WAIT
    ses.answers = lambda request, number: None
    report = run()
    assert ses.recipients == readers
    assert (report.considered, report.sent) == (9, 9)


def test_an_outage_stops_a_segment_before_it_loses_many(ses: Ses, monkeypatch: pytest.MonkeyPatch) -> None:
    town(12)
    monkeypatch.setattr(digest_task, "THREADS", 1)
    monkeypatch.setattr(digest_task, "segments", lambda people, per_second: 1)

    def silent(request: dict[str, Any], number: int) -> None:
        raise ReadTimeoutError(endpoint_url="https://email")

    ses.answers = silent
    with pytest.raises(Retry, match="in a row without a response"):
        run()
    assert ses.asked == digest_task.LOST_IN_A_ROW
    ses.answers = lambda request, number: None
    report = run()
    assert (report.sent, report.unknown) == (12 - digest_task.LOST_IN_A_ROW, digest_task.LOST_IN_A_ROW)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Email address is not verified. ... region EU-WEST-1: no-reply@nexus.example", "sender is not verified"),
        ("Sending paused for this account. For more information, ...", "Sending paused for this account"),
    ],
)
def test_an_error_that_stops_all_mail_ends_the_segment_and_loses_no_reader(ses: Ses, message: str, reason: str) -> None:
    readers = town(12)

    def refuse(request: dict[str, Any], number: int) -> None:
        raise refusal("MessageRejected", message)

    ses.answers = refuse
    with pytest.raises(Reject, match=reason):
        run()
    assert ses.asked <= digest_task.THREADS
    ses.answers = lambda request, number: None
    assert run().sent == 12
    assert ses.recipients == readers


def test_after_a_mail_that_was_sent_before_the_next_readers_are_looked_up_without_a_claim(
    ses: Ses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_task, "READERS_AT_ONCE", 1)
    monkeypatch.setattr(digest_task, "segments", lambda people, per_second: 1)
    readers = town(6)
    run()
    first = ses.sent[0]["Destination"]["ToAddresses"][0].partition("@")[0]
    mailing = mail_ledger.digest(WEEK)
    mail_ledger.TABLE.delete_many([{"mailing": mailing.partition(first), "user_id": first}])
    claimed: list[str] = []
    claim = mail_ledger.claim

    def noted(mailing: mail_ledger.Mailing, user_id: str, *args: Any, **more: Any) -> Any:
        claimed.append(user_id)
        return claim(mailing, user_id, *args, **more)

    monkeypatch.setattr(mail_ledger, "claim", noted)
    assert run().sent == len(readers)
    assert claimed[0] == first
    assert len(claimed) == 2


def test_in_sess_sandbox_only_verified_readers_get_the_digest(ses: Ses) -> None:
    town(2)
    person("zoe", email="suspended@example.com")

    def sandbox(request: dict[str, Any], number: int) -> None:
        (address,) = request["Destination"]["ToAddresses"]
        if address != "r01@example.com":
            message = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "
            raise refusal("MessageRejected", message + address)

    ses.answers = sandbox
    report = run()
    assert ses.recipients == ["r01@example.com"]
    assert report.failed == {"sandbox: the recipient is not verified": 2}


def test_a_language_that_cannot_be_rendered_fails_only_for_its_readers(
    ses: Ses, monkeypatch: pytest.MonkeyPatch
) -> None:
    town(1)
    person("zoe", locale="fr")
    french = languages.load("fr")
    broken = languages.Language(
        "fr", "ltr", {**french.texts, "digest.why": "{nobody}"}, french.plural, ",", french.months
    )
    choose = languages.choose
    monkeypatch.setattr(languages, "choose", lambda locale: broken if locale == "fr" else choose(locale))
    report = run()
    assert ses.recipients == ["r00@example.com"]
    assert report.failed == {"template": 1}


def test_paused_sending_rejects_the_run_before_it_plans(ses: Ses) -> None:
    town(1)
    ses.account["SendingEnabled"] = False
    with pytest.raises(Reject, match="paused"):
        run()


def test_a_segment_that_is_sent_again_after_its_edition_has_expired_is_rejected(ses: Ses) -> None:
    town(1)
    part: dict[str, Any] = {
        "edition": "digest/2026-W48/1-x.sqlite",
        "since": 1,
        "until": 2,
        "segment": 0,
        "total": 1,
        "per_second": 1.0,
    }
    with pytest.raises(Reject, match="expired"):
        run_task(send_content_digest_email, DigestSegment(week=WEEK, part=DigestPart(**part)))


BEHAVIOURS = st.lists(
    st.sampled_from(["ok", "ok", "ok", "throttled", "quota", "silent", "dies", "silent after taking it", "refused"]),
    min_size=4,
    max_size=8,
)


@pytest.mark.simulation
@settings(max_examples=6)
@given(BEHAVIOURS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_each_reader_gets_at_most_one_mail_and_none_is_lost_under_any_ses_errors(
    ses: Ses, behaviours: list[str], people: int, chance: random.Random
) -> None:
    """Attempts until one succeeds: each reader gets at most one mail, and those without one are recorded as unknown."""
    for table in dynamodb_backends[ACCOUNT][REGION].tables.values():
        table.items.clear()
    for bucket in s3_backends[ACCOUNT]["aws"].buckets.values():
        bucket.keys.clear()
    digest_task.close_editions()
    ses.sent.clear()
    left = list(behaviours)
    readers = set(town(people))

    ses.answers = _behaving(ses, left)
    for _ in range(len(behaviours) + 2):
        try:
            report = run(chance.choice([RUN, RUN, OTHER]))
        except (Retry, Reject, Killed):
            continue
        if not left:
            break
    ses.answers = lambda request, number: None
    report = run()

    received = Counter(ses.recipients)
    assert not [reader for reader, count in received.items() if count > 1]
    statuses = {f"{e.user_id}@example.com": e.status for e in entries(mail_ledger.digest(WEEK))}
    assert set(statuses) == readers
    assert {reader for reader, status in statuses.items() if status == "sent"} <= set(received)
    assert readers - set(received) <= {reader for reader, status in statuses.items() if status == "unknown"}
    assert report.considered == people


def _behaving(ses: Ses, left: list[str]) -> Callable[[dict[str, Any], int], None]:
    def answer(request: dict[str, Any], number: int) -> None:
        match left.pop() if left else "ok":
            case "throttled":
                raise refusal("TooManyRequestsException", "Maximum sending rate exceeded.")
            case "quota":
                raise refusal("TooManyRequestsException", "Daily message quota exceeded.")
            case "refused":
                raise refusal("BadRequestException", "no")
            case "silent":
                raise ReadTimeoutError(endpoint_url="https://email")
            case "silent after taking it":
                ses.sent.append(request)
                raise ReadTimeoutError(endpoint_url="https://email")
            case "dies":
                raise Killed

    return answer


# --- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "rate", "wanted"),
    [
        (0, 14, 1),
        (1, 14, 1),
        (700, 14, 2),
        (1_000_000, 14, 1430),
        (1_000_000, 500, 41),
        (10**9, 1, digest_task.MAX_SEGMENTS),
    ],
)
def test_segments_are_as_long_as_sess_rate_allows(people: int, rate: float, wanted: int) -> None:
    assert abs(segments(people, rate) - wanted) <= 1


def test_a_digest_of_a_week_ends_on_its_monday_or_now() -> None:
    assert span("2026-W48", NOW) == (NOW - 7 * 86_400, NOW)
    monday = NOW - 9 * 3600
    assert span("2026-W47", NOW) == (monday - 7 * 86_400, monday)
    with pytest.raises(Reject, match="2026-W49 has not begun"):
        span("2026-W49", NOW)


@pytest.mark.parametrize("week", ["2026-W54", "2025-W53", "2026-W00"])
def test_an_invalid_week_is_refused_before_it_is_sent(week: str) -> None:
    with pytest.raises(InvalidMessage, match=rf"week: .* \(got '{week}'\)"):
        catalogue.send_content_digest_email.s(week=week)


def test_the_plan_shares_one_edition(ses: Ses) -> None:
    town(2)
    run()
    shards = [f"digest/{WEEK}/{NOW}-{RUN}.{shard}.sqlite" for shard in range(posts.FEED_SHARDS)]
    assert list(objects.keys("archive", "digest/")) == [*shards, f"digest/{WEEK}/{NOW}-{RUN}.sqlite"]


def test_reports_of_segments_are_summed() -> None:
    one = catalogue.DigestReport(week=WEEK, considered=3, sent=1, skipped={"a": 2}, read_units=0.5)
    two = catalogue.DigestReport(week=WEEK, considered=4, sent=2, skipped={"a": 1, "b": 1}, failed={"c": 1})
    total = one.add(two)
    assert (total.week, total.considered, total.sent, total.read_units) == (WEEK, 7, 3, 0.5)
    assert (total.skipped, total.failed) == ({"a": 3, "b": 1}, {"c": 1})
