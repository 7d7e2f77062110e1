"""What every repository stands on: requests to one DynamoDB table, paged, retried when throttled, and metered.

Items stay DynamoDB's own JSON ({"user_id": {"S": "u"}}, see nexus.plain_answers) until a repository reads the
attributes that it needs: building Python objects of every attribute is nine tenths of what a scan costs. `read_text`
and its siblings raise BadRow for what is missing or of the wrong type, so that a sweep can count the row, log its key
and go on.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from nexus.aws import CONNECTIONS, client
from nexus.errors import NexusError
from nexus.settings import settings

try:
    from orjson import dumps
except ImportError:  # a web application has boto3 and pydantic alone

    def dumps(value: Any, /) -> bytes:  # type: ignore[misc]
        """As orjson's."""
        return json.dumps(value, separators=(",", ":")).encode()


type Attribute = Mapping[str, Any]
type Item = Mapping[str, Attribute]
type Value = str | int | float | bool | Sequence["Value"] | Mapping[str, "Value"] | None

ITEMS_PER_READ = 100
ITEMS_PER_WRITE = 25
STATEMENTS_PER_REQUEST = 25

# A throttled request was not carried out. The SDK has tried five times when one of these comes up here.
THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ProvisionedThroughputExceeded",
        "ThrottlingException",
        "ThrottlingError",
        "RequestLimitExceeded",
        "InternalServerError",
        "TransactionConflict",
        "TransactionConflictException",
    }
)
MAX_TRIES = 12
FIRST_WAIT = 0.05
LONGEST_WAIT = 5.0


class BadRow(NexusError):
    """An item that cannot be read: `key` names it, the message says which attribute is at fault and why."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class Throttled(NexusError):
    """DynamoDB refused the same request for half a minute. Nothing of it was carried out: try the run again later."""


@dataclass(slots=True)
class Meter:
    """What was asked of DynamoDB, as DynamoDB counted it. Safe to share between threads.

    `requests` are those that were answered, `throttled` the refusals and unprocessed remainders among them;
    units are request units, a read of 4 KiB (eventually consistent: half) and a write of 1 KiB, indexes included.
    """

    requests: int = 0
    throttled: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, operation: str, answer: Mapping[str, Any]) -> None:
        capacity = answer.get("ConsumedCapacity") or ()
        units = sum(
            one.get("CapacityUnits", 0.0) for one in ([capacity] if isinstance(capacity, Mapping) else capacity)
        )
        with self._lock:
            self.requests += 1
            if operation in _READS:
                self.read_units += units
            else:
                self.write_units += units

    def refused(self) -> None:
        with self._lock:
            self.requests += 1
            self.throttled += 1


_METERED = {"ReturnConsumedCapacity": "TOTAL"}
_UNMETERED = frozenset({"describe_table"})
_READS = frozenset({"get_item", "batch_get_item", "query", "scan"})


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a Query or Scan. `next_key` continues after it; None at the end. `scanned` is before filters."""

    items: Sequence[Item]
    scanned: int
    next_key: Item | None


@dataclass(frozen=True, slots=True)
class Test:
    """Something that must hold for a write to happen. An absent attribute holds only `missing`."""

    __test__ = False  # not one of pytest's

    attribute: str
    operator: Literal["=", "<", "<=", ">", "missing", "exists"]
    value: Value = None


@dataclass(frozen=True, slots=True)
class Change:
    """One update of the item at `key`: attributes to set, remove and add to, if every test of `when` holds."""

    key: Mapping[str, str]
    set: Mapping[str, Value] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    add: Mapping[str, int] = field(default_factory=dict)
    when: tuple[Test, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The table of one entity. `key` names its key attributes, the partition key first.

    Every method raises Throttled when DynamoDB keeps refusing, and botocore's ClientError for what only an operator can
    mend (a missing table, a denied permission).
    """

    entity: str
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        return settings().table(self.entity)

    def size(self, index: str | None = None, *, meter: Meter | None = None) -> tuple[int, int]:
        """(items, bytes) of the table, or of one of its indexes. DynamoDB brings them up to date every six hours."""
        described = call("describe_table", meter, TableName=self.name)["Table"]
        if index is None:
            return described.get("ItemCount", 0), described.get("TableSizeBytes", 0)
        for one in described.get("GlobalSecondaryIndexes", ()):
            if one["IndexName"] == index:
                return one.get("ItemCount", 0), one.get("IndexSizeBytes", 0)
        raise LookupError(f"{self.name}: no index {index}")

    def get(
        self,
        key: Mapping[str, str],
        *,
        attributes: Sequence[str] = (),
        consistent: bool = False,
        meter: Meter | None = None,
    ) -> Item | None:
        """The item at `key`, or None."""
        parameters = _projected(attributes)
        answer = call("get_item", meter, TableName=self.name, Key=to_item(key), ConsistentRead=consistent, **parameters)
        return answer.get("Item")

    def get_many(
        self,
        keys: Sequence[Mapping[str, str]],
        *,
        attributes: Sequence[str] = (),
        consistent: bool = False,
        meter: Meter | None = None,
        threads: int = 1,
    ) -> Iterator[Item]:
        """Those of the items at `keys` (no two alike) that exist, in no order; a request for each 100."""
        pages = [keys[start : start + ITEMS_PER_READ] for start in range(0, len(keys), ITEMS_PER_READ)]

        def read(page: Sequence[Mapping[str, str]]) -> list[Item]:
            return self._get_page(page, attributes, consistent, meter)

        for items in in_threads(read, pages, threads):
            yield from items

    def _get_page(
        self, keys: Sequence[Mapping[str, str]], attributes: Sequence[str], consistent: bool, meter: Meter | None
    ) -> list[Item]:
        found: list[Item] = []
        request: dict[str, Any] = {
            "Keys": [to_item(key) for key in keys],
            "ConsistentRead": consistent,
            **_projected(attributes),
        }
        for wait in _waits(meter):
            answer = call("batch_get_item", meter, RequestItems={self.name: request})
            found += answer["Responses"].get(self.name, ())
            left = (answer.get("UnprocessedKeys") or {}).get(self.name)
            if not left:
                return found
            request = left
            wait()
        raise Throttled(f"{self.name}: {len(request['Keys'])} keys still unprocessed")

    def query(
        self,
        partition: str,
        *,
        index: str | None = None,
        key: tuple[str, ...] | None = None,
        between: tuple[Value, Value] | None = None,
        attributes: Sequence[str] = (),
        newest_first: bool = False,
        consistent: bool = False,
        limit: int | None = None,
        start: Item | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Page]:
        """The pages of one partition, in order of the sort key; `between` bounds the sort key, both ends included.

        `key` names the index's key attributes when `index` is given; `limit` bounds the items of one page.
        """
        names = key or self.key
        aliases = {"#p": names[0]}
        values: dict[str, Any] = {":p": {"S": partition}}
        condition = "#p = :p"
        if between is not None:
            aliases["#s"] = names[1]
            values |= {":low": to_attribute(between[0]), ":high": to_attribute(between[1])}
            condition += " AND #s BETWEEN :low AND :high"
        projection = _projected(attributes)
        parameters: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not newest_first,
            **projection,
            "ExpressionAttributeNames": aliases | projection.get("ExpressionAttributeNames", {}),
        }
        if index:
            parameters["IndexName"] = index
        elif consistent:
            parameters["ConsistentRead"] = True
        if limit:
            parameters["Limit"] = limit
        yield from _pages("query", parameters, start, meter)

    def count(
        self,
        partition: str,
        *,
        index: str | None = None,
        key: tuple[str, ...] | None = None,
        start: Item | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Page]:
        """The pages of one partition with their counts (`scanned`) alone and no items."""
        names = key or self.key
        parameters: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": "#p = :p",
            "ExpressionAttributeNames": {"#p": names[0]},
            "ExpressionAttributeValues": {":p": {"S": partition}},
            "Select": "COUNT",
        }
        if index:
            parameters["IndexName"] = index
        yield from _pages("query", parameters, start, meter)

    def scan(
        self,
        *,
        index: str | None = None,
        segment: int = 0,
        total: int = 1,
        attributes: Sequence[str] = (),
        limit: int | None = None,
        start: Item | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Page]:
        """The pages of one segment of a parallel scan: all items of a partition key are in one segment, in a row."""
        parameters: dict[str, Any] = {"TableName": self.name, **_projected(attributes)}
        if total > 1:
            parameters |= {"Segment": segment, "TotalSegments": total}
        if index:
            parameters["IndexName"] = index
        if limit:
            parameters["Limit"] = limit
        yield from _pages("scan", parameters, start, meter)

    def put_request(self, values: Mapping[str, Value], *, new: bool = False) -> dict[str, Any]:
        """The item as PutItem's parameters, which are also those of a Put in TransactWriteItems."""
        request: dict[str, Any] = {"TableName": self.name, "Item": to_item(values)}
        if new:
            request |= {
                "ConditionExpression": "attribute_not_exists(#p)",
                "ExpressionAttributeNames": {"#p": self.key[0]},
            }
        return request

    def put(self, values: Mapping[str, Value], *, new: bool = False, meter: Meter | None = None) -> bool:
        """Writes the item; with `new`, only if there is none at its key. False when there was."""
        return _conditional("put_item", meter, self.put_request(values, new=new))

    def put_item(self, item: Item, *, new: bool = False, meter: Meter | None = None) -> bool:
        """As `put`, an item in DynamoDB's JSON: one that was read is written back as it was."""
        return _conditional("put_item", meter, self.put_request({}, new=new) | {"Item": item})

    def update(self, change: Change, *, create: bool = False, meter: Meter | None = None) -> bool:
        """Makes the change. False when a test did not hold, or (unless `create`) when there is no such item."""
        return _conditional("update_item", meter, self.update_request(change, create=create))

    def update_request(self, change: Change, *, create: bool = False) -> dict[str, Any]:
        """The change as UpdateItem's parameters, which are also those of an Update in TransactWriteItems."""
        terms = _Expressions()
        clauses = []
        if change.set:
            clauses.append("SET " + ", ".join(f"{terms.name(a)} = {terms.value(v)}" for a, v in change.set.items()))
        if change.remove:
            clauses.append("REMOVE " + ", ".join(terms.name(a) for a in change.remove))
        if change.add:
            clauses.append("ADD " + ", ".join(f"{terms.name(a)} {terms.value(v)}" for a, v in change.add.items()))
        when = change.when if create else (Test(self.key[0], "exists"), *change.when)
        return {
            "TableName": self.name,
            "Key": to_item(change.key),
            "UpdateExpression": " ".join(clauses),
            **terms.condition(when),
        }

    def delete(self, key: Mapping[str, str], *, when: tuple[Test, ...] = (), meter: Meter | None = None) -> bool:
        """Removes the item; False when a test did not hold. Without tests an absent item is as good as removed."""
        return _conditional("delete_item", meter, self.delete_request(key, when=when))

    def delete_request(self, key: Mapping[str, str], *, when: tuple[Test, ...] = ()) -> dict[str, Any]:
        """The removal as DeleteItem's parameters, which are also those of a Delete in TransactWriteItems."""
        return {"TableName": self.name, "Key": to_item(key), **_Expressions().condition(when)}

    def put_many(self, items: Iterable[Mapping[str, Value]], *, meter: Meter | None = None, threads: int = 1) -> int:
        """Writes the items (no two of one key), replacing what is there; a request for each 25. Returns how many."""
        return self._write_many([{"PutRequest": {"Item": to_item(item)}} for item in items], meter, threads)

    def put_items(self, items: Iterable[Item], *, meter: Meter | None = None, threads: int = 1) -> int:
        """As `put_many`, items in DynamoDB's JSON."""
        return self._write_many([{"PutRequest": {"Item": item}} for item in items], meter, threads)

    def delete_many(self, keys: Iterable[Mapping[str, str]], *, meter: Meter | None = None, threads: int = 1) -> int:
        """Removes the items at `keys` (no two alike) whatever they hold; a request for each 25. Returns how many."""
        return self._write_many([{"DeleteRequest": {"Key": to_item(key)}} for key in keys], meter, threads)

    def _write_many(self, writes: Sequence[Mapping[str, Any]], meter: Meter | None, threads: int) -> int:
        pages = [writes[start : start + ITEMS_PER_WRITE] for start in range(0, len(writes), ITEMS_PER_WRITE)]

        def write(page: Sequence[Mapping[str, Any]]) -> int:
            left: Sequence[Mapping[str, Any]] = page
            for wait in _waits(meter):
                answer = call("batch_write_item", meter, RequestItems={self.name: left})
                left = (answer.get("UnprocessedItems") or {}).get(self.name, ())
                if not left:
                    return len(page)
                wait()
            raise Throttled(f"{self.name}: {len(left)} writes still unprocessed")

        return sum(in_threads(write, pages, threads))

    def update_many(self, changes: Sequence[Change], *, meter: Meter | None = None, threads: int = 1) -> list[bool]:
        """Makes each change (no two of one item) by itself, 25 a request; True where it was made.

        False means what it means for `update`: a test did not hold, or there is no such item.
        """
        pages = [
            changes[start : start + STATEMENTS_PER_REQUEST] for start in range(0, len(changes), STATEMENTS_PER_REQUEST)
        ]
        made = in_threads(lambda page: self._update_page(page, meter), pages, threads)
        return [one for page in made for one in page]

    def delete_each(
        self, keys: Sequence[Mapping[str, str]], *, when: tuple[Test, ...], meter: Meter | None = None, threads: int = 1
    ) -> list[bool]:
        """Removes each item (no two alike) for which the tests hold, 25 a request; True where it was removed."""
        return self.update_many([Change(key, when=when) for key in keys], meter=meter, threads=threads)

    def _update_page(self, changes: Sequence[Change], meter: Meter | None) -> list[bool]:
        made = [False] * len(changes)
        waiting = list(range(len(changes)))
        for wait in _waits(meter):
            statements = [self._statement(changes[place]) for place in waiting]
            answers = call("batch_execute_statement", meter, Statements=statements)["Responses"]
            again: list[int] = []
            for place, answer in zip(waiting, answers, strict=True):
                error = answer.get("Error")
                if error is None:
                    made[place] = True
                elif error["Code"] in THROTTLES:
                    again.append(place)
                elif error["Code"] != "ConditionalCheckFailed":
                    raise RuntimeError(
                        f"{self.name} {dict(changes[place].key)}: {error['Code']}: {error.get('Message')}"
                    )
            if not again:
                return made
            waiting = again
            wait()
        raise Throttled(f"{self.name}: {len(waiting)} updates still refused")

    def _statement(self, change: Change) -> dict[str, Any]:
        if change.add:
            raise ValueError("PartiQL has no ADD that makes an absent number: use update")
        tests = tuple((test.attribute, test.operator) for test in change.when)
        text = _partiql(self.name, tuple(change.key), tuple(change.set), change.remove, tests)
        parameters = [to_attribute(value) for value in change.set.values()]
        parameters += [{"S": value} for value in change.key.values()]
        parameters += [to_attribute(test.value) for test in change.when if test.operator in _PARTIQL_COMPARED]
        return {"Statement": text, "Parameters": parameters}


_PARTIQL_COMPARED = ("=", "<", "<=", ">")


@lru_cache(maxsize=64)
def _partiql(
    table: str, key: tuple[str, ...], set_: tuple[str, ...], remove: tuple[str, ...], tests: tuple[tuple[str, str], ...]
) -> str:
    """A conditional write in DynamoDB's PartiQL, whose UPDATE never makes an item; no change at all is a DELETE."""
    where = [f'"{name}" = ?' for name in key]
    for attribute, operator in tests:
        if operator in _PARTIQL_COMPARED:
            where.append(f'"{attribute}" {operator} ?')
        else:
            where.append(f'"{attribute}" IS {"MISSING" if operator == "missing" else "NOT MISSING"}')
    changes = [*(f'SET "{name}" = ?' for name in set_), *(f'REMOVE "{name}"' for name in remove)]
    if not changes:
        return f'DELETE FROM "{table}" WHERE {" AND ".join(where)}'  # noqa: S608 - names are this package's own
    return f'UPDATE "{table}" {" ".join(changes)} WHERE {" AND ".join(where)}'


def transact(actions: Sequence[Mapping[str, Any]], token: str | None = None, *, meter: Meter | None = None) -> bool:
    """All of the writes or none of them; False when a condition did not hold. `token` makes a repeat one and the same.

    An action is an element of TransactWriteItems, e.g. {"Update": table.update_request(change)}; at most 100.
    """
    parameters: dict[str, Any] = {"TransactItems": list(actions)}
    if token:
        parameters["ClientRequestToken"] = token
    from botocore.exceptions import ClientError

    for wait in _waits(meter):
        try:
            call("transact_write_items", meter, **parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] != "TransactionCanceledException":
                raise
            reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", ())} - {"None", None}
            if "ConditionalCheckFailed" in reasons:
                return False
            if not reasons <= {*THROTTLES, "ThrottlingError"}:
                raise
            wait()
        else:
            return True
    raise Throttled("a transaction met others on the same items, again and again")


def call(operation: str, meter: Meter | None = None, **parameters: object) -> dict[str, Any]:
    """One request, tried again while DynamoDB throttles it."""
    from botocore.exceptions import ClientError

    method = getattr(_without_walks(client("dynamodb")), operation)
    for wait in _waits(meter):
        try:
            answer: dict[str, Any] = method(**parameters, **({} if operation in _UNMETERED else _METERED))
        except ClientError as error:
            if error.response["Error"]["Code"] not in THROTTLES:
                raise
            wait()
            continue
        if meter is not None:
            meter.count(operation, answer)
        return answer
    raise Throttled(f"{operation} {parameters.get('TableName', '')}".strip())


def _conditional(operation: str, meter: Meter | None, parameters: Mapping[str, Any]) -> bool:
    from botocore.exceptions import ClientError

    try:
        call(operation, meter, **parameters)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        if meter is not None:
            meter.count(operation, {})
        return False
    return True


def _pages(operation: str, parameters: dict[str, Any], start: Item | None, meter: Meter | None) -> Iterator[Page]:
    while True:
        if start:
            parameters["ExclusiveStartKey"] = start
        answer = call(operation, meter, **parameters)
        start = answer.get("LastEvaluatedKey")
        yield Page(answer.get("Items", ()), answer.get("ScannedCount", answer.get("Count", 0)), start)
        if not start:
            return


def sleep(seconds: float) -> None:
    """Between two tries; a test replaces it."""
    time.sleep(seconds)


def _waits(meter: Meter | None) -> Iterator[Callable[[], None]]:
    """One element a try, each to be called when the try was refused: exponential backoff with full jitter."""
    for attempt in range(MAX_TRIES):

        def wait(attempt: int = attempt) -> None:
            if meter is not None:
                meter.refused()
            if attempt + 1 < MAX_TRIES:
                sleep(random.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt)))  # noqa: S311 - jitter

        yield wait


def in_threads[A, B](work: Callable[[A], B], values: Sequence[A], threads: int) -> Iterator[B]:
    """`work` of each value, in order, on up to `threads` threads (each holds a connection while it waits)."""
    if threads <= 1 or len(values) <= 1:
        yield from map(work, values)
        return
    with ThreadPoolExecutor(min(threads, CONNECTIONS, len(values))) as pool:
        yield from pool.map(work, values)


# --- attributes ------------------------------------------------------------------------------------------------------


def to_attribute(value: Value) -> dict[str, Any]:
    """A value in DynamoDB's JSON. A float keeps six decimals, which is what any rank or ratio here is rounded to."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int():
            return {"N": str(value)}
        case float():
            return {"N": f"{value:.6f}"}
        case Mapping():
            return {"M": {name: to_attribute(member) for name, member in value.items()}}
        case _:
            return {"L": [to_attribute(member) for member in value]}


def to_item(values: Mapping[str, Value]) -> dict[str, Any]:
    """An item of plain values in DynamoDB's JSON."""
    return {name: to_attribute(value) for name, value in values.items()}


def from_attribute(attribute: Attribute) -> Any:
    """The plain value of an attribute; sets come as frozensets, numbers as int where they are whole."""
    for kind, value in attribute.items():
        match kind:
            case "N":
                return _number(value)
            case "M":
                return from_item(value)
            case "L":
                return [from_attribute(member) for member in value]
            case "NULL":
                return None
            case "SS":
                return frozenset(value)
            case "NS":
                return frozenset(map(_number, value))
            case _:
                return value
    raise TypeError("an attribute without a value")


def from_item(item: Item) -> dict[str, Any]:
    """An item as plain values."""
    return {name: from_attribute(attribute) for name, attribute in item.items()}


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        return int(number) if number.is_integer() else number


def key_of(item: Item, *names: str) -> str:
    """The key of an item for a log line: its values, joined by a slash; what is missing shows as a question mark."""
    return "/".join(str(next(iter(item[name].values()), "?")) if name in item else "?" for name in names)


def read_text(item: Item, name: str, key: str, default: str | None = None) -> str:
    """A string attribute. Raises BadRow when it is of another type, or absent without a default."""
    attribute = item.get(name)
    if attribute is None:
        if default is None:
            raise BadRow(key, f"{name} is missing")
        return default
    value = attribute.get("S")
    if not isinstance(value, str):
        raise BadRow(key, f"{name} is not a string")
    return value


def read_count(item: Item, name: str, key: str, default: int | None = None) -> int:
    """A whole number, 0 or more. Raises BadRow when it is anything else, or absent without a default."""
    attribute = item.get(name)
    if attribute is None:
        if default is None:
            raise BadRow(key, f"{name} is missing")
        return default
    text = attribute.get("N")
    if text is None:
        raise BadRow(key, f"{name} is not a number")
    try:
        value = int(text)
    except ValueError:
        try:
            real = float(text)  # DynamoDB may write 1E+2 for 100
        except ValueError:
            raise BadRow(key, f"{name} is not a number") from None
        if not real.is_integer():
            raise BadRow(key, f"{name} is not a whole number") from None
        value = int(real)
    if value < 0:
        raise BadRow(key, f"{name} is below zero")
    return value


def read_flag(item: Item, name: str, key: str, default: bool) -> bool:
    """A boolean attribute, `default` when absent. Raises BadRow when it is of another type."""
    attribute = item.get(name)
    if attribute is None:
        return default
    value = attribute.get("BOOL")
    if not isinstance(value, bool):
        raise BadRow(key, f"{name} is not a boolean")
    return value


def read_texts(item: Item, name: str, key: str) -> tuple[str, ...]:
    """A list or set of strings, empty when absent. Raises BadRow when it is anything else."""
    attribute = item.get(name)
    if attribute is None:
        return ()
    if "SS" in attribute:
        return tuple(attribute["SS"])
    members = attribute.get("L")
    if members is None or not all("S" in member for member in members):
        raise BadRow(key, f"{name} is not a list of strings")
    return tuple(member["S"] for member in members)


def _projected(attributes: Sequence[str]) -> dict[str, Any]:
    """The projection; every name is aliased, for DynamoDB reserves 573 words, `name` and `views` among them."""
    if not attributes:
        return {}
    names = {f"#{name}": name for name in attributes}
    return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}


class _Expressions:
    """The placeholders of one request. Every name is aliased, as in a projection."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        alias = f"#{attribute}"
        self._names[alias] = attribute
        return alias

    def value(self, given: Value) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = to_attribute(given)
        return placeholder

    def condition(self, tests: Iterable[Test]) -> dict[str, Any]:
        """The condition, and all names and values seen so far, as the request's parameters."""
        terms = []
        for test in tests:
            match test.operator:
                case "missing":
                    terms.append(f"attribute_not_exists({self.name(test.attribute)})")
                case "exists":
                    terms.append(f"attribute_exists({self.name(test.attribute)})")
                case operator:
                    terms.append(f"{self.name(test.attribute)} {operator} {self.value(test.value)}")
        parameters: dict[str, Any] = {"ConditionExpression": " AND ".join(terms)} if terms else {}
        if self._names:
            parameters["ExpressionAttributeNames"] = self._names
        if self._values:
            parameters["ExpressionAttributeValues"] = self._values
        return parameters


# --- the client ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _without_walks(original: Any) -> Any:
    """The client with requests written as they are, like its answers are read: half the CPU of a batch of writes.

    It is the same client (its connections, retries, signing and event hooks); botocore's serializer would walk over the
    request's shape to turn it into the same JSON.
    """
    direct = object.__new__(type(original))
    direct.__dict__.update(original.__dict__)
    direct._serializer = _PlainRequests()
    return direct


class _PlainRequests:
    """Requests of the "json" protocol from parameters that hold no bytes and no dates."""

    @staticmethod
    def serialize_to_request(parameters: Mapping[str, Any], operation: Any) -> dict[str, Any]:
        version = operation.metadata["jsonVersion"]
        headers = {
            "X-Amz-Target": f"{operation.metadata['targetPrefix']}.{operation.name}",
            "Content-Type": f"application/x-amz-json-{version}",
        }
        body = dumps(parameters)
        return {"url_path": "/", "query_string": "", "method": "POST", "headers": headers, "body": body}
