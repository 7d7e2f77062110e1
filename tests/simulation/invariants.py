"""The invariants: what holds for every history, whatever went wrong in it."""

from collections.abc import Iterator
from typing import Any

from nexus.aws.expressions import Item
from nexus.client.handles import read_records
from nexus.runs import payloads
from nexus.runs.record import RunRecord
from tests.simulation import catalogue
from tests.simulation.scenarios import Accepted, Story, envelope_of
from tests.simulation.world import STACK, START, TIMEOUT, World

LATE = 4.0
"""Seconds by which a start may be later than booked: a message is redelivered in whole seconds, and may wait."""

ENDED = ("SUCCESS", "FAILURE", "REVOKED")


def watch(story: Story) -> None:
    """Checks each write to a run record."""
    world = story.world

    def written(key: str, before: Item | None, after: Item | None) -> None:
        old, new = _status(before), _status(after)
        if after is not None and "expires" not in after:
            world.violation(f"{key} would never be deleted: it has no expiry")
        if old == "SUCCESS" and (new != "SUCCESS" or after["result"] != before["result"]):  # type: ignore[index]
            world.violation(f"{key} was SUCCESS and is {new}, or has another result")
        if old == "REVOKED" and new != "REVOKED":
            world.violation(f"{key} was REVOKED and is {new}")
        due = float(before["eta"]["N"]) if before is not None and "eta" in before else 0.0
        if old == "RETRY" and new == "STARTED" and due > world.clock.now + 3.0:
            world.violation(f"{key} is claimed before its time")
        if new == "FAILURE" and "while reducing the results" in after["error"]["S"]:  # type: ignore[index]
            world.violation(f"{key} is FAILURE: it lacks members' results, though every member has succeeded")
        if new in ENDED and after is not None and "live" in after:
            world.violation(f"{key} is {new} and still listed as live")
        if new in ENDED and after is not None and "task" in after:
            partition = after["history"]["S"].partition("#")[0] if "history" in after else None
            if partition != (after["task"]["S"] if new == "SUCCESS" else new):
                world.violation(f"{key} is {new}, and the run history has it in {partition}")

    world.watch = written


def _status(item: Item | None) -> str | None:
    return None if item is None or "status" not in item else item["status"]["S"]


def at_rest(story: Story) -> Iterator[str]:
    """The violations of a world that has come to rest."""
    world = story.world
    yield from world.violations
    letters = dead_letters(story)
    for one, record in zip(story.accepted, _records(story), strict=True):
        if record.status not in ENDED and one.handle.id not in letters:
            yield f"{one.what} {one.handle.id} was accepted, and stays {record.status}"
    for key, item in world.dynamo.items.items():
        if "status" in item:
            yield from _run_at_rest(story, key, item, letters)
        elif key.startswith("unique/") and ({"holder", "waiter"} & item.keys()) and not _given_way(world, item):
            yield f"{key} is still held by {item.get('holder')}, waited for by {item.get('waiter')}"
    for run_id, actors in world.completions.items():
        sound = [actor for actor in actors if not actor.faulted]
        if len(sound) > 1:
            yield f"{run_id} was done by {len(sound)} sandboxes without a fault"
    yield from _messages_at_rest(story)
    yield from _too_fast(story)
    yield from _over_budget(story)
    if world.scheduler.schedules:
        yield f"schedules are left: {list(world.scheduler.schedules)}"


def _given_way(world: World, place: Item) -> bool:
    """Whether a lost sandbox has left the place of a run that has ended: the next run takes it over."""
    holder = place["holder"]["S"] if "holder" in place else ""
    ended = _status(world.dynamo.items.get(holder)) in ENDED
    return ended and "waiter" not in place and any(claimant.faulted for claimant in world.claims[holder])


def _run_at_rest(story: Story, key: str, item: Item, letters: set[str]) -> Iterator[str]:
    status, task = _status(item), item["task"]["S"]
    tidy = not story.broken_sends and not any(program.faulted for program in story.programs)
    if status not in ENDED and tidy and key not in letters:
        yield f"{task} {key} stays {status} forever"
    if (
        status == "FAILURE"
        and "waits" not in item
        and "blocked" not in item
        and key not in letters
        and not _sender_gave_up(item)
    ):
        yield f"{task} {key} is FAILURE, and there is no dead letter: {item['error']['S'][:200]}"
    # An operator who does not learn that a letter was sent again leaves it: an extra message, which does no harm.
    if status == "SUCCESS" and tidy and key in letters and not any(key in body for body in story.world.lost):
        yield f"{key} is SUCCESS, and there is a dead letter of it"


def _messages_at_rest(story: Story) -> Iterator[str]:
    world = story.world
    for body in world.redriven:
        yield f"SQS gave up after too many receives: {body[:150]}"
    for body in world.dropped:
        yield f"SQS dropped what it had kept for too long: {body[:150]}"
    kept = [letter.body for queue in TIMEOUT for letter in world.sqs.queues[f"{STACK}-{queue}-dead"].messages]
    for body in story.garbage:
        if body not in kept:
            yield f"an unreadable message is not unchanged among the dead letters: {body[:80]}"


def _too_fast(story: Story) -> Iterator[str]:
    """Finds starts beyond a task's rate, if no sandbox was lost or stalled: those may use a booked start late."""
    world = story.world
    if world.faults.at_most and not world.faults.kinds.keys() <= {"lost", "again", "partial", "twice", "refused"}:
        return
    for task in (catalogue.paced, catalogue.rare):
        assert task.rate_limit is not None
        begun = sorted(
            when
            for run_id, starts in world.starts.items()
            if _task(world.dynamo.items.get(run_id)) == task.name
            for actor, when in starts
            if not actor.faulted
        )
        for many in range(2, len(begun) + 1):
            least = (many - 1) / task.rate_limit.per_second - LATE
            if any(begun[n + many - 1] - begun[n] < least for n in range(len(begun) - many + 1)):
                yield f"{many} runs of {task.name} began within {least:.1f} s"
                break


def _over_budget(story: Story) -> Iterator[str]:
    """Finds starts beyond a task's budget: at any moment there are at most the limits of the days so far."""
    task = catalogue.rationed
    assert task.budget is not None
    assert task.budget.runs is not None
    began = sorted(
        when
        for run_id, starts in story.world.starts.items()
        if _task(story.world.dynamo.items.get(run_id)) == task.name
        for _, when in starts
    )
    for count, when in enumerate(began, 1):
        days = int(when // 86_400) - int(START // 86_400) + 1
        if count > task.budget.runs * days:
            yield f"{count} runs of {task.name} began within {days} days"
            break


def _task(item: Item | None) -> str | None:
    return None if item is None else item["task"]["S"]


def healed(story: Story) -> Iterator[str]:
    """The violations after all dead letters were sent again and nothing has failed since."""
    for one, record in zip(story.accepted, _records(story), strict=True):
        if story.revoked:
            continue
        if record.status == "REVOKED" and one.revocable:
            continue
        if record.status != "SUCCESS":
            yield f"{one.what} {one.handle.id} is {record.status} after its dead letter was sent again: {record.error}"
        elif one.expected is not None and (found := _result(record)) != one.expected:
            yield f"{one.what} {one.handle.id} has the result {str(found)[:200]}, not {one.expected}"


def _result(record: RunRecord) -> Any:
    return None if record.result is None else payloads.load(record.result)


def _records(story: Story) -> list[RunRecord]:
    handles: list[Accepted] = story.accepted
    found: list[RunRecord] = []
    for at in range(0, len(handles), 100):
        found += read_records([one.handle for one in handles[at : at + 100]])
    return found


def dead_letters(story: Story) -> set[str]:
    """The runs that have a dead letter."""
    found = set()
    for queue in TIMEOUT:
        for letter in story.world.sqs.queues[f"{STACK}-{queue}-dead"].messages:
            run_id = letter.attributes.get("RunId", {}).get("StringValue")
            envelope = None if run_id else envelope_of(letter.body)
            found.add(run_id or (envelope.id if envelope else letter.body))
    return found


def _sender_gave_up(item: Item) -> bool:
    return "SendFailed" in item["error"]["S"]
