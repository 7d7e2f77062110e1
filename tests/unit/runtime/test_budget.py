"""A task's budget: messages beyond it wait for the next day without using attempts, and none is lost."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from nexus import clock
from nexus.aws.sdk import Throttled
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.client import AsyncResult
from nexus.clock import FrozenClock
from nexus.eager import Context
from nexus.errors import BudgetSpent, Reject, Revoked
from nexus.registry import Implementation, registry
from nexus.runs import budget, transitions
from nexus.runs.budget import Account, Purse
from nexus.tasks import Budget
from nexus.testing import SentTasks
from nexus.worker import bookings, messages
from nexus.worker.entry import serve
from nexus.worker.spending import MEMORY
from tests.support import own_catalogue as catalogue
from tests.unit.runtime.conftest import MORNING, does, invoke

pytestmark = pytest.mark.usefixtures("environment")

MIDNIGHT = 1_795_824_000.0
SENT = catalogue.NoteSent(notification_id="n")


def limited(monkeypatch: pytest.MonkeyPatch, limits: Budget | None, work: Any = lambda args, run: SENT) -> None:
    """send_note with these limits."""
    does(monkeypatch, work, budget=limits)


def deliver(tasks: SentTasks, receives: int = 1) -> dict[str, Any]:
    """One invocation with all waiting messages."""
    bodies = [sent.message.body for sent in tasks.transport.sent]
    tasks.transport.sent.clear()
    return invoke(bodies, attributes={"ApproximateReceiveCount": str(receives)})


def account() -> Account:
    return Account.of(backend().store.get([budget.key("send_note")])[budget.key("send_note")])


def operator(**limits: float) -> None:
    """An operator sets other limits."""
    backend().store.apply(Write(budget.key("send_note"), {"limited": True, **limits}))


# --- an account ---


def test_an_account_is_read_from_its_item_and_starts_empty() -> None:
    assert Account.of({}) == Account("", 0, 0, 0, 0.0, None)
    counts: dict[str, Any] = {"day": "2026-11-27", "runs": 5, "done": 3, "nano": 1000, "mean": 2.5}
    assert Account.of(counts) == Account("2026-11-27", 5, 3, 1000, 2.5)
    of_operator = {**counts, "limited": True, "limit_dollars": 1.5, "limit_runs": 7}
    assert Account.of(of_operator).limits == Budget(dollars=1.5, runs=7)
    assert Account.of({"limited": True}).limits == Budget()
    assert Account.of({"limit_runs": 7}).limits is None


def test_the_next_day_starts_with_the_mean_and_the_limits_of_the_last() -> None:
    account = Account("2026-11-27", runs=4, done=2, nano=300, mean=7.0, limits=Budget(runs=9))
    assert account.on("2026-11-27") is account
    assert account.on("2026-11-26") is account
    assert account.on("2026-11-28") == Account("2026-11-28", mean=150.0, limits=Budget(runs=9))


def test_an_attempts_cost_is_estimated_from_today_or_the_day_before() -> None:
    assert Account(done=1, nano=50, mean=7.0).each == 50
    assert Account(done=4, nano=50, mean=7.0).each == 12.5
    assert Account(mean=7.0).each == 7.0
    assert Account().each == budget.UNKNOWN


@pytest.mark.parametrize(
    ("runs", "done", "dollars"), [(10, 4, 10.0), (5, 4, 5.0), (4, 4, 4.0), (2, 4, 4.0), (10, 0, 20.0)]
)
def test_the_dollars_of_running_attempts_are_estimated_and_of_ended_ones_known(
    runs: int, done: int, dollars: float
) -> None:
    assert Account(runs=runs, done=done, nano=done * budget.NANO, mean=2.0 * budget.NANO).dollars == dollars


@pytest.mark.parametrize(
    ("limits", "runs", "room"),
    [
        (Budget(), 7, budget.UNLIMITED),
        (Budget(runs=10), 7, 3),
        (Budget(runs=10), 12, -2),
        # An attempt costs 2 dollars.
        (Budget(dollars=25.0), 7, 5),
        (Budget(dollars=25.0, runs=10), 7, 3),
        (Budget(dollars=25.0, runs=20), 7, 5),
        (Budget(dollars=5.0), 7, -5),
        # Less than an attempt's cost: one a day; none for no dollars.
        (Budget(dollars=0.5), 0, 1),
        (Budget(dollars=0.5), 1, 0),
        (Budget(dollars=0.5), 2, -2),
        (Budget(dollars=0.5), 3, -3),
        (Budget(dollars=0.5, runs=0), 0, 0),
        (Budget(dollars=0.0), 0, 0),
        (Budget(dollars=0.0), 1, -1),
    ],
)
def test_room_is_the_smaller_of_both_limits(limits: Budget, runs: int, room: int) -> None:
    assert Account(runs=runs, mean=2.0 * budget.NANO).room(limits) == room


def test_a_day_ends_at_midnight_utc() -> None:
    for moment in (MORNING, MORNING + 61.5, MIDNIGHT - 0.5):
        assert (budget.today(moment), budget.tomorrow(moment)) == ("2026-11-27", MIDNIGHT)
    assert (budget.today(MIDNIGHT), budget.tomorrow(MIDNIGHT)) == ("2026-11-28", MIDNIGHT + 86_400)


# --- a day at a time ---


def test_a_daily_budget_of_runs_is_kept_without_using_up_attempts_or_receives(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    days: list[str] = []

    def work(args: Any, run: Any) -> catalogue.NoteSent:
        days.append(budget.today(clock.now()))
        return SENT

    limited(monkeypatch, Budget(runs=10), work)
    handles = [catalogue.send_note.delay(**catalogue.NOTE) for _ in range(25)]

    deliveries = tasks.run()

    assert Counter(days) == {"2026-11-27": 10, "2026-11-28": 10, "2026-11-29": 5}
    assert {(handle.status, handle.attempts) for handle in handles} == {("SUCCESS", 1)}
    assert deliveries == 25 + 15 + 5
    assert not tasks.transport.dead


def test_a_message_beyond_the_budget_is_not_claimed_and_waits_for_midnight(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    limited(monkeypatch, Budget(runs=1))
    for _ in range(3):
        catalogue.send_note.delay(**catalogue.NOTE)

    answer = deliver(tasks)

    # 15 hours to midnight, more than a message can be hidden.
    assert answer == {"batchItemFailures": []}
    assert {sent.due for sent in tasks.transport.sent} == {MIDNIGHT + 1}
    assert all(sent.message.id.endswith(f"_{int(MIDNIGHT) + 1}") for sent in tasks.transport.sent)
    now.sleep(6 * 3600)
    again = deliver(tasks)
    assert again == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m1"}]}
    assert set(tasks.transport.hidden.values()) == {MIDNIGHT + 1}


def test_a_message_that_has_waited_in_its_queue_before_is_sent_again_as_a_new_one(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    """SQS keeps it for four days, however often it is hidden."""
    limited(monkeypatch, Budget(runs=0))
    now.sleep(6 * 3600)
    handle = catalogue.send_note.delay(**catalogue.NOTE)

    answer = deliver(tasks, receives=2)

    assert answer == {"batchItemFailures": []}
    assert [sent.due for sent in tasks.transport.sent] == [MIDNIGHT + 1]
    assert handle.status == "PENDING"


def refuse(args: Any, run: Any) -> Any:
    raise Reject("not yet")


def test_a_dead_letter_that_sqs_moved_back_is_not_forgotten_while_it_waits(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    """The message that a schedule sends does not carry the reason by which a failed run is known to be sent again."""

    limited(monkeypatch, Budget(runs=1), refuse)
    handle = catalogue.send_note.delay(**catalogue.NOTE)
    deliver(tasks)
    assert handle.status == "FAILURE"

    move_back(tasks)

    assert handle.status == "PENDING"
    limited(monkeypatch, Budget(runs=1))
    tasks.run()
    assert handle.status == "SUCCESS"


def move_back(tasks: SentTasks) -> Any:
    """Delivers a dead letter as SQS does that moves it back."""
    ((_, letter),) = tasks.transport.dead
    return invoke([letter.body], messageAttributes={"ErrorType": {"stringValue": "Reject"}})


@pytest.mark.parametrize(("passed", "left"), [(0.0, [{"itemIdentifier": "m0"}]), (901.0, [])], ids=["live", "dead"])
def test_a_dead_letter_that_sqs_moved_back_waits_for_a_lease_only_while_it_runs(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock, passed: float, left: list[Any]
) -> None:
    """With the budget spent, nothing claims the run of a dead sandbox: waiting for its lease would use up the receives.

    A run whose lease has expired is claimed without the letter's mark.
    """
    limited(monkeypatch, Budget(runs=1), refuse)
    handle = catalogue.send_note.delay(**catalogue.NOTE)
    deliver(tasks)
    held: dict[str, Any] = {"status": "STARTED", "claim": "a sandbox", "lease_until": clock.now() + 900.0}
    backend().store.apply(Write(handle.id, held, remove=transitions.LEFT_BY_FAILURE))
    now.sleep(passed)

    assert move_back(tasks) == {"batchItemFailures": left}

    limited(monkeypatch, Budget(runs=1))
    tasks.run()
    assert handle.status == ("STARTED" if left else "SUCCESS")


def test_a_message_comes_back_in_steps_if_no_schedule_can_be_made(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    def denied(*_: Any) -> None:
        raise OSError("no right")

    limited(monkeypatch, Budget(runs=0))
    catalogue.send_note.delay(**catalogue.NOTE)
    monkeypatch.setattr(tasks.transport.__class__, "send_at", denied)

    assert deliver(tasks) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert tasks.transport.hidden == {"m0": MORNING + messages.LONGEST_HIDING}


def test_a_direct_call_beyond_the_budget_gets_an_error(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    limited(monkeypatch, Budget(runs=1))
    event = {"task": "send_note", "args": dict(catalogue.NOTE)}
    assert serve("default", registry.served_by("default"), event, Context())["status"] == "SUCCESS"
    with pytest.raises(BudgetSpent, match="send_note has spent its budget for the day"):
        serve("default", registry.served_by("default"), event, Context())


def test_runs_booked_for_duplicates_are_given_back(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    limited(monkeypatch, Budget(runs=3))
    first = catalogue.send_note.delay(**catalogue.NOTE)
    (message,) = tasks.transport.sent
    deliver(tasks)
    tasks.transport.sent += [message, message]
    deliver(tasks)  # duplicates: nothing runs

    later = [catalogue.send_note.delay(**catalogue.NOTE) for _ in range(2)]
    deliver(tasks)

    assert [handle.status for handle in (first, *later)] == ["SUCCESS"] * 3
    assert account().runs == 3


def test_runs_booked_for_a_batch_that_was_not_claimed_are_given_back(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    limited(monkeypatch, Budget(runs=2))
    handles = [catalogue.send_note.delay(**catalogue.NOTE) for _ in range(2)]
    messages = list(tasks.transport.sent)

    def throttled(_: Any) -> Any:
        raise Throttled("the run table")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(tasks.store, "apply_all", throttled)
        with pytest.raises(Throttled):
            deliver(tasks)
    tasks.transport.sent += messages
    deliver(tasks)

    assert [handle.status for handle in handles] == ["SUCCESS"] * 2
    assert account().runs == 2


# --- a batch of several tasks ---


def beside(monkeypatch: pytest.MonkeyPatch, limits: Budget | None) -> Any:
    """Another task of the same queue."""
    other = replace(catalogue.send_note, name="other_note", budget=limits)
    monkeypatch.setitem(registry._declared, other.name, (other, "test"))
    monkeypatch.setitem(registry._implementations, other.name, Implementation(other, lambda args, run: SENT))
    return other


def ends_as_revoked(clock: FrozenClock) -> Any:
    def work(args: Any, run: Any) -> Any:
        clock.sleep(10.0)
        raise Revoked("seen")

    return work


def test_a_run_that_ends_as_revoked_costs_the_next_of_its_batch_nothing(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    limited(monkeypatch, Budget(runs=5), ends_as_revoked(now))
    revoked = catalogue.send_note.delay(**catalogue.NOTE)
    other = beside(monkeypatch, None).delay(**catalogue.NOTE)

    assert deliver(tasks) == {"batchItemFailures": []}

    assert (revoked.status, other.status, other.attempts) == ("REVOKED", "SUCCESS", 1)


def test_a_run_that_ends_as_revoked_is_charged_to_its_own_task(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    monkeypatch.setenv(MEMORY, "2048")
    limited(monkeypatch, Budget(runs=5), ends_as_revoked(now))
    revoked = catalogue.send_note.delay(**catalogue.NOTE)
    beside(monkeypatch, Budget(runs=5)).delay(**catalogue.NOTE)
    deliver(tasks)
    for name in ("send_note", "other_note"):
        bookings._purses[budget.key(name)].take(1)  # brings what is known

    mine, others = (Account.of(tasks.store.items[budget.key(name)]) for name in ("send_note", "other_note"))
    assert (mine.done, others.done) == (1, 1)
    assert mine.nano > 20 * others.nano
    spent = revoked.record().spent
    assert spent is not None
    assert spent.dollars == pytest.approx(mine.nano / budget.NANO, rel=0.01)


@pytest.mark.parametrize(
    ("end", "left"),
    [((890.0, Revoked("seen")), ["m1"]), ((901.0, Reject("too late: the lease has expired")), ["m0", "m1"])],
    ids=["no time is left", "overtaken"],
)
def test_a_run_after_one_that_took_the_lease_is_released(
    tasks: SentTasks,
    monkeypatch: pytest.MonkeyPatch,
    now: FrozenClock,
    end: tuple[float, Exception],
    left: list[str],
) -> None:
    def work(args: Any, run: Any) -> Any:
        now.sleep(end[0])
        raise end[1]

    limited(monkeypatch, Budget(runs=5), work)
    catalogue.send_note.delay(**catalogue.NOTE)
    other = beside(monkeypatch, None).delay(**catalogue.NOTE)

    assert deliver(tasks) == {"batchItemFailures": [{"itemIdentifier": message} for message in left]}
    assert (other.status, other.attempts) == ("RETRY", 0)


@pytest.mark.parametrize("end", ["fails", "continues"])
def test_an_attempt_during_which_its_run_was_revoked_is_charged_once_and_with_all_of_its_time(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock, end: str
) -> None:
    monkeypatch.setenv(MEMORY, "2048")

    def work(args: Any, run: Any) -> Any:
        now.sleep(10.0)
        AsyncResult[Any](run.id).revoke()
        if end == "fails":
            raise OSError("no network")
        return run.continue_from({"page": 2})

    limited(monkeypatch, Budget(runs=5), work)
    handle = catalogue.send_note.delay(**catalogue.NOTE)
    deliver(tasks)
    bookings._purses[budget.key("send_note")].take(1)

    spent = handle.record().spent
    assert handle.status == "REVOKED"
    assert spent is not None
    assert spent.seconds == pytest.approx(10.0, abs=1.0)
    assert account().done == 1


# --- over all sandboxes ---


def test_sandboxes_that_book_in_turns_never_run_more_than_the_limit(tasks: SentTasks, now: FrozenClock) -> None:
    sandboxes = [Purse("send_note", Budget(runs=23)) for _ in range(4)]
    granted = [sandbox.take(3) for _ in range(5) for sandbox in sandboxes]
    assert sum(granted) == 23
    assert account().runs >= 23
    now.sleep(86_400)
    assert sum(sandbox.take(3) for _ in range(5) for sandbox in sandboxes) == 23


def test_a_booking_overtaken_by_another_sandbox_takes_what_is_left(
    tasks: SentTasks, now: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = (Purse("send_note", Budget(runs=10)) for _ in range(2))
    assert mine.take(1) == 1
    apply, taken = tasks.store.apply, []

    def theirs_first(write: Write) -> Any:
        monkeypatch.setattr(tasks.store, "apply", apply)
        taken.append(theirs.take(8))
        return apply(write)

    monkeypatch.setattr(tasks.store, "apply", theirs_first)

    assert mine.take(5) == 1
    assert taken == [8]


def test_two_concurrent_first_bookings_of_a_day_share_one_account(
    tasks: SentTasks, now: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = (Purse("send_note", Budget(runs=5)) for _ in range(2))
    apply = tasks.store.apply

    def theirs_first(write: Write) -> Any:
        monkeypatch.setattr(tasks.store, "apply", apply)
        assert theirs.take(3) == 3
        return apply(write)

    monkeypatch.setattr(tasks.store, "apply", theirs_first)

    assert mine.take(3) == 2
    assert (account().day, account().runs) == ("2026-11-27", 6)


# --- dollars ---


def test_dollars_are_reckoned_by_what_an_attempt_has_cost_so_far(tasks: SentTasks, now: FrozenClock) -> None:
    purse = Purse("send_note", Budget(dollars=1.0))
    assert purse.take(2) == 2
    for _ in range(2):
        purse.spent(0.15)
    assert purse.take(10) == 4  # 0.30 are spent, 0.70 are 4 times 0.15
    for _ in range(4):
        purse.spent(0.15)
    assert purse.take(1) == 0
    assert account().dollars == pytest.approx(0.9)


def test_an_attempts_cost_is_estimated_from_the_day_before(tasks: SentTasks, now: FrozenClock) -> None:
    purse = Purse("send_note", Budget(dollars=1.0))
    purse.take(2)
    for _ in range(2):
        purse.spent(0.4)
    purse.take(1)  # brings what the two have cost

    now.sleep(86_400)

    assert Purse("send_note", Budget(dollars=1.0)).take(10) == 2


def test_a_run_that_costs_more_than_the_budget_runs_once_a_day_and_never_if_it_is_zero(
    tasks: SentTasks, now: FrozenClock
) -> None:
    purse = Purse("send_note", Budget(dollars=0.1))
    purse.take(1)
    purse.spent(5.0)
    assert purse.take(1) == 0
    now.sleep(86_400)
    assert Purse("send_note", Budget(dollars=0.1)).take(3) == 1
    assert Purse("send_note", Budget(dollars=0.0)).take(3) == 0


def test_the_cost_that_the_worker_measures_is_charged_to_the_budget(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    monkeypatch.setenv(MEMORY, "2048")

    def work(args: Any, run: Any) -> catalogue.NoteSent:
        now.sleep(30.0)
        return SENT

    limited(monkeypatch, Budget(dollars=0.002), work)
    handles = [catalogue.send_note.delay(**catalogue.NOTE) for _ in range(5)]
    waiting, tasks.transport.sent = tasks.transport.sent, []
    for message in waiting:  # one a batch: 2 GB for 30 s, which is 0.0008 dollars
        tasks.transport.sent.append(message)
        deliver(tasks)

    assert [handle.status for handle in handles] == ["SUCCESS"] * 2 + ["PENDING"] * 3
    assert 0.0016 < account().dollars < 0.0017


# --- an operator ---


def test_an_operators_limits_take_effect_within_a_minute_without_a_deployment(
    tasks: SentTasks, now: FrozenClock
) -> None:
    purse = Purse("send_note", Budget(runs=2))
    assert purse.take(5) == 2
    operator(limit_runs=4)
    assert purse.take(5) == 0
    now.sleep(budget.LOOK_AGAIN)
    assert purse.take(5) == 2
    assert purse.take(5) == 0


def test_a_lower_limit_is_seen_with_the_next_booking(tasks: SentTasks, now: FrozenClock) -> None:
    purse = Purse("send_note", Budget())
    assert purse.take(1) == 1
    operator(limit_runs=2)
    assert purse.take(3) == 1


def test_only_attempts_beyond_a_lowered_limit_are_given_back(tasks: SentTasks, now: FrozenClock) -> None:
    purse = Purse("send_note", Budget())
    assert purse.take(3) == 3
    operator(limit_runs=1)
    assert purse.take(1) == 0
    now.sleep(budget.LOOK_AGAIN)
    assert purse.take(1) == 0
    assert account().runs == 3


def test_a_day_begins_with_nothing_spent_and_its_account_is_kept(tasks: SentTasks, now: FrozenClock) -> None:
    Purse("send_note", Budget(runs=5)).take(2)
    assert account() == Account("2026-11-27", runs=2, mean=budget.UNKNOWN)
    item = tasks.store.get([budget.key("send_note")])[budget.key("send_note")]
    assert item["expires"] == int(MORNING) + budget.KEPT


# --- what it costs ---


def requests(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are written or read besides those of run records."""
    asked: list[str] = []
    apply, get = tasks.store.apply, tasks.store.get

    def noted_apply(write: Write) -> Any:
        asked.append(f"write {write.key}")
        return apply(write)

    def noted_get(keys: Any) -> Any:
        asked.extend(f"read {key}" for key in keys)
        return get(keys)

    monkeypatch.setattr(tasks.store, "apply", noted_apply)
    monkeypatch.setattr(tasks.store, "get", noted_get)
    return asked


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [(None, {}), (Budget(runs=100), {"read budget/send_note": 1, "write budget/send_note": 3})],
    ids=["without a budget", "with one"],
)
def test_the_check_is_a_read_a_sandbox_and_a_write_a_batch_and_nothing_without_a_budget(
    tasks: SentTasks,
    monkeypatch: pytest.MonkeyPatch,
    now: FrozenClock,
    limits: Budget | None,
    wanted: dict[str, int],
) -> None:
    limited(monkeypatch, limits)
    asked = requests(tasks, monkeypatch)
    for _ in range(3):
        for _ in range(10):
            catalogue.send_note.delay(**catalogue.NOTE)
        deliver(tasks)

    assert Counter(one for one in asked if "budget" in one) == wanted


def test_once_a_budget_is_spent_a_sandbox_looks_once_a_minute(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, now: FrozenClock
) -> None:
    limited(monkeypatch, Budget(runs=0))
    asked = requests(tasks, monkeypatch)
    for _ in range(12):
        catalogue.send_note.delay(**catalogue.NOTE)
        deliver(tasks)
        tasks.transport.sent.clear()
        now.sleep(15.0)

    assert Counter(one for one in asked if "budget" in one) == {"read budget/send_note": 3}
