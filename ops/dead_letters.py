"""Reads dead letters without disturbing them, resends, edits and drops them.

Reading a dead-letter queue means receiving from it: a message is hidden while it is read and made visible again right
after. Nothing is deleted before SQS has accepted its replacement, so a crash in between leaves a duplicate message,
never a lost one; the run's record makes the duplicate harmless.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from nexus.aws.sdk import client
from nexus.backend import backend
from nexus.backend.store import Applied, Value
from nexus.backend.transport import queue_url
from nexus.envelope import Envelope, decode, unsent_message
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
from ops.problems import ExitCode, Problem, explained
from ops.spans import At

THREADS = 8
HIDDEN_FOR = 30
REDRIVEN = "Redriven"
"""The error of a letter that SQS itself moved."""
LETTERS_A_SECOND = 200
"""Letters are hidden while they are read: half a minute, or as long as a slow read of the whole queue takes. If the
process is killed, they stay hidden until then."""

ONE_BY_ONE = 1_000
"""The most letters of a whole queue that are resent or deleted individually. A resend sets their runs to PENDING at
once, and sends for a rule's event the message that the rule would have sent; SQS moves larger numbers unchanged. A drop
leaves letters that arrive meanwhile; with larger numbers, SQS may purge those too."""

SCAN_LIMIT = 100_000
"""The most letters that one read receives: SQS allows 120,000 in flight per queue."""


def hidden(task: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task's arguments with secret values hidden."""
    known = None if catalogue.missing() else catalogue.tasks().get(task)
    return known.without_secrets(args) if known else args


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. Fields that its sender did not set (SQS's own redrive sets none) are empty or 0.

    `id` is the run's, or the message's if the body has no run. `failed_at` is when it was given up; `sent_at` is when
    the run was sent, or the message if the body has no run; `arrived_at` is when SQS received the letter, or, if SQS
    itself moved it, when SQS first received its message (a standard queue keeps that time); in seconds since 1970.
    `receipt` is its current SQS receipt handle. `unsendable` says why it cannot be sent again, if so.
    """

    id: str
    queue: str
    task: str
    error: str
    message: str
    attempts: int
    log: str
    failed_at: At
    sent_at: At
    body: str = field(repr=False)
    message_id: str = ""
    receipt: str = field(default="", repr=False)
    arrived_at: At = 0.0
    unsendable: str = ""

    def has(self, part: str) -> bool:
        """Whether its id, or its message's, begins or ends with `part`."""
        return has_part(self.id, part) or has_part(self.message_id, part)

    @property
    def has_run(self) -> bool:
        """Whether `id` is a run's, and not its message's."""
        return self.id != self.message_id

    @property
    def envelope(self) -> Envelope | None:
        """The envelope in the body; None if there is none."""
        try:
            return decode(self.body)
        except InvalidMessage:
            return None

    @property
    def group(self) -> str:
        """The fairness group it is resent with: see `nexus.envelope`."""
        envelope = self.envelope
        return (envelope.group if envelope else None) or self.task or "unreadable"

    @property
    def args(self) -> Mapping[str, Any] | None:
        envelope = self.envelope
        return envelope.args if envelope else None

    @property
    def shown_args(self) -> Mapping[str, Any] | None:
        """The arguments, with secret values hidden."""
        return None if self.args is None else hidden(self.task, self.args)

    @property
    def shown_body(self) -> Any:
        """The body, parsed if it is JSON, with secret arguments hidden."""
        body: Any = self.body
        with suppress(ValueError):
            body = json.loads(self.body)
        if isinstance(body, dict) and isinstance(body.get("args"), dict):
            body = {**body, "args": hidden(self.task, body["args"])}
        return body


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects letters; all given conditions must hold. Ages are in seconds since the run was given up.

    `error` is a part of the error's type and message, `kind` the full type. `until` leaves out letters that arrived
    after that time (`Letter.arrived_at`): those that a confirmed question did not count.
    """

    ids: frozenset[str] = frozenset()
    task: str | None = None
    error: str | None = None
    older_than: float | None = None
    younger_than: float | None = None
    kind: str | None = None
    until: float | None = None

    def _names(self, letter: Letter) -> bool:
        if len(self.ids) == 1:
            return letter.has(*self.ids)
        return not self.ids.isdisjoint((letter.id, letter.message_id))  # there may be thousands

    def holds(self, letter: Letter, now: float) -> bool:
        """Whether the letter matches. `error` ignores case; a single id may be a prefix or suffix."""
        age = now - letter.failed_at
        return (
            (not self.ids or self._names(letter))
            and self.task in (None, letter.task)
            and (self.error is None or self.error.lower() in f"{letter.error}: {letter.message}".lower())
            and (self.older_than is None or age >= self.older_than)
            and (self.younger_than is None or age <= self.younger_than)
            and self.kind in (None, letter.error)
            and (self.until is None or letter.arrived_at <= self.until)
        )

    @property
    def everything(self) -> bool:
        return self == Filter()


@dataclass(slots=True)
class Outcome:
    """What an action did with its letters."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    examined: int = 0
    by_task: dict[str, int] = field(default_factory=dict)

    def count(self, letter: Letter) -> None:
        self.done += 1
        name = letter.task or "(unreadable)"
        self.by_task[name] = self.by_task.get(name, 0) + 1


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of one task and error; `hours` counts those given up in each of the last 24 hours, and `example` is
    the message of one of them."""

    queue: str
    task: str
    error: str
    count: int
    first_at: At
    last_at: At
    example: str
    hours: tuple[int, ...]


def grouped(letters: Iterable[Letter]) -> list[Group]:
    """Letters by queue, task and error, largest group first. Keeps none of them."""
    now = time.time()
    times: dict[tuple[str, str, str], list[float]] = {}
    examples: dict[tuple[str, str, str], str] = {}
    for letter in letters:
        key = letter.queue, letter.task, letter.error
        times.setdefault(key, []).append(letter.failed_at)
        examples.setdefault(key, letter.message)
    found = []
    for key, failed in times.items():
        ago = Counter(int((now - at) // 3600) for at in failed)
        hours = tuple(ago[n] for n in reversed(range(24)))
        found.append(Group(*key, len(failed), min(failed), max(failed), examples[key], hours))
    return sorted(found, key=lambda group: -group.count)


def counts(queues: Sequence[str]) -> dict[str, int]:
    """The number of dead letters of each queue, as exact as SQS's counts."""
    found = {}
    for queue in queues:
        there = queue_counts(settings().dead_letter_queue_name(queue))
        found[queue] = there.total if there else 0
    return found


def read(
    queue: str, wanted: Filter, limit: int | None = None, on_hidden: Callable[[Problem], None] | None = None
) -> Iterator[Letter]:
    """Yields the letters that match, as they arrive. All become visible again when the iteration ends or fails.

    If AWS denies that, they stay hidden for a while: `on_hidden` is called with that, or it is raised.
    """
    with _Scan(queue, enough=limit, on_hidden=on_hidden) as scan:
        yield from scan.letters(wanted)


class _Scan:
    """One pass over a dead-letter queue in several threads: receives, and releases what is not settled."""

    def __init__(
        self, queue: str, enough: int | None = None, on_hidden: Callable[[Problem], None] | None = None
    ) -> None:
        self.queue = queue
        self._on_hidden = on_hidden
        self.url = queue_url(settings().dead_letter_queue_name(queue))
        self._enough = enough
        self._held: dict[str, str] = {}
        self._rules = _Rules()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        there = queue_counts(settings().dead_letter_queue_name(queue))
        self._hidden_for = min(43_200, HIDDEN_FOR + (there.total if there else 0) // LETTERS_A_SECOND)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        from botocore.exceptions import ClientError

        self._stop.set()
        try:
            self._show_again()
        except ClientError as error:
            problem = explained(error)
            if problem is None or problem.code != ExitCode.DENIED or self._on_hidden is None:
                raise
            what = f"The letters of {self.queue} that were read stay hidden for {self._hidden_for} seconds"
            do = "Showing them again needs sqs:ChangeMessageVisibility."
            self._on_hidden(Problem(what, problem.why, do, ExitCode.DENIED))

    def letters(self, wanted: Filter) -> Iterator[Letter]:
        """Each letter that matches, once."""
        now, given = time.time(), 0
        for page in self.pages():
            for letter in page:
                if wanted.holds(letter, now):
                    yield letter
                    given += 1
                    if self._enough is not None and given >= self._enough:
                        return

    def pages(self) -> Iterator[list[Letter]]:
        """Receives until the queue returns nothing more, eight requests at a time."""
        empty = again = 0
        with Threads(THREADS) as pool:
            # A read slower than the visibility timeout sees the first letters again: one round is enough.
            while empty < 2 and again <= len(self._held) < SCAN_LIMIT and not self._stop.is_set():
                # Short polls query only some of SQS's servers; after an empty round, a long poll queries them all.
                rounds = [pool.submit(self._receive, min(empty, 1)) for _ in range(1 if empty else THREADS)]
                pages = [done.result() for done in rounds]
                letters = [letter for page, _ in pages for letter in page]
                received = sum(count for _, count in pages)
                empty = 0 if received else empty + 1
                again = 0 if letters else again + received
                if letters:
                    yield letters

    def _receive(self, wait: int) -> tuple[list[Letter], int]:
        """(the letters of one request that are new to this read, the number received)."""
        response = client("sqs").receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=self._hidden_for,
            WaitTimeSeconds=wait,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
        )
        found = []
        messages = response.get("Messages", [])
        with self._lock:
            for message in messages:
                # Standard queues occasionally deliver a message twice: the newer receipt is the valid one.
                twice = message["MessageId"] in self._held
                self._held[message["MessageId"]] = message["ReceiptHandle"]
                if not twice:
                    found.append(message)
        return [_letter(self.queue, message, self._rules) for message in found], len(messages)

    def delete(self, letters: Sequence[Letter]) -> dict[str, str]:
        """Deletes up to ten letters. Returns the reason for each id that SQS refused."""
        entries: list[Any] = [
            {"Id": str(n), "ReceiptHandle": self._held[letter.message_id]} for n, letter in enumerate(letters)
        ]
        response = client("sqs").delete_message_batch(QueueUrl=self.url, Entries=entries)
        with self._lock:
            for done in response.get("Successful", []):
                self._held.pop(letters[int(done["Id"])].message_id, None)
        return {letters[int(f["Id"])].id: f.get("Message") or f["Code"] for f in response.get("Failed", [])}

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


def _letter(queue: str, message: Any, rules: "_Rules") -> Letter:
    attributes = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    # The dead letter's SQS timestamp is when it was given up: only the envelope knows when the run was sent.
    taken_at = int(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000
    body, unsendable = message["Body"], ""
    if rule := attributes.get("RULE_ARN"):
        body, unsendable = rules.sends(body, rule.rpartition("/")[2])
    elif "SCHEDULE_ARN" in attributes:
        body = unsent_message(body) or body
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
        # EventBridge and Scheduler use their own attributes for what they could not deliver.
        error=attributes.get("ErrorType") or attributes.get("ERROR_CODE") or REDRIVEN,
        message=attributes.get("ErrorMessage")
        or attributes.get("ERROR_MESSAGE")
        or "moved by SQS after too many receives: no attempt was settled; the function may time out or die",
        attempts=int(attempts) if attempts.isdecimal() else 0,
        log=attributes.get("Log", ""),
        failed_at=_seconds(attributes.get("FailedAt", "")) or taken_at,
        sent_at=sent_at,
        body=body,
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        arrived_at=taken_at,
        unsendable=unsendable,
    )


class _Rules:
    """What rules send: their dead letters hold the original events. Reads each rule once."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, Any] | Problem | None] = {}
        self._lock = threading.Lock()

    def sends(self, event: str, rule: str) -> tuple[str, str]:
        """(what the rule sends for an event, "").

        That is the event itself if the rule no longer exists or has no transformer. If the rule may not be read:
        (the event, why it cannot be sent).
        """
        with self._lock:
            if rule not in self._known:
                self._known[rule] = _transformer(rule)
            transformer = self._known[rule]
        if isinstance(transformer, Problem):
            return event, transformer.what
        return (event if transformer is None else _transformed(event, transformer)), ""


def _transformer(rule: str) -> Mapping[str, Any] | Problem | None:
    """A rule's input transformer; None if it has none or no longer exists; a Problem if AWS denies reading it."""
    from botocore.exceptions import ClientError

    from ops.aws import client as operator_client

    events = operator_client("events")
    try:
        targets = events.list_targets_by_rule(Rule=rule)["Targets"]
    except events.exceptions.ResourceNotFoundException:
        return None
    except ClientError as error:
        problem = explained(error)
        if problem is None or problem.code != ExitCode.DENIED:
            raise
        what = f"it is an event of the rule {rule}: reading what the rule sends for it needs events:ListTargetsByRule"
        return Problem(what, problem.why, code=ExitCode.DENIED)
    return targets[0].get("InputTransformer") if targets else None


def _transformed(event: str, transformer: Mapping[str, Any]) -> str:
    text = str(transformer["InputTemplate"])
    for name, path in transformer.get("InputPathsMap", {}).items():
        value = json.loads(event)
        for part in path.removeprefix("$.").split("."):
            value = value.get(part) if isinstance(value, dict) else None
        # A template quotes text but not JSON.
        quoted = json.dumps(value)
        text = text.replace(f'"<{name}>"', quoted).replace(f"<{name}>", quoted)
    return text


def _seconds(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


# --- actions ---


def retry(queue: str, wanted: Filter, on_progress: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """Resends the letters to their queue, with their ids. A failed run gets all its attempts again."""
    return _each(queue, wanted, lambda letters: _send_again(queue, letters), on_progress)


def drop(queue: str, wanted: Filter, on_progress: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """Deletes the letters individually. Their runs stay FAILURE until their records expire."""
    return _each(queue, wanted, lambda _: {}, on_progress)


def purge(queue: str) -> int | None:
    """Has SQS delete every letter of a queue, including hidden ones. Returns how many there were.

    Letters that arrive within the next minute may be deleted as well. Returns None if SQS refuses, because it purged
    this queue less than a minute ago.
    """
    sqs, name = client("sqs"), settings().dead_letter_queue_name(queue)
    there = queue_counts(name)
    try:
        sqs.purge_queue(QueueUrl=queue_url(name))
    except sqs.exceptions.PurgeQueueInProgress:
        return None
    return there.total if there else 0


def _each(
    queue: str,
    wanted: Filter,
    before: Callable[[Sequence[Letter]], dict[str, str]],
    on_progress: Callable[[Outcome], None],
) -> Outcome:
    """In batches of ten and several threads: calls `before`, then deletes the letters that it did not refuse.

    A resent letter may fail again and come back while this runs: each letter is handled once.
    """
    outcome, lock, now = Outcome(), threading.Lock(), time.time()
    met = set[tuple[str, str]]()

    def work(letters: Sequence[Letter]) -> None:
        refused = before(letters)
        taken = [letter for letter in letters if letter.id not in refused]
        kept = scan.delete(taken) if taken else {}
        with lock:
            outcome.failed |= refused | {i: f"sent, but not deleted: {reason}" for i, reason in kept.items()}
            for letter in taken:
                if letter.id not in kept:
                    outcome.count(letter)
            on_progress(outcome)

    with _Scan(queue) as scan, Threads(THREADS) as pool:
        for page in scan.pages():
            outcome.examined += len(page)
            meant = []
            for letter in page:
                known = (letter.id, "") if letter.has_run else ("", letter.body)
                if wanted.holds(letter, now) and known not in met:
                    met.add(known)
                    meant.append(letter)
            list(pool.map(work, [meant[n : n + 10] for n in range(0, len(meant), 10)]))
            if wanted.ids and outcome.done >= len(wanted.ids):
                break
    return outcome


def _send_again(queue: str, letters: Sequence[Letter], **also: Value) -> dict[str, str]:
    """Sets their runs to PENDING and sends the letters. Returns the reason for each letter that SQS did not accept."""
    unsendable = {letter.id: letter.unsendable for letter in letters if letter.unsendable}
    letters = [letter for letter in letters if not letter.unsendable]
    if not letters:
        return unsendable
    store = backend().store
    outcomes = store.apply_all([send_again(letter.id, **also) for letter in letters])
    # A letter arrives before its run is FAILURE. A resend that early leaves a mark, so that the message is claimed.
    early = frozenset(
        one.id for one, outcome in zip(letters, outcomes, strict=True) if not isinstance(outcome, Applied)
    )
    refused = _send(queue, letters, early)
    for letter, outcome in zip(letters, outcomes, strict=True):
        if letter.id in refused and isinstance(outcome, Applied):
            error = RunError(letter.error, letter.message)
            store.apply(not_sent(letter.id, error, letter.failed_at, attempts=letter.attempts, log=letter.log))
    return unsendable | refused


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
        response = client("sqs").send_message_batch(QueueUrl=queue_url(settings().queue_name(queue)), Entries=page)
        for failed in response.get("Failed", []):
            refused[letters[int(failed["Id"])].id] = failed.get("Message") or failed["Code"]
    return refused


def edit(queue: str, letter_id: str, task: Task[Any, Any], args: Mapping[str, Any]) -> Letter | None:
    """Resends one letter with other arguments and the same id, so that a fan-out that waits for it can succeed.

    Returns None if the letter no longer exists. Raises InvalidMessage if the arguments are invalid, SendFailed if SQS
    fails.
    """
    from nexus.errors import SendFailed

    with _Scan(queue) as scan:
        for letter in scan.letters(Filter(ids=frozenset({letter_id}))):
            envelope = _editable(letter)
            changed = edited(envelope, task, args)
            refused = _send_again(queue, [replace(letter, body=changed.encode())], args=compact(changed.args))
            if refused:
                raise SendFailed(refused)
            scan.delete([letter])
            return letter
    return None


def edit_each(queue: str, wanted: Filter, task: Task[Any, Any], patch: Mapping[str, Any]) -> Outcome:
    """Resends letters of one task, with `patch` applied to each one's arguments: see `patched`.

    A letter whose new arguments are invalid stays, and the outcome says why.
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
    """A letter's envelope with some arguments replaced; null removes one (RFC 7396). Raises InvalidMessage."""
    envelope = _editable(letter)
    args = {name: value for name, value in {**envelope.args, **patch}.items() if value is not None}
    return edited(envelope, task, args)


def _editable(letter: Letter) -> Envelope:
    envelope = letter.envelope
    if envelope is None:
        why = letter.unsendable or "it has no arguments to edit"
        raise InvalidMessage(f"{letter.id} is not a task message: {why}")
    return envelope


def edited(envelope: Envelope, task: Task[Any, Any], args: Mapping[str, Any]) -> Envelope:
    """An envelope with other arguments. An argument kept in S3 stays there unless replaced. Raises InvalidMessage."""
    refs = {name: where for name, where in (envelope.refs or {}).items() if name not in args}
    whole = task.to_send({**{name: payloads.load(where) for name, where in refs.items()}, **args})
    sent = {name: value for name, value in whole.items() if name not in refs}
    return envelope.model_copy(update={"args": sent, "refs": refs or None})


def move_all(queue: str, on_progress: Callable[[int, int | None], None] = lambda _, __: None) -> int | None:
    """Has SQS move every letter back (StartMessageMoveTask). Returns how many, or None if SQS cannot.

    `on_progress` is called with (moved, to be moved) about once a second. Raises Problem if SQS ends the move before
    all are moved.
    """
    from botocore.exceptions import ClientError

    sqs = client("sqs")
    queues = f"arn:{sqs.meta.partition}:sqs:{sqs.meta.region_name}:{settings().account_id}"
    arn, to = f"{queues}:{settings().dead_letter_queue_name(queue)}", f"{queues}:{settings().queue_name(queue)}"
    try:
        # The letters were sent there, not redriven by SQS, so it does not know where they came from.
        sqs.start_message_move_task(SourceArn=arn, DestinationArn=to)
    except ClientError as error:
        # An emulator without the action returns one of these. A move that is already running is reported.
        if error.response.get("Error", {}).get("Code", "") in _UNKNOWN_ACTION:
            return None
        raise
    while True:
        latest = sqs.list_message_move_tasks(SourceArn=arn, MaxResults=1)["Results"][0]
        moved = latest.get("ApproximateNumberOfMessagesMoved", 0)
        on_progress(moved, latest.get("ApproximateNumberOfMessagesToMove"))
        status = latest.get("Status", "")
        if status == "COMPLETED":
            return moved
        if status not in ("RUNNING", "CANCELLING"):
            why = latest.get("FailureReason") or f"SQS reports the move as {status or 'ended'}."
            do = "The others are still dead letters: repeat the command for them."
            raise Problem(f"SQS moved only {moved:,} dead letters of {queue}", why, do)
        time.sleep(1.0)


_UNKNOWN_ACTION = {
    "InvalidAction",
    "AWS.SimpleQueueService.UnsupportedOperation",
    "UnsupportedOperation",
    "UnknownOperationException",
    "NotImplemented",
}


def as_plain(letter: Letter) -> dict[str, Any]:
    """A letter as --json shows it."""
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
        "args": letter.shown_args,
        "body": letter.shown_body,
    }
