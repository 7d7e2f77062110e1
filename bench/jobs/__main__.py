"""What each job asks of DynamoDB and S3, and its CPU time and memory, at 1k, 10k and 100k users.

    python -m bench.jobs [--users 1000,10000,100000] [--only JOB]

Each job runs in a process of its own, on a stand-in inside the process (bench.jobs.stand_in), filled by
bench.jobs.network. The last table scales what was metered to the reference of docs/data-model.md (1 million users, 100
million follows, 50 million posts) and compares a day's dollars with the best design worked out on paper before.
"""

import argparse
import gc
import importlib
import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench import deployment
from bench.jobs import network, stand_in
from bench.jobs.stand_in import Spent, StandIn, dollars
from nexus.testing import memory_backend, run_task
from social.data import analytics, posts
from social.data.days import add_days, day_of

REFERENCE_USERS = 1_000_000
REFERENCE_FOLLOWS, REFERENCE_POSTS = 100_000_000, 50_000_000
GOOD_WAY = {  # dollars a day
    "update_user_statistics": 0.42,
    "update_trending_hashtags": 0.003,
    "update_post_engagement_scores": 0.28,
    "cleanup_expired_tokens": 0.009,
    "cleanup_old_posts": 0.0237,  # with the entry by which an author's archived posts are found
    "generate_content_analytics": 0.010,
}
RUNS_A_DAY = {"update_trending_hashtags": 24.0, "cleanup_old_posts": 1 / 7}
LIMIT = 1.35


@dataclass(frozen=True, slots=True)
class Measured:
    """One job at one size. Units are request units; `cpu` and `wall` are seconds without the stand-in's own."""

    job: str
    users: int
    past: float
    rows: int
    changed: int
    requests: int
    read_units: float
    write_units: float
    objects: int
    cpu: float
    peak_mb: float
    dollars: float
    read_from: dict[str, float]
    posts: int
    parts: dict[str, float]


def main() -> None:
    """Measures, prints, and exits with 1 if a job costs more than LIMIT times the best design on paper."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="1000,10000,100000")
    parser.add_argument("--only", choices=sorted(GOOD_WAY))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(asdict(measure(asked.measure[0], int(asked.measure[1]), float(asked.measure[2])))))
        return
    sizes = [int(size) for size in asked.users.split(",")]
    jobs = [asked.only] if asked.only else list(GOOD_WAY)
    found = []
    print(HEADER)
    for job in jobs:
        runs = [(size, 1.0) for size in sizes] + [(sizes[min(1, len(sizes) - 1)], 4.0)]
        for size, past in runs:
            one = in_process_of_its_own(job, size, past)
            found.append(one)
            print(line(one), flush=True)
    print("\nScaled to 1 million users, 100 million follows, 50 million posts, a day:")
    print(f"{'job':32}{'$ a day':>10}{'on paper':>10}{'ratio':>8}")
    worst = 0.0
    for job in jobs:
        two = [one for one in found if one.job == job and one.past == 1.0][-2:]
        cost = scaled(two[0], two[-1]) if len(two) > 1 else float("nan")
        worst = max(worst, cost / GOOD_WAY[job])
        print(f"{job:32}{cost:>10.4f}{GOOD_WAY[job]:>10.4f}{cost / GOOD_WAY[job]:>8.2f}")
        for name, micros in two[-1].parts.items():
            print(f"    {micros:.2f} us of CPU per {name}")
    if worst > LIMIT:
        sys.exit(f"over {LIMIT} x what was worked out on paper")


HEADER = (
    f"{'job':32}{'users':>8}{'past':>6}{'rows':>10}{'changed':>9}{'requests':>9}{'reads':>10}{'writes':>10}{'S3':>6}"
    f"{'CPU s':>8}{'peak MB':>9}   per 1,000 rows: requests, read, write units, CPU ms, MB"
)


def line(one: Measured) -> str:
    """One row of the table; `past` is the number of posts per user that no job needs to read."""
    thousand = max(one.rows, 1) / 1000
    per = (one.requests, one.read_units, one.write_units, one.cpu * 1000, one.peak_mb)
    shares = "  ".join(f"{stand_in.nearest(value / thousand):g}" for value in per)
    return (
        f"{one.job:32}{one.users:>8}{one.past:>6g}{one.rows:>10}{one.changed:>9}{one.requests:>9}{one.read_units:>10.0f}"
        f"{one.write_units:>10.0f}{one.objects:>6}{one.cpu:>8.2f}{one.peak_mb:>9.1f}   {shares}"
    )


def scaled(smaller: Measured, larger: Measured) -> float:
    """A day's dollars at the reference: the line through two sizes, edges and authors' posts by their own number."""

    def at_reference(value: Callable[[Measured], float]) -> float:
        slope = (value(larger) - value(smaller)) / (larger.users - smaller.users)
        return value(larger) + max(0.0, slope) * (REFERENCE_USERS - larger.users)

    def other_reads(one: Measured) -> float:
        return one.read_units - one.read_from.get("follows", 0.0) - one.read_from.get("posts/by-author", 0.0)

    edges = larger.read_from.get("follows", 0.0) / (larger.users * network.FOLLOWS) * REFERENCE_FOLLOWS
    by_author = larger.read_from.get("posts/by-author", 0.0) / larger.posts * REFERENCE_POSTS
    reads = edges + by_author + at_reference(other_reads)
    units = reads * 0.125e-6 + at_reference(lambda one: one.write_units) * 0.625e-6
    objects = at_reference(lambda one: one.dollars - one.read_units * 0.125e-6 - one.write_units * 0.625e-6)
    return (units + objects) * RUNS_A_DAY.get(larger.job, 1.0)


def in_process_of_its_own(job: str, users: int, past: float) -> Measured:
    """Runs `measure` in a fresh interpreter."""
    command = [sys.executable, "-m", "bench.jobs", "--measure", job, str(users), str(past)]
    done = subprocess.run(command, cwd=deployment.ROOT, check=True, capture_output=True, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(job: str, users: int, past: float) -> Measured:
    """One job on a fresh network."""
    deployment.enter("analytics", "maintenance")
    logging.disable(logging.CRITICAL)
    tables = stand_in.tables()
    network.fill(tables, users, past=past)
    for table in tables.values():
        table.scan_order(None)
        for index in table.indexes.values():
            table.scan_order(index)
    module = importlib.import_module(job)
    cloud = StandIn(tables.values())
    parts = CpuOfParts(cloud)
    with cloud.installed(), memory_backend(), patch("time.time", lambda: float(network.NOW)):
        PREPARE.get(job, lambda _module: None)(module)
        parts.watch(job, module)
        cloud.reset()
        gc.collect()
        gc.freeze()  # keeps the stand-in's heap out of the job's garbage collections
        before = _resident()
        started = time.process_time()
        report = RUN.get(job, _run)(module, job)
        cpu = time.process_time() - started - cloud.spent.own_seconds
        peak = _peak() - before
    spent = cloud.spent
    _agree(report, spent)
    return Measured(
        job=job,
        users=users,
        past=past,
        rows=report.rows_read,
        changed=report.changed,
        requests=spent.dynamodb_requests,
        read_units=spent.read_units,
        write_units=spent.write_units,
        objects=spent.objects_put + spent.objects_got,
        cpu=cpu,
        peak_mb=max(0.0, peak),
        dollars=dollars(spent),
        read_from=dict(spent.read_from),
        posts=len(tables["posts"].items),
        parts=parts.per_row(users, report),
    )


def _agree(report: Any, spent: Spent) -> None:
    """Checks that the report's figures equal the service's own, which detects unmetered requests."""
    plain = abs(report.read_units - spent.read_units) + abs(report.write_units - spent.write_units)
    if plain > 0.02 * (spent.read_units + spent.write_units) + 60:
        sys.exit(f"the report says {report.read_units} + {report.write_units} units, the stand-in {spent}")


class CpuOfParts:
    """CPU by kind of row: microseconds per edge, post and user row of the nightly count."""

    def __init__(self, cloud: StandIn) -> None:
        self._cloud = cloud
        self._seconds: dict[str, float] = {}

    def watch(self, job: str, module: Any) -> None:
        if job != "update_user_statistics":
            return
        count, merge = module.count, module.merge
        module.count = lambda args, run: self._timed(args.part.table, lambda: count(args, run))
        module.merge = lambda args, run: self._timed("merge", lambda: merge(args, run))

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        own, started = self._cloud.spent.own_seconds, time.process_time()
        try:
            return work()
        finally:
            spent = time.process_time() - started - (self._cloud.spent.own_seconds - own)
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def per_row(self, users: int, report: Any) -> dict[str, float]:
        if not self._seconds:
            return {}
        posts = report.rows_read - users - users * network.FOLLOWS
        return {
            "edge scanned": self._seconds["follows"] / (users * network.FOLLOWS) * 1e6,
            "post in the index": self._seconds["posts"] / posts * 1e6,
            "user row scanned": self._seconds["users"] / users * 1e6,
            "user row merged, one in four written": self._seconds["merge"] / users * 1e6,
        }


def _resident() -> float:
    """Current megabytes; resets the peak."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _peak() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in status if row.startswith("VmHWM")) / 1024


def _run(module: Any, job: str, args: dict[str, Any] | None = None) -> Any:
    return run_task(getattr(module, job), args or {})


def _an_hour_before(module: Any) -> None:
    """The state of every hour but the first: the hours before the last are kept."""
    _run(module, "update_trending_hashtags", {"at": network.NOW - 3_600})


def _a_week_before(_module: Any) -> None:
    analytics.raise_watermark("cleanup_old_posts", add_days(posts.old_day(day_of(network.NOW)), -7))


PREPARE: dict[str, Callable[[Any], None]] = {
    "update_trending_hashtags": _an_hour_before,
    "cleanup_old_posts": _a_week_before,
}
RUN: dict[str, Callable[[Any, str], Any]] = {
    "cleanup_old_posts": lambda module, job: _run(module, job, {"mode": "archive"}),
    "update_trending_hashtags": lambda module, job: _run(module, job, {"at": network.NOW}),
}


if __name__ == "__main__":
    main()
