"""Dead letters: read without disturbing them, sent again, edited, dropped.

A dead-letter queue is read by receiving: a message is hidden while it is looked at, and shown again as soon as the
look is over. Nothing is deleted before what replaces it has been taken by SQS, so whoever dies in the middle leaves a
message too many, never one too few; the run's record makes the second one harmless.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from nexus.aws.sdk import client
from nexus.backend import backend
from nexus.backend.store import Applied, Value
from nexus.backend.transport import queue_url
from nexus.envelope import Envelope, decode
from nexus.errors import InvalidMessage
from nexus.runs import payloads
from nexus.runs.record import RunError
from nexus.runs.transitions import not_sent, send_again
from nexus.settings import settings
from nexus.tasks import Task
from nexus.values import compact
from ops import catalogue
from ops.aws import Threads
from ops.health import queue_counts
from ops.history import has_part

THREADS = 8
HIDDEN_FOR = 30
LETTERS_A_SECOND = 200
"""A letter is hidden while it is looked at: half a minute, and as long as so slow a look takes over its whole queue.
Whoever is killed in the middle leaves them hidden until then."""

ONE_BY_ONE = 1_000
"""Up to so many letters of a whole queue are sent again one by one: their runs say PENDING at once, and an event that a
rule could not deliver goes as the message that the rule would have sent. SQS moves more by itself, and as they are."""

SCAN_LIMIT = 100_000
"""Letters that one look receives at most: SQS lets 120,000 of a queue be in flight."""


def hidden(task: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task's arguments as they may be shown."""
    known = None if catalogue.missing() else catalogue.tasks().get(task)
    return known.without_secrets(args) if known else args


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. What its sender did not say, as SQS's own redrive does not, is empty or 0.

    `id` is the run's, or the message's where no run can be read. `failed_at` is when it was given up, `sent_at` when
    the run was sent, or the message where its body tells of no run; in seconds since 1970. `receipt` is what this
    look holds it by.
    """

    id: str
    queue: str
    task: str
    error: str
    message: str
    attempts: int
    log: str
    failed_at: float
    sent_at: float
    body: str = field(repr=False)
    message_id: str = ""
    receipt: str = field(default="", repr=False)

    @property
    def envelope(self) -> Envelope | None:
        """The envelope in the body; None when there is none."""
        try:
            return decode(self.body)
        except InvalidMessage:
            return None

    @property
    def group(self) -> str:
        """Whose turn it takes when it is sent again: see `nexus.envelope`."""
        envelope = self.envelope
        return (envelope.group if envelope else None) or self.task or "unreadable"

    @property
    def args(self) -> Mapping[str, Any] | None:
        envelope = self.envelope
        return envelope.args if envelope else None

    @property
    def shown_args(self) -> Mapping[str, Any] | None:
        """The arguments, with secret ones hidden."""
        return None if self.args is None else hidden(self.task, self.args)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: all that are given must hold. Ages in seconds, since the run was given up.

    `error` is a part of the error's type and message, `kind` the whole type.
    """

    ids: frozenset[str] = frozenset()
    task: str | None = None
    error: str | None = None
    older_than: float | None = None
    younger_than: float | None = None
    kind: str | None = None

    def holds(self, letter: Letter, now: float) -> bool:
        """`error` is looked for in the error's type and message, in any case; an id may be its first or last part."""
        age = now - letter.failed_at
        return (
            (not self.ids or any(has_part(letter.id, i) or has_part(letter.message_id, i) for i in self.ids))
            and self.task in (None, letter.task)
            and (self.error is None or self.error.lower() in f"{letter.error}: {letter.message}".lower())
            and (self.older_than is None or age >= self.older_than)
            and (self.younger_than is None or age <= self.younger_than)
            and self.kind in (None, letter.error)
        )

    @property
    def everything(self) -> bool:
        return self == Filter()


@dataclass(slots=True)
class Outcome:
    """What became of the letters that an action was for."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    looked_at: int = 0
    by_task: dict[str, int] = field(default_factory=dict)

    def count(self, letter: Letter) -> None:
        self.done += 1
        name = letter.task or "(unreadable)"
        self.by_task[name] = self.by_task.get(name, 0) + 1


def counts(queues: Sequence[str]) -> dict[str, int]:
    """How many dead letters each queue has, exactly as far as SQS counts."""
    found = {}
    for queue in queues:
        there = queue_counts(settings().dead_letter_queue_name(queue))
        found[queue] = there.total if there else 0
    return found


def look(queue: str, wanted: Filter, limit: int | None = None) -> Iterator[Letter]:
    """Letters that the filter holds for, as they come; all are shown again when the look ends, however it ends."""
    with _Look(queue, enough=limit) as looking:
        yield from looking.letters(wanted)


class _Look:
    """One pass over a dead-letter queue in several threads: receives, and gives back what is not settled."""

    def __init__(self, queue: str, enough: int | None = None) -> None:
        self.queue = queue
        self.url = queue_url(settings().dead_letter_queue_name(queue))
        self._enough = enough
        self._held: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        there = queue_counts(settings().dead_letter_queue_name(queue))
        self._hidden_for = min(43_200, HIDDEN_FOR + (there.total if there else 0) // LETTERS_A_SECOND)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._show_again()

    def letters(self, wanted: Filter) -> Iterator[Letter]:
        """Each letter once, page by page."""
        now, given = time.time(), 0
        for page in self.pages():
            for letter in page:
                if wanted.holds(letter, now):
                    yield letter
                    given += 1
                    if self._enough is not None and given >= self._enough:
                        return

    def pages(self) -> Iterator[list[Letter]]:
        """Receives until the queue gives nothing more, eight requests at a time."""
        empty = again = 0
        with Threads(THREADS) as pool:
            # A look that is slower than letters are hidden meets the first of them again: once round is enough.
            while empty < 2 and again <= len(self._held) < SCAN_LIMIT and not self._stop.is_set():
                # Short polls ask only some of SQS's servers; the second empty round waits and asks them all.
                rounds = [pool.submit(self._receive, min(empty, 1)) for _ in range(1 if empty else THREADS)]
                pages = [done.result() for done in rounds]
                letters = [letter for page, _ in pages for letter in page]
                received = sum(count for _, count in pages)
                empty = 0 if received else empty + 1
                again = 0 if letters else again + received
                if letters:
                    yield letters

    def _receive(self, wait: int) -> tuple[list[Letter], int]:
        """The letters of one request that are new to this look, and how many it gave."""
        answer = client("sqs").receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=self._hidden_for,
            WaitTimeSeconds=wait,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
        )
        found = []
        messages = answer.get("Messages", [])
        with self._lock:
            for message in messages:
                # Standard queues give a message twice now and then: the newer receipt is the one that counts.
                twice = message["MessageId"] in self._held
                self._held[message["MessageId"]] = message["ReceiptHandle"]
                if not twice:
                    found.append(_letter(self.queue, message))
        return found, len(messages)

    def delete(self, letters: Sequence[Letter]) -> dict[str, str]:
        """Deletes up to ten; answers with the reason for each id that SQS refused."""
        entries: list[Any] = [
            {"Id": str(n), "ReceiptHandle": self._held[letter.message_id]} for n, letter in enumerate(letters)
        ]
        answer = client("sqs").delete_message_batch(QueueUrl=self.url, Entries=entries)
        with self._lock:
            for done in answer.get("Successful", []):
                self._held.pop(letters[int(done["Id"])].message_id, None)
        return {letters[int(f["Id"])].id: f.get("Message") or f["Code"] for f in answer.get("Failed", [])}

    def _show_again(self) -> None:
        receipts = list(self._held.values())
        pages = [receipts[n : n + 10] for n in range(0, len(receipts), 10)]
        with Threads(THREADS) as pool:
            list(pool.map(self._show_page, pages))

    def _show_page(self, receipts: list[str]) -> None:
        entries: list[Any] = [
            {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": 0} for n, receipt in enumerate(receipts)
        ]
        client("sqs").change_message_visibility_batch(QueueUrl=self.url, Entries=entries)


def _letter(queue: str, message: Any) -> Letter:
    attributes = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    # SQS's own time of the dead letter is that of its giving up: only the envelope knows when the run was sent.
    taken_at = int(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000
    body = message["Body"]
    if rule := attributes.get("RULE_ARN"):
        body = _as_the_rule_sends(body, rule.rpartition("/")[2])
    try:
        envelope = decode(body)
    except InvalidMessage:
        envelope = None
    sent_at = envelope.sent_at.timestamp() if envelope and "sent_at" in envelope.model_fields_set else taken_at
    attempts = attributes.get("Attempts", "")
    return Letter(
        id=attributes.get("RunId") or (envelope.id if envelope else "") or message["MessageId"],
        queue=queue,
        task=attributes.get("Task") or (envelope.task if envelope else ""),
        # EventBridge and Scheduler name what they could not deliver in their own way.
        error=attributes.get("ErrorType") or attributes.get("ERROR_CODE") or "Redriven",
        message=attributes.get("ErrorMessage")
        or attributes.get("ERROR_MESSAGE")
        or "moved by SQS after too many receives: no attempt was settled",
        attempts=int(attempts) if attempts.isdecimal() else 0,
        log=attributes.get("Log", ""),
        failed_at=_seconds(attributes.get("FailedAt", "")) or taken_at,
        sent_at=sent_at,
        body=body,
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
    )


def _as_the_rule_sends(event: str, rule: str) -> str:
    """What a rule makes of its event, by its target's transformer: its dead letters hold the event as it came.

    The event itself where the rule is gone, or has no transformer.
    """
    from ops.aws import client as operator_client

    events = operator_client("events")
    try:
        targets = events.list_targets_by_rule(Rule=rule)["Targets"]
    except events.exceptions.ResourceNotFoundException:
        return event
    transformer = targets[0].get("InputTransformer") if targets else None
    if transformer is None:
        return event
    text = transformer["InputTemplate"]
    for name, path in transformer.get("InputPathsMap", {}).items():
        value = json.loads(event)
        for part in path.removeprefix("$.").split("."):
            value = value.get(part) if isinstance(value, dict) else None
        # A template quotes what is text and not what is JSON.
        quoted = json.dumps(value)
        text = text.replace(f'"<{name}>"', quoted).replace(f"<{name}>", quoted)
    return text


def _seconds(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


# --- what is done with them ---


def retry(queue: str, wanted: Filter, told: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """Sends the letters to their queue again, with their ids: a failed run has its attempts anew."""
    return _each(queue, wanted, lambda letters: _send_again(queue, letters), told)


def drop(queue: str, wanted: Filter, told: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """Deletes the letters. Their runs stay FAILURE, until their records expire. A whole queue's are purged by SQS."""
    if wanted.everything:
        sqs, name = client("sqs"), settings().dead_letter_queue_name(queue)
        there = queue_counts(name)
        try:
            sqs.purge_queue(QueueUrl=queue_url(name))
        except sqs.exceptions.PurgeQueueInProgress:
            pass  # SQS purges once a minute: what has come since is deleted one by one.
        else:
            return Outcome(done=there.total if there else 0)
    return _each(queue, wanted, lambda _: {}, told)


def _each(
    queue: str,
    wanted: Filter,
    before: Callable[[Sequence[Letter]], dict[str, str]],
    told: Callable[[Outcome], None],
) -> Outcome:
    """Ten by ten and in several threads: `before`, then the deletion of those that it did not refuse.

    What is sent again may fail again at once and be back while this goes on: each letter is taken once.
    """
    outcome, lock, now = Outcome(), threading.Lock(), time.time()
    met = set[tuple[str, str]]()

    def work(letters: Sequence[Letter]) -> None:
        refused = before(letters)
        taken = [letter for letter in letters if letter.id not in refused]
        kept = looking.delete(taken) if taken else {}
        with lock:
            outcome.failed |= refused | {i: f"sent, and not deleted: {reason}" for i, reason in kept.items()}
            for letter in taken:
                if letter.id not in kept:
                    outcome.count(letter)
            told(outcome)

    with _Look(queue) as looking, Threads(THREADS) as pool:
        for page in looking.pages():
            outcome.looked_at += len(page)
            meant = []
            for letter in page:
                known = (letter.id, "") if letter.id != letter.message_id else ("", letter.body)
                if wanted.holds(letter, now) and known not in met:
                    met.add(known)
                    meant.append(letter)
            list(pool.map(work, [meant[n : n + 10] for n in range(0, len(meant), 10)]))
            if wanted.ids and outcome.done >= len(wanted.ids):
                break
    return outcome


def _send_again(queue: str, letters: Sequence[Letter], **also: Value) -> dict[str, str]:
    """Lets their runs wait anew and sends the letters; answers with SQS's reason for each that was not taken."""
    store = backend().store
    outcomes = store.apply_all([send_again(letter.id, **also) for letter in letters])
    # A letter is sent before its run is FAILURE: who is that fast leaves a mark by which the message is claimed then.
    early = frozenset(
        one.id for one, outcome in zip(letters, outcomes, strict=True) if not isinstance(outcome, Applied)
    )
    refused = _send(queue, letters, early)
    for letter, outcome in zip(letters, outcomes, strict=True):
        if letter.id in refused and isinstance(outcome, Applied):
            error = RunError(letter.error, letter.message)
            store.apply(not_sent(letter.id, error, letter.failed_at, attempts=letter.attempts, log=letter.log))
    return refused


def _send(queue: str, letters: Sequence[Letter], marked: frozenset[str] = frozenset()) -> dict[str, str]:
    entries: list[Any] = [
        {"Id": str(n), "MessageBody": letter.body, "MessageGroupId": letter.group} for n, letter in enumerate(letters)
    ]
    for entry, letter in zip(entries, letters, strict=True):
        if letter.id in marked:
            entry["MessageAttributes"] = {"ErrorType": {"DataType": "String", "StringValue": letter.error}}
    pages, size = [[]], 0  # type: list[list[Any]], int
    for entry in entries:
        length = len(entry["MessageBody"].encode())
        if size + length > 1024 * 1024 and pages[-1]:
            pages.append([])
            size = 0
        pages[-1].append(entry)
        size += length
    refused = {}
    for page in pages:
        answer = client("sqs").send_message_batch(QueueUrl=queue_url(settings().queue_name(queue)), Entries=page)
        for failed in answer.get("Failed", []):
            refused[letters[int(failed["Id"])].id] = failed.get("Message") or failed["Code"]
    return refused


def edit(queue: str, letter_id: str, task: Task[Any, Any], args: Mapping[str, Any]) -> Letter | None:
    """Sends one letter again with other arguments and the same id, so that a fan-out that waits for it can succeed.

    None when the letter is not there any more. Raises InvalidMessage when the arguments do not fit; SendFailed.
    """
    from nexus.errors import SendFailed

    with _Look(queue) as looking:
        for letter in looking.letters(Filter(ids=frozenset({letter_id}))):
            envelope = letter.envelope
            if envelope is None:
                raise InvalidMessage(f"{letter.id} carries no envelope: there are no arguments to edit")
            changed = edited(envelope, task, args)
            refused = _send_again(queue, [replace(letter, body=changed.encode())], args=compact(changed.args))
            if refused:
                raise SendFailed(refused)
            looking.delete([letter])
            return letter
    return None


def edit_each(queue: str, wanted: Filter, task: Task[Any, Any], patch: Mapping[str, Any]) -> Outcome:
    """Sends letters of one task again, with `patch` over each one's own arguments: see `patched`.

    A letter whose arguments do not fit then stays, and the outcome says why.
    """

    def send(letters: Sequence[Letter]) -> dict[str, str]:
        refused: dict[str, str] = {}
        for letter in letters:
            try:
                changed = patched(letter, task, patch)
            except InvalidMessage as error:
                refused[letter.id] = str(error)
            else:
                body = changed.encode()
                refused |= _send_again(queue, [replace(letter, body=body)], args=compact(changed.args))
        return refused

    return _each(queue, wanted, send, lambda _: None)


def patched(letter: Letter, task: Task[Any, Any], patch: Mapping[str, Any]) -> Envelope:
    """A letter's envelope with some arguments replaced; null takes one away (RFC 7396). Raises InvalidMessage."""
    envelope = letter.envelope
    if envelope is None:
        raise InvalidMessage(f"{letter.id} carries no envelope: there are no arguments to edit")
    args = {name: value for name, value in {**envelope.args, **patch}.items() if value is not None}
    return edited(envelope, task, args)


def edited(envelope: Envelope, task: Task[Any, Any], args: Mapping[str, Any]) -> Envelope:
    """With other arguments. One that is kept in S3 stays there unless it is among them. Raises InvalidMessage."""
    refs = {name: where for name, where in (envelope.refs or {}).items() if name not in args}
    whole = task.to_send({**{name: payloads.load(where) for name, where in refs.items()}, **args})
    sent = {name: value for name, value in whole.items() if name not in refs}
    return envelope.model_copy(update={"args": sent, "refs": refs or None})


def move_all(queue: str, told: Callable[[int, int | None], None] = lambda _, __: None) -> int | None:
    """Lets SQS move every letter back by itself (StartMessageMoveTask); answers with how many, None where SQS cannot.

    `told` is called with (moved, to be moved) about once a second.
    """
    from botocore.exceptions import ClientError

    sqs = client("sqs")
    queues = f"arn:{sqs.meta.partition}:sqs:{sqs.meta.region_name}:{settings().account_id}"
    arn, to = f"{queues}:{settings().dead_letter_queue_name(queue)}", f"{queues}:{settings().queue_name(queue)}"
    try:
        # The letters were sent there and not redriven by SQS, so it does not know where they came from.
        sqs.start_message_move_task(SourceArn=arn, DestinationArn=to)
    except ClientError as error:
        # An emulator that lacks the action says one of these; a message move that runs already is told.
        if error.response.get("Error", {}).get("Code", "") in _UNKNOWN_ACTION:
            return None
        raise
    while True:
        latest = sqs.list_message_move_tasks(SourceArn=arn, MaxResults=1)["Results"][0]
        moved = latest.get("ApproximateNumberOfMessagesMoved", 0)
        told(moved, latest.get("ApproximateNumberOfMessagesToMove"))
        if latest.get("Status") not in ("RUNNING", "CANCELLING"):
            return moved
        time.sleep(1.0)


_UNKNOWN_ACTION = {
    "InvalidAction",
    "AWS.SimpleQueueService.UnsupportedOperation",
    "UnsupportedOperation",
    "UnknownOperationException",
    "NotImplemented",
}


def as_plain(letter: Letter) -> dict[str, Any]:
    """A letter as --json shows it: its envelope parsed, or its body as text; secret arguments are hidden."""
    body: Any = letter.body
    with suppress(ValueError):
        body = json.loads(letter.body)
    args = letter.shown_args
    if isinstance(body, dict) and isinstance(body.get("args"), dict):
        body = {**body, "args": hidden(letter.task, body["args"])}
    return {
        "id": letter.id,
        "message_id": letter.message_id,
        "queue": letter.queue,
        "task": letter.task or None,
        "error": letter.error,
        "message": letter.message,
        "attempts": letter.attempts,
        "failed_at": datetime.fromtimestamp(letter.failed_at, UTC),
        "sent_at": datetime.fromtimestamp(letter.sent_at, UTC),
        "log": letter.log or None,
        "args": args,
        "body": body,
    }
