"""A catalogue for the runtime's tests, which do not use the network's tasks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from pydantic import Field, field_validator

from nexus.registry import register
from nexus.tasks import Arguments, NoArguments, Result, RetryPolicy, Task, Unique

QUEUES = {"uploads": 9, "welcomes": 8, "analytics": 5, "default": 2}


class Counted(Result):
    """Numbers that the segments of a fan-out add up."""

    rows_read: int = 0
    changed: int = 0

    @property
    def shortfall(self) -> str | None:
        return None if self.rows_read or self.changed else "nothing to count"

    def add(self, *others: Self) -> Self:
        parts = (self, *others)
        return self.model_copy(
            update={name: sum(getattr(part, name) for part in parts) for name in ("rows_read", "changed")}
        )


class SendNote(Arguments):
    """A note to somebody."""

    user_id: str = Field(min_length=1, max_length=128)
    kind: str = Field(min_length=1, max_length=40)
    text: str = Field(min_length=1, max_length=1_000_000)
    link: str | None = None


class NoteSent(Result):
    """The note's id."""

    notification_id: str | None = None
    reason: str | None = None

    @property
    def shortfall(self) -> str | None:
        return self.reason


send_note = Task(
    name="send_note", queue="default", arguments=SendNote, result=NoteSent, summary="Sends a note.", time_limit=20
)


class LikeNote(SendNote):
    """A note whose check raises what pydantic does not expect, as a lookup does."""

    @field_validator("kind")
    @classmethod
    def known(cls, kind: str) -> str:
        return {"like": kind}[kind]


def like_note() -> Task[Any, Any]:
    """`send_note` with another check; made when it is needed, for a catalogue has one task of a name."""
    return replace(send_note, arguments=LikeNote)


class Welcome(Arguments):
    """Whom to welcome."""

    user_id: str


welcome = Task(name="welcome", queue="welcomes", arguments=Welcome, result=NoteSent, summary="Welcomes somebody.")


class ProcessUpload(Arguments):
    """An uploaded object."""

    bucket: str = Field(min_length=3, max_length=63)
    key: str = Field(min_length=1, max_length=1024)
    version_id: str | None = None
    event_order: str = ""


class UploadReport(Result):
    """The outcome."""

    post_id: str
    status: str


process_upload = Task(
    name="process_upload",
    queue="uploads",
    arguments=ProcessUpload,
    result=UploadReport,
    summary="Processes an upload.",
    time_limit=280,
    retry=RetryPolicy(max_retries=3, base=20, cap=300),
    on_upload=True,
)

count_rows = Task(
    name="count_rows",
    queue="analytics",
    arguments=NoArguments,
    result=Counted,
    summary="Counts all rows, one run at a time.",
    time_limit=840,
    unique=Unique(),
)


class MakeReport(Arguments):
    """The report's day."""

    day: str | None = None


class ReportPart(Arguments):
    """What a report's segments and its second phase take: the day, and whether this is the last phase."""

    day: str
    last: bool = False


make_report = Task(
    name="make_report",
    queue="analytics",
    arguments=MakeReport,
    part=ReportPart,
    result=Counted,
    summary="Makes the report of a day, one run at a time for each.",
    time_limit=840,
    unique=Unique(key=("day",)),
)

NOTE: Mapping[str, Any] = {"user_id": "u-1", "kind": "like", "text": "hello"}

register(__name__)
