"""Measures each job's requests to DynamoDB and S3, its CPU time and its memory, at 1k, 10k and 100k users.

    python -m bench.jobs [--users 1000,10000,100000] [--only JOB] [--figures FILE]

Each job runs in its own process, on a stand-in inside the process (bench.jobs.stand_in), filled by bench.jobs.network
once for each size (100,000 users take 2 GB). bench.jobs.paper extrapolates from the two largest sizes: to the reference
network of docs/data-model.md (1 million users, 100 million follows, 50 million posts), whose daily cost is compared
with an estimate made before they were written; and to 10, 30 and 100 million users, with the limit that is reached
first. `--figures` stores each measurement as a line of a file, and skips those that the file already has.
"""

import argparse
import gc
import importlib
import json
import logging
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench import deployment, tables
from bench.jobs import network, stand_in
from bench.jobs.paper import Work, on_paper
from bench.jobs.stand_in import Spent, StandIn, Table
from bench.processes import peak_megabytes
from nexus.testing import memory_backend, run_task
from social.data import analytics, posts
from social.data.analytics import Totals
from social.data.days import add_days, day_of

REFERENCE_USERS = 1_000_000
PAPER_USERS = (10_000_000, 30_000_000, 100_000_000)
ESTIMATE = {  # dollars a day, from before the jobs were written
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
    """One job at one size. Units are request units; `cpu` is seconds without the stand-in's own."""

    job: str
    users: int
    past: float
    rows: int
    changed: int
    requests: int
    read_units: float
    write_units: float
    objects: int
    puts: int
    cpu: float
    peak_mb: float
    read_from: dict[str, float]
    posts: int
    parts: dict[str, float]
    sizes: dict[str, int]
    """Bytes of each table, and of each index that a job scans, before the run."""

    sampled_units: float
    sampled_deletes: int
    """Of cleanup_expired_tokens: the cost of each segment's first page, which does not depend on the table's size."""


def main() -> None:
    """Measures, prints, and exits with 1 if a job costs more than LIMIT times its estimate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="1000,10000,100000")
    parser.add_argument("--only", choices=sorted(ESTIMATE))
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_all(int(options.measure[0]), float(options.measure[1]), options.measure[2].split(","))
        return
    sizes = sorted(int(size) for size in options.users.split(","))
    if len(sizes) < 2:
        parser.error("--users needs two sizes: the cost at a million users is extrapolated from them")
    jobs = [options.only] if options.only else list(ESTIMATE)
    found = _kept(options.figures)
    for size, past in [*((size, 1.0) for size in sizes), (sizes[1], 4.0)]:
        if missing := [job for job in jobs if (job, size, past) not in found]:
            for one in in_own_process(size, past, missing):
                found[one.job, size, past] = one
                print(one, file=sys.stderr, flush=True)
                if options.figures:
                    with options.figures.open("a") as file:
                        file.write(json.dumps(asdict(one)) + "\n")
    deployment.enter("analytics", "maintenance")
    tables.show("jobs", measured_table([found[job, size, 1.0] for job in jobs for size in sizes]))
    tables.show("jobs-past", past_table([(found[job, sizes[1], 1.0], found[job, sizes[1], 4.0]) for job in jobs]))
    largest = {job: (found[job, sizes[-2], 1.0], found[job, sizes[-1], 1.0]) for job in jobs}
    ratios = {job: a_day(on_paper(*two, REFERENCE_USERS)) / ESTIMATE[job] for job, two in largest.items()}
    tables.show("jobs-day", day_table(largest))
    tables.show("jobs-paper", paper_table([on_paper(*two, users) for two in largest.values() for users in PAPER_USERS]))
    if "update_user_statistics" in jobs:
        tables.show("jobs-cpu", cpu_table([found["update_user_statistics", size, 1.0] for size in sizes]))
    print(f"\nFor docs/data-model.md, What a run costs:\n\n{run_table(largest)}")
    if dear := [f"{job} costs {ratio:.2f} x" for job, ratio in ratios.items() if ratio > LIMIT]:
        sys.exit(
            f"{', '.join(dear)} its estimate, at most {LIMIT} is allowed. Make it cheaper or, if its rule now needs "
            "more requests, calculate ESTIMATE in bench/jobs/__main__.py for the new rule."
        )


def _kept(figures: Path | None) -> dict[tuple[str, int, float], Measured]:
    lines = figures.read_text().splitlines() if figures and figures.exists() else ()
    runs = [Measured(**json.loads(line)) for line in lines]
    return {(one.job, one.users, one.past): one for one in runs}


# --- the tables ------------------------------------------------------------------------------------------------------


def measured_table(runs: Sequence[Measured]) -> str:
    """A table of each run's requests."""
    header = ("job", "users", "rows", "changed", "requests", "read units", "write units", "S3", "CPU s", "peak MB")
    return tables.markdown(
        header,
        [
            (
                one.job,
                *(f"{number:,}" for number in (one.users, one.rows, one.changed, one.requests)),
                *(f"{number:,.0f}" for number in (one.read_units, one.write_units, one.objects)),
                f"{one.cpu:.2f}",
                f"{one.peak_mb:.0f}",
            )
            for one in runs
        ],
    )


def past_table(pairs: Sequence[tuple[Measured, Measured]]) -> str:
    """A table that compares the same size with four times as many old posts."""
    rows = []
    for one, later in pairs:
        figures = ((one.requests, later.requests), (one.read_units, later.read_units))
        rows.append((one.job, *(f"{before:,.0f}, {after:,.0f}" for before, after in figures)))
    return tables.markdown((f"{pairs[0][0].users:,} users, past 1 and 4", "requests", "read units"), rows)


def a_day(work: Work) -> float:
    """Dollars a day of requests to DynamoDB and S3."""
    return work.dollars_of_requests * RUNS_A_DAY.get(work.job, 1.0)


def day_table(largest: Mapping[str, tuple[Measured, Measured]]) -> str:
    """A table of the reference network's daily cost."""
    rows = []
    for job, two in largest.items():
        cost = a_day(on_paper(*two, REFERENCE_USERS))
        rows.append((job, f"{cost:.4f}", f"{ESTIMATE[job]:g}", f"{cost / ESTIMATE[job]:.2f}"))
    return tables.markdown(("job", "$ a day", "on paper", f"ratio, at most {LIMIT}"), rows)


def run_table(largest: Mapping[str, tuple[Measured, Measured]]) -> str:
    """A table of one run's units and dollars of requests, rounded to three and two digits."""
    rows = []
    for job, two in largest.items():
        one, hundred = on_paper(*two, REFERENCE_USERS), on_paper(*two, PAPER_USERS[-1])
        units = (f"{nearest(number):,.0f}" for number in (one.read_units, one.write_units))
        costs = (nearest(work.dollars_of_requests, 2) for work in (one, hundred))
        rows.append((job, *units, *(f"{cost:f}".rstrip("0").rstrip(".") for cost in costs)))
    return tables.markdown(("job", "read units", "write units", "$ a run at 1M", "$ a run at 100M"), rows)


def nearest(value: float, digits: int = 3) -> float:
    """Rounds to `digits` significant digits."""
    return round(value, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0.0


def paper_table(works: Sequence[Work]) -> str:
    """A table of one run of each job at extrapolated sizes, and the limit that is reached first."""
    header = (
        "job", "million users", "segments", "requests", "read units", "write units", "S3", "$", "minutes",
        "sandboxes for an hour", "used most of",
    )  # fmt: skip
    rows = []
    for work in works:
        limit, share = max(work.limits.items(), key=lambda one: one[1])
        rows.append(
            (
                work.job,
                f"{work.users // 1_000_000}",
                " + ".join(f"{phase:,}" for phase in work.phases),
                *(f"{number:,.0f}" for number in (work.requests, work.read_units, work.write_units)),
                f"{work.puts + work.gets:,.0f}",
                f"{work.dollars:.3g}",
                f"{work.minutes:,.1f}",
                f"{max(1, math.ceil(work.seconds / 3_600)):,}",
                f"{limit}: {share:.0%}",
            )
        )
    return tables.markdown(header, rows)


def cpu_table(runs: Sequence[Measured]) -> str:
    """A table of the nightly count's CPU time by kind of row."""
    names = list(runs[0].parts)
    rows = [(f"{one.users:,}", *(f"{one.parts[name]:.2f}" for name in names)) for one in runs]
    return tables.markdown(("users", *(f"us per {name}" for name in names)), rows)


# --- measuring -------------------------------------------------------------------------------------------------------


def in_own_process(users: int, past: float, jobs: Sequence[str]) -> Iterator[Measured]:
    """Runs `measure_all` in a fresh interpreter."""
    command = [sys.executable, "-m", "bench.jobs", "--measure", str(users), str(past), ",".join(jobs)]
    with subprocess.Popen(command, cwd=tables.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield Measured(**json.loads(line))
    if process.returncode:
        sys.exit(f"measuring {users} users ended with {process.returncode}")


def measure_all(users: int, past: float, jobs: Sequence[str]) -> None:
    """Fills a network, and measures each job on a copy of it, in a forked child process."""
    deployment.enter("analytics", "maintenance")
    logging.disable(logging.CRITICAL)
    data = stand_in.tables()
    network.fill(data, users, past=past)
    for table in data.values():
        for index in (None, *table.indexes.values()):  # built here, so that no job's memory includes them
            table.scan_order(index)
            table.partition(index, "")
    gc.collect()
    gc.freeze()  # keeps the stand-in's heap out of the job's garbage collections
    for job in jobs:
        child = os.fork()
        if not child:
            print(json.dumps(asdict(measure(job, users, past, data))), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{job} ended with {status}")


def measure(job: str, users: int, past: float, data: Mapping[str, Table]) -> Measured:
    """One job on a network."""
    sizes = {name: sum(size for _, _, size in table.scan_order(None)) for name, table in data.items()}
    by_author = data["posts"].indexes[posts.BY_AUTHOR]
    sizes[f"posts/{posts.BY_AUTHOR}"] = sum(size for _, _, size in data["posts"].scan_order(by_author))
    module = importlib.import_module(job)
    cloud = StandIn(data.values())
    parts = Parts(cloud)
    with cloud.installed(), memory_backend(), patch("time.time", lambda: float(network.NOW)):
        if prepare := PREPARE.get(job):
            prepare(module, data)
        parts.watch(job, module)
        cloud.reset()
        gc.collect()
        before = _resident()
        started = time.process_time()
        report = RUN.get(job, _run)(module, job)
        cpu = time.process_time() - started - cloud.spent.own_seconds
        peak = peak_megabytes() - before
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
        puts=spent.objects_put,
        cpu=cpu,
        peak_mb=max(0.0, peak),
        read_from=dict(spent.read_from),
        posts=len(data["posts"].items),
        parts=parts.per_row(users, report),
        sizes=sizes,
        sampled_units=parts.sampled_units,
        sampled_deletes=parts.sampled_deletes,
    )


def _agree(report: Any, spent: Spent) -> None:
    """Checks that the report's figures equal the service's own, which detects unmetered requests."""
    plain = abs(report.read_units - spent.read_units) + abs(report.write_units - spent.write_units)
    if plain > 0.02 * (spent.read_units + spent.write_units) + 60:
        sys.exit(f"the report says {report.read_units} + {report.write_units} units, the stand-in {spent}")


class Parts:
    """Measures parts of a job: the nightly count's CPU time by kind of row, the token cleanup's samples."""

    def __init__(self, cloud: StandIn) -> None:
        self._cloud = cloud
        self._seconds: dict[str, float] = {}
        self.sampled_units, self.sampled_deletes = 0.0, 0

    def watch(self, job: str, module: Any) -> None:
        if job == "update_user_statistics":
            count, merge = module.count, module.merge
            module.count = lambda args, run: self._timed(args.part.table, lambda: count(args, run))
            module.merge = lambda args, run: self._timed("merge", lambda: merge(args, run))
        if job == "cleanup_expired_tokens":
            delete_expired = module.delete_expired
            module.delete_expired = lambda *args: self._sampled(delete_expired(*args))

    def _sampled(self, report: Any) -> Any:
        self.sampled_units += report.read_units
        self.sampled_deletes += report.changed
        return report

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


def _run(module: Any, job: str, args: dict[str, Any] | None = None) -> Any:
    return run_task(getattr(module, job), args or {})


def _an_hour_before(module: Any, _tables: Mapping[str, Table]) -> None:
    """Counts the hours before, as in every run but the first."""
    _run(module, "update_trending_hashtags", {"at": network.NOW - 3_600})


def _counted_an_hour_before(_module: Any, tables: Mapping[str, Table]) -> None:
    """Stores the totals that update_user_statistics stores at 03:00."""
    analytics.put_totals(Totals(len(tables["posts"].items), len(tables["follows"].items), network.NOW - 3_600))


def _a_week_before(_module: Any, _tables: Mapping[str, Table]) -> None:
    analytics.raise_watermark("cleanup_old_posts", add_days(posts.old_day(day_of(network.NOW)), -7))


PREPARE: dict[str, Callable[[Any, Mapping[str, Table]], None]] = {
    "generate_content_analytics": _counted_an_hour_before,
    "update_trending_hashtags": _an_hour_before,
    "cleanup_old_posts": _a_week_before,
}
RUN: dict[str, Callable[[Any, str], Any]] = {
    "cleanup_old_posts": lambda module, job: _run(module, job, {"mode": "archive"}),
    "update_trending_hashtags": lambda module, job: _run(module, job, {"at": network.NOW}),
}


if __name__ == "__main__":
    main()
