"""Runs each task effectively once: claim, run, settle.

A batch is claimed in one request and settled in one. One bad message never fails its batch: each is settled, released
for a later delivery, or sent to the dead-letter queue with its reason. Only an unreachable DynamoDB or SQS fails the
invocation, and SQS redelivers the batch.

A run that a dead sandbox left behind may have caused the crash. So it is claimed alone and last, after all others are
settled.
"""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from nexus import builtin, clock
from nexus.aws import sdk, table
from nexus.backend import backend
from nexus.backend.store import Applied, Item, Outcome, Value, Write
from nexus.definitions import RateLimit, Result, TaskDefinition
from nexus.envelope import Envelope
from nexus.errors import (
    BudgetSpent,
    ConfigurationError,
    InvalidMessage,
    Reject,
    Retry,
    Revoked,
    TimeLimitExceeded,
    UnknownTask,
)
from nexus.registry import Implementation, registry
from nexus.runs import budget, locks, payloads, rate_limit, transitions
from nexus.runs.rate_limit import RateLimiter
from nexus.runs.record import RunError, RunRecord
from nexus.runs.sender import Sender, current
from nexus.runs.transitions import Acknowledge, Busy, Claim, Died, Early
from nexus.values import compact
from nexus.worker import fanout, listing, observe
from nexus.worker.bookings import Bookings
from nexus.worker.delivery import Claimed, Readable, Received
from nexus.worker.listing import Listing
from nexus.worker.messages import LEASE_GRACE, LONGEST_HIDING, Messages
from nexus.worker.run import Continued, FannedOut, Run
from nexus.worker.spending import Tab
from nexus.worker.time_limit import time_limit

MARGIN = 2.0
"""Seconds of an invocation reserved for settling what it ran."""

SETTLE_AFTER = 0.5
"""Seconds that an outcome may wait for others, to be written together; after a crash, that much work may be repeated.

It does not wait for a run of a task that this invocation has not run yet, or whose last run took longer.
"""

ASK_AFTER = 1.0
"""Seconds that a claimed run may wait, behind others of its batch or for its rate, until it asks before it begins
whether it has been revoked.
"""

PATIENCE_FOR_RATE = 20.0
"""The longest time in seconds that a sandbox sleeps until the start of a rate-limited run."""


class Worker:
    """Serves the tasks of one queue. `context` is Lambda's; each Worker lives for one invocation."""

    def __init__(self, queue: str, tasks: Mapping[str, TaskDefinition[Any, Any]], context: Any) -> None:
        self.queue = queue
        self.messages = Messages(queue, observe.log_reference(context))
        self._tasks = tasks
        # Lambda reuses the request id when it retries an asynchronous invocation; a claim must not.
        self._token = f"{getattr(context, 'aws_request_id', '')}/{uuid.uuid4().hex[:8]}"
        self._seconds: float = context.get_remaining_time_in_millis() / 1000
        self._ends: float = clock.monotonic() + self._seconds
        self._unsettled: list[tuple[Claimed, Write]] = []
        self._oldest = 0.0
        self._took: dict[str, float] = {}
        """How long the last run of each task took, in seconds."""

        self._tab = Tab()
        self._listing = Listing(queue, self._token)
        self._bookings = Bookings()

    @property
    def upload_task(self) -> str | None:
        """The task of this queue that an S3 upload starts."""
        return next((name for name, task in self._tasks.items() if task.on_upload), None)

    def task_for(self, envelope: Envelope) -> TaskDefinition[Any, Any]:
        """The envelope's task. Raises UnknownTask if this queue does not serve it."""
        if envelope.task not in self._tasks:
            known = "served by another queue" if registry.known(envelope.task) else "not in the deployed catalogue"
            raise UnknownTask(f"task: {envelope.task!r} is {known}; {self.queue} serves {', '.join(self._tasks)}")
        return self._tasks[envelope.task]

    def deliver(self, deliveries: Sequence[Received]) -> None:
        """Claims, runs and settles the deliveries. Afterwards `messages.later` has those to redeliver."""
        listing.watch(self._listing)
        try:
            self._deliver(deliveries)
        finally:
            self._bookings.give_back()

    def _deliver(self, deliveries: Sequence[Received]) -> None:
        affordable, waiting = self._bookings.book(self._once(list(self._readable(deliveries))))
        self._wait_for_tomorrow(waiting)
        claimed, refused = self._claim(affordable)
        self._tab.share_out(deliveries, len(affordable))
        try:
            for held in claimed:
                self._run_or_release(held)
            for one, existing, known_absent in refused:
                if late := self._claim_alone(one, existing, known_absent):
                    self._run_or_release(late)
        finally:
            self._settle()

    # --- read ---

    def _readable(self, deliveries: Sequence[Received]) -> Iterator[Readable]:
        for received in deliveries:
            try:
                yield received.readable(self.task_for(received.envelope))
            except Exception as error:  # noqa: BLE001 - a task's own validator may raise anything; others are not affected
                if sdk.is_of_aws(error) or isinstance(error, ConfigurationError):
                    self.messages.leave_for_later(received, error)  # S3 did not return what this message refers to
                else:
                    self._never_ran(received, RunError.of(error))

    def _never_ran(self, received: Received, error: RunError) -> None:
        """Gives up a message that cannot be read, unless its run has ended, or another sandbox can read it."""
        envelope, store = received.envelope, backend().store
        with self.messages.on_failure(received):
            existing = store.get([envelope.id]).get(envelope.id)
            record = RunRecord.of(existing or {})
            if until := record.leased_until(clock.now()):
                # A duplicate: a function version that has the task is already running it.
                self.messages.wait_for_lease(received, until)
                return
            if record.status == "STARTED" and record.waits:
                return  # a duplicate, too: its segments run and will end it
            if existing is None or not record.ended:
                self.messages.dead_letter(received.body, error, envelope, 0)
                keep, now = transitions.keep_until(), clock.moment()
                log = self.messages.log
                outcome = store.apply(
                    transitions.never_ran(envelope, self.queue, error, now, keep, known=existing, log=log)
                )
                if not isinstance(outcome, Applied):
                    self.messages.later.append((received, 1.0))
                    return
                existing = outcome.item
            elif record.status == "FAILURE" and received.redriven:
                # It came from the dead-letter queue, and returns there.
                self.messages.dead_letter(received.body, error, envelope, record.attempts)
            self._follow_up(envelope, existing)

    def _once(self, deliveries: Sequence[Readable]) -> list[Readable]:
        """Each run once: a batch may have a message twice, but DynamoDB accepts one statement per item."""
        first: dict[str, Readable] = {}
        for readable in deliveries:
            if first.setdefault(readable.envelope.id, readable) is not readable:
                self.messages.later.append((readable, 1.0))
        return list(first.values())

    def _wait_for_tomorrow(self, waiting: Sequence[Readable]) -> None:
        """Postpones the messages until the next day begins. Raises BudgetSpent for a direct invocation."""
        if not waiting:
            return
        for readable in waiting:
            if readable.source == "direct":
                raise BudgetSpent(f"{readable.task.name} has spent its budget for the day")
        due = budget.tomorrow(clock.now()) + 1.0
        keep = transitions.keep_until(due)
        outcomes = backend().store.apply_all([transitions.kept(one.envelope.id, keep) for one in waiting])
        for readable, outcome in zip(waiting, outcomes, strict=True):
            with self.messages.on_failure(readable):
                self._postpone(readable, outcome.item, due)

    def _postpone(self, readable: Readable, existing: Item | None, due: float) -> None:
        """Has one message come again at `due`, unless its run has ended meanwhile.

        A message that has already waited in its queue is sent again as a new one: SQS deletes messages after four days,
        and gives up those received too often.
        """
        envelope, attempts = readable.envelope, readable.policy(existing or {}).max_retries + 1
        decision = transitions.claim(envelope, existing, self._claimant(), attempts, redriven=readable.redriven)
        if isinstance(decision, Acknowledge):
            self._already_ended(readable, decision.record, existing or {})
            return
        fanout.outlive(envelope, existing or {}, due)
        delay, message = due - clock.now(), readable.message
        if delay > LONGEST_HIDING or message is None or message.receives > 1 or message.wears_out(due):
            if readable.redriven:  # the new message lacks the mark that lets a failed run be claimed again
                outcome = backend().store.apply(transitions.send_again(envelope.id))
                if until := RunRecord.of(outcome.item or {}).leased_until(clock.now()):
                    # The attempt that gave it up is not settled yet, so the mark is still needed.
                    self.messages.wait_for_lease(readable, until)
                    return
            if self.messages.replaced(readable, due):
                return
        self.messages.later.append((readable, min(delay, LONGEST_HIDING)))

    # --- claim ---

    def _claim(self, batch: Sequence[Readable]) -> tuple[list[Claimed], list[tuple[Readable, Item | None, bool]]]:
        """Claims the batch optimistically in one request. Returns what it claimed, and the rest with their items.

        `_claim_alone` claims each of the rest when its turn comes.
        """
        by = self._claimant(shared=len(batch) > 1, listed=any(one.source == "direct" for one in batch))
        writes = []
        for readable in batch:
            envelope = readable.envelope
            guess: Item | None = {"id": envelope.id, "status": "PENDING"} if envelope.recorded else None
            attempts = readable.policy({}).max_retries + 1
            decision = transitions.claim(envelope, guess, by, attempts, readable.place)
            assert isinstance(decision, Write)
            writes.append(decision)
        claimed = []
        refused = []
        for readable, write, outcome in zip(batch, writes, backend().store.apply_all(writes), strict=True):
            if isinstance(outcome, Applied):
                claimed.append(self._held(readable, outcome.item))
            else:
                refused.append((readable, outcome.item, not write.insert))
        return claimed, refused

    def _claim_alone(self, readable: Readable, existing: Item | None, known_absent: bool) -> Claimed | None:
        """Claims one run by the state of its record; None if it may not run here now."""
        envelope, store = readable.envelope, backend().store
        if existing is None and not known_absent:
            existing = store.get([envelope.id]).get(envelope.id)
        while True:
            if existing is not None and existing.get("claim") == self._token:
                # The response to this claim was lost, and the record kept for longer before the claim was repeated.
                return self._held(readable, existing)
            attempts = readable.policy(existing or {}).max_retries + 1
            by, redriven = self._claimant(listed=readable.source == "direct"), readable.redriven
            match transitions.claim(envelope, existing, by, attempts, readable.place, redriven=redriven):
                case Write() as write:
                    if (existing or {}).get("status") == "STARTED":
                        self._settle()  # the run that killed a sandbox may kill this one
                    outcome = store.apply(write)
                    if isinstance(outcome, Applied):
                        return self._held(readable, outcome.item)
                    existing = outcome.item
                case Acknowledge(record):
                    self._already_ended(readable, record, existing or {})
                    return None
                case Busy(until):
                    self.messages.wait_for_lease(readable, until)
                    return None
                case Early(until):
                    self.messages.come_back(readable, until, existing or {})
                    return None
                case Died(record):
                    if self._died(readable, record, existing or {}):
                        return None
                    existing = store.get([envelope.id]).get(envelope.id)

    def _already_ended(self, readable: Readable, record: RunRecord, item: Item) -> None:
        """A duplicate of a run that has ended: completes the steps that its first delivery may have left undone."""
        if record.ended:
            with self.messages.on_failure(readable):
                self._follow_up(readable.envelope, item)

    def _died(self, readable: Readable, record: RunRecord, item: Item) -> bool:
        """Fails the run: the sandbox of its last attempt died without settling it."""
        error = RunError.own(
            "SandboxDied",
            f"attempt {record.attempts} ended without a report: out of memory, out of time, or killed "
            f"(its lease expired {max(0.0, clock.now() - (record.lease_until or 0)):.0f} s ago)",
        )
        self.messages.dead_letter(readable.body, error, readable.envelope, record.attempts)
        failure = transitions.fail(record.id, str(item.get("claim", "")), error, clock.moment(), self.messages.log)
        outcome = backend().store.apply(failure)
        if not isinstance(outcome, Applied):
            return False
        with self.messages.on_failure(readable):
            self._follow_up(readable.envelope, outcome.item)
        return True

    def _claimant(self, *, shared: bool = False, listed: bool = False) -> Claim:
        now = clock.moment()
        lease_until, keep = round(now + self._left, 3), transitions.keep_until()
        return Claim(self._token, self.queue, now, lease_until, keep, shared, listed)

    def _held(self, readable: Readable, item: Item) -> Claimed:
        claimed = readable.claimed(item)
        self._listing.hold(claimed)
        return claimed

    @property
    def _left(self) -> float:
        return self._ends - clock.monotonic()

    # --- run ---

    def _run_or_release(self, claimed: Claimed) -> None:
        """Runs it if enough time remains for the task.

        For the first run of an invocation, half of the invocation is enough, as the task's limit may be longer. Less
        than that is left if DynamoDB throttled the claim: the run would lose an attempt to its shortened limit.
        """
        needed = claimed.task.time_limit
        if not self._took:
            needed = min(needed, (self._seconds - MARGIN) / 2)
        if self._left < MARGIN + needed:
            self._release(claimed)
            return
        task = claimed.task.name
        self._settle_before(self._took.get(task, inf))
        began = clock.monotonic()
        with self._listing.at_work_on(claimed.envelope.id):
            self._run(claimed)
        self._took[task] = clock.monotonic() - began

    def _run(self, claimed: Claimed) -> None:
        """Runs it, unless it may not start now, and ends its attempt by what it returns or raises."""
        if not self._may_start(claimed):
            return
        envelope, record = claimed.envelope, claimed.record
        self._bookings.begin(claimed)
        started = clock.monotonic()
        waited = (record.started_at or 0.0) - envelope.sent_at.timestamp()
        observe.run_started(self.queue, envelope, record.attempts, waited)
        sender = Sender(envelope.id)
        entered = current.set(sender)
        error: RunError | None = None
        shortfall: str | None = None
        try:
            # A run with a total was planned by a sandbox that died before it had sent all segments.
            returned = None if record.total else self._call(claimed)
        except _tasks_own_errors() as raised:
            # Any exception from a task is that run's failure, by its policy, except KeyboardInterrupt, which comes from
            # the terminal.
            outcome, error = self._failed(claimed, raised)
        else:
            if isinstance(returned, FannedOut):
                self._settle()  # planning takes time; what fails here is not this run's failure
            try:
                if isinstance(returned, Result) and not envelope.is_part:
                    shortfall = returned.shortfall
                outcome = self._on_return(claimed, returned, tuple(sender.children))
            except _tasks_own_errors() as raised:  # a wrong result, or one that cannot be stored
                outcome, error = self._failed(claimed, raised)
        finally:
            current.reset(entered)
        observe.run_ended(outcome, clock.monotonic() - started, error, shortfall)

    def _may_start(self, claimed: Claimed) -> bool:
        """Whether the claimed run may start now; if not, it has been revoked or released."""
        envelope, task = claimed.envelope, claimed.task
        if claimed.item.get("revoke"):
            self._revoke(claimed, "revoked during an earlier attempt")
            return False
        if self._has_expired(claimed):
            return False
        if claimed.place:
            assert task.unique is not None
            held = locks.acquire(claimed.place, task.unique, envelope, claimed.record.started_at or clock.moment())
            if held is not None and held.wait:
                self._release(claimed, held.until + LEASE_GRACE)
                locks.wake_if_free(claimed.place, envelope)  # the holder may have left before this run waited
                return False
            if held is not None:
                self._revoke(claimed, f"{held.holder} is live, and {task.name} is unique")
                return False
        if task.rate_limit is not None and not self._starts_in_turn(claimed, task.rate_limit):
            return False
        if self._left <= 0:
            self._release(claimed)  # this sandbox was frozen until the lease expired; another one has the run now
            return False
        return not self._was_revoked_meanwhile(claimed)

    def _was_revoked_meanwhile(self, claimed: Claimed) -> bool:
        """Whether the run was revoked while it waited for its turn; that ends it."""
        if clock.now() - (claimed.record.started_at or 0.0) <= ASK_AFTER:
            return False
        existing = backend().store.get([claimed.envelope.id]).get(claimed.envelope.id, {})
        if not existing.get("revoke"):
            return False
        self._revoke(claimed, "revoked before it began")
        return True

    def _has_expired(self, claimed: Claimed) -> bool:
        """Whether the run has expired, which ends it. One that continues, or that has fanned out, does not expire."""
        expiry = claimed.envelope.expires_at
        begun = claimed.record.cursor is not None or claimed.record.fanned_out
        if expiry is None or expiry.timestamp() >= clock.now() or begun:
            return False
        self._revoke(
            claimed, f"expired at {expiry:%Y-%m-%dT%H:%M:%SZ}, before attempt {claimed.record.attempts} started"
        )
        return True

    def _starts_in_turn(self, claimed: Claimed, rate: RateLimit) -> bool:
        """Waits for the run's start. False if it is too far away, so the run is redelivered then, or if the run has
        expired by then.
        """
        booked = claimed.record.eta
        if "slot" in claimed.item and booked is not None and clock.now() <= booked + rate_limit.LATEST:
            return True
        start = _limiter(claimed.task.name, rate).take()
        wait = start - clock.now()
        patience = min(PATIENCE_FOR_RATE, self._left / 2, self._left - MARGIN - claimed.task.time_limit)
        if wait > max(0.0, patience):
            self._release(claimed, start, slot=True)
            return False
        if wait > 0:
            self._settle_before(wait)
            clock.sleep(wait)
        return not self._has_expired(claimed)

    def _call(self, claimed: Claimed) -> Any:
        """What the task's function returns. Raises whatever it raises, and TimeLimitExceeded."""
        task = claimed.task
        if task is builtin.ping:
            here = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "this process")
            return builtin.Pong(text=claimed.args.text, queue=self.queue, function=here)
        implementation = registry.implementation(task.name)
        work = implementation.function_for(part=claimed.envelope.is_part)
        limit, started = min(task.time_limit, self._left - MARGIN), clock.monotonic()
        try:
            with time_limit(limit, f"{task.name} has used its {limit:.0f} s"):
                returned = work(claimed.args, self._seen(claimed, started + limit, limit))
        except TimeLimitExceeded as error:
            if what := table.throttled_since(started):
                explained = TimeLimitExceeded(f"{error}; DynamoDB throttled {what}")
                raise explained.with_traceback(error.__traceback__) from error
            raise
        _check_returned(implementation, returned)
        return returned

    def _seen(self, claimed: Claimed, deadline: float, limit: float) -> Run:
        """The run as its task sees it."""
        envelope, record = claimed.envelope, claimed.record
        return Run(
            id=envelope.id,
            task=envelope.task,
            attempt=record.attempts,
            deadline=deadline,
            limit=limit,
            token=self._token,
            sent_at=envelope.sent_at.timestamp() if record.sent_at is None else record.sent_at,
            parent=envelope.parent,
            segment=envelope.own_segment,
            cursor=record.cursor,
            last_attempt=record.attempts > claimed.policy(claimed.item).max_retries,
        )

    def _on_return(self, claimed: Claimed, returned: Any, children: tuple[str, ...]) -> str:
        envelope = claimed.envelope
        match returned:
            case None:
                return self._fanned_out(claimed, self._send_plan(claimed, claimed.record.total))
            case FannedOut(segments, then):
                arguments = [claimed.task.part_to_send(args) for args in segments]
                next_phase = None if then is None else claimed.task.part_to_send(then)
                outcome = fanout.plan(envelope, self._token, arguments, next_phase, transitions.keep_until())
                if isinstance(outcome, Applied):
                    outcome = self._send_plan(claimed, len(arguments))
                return self._fanned_out(claimed, outcome)
            case Continued(cursor):
                continued = int(str(claimed.item.get("continued", 0))) + 1
                if continued > transitions.MAX_CONTINUED:
                    raise Reject(f"continued {transitions.MAX_CONTINUED} times: plan smaller segments")
                self._release(claimed, cursor=compact(cursor), continued=continued)
                return "continued"
        result = claimed.task.result_to_keep(returned)
        result = payloads.dump(envelope.id, result, inline=payloads.room(claimed.item))
        self._end(claimed, transitions.succeed(envelope.id, self._token, result, clock.moment(), children), 0)
        return "success"

    def _send_plan(self, claimed: Claimed, total: int) -> Outcome:
        return fanout.send_plan(claimed.envelope, self._token, total, lambda write: self._billed(claimed, write, 0))

    def _fanned_out(self, claimed: Claimed, outcome: Outcome) -> str:
        if isinstance(outcome, Applied):
            return "fanned_out"
        if (outcome.item or {}).get("revoke"):
            self._revoke(claimed, "revoked while it ran")
            return "revoked"
        self._not_ours(claimed, outcome.item)
        return "overtaken"

    def _failed(self, claimed: Claimed, error: BaseException) -> tuple[str, RunError]:
        """Ends the attempt as RETRY or FAILURE, by the error and the policy. Returns the outcome and its reason."""
        envelope, record = claimed.envelope, claimed.record
        reason = RunError.of(_from_the_tasks_code(error))
        observe.attempt_failed(reason)
        if isinstance(error, Revoked):
            self._revoke(claimed, f"revoked while it ran: {reason.message}")
            return "revoked", reason
        policy = claimed.policy(claimed.item)
        retryable = claimed.source != "direct" and not isinstance(error, Reject | InvalidMessage | UnknownTask)
        if retryable and policy.retries(error, record.attempts):
            after = error.after if isinstance(error, Retry) else None
            delay = policy.wait(record.attempts) if after is None else after
            eta = round(clock.now() + delay, 3)
            retry = self._billed(claimed, transitions.retry(envelope.id, self._token, self.queue, reason, eta), 1)
            outcome = backend().store.apply(retry)
            self._tab.lap()
            if isinstance(outcome, Applied):
                self.messages.come_back(claimed, eta, claimed.item)
                return "retry", reason
            if (outcome.item or {}).get("revoke"):
                self._revoke(claimed, "revoked while it ran; its attempt failed", spent=retry.set["spent"])
                return "revoked", reason
            self._not_ours(claimed, outcome.item)
            return "overtaken", reason
        if clock.now() > (record.lease_until or 0.0):
            self._not_ours(claimed, backend().store.get([envelope.id]).get(envelope.id))
            return "overtaken", reason
        if claimed.source != "direct":
            self.messages.dead_letter(claimed.body, reason, envelope, record.attempts)
        self._end(claimed, transitions.fail(envelope.id, self._token, reason, clock.moment(), self.messages.log), 2)
        return "failure", reason

    def _revoke(self, claimed: Claimed, reason: str, *, spent: Value | None = None) -> None:
        """Ends the run as REVOKED. `spent` is its usage if its attempt has been billed."""
        write = transitions.revoke_held(claimed.envelope.id, self._token, reason, clock.moment())
        write = self._billed(claimed, write, 2) if spent is None else replace(write, set={**write.set, "spent": spent})
        outcome = backend().store.apply(write)
        self._tab.lap()
        if not isinstance(outcome, Applied):
            self._not_ours(claimed, outcome.item)
            return
        with self.messages.on_failure(claimed):
            self._follow_up(claimed.envelope, outcome.item)
        observe.run_revoked(claimed.envelope, reason)

    def _release(self, claimed: Claimed, eta: float | None = None, **also: Value) -> None:
        """Leaves the run for another invocation, at once or not before `eta`, without spending an attempt."""
        due = clock.moment() if eta is None else round(eta, 3)
        waits: dict[str, Value] = {} if eta is None else {"eta": due}
        attempt = claimed.record.attempts
        release = transitions.release(claimed.envelope.id, self._token, self.queue, attempt, due, **waits, **also)
        write = self._billed(claimed, release, 1)
        outcome = backend().store.apply(write)
        self._tab.lap()
        if isinstance(outcome, Applied):
            self.messages.come_back(claimed, due, claimed.item)
        elif (outcome.item or {}).get("revoke"):
            self._revoke(claimed, "revoked while it ran", spent=write.set["spent"])
        else:
            self._not_ours(claimed, outcome.item)

    # --- settle ---

    def _billed(self, claimed: Claimed, write: Write, index_writes: int) -> Write:
        """The write that ends an attempt, with the run's usage. `index_writes` is how many index entries it changes.

        If the run is listed among the live ones, this adds one, because that entry is removed or gets another time.
        """
        spent = self._tab.of(claimed, write, index_writes + self._listing.has(claimed.envelope.id))
        self._bookings.charge(claimed, spent)
        return replace(write, set={**write.set, "spent": spent.text()})

    def _end(self, claimed: Claimed, write: Write, index_writes: int) -> None:
        write = self._billed(claimed, write, index_writes)
        if not self._unsettled:
            self._oldest = clock.monotonic()
        self._unsettled.append((claimed, write))

    def _settle_before(self, seconds: float) -> None:
        """Settles what has ended, if it would wait for too long because what comes next takes this many seconds."""
        if self._unsettled and clock.monotonic() + seconds - self._oldest > SETTLE_AFTER:
            self._settle()

    def _settle(self) -> None:
        """Writes the waiting outcomes in one request, then performs what follows from each."""
        waiting, self._unsettled = self._unsettled, []
        if not waiting:
            return
        outcomes = backend().store.apply_all([write for _, write in waiting])
        self._tab.lap()  # each run has been charged for its own settling
        for (claimed, _), outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, Applied):
                with self.messages.on_failure(claimed):
                    self._follow_up(claimed.envelope, outcome.item)
            else:
                self._not_ours(claimed, outcome.item)

    def _not_ours(self, claimed: Claimed, existing: Item | None) -> None:
        """Drops an outcome, because the lease expired and another sandbox's outcome counts.

        The message is redelivered; by then the run has ended, or another sandbox holds it. If the run has ended, the
        place that it took is released.
        """
        observe.overtaken(claimed.envelope.id, claimed.record.attempts)
        with self.messages.on_failure(claimed):
            if claimed.place and RunRecord.of(existing or {}).ended:
                locks.release(claimed.place, claimed.envelope.id, claimed.record.started_at)
        self.messages.later.append((claimed, 1.0))

    def _follow_up(self, envelope: Envelope, item: Item) -> None:
        """Performs what follows from the end of a run. Idempotent: a redelivered message resumes it."""
        if "place" in item:
            locks.release(str(item["place"]), envelope.id, RunRecord.of(item).started_at)
        succeeded = item["status"] == "SUCCESS"
        fanout.follow_up(envelope.id, item, succeeded=succeeded)
        fanout.settle_member(envelope, succeeded)


def _tasks_own_errors() -> tuple[type[BaseException], ...]:
    """Exceptions that a task's code may raise without affecting others in its batch."""
    import asyncio  # imported here: it takes a tenth of a function's start, and few tasks need it

    return Exception, SystemExit, GeneratorExit, asyncio.CancelledError


def _from_the_tasks_code(error: BaseException) -> BaseException:
    """The error, with a traceback that leaves out the worker's frames above the task's."""
    began = error.__traceback__
    while began and began.tb_next and str(began.tb_frame.f_globals.get("__name__")).startswith("nexus.worker."):
        began = began.tb_next
    return error.with_traceback(began)


def _check_returned(implementation: Implementation, returned: Any) -> None:
    task = implementation.task
    if isinstance(returned, FannedOut):
        if not implementation.reducible:
            raise Reject(f"{task.name} fans out, but has no reducer and no result model with an add method")
    elif not isinstance(returned, Continued | task.result):
        raise Reject(f"{task.name} returned {type(returned).__name__}, not {task.result.__name__}")


_limiters: dict[str, RateLimiter] = {}


def _limiter(task: str, rate: RateLimit) -> RateLimiter:
    return _limiters.setdefault(task, RateLimiter(task, rate.per_second))
