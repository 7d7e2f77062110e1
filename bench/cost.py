"""Measures what runs cost, by part, and compares the costs that they record with the stand-in's meter.

    python -m bench.cost [--messages 200] [--pictures 3]

The real client and worker send and process messages, and in one row give them up, against the stand-in of bench.runtime
with the run table of template.yaml. `metered` is the cost of the requests that the stand-in counted, of the receives
and deletes that Lambda makes for each batch, of each invocation's time, and of the logged bytes, at the prices of
`nexus.prices`. `recorded` is the sum of the run records' own measures.

Pictures are 12-megapixel uploads that start from S3's event, on the stand-in of bench.jobs. Their time in Lambda is
computed from the CPU time of the renditions at Lambda's share of a core, and from AWS's latencies.
"""

import argparse
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched
from typing import Any
from unittest.mock import patch

from bench import deployment, tables
from bench.jobs import stand_in as dynamodb
from bench.runtime.stand_in import Attached, StandIn
from nexus import client
from nexus.aws import encoding, sdk, slim
from nexus.aws.dynamodb import from_item, to_item
from nexus.eager import Context
from nexus.errors import Reject, Retry
from nexus.prices import Cost, cost
from nexus.registry import registry
from nexus.runs.spent import Spent
from nexus.settings import settings
from nexus.tasks import Arguments, Result, Task
from nexus.worker import Run, implements, listing, observe
from nexus.worker.entry import serve
from nexus.worker.spending import INVOCATION_LINES, MEMORY
from samples.make import landscape

WAITS = 0.05
"""Seconds that each message waits, as if for a request to DynamoDB."""

TRACE = "Root=1-6929e2a0-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"
"""What Lambda sets; each log line names it."""

FEW = "thumbnail:150:square:jpeg,w640:640,w1080:1080,w1080_jpeg:1080:jpeg"
"""The parameter Renditions of a deployment that makes four renditions."""

MEDIA_MEMORY = 2048
CORES = MEDIA_MEMORY / 1769
"""AWS Lambda Developer Guide, "Configure Lambda function memory": a whole core at 1,769 MB."""

GET, PUT, TABLE, SANDBOX = 0.03, 0.04, 0.005, 1.044
"""Seconds of a request, and what the sandbox adds to the CPU time (bench.media.sandbox_cost)."""

LOG_EVENT = 26
"""Bytes that CloudWatch Logs adds to each line."""


class Work(Arguments):
    """The outcome and duration of the work."""

    user_id: str
    how: str = "succeed"
    seconds: float = 0.01


class Done(Result):
    """Nothing."""


work = Task(name="work", queue="default", arguments=Work, result=Done, summary="Works.")


@implements(work)
def do_work(args: Work, run: Run) -> Done:
    """Waits as if for DynamoDB, and ends as requested."""
    time.sleep(args.seconds)
    if args.how == "retry" and run.attempt < 3:
        raise Retry("as requested", after=0.0)
    if args.how == "reject":
        raise Reject("as requested")
    return Done()


def singly(messages: int, **args: Any) -> None:
    """Sends the messages one by one."""
    for n in range(messages):
        work.delay(user_id=f"u-{n}", **args)


def in_tens(messages: int, **args: Any) -> None:
    """Sends the messages in batches of ten."""
    for page in batched(range(messages), 10, strict=False):
        client.send_many([work.s(user_id=f"u-{n}", **args) for n in page])


@dataclass(frozen=True, slots=True)
class Compared:
    """Dollars per million runs."""

    metered: Cost
    recorded: Cost
    used: Spent
    """What one run used, as metered."""

    @property
    def ratio(self) -> float:
        return self.recorded.total / self.metered.total


ROWS: dict[str, tuple[Callable[..., None], int, str]] = {
    "sent one by one, one a batch": (singly, 1, "succeed"),
    "sent and processed in tens": (in_tens, 10, "succeed"),
    "sent in tens, three attempts each": (in_tens, 10, "retry"),
    "sent one by one, given up": (singly, 10, "reject"),
}


def compare(row: str, messages: int, waits: float = 0.01) -> Compared:
    """Sends and processes `messages` messages of a row, each of which waits for this many seconds."""
    send, batch, how = ROWS[row]
    clouds = Attached(StandIn(runs=dynamodb.StandIn([dynamodb.tables()["task-runs"]])))
    clients = {service: _client(clouds, service) for service in ("dynamodb", "sqs")}
    invocations, seconds = 0, 0.0
    memory = patch.dict(os.environ, {MEMORY: "512"})
    traced = patch.dict(os.environ, {"_X_AMZN_TRACE_ID": TRACE})
    with _log() as written, memory, patch.object(sdk, "_client", clients.__getitem__):
        send(messages, how=how, seconds=waits)
        queue = next(iter(clouds.stand_in.queues.values()))
        while queue:
            bodies = [queue.pop(0) for _ in range(min(batch, len(queue)))]
            began = time.monotonic()
            with traced:
                queue += _invoke(bodies)
            seconds, invocations = seconds + time.monotonic() - began, invocations + 1
    asked = clouds.stand_in.requests
    sqs = sum(count for name, count in asked.items() if name in clouds.stand_in.queue_operations)
    spent = clouds.stand_in.runs.spent
    metered = Spent(
        gb_seconds=seconds / 2,
        invocations=invocations,
        reads=spent.read_units,
        writes=spent.write_units,
        messages=sqs - asked["GetQueueUrl"] + 2 * invocations,
        log_bytes=_bytes(written) + INVOCATION_LINES * invocations,
    )
    (table,) = clouds.stand_in.runs.tables.values()
    records = [Spent.of(from_item(item)) for item in table.items.values()]
    recorded = Spent().plus(*(one for one in records if one is not None))
    per_million = 1_000_000 / messages
    costs = cost(metered).times(per_million), cost(recorded).times(per_million)
    return Compared(*costs, metered.times(1 / messages))


@contextmanager
def _log() -> Iterator[io.StringIO]:
    """Formats log lines as in Lambda. Yields their text."""
    from aws_lambda_powertools import Logger

    from nexus.worker.lines import LineFormatter

    written = io.StringIO()
    named = f"bench-{time.time_ns()}"  # Powertools keeps one handler per name
    formatter = LineFormatter(use_rfc3339=True, utc=True, json_serializer=encoding.line)
    logger = Logger(service=named, level="INFO", stream=written, logger_formatter=formatter)
    with patch.object(observe, "logger", lambda: logger):
        yield written


def _bytes(written: io.StringIO) -> int:
    return sum(len(line) + LOG_EVENT for line in written.getvalue().splitlines())


def picture(count: int, renditions: str = "") -> Spent:
    """What an upload uses from S3's event until its post is ready: the mean of `count` uploads.

    `renditions` is the stack's parameter Renditions.
    """
    import pictures
    import process_media_upload  # noqa: F401 - implements the task
    from pictures.rendering import render
    from process_media_upload import media_settings

    content = io.BytesIO()
    landscape("alps", 4000, 3000).save(content, "JPEG", quality=88)
    found = dynamodb.tables()
    cloud = dynamodb.StandIn([found["task-runs"], found["posts"]])
    bucket = settings().bucket("uploads")
    keys = [f"uploads/u-1/p-{n}/alps.jpg" for n in range(count + 1)]
    found["posts"].load(to_item({"post_id": f"p-{n}", "author_id": "u-1"}) for n in range(count + 1))
    records = [
        {"eventSource": "aws:s3", "eventName": "ObjectCreated:Post", "eventTime": "2026-11-28T00:00:00.000Z"}
        | {"s3": {"bucket": {"name": bucket}, "object": {"key": key, "sequencer": f"{n:016X}"}}}
        for n, key in enumerate(keys)
    ]
    traced = patch.dict(os.environ, {"_X_AMZN_TRACE_ID": TRACE, MEMORY: str(MEDIA_MEMORY), "RENDITIONS": renditions})
    media_settings.cache_clear()
    # Longer than in Lambda, if this machine is busy.
    unlisted = patch.object(listing, "LISTED_AFTER", math.inf)
    with _log() as written, traced, unlisted, cloud.installed():
        cloud.objects |= {f"{bucket}/{key}": content.getvalue() for key in keys}
        for n, record in enumerate(records):
            if n == 1:  # the first one starts the decoders' server
                cloud.reset()
                written.truncate(written.seek(0))
            serve("media", registry.served_by("media"), {"Records": [record]}, Context())
    ended = [item for item in found["task-runs"].items.values() if item["status"]["S"] == "SUCCESS"]
    ready = [item for item in found["posts"].items.values() if item["media"]["M"]["status"]["S"] == "ready"]
    assert len(ended) == len(ready) == count + 1
    puts, requests = cloud.spent.objects_put / count, cloud.spent.dynamodb_requests / count
    made = []
    for _ in range(3):
        began = time.process_time()
        render(content.getvalue(), recipes=pictures.read_recipes(renditions).stills)
        made.append(time.process_time() - began)
    seconds = min(made) * SANDBOX / CORES + GET + math.ceil(puts / 4) * PUT + requests * TABLE
    return Spent(
        seconds=seconds * count,
        gb_seconds=seconds * count * MEDIA_MEMORY / 1024,
        invocations=count,
        reads=cloud.spent.read_units,
        writes=cloud.spent.write_units,
        puts=cloud.spent.objects_put,
        gets=cloud.spent.objects_got,
        log_bytes=_bytes(written) + INVOCATION_LINES * count,
    ).times(1 / count)


PARTS = ("DynamoDB writes", "reads", "SQS", "S3 puts", "gets", "Lambda's time", "invocations", "logs", "together")


def parts(used: Spent) -> list[str]:
    """A row's cells: for each of PARTS, the dollars of a million runs and, in parentheses, the amount that one uses."""
    alone = [
        (used.writes, Spent(writes=used.writes)),
        (used.reads, Spent(reads=used.reads)),
        (used.messages, Spent(messages=used.messages)),
        (used.puts, Spent(puts=used.puts)),
        (used.gets, Spent(gets=used.gets)),
        (used.gb_seconds, Spent(gb_seconds=used.gb_seconds)),
        (used.invocations, Spent(invocations=used.invocations)),
        (used.log_bytes, Spent(log_bytes=used.log_bytes)),
    ]
    cells = [f"{one.dollars * 1e6:.2f} ({amount:,.4g})" if amount else "" for amount, one in alone]
    return [*cells, f"**{used.dollars * 1e6:.2f}**"]


def _client(clouds: Attached, service: str) -> Any:
    """The runtime's own client, connected to the stand-in."""
    keys = ("key", "secret", None)
    made: Any = slim.Client(
        service,
        "https://aws.invalid",
        settings(),
        tls=None,
        credentials=lambda: keys,
        check_abandoned=lambda: None,
        fallback=int,
    )
    clouds.attach(made)
    return made


def _invoke(bodies: list[str]) -> list[str]:
    """One invocation; returns the messages that will be redelivered."""
    records = [
        {"messageId": str(n), "receiptHandle": f"r{n}", "body": body, "eventSource": "aws:sqs"}
        for n, body in enumerate(bodies)
    ]
    event = json.loads(json.dumps({"Records": records}))
    tasks: dict[str, Any] = {**registry.served_by("default"), work.name: work}
    response = serve("default", tasks, event, Context())
    return [bodies[int(failed["itemIdentifier"])] for failed in response["batchItemFailures"]]


def main() -> None:
    """Prints the rows; exits with 1 if recorded costs differ from metered ones by more than a tenth."""
    parser = argparse.ArgumentParser(description="Compares the costs that runs record with metered costs.")
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=3)
    options = parser.parse_args()
    deployment.enter("media")
    found = {row: compare(row, options.messages, WAITS) for row in ROWS}
    used = {f"message, {row}": one.used for row, one in found.items()}
    used["picture of 12 megapixels"] = picture(options.pictures)
    used["the same, four renditions"] = picture(options.pictures, FEW)
    tables.show("cost-parts", tables.markdown(["a million", *PARTS], [[row, *parts(one)] for row, one in used.items()]))
    compared = [
        [row, f"{one.metered.total:.2f}", f"{one.recorded.total:.2f}", f"{one.ratio:.3f}"] for row, one in found.items()
    ]
    head = ["runs", "metered", "recorded", "ratio, to be within a tenth"]
    tables.show("cost-recorded", tables.markdown(head, compared))
    if max(abs(one.ratio - 1) for one in found.values()) > 0.1:
        sys.exit("the recorded costs differ from the metered ones by more than a tenth")


if __name__ == "__main__":
    main()
