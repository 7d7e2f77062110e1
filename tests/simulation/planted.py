"""Plants faults in the runtime, to check that the simulation finds them: one line of a function is changed.

The line is replaced in the function's source and the function's code is exchanged, so every importer gets the fault.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nexus.backend import transport
from nexus.client import following
from nexus.client.handles import AsyncResult
from nexus.runs import locks, tallies, transitions
from nexus.runs.rate_limit import RateLimiter
from nexus.worker import entry, execution, fanout
from nexus.worker.delivery import Received
from nexus.worker.execution import Worker
from ops import control, dead_letters


@dataclass(frozen=True, slots=True)
class Fault:
    """`right` occurs once in the function's source; `wrong` replaces it."""

    promise: str
    function: Callable[..., Any]
    right: str
    wrong: str
    found_in: str = ""
    """The small world that shows the fault, if schedules rarely do."""

    first: int = 0
    """The seed where the search begins, for a fault that few schedules show."""


FAULTS = (
    # claims
    Fault("a live lease keeps others away", transitions.claim, "if record.lease_until > by.now:", "if False:"),
    Fault(
        "a claim takes over from the claim that it looked at",
        transitions.claim,
        'when = (status, equals("claim", known.get("claim")))',
        "when = ()",
        found_in="a_message_in_three_copies",
    ),
    Fault(
        "no neighbour pays for a sandbox's death",
        transitions.claim,
        "attempts = record.attempts if shared else record.attempts + 1",
        "attempts = record.attempts + 1",
    ),
    Fault(
        "the last attempt is the last",
        transitions.claim,
        "if record.attempts >= max_attempts and not shared:",
        "if False:",
    ),
    Fault(
        "every retry is another attempt",
        transitions.claim,
        '"attempts": record.attempts + 1}, remove=left, when=read)',
        '"attempts": record.attempts}, remove=left, when=read)',
    ),
    Fault(
        "no run is claimed before its time",
        transitions.claim,
        "if record.eta is not None and record.eta > by.now + EARLY:",
        "if False:",
    ),
    Fault(
        "a run that has ended is not claimed", transitions.claim, "return Acknowledge(record)", "return Busy(by.now)"
    ),
    Fault(
        "one run is once in a batch",
        Worker._once,
        "return list(first.values())",
        "return list(deliveries)",
    ),
    # outcomes
    Fault(
        "an outcome counts only from who holds the run",
        transitions.held,
        'return (equals("status", "STARTED"), equals("claim", token))',
        "return ()",
    ),
    Fault(
        "a run that has ended is not listed as live",
        transitions.succeed,
        'removed = (*LEFT_BY_CLAIM, "error", "why", "eta", "cursor", "continued")',
        'removed = ("claim", "lease_until", "error", "why", "eta", "cursor", "continued")',
    ),
    Fault(
        "the run history has a run among those that ended as it did",
        transitions.claim,
        "**_indexed(envelope),",
        "",
    ),
    Fault(
        "a wait costs no attempt",
        transitions.release,
        '"attempts": attempt - 1',
        '"attempts": attempt',
    ),
    Fault("what is retried comes again", Worker._failed, "self.messages.come_back(claimed, eta, claimed.item)", "pass"),
    Fault(
        "a second long wait has a schedule of its own",
        transport.schedule_name,
        'return f"{run_id}_{int(due)}" if delivered else run_id',
        "return run_id",
    ),
    Fault("what is given up is a dead letter", Worker._failed, 'if claimed.source != "direct":', "if False:"),
    Fault(
        "what a lost sandbox leaves after its last attempt is a dead letter",
        Worker._died,
        "self.messages.dead_letter(readable.body, error, readable.envelope, record.attempts)",
        "pass",
    ),
    Fault(
        "whatever a task raises is its own failure",
        execution._tasks_own_errors,
        "return Exception, SystemExit, GeneratorExit, asyncio.CancelledError",
        "return (Exception,)",
    ),
    Fault(
        "a failure after a run is left for its message alone",
        Worker._already_ended,
        "if record.ended:",
        "if False:",
    ),
    Fault(
        "the outcome of what runs is written before the handler returns",
        Worker._deliver,
        "finally:\n        self._settle()",
        "finally:\n        pass",
    ),
    Fault(
        "what is to come again is not deleted",
        entry._messages,
        'return {"batchItemFailures": [{"itemIdentifier": message.id} for message in later]}',
        'return {"batchItemFailures": []}',
    ),
    # revoking and expiring
    Fault(
        "a run that was revoked plans no segments",
        fanout.plan,
        'when=(*held(token), equals("revoke", None))',
        "when=held(token)",
    ),
    Fault(
        "a run that has segments is revoked with them",
        transitions.ask_to_revoke,
        'equals("status", "STARTED"), equals("total", None)',
        'equals("status", "STARTED"),',
    ),
    Fault("a revoked run does not start again", Worker._may_start, 'if claimed.item.get("revoke"):', "if False:"),
    Fault(
        "an expired run does not start",
        Worker._has_expired,
        "expiry.timestamp() >= clock.now()",
        "expiry.timestamp() >= 0",
    ),
    Fault(
        "a revoked run's schedule goes with it",
        AsyncResult.revoke,
        "backend().transport.cancel(schedule_name(self.id, record.eta, delivered=delivered))",
        "pass",
    ),
    # places and rates
    Fault(
        "a place is given up",
        Worker._follow_up,
        'if "place" in item:',
        "if False:",
    ),
    Fault(
        "a place that is taken is not taken again",
        locks.acquire,
        "if not holder or holder == run_id or until <= now or _has_ended(holder):",
        "if True:",
    ),
    Fault("a start is booked once", RateLimiter._book, 'when=(equals("next_at", known),)', "when=()"),
    # waiting runs
    Fault(
        "the last member ends the run, and no other",
        fanout.settle_member,
        'if len(done) + len(failed) < int(str(tally["size"])):',
        'if len(done) + len(failed) < int(str(tally["size"])) - 1:',
    ),
    Fault(
        "a member that succeeds at last counts as done",
        fanout.settle_member,
        'add={"done": one}, discard={"failed": one}, when=uncounted',
        'add={"done": one}, when=uncounted',
    ),
    Fault(
        "the second phase is sent, whichever process died before",
        fanout.settle_member,
        "elif RunRecord.of(noted.item).phase == segment.phase + 1:",
        "elif False:",
        found_in="fan_out_of_two_phases",
    ),
    Fault("a chain continues", fanout.follow_up, "if succeeded:", "if False:"),
    Fault(
        "what follows a run is one run, however often it is sent",
        following._prepared_run,
        "id=step.id,",
        'id=step.id if parent is None else str(__import__("uuid").uuid4()),',
    ),
    Fault(
        "a member's id is its place's", tallies.member, "derived_id(parent, phase, index)", "derived_id(parent, index)"
    ),
    # operators
    Fault(
        "a letter that is sent again before its run is FAILURE is not lost",
        dead_letters._send,
        "if letter.id in marked:",
        "if False:",
    ),
    Fault(
        "what was to follow a run that is purged ends with it",
        control._revoke,
        "fanout.follow_up(run_id, item, succeeded=False)",
        "pass",
        first=4097,
    ),
    # tasks that the deployment lacks
    Fault(
        "what follows a run is done although the catalogue lacks its task",
        Worker._never_ran,
        "self._follow_up(envelope, existing)",
        "fanout.settle_member(envelope, False)",
        first=2309,
    ),
    Fault(
        "a large result is read where its message says",
        Received.readable,
        "refs = envelope.refs or {}",
        "refs = {}",
    ),
    # lost responses
    Fault(
        "a claim whose response was lost holds although the record is kept longer since",
        Worker._claim_alone,
        'if existing is not None and existing.get("claim") == self._token:',
        "if False:",
        first=94_511,
    ),
)


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Plants the fault for the duration of the block."""
    function = fault.function
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(fault.right) == 1, f"{function.__qualname__} does not contain {fault.right!r} once"
    made: dict[str, Any] = {}
    exec(compile(source.replace(fault.right, fault.wrong), f"<{fault.promise}>", "exec"), function.__globals__, made)
    whole = function.__code__
    function.__code__ = made[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = whole
