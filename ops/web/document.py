"""The OpenAPI document of /api/v1, made of the types that the views give and of the actions' own fields."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypedDict

from pydantic import TypeAdapter

from nexus.prices import Cost
from nexus.version import VERSION
from ops.cost import CostLine, Idle
from ops.figures import TaskFigures
from ops.waiting import Wait
from ops.web.actions import ACTIONS

PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["what", "why", "do", "exit_code"],
            "properties": {
                "what": {"type": "string", "description": "What happened"},
                "why": {"type": "string"},
                "do": {"type": "string", "description": "What to do about it"},
                "exit_code": {"type": "integer", "description": "As the command's"},
            },
        }
    },
}
OUTCOME: Final[Mapping[str, Any]] = {
    "oneOf": [
        {
            "type": "object",
            "description": "What it would do",
            "required": ["question", "lines", "confirm_with", "confirmed"],
            "properties": {
                "question": {"type": "string"},
                "lines": {"type": "array", "items": {"type": "string"}},
                "confirm_with": {
                    "type": "object",
                    "description": "Fields to add to the confirmation, so that it affects no more than this",
                },
                "confirmed": {"const": False},
            },
        },
        {
            "type": "object",
            "description": "What it did",
            "required": ["done", "confirmed"],
            "properties": {"done": {"type": "string"}, "confirmed": {"const": True}},
        },
    ]
}
FIELDS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "queue": ({"type": "string"}, "A queue's name"),
    "maximum": ({"type": "integer", "minimum": 2, "maximum": 1000}, "Sandboxes at once"),
    "id": (
        {"oneOf": [{"type": "string", "format": "uuid"}, {"type": "array", "items": {"type": "string"}}]},
        "A run's id, or several",
    ),
    "query": ({"type": "string"}, "Runs by a query, as the filter of the page takes it; unless id is given"),
    "task": ({"type": "string"}, "A task's name"),
    "error": ({"type": "string"}, "The type of a dead letter's error"),
    "until": ({"type": "number"}, "Leaves out dead letters that arrived later, in seconds since 1970"),
    "args": ({"type": "object"}, "Arguments"),
    "countdown": ({"type": ["number", "string"]}, "Runs it after this delay: seconds, or a text such as 90s or 2h"),
    "eta": ({"type": "string"}, "Runs it at this time: RFC 3339; UTC if it has no zone. Not with countdown"),
    "expires": (
        {"type": ["number", "string"]},
        "Revokes the run if an attempt, including a retry, would start later: as countdown, or a time as eta",
    ),
    "status": ({"type": "string"}, "The run's status as the plan gives it: one that has another by then is left alone"),
    "dollars": ({"type": "string"}, "At most this many a day, or none; unchanged if left out"),
    "runs": ({"type": "string"}, "Attempts per day at most, or none; unchanged if left out"),
    "declared": ({"type": "boolean"}, "Back to what the catalogue declares"),
    "expression": ({"type": "string"}, "cron(...) or rate(...), in UTC"),
}
ASKED: Final[Mapping[str, str]] = {
    "q": "A query, as the filter of the page takes it",
    "limit": "Runs at most: 1 to 10,000",
    "after": "`next` of the page before",
    "task": "A task's name",
    "error": "An error's type",
    "queue": "A queue's name",
}


class Error(TypedDict):
    """Why a run failed; `path` and `traceback` are null where they were not kept."""

    type: str
    message: str
    path: str | None
    traceback: str | None


class RunCost(TypedDict):
    """Dollars of a run's attempts that have ended, what they are for, and what was used (nexus.runs.spent)."""

    dollars: float
    of: Cost
    used: dict[str, float]


class Costs(TypedDict):
    """Dollars of the runs of the last seven days, of today (UTC), and of a month at this rate, with idle
    resources (dollars a month)."""

    today: CostLine
    week: CostLine
    month_ahead: float
    by_task: list[CostLine]
    by_queue: list[CostLine]
    by_day: list[CostLine]
    idle: list[Idle]
    prices: dict[str, str]


class Listed(TypedDict):
    """A run in a list. Spans are in seconds; `took` is from the start of the last attempt to the end."""

    id: str
    task: str | None
    queue: str | None
    status: str
    args: dict[str, Any] | None
    sent_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    eta: datetime | None
    took: float | None
    attempts: int
    parent: str | None
    segment: int | None
    progress: list[int] | None
    info: Any
    error: Error | None
    log: str | None
    cost: RunCost | None


class Run(Listed):
    """A run, with its result and what it waits for."""

    result: Any
    waits_for: list[Wait]


class Runs(TypedDict):
    """A page of runs; `next` is `after` of the next one, null at the end. `examined` counts the records read."""

    runs: list[Listed]
    next: str | None
    examined: int


class DeadLetter(TypedDict):
    """A dead letter; `body` is its envelope, or text if it has none."""

    id: str
    message_id: str
    queue: str
    task: str | None
    error: str
    message: str
    attempts: int
    failed_at: datetime
    sent_at: datetime
    log: str | None
    args: dict[str, Any] | None
    body: Any


class TaskShown(TypedDict):
    """A task of the catalogue; `arguments` as a form shows them; `figures` of the last `figures_seconds`, null where
    nothing has ended."""

    name: str
    queue: str | None
    summary: str
    arguments: list[dict[str, Any]]
    time_limit: float
    max_retries: int
    schedule: str | None
    figures: TaskFigures | None
    figures_seconds: float


@dataclass(frozen=True, slots=True)
class Shape:
    """What a view is about, what it gives, and what may be asked."""

    about: str
    gives: Any
    asked: Sequence[str] = field(default=())


def openapi(views: Mapping[str, Shape]) -> dict[str, Any]:
    """The document, for the views by path."""
    schemas: dict[str, Any] = {"Problem": PROBLEM, "Outcome": OUTCOME}
    paths = {f"/api/v1/{path}": {"get": _view(path, shape, schemas)} for path, shape in views.items()}
    schemas["At"] = {"type": "string", "format": "date-time"}  # as `output.plain` writes it
    paths |= {f"/api/v1/do/{name}": {"post": _action(name)} for name in ACTIONS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nexus web", "version": VERSION},
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}, "schemas": schemas},
        "paths": paths,
    }


def _view(path: str, shape: Shape, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = TypeAdapter(shape.gives).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    parameters += [
        {"name": n, "in": "query", "required": False, "description": ASKED[n], "schema": {"type": "string"}}
        for n in shape.asked
    ]
    operation = "get_" + re.sub(r"\W+", "_", path).strip("_")
    responses = _responses("As the command's --json", schema)
    return {"summary": shape.about, "operationId": operation, "parameters": parameters, "responses": responses}


def _action(name: str) -> dict[str, Any]:
    action = ACTIONS[name]
    properties: dict[str, Any] = {one: {**FIELDS[one][0], "description": FIELDS[one][1]} for one in action.fields}
    properties["confirmed"] = {"type": "boolean", "description": "Without it nothing is done"}
    if action.lasting:
        properties["stack"] = {"type": "string", "description": "In prod, the stack's name"}
    body = {"content": {"application/json": {"schema": {"type": "object", "properties": properties}}}}
    return {
        "summary": f"{action.about}; without `confirmed`, what it would do",
        "operationId": name.replace("-", "_"),
        "requestBody": body,
        "responses": _responses("What it would do, or did", {"$ref": "#/components/schemas/Outcome"}),
    }


def _responses(about: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "200": {"description": about, "content": {"application/json": {"schema": schema}}},
        "default": {"description": "What, why, and what to do", "content": problem},
    }
