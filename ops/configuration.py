"""The current settings of each queue, its event source and its function, in seconds and megabytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nexus.aws.sdk import client as runtime_client
from nexus.backend.transport import queue_url
from nexus.settings import settings
from ops import catalogue, versions
from ops.aws import in_parallel
from ops.health import event_source


@dataclass(frozen=True, slots=True)
class QueueConfiguration:
    """Celery's concurrency, prefetch, visibility timeout and time limits. `time_limit` is that of the longest task,
    None if no catalogue is available; `environment` holds the function's variables."""

    queue: str
    concurrency: int | None
    batch_size: int | None
    partial_failures: bool
    timeout: int
    memory: int
    visibility_timeout: int
    retention: int
    max_receives: int | None
    dead_letters_to: str | None
    time_limit: float | None
    architecture: str
    layers: tuple[str, ...]
    environment: dict[str, str]


def of_queues(queues: Sequence[str]) -> list[QueueConfiguration]:
    """The settings of each queue. Raises botocore's errors."""
    return in_parallel(_of_queue, list(queues))


def _of_queue(queue: str) -> QueueConfiguration:
    attributes = runtime_client("sqs").get_queue_attributes(
        QueueUrl=queue_url(settings().queue_name(queue)), AttributeNames=["All"]
    )["Attributes"]
    function: Any = versions.configuration(queue)
    source = event_source(queue) or {}
    redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
    receives = redrive.get("maxReceiveCount")
    return QueueConfiguration(
        queue=queue,
        concurrency=source.get("ScalingConfig", {}).get("MaximumConcurrency"),
        batch_size=source.get("BatchSize"),
        partial_failures="ReportBatchItemFailures" in source.get("FunctionResponseTypes", []),
        timeout=int(function["Timeout"]),
        memory=int(function["MemorySize"]),
        visibility_timeout=int(attributes["VisibilityTimeout"]),
        retention=int(attributes["MessageRetentionPeriod"]),
        max_receives=None if receives is None else int(receives),
        dead_letters_to=redrive.get("deadLetterTargetArn"),
        time_limit=None if catalogue.missing() else max(t.time_limit for t in catalogue.served_by(queue).values()),
        architecture=",".join(function.get("Architectures", [])),
        layers=tuple(layer["Arn"] for layer in function.get("Layers", [])),
        environment=dict(function.get("Environment", {}).get("Variables", {})),
    )
