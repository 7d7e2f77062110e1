"""The run record as its readers see it: one item per run."""

import json
import os
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nexus.backend.store import Item
from nexus.errors import ConfigurationError, InvalidMessage, TimeLimitExceeded, UnknownTask
from nexus.runs.payloads import ResultExpired
from nexus.runs.spent import Spent
from nexus.values import compact

type Status = Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED", "UNKNOWN"]

ENDED = ("SUCCESS", "FAILURE", "REVOKED")


MESSAGE_LIMIT = 4000
TRACEBACK_LIMIT = 6000


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed: the exception's class name and its message.

    `path` is the class's dotted path. `traceback` is the end of the traceback: files, lines and source, no values.
    """

    type: str
    message: str
    path: str = ""
    traceback: str = ""
    fault: str = ""
    """The fault, described without any argument's value; not stored in the record."""

    @classmethod
    def own(cls, kind: str, message: str) -> "RunError":
        """An error that no exception represents, in this package's own words."""
        return cls(kind, message, fault=message)

    @classmethod
    def stored(cls, kept: Mapping[str, str]) -> "RunError":
        """The error in a record, without what a newer version added before it was rolled back."""
        return cls(**{name: text for name, text in kept.items() if name in cls.__match_args__})

    @property
    def shown(self) -> str:
        """The error for a log line: without its message, which may quote an argument."""
        return f"{self.type}: {self.fault}" if self.fault else self.type

    @classmethod
    def of(cls, error: BaseException) -> "RunError":
        """The error of an exception, whatever its text contains or does, in a form that a record and SQS accept."""
        kind = type(error)
        try:
            message = str(error)
        except Exception as fault:  # noqa: BLE001 - an exception's own __str__ is a task's code
            message = f"(its text is not available: {type(fault).__name__})"
        stack = traceback.extract_tb(error.__traceback__)
        frames = "".join(stack.format())
        return cls(
            clean(kind.__name__)[:200],
            clean(message)[:MESSAGE_LIMIT] or "no message",
            clean(f"{kind.__module__}.{kind.__qualname__}")[:400],
            clean(frames)[-TRACEBACK_LIMIT:],
            clean(_fault(error) or _place(stack)),
        )

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


def _fault(error: BaseException) -> str:
    """An error's text, if this package, AWS or the operating system wrote it."""
    if isinstance(error, InvalidMessage):
        return error.fault
    if isinstance(error, ConfigurationError | UnknownTask | TimeLimitExceeded | ResultExpired | ImportError):
        return str(error)
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return f"[Errno {error.errno}] {os.strerror(error.errno)}"
    response, operation = getattr(error, "response", None), getattr(error, "operation_name", None)
    if not isinstance(response, Mapping) or "Error" not in response:
        return ""
    code = str(response["Error"]["Code"])
    return f"{code} ({operation})" if isinstance(operation, str) and operation.isidentifier() else code


def _place(stack: traceback.StackSummary) -> str:
    """The line of code that raised the exception."""
    return f"at {stack[-1].filename.rpartition('/')[2]}:{stack[-1].lineno} in {stack[-1].name}" if stack else ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its record describes it. Times are seconds since 1970, UTC; None if not reached yet."""

    id: str
    status: Status
    task: str = ""
    queue: str = ""
    args: Mapping[str, Any] | None = None
    attempts: int = 0
    sent_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    eta: float | None = None
    lease_until: float | None = None
    result: str | None = None
    error: RunError | None = None
    log: str | None = None
    parent: str | None = None
    segment: int | None = None
    origin: str | None = None
    """What sent it, `rule` or `upload`; None for the client."""

    place: str | None = None
    """The key of the unique-task place that the run takes or has."""

    children: tuple[str, ...] = ()
    phase: int = 0
    total: int = 0
    waits: bool = False
    """A fan-out whose segments have all been sent, or a group: it has no lease, and its members end it."""

    earlier: tuple[int, ...] = ()
    """How many runs each member of a group has before its last; empty if none has any."""

    chunks_done: frozenset[int] = frozenset()
    chunks_failed: frozenset[int] = frozenset()
    progress: tuple[int, int, str] | None = None
    info: Any = None
    """What the task reports about itself besides its progress."""

    cursor: Mapping[str, Any] | None = None
    spent: Spent | None = None
    """What its attempts have used; None until the first has ended."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def fanned_out(self) -> bool:
        return self.total > 0

    def leased_until(self, now: float) -> float | None:
        """When the lease of the attempt at work ends; None if there is no such attempt."""
        until = self.lease_until
        return until if self.status == "STARTED" and until is not None and until > now else None

    @classmethod
    def of(cls, item: Item) -> "RunRecord":
        """Parses the record in an item."""
        kept: Mapping[str, Any] = item
        get = kept.get
        progress, error = _json(get("progress")), _json(get("error"))
        return cls(
            id=get("id", ""),
            status=get("status", "UNKNOWN"),
            task=get("task", ""),
            queue=get("queue", ""),
            args=_json(get("args")),
            attempts=int(get("attempts", 0)),
            sent_at=get("sent_at"),
            started_at=get("started_at"),
            ended_at=get("ended_at"),
            eta=get("eta"),
            lease_until=get("lease_until"),
            result=get("result"),
            error=RunError.stored(error) if error else None,
            log=get("log"),
            parent=get("parent"),
            segment=get("segment"),
            origin=get("origin"),
            place=get("place"),
            children=tuple(_json(get("children")) or ()),
            phase=int(get("phase", 0)),
            total=int(get("total", 0)),
            waits=bool(get("waits", False)),
            earlier=tuple(_json(get("earlier")) or ()),
            chunks_done=get("chunks_done", frozenset()),
            chunks_failed=get("chunks_failed", frozenset()),
            progress=(progress[0], progress[1], progress[2]) if progress else None,
            info=progress[3] if progress and len(progress) > 3 else None,
            cursor=_json(get("cursor")),
            spent=Spent.of(item),
        )


def _json(text: str | None) -> Any:
    return json.loads(text) if text else None


def error_text(error: RunError) -> str:
    """An error as a record stores it."""
    kept = {"type": error.type, "message": error.message, "path": error.path, "traceback": error.traceback}
    return compact({name: value for name, value in kept.items() if value})


# The refused characters are listed: [^...] of the accepted ones takes 3 ms to compile, ten times as long.
_UNUSUAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Replaces each character that SQS or UTF-8 refuses by U+FFFD: control characters, surrogates, U+FFFE/F."""
    return _UNUSUAL.sub("\ufffd", text)
