"""Compares the recorded costs of runs with the stand-in's meter.

    python -m bench.cost [--messages 200]

Messages are sent, worked off and, in one row, given up, by the real client and worker against the stand-in of
bench.runtime with the run table of template.yaml. `metered` is what the stand-in counted of DynamoDB and SQS, the
receives and deletes that Lambda makes for each batch, the time of each invocation, and the bytes that were logged, at
the prices of `nexus.prices`; `recorded` the sum of the run records' own measures.
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import batched
from typing import Any
from unittest.mock import patch

from bench import deployment
from bench.jobs import stand_in as dynamodb
from bench.runtime.stand_in import Attached, StandIn
from nexus import client
from nexus.aws import sdk, slim
from nexus.aws.dynamodb import from_item
from nexus.eager import Context
from nexus.errors import Reject, Retry
from nexus.prices import Cost, cost
from nexus.registry import registry
from nexus.runs.spent import Spent
from nexus.settings import settings
from nexus.tasks import Arguments, Result, Task
from nexus.worker import Run, implements, observe
from nexus.worker.entry import serve
from nexus.worker.spending import INVOCATION_LINES, MEMORY

LOG_EVENT = 26
"""Bytes that CloudWatch Logs adds to each line."""


class Work(Arguments):
    """The outcome and duration of the work."""

    user_id: str
    how: str = "well"
    seconds: float = 0.01


class Done(Result):
    """Nothing."""


work = Task(name="work", queue="default", arguments=Work, result=Done, summary="Works.")


@implements(work)
def do_work(args: Work, run: Run) -> Done:
    """Waits, as for a table, and ends as requested."""
    time.sleep(args.seconds)
    if args.how == "again" and run.attempt < 3:
        raise Retry("again", after=0.0)
    if args.how == "badly":
        raise Reject("never")
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

    @property
    def ratio(self) -> float:
        return self.recorded.total / self.metered.total


ROWS: dict[str, tuple[Callable[..., None], int, str]] = {
    "sent one by one, one a batch": (singly, 1, "well"),
    "sent and worked off in tens": (in_tens, 10, "well"),
    "sent in tens, three attempts each": (in_tens, 10, "again"),
    "sent one by one, given up": (singly, 10, "badly"),
}


def compare(row: str, messages: int) -> Compared:
    """Sends and processes `messages` messages of a row."""
    from aws_lambda_powertools import Logger

    send, batch, how = ROWS[row]
    clouds = Attached(StandIn(runs=dynamodb.StandIn([dynamodb.tables()["task-runs"]])))
    clients = {service: _client(clouds, service) for service in ("dynamodb", "sqs")}
    written = io.StringIO()
    logger = Logger(service=f"bench-{time.time_ns()}", level="INFO", use_rfc3339=True, stream=written)
    invocations, seconds = 0, 0.0
    ours, memory = patch.object(observe, "logger", lambda: logger), patch.dict(os.environ, {MEMORY: "512"})
    with ours, memory, patch.object(sdk, "_client", clients.__getitem__):
        send(messages, how=how)
        queue = next(iter(clouds.stand_in.queues.values()))
        while queue:
            bodies = [queue.pop(0) for _ in range(min(batch, len(queue)))]
            began = time.monotonic()
            queue += _invoke(bodies)
            seconds, invocations = seconds + time.monotonic() - began, invocations + 1
    lines = written.getvalue().splitlines()
    asked = clouds.stand_in.requests
    sqs = sum(count for name, count in asked.items() if name in clouds.stand_in.queue_operations)
    spent = clouds.stand_in.runs.spent
    metered = Spent(
        gb_seconds=seconds / 2,
        invocations=invocations,
        reads=spent.read_units,
        writes=spent.write_units,
        messages=sqs - asked["GetQueueUrl"] + 2 * invocations,
        log_bytes=sum(len(line) + LOG_EVENT for line in lines) + INVOCATION_LINES * invocations,
    )
    (table,) = clouds.stand_in.runs.tables.values()
    records = [Spent.of(from_item(item)) for item in table.items.values()]
    recorded = Spent().plus(*(one for one in records if one is not None))
    per_million = 1_000_000 / messages
    return Compared(cost(metered).times(per_million), cost(recorded).times(per_million))


def _client(clouds: Attached, service: str) -> Any:
    """The runtime's own client, with the stand-in behind it."""
    keys = ("key", "secret", None)
    made: Any = slim.Client(
        service, "https://aws.invalid", settings(), tls=None, credentials=lambda: keys, go_on=lambda: None, other=int
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
    answer = serve("default", tasks, event, Context())
    return [bodies[int(failed["itemIdentifier"])] for failed in answer["batchItemFailures"]]


def main() -> None:
    """Prints the rows; exits with 1 if a record is more than a tenth off."""
    parser = argparse.ArgumentParser(description="What runs say they cost, beside the meter.")
    parser.add_argument("--messages", type=int, default=200)
    asked = parser.parse_args()
    deployment.enter()
    print("| runs, dollars a million | metered | recorded | ratio |\n| --- | --- | --- | --- |")
    worst = 0.0
    for row in ROWS:
        found = compare(row, asked.messages)
        worst = max(worst, abs(found.ratio - 1))
        print(f"| {row} | {found.metered.total:.2f} | {found.recorded.total:.2f} | {found.ratio:.3f} |")
    if worst > 0.1:
        sys.exit("more than a tenth off")


if __name__ == "__main__":
    main()
