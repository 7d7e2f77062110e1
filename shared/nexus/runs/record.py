"""The run record as its readers see it: one item per run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nexus.backend.store import Item, number, numbers

type Status = Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED", "UNKNOWN"]

ENDED = ("SUCCESS", "FAILURE", "REVOKED")


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed: the exception's class name and its message."""

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> "RunError":
        """The error of an exception."""
        return cls(type(error).__name__, str(error) or "no message")

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
    children: tuple[str, ...] = ()
    phase: int = 0
    total: int = 0
    waits: bool = False
    """A fan-out whose segments have all been sent, or a group: it has no lease, and its members end it."""

    chunks_done: frozenset[int] = frozenset()
    chunks_failed: frozenset[int] = frozenset()
    progress: tuple[int, int, str] | None = None
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
            error=RunError(error["type"], error["message"]) if error else None,
            log=_text(item, "log") or None,
            parent=_text(item, "parent") or None,
            segment=None if "segment" not in item else int(number(item, "segment") or 0),
            children=tuple(_json(item, "children") or ()),
            phase=int(number(item, "phase") or 0),
            total=int(number(item, "total") or 0),
            waits=bool(item.get("waits", False)),
            chunks_done=numbers(item, "chunks_done"),
            chunks_failed=numbers(item, "chunks_failed"),
            progress=(progress[0], progress[1], progress[2]) if progress else None,
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
    return compact({"type": error.type[:200], "message": error.message[:4000]})
