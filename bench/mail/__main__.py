"""Measures the weekly digest's requests to DynamoDB and S3 and its CPU time per reader; extrapolates to a million.

    python -m bench.mail [--users 4000]

Runs the task itself, on the stand-in of bench.jobs, with an SES that accepts every mail at once. Each user follows a
hundred others and blocks two. The first table scales the measurements to the reference network (1 million users, half
of them active subscribers of the digest; 525,000 posts a week); the second, on paper, to ten, thirty and a hundred
million users. The last one is of the largest edition (largest.py).
"""

import argparse
import gc
import logging
import math
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import orjson

from bench import deployment, tables
from bench.jobs import network, paper, stand_in
from bench.jobs.stand_in import StandIn
from bench.mail import largest
from nexus import prices
from nexus.aws import sdk
from nexus.aws.dynamodb import to_item
from nexus.aws.table import Page, Table
from nexus.runs.transitions import MAX_CONTINUED
from nexus.testing import memory_backend, run_task
from social import catalogue
from social.data import blocks, posts

FOLLOWS, BLOCKS = 100, 2
USERS, ACTIVE, POSTS_A_WEEK = 1_000_000, 500_000, 525_000
ESTIMATE = 0.11  # dollars of reads a week for 500,000 mails, from before the task was written
UNIT_BYTES = 8192  # of an eventually consistent read
FEED_BYTES, USER_BYTES, BLOCK_BYTES = 85, 213, 64
"""Of an entry of the feed index, a user and a block, as this benchmark measures them."""


class Ses:
    """An SES that accepts every mail."""

    def __init__(self) -> None:
        self._ids = count()

    def get_account(self) -> dict[str, Any]:
        return {"SendingEnabled": True, "SendQuota": {"MaxSendRate": 1e6}}

    def send_email(self, **_: Any) -> dict[str, str]:
        return {"MessageId": f"m-{next(self._ids)}"}

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """One digest of `sent` mails: units by table or index, CPU seconds without the stand-in's own."""

    users: int
    considered: int
    sent: int
    week: int
    held: int
    authors: int
    requests: Mapping[str, int]
    read_from: Mapping[str, float]
    write_units: float
    edition_bytes: int
    cpu: float
    plan_cpu: float


def main() -> None:
    """Measures and prints; exits with 1 if reading costs more than 1.35 times the estimate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=4_000)
    one = measure(parser.parse_args().users)
    print(f"{one.users:,} users, {one.considered:,} active, {one.sent:,} mails, {one.week:,} public posts in the week")
    size = one.edition_bytes / one.held
    print(f"edition: {one.held:,} posts of {one.authors:,} authors, {size:.0f} bytes a post")
    print(f"CPU: {one.cpu / one.sent * 1e3:.2f} ms a mail; planning {one.plan_cpu / one.held * 1e6:.0f} us a post held")
    print(f"requests a mail: {sum(one.requests.values()) / one.sent:.2f}  {dict(one.requests)}")
    print(f"write units a mail: {one.write_units / one.sent:.2f}")
    units = read_units(one)
    total = sum(units.values()) * prices.READ_UNIT
    rows = [(name, f"{count:,.0f}", f"{count * prices.READ_UNIT:.3f}") for name, count in units.items()]
    rows.append(("**reading, together**", f"**{sum(units.values()):,.0f}**", f"**{total:.3f}**"))
    ledger = one.write_units / one.sent * ACTIVE
    rows.append(("ledger: one write to claim, one to settle", f"{ledger:,.0f}", f"{ledger * prices.WRITE_UNIT:.3f}"))
    rows.append(("SES", "", f"{ACTIVE * prices.MAIL:.0f}"))
    header = (f"for {ACTIVE:,} mails", "request units", "dollars")
    tables.show("mail-reading", tables.markdown(header, rows), tables.MAIL)
    print(f"\nreading: {total / ESTIMATE:.2f} x the estimate ({ESTIMATE} dollars)")
    at_scale(one)
    largest.show()
    if total > 1.35 * ESTIMATE:
        sys.exit("reading costs more than 1.35 times the estimate")


def read_units(one: Measured) -> dict[str, float]:
    """Read units of a digest of the reference network."""
    import digest.edition

    week = POSTS_A_WEEK * 0.85
    held = min(float(digest.edition.KEPT_POSTS), week * one.held / one.week)
    posts_read = one.read_from["posts/feed"] / one.week * week + one.read_from["posts"] / one.held * held
    # The users are read twice: by the scan for recipients, and by key for the authors' names.
    scanned = one.read_from["users"] - 0.5 * one.authors
    return {
        "whom each reader follows": one.read_from["follows"] / one.considered * ACTIVE,
        f"the week's posts: index, and {held:,.0f} in full": posts_read,
        "the names of their authors": 0.5 * held * one.authors / one.held,
        "scan of the users": scanned / one.users * USERS,
        "scan of the blocks": one.read_from["blocks"] / one.users * USERS,
    }


def at_scale(one: Measured) -> None:
    """Shows what a digest takes at sizes that do not fit on one machine, and which limits it meets."""
    import digest.edition
    import send_content_digest_email as task

    share, limit = paper.core_share("emails"), catalogue.send_content_digest_email.time_limit
    a_post, a_mail = seconds_a_ranked_post() / share, one.cpu / one.sent / share
    authors = digest.edition.KEPT_POSTS * one.authors / one.held
    budget = catalogue.send_content_digest_email.budget
    assert budget is not None
    assert budget.dollars is not None
    rows = []
    for million in (1, 10, 30, 100):
        users, mails = million * USERS, million * ACTIVE
        in_edition = users * BLOCKS <= digest.edition.KEPT_BLOCKS
        week = million * POSTS_A_WEEK * 0.85
        feed = week * one.read_from["posts/feed"] / one.week  # older posts with much engagement included
        entries = feed * UNIT_BYTES / FEED_BYTES / posts.FEED_SHARDS
        ranking = feed / paper.PAGE_UNITS / posts.FEED_SHARDS * paper.SECONDS_A_PAGE + entries * a_post
        units = feed + mails * one.read_from["follows"] / one.considered
        units += users * USER_BYTES / UNIT_BYTES + 0.5 * (min(week, digest.edition.KEPT_POSTS) + authors)
        units += users * BLOCKS * BLOCK_BYTES / UNIT_BYTES if in_edition else 0.5 * mails
        a_segment = (1 + MAX_CONTINUED) * 0.9 * limit
        waits = paper.SECONDS_A_REQUEST * (1 if in_edition else 2)
        rows.append(
            (
                f"{million}",
                f"{mails:,}",
                f"{units * prices.READ_UNIT:,.2f}",
                f"{mails * prices.MAIL:,.0f}",
                f"{mails * prices.MAIL / budget.dollars:,.1f}",
                f"{math.ceil(ranking / (limit - task.TIME_TO_PUBLISH))}",
                f"{mails / 86_400:,.0f}",
                f"{mails * task.SENDERS / (task.MAX_SEGMENTS * a_segment):,.0f}",
                f"{task.SENDERS / (waits + a_mail):,.0f}",
            )
        )
    header = (
        "million users",
        "mails",
        "$ reading",
        "$ SES",
        "days of the budget",
        f"invocations to rank a shard, of {1 + MAX_CONTINUED}",
        "mails/s to take a day",
        f"mails/s for {task.MAX_SEGMENTS:,} segments",
        f"mails/s of {task.SENDERS} sandboxes",
    )
    tables.show("mail-scale", tables.markdown(header, rows), tables.MAIL)


def seconds_a_ranked_post(pages: int = 60) -> float:
    """CPU seconds to parse and rank one entry of the feed index; measured on this machine when called."""
    import digest.edition

    chance, since = random.Random(3), network.NOW - 7 * 86_400
    making, each = 0.0, (1 << 20) // FEED_BYTES

    def page(number: int) -> bytes:
        items = []
        for _ in range(each):
            score, created_at = int(3 * chance.paretovariate(0.8)), chance.randrange(since, network.NOW)
            keys = {"post_id": f"{chance.getrandbits(64):016x}", "author_id": f"{chance.getrandbits(64):016x}"}
            items.append(to_item({**keys, "created_at": created_at, "feed_rank": posts.feed_rank(score, created_at)}))
        return orjson.dumps({"Items": items, "next": number + 1 < pages})

    def query(*_: object, **__: object) -> Iterator[Page]:
        nonlocal making
        for number in range(pages):
            begun = time.process_time()
            body = page(number)
            making += time.process_time() - begun
            answer = orjson.loads(body)
            yield Page(answer["Items"], each, {"post_id": {"S": "x"}} if answer["next"] else None)

    with TemporaryDirectory() as folder, patch.object(Table, "query", query):
        started = time.process_time()
        assert digest.edition.rank_shard(Path(folder) / "edition.sqlite", 0, since, network.NOW)
        return (time.process_time() - started - making) / (pages * each)


def measure(people: int) -> Measured:
    """One digest on a fresh network."""
    deployment.enter(
        "emails",
        NEXUS_MAIL_SENDER="no-reply@nexus.example",
        NEXUS_MAIL_BASE_URL="https://nexus.example",
        NEXUS_MAIL_POSTAL_ADDRESS="1 Example Street",
    )
    import digest.edition
    import send_content_digest_email as task

    logging.disable(logging.CRITICAL)
    all_tables = stand_in.tables()
    network.FOLLOWS = FOLLOWS
    network.fill(all_tables, people)
    chance = random.Random(2)
    ids = [item["user_id"]["S"] for item in all_tables["users"].items.values()]
    pairs = {(user_id, chance.choice(ids)) for user_id in ids for _ in range(BLOCKS)}
    all_tables[blocks.TABLE.entity].load(
        to_item({"user_id": a, "blocked_id": b, "created_at": network.NOW}) for a, b in sorted(pairs)
    )
    for table in all_tables.values():
        table.scan_order(None)

    ses = Ses()
    built: dict[str, Any] = {"cpu": 0.0}
    publish = digest.edition.publish

    def timed(work: Callable[..., bool]) -> Callable[..., bool]:
        def complete(*args: Any, **also: Any) -> bool:
            own, started = cloud.spent.own_seconds, time.process_time()
            ended = work(*args, **also)
            built["cpu"] += time.process_time() - started - (cloud.spent.own_seconds - own)
            return ended

        return complete

    def measured(path: Path, key: str) -> None:
        built["bytes"] = path.stat().st_size
        with closing(sqlite3.connect(path)) as database:
            (built["authors"],) = database.execute("SELECT count(*) FROM authors").fetchone()
        built["held"] = digest.edition.held(path)
        publish(path, key)

    cloud = StandIn(all_tables.values())
    with (
        cloud.installed(),
        memory_backend(),
        patch("mail.delivery.client", lambda service: ses if service == "sesv2" else sdk.client(service)),
        patch("social.mail_links.signing_keys", lambda: (b"k" * 64,)),
        patch("send_content_digest_email.segments", lambda *_: 4),
        patch("send_content_digest_email._now", lambda: network.NOW),
        patch("digest.edition.rank_shard", timed(digest.edition.rank_shard)),
        patch("digest.edition.build", timed(digest.edition.build)),
        patch("digest.edition.publish", measured),
    ):
        week = network.NOW - 7 * 86_400, network.NOW
        feed = sum(len(page.posts) for shard in range(posts.FEED_SHARDS) for page in posts.ranked(shard, *week))
        cloud.reset()  # the above is not part of the digest
        gc.collect()
        gc.freeze()
        started = time.process_time()
        report = run_task(task.send_content_digest_email, {}, sent_at=network.NOW)
        cpu = time.process_time() - started - cloud.spent.own_seconds
    spent = cloud.spent
    task.close_editions()
    assert report.unknown == 0
    assert not report.failed
    print(f"skipped: {dict(report.skipped)}")
    return Measured(
        users=people,
        considered=report.considered,
        sent=report.sent,
        week=feed,
        held=built["held"],
        authors=built["authors"],
        requests=spent.requests,
        read_from=spent.read_from,
        write_units=spent.write_units,
        edition_bytes=built["bytes"],
        cpu=cpu - built["cpu"],
        plan_cpu=built["cpu"],
    )


if __name__ == "__main__":
    main()
