"""DynamoDB, S3, SES, Scheduler and Secrets Manager in this process's memory: for applications' tests and eager mode.

The clients are botocore's own, so presigned forms, paginators and exceptions work as usual; only the response comes
from here. Tables have the keys that `nexus.aws.table.Table` declares. TTL never removes items. Operations that the
project does not use are not implemented, and raise an error that says so.
"""

import hashlib
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from nexus import clock, cron
from nexus.aws import expressions
from nexus.aws.dynamodb import Schema, from_attribute, schemas
from nexus.aws.expressions import Given, Item, Update, ValidationError
from nexus.settings import IN_MEMORY

if TYPE_CHECKING:
    from datetime import datetime

    from botocore.session import Session

REGION = "us-east-1"
NOWHERE = "https://aws.invalid"
"""Host of presigned addresses: .invalid never resolves (RFC 2606), so no request leaves a test."""


class Refusal(Exception):
    """An error response of a service; `also` has the response's other members."""

    def __init__(self, code: str, message: str = "", **also: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.response = {"Error": {"Code": code, "Message": message or code}, **also}


# --- DynamoDB --------------------------------------------------------------------------------------------------------


class MemoryTable:
    """The items of a table, by key."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.items: dict[tuple[str, ...], Item] = {}

    def key(self, values: Item) -> tuple[str, ...]:
        """The key in an item, or in a request's Key."""
        _refuse_empty(values, self.schema.key)
        return tuple(values[name]["S"] for name in self.schema.key)

    def keys(self, batch: Sequence[Item]) -> list[tuple[str, ...]]:
        """The keys in the items, or the requests' Keys, of a batch."""
        found = [self.key(values) for values in batch]
        if len(set(found)) < len(found):
            raise ValidationError("Provided list of item keys contains duplicates")
        return found

    def refuse_unless(self, request: Mapping[str, Any], existing: Item | None) -> None:
        """Raises Refusal when the request's condition does not hold for the existing item."""
        text = request.get("ConditionExpression")
        if text and not expressions.condition(text)(existing or {}, Given.of(request)):
            returns_old = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and existing is not None
            also = {"Item": existing} if returns_old else {}
            raise Refusal("ConditionalCheckFailedException", "The conditional request failed", **also)

    def changed(self, request: Mapping[str, Any]) -> tuple[tuple[str, ...], Item | None, Item | None]:
        """Applies a Put, Update, Delete or ConditionCheck: the key, the item before it and after it."""
        key = self.key(request["Item"] if "Item" in request else request["Key"])
        before, after = self.items.get(key), request.get("Item")
        self.refuse_unless(request, before)
        if "UpdateExpression" in request:
            after = expressions.update(request["UpdateExpression"]).applied(before or request["Key"], Given.of(request))
        return key, before, after

    def write(self, key: tuple[str, ...], after: Item | None) -> None:
        if after is None:
            self.items.pop(key, None)
            return
        for names in self.schema.indexes.values():
            _refuse_empty(after, names)
        for name, value in after.items():
            if value in ({"NS": []}, {"SS": []}):
                raise ValidationError(f"{name}: an empty set")
        self.items[key] = {
            name: {"N": expressions.number_text(value["N"])} if "N" in value else value for name, value in after.items()
        }

    def in_order(self, request: Mapping[str, Any]) -> list[Item]:
        """The items that a Query or Scan reads: those in its index, grouped by partition and sorted."""
        names = self.names(request)
        held = [item for item in self.items.values() if all(name in item for name in names)]
        return sorted(held, key=partial(place, names))

    def names(self, request: Mapping[str, Any]) -> tuple[str, ...]:
        """The attributes that order a Query or Scan: the key of its index, then the table's own."""
        index = self.schema.indexes[request["IndexName"]] if "IndexName" in request else ()
        return tuple(dict.fromkeys((*index, *self.schema.key)))


def _refuse_empty(values: Item, names: Sequence[str]) -> None:
    for name in names:
        if values.get(name) == {"S": ""}:
            raise ValidationError(f"{name}: an empty string as a key")


def place(names: Sequence[str], item: Item) -> tuple[Any, ...]:
    """The sort position of an item, or of the key in LastEvaluatedKey: strings compare by their bytes."""
    values = (from_attribute(item[name]) for name in names)
    return tuple(value.encode() if isinstance(value, str) else value for value in values)


class DynamoDB:
    """The operations that `nexus.aws.table` uses."""

    def __init__(self) -> None:
        self.tables: dict[str, MemoryTable] = {}

    def table(self, name: str) -> MemoryTable:
        entity = name.removeprefix(f"{IN_MEMORY['NEXUS_STACK']}-")
        if entity not in schemas:
            raise Refusal("ResourceNotFoundException", f"no table {name} is declared in this process")
        # A module may declare a table after the first request for it.
        table = self.tables.setdefault(name, MemoryTable(schemas[entity]))
        table.schema = schemas[entity]
        return table

    def describe_table(self, TableName: str) -> Mapping[str, Any]:  # noqa: N803 - as AWS calls it
        table = self.table(TableName)

        def size(**index: str) -> tuple[int, int]:
            items = table.in_order(index)
            return len(items), sum(len(str(item)) for item in items)

        items, size_bytes = size()
        described = [(name, *size(IndexName=name)) for name in table.schema.indexes]
        indexes = [{"IndexName": name, "ItemCount": n, "IndexSizeBytes": b} for name, n, b in described]
        return {"Table": {"ItemCount": items, "TableSizeBytes": size_bytes, "GlobalSecondaryIndexes": indexes}}

    def get_item(self, **request: Any) -> Mapping[str, Any]:
        table = self.table(request["TableName"])
        found = table.items.get(table.key(request["Key"]))
        return {} if found is None else {"Item": _projected(found, request)}

    def batch_get_item(self, RequestItems: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: N803
        responses = {}
        for name, request in RequestItems.items():
            table = self.table(name)
            found = [table.items.get(key) for key in table.keys(request["Keys"])]
            responses[name] = [_projected(item, request) for item in found if item is not None]
        return {"Responses": responses}

    def query(self, **request: Any) -> Mapping[str, Any]:
        matches = expressions.condition(request["KeyConditionExpression"])
        given = Given.of(request)
        items = [item for item in self.table(request["TableName"]).in_order(request) if matches(item, given)]
        if not request.get("ScanIndexForward", True):
            items.reverse()
        return self._page(items, request)

    def scan(self, **request: Any) -> Mapping[str, Any]:
        segment, total = request.get("Segment", 0), request.get("TotalSegments", 1)
        table = self.table(request["TableName"])
        by = table.names(request)[0]
        items = [item for item in table.in_order(request) if zlib.crc32(str(item[by]).encode()) % total == segment]
        return self._page(items, request)

    def _page(self, items: Sequence[Item], request: Mapping[str, Any]) -> Mapping[str, Any]:
        names = self.table(request["TableName"]).names(request)
        if start := request.get("ExclusiveStartKey"):  # the item of that key may have been deleted
            after, backwards = place(names, start), not request.get("ScanIndexForward", True)
            items = [
                item for item in items if (place(names, item) < after if backwards else place(names, item) > after)
            ]
        page = items[: request.get("Limit", len(items))]
        filters = request.get("FilterExpression")
        kept = [item for item in page if not filters or expressions.condition(filters)(item, Given.of(request))]
        response: dict[str, Any] = {"Count": len(kept), "ScannedCount": len(page)}
        if request.get("Select") != "COUNT":
            response["Items"] = [_projected(item, request) for item in kept]
        if page and len(page) < len(items):
            response["LastEvaluatedKey"] = {name: page[-1][name] for name in names}
        return response

    def put_item(self, **request: Any) -> Mapping[str, Any]:
        table = self.table(request["TableName"])
        key, _, after = table.changed(request)
        table.write(key, after)
        return {}

    def update_item(self, **request: Any) -> Mapping[str, Any]:
        table = self.table(request["TableName"])
        key, _, after = table.changed(request)
        table.write(key, after)
        return {"Attributes": table.items[key]} if request.get("ReturnValues") == "ALL_NEW" else {}

    def delete_item(self, **request: Any) -> Mapping[str, Any]:
        table = self.table(request["TableName"])
        key, _, _ = table.changed(request)
        table.write(key, None)
        return {}

    def batch_write_item(self, RequestItems: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: N803
        for name, writes in RequestItems.items():
            table = self.table(name)
            requests = [write.get("PutRequest") or write["DeleteRequest"] for write in writes]
            table.keys([request.get("Item") or request["Key"] for request in requests])
            for request in requests:
                key, _, after = table.changed(request)
                table.write(key, after)
        return {}

    def batch_execute_statement(self, Statements: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:  # noqa: N803
        return {"Responses": [self._execute(one) for one in Statements]}

    def _execute(self, one: Mapping[str, Any]) -> Mapping[str, Any]:
        text, parameters = one["Statement"], one["Parameters"]
        table, wanted = self.table(text.split('"')[1]), expressions.statement(text)
        given = Given.positional(parameters)
        if wanted.insert:
            after = wanted.applied({}, given)
            if table.key(after) in table.items:
                return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
            table.write(table.key(after), after)
            return {}
        first = text[: text.index("WHERE")].count("?")
        key = tuple(value["S"] for value in parameters[first : first + len(table.schema.key)])
        return self._change(table, key, wanted, given, one)

    @staticmethod
    def _change(
        table: MemoryTable, key: tuple[str, ...], wanted: Update, given: Given, one: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        before = table.items.get(key)
        if before is None and wanted.delete:
            return {}
        if before is None or not wanted.when(before, given):
            returns_old = one.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and before is not None
            old = {"Item": before} if returns_old else {}
            return {"Error": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", **old}}
        table.write(key, None if wanted.delete else wanted.applied(before, given))
        return {"Item": before if wanted.delete else table.items[key]} if wanted.returning else {}

    def transact_write_items(
        self,
        TransactItems: Sequence[Mapping[str, Any]],  # noqa: N803
        **_: Any,
    ) -> Mapping[str, Any]:
        writes, reasons = [], []
        for action in TransactItems:
            ((kind, request),) = action.items()
            table = self.table(request["TableName"])
            try:
                key, before, after = table.changed(request)
                writes.append((table, key, before if kind == "ConditionCheck" else after))
                reasons.append({"Code": "None"})
            except Refusal:
                reasons.append({"Code": "ConditionalCheckFailed"})
        if len(writes) < len(reasons):
            raise Refusal("TransactionCanceledException", str(reasons), CancellationReasons=reasons)
        for table, key, after in writes:
            table.write(key, after)
        return {}


def _projected(item: Item, request: Mapping[str, Any]) -> Item:
    if "ProjectionExpression" not in request:
        return dict(item)
    given = Given.of(request)
    names = [given.name(token.strip()) for token in request["ProjectionExpression"].split(",")]
    return {name: item[name] for name in names if name in item}


# --- S3, SES, Scheduler, Secrets Manager -----------------------------------------------------------------------------


class S3:
    """Objects by bucket and key. Older versions are not kept."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._put_at: dict[tuple[str, str], datetime] = {}

    def _found(self, request: Mapping[str, Any], code: str = "NoSuchKey") -> tuple[bytes, dict[str, Any]]:
        where = request["Bucket"], request["Key"]
        if where not in self.objects:
            raise Refusal(code, "The specified key does not exist.")
        data, kind = self.objects[where]
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        modified = self._put_at[where]
        return data, {"ContentLength": len(data), "ContentType": kind, "ETag": etag, "LastModified": modified}

    def _put(self, bucket: str, key: str, data: bytes, kind: str) -> None:
        self.objects[bucket, key] = data, kind
        self._put_at[bucket, key] = clock.date(int(clock.now()))

    def put_object(self, **request: Any) -> Mapping[str, Any]:
        body = request.get("Body", b"")
        data = body.read() if hasattr(body, "read") else body.encode() if isinstance(body, str) else bytes(body)
        kind = request.get("ContentType", "binary/octet-stream")
        self._put(request["Bucket"], request["Key"], data, kind)
        return {}

    def get_object(self, **request: Any) -> Mapping[str, Any]:
        from botocore.response import StreamingBody

        data, about = self._found(request)
        if span := request.get("Range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last) + 1 if last else None]
        return {**about, "ContentLength": len(data), "Body": StreamingBody(BytesIO(data), len(data))}

    def head_object(self, **request: Any) -> Mapping[str, Any]:
        return self._found(request, "404")[1]

    def copy_object(self, **request: Any) -> Mapping[str, Any]:
        source = unquote(request["CopySource"]).partition("?")[0].lstrip("/")
        bucket, _, key = source.partition("/")
        data, about = self._found({"Bucket": bucket, "Key": key})
        self._put(request["Bucket"], request["Key"], data, about["ContentType"])
        return {}

    def delete_object(self, **request: Any) -> Mapping[str, Any]:
        self.objects.pop((request["Bucket"], request["Key"]), None)
        return {}

    def list_objects_v2(self, **request: Any) -> Mapping[str, Any]:
        prefix, after = request.get("Prefix", ""), request.get("StartAfter", "")
        keys = sorted(k for bucket, k in self.objects if bucket == request["Bucket"] and k.startswith(prefix))
        return {"IsTruncated": False, "Contents": [{"Key": k, **self._listed(request, k)} for k in keys if k > after]}

    def list_object_versions(self, **request: Any) -> Mapping[str, Any]:
        keys = [listed["Key"] for listed in self.list_objects_v2(**request)["Contents"]]
        return {"IsTruncated": False, "Versions": [{"Key": key, "VersionId": "null"} for key in keys]}

    def delete_objects(self, Bucket: str, Delete: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:  # noqa: N803
        for one in Delete["Objects"]:
            self.delete_object(Bucket=Bucket, Key=one["Key"])
        return {}

    def _listed(self, request: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        _, about = self._found({**request, "Key": key})
        return {"Size": about["ContentLength"], "ETag": about["ETag"], "LastModified": about["LastModified"]}


class Sesv2:
    """Accepts every mail and keeps it as given."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []

    @staticmethod
    def get_account() -> Mapping[str, Any]:
        return {"SendingEnabled": True, "SendQuota": {"MaxSendRate": 1_000_000.0}}

    def send_email(self, **request: Any) -> Mapping[str, Any]:
        self.sent.append(request)
        return {"MessageId": f"memory-{len(self.sent)}"}


class Scheduler:
    """The schedules of one group, as requested. `nexus.testing` fires them."""

    def __init__(self) -> None:
        self.schedules: dict[str, Mapping[str, Any]] = {}

    def create_schedule(self, **request: Any) -> Mapping[str, Any]:
        if request["Name"] in self.schedules:
            raise Refusal("ConflictException", f"Schedule {request['Name']} already exists.")
        return self._keep(request)

    def update_schedule(self, **request: Any) -> Mapping[str, Any]:
        self.get_schedule(request["Name"])
        return self._keep(request)

    def _keep(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        expression, now = request["ScheduleExpression"], clock.date(clock.now())
        zone = ZoneInfo(request.get("ScheduleExpressionTimezone", "UTC"))
        try:
            next(cron.scheduler_times(expression, zone, now, now), None)
        except cron.BadSchedule as error:
            raise Refusal("ValidationException", f"Invalid Schedule Expression {expression}. {error}") from None
        self.schedules[request["Name"]] = request
        return {}

    def get_schedule(self, Name: str, **_: Any) -> Mapping[str, Any]:  # noqa: N803
        if Name not in self.schedules:
            raise Refusal("ResourceNotFoundException", f"Schedule {Name} does not exist.")
        return self.schedules[Name]

    def delete_schedule(self, Name: str, **_: Any) -> Mapping[str, Any]:  # noqa: N803
        self.get_schedule(Name)
        del self.schedules[Name]
        return {}

    def list_schedules(self, NamePrefix: str = "", **_: Any) -> Mapping[str, Any]:  # noqa: N803
        return {"Schedules": [{"Name": name} for name in sorted(self.schedules) if name.startswith(NamePrefix)]}


class SecretsManager:
    """Every secret exists and was never rotated."""

    @staticmethod
    def get_secret_value(SecretId: str, VersionStage: str = "AWSCURRENT") -> Mapping[str, Any]:  # noqa: N803
        if VersionStage != "AWSCURRENT":
            raise Refusal("ResourceNotFoundException", SecretId)
        return {"SecretString": f"the secret of {SecretId}"}


# --- the clients -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """All services, empty."""

    dynamodb: DynamoDB = field(default_factory=DynamoDB)
    s3: S3 = field(default_factory=S3)
    sesv2: Sesv2 = field(default_factory=Sesv2)
    scheduler: Scheduler = field(default_factory=Scheduler)
    secretsmanager: SecretsManager = field(default_factory=SecretsManager)
    lock: threading.Lock = field(default_factory=threading.Lock)


_in_force = [Memory()]


def memory() -> Memory:
    """The state that this process keeps in memory."""
    return _in_force[-1]


@contextmanager
def use(replacement: Memory) -> Iterator[None]:
    """Replaces that state within the block, in every thread."""
    _in_force.append(replacement)
    try:
        yield
    finally:
        _in_force.pop()


def make_client(session: "Session", service: str, config: Any) -> Any:
    """A botocore client whose requests are answered from memory."""
    client: Any = session.create_client(
        service,
        region_name=REGION,
        endpoint_url=NOWHERE,
        aws_access_key_id="memory",
        aws_secret_access_key="memory",  # noqa: S106 - nothing it signs leaves the process
        config=config,
    )
    client.meta.events.register("before-parameter-build", _note)
    client.meta.events.register("before-call", _respond)
    return client


def _note(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
    context["in_memory"] = params


class _HttpResponse:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


def _respond(model: Any, context: Mapping[str, Any], **_: Any) -> tuple[_HttpResponse, Mapping[str, Any]]:
    here, service = memory(), str(model.service_model.service_name)
    operation = _operation(here, service, model.name)
    parameters = {name: value for name, value in context["in_memory"].items() if name != "ReturnConsumedCapacity"}
    try:
        with here.lock:
            status, response = 200, dict(operation(**parameters))
    except Refusal as refusal:
        status, response = 400, refusal.response
    except ValidationError as error:
        status, response = 400, {"Error": {"Code": "ValidationException", "Message": str(error)}}
    return _HttpResponse(status), {**response, "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": 0}}


def _operation(here: Memory, service: str, name: str) -> Callable[..., Mapping[str, Any]]:
    found = getattr(getattr(here, service, None), _method(name), None)
    if found is None:
        raise NotImplementedError(f"nexus.aws.memory does not implement {name} of {service}")
    method: Callable[..., Mapping[str, Any]] = found
    return method


@cache
def _method(operation: str) -> str:
    from botocore import xform_name

    return str(xform_name(operation))
