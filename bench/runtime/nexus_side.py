"""Our side of the comparison: sends no-op messages and processes them as the queue's Lambda function would.

    python -m bench.runtime.nexus_side PORT MESSAGES BATCH

PORT is the stand-in's, or 0 for one inside this process. Log lines go to standard output, the figures to standard
error as one line of JSON. A batch goes through the function's own handler, from the event's JSON to the response's,
as Lambda's runtime calls it.
"""

import gc
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from itertools import batched
from typing import Any
from urllib.request import urlopen

from bench import deployment
from bench.runtime.stand_in import Attached, StandIn
from nexus import client
from nexus.aws.sdk import client as aws_client
from nexus.backend.transport import queue_url
from nexus.eager import Context
from nexus.tasks import Arguments, Result, Task
from nexus.worker import Run, handler_for, implements
from tests.support.template import ACCOUNT, REGION, STACK

WARM_UP = 50
IN_LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": f"{STACK}-default",
    "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0",
}


class Noop(Arguments):
    """One argument, as most tasks have."""

    user_id: str


class Done(Result):
    """One field, as most results have."""

    done: bool = True


noop = Task(name="noop", queue="default", arguments=Noop, result=Done, summary="Does nothing.")


@implements(noop)
def do_nothing(_args: Noop, _run: Run) -> Done:
    return Done()


handler = handler_for(do_nothing)


CONTEXT = Context(
    seconds=300.0,
    aws_request_id="8f1c2f1e-5c1a-4e0b-9a55-000000000000",
    log_group_name=f"/aws/lambda/{STACK}-default",
    log_stream_name="2026/11/22/[$LATEST]0123456789abcdef",
)


def event_of(bodies: Sequence[str]) -> str:
    """A batch as the event source mapping delivers it, in JSON."""
    attributes = {
        "ApproximateReceiveCount": "1",
        "SentTimestamp": "1795348800000",
        "SenderId": "AIDAIENQZJOLO23YVJ4VO",
        "ApproximateFirstReceiveTimestamp": "1795348800001",
    }
    records = [
        {
            "messageId": str(uuid.uuid4()),
            "receiptHandle": "AQEB" + "x" * 300,
            "body": body,
            "attributes": attributes,
            "messageAttributes": {},
            "md5OfBody": "7b270e59b47ff90a553787216d55d91d",
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{STACK}-default",
            "awsRegion": REGION,
        }
        for body in bodies
    ]
    return json.dumps({"Records": records})


def received(count: int) -> list[str]:
    """The bodies of `count` messages, received from the queue."""
    bodies: list[str] = []
    while len(bodies) < count:
        response = aws_client("sqs").receive_message(QueueUrl=queue_url(f"{STACK}-default"), MaxNumberOfMessages=10)
        bodies += [message["Body"] for message in response["Messages"]]
    return bodies


def process_all(events: Sequence[str]) -> None:
    for event in events:
        response = json.dumps(handler(json.loads(event), CONTEXT))
        assert response == '{"batchItemFailures": []}', response


def send_many(count: int) -> None:
    for page in batched(range(count), 10, strict=False):
        client.send_many([noop.s(user_id=f"user-{n}") for n in page])


def send_single(count: int) -> None:
    for n in range(count):
        noop.delay(user_id=f"user-{n}")


def read(count: int) -> None:
    """The smallest AWS request, which shows the client's cost for any request."""
    for _ in range(count):
        aws_client("dynamodb").get_item(TableName=f"{STACK}-task-runs", Key={"id": {"S": "none"}})


def main(port: int, messages: int, batch: int) -> None:
    deployment.enter(POWERTOOLS_SERVICE_NAME=STACK)
    inside = Attached(StandIn())
    if port:
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    else:
        inside.attach(aws_client("dynamodb"))
        inside.attach(aws_client("sqs"))

    def requests() -> int:
        if not port:
            return sum(inside.stand_in.requests.values())
        with urlopen(f"http://127.0.0.1:{port}/") as response:
            return sum(json.load(response).values())

    def cost(action: Callable[[], None], count: int) -> dict[str, float]:
        gc.collect()
        requested, own, began = requests(), inside.seconds, time.process_time()
        action()
        seconds = time.process_time() - began - (inside.seconds - own)
        return {"microseconds": seconds / count * 1e6, "requests": (requests() - requested) / count}

    figures: dict[str, Any] = {}
    for name, send in (("send_many", send_many), ("send", send_single)):
        send(WARM_UP)
        figures[name] = cost(lambda send=send: send(messages // 2), messages // 2)  # type: ignore[misc]
    os.environ |= IN_LAMBDA  # from here on a function, whose log lines go to standard output
    events = [event_of(page) for page in batched(received(2 * (WARM_UP + messages // 2)), batch, strict=False)]
    warm = WARM_UP // batch * 2
    process_all(events[:warm])
    figures["work"] = cost(lambda: process_all(events[warm:]), messages)
    figures["read"] = cost(lambda: read(messages // 2), messages // 2)
    logging.shutdown()
    print(json.dumps(figures), file=sys.stderr)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
