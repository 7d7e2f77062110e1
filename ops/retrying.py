"""Sends failed runs again, wherever their dead letters are.

A run that waits for others (a fan-out, a group) has no dead letter: those of its members that failed have one each.
Its members may be in other queues than itself; a group is in none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nexus.backend import backend
from nexus.runs import tallies
from nexus.runs.record import RunRecord
from ops import catalogue, dead_letters, timeline
from ops.problems import Problem, explained, usage


@dataclass(frozen=True, slots=True)
class Failed:
    """The runs to send again, at least one. `never_sent` counts those asked for that failed because a run before them
    failed: they have no dead letter, and follow once that run has succeeded."""

    runs: tuple[RunRecord, ...]
    never_sent: int


def failed(ids: Iterable[str]) -> Failed:
    """Those of these runs that have failed; of those that wait for others, the members that have, at any depth.

    Raises Problem if there are none.
    """
    level = list(dict.fromkeys(ids))
    asked, met = frozenset(level), set(level)
    found: list[RunRecord] = []
    never_sent = 0
    while level:
        items = backend().store.get(level)
        members: list[str] = []
        for item in (items[run_id] for run_id in level if run_id in items):
            record = RunRecord.of(item)
            if record.status == "FAILURE" and "blocked" in item:
                never_sent += record.id in asked
                continue
            if record.status == "FAILURE" and not record.waits:
                found.append(record)
            # A group or fan-out may have failed members while it runs, or if it could not send all its members.
            if record.fanned_out and record.status in ("STARTED", "FAILURE"):
                members += (run_id for run_id in _failed_members(record) if run_id not in met)
        level = list(dict.fromkeys(members))
        met.update(level)
    if not found:
        why = "Failed runs are sent again, and of a job or a group the members that failed. None of these has."
        if never_sent:
            why = "A run before them failed: send that one again, and they follow."
        raise usage("There is nothing to send again", why)
    return Failed(tuple(found), never_sent)


def letters(ids: Iterable[str]) -> frozenset[str]:
    """The ids, with the members that failed in place of each job or group. Raises Problem if none of them has."""
    items = backend().store.get(sorted(ids))
    jobs = {run_id for run_id, item in items.items() if RunRecord.of(item).waits}
    members = {record.id for record in failed(jobs).runs} if jobs else set()
    return frozenset(ids) - jobs | members


def _failed_members(record: RunRecord) -> Iterator[str]:
    """The runs of each failed member; if a member is a chain, any of them may be the one that failed."""
    for member in timeline.of_members(record):
        if member.status == "failed":
            steps = record.earlier[member.index] if record.earlier else 0
            yield from (tallies.earlier_id(member.id, number) for number in range(steps))
            yield member.id


def retry(found: Failed) -> str:
    """Sends these runs again under their ids, queue by queue, and returns what it did in words.

    Raises botocore's errors; after the first queue, a Problem that also says how many runs were sent before it.
    """
    by_queue: dict[str, set[str]] = {}
    for record in found.runs:
        by_queue.setdefault(record.queue, set()).add(record.id)
    done, refused = 0, dict[str, str]()
    elsewhere = 0
    for queue, ids in by_queue.items():
        if queue not in catalogue.queues():
            elsewhere += len(ids)
            continue
        try:
            outcome = dead_letters.retry(queue, dead_letters.Filter(ids=frozenset(ids)))
        except Exception as error:
            problem = explained(error)
            if problem is None or not done:
                raise
            why = f"{problem.why.rstrip('.')}. {done:,} sent again before that.".removeprefix(". ")
            raise Problem(problem.what, why, problem.do, problem.code) from error
        done += outcome.done
        refused |= outcome.failed
    gone = len(found.runs) - done - len(refused) - elsewhere
    return " ".join(_words(done, gone, elsewhere, refused, found.never_sent))


def _words(done: int, gone: int, elsewhere: int, refused: dict[str, str], never_sent: int) -> Iterator[str]:
    yield f"{done:,} sent again."
    if elsewhere:
        yield f"Not sent: {elsewhere:,} whose queue is not in this stack."
    if gone:
        yield f"{gone:,} no longer had a dead letter."
    if refused:
        yield f"{len(refused):,} could not be: {next(iter(refused.values()))}."
    if never_sent:
        yield f"{never_sent:,} will follow when the run before has succeeded."
