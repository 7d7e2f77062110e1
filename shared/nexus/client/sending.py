"""Sending: the first steps of a canvas, or many single tasks, recorded and put into their queues."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Value, Write
from nexus.backend.transport import MESSAGES_PER_REQUEST
from nexus.client.bounded import bounded, note
from nexus.client.following import PreparedRun, PreparedSteps, group_values, open_group, send_all
from nexus.client.steps import GroupStep, Steps, TaskStep, latest
from nexus.envelope import Envelope
from nexus.errors import ConfigurationError, SendFailed
from nexus.runs import transitions
from nexus.runs.record import RunError
from nexus.runs.sender import note_child, parent
from nexus.settings import settings


@bounded
def launch(steps: Steps, *, given: bool = False, track: bool = True) -> None:
    """Sends the first steps of a canvas and records the others. Raises InvalidMessage before anything is sent.

    `given` says that the caller chose the id: the records may then exist already, and what has not run is sent
    again. Without `track` nothing is recorded.
    """
    prepared = _prepared([steps], track=track)
    runs, later = list(prepared.all_runs()), _later(steps)
    run_ids = [run.envelope.id for run in runs]
    with sending(*run_ids):
        _record(prepared, later, track=track)
        try:
            send_all(runs)
        except Exception as error:
            # A caller that chose the id retries: settling late here would stop the message of the retry.
            unsent = _unsent(error, run_ids)
            if unsent and track and not given:
                first = next(iter(unsent.values()))
                pending = {run.envelope.id for run in runs if _is_recorded(run)}
                forget(
                    {run_id: reason for run_id, reason in unsent.items() if run_id in pending}
                    | {str(write.key): first for write in later}
                )
            raise
    note_child(steps[0].id)


def _prepared(sequences: Sequence[Steps], *, track: bool) -> PreparedSteps:
    prepared = PreparedSteps.of(sequences, parent())
    if not track and any(run.record.keys() - {"eta", "live", "since"} for run in prepared.runs):
        raise ValueError("retry= and link_error= are kept in the run's record, so they need track=True")
    return prepared


def _record(prepared: PreparedSteps, later: Sequence[Write], *, track: bool) -> None:
    """Records the runs that begin now and those that come later."""
    for group in prepared.groups:
        open_group(group)
        _record(group.members, (), track=track)
    writes = [*(run.pending for run in prepared.runs if track and _is_recorded(run)), *later]
    backend().store.apply_all(writes)


def _is_recorded(run: PreparedRun) -> bool:
    """Whether a tracked run has a record before it is claimed. A group's member has one only if it needs it."""
    return bool(run.record) or run.step.segment is None


def _later(steps: Steps) -> list[Write]:
    """The records of the steps that are not sent yet: their handles are PENDING from the start."""
    writes, due = [], latest(steps[:1], clock.now())
    for before, step in pairwise(steps):
        due = latest([step], due)
        keep = transitions.keep_until(due)
        if isinstance(step, GroupStep):
            values: dict[str, Value] = {**group_values(step, before.id), "status": "PENDING", "expires": keep}
            writes.append(Write(step.id, set=values, insert=True))
        else:
            envelope = Envelope(id=step.id, task=step.task, args=dict(step.args), parent=before.id)
            writes.append(transitions.pending(envelope, step.queue, keep))
    return writes


def _unsent(error: Exception, run_ids: Sequence[str]) -> Mapping[str, str]:
    """The reason for each of these runs that has certainly not been sent.

    An error that is not AWS's, such as TimeLimitExceeded, may come after SQS has accepted some: then it is none.
    """
    if isinstance(error, SendFailed):
        return error.failures
    return dict.fromkeys(run_ids, str(error)) if sdk.is_of_aws(error) else {}


@bounded
def send_batch(steps: Sequence[TaskStep], *, track: bool = True) -> None:
    """Sends single tasks in batches of ten messages and 25 records a request; one request for each that is due later
    than SQS can hold it.

    What SQS refuses is retried twice; SendFailed then lists the ids of the runs that were not accepted, and the others
    have been sent. If AWS cannot be reached, the rest is not tried.
    """
    prepared = _prepared([[step] for step in steps], track=track)
    run_ids = [step.id for step in steps]
    with sending(*run_ids):
        try:
            if track:
                # A run's cost includes its share of the requests that sent it (nexus.worker.spending).
                together = {"sent_with": min(len(steps), MESSAGES_PER_REQUEST)}
                pending = (run.pending for run in prepared.runs)
                backend().store.apply_all([replace(write, set={**write.set, **together}) for write in pending])
            send_all(prepared.runs)
        except Exception as error:
            unsent = _unsent(error, run_ids)
            if unsent:
                _note_children(run_id for run_id in run_ids if run_id not in unsent)
                if track:
                    forget(unsent)
            raise
    _note_children(run_ids)


def _note_children(run_ids: Iterable[str]) -> None:
    for run_id in run_ids:
        note_child(run_id)


@contextmanager
def sending(*run_ids: str) -> Iterator[None]:
    """Translates botocore errors in the block into application errors: no such stack, or these runs were not sent."""
    from botocore.exceptions import BotoCoreError, ClientError

    note(*run_ids)
    try:
        yield
    except (BotoCoreError, ClientError, sdk.Throttled) as error:
        if sdk.is_misconfigured(error):
            raise ConfigurationError(f"AWS cannot be used: {error}") from error
        if sdk.is_missing(error):
            stack, region = settings().stack, sdk.client("sqs").meta.region_name
            raise ConfigurationError(f"the stack {stack} is missing or incomplete in {region}: {error}") from error
        raise SendFailed(dict.fromkeys(run_ids, str(error)), away=sdk.is_outage(error)) from error


def forget(reasons: Mapping[str, str]) -> None:
    """Settles the records of runs that were not sent: the reason by id. Those that AWS fails to settle stay PENDING."""
    from botocore.exceptions import BotoCoreError, ClientError

    sdk.wait.set(None)  # a caller that has given up on the send still needs its record settled
    now = clock.moment()
    writes = [
        transitions.not_sent(run_id, RunError.of(SendFailed({}, reason)), now) for run_id, reason in reasons.items()
    ]
    with suppress(BotoCoreError, ClientError, sdk.Throttled):
        backend().store.apply_all(writes)
