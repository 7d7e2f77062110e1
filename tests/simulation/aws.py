"""SQS, DynamoDB, EventBridge Scheduler and S3 as AWS documents them, in memory and with their own clock.

Each takes the calls that botocore's low-level clients take, and raises what they raise, so the project's own stores and
transports run on them unchanged.
"""

import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from botocore.exceptions import ClientError

from nexus.aws.expressions import Given, Item, ValidationError, condition, number_text, statement, update

MIB = 1024 * 1024
ITEM_BYTES = 400 * 1024
TWELVE_HOURS = 43_200
_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Clock:
    """The simulated time: seconds since 1970."""

    def __init__(self, now: float) -> None:
        self.now = now


class ConditionalCheckFailedException(ClientError):
    pass


class ResourceNotFoundException(ClientError):
    pass


class ConflictException(ClientError):
    pass


class NoSuchKey(ClientError):
    pass


_KINDS: dict[str, type[ClientError]] = {
    kind.__name__: kind
    for kind in (ClientError, ConditionalCheckFailedException, ResourceNotFoundException, ConflictException, NoSuchKey)
}


def refusal(code: str, message: str = "", operation: str = "", **also: Any) -> ClientError:
    """An error as botocore raises it."""
    response: Any = {"Error": {"Code": code, "Message": message}, **also}
    return _KINDS.get(code, ClientError)(response, operation)


# --- SQS -------------------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Stored:
    """A message in a queue. `visible` is the time from which it can be received."""

    id: str
    body: str
    attributes: Mapping[str, Any]
    sent: float
    visible: float
    receives: int = 0
    received: float = 0.0
    receipt: str = ""
    copy: int = 0


@dataclass(eq=False, slots=True)
class Queue:
    """A standard queue, and its rule for a message that was received too often."""

    name: str
    visibility: float
    retention: float = 345_600.0
    dead: "Queue | None" = None
    max_receives: int = 20
    messages: list[Stored] = field(default_factory=list)
    redriven: list[str] = field(default_factory=list)
    """The bodies that SQS itself has moved to the dead letters."""

    def visible(self, now: float) -> list[Stored]:
        return [message for message in self.messages if message.visible <= now]


class Sqs:
    """Standard queues. Messages arrive in any order; a receipt is valid until the message is received again."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self.queues: dict[str, Queue] = {}
        self._clock, self._chance = clock, chance
        self._sent: dict[int, int] = {}

    def add(self, name: str, visibility: float, max_receives: int = 20) -> None:
        dead = Queue(f"{name}-dead", 30.0, retention=1_209_600.0)
        self.queues |= {name: Queue(name, visibility, dead=dead, max_receives=max_receives), dead.name: dead}

    def expire(self) -> list[Stored]:
        """Deletes messages past their retention, and returns them."""
        gone = []
        for queue in self.queues.values():
            old = [message for message in queue.messages if message.sent + queue.retention <= self._clock.now]
            queue.messages = [message for message in queue.messages if message not in old]
            gone += old
        return gone

    def get_queue_url(self, QueueName: str) -> Mapping[str, Any]:  # noqa: N803 - as AWS calls it
        if QueueName not in self.queues:
            raise refusal("AWS.SimpleQueueService.NonExistentQueue", QueueName)
        return {"QueueUrl": QueueName}

    def send_message(self, **entry: Any) -> Mapping[str, Any]:
        queue = self.queues[entry["QueueUrl"]]
        fault = _fault(entry)
        if fault:
            raise refusal(*fault, "SendMessage")
        return {"MessageId": self._take(queue, entry)}

    def send_message_batch(self, QueueUrl: str, Entries: Sequence[Any], failing: int = 0) -> Mapping[str, Any]:  # noqa: N803
        """`failing` entries (by chance) fail for SQS's own reasons."""
        _check_batch(Entries)
        if sum(map(_size, Entries)) > MIB:
            raise refusal("AWS.SimpleQueueService.BatchRequestTooLong", "over 1048576 bytes", "SendMessageBatch")
        unlucky = {entry["Id"] for entry in self._chance.sample(list(Entries), min(failing, len(Entries)))}
        response: dict[str, list[Any]] = {"Successful": [], "Failed": []}
        for entry in Entries:
            fault = _fault(entry)
            if fault:
                failed = {"Code": fault[0], "Message": fault[1], "SenderFault": True}
                response["Failed"].append({"Id": entry["Id"], **failed})
            elif entry["Id"] in unlucky:
                response["Failed"].append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
            else:
                message_id = self._take(self.queues[QueueUrl], entry)
                response["Successful"].append({"Id": entry["Id"], "MessageId": message_id})
        return {kind: entries for kind, entries in response.items() if entries}

    def _take(self, queue: Queue, entry: Mapping[str, Any]) -> str:
        now, delay = self._clock.now, entry.get("DelaySeconds", 0)
        body, attributes = entry["MessageBody"], entry.get("MessageAttributes", {})
        queue.messages.append(Stored(self._new_id(body), body, attributes, now, now + delay))
        return queue.messages[-1].id

    def _new_id(self, body: str) -> str:
        """An id that does not depend on the order in which messages were sent, so that different histories can meet."""
        mark = zlib.crc32(body.encode(errors="surrogatepass"))
        self._sent[mark] = self._sent.get(mark, 0) + 1
        return f"{mark:08x}.{self._sent[mark]}"

    def duplicate(self, queue: Queue, message: Stored) -> None:
        """Makes another copy of a message receivable, as when one of SQS's servers has missed its receive."""
        copies = 1 + max(one.copy for one in queue.messages if one.id == message.id)
        queue.messages.append(replace(message, visible=self._clock.now, receipt="", copy=copies))

    def move(self, letter: Stored, dead: Queue, to: Queue) -> None:
        """One step of a message move task: the message keeps its attributes, and counts as new."""
        dead.messages.remove(letter)
        now = self._clock.now
        to.messages.append(Stored(self._new_id(letter.body), letter.body, letter.attributes, now, now))

    def receive(self, queue: Queue, most: int) -> list[Stored]:
        """Receives at least one of the visible messages; one received too often moves to the dead letters."""
        visible = queue.visible(self._clock.now)
        return self.take(queue, self._chance.sample(visible, min(most, len(visible))))

    def take(self, queue: Queue, messages: Sequence[Stored]) -> list[Stored]:
        """Receives these messages."""
        found = []
        now = self._clock.now
        for message in messages:
            if message.receives >= queue.max_receives and queue.dead:
                queue.messages.remove(message)
                queue.redriven.append(message.body)
                message.receives, message.visible = 0, now
                queue.dead.messages.append(message)
                continue
            message.receives += 1
            message.received, message.visible = now, now + queue.visibility
            message.receipt = f"{message.id}/{message.copy}/{message.receives}"
            found.append(message)
        return found

    def receive_message(self, QueueUrl: str, MaxNumberOfMessages: int = 1, **_: Any) -> Mapping[str, Any]:  # noqa: N803
        messages = [as_received(message) for message in self.receive(self.queues[QueueUrl], MaxNumberOfMessages)]
        return {"Messages": messages} if messages else {}

    def delete_message_batch(self, QueueUrl: str, Entries: Sequence[Any]) -> Mapping[str, Any]:  # noqa: N803
        _check_batch(Entries)
        receipts = {entry["ReceiptHandle"] for entry in Entries}
        queue = self.queues[QueueUrl]
        queue.messages = [message for message in queue.messages if message.receipt not in receipts]
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def change_message_visibility_batch(
        self,
        QueueUrl: str,  # noqa: N803
        Entries: Sequence[Any],  # noqa: N803
        failing: int = 0,
    ) -> Mapping[str, Any]:
        """`failing` entries (by chance) fail for SQS's own reasons."""
        _check_batch(Entries)
        response: dict[str, list[Any]] = {"Successful": [], "Failed": []}
        now = self._clock.now
        unlucky = {entry["Id"] for entry in self._chance.sample(list(Entries), min(failing, len(Entries)))}
        for entry in Entries:
            if entry["Id"] in unlucky:
                response["Failed"].append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
                continue
            held = [m for m in self.queues[QueueUrl].messages if m.receipt == entry["ReceiptHandle"]]
            seconds = entry["VisibilityTimeout"]
            fault = ""
            if not held or held[0].visible <= now:
                fault = "MessageNotInflight"
            elif not 0 <= seconds <= TWELVE_HOURS or now - held[0].received + seconds > TWELVE_HOURS:
                fault = "InvalidParameterValue"
            if fault:
                response["Failed"].append({"Id": entry["Id"], "Code": fault, "SenderFault": True})
            else:
                held[0].visible = now + seconds
                response["Successful"].append({"Id": entry["Id"]})
        return {kind: entries for kind, entries in response.items() if entries}

    def get_queue_attributes(self, QueueUrl: str, **_: Any) -> Mapping[str, Any]:  # noqa: N803
        messages, now = self.queues[QueueUrl].messages, self._clock.now
        visible = len(self.queues[QueueUrl].visible(now))
        delayed = sum(1 for message in messages if message.visible > now and not message.receives)
        counts = {"": visible, "Delayed": delayed, "NotVisible": len(messages) - visible - delayed}
        return {"Attributes": {f"ApproximateNumberOfMessages{name}": str(count) for name, count in counts.items()}}


def as_received(message: Stored) -> Mapping[str, Any]:
    """A message as ReceiveMessage gives it."""
    return {
        "MessageId": message.id,
        "ReceiptHandle": message.receipt,
        "Body": message.body,
        "MessageAttributes": message.attributes,
        "Attributes": {
            "ApproximateReceiveCount": str(message.receives),
            "SentTimestamp": str(int(message.sent * 1000)),
        },
    }


def _check_batch(entries: Sequence[Any]) -> None:
    if not 1 <= len(entries) <= 10:
        raise refusal("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", str(len(entries)))
    if len({entry["Id"] for entry in entries}) != len(entries):
        raise refusal("AWS.SimpleQueueService.BatchEntryIdsNotDistinct")


def _size(entry: Mapping[str, Any]) -> int:
    """Bytes that count: the body, and each attribute's name, type and value."""
    attributes = entry.get("MessageAttributes", {}).items()
    texts = [entry["MessageBody"], *(name + value["DataType"] + value["StringValue"] for name, value in attributes)]
    return sum(len(text.encode(errors="surrogatepass")) for text in texts)


def _fault(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    attributes = entry.get("MessageAttributes", {})
    values = [attribute["StringValue"] for attribute in attributes.values()]
    if not entry["MessageBody"] or any(map(_REFUSED.search, (entry["MessageBody"], *values))):
        return "InvalidMessageContents", "an empty body, or a character that XML 1.0 does not allow"
    if not all(values) or len(attributes) > 10:
        return "InvalidParameterValue", "an attribute without a value, or more than ten"
    if _size(entry) > MIB:
        return "InvalidParameterValue", "One or more parameters are invalid. Message must be shorter than 1048576 bytes"
    if not 0 <= entry.get("DelaySeconds", 0) <= 900:
        return "InvalidParameterValue", "DelaySeconds must be between 0 and 900"
    group = entry.get("MessageGroupId", "g")
    if not re.fullmatch(r"[!-~]{1,128}", group):
        return "InvalidParameterValue", "MessageGroupId: 1 to 128 characters"
    return None


# --- DynamoDB --------------------------------------------------------------------------------------------------------

type Watch = Callable[[str, Item | None, Item | None], None]


class Dynamo:
    """One table, its key `id`. `watch` sees each write: the key, the item before and after."""

    def __init__(self, clock: Clock, chance: random.Random, watch: Watch) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self._clock, self._chance, self._watch = clock, chance, watch

    def expire(self) -> None:
        """Deletes items whose TTL has passed."""
        now = self._clock.now
        for key, item in list(self.items.items()):
            if "expires" in item and float(item["expires"]["N"]) <= now:
                del self.items[key]

    def _put(self, key: str, before: Item | None, after: dict[str, Any] | None) -> None:
        if after is None:
            self.items.pop(key, None)
        else:
            for name, value in after.items():
                if "N" in value:
                    after[name] = {"N": number_text(value["N"])}
                elif value in ({"NS": []}, {"SS": []}):
                    raise refusal("ValidationException", f"{name}: an empty set")
            if sum(len(value["S"]) for value in after.values() if "S" in value) > ITEM_BYTES:
                raise refusal("ValidationException", "Item size has exceeded the maximum allowed size")
            self.items[key] = after
        self._watch(key, before, after)

    def get_item(self, **request: Any) -> Mapping[str, Any]:
        item = self.items.get(request["Key"]["id"]["S"])
        return {} if item is None else {"Item": item}

    def batch_get_item(self, RequestItems: Mapping[str, Any], failing: int = 0, **_: str) -> Mapping[str, Any]:  # noqa: N803
        """`failing` keys (by chance) are left unprocessed."""
        ((table, request),) = RequestItems.items()
        keys = request["Keys"]
        if not 1 <= len(keys) <= 100 or len({key["id"]["S"] for key in keys}) != len(keys):
            raise refusal("ValidationException", "1 to 100 keys, each once")
        left = self._chance.sample(keys, min(failing, len(keys)))
        found = [self.items[key["id"]["S"]] for key in keys if key["id"]["S"] in self.items and key not in left]
        response: dict[str, Any] = {"Responses": {table: found}}
        return response | ({"UnprocessedKeys": {table: {**request, "Keys": left}}} if left else {})

    def update_item(self, **request: Any) -> Mapping[str, Any]:
        _encoded(request)
        key = request["Key"]["id"]["S"]
        before, given = self.items.get(key), Given.of(request)
        try:
            if "ConditionExpression" in request and not condition(request["ConditionExpression"])(before or {}, given):
                also = {"Item": before} if before is not None and _tells_old(request) else {}
                raise refusal("ConditionalCheckFailedException", "The conditional request failed", "UpdateItem", **also)
            changed = update(request.get("UpdateExpression", "")).applied(before or dict(request["Key"]), given)
        except ValidationError as error:
            raise refusal("ValidationException", str(error), "UpdateItem") from error
        self._put(key, before, changed)
        return {"Attributes": changed} if request.get("ReturnValues") == "ALL_NEW" else {}

    def put_item(self, **request: Any) -> Mapping[str, Any]:
        _encoded(request)
        key = request["Item"]["id"]["S"]
        before = self.items.get(key)
        if "ConditionExpression" in request and not condition(request["ConditionExpression"])(
            before or {}, Given.of(request)
        ):
            also = {"Item": before} if before is not None and _tells_old(request) else {}
            raise refusal("ConditionalCheckFailedException", "The conditional request failed", "PutItem", **also)
        self._put(key, before, dict(request["Item"]))
        return {}

    def batch_execute_statement(self, Statements: Sequence[Any], failing: int = 0, **_: str) -> Mapping[str, Any]:  # noqa: N803
        """`failing` statements (by chance) are throttled, and not carried out."""
        _encoded(Statements)
        keys = [self._key(one) for one in Statements]
        if not 1 <= len(Statements) <= 25 or len(set(keys)) != len(keys):
            raise refusal("ValidationException", "1 to 25 statements, each of an item of its own")
        throttled = set(self._chance.sample(range(len(keys)), min(failing, len(keys))))
        responses: list[Any] = []
        for n, (key, one) in enumerate(zip(keys, Statements, strict=True)):
            responses.append(_THROTTLED if n in throttled else self._execute(key, one))
        return {"Responses": responses}

    @staticmethod
    def _key(one: Mapping[str, Any]) -> str:
        """The key attribute's value: the first parameter of an INSERT, the first condition of other statements."""
        text, parameters = one["Statement"], one["Parameters"]
        place = 0 if text.startswith("INSERT") else text[: text.index("WHERE")].count("?")
        return str(parameters[place]["S"])

    def _execute(self, key: str, one: Mapping[str, Any]) -> Mapping[str, Any]:
        before, wanted = self.items.get(key), statement(one["Statement"])
        given = Given.positional(one["Parameters"])
        try:
            if wanted.insert:
                if before is not None:
                    return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
                self._put(key, None, wanted.applied({}, given))
                return {}
            if before is None or not wanted.when(before, given):
                old = {"Item": before} if before is not None and _tells_old(one) else {}
                return {"Error": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", **old}}
            changed = None if wanted.delete else wanted.applied(before, given)
        except ValidationError as error:
            return {"Error": {"Code": "ValidationError", "Message": str(error)}}
        self._put(key, before, changed)
        return {"Item": changed} if wanted.returning and changed is not None else {}


_THROTTLED = {"Error": {"Code": "ThrottlingError", "Message": "Throughput exceeds the current capacity"}}


def _tells_old(request: Mapping[str, Any]) -> bool:
    return request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"


def _encoded(request: Any) -> None:
    """Encodes like the project's client, which raises for values that are not JSON."""
    orjson.dumps(request)


# --- Scheduler and S3 ------------------------------------------------------------------------------------------------


KEYWORD = re.compile("<aws.scheduler.[a-z-]+>")


class Scheduler:
    """One-off schedules, each of which sends a message to a queue, and is deleted some time later."""

    deletes_after = 30.0

    def __init__(self, clock: Clock, sqs: Sqs) -> None:
        self.schedules: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self.fired: dict[str, float] = {}
        """The schedules that have fired and are not deleted yet: when they are."""

        self._clock, self._sqs = clock, sqs

    def create_schedule(self, Name: str, ScheduleExpression: str, Target: Any, **_: Any) -> None:  # noqa: N803
        if Name in self.schedules or Name in self.fired:
            raise refusal("ConflictException", f"Schedule {Name} already exists.", "CreateSchedule")
        if len(Target["Input"].encode(errors="surrogatepass")) > MIB or not re.fullmatch(r"[\w.-]{1,64}", Name):
            raise refusal("ValidationException", Name, "CreateSchedule")
        when = datetime.strptime(ScheduleExpression, "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=UTC).timestamp()
        entry = {
            "MessageBody": KEYWORD.sub("(replaced)", Target["Input"]),
            "MessageGroupId": Target.get("SqsParameters", {}).get("MessageGroupId", "g"),
        }
        queue = Target["Arn"].rpartition(":")[2]
        self.schedules[Name] = (when, {"queue": queue, "entry": entry})

    def delete_schedule(self, Name: str, **_: Any) -> None:  # noqa: N803
        if self.schedules.pop(Name, None) is None and self.fired.pop(Name, None) is None:
            raise refusal("ResourceNotFoundException", f"Schedule {Name} does not exist.", "DeleteSchedule")

    def get_schedule(self, Name: str, **_: Any) -> Mapping[str, Any]:  # noqa: N803
        if Name not in self.schedules and Name not in self.fired:
            raise refusal("ResourceNotFoundException", f"Schedule {Name} does not exist.", "GetSchedule")
        return {"Name": Name}

    def due(self) -> float | None:
        """The time of the next schedule."""
        return min((when for when, _ in self.schedules.values()), default=None)

    def fire(self) -> None:
        """Sends what is due, and deletes what was sent a while ago."""
        now = self._clock.now
        self.fired = {name: until for name, until in self.fired.items() if until > now}
        for name, (when, target) in list(self.schedules.items()):
            if when <= now:
                del self.schedules[name]
                self.fired[name] = now + self.deletes_after
                self._sqs.send_message(QueueUrl=target["queue"], **target["entry"])


class S3:
    """Objects of one bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, Key: str, Body: bytes, **_: Any) -> None:  # noqa: N803
        self.objects[Key] = Body

    def get_object(self, Key: str, **_: Any) -> Mapping[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise refusal("NoSuchKey", "The specified key does not exist.", "GetObject")
        return {"Body": _Body(self.objects[Key])}

    def delete_object(self, Key: str, **_: Any) -> None:  # noqa: N803
        self.objects.pop(Key, None)


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        return self._data

    def __repr__(self) -> str:
        return f"<{len(self._data)} bytes>"


# --- the clients -----------------------------------------------------------------------------------------------------

type Request = Callable[[str, str, Callable[..., Any], Mapping[str, Any]], Any]


class Exceptions:
    """A client's `exceptions`."""

    def __getattr__(self, name: str) -> type[ClientError]:
        return _KINDS[name]


class Meta:
    """A client's `meta`."""

    region_name = "eu-west-1"
    partition = "aws"


class Client:
    """Behaves like botocore's client of a service: every call is a request that the world handles."""

    exceptions = Exceptions()
    meta = Meta()

    def __init__(self, service: str, model: Any, request: Request) -> None:
        self._service, self._model, self._request = service, model, request

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        method = getattr(self._model, operation)
        if operation == "get_queue_url":
            return method  # type: ignore[no-any-return]  # called once per process

        def call(**parameters: Any) -> Any:
            return self._request(self._service, operation, method, parameters)

        self.__dict__[operation] = call
        return call


def clients(world: Mapping[str, Any], request: Request) -> dict[str, Client]:
    return {service: Client(service, model, request) for service, model in world.items()}
