"""What the outside sees of a run: two structured log lines, and metrics in the second of them.

The end line is a log line and a CloudWatch embedded-metric document at once, so metrics cost no request and no
second line. No line carries a task's arguments or result: they may hold addresses and tokens.
"""

import os
import re
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nexus import clock
from nexus.errors import ConfigurationError

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

    from nexus.envelope import Envelope
    from nexus.runs.record import RunError, RunRecord

NAMESPACE = "nexus"
REASON_SHOWN = 1000

# An error's message may quote the argument at fault; a log line must not carry an address or a token.
_ADDRESS = re.compile(r"[^\s@'\"<>]+@[^\s@'\"<>]+")
_TOKEN = re.compile(r"eyJ[\w-]+(\.[\w-]*)*|[\w+-]{40,}={0,2}")


@lru_cache(maxsize=1)
def logger() -> "Logger":
    """The one logger; POWERTOOLS_SERVICE_NAME and POWERTOOLS_LOG_LEVEL set its name and level.

    Raises ConfigurationError where the packages that a worker needs are not installed.
    """
    try:
        from aws_lambda_powertools import Logger
    except ModuleNotFoundError as error:
        raise ConfigurationError(f'running tasks needs {error.name}: pip install "./shared[worker]"') from error

    # Lambda reads standard output. Elsewhere that is the program's own.
    stream = sys.stdout if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else sys.stderr
    return Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "nexus"), use_rfc3339=True, stream=stream)


def log_reference(context: Any) -> str:
    """Where the lines of this invocation are: log group, stream and request id, as one text for a dead letter."""
    parts = (getattr(context, name, "") for name in ("log_group_name", "log_stream_name", "aws_request_id"))
    return " ".join(str(part) for part in parts if part)


def redacted(text: str) -> str:
    """The text with e-mail addresses and what looks like a token taken out."""
    return _TOKEN.sub("<token>", _ADDRESS.sub("<address>", text[:REASON_SHOWN]))


def run_started(queue: str, envelope: "Envelope", attempt: int, waited: float) -> None:
    """Every line from here to `run_ended` carries task, id, attempt and queue; `waited`: seconds since it was sent.

    `sent_trace` is the sender's X-Ray trace, beside this invocation's own, which the logger adds.
    """
    log = logger()
    log.append_keys(task=envelope.task, run_id=envelope.id, attempt=attempt, queue=queue)
    log.info("run started", waited_ms=round(waited * 1000), sent_trace=envelope.trace)


def run_ended(outcome: str, seconds: float, reason: str | None = None) -> None:
    """`outcome` is the status that the attempt led to, in lower case, or continued, fanned_out, put_back.

    A success with a `reason` fell short of what it was sent for (`Result.shortfall`).
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
    if reason is None:
        log.info("run ended", outcome=outcome, **metrics)
    elif outcome == "success":
        log.info("run ended", outcome=outcome, shortfall=redacted(reason), **metrics)
    else:
        log.warning("run ended", outcome=outcome, reason=redacted(reason), **metrics)
    log.remove_keys(("task", "run_id", "attempt", "queue"))


def waiting_run_ended(run: "RunRecord", outcome: str, reason: str | None = None) -> None:
    """The end of a fan-out or a group, by whichever invocation settled its last member."""
    log = logger()
    # The line stands among those of the member that ended it, and is its own: the member's keys are put back after it.
    standing = log.get_current_keys()
    log.append_keys(task=run.task, run_id=run.id, attempt=run.attempts, queue=run.queue)
    run_ended(outcome, clock.now() - (run.started_at or clock.now()), reason)
    log.append_keys(**{name: standing[name] for name in ("task", "run_id", "attempt", "queue") if name in standing})


def dead_lettered(queue: str, error: "RunError", run_id: str | None, task: str | None) -> None:
    """A message was given up."""
    logger().error(
        "dead letter", queue=queue, error_type=error.type, reason=redacted(error.message), run_id=run_id, task=task
    )
