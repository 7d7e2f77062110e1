"""The run record as its readers see it: one item per run."""

import json
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nexus.backend.store import Item, number, numbers

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

    @classmethod
    def of(cls, error: BaseException) -> "RunError":
        """The error of an exception, whatever its text holds or does: as a record and SQS take it."""
        kind = type(error)
        try:
            message = str(error)
        except Exception as fault:  # noqa: BLE001 - an exception's own __str__ is a task's code
            message = f"(its text cannot be had: {type(fault).__name__})"
        frames = "".join(traceback.format_tb(error.__traceback__))
        return cls(
            clean(kind.__name__)[:200],
            clean(message)[:MESSAGE_LIMIT] or "no message",
            clean(f"{kind.__module__}.{kind.__qualname__}")[:400],
            clean(frames)[-TRACEBACK_LIMIT:],
        )

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its record tells it. Times are seconds since 1970, UTC; None where they have not come."""

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
    place: str | None = None
    """The key of a unique task's place that the run takes or has."""

    children: tuple[str, ...] = ()
    phase: int = 0
    total: int = 0
    waits: bool = False
    """A fan-out whose segments have all been sent, or a group: it has no lease, and its members end it."""

    earlier: tuple[int, ...] = ()
    """How many runs each member of a group has before its last; empty where none has any."""

    chunks_done: frozenset[int] = frozenset()
    chunks_failed: frozenset[int] = frozenset()
    progress: tuple[int, int, str] | None = None
    info: Any = None
    """What the task shows of itself besides its progress."""

    cursor: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def fanned_out(self) -> bool:
        return self.total > 0

    @classmethod
    def of(cls, item: Item) -> "RunRecord":
        """The record in an item."""
        progress = _json(item, "progress")
        error = _json(item, "error")
        return cls(
            id=_text(item, "id"),
            status=item.get("status", "UNKNOWN"),  # type: ignore[arg-type]
            task=_text(item, "task"),
            queue=_text(item, "queue"),
            args=_json(item, "args"),
            attempts=int(number(item, "attempts") or 0),
            sent_at=number(item, "sent_at"),
            started_at=number(item, "started_at"),
            ended_at=number(item, "ended_at"),
            eta=number(item, "eta"),
            lease_until=number(item, "lease_until"),
            result=_text(item, "result") or None,
            error=RunError(**error) if error else None,
            log=_text(item, "log") or None,
            parent=_text(item, "parent") or None,
            segment=None if "segment" not in item else int(number(item, "segment") or 0),
            place=_text(item, "place") or None,
            children=tuple(_json(item, "children") or ()),
            phase=int(number(item, "phase") or 0),
            total=int(number(item, "total") or 0),
            waits=bool(item.get("waits", False)),
            earlier=tuple(_json(item, "earlier") or ()),
            chunks_done=numbers(item, "chunks_done"),
            chunks_failed=numbers(item, "chunks_failed"),
            progress=(progress[0], progress[1], progress[2]) if progress else None,
            info=progress[3] if progress and len(progress) > 3 else None,
            cursor=_json(item, "cursor"),
        )


def _text(item: Item, name: str) -> str:
    value = item.get(name, "")
    return value if isinstance(value, str) else ""


def _json(item: Item, name: str) -> Any:
    text = _text(item, name)
    return json.loads(text) if text else None


def compact(value: Any) -> str:
    """JSON without spaces, as records and keys carry it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def error_text(error: RunError) -> str:
    """An error as a record keeps it."""
    kept = {"type": error.type, "message": error.message, "path": error.path, "traceback": error.traceback}
    return compact({name: value for name, value in kept.items() if value})


_UNUSUAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """The text with U+FFFD for each character that SQS or UTF-8 refuses: control characters, surrogates, U+FFFE/F."""
    return _UNUSUAL.sub("\ufffd", text)
