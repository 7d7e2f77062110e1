"""A stand-in for DynamoDB and S3 inside the process, for measuring jobs at a scale that emulators do not reach.

It hooks botocore's before-send, so requests are built, signed and parsed as usual and no byte leaves the process. Scans
run at more than 100,000 items a second; capacity is metered by the documented rules (Amazon DynamoDB Developer Guide,
"DynamoDB item sizes and formats", "Read and write capacity"), indexes included; requests can be throttled and batches
partly processed. Its own CPU time is measured separately.
"""

import hashlib
import random
import threading
import time
import zlib
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
from botocore.awsrequest import AWSResponse

from nexus.aws import expressions, sdk
from nexus.aws.connections import Response
from nexus.aws.expressions import Given
from nexus.aws.slim import Client
from tests.support.template import STACK, resolved, resources

type Item = dict[str, Any]
PAGE_BYTES = 1_048_576


# --- sizes and units -------------------------------------------------------------------------------------------------


def value_size(attribute: Mapping[str, Any]) -> int:
    """Bytes of a value: a text's UTF-8, about half a number's digits plus 1, a list or map 3 plus 1 per member."""
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value) if value.isascii() else len(value.encode())
        case "N":
            return (len(value.lstrip("-").replace(".", "").strip("0")) + 1) // 2 + 1
        case "BOOL" | "NULL":
            return 1
        case "L":
            return 3 + sum(1 + value_size(member) for member in value)
        case "M":
            return 3 + sum(1 + len(name.encode()) + value_size(member) for name, member in value.items())
        case _:
            return sum(map(len, value))


def item_size(item: Mapping[str, Any]) -> int:
    """Bytes of an item: names and values."""
    return sum(len(name) + value_size(value) for name, value in item.items())


def write_units(size: int) -> int:
    """One per started KiB."""
    return max(1, -(-size // 1024))


def read_units(size: int, consistent: bool) -> float:
    """One per started 4 KiB, half of that if eventually consistent."""
    return max(1, -(-size // 4096)) * (1.0 if consistent else 0.5)


# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Index:
    """A global secondary index: its key, and the attributes that it projects besides the keys."""

    name: str
    key: tuple[str, ...]
    projected: tuple[str, ...]
    partitions: dict[str, list[tuple[Any, tuple[str, ...]]]] = field(default_factory=dict)
    order: "list[tuple[int, tuple[str, ...], int]] | None" = None


def _sort_value(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    return float(value) if kind == "N" else value


class Table:
    """One table: its items by key, and its indexes, which are built on first use and then maintained."""

    def __init__(
        self, name: str, key: tuple[str, ...], indexes: Iterable[tuple[str, tuple[str, ...], tuple[str, ...]]]
    ) -> None:
        self.name, self.key = name, key
        self.items: dict[tuple[str, ...], Item] = {}
        keep = {}
        for index, index_key, projected in indexes:
            names = dict.fromkeys((*index_key, *key, *projected))
            keep[index] = Index(index, index_key, tuple(names))
        self.indexes = keep
        self._order: list[tuple[int, tuple[str, ...], int]] | None = None
        self._partitions: dict[str, list[tuple[Any, tuple[str, ...]]]] | None = None
        self._built: set[str] = set()

    def key_of(self, item: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(item[name]["S"] for name in self.key)

    def load(self, items: Iterable[Item]) -> None:
        """Fills the table without counting units."""
        for item in items:
            self.items[self.key_of(item)] = item
        self._order, self._partitions, self._built = None, None, set()

    # reading

    def scan_order(self, index: Index | None) -> list[tuple[int, tuple[str, ...], int]]:
        """(hash of the partition key, item's key, bytes) of every item, in the order of a scan."""
        if index is None:
            if self._order is None:
                self._order = sorted(
                    (zlib.crc32(key[0].encode()), key, item_size(item)) for key, item in self.items.items()
                )
            return self._order
        if index.order is None:
            index.order = sorted(
                (zlib.crc32(item[index.key[0]]["S"].encode()), key, item_size(self.project(item, index.projected)))
                for key, item in self.items.items()
                if all(name in item for name in index.key)
            )
        return index.order

    def partition(self, index: Index | None, value: str) -> list[tuple[Any, tuple[str, ...]]]:
        """(sort value, item's key) of one partition, in order."""
        if index is None:
            if self._partitions is None:
                self._partitions = {}
                for key in sorted(self.items):
                    self._partitions.setdefault(key[0], []).append((key[-1], key))
            return self._partitions.setdefault(value, [])
        self._build(index)
        return index.partitions.setdefault(value, [])

    def _build(self, index: Index) -> None:
        if index.name in self._built:
            return
        index.partitions.clear()
        for key, item in self.items.items():
            entry = self.entry(index, key, item)
            if entry:
                index.partitions.setdefault(entry[0], []).append(entry[1:])
        for entries in index.partitions.values():
            entries.sort()
        self._built.add(index.name)

    def entry(self, index: Index, key: tuple[str, ...], item: Item | None) -> tuple[str, Any, tuple[str, ...]] | None:
        """An item's entry in an index, or None."""
        if item is None or not all(name in item for name in index.key):
            return None
        sort = _sort_value(item[index.key[1]]) if len(index.key) > 1 else ""
        return item[index.key[0]]["S"], sort, key

    @staticmethod
    def project(item: Item, names: Sequence[str]) -> Item:
        return {name: item[name] for name in names if name in item}

    # writing

    def write(self, key: tuple[str, ...], new: Item | None) -> float:
        """Puts or deletes an item; returns the units of the table and all indexes."""
        old = self.items.get(key)
        units = float(write_units(max(item_size(old) if old else 0, item_size(new) if new else 0)))
        for index in self.indexes.values():
            units += self._write_index(index, key, old, new)
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        if (old is None) != (new is None):
            self._order = None
            if self._partitions is not None:
                entries = self._partitions.setdefault(key[0], [])
                if new is None:
                    entries.remove((key[-1], key))
                else:
                    insort(entries, (key[-1], key))
        return units

    def _write_index(self, index: Index, key: tuple[str, ...], old: Item | None, new: Item | None) -> float:
        before, after = self.entry(index, key, old), self.entry(index, key, new)
        if before is None and after is None:
            return 0.0
        projected_old = self.project(old, index.projected) if old and before else None
        projected_new = self.project(new, index.projected) if new and after else None
        if before == after and projected_old == projected_new:
            return 0.0
        index.order = None
        if index.name in self._built and before != after:
            if before:
                entries = index.partitions[before[0]]
                del entries[bisect_left(entries, before[1:])]
            if after:
                insort(index.partitions.setdefault(after[0], []), after[1:])
        sizes = [item_size(one) for one in (projected_old, projected_new) if one]
        if before == after:
            return float(write_units(max(sizes)))
        return float(sum(map(write_units, sizes)))


# --- the services ----------------------------------------------------------------------------------------------------


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self._content

    def read(self, amount: int | None = None, **_: Any) -> bytes:
        end = len(self._content) if amount is None else self._place + amount
        part, self._place = self._content[self._place : end], min(end, len(self._content))
        return part

    def close(self) -> None:
        pass


@dataclass(slots=True)
class Spent:
    """The requests since `reset`."""

    requests: Counter[str] = field(default_factory=Counter)
    read_units: float = 0.0
    write_units: float = 0.0
    read_from: Counter[str] = field(default_factory=Counter)
    """Read units by table or table/index."""

    objects_put: int = 0
    objects_got: int = 0
    own_seconds: float = 0.0

    @property
    def dynamodb_requests(self) -> int:
        return sum(self.requests.values())


class StandIn:
    """DynamoDB's tables and S3's objects; `throttle` is the share of requests that are refused or partly processed."""

    def __init__(self, tables: Iterable[Table], *, throttle: float = 0.0, seed: int = 0) -> None:
        self.tables = {table.name: table for table in tables}
        self._keys = {table.name: table.key for table in self.tables.values()}
        self.objects: dict[str, bytes] = {}
        self.spent = Spent()
        self.throttle = throttle
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._operations: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "Scan": self._scan,
            "Query": self._query,
            "GetItem": self._get,
            "BatchGetItem": self._batch_get,
            "BatchWriteItem": self._batch_write,
            "PutItem": self._put,
            "UpdateItem": self._update,
            "DeleteItem": self._delete,
            "BatchExecuteStatement": self._statements,
            "DescribeTable": self._describe,
        }

    @contextmanager
    def installed(self) -> Iterator["StandIn"]:
        """Replaces both services for this process's clients."""
        dynamodb: Any = sdk.client("dynamodb")
        s3: Any = sdk.client("s3").meta.events
        s3.register_first("before-send.s3", self._s3)
        slim = isinstance(dynamodb, Client)
        sent = dynamodb.send if slim else None
        if slim:
            dynamodb.send = self._posted
        else:
            dynamodb.meta.events.register_first("before-send.dynamodb", self._dynamodb)
        try:
            yield self
        finally:
            s3.unregister("before-send.s3", self._s3)
            if slim:
                dynamodb.send = sent
            else:
                dynamodb.meta.events.unregister("before-send.dynamodb", self._dynamodb)

    def reset(self) -> None:
        self.spent = Spent()

    def _dynamodb(self, request: Any, **_: Any) -> AWSResponse:
        target = request.headers["X-Amz-Target"]
        response = self._posted(
            {"X-Amz-Target": target.decode() if isinstance(target, bytes) else target}, request.body
        )
        return AWSResponse(request.url, response.status, dict(response.headers), _Body(response.body))  # type: ignore[arg-type]

    def _posted(self, headers: Mapping[str, str], body: bytes) -> Response:
        started = time.thread_time()
        operation = headers["X-Amz-Target"].split(".")[1]
        with self._lock:
            self.spent.requests[operation] += 1
            if self.throttle and self._chance.random() < self.throttle / 2:
                response: Mapping[str, Any] = _error("ProvisionedThroughputExceededException")
            else:
                response = self.respond(operation, orjson.loads(body))
            status = 400 if "__type" in response else 200
            encoded = orjson.dumps(response)
            self.spent.own_seconds += time.thread_time() - started
        return Response(status, {"content-type": "application/x-amz-json-1.0"}, encoded)

    def respond(self, operation: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """DynamoDB's response to one request, or its error, which has a `__type`."""
        return self._operations[operation](body)

    # reads

    def _index(self, body: Mapping[str, Any]) -> tuple[Table, Index | None]:
        table = self.tables[body["TableName"]]
        return table, table.indexes[body["IndexName"]] if "IndexName" in body else None

    def _read(self, units: float, table: Table, index: Index | None = None) -> dict[str, float]:
        self.spent.read_units += units
        entity = table.name.removeprefix(f"{STACK}-")
        self.spent.read_from[f"{entity}/{index.name}" if index else entity] += units  # type: ignore[assignment]
        return {"CapacityUnits": units}

    def _wrote(self, units: float) -> dict[str, float]:
        self.spent.write_units += units
        return {"CapacityUnits": units}

    @staticmethod
    def _names(body: Mapping[str, Any], index: Index | None) -> Sequence[str] | None:
        if "ProjectionExpression" in body:
            names = body["ExpressionAttributeNames"]
            return [names[alias] for alias in body["ProjectionExpression"].split(", ")]
        return index.projected if index else None

    def _scan(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        table, index = self._index(body)
        order = table.scan_order(index)
        total, segment = body.get("TotalSegments", 1), body.get("Segment", 0)
        place, end = (bisect_left(order, ((segment + more) * 2**32 // total,)) for more in (0, 1))
        if "ExclusiveStartKey" in body:
            start = body["ExclusiveStartKey"]
            partition = start[index.key[0] if index else table.key[0]]["S"]
            place = bisect_left(order, (zlib.crc32(partition.encode()), table.key_of(start), 2**62))
        return self._page(body, table, index, (order[n][1:] for n in range(place, end)))

    def _query(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        table, index = self._index(body)
        values = body["ExpressionAttributeValues"]
        entries: Sequence[tuple[Any, tuple[str, ...]]] = table.partition(index, values[":p"]["S"])
        first, last = 0, len(entries)
        if ":low" in values:
            first = bisect_left(entries, (_sort_value(values[":low"]),))
            last = bisect_left(entries, (_sort_value(values[":high"]), ("\U0010ffff",)))
        entries = entries[first:last]
        if not body.get("ScanIndexForward", True):
            entries = entries[::-1]
        place = 0
        if "ExclusiveStartKey" in body:
            start = table.key_of(body["ExclusiveStartKey"])
            sort = body["ExclusiveStartKey"].get((index.key if index else table.key)[-1])
            value = _sort_value(sort) if sort else ""
            if body.get("ScanIndexForward", True):
                place = bisect_left(entries, (value, (*start, "")))
            else:
                place = next((n for n, entry in enumerate(entries) if entry < (value, start)), len(entries))

        def size(key: tuple[str, ...]) -> int:
            return item_size(table.project(table.items[key], index.projected) if index else table.items[key])

        keys = (entries[n][1] for n in range(place, len(entries)))
        return self._page(body, table, index, ((key, size(key)) for key in keys))

    def _page(
        self,
        body: Mapping[str, Any],
        table: Table,
        index: Index | None,
        entries: Iterable[tuple[tuple[str, ...], int]],
    ) -> Mapping[str, Any]:
        """The response to a Scan or a Query: of its items (key, bytes), as many as `Limit` and 1 MB allow."""
        names, counting = self._names(body, index), body.get("Select") == "COUNT"
        filtered, limit = body.get("FilterExpression"), body.get("Limit", 2**62)
        size, scanned, matched = 0, 0, 0
        found: list[Item] = []
        response: dict[str, Any] = {}
        item: Item = {}
        for key, bytes_ in entries:
            if scanned == limit or size + bytes_ > PAGE_BYTES:
                response["LastEvaluatedKey"] = self._key(table, index, item)
                break
            item, size, scanned = table.items[key], size + bytes_, scanned + 1
            if _holds(filtered, item, body):
                matched += 1
                if not counting:
                    found.append(self._shown(item, names))
        response |= {"Count": matched, "ScannedCount": scanned} | ({} if counting else {"Items": found})
        units = read_units(size, bool(body.get("ConsistentRead")))
        return response | {"ConsumedCapacity": self._read(units, table, index)}

    @staticmethod
    def _shown(item: Item, names: Sequence[str] | None) -> Item:
        return item if names is None else {name: item[name] for name in names if name in item}

    @staticmethod
    def _key(table: Table, index: Index | None, item: Item) -> Item:
        return {name: item[name] for name in (*table.key, *(index.key if index else ()))}

    def _get(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        table = self.tables[body["TableName"]]
        item = table.items.get(table.key_of(body["Key"]))
        units = read_units(item_size(item) if item else 0, bool(body.get("ConsistentRead")))
        response: dict[str, Any] = {"ConsumedCapacity": self._read(units, table)}
        if item is not None:
            response["Item"] = self._shown(item, self._names(body, None))
        return response

    def _batch_get(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        ((name, request),) = body["RequestItems"].items()
        table, units = self.tables[name], 0.0
        found, left = [], []
        names = self._names(request, None)
        for key in request["Keys"]:
            if self.throttle and self._chance.random() < self.throttle:
                left.append(key)
                continue
            item = table.items.get(table.key_of(key))
            units += read_units(item_size(item) if item else 0, bool(request.get("ConsistentRead")))
            if item is not None:
                found.append(self._shown(item, names))
        response: dict[str, Any] = {"Responses": {name: found}, "ConsumedCapacity": [self._read(units, table)]}
        response["UnprocessedKeys"] = {name: {**request, "Keys": left}} if left else {}
        return response

    def _describe(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        table = self.tables[body["TableName"]]
        indexes = []
        for index in table.indexes.values():
            order = table.scan_order(index)
            indexes.append(
                {
                    "IndexName": index.name,
                    "ItemCount": len(order),
                    "IndexSizeBytes": sum(size for _, _, size in order),
                }
            )
        size = sum(size for _, _, size in table.scan_order(None))
        shape = {"ItemCount": len(table.items), "TableSizeBytes": size, "GlobalSecondaryIndexes": indexes}
        return {"Table": {"TableName": table.name, **shape}}

    # writes

    def _batch_write(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        ((name, writes),) = body["RequestItems"].items()
        table, units, left = self.tables[name], 0.0, []
        for write in writes:
            if self.throttle and self._chance.random() < self.throttle:
                left.append(write)
            elif "PutRequest" in write:
                item = write["PutRequest"]["Item"]
                units += table.write(table.key_of(item), item)
            else:
                units += table.write(table.key_of(write["DeleteRequest"]["Key"]), None)
        return {"UnprocessedItems": {name: left} if left else {}, "ConsumedCapacity": [self._wrote(units)]}

    def _guarded(self, body: Mapping[str, Any], key: Mapping[str, Any]) -> tuple[Table, tuple[str, ...], bool]:
        table = self.tables[body["TableName"]]
        full = table.key_of(key)
        return table, full, _holds(body.get("ConditionExpression"), table.items.get(full), body)

    def _refused(self, table: Table, key: tuple[str, ...], body: Mapping[str, Any]) -> Mapping[str, Any]:
        existing = table.items.get(key)
        self._wrote(write_units(item_size(existing) if existing else 0))
        return {**_error("ConditionalCheckFailedException"), **_conflicting(existing, body)}

    def _put(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        table, key, allowed = self._guarded(body, body["Item"])
        if not allowed:
            return self._refused(table, key, body)
        return {"ConsumedCapacity": self._wrote(table.write(key, body["Item"]))}

    def _update(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        table, key, allowed = self._guarded(body, body["Key"])
        if not allowed:
            return self._refused(table, key, body)
        update = expressions.update(body["UpdateExpression"])
        new = update.applied(table.items.get(key, body["Key"]), Given.of(body))
        attributes = {"Attributes": new} if body.get("ReturnValues") == "ALL_NEW" else {}
        return {"ConsumedCapacity": self._wrote(table.write(key, new)), **attributes}

    def _delete(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        table, key, allowed = self._guarded(body, body["Key"])
        return {"ConsumedCapacity": self._wrote(table.write(key, None))} if allowed else self._refused(table, key, body)

    def _statements(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        units = 0.0
        responses: list[Mapping[str, Any]] = []
        for statement in body["Statements"]:
            if self.throttle and self._chance.random() < self.throttle:
                responses.append({"Error": {"Code": "ProvisionedThroughputExceeded", "Message": "slow down"}})
                continue
            spent, response = self._execute(statement)
            units += spent
            responses.append(response)
        return {"Responses": responses, "ConsumedCapacity": [self._wrote(units)]}

    def _execute(self, asked: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]]:
        """Units and response of one PartiQL statement. Its WHERE begins with the table's key."""
        text, parameters = asked["Statement"], asked["Parameters"]
        table, statement, given = (
            self.tables[text.split('"')[1]],
            expressions.statement(text),
            Given.positional(parameters),
        )
        if statement.insert:
            new = statement.applied({}, given)
            key = table.key_of(new)
            if key in table.items:
                return 1.0, {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
            return table.write(key, new), {}
        first = text[: text.index("WHERE")].count("?")
        key = tuple(value["S"] for value in parameters[first : first + len(table.key)])
        existing = table.items.get(key)
        if existing is None and statement.delete:
            return 1.0, {}
        if existing is None or not statement.when(existing, given):
            units = float(write_units(item_size(existing) if existing else 0))
            error = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
            return units, {"Error": error | _conflicting(existing, asked)}
        after = None if statement.delete else statement.applied(existing, given)
        return table.write(key, after), {"Item": after or existing} if statement.returning else {}

    # S3

    def _s3(self, request: Any, **_: Any) -> AWSResponse:
        started = time.thread_time()
        with self._lock:
            status, headers, body = self._object(request)
            self.spent.own_seconds += time.thread_time() - started
        return AWSResponse(request.url, status, headers, _Body(body))  # type: ignore[arg-type]

    def _object(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(request.url)
        key = unquote(url.netloc.split(".")[0] + url.path)
        match request.method:
            case "PUT" if "x-amz-copy-source" not in request.headers:
                self.spent.objects_put += 1
                content = request.body.read() if hasattr(request.body, "read") else request.body
                self.objects[key] = bytes(content or b"")
                return 200, {"ETag": _etag(self.objects[key])}, b""
            case "DELETE":
                self.objects.pop(key, None)
                return 204, {}, b""
            case "GET" if "list-type" in url.query:
                self.spent.objects_put += 1  # a list costs what a put costs
                bucket = url.netloc.split(".")[0]
                prefix = f"{bucket}/{parse_qs(url.query).get('prefix', [''])[0]}"
                keys = sorted(name for name in self.objects if name.startswith(prefix))
                listed = "".join(f"<Contents><Key>{name.split('/', 1)[1]}</Key></Contents>" for name in keys)
                return (
                    200,
                    {},
                    f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode(),
                )
        self.spent.objects_got += 1
        if key not in self.objects:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        content = self.objects[key]
        wanted = request.headers.get("Range")
        if wanted:
            first, end = (wanted.decode() if isinstance(wanted, bytes) else wanted).removeprefix("bytes=").split("-")
            content = content[int(first) : int(end) + 1]
        stored = "Sat, 28 Nov 2026 00:00:00 GMT"
        return 200, {"ETag": _etag(content), "Content-Length": str(len(content)), "Last-Modified": stored}, content


def _holds(text: str | None, item: Item | None, body: Mapping[str, Any]) -> bool:
    """Whether a condition or a filter, if there is one, holds for an item."""
    return text is None or expressions.condition(text)(item or {}, Given.of(body))


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _conflicting(item: Item | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The conflicting item, if the request asks for it in a refusal."""
    return {"Item": item} if item and asked.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" else {}


def _error(code: str) -> dict[str, str]:
    return {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": code}


def tables() -> dict[str, Table]:
    """The tables of template.yaml by entity, empty, in memory only."""
    found = {}
    for body in resources("AWS::DynamoDB::Table").values():
        properties = resolved(body["Properties"])
        indexes = [
            (
                index["IndexName"],
                tuple(part["AttributeName"] for part in index["KeySchema"]),
                tuple(index["Projection"].get("NonKeyAttributes", ())),
            )
            for index in properties.get("GlobalSecondaryIndexes", ())
        ]
        name = properties["TableName"]
        key = tuple(part["AttributeName"] for part in properties["KeySchema"])
        found[name.removeprefix(f"{STACK}-")] = Table(name, key, indexes)
    return found
