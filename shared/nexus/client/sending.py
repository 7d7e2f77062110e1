"""Sending: the first steps of a canvas, or many single tasks, recorded and put into their queues."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Applied, Value, Write
from nexus.backend.transport import MESSAGES_PER_REQUEST
from nexus.client.bounded import bounded, note
from nexus.client.following import PreparedSteps, dispatch, group_values, open_group, send_all
from nexus.client.steps import GroupStep, Step, Steps, TaskStep
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
    prepared = PreparedSteps.of([steps], parent())
    if not track and any(run.record.keys() - {"eta", "live", "since"} for run in prepared.runs):
        raise ValueError("retry= and link_error= are kept in the run's record, so they need track=True")
    later = [_later(step, before.id) for before, step in pairwise(steps)]
    run_ids = [run.envelope.id for run in prepared.all_runs()]
    with sending(*run_ids):
        written = _record(prepared, later, track=track)
        try:
            send_all(list(prepared.all_runs()))
        except Exception as error:
            # A caller that chose the id retries: settling late here would stop the message of the retry.
            if not given:
                refused = error.failures if isinstance(error, SendFailed) else {}
                sent = {p.envelope.id for group in prepared.groups for p in group.members.all_runs()} - set(refused)
                first = next(iter(refused.values()), str(error))
                forget({run_id: refused.get(run_id, first) for run_id in written if run_id not in sent})
            raise
    note_child(steps[0].id)


def _record(prepared: PreparedSteps, later: Sequence[Write], *, track: bool) -> list[str]:
    """Records the runs that begin now and those that come later. Returns the ids that this made PENDING.

    A group member that is a single task has no record until it is claimed, unless there is something to store.
    """
    for group in prepared.groups:
        open_group(group)
        _record(group.members, (), track=track)
    runs = [p for p in prepared.runs if track and (p.record or p.step.segment is None)]
    writes = [*(run.pending for run in runs), *later]
    store = backend().store
    outcomes = [store.apply(write) for write in writes] if len(writes) == 1 else store.apply_all(writes)
    return [str(write.key) for write, outcome in zip(writes, outcomes, strict=True) if isinstance(outcome, Applied)]


def _later(step: Step, before: str) -> Write:
    """The record of a step that is not sent yet: its handle is PENDING from the start."""
    keep = transitions.keep_until()
    if isinstance(step, GroupStep):
        values: dict[str, Value] = {**group_values(step, before), "status": "PENDING", "expires": keep}
        return Write(step.id, set=values, insert=True)
    envelope = Envelope(id=step.id, task=step.task, args=dict(step.args), parent=before)
    return transitions.pending(envelope, step.queue, keep)


@bounded
def send_batch(steps: Sequence[TaskStep], *, track: bool = True) -> None:
    """Sends single tasks in batches of ten messages and 25 records a request.

    What SQS refuses is retried twice; SendFailed then lists the ids of the runs that were not accepted, and the others
    have been sent. If AWS cannot be reached, the rest is not tried.
    """
    prepared = PreparedSteps.of([[step] for step in steps], parent())
    with sending(*(step.id for step in steps)):
        if track:
            # A run's cost includes its share of the requests that sent it (nexus.worker.spending).
            together = {"sent_with": min(len(steps), MESSAGES_PER_REQUEST)}
            pending = (run.pending for run in prepared.runs)
            backend().store.apply_all([replace(write, set={**write.set, **together}) for write in pending])
        failures = dispatch(prepared.runs)
    for step in steps:
        if step.id not in failures:
            note_child(step.id)
    if failures:
        if track:
            forget(failures)
        raise SendFailed(failures)


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
        raise SendFailed(dict.fromkeys(run_ids, str(error))) from error


def forget(reasons: Mapping[str, str]) -> None:
    """Settles the records of runs that were not sent: the reason by id. Those that AWS fails to settle stay PENDING."""
    from botocore.exceptions import BotoCoreError, ClientError

    sdk.wait.set(None)  # a caller that has given up on the send still needs its record settled
    now = clock.moment()
    with suppress(BotoCoreError, ClientError, sdk.Throttled):
        for run_id, reason in reasons.items():
            error = RunError.of(SendFailed({}, reason))
            backend().store.apply(transitions.not_sent(run_id, error, now))
