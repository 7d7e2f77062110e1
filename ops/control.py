"""Controls of the deployment: pause and resume a queue, restart sandboxes, set concurrency, purge.

These changes are drift from the template: the next deployment that changes the same resource resets them.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from nexus.aws.sdk import client as runtime_client
from nexus.backend import backend
from nexus.backend.store import Applied, Write
from nexus.backend.transport import queue_url
from nexus.client import AsyncResult
from nexus.envelope import Envelope, decode
from nexus.errors import InvalidMessage
from nexus.runs import transitions
from nexus.runs.record import RunRecord
from nexus.settings import settings
from nexus.worker import fanout
from ops import catalogue, versions
from ops.aws import Threads, client
from ops.health import event_source
from ops.problems import REPAIR, Problem

PATIENCE = 120.0
"""Seconds that a change in AWS may take."""

PURGE_THREADS = 8

AT_REST = ("Enabled", "Disabled")
"""The states of an event source that does not change at the moment."""


@dataclass(frozen=True, slots=True)
class Switched:
    """A queue's event source after a change. `changed` is whether it or the function's reserved concurrency was
    changed.
    """

    queue: str
    before: str
    state: str
    concurrency: int | None
    changed: bool = True


def pause(queue: str) -> Switched:
    """Stops the queue's function from taking messages; current runs finish. Messages wait up to four days.

    Uploads invoke their task's function directly. With a reserved concurrency of 0, Lambda sends S3's events at once to
    the function's on-failure destination, which is the queue, and they wait there.
    """
    switched = _switch(queue, enabled=False)
    if queue != catalogue.upload_queue() or _reserved(queue) == 0:
        return switched
    client("lambda").put_function_concurrency(
        FunctionName=settings().function_name(queue), ReservedConcurrentExecutions=0
    )
    return replace(switched, changed=True)


def resume(queue: str, reserved: int = 0) -> Switched:
    """Undoes `pause`, and a reserved concurrency of 0 whatever set it.

    `reserved` is the function's reserved concurrency as deployed (0: none).
    """
    lambda_, function = client("lambda"), settings().function_name(queue)
    held = _reserved(queue) == 0
    if held and reserved:
        lambda_.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=reserved)
    elif held:
        lambda_.delete_function_concurrency(FunctionName=function)
    switched = _switch(queue, enabled=True)
    return replace(switched, changed=held or switched.changed)


def _reserved(queue: str) -> int | None:
    found = client("lambda").get_function_concurrency(FunctionName=settings().function_name(queue))
    return found.get("ReservedConcurrentExecutions")


def _switch(queue: str, *, enabled: bool) -> Switched:
    wanted = "Enabled" if enabled else "Disabled"
    source = _settled(queue)
    before = str(source["State"])
    if before != wanted:
        client("lambda").update_event_source_mapping(UUID=source["UUID"], Enabled=enabled)
        source = _settled(queue, lambda s: s["State"] == wanted)
    at_once = source.get("ScalingConfig", {}).get("MaximumConcurrency")
    return Switched(queue, before, str(source["State"]), at_once, changed=before != wanted)


def concurrency(queue: str, maximum: int | None = None) -> Switched:
    """Limits the queue to `maximum` concurrent sandboxes (2 to 1000, SQS's own range); None only reads the setting."""
    source = _source(queue) if maximum is None else _settled(queue)
    if maximum is not None:
        client("lambda").update_event_source_mapping(UUID=source["UUID"], ScalingConfig={"MaximumConcurrency": maximum})
        wanted = {"MaximumConcurrency": maximum}
        source = _settled(queue, lambda s: s.get("ScalingConfig") == wanted and s["State"] in AT_REST)
    state = str(source["State"])
    return Switched(
        queue, state, state, source.get("ScalingConfig", {}).get("MaximumConcurrency"), changed=maximum is not None
    )


def restart(queue: str) -> str:
    """Replaces the sandboxes by publishing the live version again. Returns the new version's description."""
    note = f"restarted {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    versions.republish(queue, note)
    return note


def _source(queue: str) -> Any:
    source = event_source(queue)
    if source is None:
        raise Problem(f"{queue} has no event source", do=REPAIR)
    return source


def _settled(queue: str, reached: Callable[[Any], bool] = lambda source: source["State"] in AT_REST) -> Any:
    """The event source once it is so; by default, once no change of it is in progress: Lambda refuses a second one."""
    deadline = time.monotonic() + PATIENCE
    while True:
        source = _source(queue)
        if reached(source):
            return source
        if time.monotonic() > deadline:
            raise Problem(
                f"{queue}'s event source is still {source['State']}", do="`nexus status` shows when it is finished."
            )
        time.sleep(0.5)


# --- purge ---


@dataclass(slots=True)
class Purged:
    """What a purge removed: `runs` are now REVOKED, `jobs` lost segments and were revoked entirely."""

    messages: int = 0
    runs: int = 0
    jobs: int = 0


def purge(queue: str, on_progress: Callable[[Purged], None] = lambda _: None, *, until: float | None = None) -> Purged:
    """Receives every message that waits and was sent before `until` (seconds since 1970; now, if left out), marks its
    run REVOKED, then deletes the message.

    SQS's own PurgeQueue would leave the runs PENDING forever. In-flight and delayed messages stay. A fan-out or group
    that loses a member is revoked entirely, since it could never succeed.
    """
    purged, jobs, lock = Purged(), set[str](), threading.Lock()
    before = time.time() if until is None else until
    stop = threading.Event()

    def drain(_: int) -> None:
        # Later messages stay hidden meanwhile, so that each receive brings others.
        later: list[str] = []
        without = 0
        while without < 2 and not stop.is_set():
            messages = _receive(queue, wait=without > 0)
            due = [message for message in messages if int(message["Attributes"]["SentTimestamp"]) / 1000 <= before]
            later += [message["ReceiptHandle"] for message in messages if message not in due]
            without = 0 if due else without + 1
            if due:
                done = purge_page(queue, due, jobs)
                with lock:
                    purged.messages += done.messages
                    purged.runs += done.runs
                    purged.jobs += done.jobs
                    on_progress(purged)
        _show_again(queue, later)

    with Threads(PURGE_THREADS) as pool:
        try:
            for done in [pool.submit(drain, n) for n in range(PURGE_THREADS)]:
                done.result()
        finally:
            stop.set()
    return purged


def _receive(queue: str, *, wait: bool) -> Sequence[Any]:
    response = runtime_client("sqs").receive_message(
        QueueUrl=queue_url(settings().queue_name(queue)),
        MaxNumberOfMessages=10,
        VisibilityTimeout=120,
        WaitTimeSeconds=int(wait),
        MessageSystemAttributeNames=["SentTimestamp"],
    )
    return response.get("Messages", [])


def _show_again(queue: str, receipts: Sequence[str]) -> None:
    for start in range(0, len(receipts), 10):
        entries: list[Any] = [
            {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
            for n, receipt in enumerate(receipts[start : start + 10])
        ]
        runtime_client("sqs").change_message_visibility_batch(
            QueueUrl=queue_url(settings().queue_name(queue)), Entries=entries
        )


def purge_page(queue: str, messages: Sequence[Any], jobs: set[str]) -> Purged:
    """Purges up to ten received messages. `jobs` holds the ids of jobs already revoked; the function adds to it.

    Keeps the message of a run that has begun: the run needs it to continue, or to start what follows. Revokes a job
    before it deletes its members' messages, so a crash in between leaves messages that can be purged again.
    """
    held = [(message, _envelope(message["Body"])) for message in messages]
    envelopes = {envelope.id: envelope for _, envelope in held if envelope}
    revoked, begun = _revoke(list(envelopes.values()), queue)
    lost = [envelope for run_id, envelope in envelopes.items() if run_id not in begun]
    parents = {envelope.parent for envelope in lost if envelope.parent and envelope.segment} - jobs
    done = Purged(runs=revoked, jobs=_revoke_jobs(parents))
    jobs |= parents
    entries: list[Any] = [
        {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]}
        for n, (message, envelope) in enumerate(held)
        if envelope is None or envelope.id not in begun
    ]
    if entries:
        url = queue_url(settings().queue_name(queue))
        response = runtime_client("sqs").delete_message_batch(QueueUrl=url, Entries=entries)
        done.messages = len(entries) - len(response.get("Failed", ()))
    return done


def _revoke_jobs(ids: Iterable[str]) -> int:
    """Revokes jobs that have lost members, and cancels what was to follow them. Returns the number of jobs."""
    revoked = 0
    for run_id in sorted(ids):
        if AsyncResult[Any](run_id).revoke("segments of it were purged") == "REVOKED":
            revoked += 1
            fanout.after_revoked(backend().store.get([run_id])[run_id])
    return revoked


def _envelope(body: str) -> Envelope | None:
    try:
        return decode(body)
    except InvalidMessage:
        return None  # An S3 event, or not a runnable message.


def _revoke(envelopes: list[Envelope], queue: str) -> tuple[int, set[str]]:
    """Revokes the runs of messages, usually in one request. Returns (number revoked, ids of those that had begun)."""
    reason, now = "purged from its queue", round(time.time(), 3)
    keep_until = transitions.keep_until()
    writes: list[Write] = []
    for envelope in envelopes:
        # A run with a record is most likely PENDING.
        likely = RunRecord(envelope.id, "PENDING")
        writes.append(
            transitions.revoke_before_start(envelope.id, likely, reason, now)
            if envelope.recorded
            else transitions.revoked(envelope, queue, reason, now, keep_until)
        )
    revoked, begun, store = 0, set[str](), backend().store
    for write, outcome in zip(writes, store.apply_all(writes), strict=True):
        run_id, item = str(write.key), outcome.item
        if not isinstance(outcome, Applied):
            AsyncResult[Any](run_id).revoke(reason)
            item = store.get([run_id]).get(run_id)
        if item and item.get("status") == "REVOKED":
            revoked += 1
            # Nothing else would cancel what was to follow it.
            fanout.follow_up(run_id, item, succeeded=False)
        elif item:
            begun.add(run_id)
    return revoked, begun
