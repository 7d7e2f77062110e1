"""A fan-out ends exactly once with the sum of its segments, despite duplicate deliveries and crashes."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus import backend, clock
from nexus.aws import sdk
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore, Sent
from nexus.backend.store import Item, Outcome, Write
from nexus.backend.transport import MAX_DELAY, DeadLetter, Message
from nexus.builtin import Ping
from nexus.client import AsyncResult, group
from nexus.client.steps import MAX_BYTES
from nexus.clock import FrozenClock
from nexus.eager import Context, run_next
from nexus.envelope import Envelope, Segment
from nexus.ids import new_id
from nexus.registry import Implementation, registry
from nexus.runs import payloads, tallies
from nexus.runs.payloads import ITEM_BYTES
from nexus.runs.record import RunError
from nexus.runs.transitions import failure, send_again
from nexus.settings import settings as run_settings
from nexus.testing import SentTasks
from nexus.worker import Continuation, Run, fanout, observe
from nexus.worker.entry import serve
from tests.support import own_catalogue as catalogue
from tests.support.mortal import Fuse, MortalStore, Queue
from tests.support.own_catalogue import Counted, ReportPart, count_rows
from tests.unit.runtime.conftest import MORNING, Job, before_write, raises

pytestmark = pytest.mark.usefixtures("environment")

TASK = catalogue.make_report


def total(segments: int) -> int:
    return segments * (segments + 1) // 2


def test_the_parent_waits_shows_its_progress_and_ends_with_the_reduced_result(tasks: SentTasks, job: Job) -> None:
    handle = TASK.delay()
    run_next(tasks.transport)
    assert handle.status == "STARTED"
    assert handle.record().waits
    assert handle.progress == (0, 3)
    run_next(tasks.transport)
    assert handle.progress == (1, 3)
    assert [child.status for child in handle.children] == ["SUCCESS", "UNKNOWN", "UNKNOWN"]

    tasks.run()

    assert handle.status == "SUCCESS"
    assert handle.result is not None
    assert handle.result.rows_read == total(3)


def test_ten_thousand_segments_end_exactly_and_no_item_grows_large(tasks: SentTasks, job: Job) -> None:
    job.segments = 10_000
    handle = TASK.delay()

    tasks.run()

    assert handle.result is not None
    assert handle.result.rows_read == total(10_000)
    largest = max(len(json.dumps(item, default=sorted)) for item in tasks.store.items.values())
    assert largest < 4096


def test_a_second_phase_runs_after_all_segments_and_adds_its_report(tasks: SentTasks, job: Job) -> None:
    job.phases = 2
    handle = TASK.delay()
    for _ in range(4):
        run_next(tasks.transport)
    assert handle.progress == (0, 1)
    assert handle.record().waits

    tasks.run()

    assert handle.result is not None
    assert (handle.result.rows_read, handle.result.changed) == (total(3), 1)
    assert job.places == [*(Segment(index=index, total=3) for index in range(3)), None]


def test_all_parts_of_a_job_are_in_its_fair_queue_group(tasks: SentTasks, job: Job) -> None:
    job.phases = 3
    TASK.apply_async(group="tenant-7")
    groups = []
    while tasks.transport.sent:
        groups += [sent.message.group for sent in tasks.transport.sent]
        run_next(tasks.transport)
    assert set(groups) == {"tenant-7"}


def test_a_jobs_retention_starts_again_with_its_second_phase(tasks: SentTasks, job: Job) -> None:
    job.phases = 2
    kept = run_settings().run_days * 86_400
    with clock.use(FrozenClock(MORNING)):
        handle = TASK.delay()
        run_next(tasks.transport)
    with clock.use(FrozenClock(MORNING + 1_000_000)):
        for _ in range(3):
            run_next(tasks.transport)

    ends = [tasks.store.items[key]["expires"] for key in (handle.id, tallies.tally(handle.id, 2, 0))]
    assert ends == [1_796_770_000 + kept] * 2


def test_a_second_phase_may_be_a_job_with_segments_and_a_second_phase_itself(tasks: SentTasks, job: Job) -> None:
    job.phases = 3
    handle = TASK.delay()

    tasks.run()

    assert handle.result is not None
    assert (handle.result.rows_read, handle.result.changed) == (2 * total(3), 1)


def test_a_failed_segment_fails_the_parent_by_name_and_repairs_it_when_it_is_sent_again(
    tasks: SentTasks, job: Job
) -> None:
    job.faulty = frozenset({1})
    handle = TASK.delay()
    tasks.run()
    assert handle.status == "FAILURE"
    assert handle.error is not None
    failed = f"make_report {handle.children[1].id} is FAILURE: Reject: segment 1 cannot be done"
    assert handle.error.message == f"1 of 3 failed: 1 ({failed})"

    job.faulty = frozenset()
    ((_, letter),) = tasks.dead_letters
    redrive(tasks, letter)
    tasks.run()

    assert handle.status == "SUCCESS"
    assert handle.result is not None
    assert handle.result.rows_read == total(3)


def redrive(tasks: SentTasks, letter: DeadLetter) -> None:
    """As `nexus dlq retry` does it."""
    tasks.store.apply(send_again(letter.attributes["RunId"]))
    tasks.transport.send("analytics", [Message(letter.attributes["RunId"], letter.body, "g")])


def test_segments_are_counted_by_the_hundred(tasks: SentTasks, job: Job) -> None:
    job.segments = 150
    handle = TASK.delay()

    tasks.run()

    assert handle.progress == (150, 150)
    assert handle.result is not None
    assert handle.result.rows_read == total(150)
    assert {child.status for child in handle.children} == {"SUCCESS"}


@pytest.mark.parametrize(
    ("faulty", "named"),
    [
        (range(90, 110), f"20 of 150 failed: {', '.join(map(str, range(90, 110)))} ("),
        (range(90, 111), f"21 of 150 failed: {', '.join(map(str, range(90, 110)))}, ... ("),
    ],
    ids=["twenty", "more"],
)
def test_twenty_failed_segments_are_named_and_the_first_ones_reason(
    tasks: SentTasks, job: Job, faulty: range, named: str
) -> None:
    job.segments, job.faulty = 150, frozenset(faulty)
    handle = TASK.delay()

    tasks.run()

    assert handle.error is not None
    reason = f"make_report {handle.children[90].id} is FAILURE: Reject: segment 90 cannot be done)"
    assert handle.error.message == f"{named}{reason}"


def test_a_member_that_was_revoked_before_it_began_is_named(tasks: SentTasks, job: Job) -> None:
    handle = TASK.delay()
    run_next(tasks.transport)
    handle.children[0].revoke()

    tasks.run()

    assert handle.error is not None
    reason = f"member {handle.children[0].id} is REVOKED: Revoked: revoked"
    assert handle.error.message == f"1 of 3 failed: 0 ({reason})"


def test_a_fan_out_stays_failed_until_the_last_failed_segment_succeeds(tasks: SentTasks, job: Job) -> None:
    job.segments, job.faulty = 150, frozenset({1, 120})
    handle = TASK.delay()
    tasks.run()
    letters = {letter.attributes["RunId"]: letter for _, letter in tasks.dead_letters}

    job.faulty = frozenset()
    redrive(tasks, letters[handle.children[1].id])
    tasks.run()
    assert handle.error is not None
    assert handle.error.message.startswith("1 of 150 failed: 120 (")

    redrive(tasks, letters[handle.children[120].id])
    tasks.run()
    assert handle.result is not None
    assert handle.result.rows_read == total(150)


def test_a_reducer_gets_the_results_in_order_the_second_phases_last(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced: list[list[int]] = []

    def reduce(parts: Sequence[Counted]) -> Counted:
        reduced.append([part.rows_read or -part.changed for part in parts])
        return Counted(rows_read=len(parts))

    monkeypatch.setitem(registry._implementations, TASK.name, Implementation(TASK, job, job.part, reduce))
    job.phases = 2
    TASK.delay()

    tasks.run()

    assert reduced == [[1, 2, 3], [3, -1]]


@pytest.mark.parametrize("faulty", [set(), {1}], ids=["succeeds", "fails"])
def test_a_unique_jobs_place_is_free_as_soon_as_its_segments_have_ended(
    tasks: SentTasks, job: Job, faulty: set[int]
) -> None:
    job.faulty = frozenset(faulty)
    handle = TASK.delay()
    run_next(tasks.transport)
    place = str(handle.record().place)
    assert tasks.store.items[place]["holder"] == handle.id

    tasks.run()

    assert "holder" not in tasks.store.items[place]


@pytest.mark.parametrize("phases", [1, 2])
@pytest.mark.parametrize(
    ("reduced", "reason"),
    [
        (lambda: raises(ZeroDivisionError("no rows")), "ZeroDivisionError: while reducing the results: no rows"),
        (
            lambda: Counted.model_construct(rows_read="many"),  # type: ignore[arg-type]
            "InvalidMessage: while reducing the results: make_report: rows_read: ",
        ),
    ],
    ids=["raises", "has an invalid result"],
)
def test_a_reducer_that_fails_fails_the_run(
    tasks: SentTasks, job: Job, phases: int, reduced: Callable[[], Counted], reason: str
) -> None:
    job.phases = phases
    registry._implementations[TASK.name] = Implementation(TASK, job, job.part, lambda _: reduced())
    handle = TASK.delay()

    tasks.run()

    assert handle.status == "FAILURE"
    assert str(handle.error).startswith(reason)
    assert len(job.places) == 3, "no second phase"
    assert "holder" not in tasks.store.items[str(handle.record().place)]
    assert tasks.dead_letters == []


def test_only_the_whole_result_is_examined_for_a_shortfall_and_before_it_is_stored(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.phases = 2
    monkeypatch.setattr(Counted, "shortfall", property(lambda _: raises(ValueError("no such shortfall"))))
    monkeypatch.setattr(fanout, "NEXT_PHASE_BYTES", 0)
    monkeypatch.setattr(payloads, "room", lambda _: 0)
    handle = TASK.delay()

    tasks.run()

    assert str(handle.error) == "ValueError: while reducing the results: no such shortfall"
    assert [segment for segment in job.places if segment is None] == [None], "the second phase has run"
    assert f"results/none/{handle.id}-partial.json" in tasks.store.objects
    assert f"results/none/{handle.id}.json" not in tasks.store.objects


class Described(Counted):
    """A result with a text of any length."""

    text: str


LONGEST = fanout.NEXT_PHASE_BYTES
ROOM = payloads.INLINE_BYTES - LONGEST


@pytest.mark.parametrize(
    ("of_args", "of_result", "apart"),
    [(LONGEST, ROOM, [False, False]), (LONGEST + 1, ROOM, [True, False]), (LONGEST, ROOM + 1, [False, True])],
)
def test_a_job_record_has_room_for_its_second_phase_and_its_result(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, of_args: int, of_result: int, apart: list[bool]
) -> None:
    args = ReportPart(day="x" * (of_args - len('{"day":"","last":true}')), last=True)
    result = Described(rows_read=6, text="x" * (of_result - len('{"rows_read":6,"changed":0,"text":""}')))

    def plan(_: object, run: Run) -> Continuation:
        return run.fan_out([ReportPart(day="2026-01-01")] * 3, then=args)

    implemented = Implementation(TASK, plan, lambda args, run: Counted(rows_read=2), lambda parts: result)
    monkeypatch.setitem(registry._implementations, TASK.name, implemented)
    handle = TASK.delay()
    for _ in range(4):
        run_next(tasks.transport)

    kept = [str(tasks.store.items[handle.id][name]) for name in ("next_phase", "partial")]
    assert [text.startswith("s3:") for text in kept] == apart
    assert LONGEST + MAX_BYTES < ITEM_BYTES
    tasks.run()
    assert handle.result is not None
    assert handle.result.rows_read == 6


def test_a_second_phase_that_no_message_can_carry_is_refused_before_the_segments_run(
    tasks: SentTasks, job: Job
) -> None:
    job.second_phase = ReportPart(day="x" * 1_050_000, last=True)
    job.phases = 2
    handle = TASK.delay()

    tasks.run()

    assert handle.status == "FAILURE"
    assert "over the limit" in str(handle.error)
    assert job.places == []
    assert len(tasks.dead_letters) == 1


def test_results_that_cannot_be_read_now_are_read_when_the_last_segments_message_comes_back(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = tasks.store.get
    refused: list[Sequence[str]] = []

    def throttled(keys: Sequence[str]) -> Mapping[str, Item]:
        if len(keys) == 3 and not refused:
            refused.append(keys)
            raise sdk.Throttled("GetItem")
        return get(keys)

    monkeypatch.setattr(tasks.store, "get", throttled)
    handle = TASK.delay()
    for _ in range(3):
        run_next(tasks.transport)
    (last,) = tasks.transport.sent
    with pytest.raises(sdk.Throttled):
        run_next(tasks.transport)
    assert handle.status == "STARTED"

    tasks.transport.send("analytics", [last.message])
    tasks.run()

    assert handle.result is not None
    assert handle.result.rows_read == total(3)


def test_the_message_of_a_run_whose_segments_have_failed_does_not_plan_it_again(tasks: SentTasks, job: Job) -> None:
    """Its planner may have died after the last segment was sent, again and again: then its message is a dead letter."""
    job.faulty = frozenset({1})
    handle = TASK.delay()
    (planning,) = tasks.transport.sent
    tasks.run()

    record = {"messageId": "m", "receiptHandle": "m", "body": planning.message.body, "eventSource": "aws:sqs"}
    redriven = {**record, "messageAttributes": {"ErrorType": {"stringValue": "TimeLimitExceeded"}}}
    serve("analytics", registry.served_by("analytics"), {"Records": [redriven]}, Context())

    assert handle.status == "FAILURE"
    assert tasks.transport.sent == []


# --- what another sandbox leaves, or does at the same time ---


def test_a_duplicate_of_the_last_segment_sends_the_second_phase_that_a_crash_left_unsent(
    tasks: SentTasks, job: Job
) -> None:
    job.phases = 2
    handle = TASK.delay()
    for _ in range(3):
        run_next(tasks.transport)
    (last,) = tasks.transport.sent
    run_next(tasks.transport)
    tasks.transport.sent.clear()
    assert handle.status == "STARTED"

    tasks.transport.send("analytics", [last.message])
    tasks.run()

    assert handle.result is not None
    assert (handle.result.rows_read, handle.result.changed) == (total(3), 1)
    tasks.transport.send("analytics", [last.message])
    run_next(tasks.transport)
    assert tasks.transport.sent == [], "the second phase has ended the run"


def test_a_job_starts_its_second_phase_although_a_stale_failure_was_written(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.phases = 2
    handle = TASK.delay()
    failed = {**failure(handle.id, RunError.own("SegmentsFailed", "1 of 3 failed: 1"), 1.0), "waits": True}
    before_write(monkeypatch, tasks, handle.id, {"phase": 2}, lambda: tasks.store.apply(Write(handle.id, failed)))

    tasks.run()

    assert handle.result is not None
    assert (handle.result.rows_read, handle.result.changed) == (total(3), 1)


def test_a_count_of_failures_that_arrives_after_the_repair_does_not_count(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "CHUNK", 1)  # so that three segments have three tallies, like three hundred
    job.faulty = frozenset({1})
    handle = TASK.delay()
    for _ in range(2):
        run_next(tasks.transport)  # the planner, and segment 0

    def repair() -> None:
        job.faulty = frozenset()
        ((_, letter),) = tasks.dead_letters
        redrive(tasks, letter)
        run_next(tasks.transport, place=-1)

    before_write(monkeypatch, tasks, handle.id, {}, repair)
    tasks.run()

    assert handle.result is not None
    assert handle.result.rows_read == total(3)


def test_a_second_phase_does_not_begin_if_the_run_is_revoked_when_its_segments_end(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.phases = 2
    handle = TASK.delay()
    before_write(monkeypatch, tasks, handle.id, {"phase": 2}, handle.revoke)

    for _ in range(4):
        run_next(tasks.transport)

    assert handle.status == "REVOKED"
    assert tasks.transport.sent == []


def test_a_second_phase_does_not_begin_if_it_was_sent_while_the_run_was_revoked(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.phases = 2
    handle = TASK.delay()
    for _ in range(3):
        run_next(tasks.transport)
    before_write(monkeypatch, tasks, handle.id, {"status": "REVOKED"}, lambda: run_next(tasks.transport))

    assert handle.revoke() == "REVOKED"
    (second,) = tasks.transport.sent
    tasks.run()

    assert AsyncResult[Any](second.message.id).status == "REVOKED"
    assert handle.status == "REVOKED"


@pytest.mark.parametrize(("phases", "values"), [(1, {"status": "SUCCESS"}), (2, {"phase": 2})])
def test_a_run_whose_record_expires_while_its_segments_end_is_forgotten(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch, phases: int, values: dict[str, Any]
) -> None:
    job.phases = phases
    handle = TASK.delay()
    before_write(monkeypatch, tasks, handle.id, values, lambda: tasks.store.items.pop(handle.id))

    for _ in range(4):
        run_next(tasks.transport)

    assert tasks.transport.sent == []
    assert handle.status == "UNKNOWN"


def test_a_run_whose_tally_has_expired_fails_when_a_member_ends(tasks: SentTasks, job: Job) -> None:
    """A member was tried again so late that TTL has removed the place where it would be counted."""
    handle = TASK.delay()
    run_next(tasks.transport)
    del tasks.store.items[tallies.tally(handle.id, 1, 0)]

    tasks.run()

    assert handle.status == "FAILURE"
    assert str(handle.error) == (
        "TallyExpired: member 0 ended when its place in the count had expired: such records are kept for "
        f"{run_settings().run_days} days"
    )
    assert "holder" not in tasks.store.items[str(handle.record().place)]


@pytest.mark.parametrize("nested", [False, True], ids=["alone", "in a group"])
@pytest.mark.parametrize(("phases", "late"), [(1, 0), (1, 100), (2, 0), (2, None)])
def test_a_run_outlives_the_wait_of_a_part_that_is_longer_than_records_are_kept(
    tasks: SentTasks,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    now: FrozenClock,
    *,
    phases: int,
    late: int | None,
    nested: bool,
) -> None:
    monkeypatch.setenv("NEXUS_RUN_DAYS", "1")
    job.segments, job.phases, job.waits = 101, phases, {late: 54 * 3600.0}
    handle = group([TASK.s()]).delay() if nested else TASK.delay()
    for _ in range(103 if late is None else 102):
        run_next(tasks.transport)
    (waiting,) = tasks.transport.sent
    now.moment = waiting.due
    for key, item in list(tasks.store.items.items()):
        if float(str(item["expires"])) <= now.moment:
            del tasks.store.items[key]

    tasks.run()

    assert now.moment == MORNING + 54 * 3600
    done = {"rows_read": total(101)} | ({"changed": 1} if phases == 2 else {})
    result = json.loads(str(handle.record().result))
    assert [{name: part[name] for name in done} for part in (result if nested else [result])] == [done]


@pytest.mark.parametrize("more", [0, 1])
def test_the_retention_of_waiting_records_is_extended_only_if_little_of_it_is_left(
    tasks: SentTasks, job: Job, now: FrozenClock, more: int
) -> None:
    wait = run_settings().run_days * 21_600 + more
    kept = MORNING + run_settings().run_days * 86_400
    job.waits = {2: wait}
    handle = TASK.delay()
    for _ in range(4):
        run_next(tasks.transport)

    keys = [handle.id, tallies.tally(handle.id, 1, 0), *(tallies.member(handle.id, 1, index) for index in range(2))]
    assert {tasks.store.items[key]["expires"] for key in keys} == {kept + wait if more else kept}


@pytest.mark.parametrize(("wait", "reads"), [(MAX_DELAY, 0), (MAX_DELAY + 1, 1)])
def test_a_short_wait_makes_no_request_about_waiting_records(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch, now: FrozenClock, *, wait: int, reads: int
) -> None:
    job.waits = {0: wait}
    handle = TASK.delay()
    run_next(tasks.transport)
    read: list[str] = []
    get = tasks.store.get

    def noted(keys: Sequence[str]) -> Mapping[str, Item]:
        read.extend(keys)
        return get(keys)

    monkeypatch.setattr(tasks.store, "get", noted)

    run_next(tasks.transport)

    assert read.count(handle.id) == reads


def test_extending_the_retention_of_waiting_records_resumes_after_an_error(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    wait = run_settings().run_days * 86_400
    job.waits = {0: wait}
    handle = TASK.delay()
    run_next(tasks.transport)
    keys = [
        tallies.tally(handle.id, 1, 0),
        *(tallies.member(handle.id, 1, index) for index in range(3)),
        handle.id,
    ]
    apply_all, written = tasks.store.apply_all, list[Any]()

    def fails_at_the_parent(writes: Sequence[Write]) -> list[Outcome]:
        written.extend(write.key for write in writes if write.set.keys() == {"expires"})
        return raises(OSError("no answer")) if written[-1:] == [handle.id] else apply_all(writes)

    with monkeypatch.context() as broken:
        broken.setattr(tasks.store, "apply_all", fails_at_the_parent)
        run_next(tasks.transport)
    assert written == keys
    assert tasks.store.items[handle.id]["expires"] == MORNING + wait

    run_next(tasks.transport, len(tasks.transport.sent) - 1)  # the message that was left for later

    assert tasks.store.items[handle.id]["expires"] == MORNING + 2 * wait


@pytest.mark.parametrize(("tally_too", "uncounted"), [(True, [0, 1, 2]), (False, [2])])
def test_the_end_of_a_member_is_logged_if_the_run_that_waited_has_expired(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch, tally_too: bool, uncounted: list[int]
) -> None:
    """TTL may remove the tally up to two days later."""
    lost: list[tuple[str, int]] = []
    monkeypatch.setattr(observe, "not_counted", lambda parent, segment: lost.append((parent, segment.index)))
    handle = TASK.delay()
    run_next(tasks.transport)
    del tasks.store.items[handle.id]
    if tally_too:
        del tasks.store.items[tallies.tally(handle.id, 1, 0)]

    tasks.run()

    assert lost == [(handle.id, index) for index in uncounted]
    assert handle.status == "UNKNOWN"


@pytest.mark.parametrize("phases", [1, 2])
def test_a_late_duplicate_of_a_member_changes_nothing_after_its_tally_has_expired(
    tasks: SentTasks, job: Job, phases: int
) -> None:
    """In a run of one phase the run has ended by then; in one of two, the second is under way."""
    job.phases = phases
    handle = TASK.delay()
    for _ in range(3):
        run_next(tasks.transport)
    (last,) = tasks.transport.sent
    run_next(tasks.transport)
    before = handle.record()
    del tasks.store.items[tallies.tally(handle.id, 1, 0)]

    tasks.transport.sent.insert(0, last)
    run_next(tasks.transport)

    assert handle.record() == before
    tasks.run()
    assert handle.status == "SUCCESS"


def test_a_false_member_does_not_fail_a_run_without_members(tasks: SentTasks, job: Job) -> None:
    waits = count_rows.delay()
    tasks.store.apply(Write(waits.id, {"status": "STARTED"}))
    place = Segment(index=0, total=1, phase=1, kind="group")
    args = {"day": "2026-01-01"}
    claimed = Envelope(id=tallies.member(waits.id, 1, 0), task=TASK.name, args=args, parent=waits.id, segment=place)
    tasks.transport.sent[:] = [Sent("analytics", Message.of(claimed), 0.0)]

    tasks.run()

    assert waits.status == "STARTED"


def test_a_revocation_that_meets_the_plan_revokes_what_was_planned(
    tasks: SentTasks, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = TASK.delay()
    tasks.store.apply(Write(handle.id, {"status": "STARTED"}))
    planned = Write(handle.id, {"total": 3, "phase": 1})
    before_write(monkeypatch, tasks, handle.id, {"revoke": True}, lambda: tasks.store.apply(planned))

    assert handle.revoke() == "REVOKED"
    assert {child.status for child in handle.children} == {"REVOKED"}


@pytest.mark.parametrize("args", [{"day": "2026-01-01"}, {"day": 7}], ids=["that would run", "that never runs"])
@pytest.mark.parametrize("kind", ["fan_out", "group"])
def test_a_message_with_another_id_does_not_settle_a_segment(
    tasks: SentTasks, job: Job, args: dict[str, Any], kind: Literal["fan_out", "group"]
) -> None:
    """A message that names another run's segment under a different id is given up and not counted."""
    handle = TASK.delay()
    run_next(tasks.transport)
    place = Segment(index=1, total=3, kind=kind)
    foreign = Envelope(id=new_id(), task=TASK.name, args=args, parent=handle.id, segment=place)
    tasks.transport.sent.insert(0, Sent("analytics", Message.of(foreign), 0.0))

    run_next(tasks.transport)
    assert handle.progress == (0, 3)
    tasks.run()

    assert (handle.status, handle.progress) == ("SUCCESS", (3, 3))
    ((_, letter),) = tasks.dead_letters
    assert letter.attributes["RunId"] == foreign.id
    assert letter.attributes["ErrorMessage"] == f"id: not that of member 1 of {handle.id}"


def test_a_revoked_fan_out_runs_no_further_segment(tasks: SentTasks, job: Job) -> None:
    handle = TASK.delay()
    run_next(tasks.transport)

    assert handle.revoke() == "REVOKED"
    tasks.run()

    assert {child.status for child in handle.children} == {"REVOKED"}
    assert handle.status == "REVOKED"


@pytest.mark.parametrize("phases", [1, 2, 3])
@settings(max_examples=60)
@given(data=st.data())
def test_duplicates_and_deaths_at_any_request_leave_the_exact_result(phases: int, data: st.DataObject) -> None:
    """Delivers in any order, some messages twice, with sandboxes that die at any request; then the rest normally."""
    segments = data.draw(st.sampled_from([1, 2, 5, 101]))
    fuse = Fuse()
    inner = MemoryStore()
    queue = Queue(fuse)
    job = Job(segments, phases=phases)
    before = dict(registry._implementations)
    registry._implementations[TASK.name] = Implementation(TASK, job, job.part)
    try:
        with backend.use(Backend(MortalStore(inner, fuse), queue)):
            handle = TASK.delay()
            for _ in range(data.draw(st.integers(5, 25))):
                pick, dies = data.draw(st.integers(0, 200)), data.draw(st.none() | st.integers(0, 14))
                queue.deliver(inner, pick, dies, twice=data.draw(st.booleans()))
            for _ in range(3000):
                if not queue.messages:
                    break
                queue.deliver(inner)
            assert not queue.messages
            assert not queue.dead
            assert handle.status == "SUCCESS"
            assert handle.result is not None
            assert handle.result.rows_read == total(segments) * (2 if phases == 3 else 1)
            assert handle.result.changed == (0 if phases == 1 else 1)
    finally:
        registry._implementations.clear()
        registry._implementations.update(before)


def test_a_fan_out_without_a_reducer_is_refused(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def fan_out(args: Any, run: Run) -> Continuation:
        return run.fan_out([Ping()])

    task = catalogue.send_note
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, fan_out))
    handle: AsyncResult[Any] = task.delay(user_id="u", kind="k", text="t")

    tasks.run()

    assert handle.status == "FAILURE"
