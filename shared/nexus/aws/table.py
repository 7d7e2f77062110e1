"""Requests to one DynamoDB table: paged, retried when throttled, and metered.

Reads return rows, DynamoDB JSON ({"user_id": {"S": "u"}}), until a repository reads the attributes that it needs
(`nexus.aws.rows`): building Python objects of every attribute is nine tenths of a scan's cost.

If a response is lost, the SDK or this module sends the request again, and DynamoDB refuses the repeat of a conditional
write that it has already carried out. So a write that was sent more than once and then refused is compared with the
existing item, which comes with the refusal; if that item is what the write leaves behind (`Write.is_result`), the
outcome is Applied. A refusal at the first try is never compared. A transaction has a token by which DynamoDB itself
recognises a repeat.
"""

import random
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from itertools import batched
from typing import Any, NamedTuple

from nexus import clock
from nexus.aws import usage
from nexus.aws.dynamodb import (
    ITEMS_PER_READ,
    STATEMENTS_PER_REQUEST,
    Applied,
    Condition,
    Item,
    Key,
    Outcome,
    Refused,
    Row,
    Schema,
    Value,
    Write,
    conditions,
    from_item,
    insert_statement,
    schemas,
    to_attribute,
    to_item,
    update_request,
    update_statement,
)
from nexus.aws.sdk import Throttled, client
from nexus.aws.surroundings import CONNECTIONS
from nexus.settings import settings

ITEMS_PER_WRITE = 25

# The SDK has already tried five times before one of these reaches this module.
THROTTLES = frozenset(
    {
        "TransactionInProgressException",
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


@dataclass(slots=True)
class Meter:
    """The requests made to DynamoDB, as DynamoDB counted them. Thread-safe.

    `requests` counts those that were answered, `throttled` the refusals and unprocessed remainders among them. Units
    are request units: a read of 4 KiB (half if eventually consistent) and a write of 1 KiB, indexes included.
    """

    requests: int = 0
    throttled: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, operation: str, response: Mapping[str, Any]) -> None:
        units = usage.units(response)
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


_UNMETERED = frozenset({"describe_table"})
_READS = frozenset({"get_item", "batch_get_item", "query", "scan"})


class Page(NamedTuple):
    """One page of a Query or Scan. `next_key` continues after it; None at the end. `scanned` is before filters."""

    items: Sequence[Row]
    scanned: int
    next_key: Row | None


@dataclass(frozen=True, slots=True)
class Table:
    """The table of one entity. `key` lists its key attributes, `indexes` those of each index, the partition key first.

    Every method raises Throttled if DynamoDB keeps refusing, and botocore's ClientError for what only an operator can
    fix (a missing table, a denied permission).
    """

    entity: str
    key: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = schemas.get(self.entity)
        schemas[self.entity] = Schema(self.key, {**(known.indexes if known else {}), **self.indexes})

    @property
    def name(self) -> str:
        return settings().table(self.entity)

    def size(self, index: str | None = None, *, meter: Meter | None = None) -> tuple[int, int]:
        """(items, bytes) of the table, or of one of its indexes. DynamoDB updates them every six hours."""
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
    ) -> Row | None:
        """The item at `key`, or None."""
        parameters = _projected(attributes)
        response = call(
            "get_item", meter, TableName=self.name, Key=to_item(key), ConsistentRead=consistent, **parameters
        )
        return response.get("Item")

    def get_many(
        self,
        keys: Sequence[Mapping[str, str]],
        *,
        attributes: Sequence[str] = (),
        consistent: bool = False,
        meter: Meter | None = None,
        threads: int = 1,
    ) -> Iterator[Row]:
        """The existing items among `keys` (all distinct), in no particular order; one request per 100."""
        pages = list(batched(keys, ITEMS_PER_READ))
        for items in in_threads(lambda page: self._get_page(page, attributes, consistent, meter), pages, threads):
            yield from items

    def _get_page(
        self, keys: Sequence[Mapping[str, str]], attributes: Sequence[str], consistent: bool, meter: Meter | None
    ) -> list[Row]:
        found: list[Row] = []
        request: dict[str, Any] = {
            "Keys": [to_item(key) for key in keys],
            "ConsistentRead": consistent,
            **_projected(attributes),
        }
        for wait in _waits(meter, self.name):
            response = call("batch_get_item", meter, RequestItems={self.name: request})
            found += response["Responses"].get(self.name, ())
            left = (response.get("UnprocessedKeys") or {}).get(self.name)
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
        between: tuple[Value, Value] | None = None,
        having: tuple[str, Value] | None = None,
        attributes: Sequence[str] = (),
        newest_first: bool = False,
        consistent: bool = False,
        counted: bool = False,
        limit: int | None = None,
        start: Row | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Page]:
        """The pages of one partition, in order of the sort key; `between` bounds the sort key, both ends included.

        `having` (an attribute and its value) leaves out the other items, which are read and paid for all the same.
        `limit` bounds the items per page; `counted` pages have only their counts (`scanned`), no items.
        """
        names = self.indexes[index] if index else self.key
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
        }
        if having is not None:
            aliases["#having"], values[":having"] = having[0], to_attribute(having[1])
            parameters["FilterExpression"] = "#having = :having"
        if index:
            parameters["IndexName"] = index
        elif consistent:
            parameters["ConsistentRead"] = True
        if counted:
            parameters["Select"] = "COUNT"
        if limit:
            parameters["Limit"] = limit
        parameters["ExpressionAttributeNames"] = aliases | projection.get("ExpressionAttributeNames", {})
        yield from _pages("query", parameters, start, meter)

    def scan(
        self,
        *,
        index: str | None = None,
        segment: int = 0,
        total: int = 1,
        attributes: Sequence[str] = (),
        counted: bool = False,
        start: Row | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Page]:
        """The pages of one segment of a parallel scan. All items of a partition key are consecutive in one segment.

        `counted` pages have only their counts (`scanned`), no items.
        """
        parameters: dict[str, Any] = {"TableName": self.name, **_projected(attributes)}
        if total > 1:
            parameters |= {"Segment": segment, "TotalSegments": total}
        if index:
            parameters["IndexName"] = index
        if counted:
            parameters["Select"] = "COUNT"
        yield from _pages("scan", parameters, start, meter)

    def put_request(self, values: Mapping[str, Value], *, new: bool = False) -> dict[str, Any]:
        """The item as PutItem parameters, which are also valid for a Put in TransactWriteItems."""
        there_is_none = (Condition(self.key[0], "missing"),) if new else ()
        return {"TableName": self.name, "Item": to_item(values), **conditions(there_is_none)}

    def put(self, values: Mapping[str, Value], *, meter: Meter | None = None) -> None:
        """Writes the item, replacing any existing one."""
        self.put_item(to_item(values), meter=meter)

    def put_item(self, item: Row, *, meter: Meter | None = None) -> None:
        """Like `put`, for an item in DynamoDB JSON: an item that was read is written back unchanged."""
        call("put_item", meter, TableName=self.name, Item=item)

    def insert(self, values: Mapping[str, Value], *, meter: Meter | None = None) -> Item | None:
        """Writes the item if its key does not exist; otherwise returns the existing one."""
        write = Write({name: str(values[name]) for name in self.key}, values, insert=True)
        outcome = self._apply("put_item", write, self.put_request(values, new=True), meter)
        return None if isinstance(outcome, Applied) else outcome.item or {}

    def apply(self, write: Write, *, meter: Meter | None = None) -> Outcome:
        """Makes the write, creating the item if it does not exist; the outcome contains the item after it."""
        if write.insert:
            write = replace(write, when=(Condition(self.key[0], "missing"),))
        request = update_request(self.name, self._key(write.key), write) | {"ReturnValues": "ALL_NEW"}
        return self._apply("update_item", write, request, meter)

    def apply_all(self, writes: Sequence[Write], *, meter: Meter | None = None, threads: int = 1) -> list[Outcome]:
        """Like `apply`, for each write individually (one per item); 25 per request if all are `batchable`."""
        if len(writes) == 1 or not all(write.batchable for write in writes):
            return [self.apply(write, meter=meter) for write in writes]
        pages = list(batched(writes, STATEMENTS_PER_REQUEST))
        made = in_threads(lambda page: self._apply_page(page, meter, returning=True), pages, threads)
        return [outcome for page in made for outcome in page]

    def update(self, write: Write, *, create: bool = False, meter: Meter | None = None) -> bool:
        """Makes the write. False if a condition did not hold or, unless `create`, if the item does not exist."""
        return isinstance(self._apply("update_item", write, self.update_request(write, create=create), meter), Applied)

    def update_request(self, write: Write, *, create: bool = False) -> dict[str, Any]:
        """The write as UpdateItem parameters, which are also valid for an Update in TransactWriteItems."""
        there_is_one = () if create else (self._exists,)
        return update_request(self.name, self._key(write.key), replace(write, when=(*there_is_one, *write.when)))

    def delete(self, key: Key, *, when: tuple[Condition, ...] = (), meter: Meter | None = None) -> bool:
        """Removes the item; False if a condition did not hold. Without conditions, an absent item counts as removed."""
        write = Write(key, when=when, delete=True)
        return isinstance(self._apply("delete_item", write, self.delete_request(key, when=when), meter), Applied)

    def delete_request(self, key: Key, *, when: tuple[Condition, ...] = ()) -> dict[str, Any]:
        """The removal as DeleteItem parameters, which are also valid for a Delete in TransactWriteItems."""
        return {"TableName": self.name, "Key": to_item(self._key(key)), **conditions(when)}

    def check_request(self, key: Key, *, when: tuple[Condition, ...]) -> dict[str, Any]:
        """The conditions as a ConditionCheck of TransactWriteItems, for an existing item."""
        return {"TableName": self.name, "Key": to_item(self._key(key)), **conditions((self._exists, *when))}

    def _apply(self, operation: str, write: Write, request: Mapping[str, Any], meter: Meter | None) -> Outcome:
        from botocore.exceptions import ClientError

        try:
            response = call(operation, meter, **request, ReturnValuesOnConditionCheckFailure="ALL_OLD")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            refusal: Mapping[str, Any] = error.response
            usage.add("writes")  # a refusal costs as much as the write; the response does not say how much
            if meter is not None:
                meter.count(operation, {})
            return self._refused(write, refusal.get("Item"), _repeated(refusal), meter)
        return Applied(from_item(response.get("Attributes", {})))

    def _refused(self, write: Write, existing: Row | None, repeated: bool, meter: Meter | None) -> Outcome:
        if repeated:
            if existing is None and write.insert:  # the refusal of an INSERT does not contain it
                existing = self.get(self._key(write.key), consistent=True, meter=meter)
            if write.is_result(existing):
                return Applied(from_item(existing or {}))
        return Refused(None if existing is None else from_item(existing))

    @property
    def _exists(self) -> Condition:
        return Condition(self.key[0], "exists")

    def _key(self, key: Key) -> Mapping[str, str]:
        return {self.key[0]: key} if isinstance(key, str) else key

    def put_many(self, items: Iterable[Mapping[str, Value]], *, meter: Meter | None = None, threads: int = 1) -> int:
        """Writes the items (one per key), replacing existing ones; one request per 25. Returns how many."""
        return self._write_many([{"PutRequest": {"Item": to_item(item)}} for item in items], meter, threads)

    def put_items(self, items: Iterable[Row], *, meter: Meter | None = None, threads: int = 1) -> int:
        """Like `put_many`, for items in DynamoDB JSON."""
        return self._write_many([{"PutRequest": {"Item": item}} for item in items], meter, threads)

    def delete_many(self, keys: Iterable[Mapping[str, str]], *, meter: Meter | None = None, threads: int = 1) -> int:
        """Removes the items at `keys` (all distinct) unconditionally; one request per 25. Returns how many."""
        return self._write_many([{"DeleteRequest": {"Key": to_item(key)}} for key in keys], meter, threads)

    def _write_many(self, writes: Sequence[Mapping[str, Any]], meter: Meter | None, threads: int) -> int:
        def write(page: Sequence[Mapping[str, Any]]) -> int:
            left: Sequence[Mapping[str, Any]] = page
            for wait in _waits(meter, self.name):
                response = call("batch_write_item", meter, RequestItems={self.name: left})
                left = (response.get("UnprocessedItems") or {}).get(self.name, ())
                if not left:
                    return len(page)
                wait()
            raise Throttled(f"{self.name}: {len(left)} writes still unprocessed")

        return sum(in_threads(write, list(batched(writes, ITEMS_PER_WRITE)), threads))

    def update_many(self, writes: Sequence[Write], *, meter: Meter | None = None, threads: int = 1) -> list[bool]:
        """Makes each write (one per item) individually, 25 per request; True where it was made.

        False means the same as for `update`: a condition did not hold, or the item does not exist.
        """
        pages = list(batched(writes, STATEMENTS_PER_REQUEST))
        made = in_threads(lambda page: self._apply_page(page, meter, returning=False), pages, threads)
        return [isinstance(outcome, Applied) for page in made for outcome in page]

    def delete_each(
        self,
        keys: Sequence[Key],
        *,
        when: tuple[Condition, ...],
        meter: Meter | None = None,
        threads: int = 1,
    ) -> list[bool]:
        """Removes each item (all distinct) for which the conditions hold, 25 per request; True where it was removed."""
        return self.update_many([Write(key, when=when, delete=True) for key in keys], meter=meter, threads=threads)

    def _apply_page(self, writes: Sequence[Write], meter: Meter | None, *, returning: bool) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        waiting, again = list(range(len(writes))), False
        for wait in _waits(meter, self.name):
            statements = [self._statement(writes[place], returning) for place in waiting]
            response = call("batch_execute_statement", meter, Statements=statements)
            again = again or _repeated(response)
            for place, one in zip(waiting, response["Responses"], strict=True):
                outcome = self._outcome(writes[place], one, again, meter)
                if outcome is not None:
                    outcomes[place] = outcome
            waiting = [place for place in waiting if place not in outcomes]
            if not waiting:
                return [outcomes[place] for place in range(len(writes))]
            again = True
            wait()
        raise Throttled(f"{self.name}: {len(waiting)} writes still refused")

    def _statement(self, write: Write, returning: bool) -> dict[str, Any]:
        if write.insert:
            return insert_statement(self.name, {**self._key(write.key), **write.set})
        return update_statement(self.name, self._key(write.key), write, returning=returning)

    def _outcome(
        self, write: Write, response: Mapping[str, Any], repeated: bool, meter: Meter | None
    ) -> Outcome | None:
        """The outcome of one statement of a batch; None if it was throttled. Raises ClientError."""
        error = response.get("Error")
        if error is None:
            if write.insert:
                return Applied({**self._key(write.key), **write.set})
            if write.delete:
                return Applied({}) if "Item" in response else self._refused(write, None, repeated, meter)
            return Applied(from_item(response.get("Item", {})))
        code = error["Code"]
        if code in ("ConditionalCheckFailed", "DuplicateItem"):
            return self._refused(write, error.get("Item"), repeated, meter)
        if code in THROTTLES:
            return None
        from botocore.exceptions import ClientError

        name = code.removesuffix("Error").removesuffix("Exception") + "Exception"
        message = f"{self.name} {write.key}: {error.get('Message')}"
        raise ClientError({"Error": {"Code": name, "Message": message}}, "BatchExecuteStatement")


def transact(actions: Sequence[Mapping[str, Any]], token: str | None = None, *, meter: Meter | None = None) -> bool:
    """All of the writes or none of them; False if a condition did not hold.

    An action is an element of TransactWriteItems, e.g. {"Update": table.update_request(write)}; at most 100. DynamoDB
    treats requests with the same `token` within ten minutes as one transaction; each call generates its own unless
    given one.
    """
    parameters: dict[str, Any] = {
        "TransactItems": list(actions),
        "ClientRequestToken": token or str(uuid.uuid4()),
    }
    from botocore.exceptions import ClientError

    for wait in _waits(meter, "a transaction"):
        try:
            call("transact_write_items", meter, **parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] != "TransactionCanceledException":
                raise
            reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", ())} - {"None", None}
            if "ConditionalCheckFailed" in reasons:
                return False
            if not reasons <= THROTTLES:
                raise
            wait()
        else:
            return True
    raise Throttled("a transaction kept conflicting with others on the same items")


def call(operation: str, meter: Meter | None = None, **parameters: object) -> dict[str, Any]:
    """Makes one request, retried while DynamoDB throttles it."""
    from botocore.exceptions import ClientError

    method = getattr(client("dynamodb"), operation)
    if operation not in _UNMETERED:
        parameters["ReturnConsumedCapacity"] = "TOTAL"
    what = f"{operation} {parameters.get('TableName', '')}".strip()
    for tried, wait in enumerate(_waits(meter, what)):
        try:
            response: dict[str, Any] = method(**parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] not in THROTTLES:
                error.response["ResponseMetadata"]["RetryAttempts"] += tried
                raise
            wait()
            continue
        if tried:
            response["ResponseMetadata"]["RetryAttempts"] += tried
        usage.dynamodb(operation, response)
        if meter is not None:
            meter.count(operation, response)
        return response
    raise Throttled(what)


def _repeated(response: Mapping[str, Any]) -> bool:
    """Whether the request was sent more than once, so that an earlier try may have been carried out."""
    return bool(response["ResponseMetadata"]["RetryAttempts"])


def _pages(operation: str, parameters: dict[str, Any], start: Row | None, meter: Meter | None) -> Iterator[Page]:
    while True:
        if start:
            parameters["ExclusiveStartKey"] = start
        response = call(operation, meter, **parameters)
        start = response.get("LastEvaluatedKey")
        yield Page(response.get("Items", ()), response.get("ScannedCount", response.get("Count", 0)), start)
        if not start:
            return


def sleep(seconds: float) -> None:
    """Waits between two tries; a test replaces it."""
    clock.sleep(seconds)


_throttled: tuple[float, str] = (float("-inf"), "")


def throttled_since(moment: float) -> str | None:
    """What DynamoDB last throttled since `moment` (of clock.monotonic()): a table or a request; None if nothing."""
    at, what = _throttled
    return what if at >= moment else None


def _waits(meter: Meter | None, what: str) -> Iterator[Callable[[], None]]:
    """Yields once per try; call the yielded function if the try was refused: exponential backoff with full jitter."""
    for attempt in range(MAX_TRIES):

        def wait(attempt: int = attempt) -> None:
            global _throttled  # noqa: PLW0603 - the sandbox's last refusal, for a run with no time left to report it
            _throttled = clock.monotonic(), what
            if meter is not None:
                meter.refused()
            if attempt + 1 < MAX_TRIES:
                sleep(random.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt)))  # noqa: S311 - jitter

        yield wait


def in_threads[A, B](work: Callable[[A], B], values: Sequence[A], threads: int) -> Iterator[B]:
    """Maps `work` over the values, in order, on up to `threads` threads (each holds a connection while it waits).

    The threads see the caller's context variables, which select the stack of the tables.
    """
    if threads <= 1 or len(values) <= 1:
        yield from map(work, values)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(threads, CONNECTIONS, len(values))) as pool:
        yield from pool.map(lambda context, value: context.run(work, value), [copy_context() for _ in values], values)


def _projected(attributes: Sequence[str]) -> dict[str, Any]:
    """The projection; every name is aliased, because DynamoDB reserves 573 words, including `name` and `views`."""
    if not attributes:
        return {}
    names = {f"#{name}": name for name in attributes}
    return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
