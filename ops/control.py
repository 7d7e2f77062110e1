"""Switches of the deployment: pause and resume a queue, fresh sandboxes, concurrency, purging.

What is switched here is drift from the template: the next deployment that changes the same resource sets it back.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nexus.aws.dynamodb import equals
from nexus.aws.sdk import client as runtime_client
from nexus.backend import backend
from nexus.backend.store import Applied, Write
from nexus.backend.transport import queue_url
from nexus.client import AsyncResult
from nexus.envelope import Envelope, decode
from nexus.errors import InvalidMessage
from nexus.runs import transitions
from nexus.settings import settings
from nexus.worker import fanout
from ops import catalogue, versions
from ops.aws import client
from ops.health import event_source
from ops.problems import REPAIR, Problem

PATIENCE = 120.0
"""Seconds that a switch of AWS may take."""

PURGE_THREADS = 8


@dataclass(frozen=True, slots=True)
class Switched:
    """A queue's event source after a switch."""

    queue: str
    before: str
    state: str
    concurrency: int | None


def pause(queue: str) -> Switched:
    """Stops the queue's function from taking messages; what it runs now ends. Messages wait up to four days.

    Uploads reach their task's function past its queue: with a reserved concurrency of 0 Lambda sends S3's events at
    once to the function's on-failure destination, which is that queue, and there they wait.
    """
    switched = _switch(queue, enabled=False)
    if queue == catalogue.upload_queue():
        client("lambda").put_function_concurrency(
            FunctionName=settings().function_name(queue), ReservedConcurrentExecutions=0
        )
    return switched


def resume(queue: str, reserved: int = 0) -> Switched:
    """Undoes `pause`, and a reserved concurrency of 0 however it came about.

    `reserved` is what the deployment reserves for the function that uploads go to (0: nothing).
    """
    lambda_, function = client("lambda"), settings().function_name(queue)
    if lambda_.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions") == 0:
        if reserved and queue == catalogue.upload_queue():
            lambda_.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=reserved)
        else:
            lambda_.delete_function_concurrency(FunctionName=function)
    return _switch(queue, enabled=True)


def _switch(queue: str, *, enabled: bool) -> Switched:
    source = _source(queue)
    before = str(source["State"])
    if before != ("Enabled" if enabled else "Disabled"):
        client("lambda").update_event_source_mapping(UUID=source["UUID"], Enabled=enabled)
    after = _settled(queue, lambda s: s["State"] == ("Enabled" if enabled else "Disabled"))
    return Switched(queue, before, str(after["State"]), after.get("ScalingConfig", {}).get("MaximumConcurrency"))


def concurrency(queue: str, maximum: int | None = None) -> Switched:
    """At most so many sandboxes at once for the queue (2 to 1000, as SQS's event sources have it); None only asks."""
    source = _source(queue)
    if maximum is not None:
        client("lambda").update_event_source_mapping(UUID=source["UUID"], ScalingConfig={"MaximumConcurrency": maximum})
        wanted = {"MaximumConcurrency": maximum}
        source = _settled(queue, lambda s: s.get("ScalingConfig") == wanted and s["State"] in ("Enabled", "Disabled"))
    state = str(source["State"])
    return Switched(queue, state, state, source.get("ScalingConfig", {}).get("MaximumConcurrency"))


def restart(queue: str) -> str:
    """Fresh sandboxes: what is live is published once more. The note that the version carries."""
    note = f"restarted {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    versions.republish(queue, note)
    return note


def _source(queue: str) -> Any:
    source = event_source(queue)
    if source is None:
        raise Problem(f"{queue} has no event source", do=REPAIR)
    return source


def _settled(queue: str, reached: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while True:
        source = _source(queue)
        if reached(source):
            return source
        if time.monotonic() > deadline:
            raise Problem(
                f"{queue}'s event source is still {source['State']}", do="`nexus status` shows when it is done."
            )
        time.sleep(0.5)


# --- purge ---


@dataclass(slots=True)
class Purged:
    """What a purge removed: `runs` whose records now say REVOKED, `jobs` that lost segments and were revoked whole."""

    messages: int = 0
    runs: int = 0
    jobs: int = 0


def purge(queue: str, told: Callable[[Purged], None] = lambda _: None) -> Purged:
    """Takes every message that waits, marks its run REVOKED, and then deletes it.

    SQS's own PurgeQueue would leave the runs PENDING for ever. Messages in flight and delayed ones stay; a fan-out
    or a group that lost a member here is revoked whole, since it could never succeed.
    """
    purged, parents, lock = Purged(), set[str](), threading.Lock()
    url = queue_url(settings().queue_name(queue))

    def drain(_: int) -> None:
        empty = 0
        while empty < 2:
            messages = (
                runtime_client("sqs")
                .receive_message(
                    QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=120, WaitTimeSeconds=min(empty, 1)
                )
                .get("Messages", [])
            )
            empty = 0 if messages else empty + 1
            if not messages:
                continue
            revoked, waiting = purge_page(queue, messages)
            with lock:
                purged.messages += len(messages)
                purged.runs += revoked
                parents.update(waiting)
                told(purged)

    with ThreadPoolExecutor(PURGE_THREADS) as pool:
        for done in [pool.submit(drain, n) for n in range(PURGE_THREADS)]:
            done.result()
    purged.jobs = revoke_jobs(parents)
    return purged


def purge_page(queue: str, messages: Sequence[Any]) -> tuple[int, set[str]]:
    """Up to ten received messages: how many runs are REVOKED now, and the ids of the jobs that lose members."""
    envelopes = [envelope for message in messages if (envelope := _envelope(message["Body"]))]
    revoked = _revoke(envelopes, queue)
    runtime_client("sqs").delete_message_batch(
        QueueUrl=queue_url(settings().queue_name(queue)),
        Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)],
    )
    return revoked, {envelope.parent for envelope in envelopes if envelope.parent and envelope.segment}


def revoke_jobs(ids: Iterable[str]) -> int:
    """Revokes jobs whole that have lost members; answers with how many."""
    return sum(AsyncResult[Any](run_id).revoke("segments of it were purged") == "REVOKED" for run_id in sorted(ids))


def _envelope(body: str) -> Envelope | None:
    try:
        return decode(body)
    except InvalidMessage:
        return None  # An S3 event, or nothing that could have run.


def _revoke(envelopes: list[Envelope], queue: str) -> int:
    """Marks the runs of messages that are about to be deleted, in one request for the usual case."""
    reason, now = "purged from its queue", round(time.time(), 3)
    keep_until = transitions.keep_until()
    writes: list[Write] = []
    unique = {envelope.id: envelope for envelope in envelopes}
    for envelope in unique.values():
        write = transitions.revoked(envelope, queue, reason, now, keep_until)
        if envelope.recorded:
            # Its record stands already, most likely as PENDING.
            set_ = {name: write.set[name] for name in ("status", "ended_at", "error")}
            write = Write(envelope.id, set_, remove=("live", "since", "eta"), when=(equals("status", "PENDING"),))
        writes.append(write)
    revoked = 0
    for write, outcome in zip(writes, backend().store.apply_all(writes), strict=True):
        if isinstance(outcome, Applied):
            revoked += 1
            # Nobody is left who would end what was to follow it.
            fanout.follow_up(str(write.key), outcome.item, succeeded=False)
        else:
            handle: AsyncResult[Any] = AsyncResult(str(write.key))
            if handle.status in ("PENDING", "RETRY"):
                revoked += handle.revoke(reason) == "REVOKED"
    return revoked
