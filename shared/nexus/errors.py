"""One error type for each decision that a caller or the worker can take.

NexusError
+-- ConfigurationError   the environment is wrong: nothing works until it is changed
+-- InvalidMessage       the message or its arguments are wrong: never retried
+-- UnknownTask          no such task here: never retried
+-- BudgetSpent          a direct call of a task that has spent its day's budget: call it tomorrow
+-- SendFailed           AWS did not accept it: send it again
+-- Retry                raised by a task: retry this run later
+-- Reject               raised by a task: give up this run
+-- Revoked              raised by a task that has seen `run.revoked`: end as REVOKED
+-- TimeLimitExceeded    the task's time is over: retried by its policy
+-- TaskFailed           get() of a run that failed
+-- StillRunning         get() of a run that has not ended in time
"""

from collections.abc import Mapping

LONGEST_WAIT = 366 * 86_400
"""Seconds that a run may ask to wait: at most a year."""


class NexusError(Exception):
    """Base class of the errors that this package raises."""


class ConfigurationError(NexusError):
    """The configuration does not identify a usable deployment.

    For example, there is no such stack, no region or no credentials. A retry does not help.
    """


class Retry(NexusError):
    """Raised by a task: retry later, `after` seconds from now (the policy's backoff if None)."""

    def __init__(self, reason: str = "retry requested", *, after: float | None = None) -> None:
        super().__init__(reason)
        if after is not None and not 0 <= after <= LONGEST_WAIT:
            raise ValueError(f"after is {after}: it must be seconds from 0 to {LONGEST_WAIT}")
        self.after = after


class Reject(NexusError):
    """Raised by a task: this run can never succeed. It goes to the dead-letter queue at once, with the reason."""


class Revoked(NexusError):
    """Raised by a task that has seen `run.revoked`: the run ends as REVOKED."""


class TimeLimitExceeded(NexusError):
    """The task's time limit, or the invocation's end, is near. Raised inside the task; retried by the policy."""


class InvalidMessage(NexusError):
    """A message is not an envelope, or its task's model refuses the arguments; names the field and its fault.

    `fault` says the same without any value, safe for a log line.
    """

    def __init__(self, message: str, fault: str = "") -> None:
        super().__init__(message)
        self.fault = fault


class UnknownTask(NexusError):
    """No such task in the catalogue, or not one that this queue serves."""


class BudgetSpent(NexusError):
    """A task was invoked directly but has spent its budget for the day. Queued messages wait for the next day."""


class SendFailed(NexusError):
    """AWS did not accept the task, or was not reached in time. `failures` maps a run's id to the reason.

    The others were sent. A request whose response did not arrive in time may still have been carried out: send again
    with the same `task_id` if a second run would do harm. `away`: AWS did not respond, throttled or failed, so another
    send would fail too.
    """

    def __init__(self, failures: Mapping[str, Exception | str], reason: str = "", *, away: bool = False) -> None:
        self.failures: Mapping[str, str] = {run_id: str(why) for run_id, why in failures.items()}
        self.away = away
        reasons = [f"{run_id}: {why}" for run_id, why in self.failures.items()] or [reason]
        more = [f"and {len(reasons) - 3} more"] if len(reasons) > 3 else []
        super().__init__("not sent: " + "; ".join(reasons[:3] + more))


class TaskFailed(NexusError):
    """`AsyncResult.get()` of a run that ended in FAILURE or REVOKED."""


class StillRunning(NexusError):
    """`AsyncResult.get(timeout=...)` of a run that has not ended in time."""
