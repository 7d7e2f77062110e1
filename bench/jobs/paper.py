"""Extrapolates each job's cost to sizes that do not fit on one machine, from measurements at two sizes.

The network is the reference of docs/data-model.md: 100 follows and 50 posts per user, and a day's work as bench.jobs
measures it. Most costs grow linearly with the number of users; scans of follows and of the posts' index grow with their
rows, and the cleanup's samples, a page per segment, with the segments. The nightly count is assumed to store as many
sums as it can: one for each follow.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from bench.jobs import network
from nexus import prices
from nexus.aws.dynamodb import STATEMENTS_PER_REQUEST
from nexus.runs.tallies import LIMIT
from nexus.runs.transitions import MAX_CONTINUED
from social import sweep
from social.data import posts
from social.data.days import DAY_SHARDS
from tests.support.template import resources

if TYPE_CHECKING:
    from bench.jobs.__main__ import Measured

FOLLOWS, POSTS = 100, 50
PAGE_UNITS = 128
"""Read units of a page of 1 MiB, eventually consistent."""

SECONDS_A_REQUEST = 0.005
"""DynamoDB's latency within the region; a batch takes four times as long, and four are sent at once."""

SECONDS_A_PAGE = 0.040
SECONDS_AN_OBJECT = 0.035
BYTES_A_SECOND = 75e6
"""Between S3 and one sandbox."""

TIME_LIMIT = 840
HOUR = 3_600
ACCOUNT_SANDBOXES = 1_000
TABLE_UNITS = 40_000
"""Read and write units per second that an on-demand table gets by default."""

PARTITION_WRITES = 1_000
PUBLIC = 0.85
SUM_BYTES = 21
"""One sum as text: the id of bench.jobs.network, quotes, colon, digit and comma."""


@dataclass(slots=True)
class Work:
    """One run of a job at one size. `phases` are the segments of each fan-out; `busiest` the write units of the busiest
    partition of an index."""

    job: str
    users: int
    requests: float
    read_units: float
    write_units: float
    cpu: float
    phases: Sequence[int]
    puts: float
    gets: float
    bytes: float = 0.0
    busiest: float = 0.0
    queue: str = field(default="analytics")

    @property
    def seconds(self) -> float:
        """The total of all segments."""
        waits = self.requests * SECONDS_A_REQUEST + self.read_units / PAGE_UNITS * SECONDS_A_PAGE
        waits += (self.puts + self.gets / 16) * SECONDS_AN_OBJECT + self.bytes / BYTES_A_SECOND
        return waits + self.cpu / core_share(self.queue)

    @property
    def minutes(self) -> float:
        """At the concurrency of template.yaml."""
        return self.seconds / min(concurrency(self.queue), max(self.phases)) / 60

    @property
    def dollars_of_requests(self) -> float:
        units = self.read_units * prices.READ_UNIT + self.write_units * prices.WRITE_UNIT
        return units + self.puts * prices.S3_PUT + self.gets * prices.S3_GET

    @property
    def dollars(self) -> float:
        """Requests and Lambda's time."""
        return self.dollars_of_requests + self.seconds * memory(self.queue) * prices.GB_SECOND

    @property
    def limits(self) -> Mapping[str, float]:
        """The share of each limit that the run uses if it takes an hour; at 1 the limit is reached."""
        segment = self.seconds / sum(self.phases)
        return {
            f"MaximumConcurrency {concurrency(self.queue)}": self.minutes * 60 / HOUR,
            "segments of a fan-out": max(self.phases) / LIMIT,
            "time of a segment": segment / (TIME_LIMIT * (1 + MAX_CONTINUED)),
            "sandboxes of an account": self.seconds / HOUR / ACCOUNT_SANDBOXES,
            "read units of a table": self.read_units / HOUR / TABLE_UNITS,
            "write units of a table": self.write_units / HOUR / TABLE_UNITS,
            "writes of an index's partition": self.busiest / HOUR / PARTITION_WRITES,
        }


def on_paper(smaller: "Measured", larger: "Measured", users: int) -> Work:
    """One run of the job at this number of users."""

    def at(value: Callable[["Measured"], float]) -> float:
        slope = (value(larger) - value(smaller)) / (larger.users - smaller.users)
        return value(larger) + max(0.0, slope) * (users - larger.users)

    def bytes_of(table: str) -> float:
        each = larger.sizes[table] / larger.users
        if table == "follows":
            return each / network.FOLLOWS * FOLLOWS * users
        return larger.sizes[table] / larger.posts * POSTS * users if table.startswith("posts/") else each * users

    def segments(table: str) -> int:
        return max(1, min(sweep.MAX_SEGMENTS, math.ceil(bytes_of(table) / sweep.SEGMENT_BYTES)))

    def read_from(table: str) -> float:
        if larger.job == "update_user_statistics" and table in ("follows", BY_AUTHOR):
            return larger.read_from[table] / larger.sizes[table] * bytes_of(table)
        return at(lambda one: one.read_from.get(table, 0.0))

    requests, writes = at(lambda one: one.requests), at(lambda one: one.write_units)
    reads = sum(map(read_from, larger.read_from))
    requests += (reads - at(lambda one: sum(one.read_from.values()))) / PAGE_UNITS
    if sampled := at(lambda one: one.sampled_units):
        left_out = sampled - min(sampled, (segments("tokens") + segments("sessions")) * PAGE_UNITS)
        deletes = left_out / larger.sampled_units * larger.sampled_deletes
        reads, writes = reads - left_out, writes - deletes
        requests -= left_out / PAGE_UNITS + deletes / STATEMENTS_PER_REQUEST
    work = Work(
        larger.job,
        users,
        requests=requests,
        read_units=reads,
        write_units=writes,
        cpu=at(lambda one: one.cpu),
        phases=(1,),
        puts=at(lambda one: one.puts),
        gets=at(lambda one: one.objects - one.puts),
        queue="maintenance" if larger.job.startswith("cleanup") else "analytics",
    )
    _divide(work, larger, segments)
    if larger.job == "update_post_engagement_scores":
        work.busiest = at(lambda one: one.changed) * PUBLIC * 2 / posts.FEED_SHARDS
    return work


def _divide(work: Work, measured: "Measured", segments: Callable[[str], int]) -> None:
    """The segments of each phase of the job."""
    match work.job:
        case "update_user_statistics":
            _shuffled(work, measured, {name: segments(name) for name in ("follows", BY_AUTHOR, "users")})
        case "generate_content_analytics":
            work.phases = (DAY_SHARDS + segments("users"),)
        case "update_post_engagement_scores":
            work.phases = (posts.MOVED_SHARDS,)
        case "cleanup_expired_tokens":
            work.phases = (sum(map(segments, ("users", "tokens", "sessions"))),)
        case "cleanup_old_posts":
            work.phases = (7 * DAY_SHARDS + posts.REVIEW_SHARDS,)


BY_AUTHOR = f"posts/{posts.BY_AUTHOR}"


def _shuffled(work: Work, measured: "Measured", segments: Mapping[str, int]) -> None:
    """Replaces the measured network's sums with the reference network's."""
    import update_user_statistics as job
    import user_sums

    users, cost = work.users, measured.parts
    sums = {"follows": users * (FOLLOWS + 1), BY_AUTHOR: users, "users": users}
    size = sum(sums.values()) * SUM_BYTES
    stored = sum(
        segments[name] * max(1, math.ceil(sums[name] * SUM_BYTES / segments[name] / user_sums.OBJECT_BYTES))
        for name in segments
    )
    bands, ranges = job.layout(users)
    scans, merges = sum(segments.values()), bands * ranges
    read, written = cost_of_sums()
    work.cpu += (users * FOLLOWS - users * network.FOLLOWS) * cost["edge scanned"] * 1e-6
    work.cpu += (users * POSTS - users / measured.users * measured.posts) * cost["post in the index"] * 1e-6
    work.cpu += sum(sums.values()) * read
    # each segment puts objects and a list; each list is read, and each column of each object
    work.puts, work.gets = stored + scans + 1, scans + merges + stored * bands
    work.phases, work.bytes = (scans, merges), 2.0 * size
    if ranges > 1:
        groups = math.ceil(size / (job.REGROUPED_BYTES * bands))
        regroups = bands * groups
        again = regroups * math.ceil(size / regroups / user_sums.OBJECT_BYTES)
        work.puts += again + regroups + 1
        work.gets += 2 * regroups + again * ranges
        work.phases, work.bytes = (scans, regroups, merges), 4.0 * size
        work.cpu += sum(sums.values()) * (read + written)


def cost_of_sums(number: int = 300_000) -> tuple[float, float]:
    """CPU seconds to read and add one stored sum, and to store it again; measured on this machine when called."""
    import user_sums

    part = {"followers": {f"{place:016x}": 1 for place in range(number)}}
    text = orjson.dumps(part)
    total: user_sums.Sums = {"followers": dict.fromkeys(list(part["followers"])[::2], 1)}
    writer = user_sums.Writer("", 21, lambda hashed: hashed // 21 % 20)
    started = time.process_time()
    user_sums.add(total, orjson.loads(text))
    read = time.process_time()
    writer.add(part)
    return (read - started) / number, (time.process_time() - read) / number


def concurrency(queue: str) -> int:
    """The event source's MaximumConcurrency."""
    source = _function(queue)["Events"]["Messages"]["Properties"]
    return int(source["ScalingConfig"]["MaximumConcurrency"])


def memory(queue: str) -> float:
    """GB of the queue's function."""
    return int(_function(queue)["MemorySize"]) / 1024


def core_share(queue: str) -> float:
    """The share of a core; Lambda gives a whole one at 1,769 MB."""
    return min(1.0, memory(queue) * 1024 / 1769)


def _function(queue: str) -> Mapping[str, Any]:
    (found,) = (
        body["Properties"]
        for body in resources("AWS::Serverless::Function").values()
        if body["Properties"]["CodeUri"] == f"functions/{queue}/"
    )
    return dict(found)
