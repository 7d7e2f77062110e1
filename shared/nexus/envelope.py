"""The single message format, for every sender: the client, a fan-out, an EventBridge rule or an operator."""

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticSerializationError

from nexus import clock
from nexus.errors import InvalidMessage
from nexus.ids import derived_id, made_by_producer
from nexus.values import described, faults_of, kinds

MAX_BYTES = 1_040_000
"""SQS accepts 1 MiB, attributes included; the difference leaves room for a dead letter's reason. SQS bills each 64 KiB.
"""

_REFUSED_BY_SQS = re.compile("[\ufffe\uffff]")

REFERENCE = r"^s3:results/[\w-]+/[\w.-]+\.json$"
_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def acceptable(text: str) -> str:
    """JSON in which the characters that SQS refuses are escaped."""
    return _REFUSED_BY_SQS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class TooLarge(InvalidMessage):
    """The arguments make a message larger than SQS accepts, or Scheduler."""

    def __init__(self, task: str, size: int, limit: int, message: str = "a message") -> None:
        fault = f"args: {size:,} bytes as {message}, over the limit of {limit:,}: pass a key, not the data"
        super().__init__(f"{task}: {fault}", fault)


class Segment(BaseModel):
    """A place in the run that waits for this one: `index` of `total`, in that run's phase.

    `kind` distinguishes a segment of a fan-out (the same task), a member of a group (any task) and the next phase of a
    fan-out (the same task, which may fan out again).
    """

    model_config = ConfigDict(frozen=True)

    index: int = Field(ge=0)
    total: int = Field(ge=1)
    phase: int = Field(default=1, ge=1)
    kind: Literal["fan_out", "group", "phase"] = "fan_out"


class Envelope(BaseModel):
    """What SQS carries, as JSON.

    `id` is the run's; `parent` the run that sent it or waits for it; `segment` its place in that run; `expires_at` the
    time after which no attempt starts; `trace` an X-Ray trace header; `group` the fair-queue group (a tenant, a user),
    by default the task's own; `origin` what sent it, if not the client (`rule`: an EventBridge rule, whose event has
    the same id); `refs` the arguments that are too large for the message, by name: where each is stored
    (`nexus.runs.payloads`).
    """

    model_config = ConfigDict(frozen=True)

    v: Literal[1] = 1
    id: str = Field(pattern=_UUID)
    task: str = Field(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=100)  # {1,100} in the pattern takes 28 ms to compile
    args: dict[str, Any] = Field(default_factory=dict)
    sent_at: AwareDatetime = Field(default_factory=lambda: clock.date(clock.now()))
    parent: str | None = Field(default=None, pattern=_UUID)
    segment: Segment | None = None
    expires_at: AwareDatetime | None = None
    trace: str | None = Field(default=None, max_length=512)
    group: str | None = Field(default=None, pattern=r"^[!-~]{1,128}$")
    origin: Literal["rule", "upload"] | None = None
    refs: dict[str, Annotated[str, Field(pattern=REFERENCE)]] | None = None

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Builds the envelope. Raises InvalidMessage, naming the field and its fault."""
        try:
            return cls(**fields)
        except ValidationError as error:
            raise _no_envelope(error) from None

    @property
    def is_part(self) -> bool:
        """Whether it is a segment or a phase of a fan-out, whose arguments the task set itself."""
        return self.segment is not None and self.segment.kind != "group"

    @property
    def own_segment(self) -> Segment | None:
        """The segment that the task sees: only that of a fan-out."""
        return self.segment if self.segment is not None and self.segment.kind == "fan_out" else None

    @property
    def recorded(self) -> bool:
        """Whether a PENDING record was written when it was sent. This is a guess, used only to save a request.

        The client gives tracked runs UUIDv7 ids; segments and untracked sends have other versions. EventBridge's event
        ids have any.
        """
        return self.origin is None and made_by_producer(self.id)

    def encode(self) -> str:
        """The JSON to send. Raises InvalidMessage if it is larger than SQS accepts, or not valid Unicode."""
        try:
            body = self.model_dump_json(exclude_none=True)
        except (PydanticSerializationError, UnicodeError) as error:
            fault = "args: not valid Unicode, or not JSON"
            raise InvalidMessage(f"{self.task}: {fault}: {error}", fault) from None
        body = acceptable(body)
        size = len(body.encode())
        if size > MAX_BYTES:
            raise TooLarge(self.task, size, MAX_BYTES)
        return body


FIRED_AT = "<aws.scheduler.scheduled-time>"
"""Scheduler replaces it with the time that it fires for: `2030-01-31T09:00:00Z`."""


def fired_id(name: str, at: str) -> str:
    """The id of the run that a periodic task's firing starts."""
    return derived_id("periodic", name, at)


def decode(body: str | bytes) -> Envelope:
    """Parses the envelope in a message's body. Raises InvalidMessage, naming the field and its fault.

    A periodic task's message has `fired`, its name and time, in place of an id. A dead letter of Scheduler has the
    request that it could not make: SQS may have moved it back.
    """
    try:
        return Envelope.model_validate_json(body)
    except ValidationError as error:
        if (fired := _fired(body)) is not None:
            return Envelope.of(**fired)
        if (unsent := unsent_message(body)) is not None:
            return decode(unsent)
        raise _no_envelope(error) from None


def unsent_message(body: str | bytes) -> str | None:
    """The message in a dead letter of Scheduler; None for any other body."""
    match _parsed(body):
        case {"MessageBody": str(message), "QueueUrl": str()}:
            return message
    return None


def _fired(body: str | bytes) -> dict[str, Any] | None:
    match value := _parsed(body):
        case {"fired": [str(name), str(at)]} if "id" not in value:
            fields = {field: item for field, item in value.items() if field != "fired"}
            return {**fields, "id": fired_id(name, at), "sent_at": at}
    return None


def _parsed(body: str | bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _no_envelope(error: ValidationError) -> InvalidMessage:
    faults = faults_of(error)
    return InvalidMessage(f"not an envelope: {described(faults)}", f"not an envelope: {kinds(faults)}")
