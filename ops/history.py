"""The run history: searches runs by task, queue, status, time, error, parent, schedule, arguments or partial id, newest
first, in pages.

An index of the run table (`nexus.runs.history`) gives ids by send time; the records are then read and filtered. A
search that finds little stops after `PATIENCE` seconds and returns where to continue.
"""

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from math import inf, isfinite
from typing import Any, Final

from nexus import clock, periodic
from nexus.aws.dynamodb import Row, from_item, to_attribute
from nexus.aws.sdk import client
from nexus.client import AsyncResult, read_records
from nexus.runs import history, tallies
from nexus.runs.record import RunRecord
from nexus.settings import settings
from nexus.values import compact
from ops import catalogue, live, spans
from ops.aws import in_parallel
from ops.problems import Problem, usage

STATUSES: Final = ("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED")
BADLY: Final = ("FAILURE", "REVOKED")
PATIENCE: Final = 1.5
"""Seconds after which a search returns a page that is not full."""

LONG: Final = 120.0
"""The same for a search that needs all runs that match."""

THREADS: Final = 32
INDEX = "history"
FEW, PAGES = 16, 2
AFTER_THE_END: Final = 60.0
"""Seconds after a run's end within which its follow-up is sent."""

REMEMBERED: Final = 3600.0
"""Seconds until an index that was too large to read whole is tried again."""

_large: Final[dict[str, float]] = {}
"""Until when not to try, by table."""

_ENDLESS: Final = 9_999_999_999.0

SHORTEST, WHOLE = 8, 36
"""The fewest characters of an id to search for, and how many it has."""

FAR: Final = 86_400.0
"""How far back, in seconds, to search for a partial id without a time, unless `since` goes further: a day at ten
million runs a week is 200 MB of the index, a third of a cent."""

_STEPS: Final = (600.0, 7_200.0)
_YEAR: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Query:
    """A search; all given conditions must hold. Times are send times, in seconds since 1970.

    `error` is searched in the error's type and first words, case-sensitively. A value of `args` that ends in * is a
    prefix; any other must be equal. `id` is eight or more of an id's first or last characters. `schedule` is the name
    of a periodic task, or of the task that a rule of the template sends.
    """

    id: str | None = None
    task: str | None = None
    queue: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    error: str | None = None
    parent: str | None = None
    schedule: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)

    def holds(self, record: RunRecord) -> bool:
        """Whether a run matches."""
        return (
            (self.id is None or has_part(record.id, self.id))
            and self.task in (None, record.task)
            and self.queue in (None, record.queue)
            and self.status in (None, record.status)
            and (self.since is None or (record.sent_at or 0) >= self.since)
            and (self.until is None or (record.sent_at or 0) <= self.until)
            and (self.error is None or (record.error is not None and self.error in history.reason(record.error)))
            and self.parent in (None, record.parent)
            and (self.schedule is None or _is_of(self.schedule, record))
            and all(_fits(wanted, (record.args or {}).get(name)) for name, wanted in self.args.items())
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A page of runs. `after` is the cursor of the next page, None at the end; `examined` counts the records read."""

    runs: tuple[RunRecord, ...]
    after: str | None
    examined: int


def has_part(run_id: str, part: str) -> bool:
    """Whether an id begins or ends with `part`."""
    return run_id.startswith(part) or run_id.endswith(part)


def is_part(text: str) -> bool:
    """Whether the text can be the start or end of an id and is long enough."""
    return len(text) >= SHORTEST and not set(text) - set("0123456789abcdef-")


def _is_of(schedule: str, record: RunRecord) -> bool:
    """Whether a schedule of this name started the run: its rule's message says so, or its id is that of a firing."""
    if record.origin == "rule":
        return record.task == schedule
    return record.id == periodic.run_id(schedule, clock.date(record.sent_at or 0))


def _fits(wanted: str, value: Any) -> bool:
    text = value if isinstance(value, str) else compact(value)
    if value is None:
        return False
    return text.startswith(wanted[:-1]) if wanted.endswith("*") else text == wanted


class NotKept(Problem):
    """The deployment keeps no run history."""


# --- parsing ---


def parse(text: str) -> Query:
    """Parses a typed query: `task:x status:failure since:2h user_id=u-1 error:"timed out"`. Raises Problem if invalid.

    A bare word is a partial id if it can be one, else a task's name.
    """
    return _of_words(_words(text))


def parse_words(given: Sequence[str]) -> Query:
    """Parses the words of a command line. Raises Problem if invalid.

    The shell has removed the quotation marks of `error:"timed out"`: a word that begins with a filter and has spaces is
    that one filter, unless each of its parts is one.
    """
    words: list[str] = []
    for word in given:
        parts = _words(word) if set(word) & set("\"'\\") else word.split()
        words += parts if all(_mark(part) for part in parts) or not _mark(parts[0]) else [word]
    return _of_words(words)


def _words(text: str) -> list[str]:
    import shlex

    try:
        return shlex.split(text, posix=True)
    except ValueError:
        raise usage("A quotation mark is not closed", do='Write one that is meant as \\".') from None


def _mark(word: str) -> str:
    return next((character for character in word if character in ":="), "")


def _of_words(words: Sequence[str]) -> Query:
    named: dict[str, str | None] = {}
    args: dict[str, str] = {}
    for word in words:
        mark = _mark(word)
        alone = "id" if is_part(word.lower()) else "task"
        name, _, value = word.partition(mark) if mark else (alone, "", word)
        filters: dict[str, Any] = args if mark == "=" else named
        if name in filters:
            raise usage(f"{name} is given twice", "A run has to match every filter.")
        filters[name] = value
    return query(named, args)


def query(given: Mapping[str, str | None], args: Mapping[str, str]) -> Query:
    """A query from text fields: those of Query but `args`. Raises Problem if invalid."""
    named = {name: value for name, value in given.items() if value}
    known = ("id", "task", "queue", "status", "since", "until", "error", "parent", "schedule")
    if unknown := [name for name in named if name not in known]:
        raise usage(f"There is no filter {unknown[0]!r}", do=f"There are: {', '.join(known)}; and name=value.")
    status = named.get("status", "").upper() or None
    if status not in (None, *STATUSES):
        raise usage(f"{named['status']!r} is not a status", do=f"There are: {', '.join(STATUSES).lower()}.")
    part = named.get("id", "").lower() or None
    if part is not None and not is_part(part):
        raise usage(f"{part!r} is not part of an id", f"Its first or last {SHORTEST} characters or more are needed.")
    return Query(
        id=part,
        task=named.get("task"),
        queue=named.get("queue"),
        status=status,
        since=spans.since(named["since"]) if "since" in named else None,
        until=spans.since(named["until"]) if "until" in named else None,
        error=named.get("error"),
        parent=named.get("parent"),
        schedule=named.get("schedule"),
        args=dict(args),
    )


def both(one: Query, other: Query) -> Query:
    """Merges two queries; where both set a filter, the second wins."""
    override = {name: value for name in one.__slots__ if (value := getattr(other, name)) not in (None, {})}
    return replace(one, **{**override, "args": {**one.args, **other.args}})


# --- finding ---


def find(wanted: Query, limit: int = 50, after: str | None = None, patience: float = PATIENCE) -> Found:
    """A page of the runs that match, newest first; `after` is an earlier page's cursor. Raises Problem."""
    place = _place(after)
    top = wanted.until if place is None else min(place[0], _ENDLESS if wanted.until is None else wanted.until)
    deadline = time.monotonic() + patience
    entries = (entry for entry in _entries(wanted, top, limit, deadline) if place is None or entry < place)
    found: list[RunRecord] = []
    examined, size = 0, limit
    while page := list(islice(entries, size)):
        for record in read_records([AsyncResult(run_id) for _, run_id in page if run_id]):
            examined += 1
            if record.status != "UNKNOWN" and wanted.holds(record):
                found.append(record)
                if len(found) == limit:
                    return Found(tuple(found), _cursor(record), examined)
        if time.monotonic() > deadline:
            return Found(tuple(found), f"{page[-1][0]:.3f}/{page[-1][1]}", examined)
        size = min(1000, size * 4)
    return Found(tuple(found), None, examined)


def every(wanted: Query, most: int) -> list[RunRecord]:
    """All runs that match, up to `most`. Raises Problem if it takes too long to find them."""
    found = find(wanted, most, patience=LONG)
    if found.after is not None and len(found.runs) < most:
        why = f"{found.examined:,} runs were read in two minutes, and {len(found.runs):,} of them match."
        raise Problem("The search takes too long", why, "Add a filter: since, task, or an indexed argument.")
    return list(found.runs)


def over(wanted: Query, take: Callable[[Sequence[Row]], None]) -> None:
    """Calls `take` with the index's rows for a query by task, queue and time, in unordered pages: `id`, `task` and
    `sent_at` of each run, in DynamoDB's own JSON. Reads no record. Calls `take` from several threads."""
    partitions = _partitions(wanted)
    pages = _first_pages(PAGES)
    if pages is not None:
        keys, low, high = {one.key for one in partitions}, wanted.since or 0, wanted.until or _ENDLESS
        found = [item for page in pages for item in page if item["history"]["S"] in keys]
        take([item for item in found if low <= float(item["sent_at"]["N"]) <= high])
        return
    in_parallel(lambda one: one.over(take), partitions, THREADS)


def _cursor(record: RunRecord) -> str:
    return f"{record.sent_at or 0:.3f}/{record.id}"


def _place(after: str | None) -> tuple[float, str] | None:
    if not after:
        return None
    at, slash, run_id = after.partition("/")
    try:
        return (float(at), run_id) if slash and isfinite(float(at)) else _no_place(after)
    except ValueError:
        return _no_place(after)


def _no_place(after: str) -> tuple[float, str]:
    raise usage(f"{after!r} is not a position in the history", "Use a page's `next`.")


type Entry = tuple[float, str]
"""When a run was sent, and its id; without an id, the time to which the index has been read."""


def _entries(wanted: Query, top: float | None, limit: int, deadline: float) -> Iterator[Entry]:
    """The index entries for a query, newest first: a superset of the matches. The last, after the deadline, has no id
    if the index holds more."""
    if wanted.id is not None and len(wanted.id) == WHOLE:
        yield from _sorted([AsyncResult[Any](wanted.id).record()], top)
        return
    if wanted.parent is not None:
        parent = AsyncResult[Any](wanted.parent).record()
        if parent.fanned_out:
            yield from _sorted(_members(parent), top)
            return
        start, end = parent.started_at or parent.sent_at, parent.ended_at
        wanted = replace(wanted, since=max(wanted.since or 0, (start or 0) - 1))
        if end is not None:
            top = min(top or _ENDLESS, end + AFTER_THE_END)
    if wanted.status in ("STARTED", "RETRY"):
        running = live.runs(catalogue.queues(), limit=10_000, details=False).runs
        records = read_records([AsyncResult(run.id) for run in running])
        yield from _sorted([*records, *live.parents(records)], top)
        return
    wanted = replace(wanted, until=top)
    if wanted.id is None:
        yield from _indexed(wanted, limit, deadline)
        return
    for since, until in _spans(wanted):
        found = [
            one for one in _indexed(replace(wanted, since=since, until=until), limit) if has_part(one[1], wanted.id)
        ]
        yield from found
        if found:
            return


def _spans(wanted: Query) -> Iterator[tuple[float, float]]:
    """The time spans to search for a partial id: around its time if it starts with one, then further and further back.

    The first 48 bits of a UUIDv7 are milliseconds since 1970 (RFC 9562); the first 32 of them resolve to 65 seconds.
    """
    now, end = time.time(), _ENDLESS if wanted.until is None else wanted.until
    sent = int(str(wanted.id).replace("-", "")[:8], 16) * 2**16 / 1000
    if now - _YEAR < sent < now + 86_400:
        yield max(wanted.since or 0, sent - 60), min(end, sent + 3600)
    first = now - FAR if wanted.since is None else wanted.since
    for start in (now - step for step in _STEPS if now - step > first):
        yield start, end
    yield first, end


def _indexed(wanted: Query, limit: int, deadline: float = inf) -> Iterator[Entry]:
    """The entries of every partition that may have matches, newest first."""
    partitions = _partitions(wanted)
    items = _scanned({one.key for one in partitions}, wanted) if len(partitions) > FEW else None
    if items is None:
        items = _merged(partitions, limit, deadline, _ENDLESS if wanted.until is None else wanted.until)
    # An index has no order within one millisecond, and a page may end there.
    for sent_at, together in groupby(items, key=lambda item: float(item["sent_at"])):
        # A run that fails meanwhile moves to another partition, and is read in both.
        yield from sorted({(sent_at, str(item["id"])) for item in together}, reverse=True)


def _members(record: RunRecord) -> list[RunRecord]:
    """The members of a waiting run, of both phases. Its record no longer says how many the first phase had."""
    found = read_records([AsyncResult(run_id) for run_id in tallies.children(record)])
    for chunk in range(tallies.chunks(tallies.LIMIT) if record.phase > 1 else 0):
        ids = [tallies.member(record.id, 1, chunk * tallies.CHUNK + n) for n in range(tallies.CHUNK)]
        page = read_records([AsyncResult(run_id) for run_id in ids])
        found += page
        if all(one.status == "UNKNOWN" for one in page):
            break
    return found


def _sorted(records: Sequence[RunRecord], top: float | None) -> list[Entry]:
    entries = {(record.sent_at or 0.0, record.id) for record in records if record.status != "UNKNOWN"}
    return sorted((entry for entry in entries if top is None or entry[0] <= top), reverse=True)


def _partitions(wanted: Query) -> list["_Partition"]:
    """The partitions of the index that may have matches."""
    found: list[_Partition] = []
    tasks = _tasks(wanted)
    given = {name: value for name, value in wanted.args.items() if not value.endswith("*")}
    whole = {key: name for name in given if (key := history.argument([name], given)) is not None}
    leading = {t: next((arg for arg, name in whole.items() if _leads(task, name)), None) for t, task in tasks.items()}
    for name, task in tasks.items():
        if wanted.status in BADLY or wanted.error:
            break
        argument = leading[name]
        if argument is not None:
            found.append(_Partition(history.of_argument(name, argument), wanted, argument))
        elif all(task is None or arg in task.arguments.model_fields for arg in wanted.args):
            keys = [*history.shards(name), *(history.argument_shards(name) if _may_have(task) else ())]
            found += [_Partition(key, wanted) for key in keys]
    if wanted.status != "SUCCESS":
        # Failures of all tasks share partitions. Filter by argument only if every task that has it indexes it.
        having = {leading[t] for t, task in tasks.items() if any(_has(task, name) for name in whole.values())}
        argument = having.pop() if len(having) == 1 else None
        for status in (wanted.status,) if wanted.status in BADLY else BADLY:
            found += [_Partition(key, wanted, argument) for key in history.shards(str(status))]
    return found


def _tasks(wanted: Query) -> dict[str, Any]:
    """The tasks that may match, and groups, which are runs without a task."""
    known: dict[str, Any] = {**catalogue.tasks(), tallies.GROUP: None}
    if wanted.task is not None:
        return {wanted.task: known.get(wanted.task)}
    if wanted.queue is not None:
        return {name: task for name, task in known.items() if task is not None and task.served_by(wanted.queue)}
    return known


def _leads(task: Any, name: str) -> bool:
    """Whether every run of a task with this argument is in the partition of the argument's value."""
    return task is not None and name == next((a for a in task.searchable if a in task.arguments.model_fields), None)


def _has(task: Any, name: str) -> bool:
    return task is not None and name in task.arguments.model_fields


def _may_have(task: Any) -> bool:
    """Whether a task's runs may have a searchable argument; True for a task that is no longer in the catalogue."""
    return task is None or any(name in task.arguments.model_fields for name in task.searchable)


class _Partition:
    """One partition of the index, newest first, read on demand."""

    def __init__(self, key: str, wanted: Query, argument: str | None = None) -> None:
        self.key = key
        self.items: list[Mapping[str, Any]] = []
        low, high = wanted.since or 0, _ENDLESS if wanted.until is None else wanted.until
        self.more = low <= high  # DynamoDB refuses a span that ends before it begins
        values: dict[str, Any] = {":p": key, ":low": low, ":high": high}
        task = wanted.task if key.startswith(BADLY) else None
        named = {"task": task, "argument": argument, "why": wanted.error, "id": wanted.id}
        filters = {name: value for name, value in named.items() if value is not None}
        self._request: dict[str, Any] = {
            "TableName": settings().table("task-runs"),
            "IndexName": INDEX,
            "KeyConditionExpression": "history = :p AND sent_at BETWEEN :low AND :high",
            "ScanIndexForward": False,
        }
        if filters:
            holds = [f"contains(#{n}, :{n})" if n in ("why", "id") else f"#{n} = :{n}" for n in filters]
            self._request["FilterExpression"] = " AND ".join(holds)
            self._request["ExpressionAttributeNames"] = {f"#{name}": name for name in filters}
            values |= {f":{name}": value for name, value in filters.items()}
        self._request["ExpressionAttributeValues"] = {name: to_attribute(value) for name, value in values.items()}

    @property
    def blank(self) -> bool:
        """Whether its only entry is the place to which it has been read: none matched its filter."""
        return bool(self.items) and not self.items[-1]["id"]

    def fill(self, limit: int = 1000) -> None:
        """Reads a page, if there is no entry."""
        if self.blank:
            self.items.clear()
        if not self.more or self.items:
            return
        # DynamoDB applies a page's limit before the filter.
        request = self._request if "FilterExpression" in self._request else {**self._request, "Limit": limit}
        response = _asked("query", request)
        self.items = [from_item(item) for item in reversed(response["Items"])]
        self.more = "LastEvaluatedKey" in response
        if self.more:
            last = self._request["ExclusiveStartKey"] = response["LastEvaluatedKey"]
            # The next page may have others of that millisecond.
            self.items = self.items or [{"id": "", "sent_at": round(float(last["sent_at"]["N"]) + 0.001, 3)}]

    def over(self, take: Callable[[Sequence[Row]], None]) -> None:
        """Calls `take` with every page."""
        names = {f"#{name}": name for name in ("id", "task", "sent_at")}
        self._request["ProjectionExpression"] = ", ".join(names)
        self._request["ExpressionAttributeNames"] = {**self._request.get("ExpressionAttributeNames", {}), **names}
        while self.more:
            response = _asked("query", self._request)
            take(response["Items"])
            self.more = "LastEvaluatedKey" in response
            if self.more:
                self._request["ExclusiveStartKey"] = response["LastEvaluatedKey"]


_NO_INDEX = ("ValidationException", "ResourceNotFoundException")
"""The codes for a read of an index that does not exist or is being filled: DynamoDB uses the first and documents the
second, which is also that of a missing table."""


def _asked(operation: str, request: Mapping[str, Any]) -> Any:
    from botocore.exceptions import ClientError

    try:
        return getattr(client("dynamodb"), operation)(**request)
    except ClientError as error:
        about = error.response["Error"]
        # A denied or throttled read names the index too, and a stack may be called index.
        message = about.get("Message", "").replace(request["TableName"], "")
        if about["Code"] not in _NO_INDEX or "index" not in message:
            raise
        why = "The stack's parameter RunHistory is off, or the index is still being created."
        do = "Set RunHistory=on in samconfig.toml and deploy (docs/deploy.md)."
        raise NotKept("The run history is not kept here", why, do) from None


def _first_pages(most: int) -> list[Sequence[Row]] | None:
    """The whole index if it has at most `most` pages; None if it has more.

    A small index is read in one request instead of one for each empty partition.
    """
    pages: list[Sequence[Row]] = []
    request: dict[str, Any] = {"TableName": settings().table("task-runs"), "IndexName": INDEX}
    for _ in range(most):
        response = _asked("scan", request)
        pages.append(response["Items"])
        if "LastEvaluatedKey" not in response:
            return pages
        request["ExclusiveStartKey"] = response["LastEvaluatedKey"]
    return None


def _scanned(keys: AbstractSet[str], wanted: Query) -> Iterator[Mapping[str, Any]] | None:
    """These partitions' items from a scan of the index, if it is a page or two; None if it is more."""
    table = settings().table("task-runs")
    if time.monotonic() < _large.get(table, 0.0):
        return None
    pages = _first_pages(PAGES)
    if pages is None:
        _large[table] = time.monotonic() + REMEMBERED
        return None
    found = [from_item(item) for page in pages for item in page if item["history"]["S"] in keys]
    low, high = wanted.since or 0, _ENDLESS if wanted.until is None else wanted.until
    within = [item for item in found if low <= float(item["sent_at"]) <= high]
    return iter(sorted(within, key=lambda item: -float(item["sent_at"])))


def _merged(partitions: Sequence[_Partition], limit: int, deadline: float, top: float) -> Iterator[Mapping[str, Any]]:
    """The items of all partitions from `top` on, newest first; after the deadline, the place to which all were read.

    That is past `top`, so that the next search gets further, and not before an item that has been given.
    """
    size = max(8, min(limit, 4 * limit // max(1, len(partitions))))
    in_parallel(lambda one: one.fill(size), partitions, THREADS)
    heap = [_key(one, n) for n, one in enumerate(partitions) if one.items]
    heapq.heapify(heap)
    last = top
    while heap:
        *_, n = heapq.heappop(heap)
        one = partitions[n]
        at = float(one.items[-1]["sent_at"])
        if one.blank:
            if time.monotonic() > deadline and at < top and at <= last:
                yield one.items.pop()
                return
            in_parallel(_Partition.fill, [other for other in partitions if other.blank], THREADS)
            heap = [_key(other, m) for m, other in enumerate(partitions) if other.items]
            heapq.heapify(heap)
            continue
        last = at
        yield one.items.pop()
        if not one.items:
            size = min(1000, 2 * size)
            one.fill(size)
        if one.items:
            heapq.heappush(heap, _key(one, n))


def _key(one: _Partition, n: int) -> tuple[float, bool, int]:
    """The order of the partitions' next items: the newest first, and of one time those that are runs."""
    return -float(one.items[-1]["sent_at"]), one.blank, n
