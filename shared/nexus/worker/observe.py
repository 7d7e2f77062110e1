"""What a run leaves in the log: two structured lines, with metrics in the second.

The end line is a log line and a CloudWatch embedded-metric document at once, so metrics cost no request and no
second line.

No line contains the value of an argument or a result: they may be addresses, tokens or users' texts. An error's message
often quotes them, so a line contains only `RunError.shown` of an error: its type, the fault if this package found it,
and the place in the code. The message is in the run's record and in the dead letter. All of the package's lines are
written here, so that a test can check every one.
"""

import os
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nexus import clock
from nexus.aws import encoding
from nexus.errors import ConfigurationError

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

    from nexus.envelope import Envelope, Segment
    from nexus.runs.record import RunError, RunRecord

NAMESPACE = "nexus"


@lru_cache(maxsize=1)
def logger() -> "Logger":
    """The only logger; POWERTOOLS_SERVICE_NAME and POWERTOOLS_LOG_LEVEL set its name and level.

    Raises ConfigurationError if the packages that a worker needs are not installed.
    """
    try:
        from aws_lambda_powertools import Logger

        from nexus.worker.lines import LineFormatter
    except ModuleNotFoundError as error:
        raise ConfigurationError(f'running tasks needs {error.name}: pip install "./shared[worker]"') from error

    # Lambda reads standard output. Elsewhere standard output belongs to the program.
    stream = sys.stdout if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else sys.stderr
    service = os.environ.get("POWERTOOLS_SERVICE_NAME", "nexus")
    formatter = LineFormatter(use_rfc3339=True, utc=True, json_serializer=encoding.line)
    return Logger(service=service, stream=stream, logger_formatter=formatter)


def log_reference(context: Any) -> str:
    """Where this invocation's log lines are: log group, stream and request id, as one text for a dead letter."""
    parts = (getattr(context, name, "") for name in ("log_group_name", "log_stream_name", "aws_request_id"))
    return " ".join(str(part) for part in parts if part)


def run_started(queue: str, envelope: "Envelope", attempt: int, waited: float) -> None:
    """Every line from here to `run_ended` has task, id, attempt and queue; `waited` is seconds since sending.

    `sent_trace` is the sender's X-Ray trace; the logger adds this invocation's own. `origin` is the envelope's.
    """
    log = logger()
    log.append_keys(task=envelope.task, run_id=envelope.id, attempt=attempt, queue=queue)
    log.info("run started", waited_ms=round(waited * 1000), sent_trace=envelope.trace, origin=envelope.origin)


def run_ended(outcome: str, seconds: float, error: "RunError | None" = None, shortfall: str | None = None) -> None:
    """`outcome` is the resulting status of the attempt, in lower case, or continued, fanned_out, released.

    `shortfall` is what a success did not achieve (`Result.shortfall`).
    """
    log = logger()
    milliseconds = round(seconds * 1000, 3)
    metrics: dict[str, Any] = {
        "_aws": {
            "Timestamp": time.time_ns() // 1_000_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [["stack", "queue", "task"], ["stack", "queue"]],
                    "Metrics": [{"Name": "duration", "Unit": "Milliseconds"}, {"Name": outcome, "Unit": "Count"}],
                }
            ],
        },
        "stack": os.environ.get("NEXUS_STACK", "none"),
        "duration": milliseconds,
        outcome: 1,
    }
    if error is None:
        if shortfall is not None:
            metrics["shortfall"] = shortfall.partition(":")[0]  # after a colon there may be an argument's value
        log.info("run ended", outcome=outcome, **metrics)
    else:
        log.warning("run ended", outcome=outcome, reason=error.shown, **metrics)
    log.remove_keys(("task", "run_id", "attempt", "queue"))


def waiting_run_ended(
    run: "RunRecord", outcome: str, error: "RunError | None" = None, shortfall: str | None = None
) -> None:
    """The end of a fan-out or a group, logged by the invocation that settled its last member."""
    log = logger()
    # This line appears among those of the member that ended it: the member's keys are restored after it.
    member_keys = log.get_current_keys()
    log.append_keys(task=run.task, run_id=run.id, attempt=run.attempts, queue=run.queue)
    run_ended(outcome, clock.now() - (run.started_at or clock.now()), error, shortfall)
    log.append_keys(
        **{name: member_keys[name] for name in ("task", "run_id", "attempt", "queue") if name in member_keys}
    )


def dead_lettered(queue: str, error: "RunError", run_id: str | None, task: str | None) -> None:
    """A message was given up."""
    logger().error("dead letter", queue=queue, error_type=error.type, reason=error.shown, run_id=run_id, task=task)


def attempt_failed(error: "RunError") -> None:
    """Where an attempt ended, frame by frame."""
    logger().debug("attempt failed", reason=error.shown, traceback=error.traceback)


def invocation_failed(error: "RunError") -> None:
    """An unexpected error has ended the invocation."""
    logger().error("invocation failed", reason=error.shown, traceback=error.traceback)


def left_for_later(run_id: str, error: "RunError") -> None:
    """A follow-up of a run, or an object that its message refers to, was not available; the message is redelivered."""
    logger().warning("left for later", run_id=run_id, reason=error.shown)


def not_counted(parent: str, segment: "Segment") -> None:
    """A member has ended, but the run that waited has no record any more: what was to follow it is lost."""
    logger().error("member not counted", parent=parent, segment=segment.index)


def not_listed(error: "RunError") -> None:
    """Runs that take long could not be listed among the live ones; the next look tries again."""
    logger().warning("live runs not listed", reason=error.shown)


def not_sent_again(run_id: str, error: "RunError") -> None:
    """AWS accepted no other message of a run, or no schedule for one: the message received comes back in its place."""
    logger().warning("not sent again", run_id=run_id, reason=error.shown)


def run_revoked(envelope: "Envelope", reason: str) -> None:
    """A run was not started, or not retried; `reason` is this package's own text."""
    logger().info("run revoked", run_id=envelope.id, task=envelope.task, origin=envelope.origin, reason=reason)


def overtaken(run_id: str, attempt: int) -> None:
    """The attempt's lease had expired, and the run has been claimed again or has ended: this outcome does not count."""
    logger().warning("attempt overtaken", run_id=run_id, attempt=attempt)
