"""The same views and actions as JSON, for programs: /api/v1, /metrics, /healthz. They send the key as a bearer."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from nexus.version import VERSION
from ops import audit, catalogue, dead_letters, runs
from ops.cli import output
from ops.problems import ExitCode, Problem, explained
from ops.web.actions import ACTIONS, Plan, perform
from ops.web.forms import read as read_form
from ops.web.views import Site, fields

METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
STATUS = {ExitCode.USAGE: 400, ExitCode.NOT_CONFIRMED: 409, ExitCode.DENIED: 403, ExitCode.UNREACHABLE: 503}


def views(site: Site) -> Mapping[str, tuple[str, Callable[[Request], Any]]]:
    """By path: what it gives, and the function that gives it."""

    def found(request: Request) -> Any:
        asked = request.query_params
        limit = asked.get("limit", "50")
        if not limit.isdecimal() or not 1 <= int(limit) <= 10_000:
            raise Problem(f"{limit!r} is no limit", "1 to 10,000.", code=ExitCode.USAGE)
        page = site.runs(asked.get("q", ""), int(limit), asked.get("after"))
        shown = [runs.as_plain(record, result=False) for record in page.runs]
        return {"runs": shown, "next": page.after, "looked_at": page.looked_at}

    def letters(request: Request) -> Any:
        asked = request.query_params
        return [
            dead_letters.as_plain(x) for x in site.letters(asked.get("task"), asked.get("error"), asked.get("queue"))
        ]

    def tasks(_: Request) -> Any:
        told = site.figures()
        return [
            {
                "name": task.name,
                "queue": task.queue,
                "summary": task.summary,
                "arguments": fields(task),
                "time_limit": task.time_limit,
                "max_retries": task.retry.max_retries,
                "schedule": task.schedule.expression if task.schedule else None,
                "figures": told.get(task.name),
            }
            for task in catalogue.tasks().values()
        ]

    return {
        "status": ("Health: queues, rules, alarms, and what is wrong", lambda _: site.health()),
        "monitor": ("Queues live, what runs and what has ended", lambda _: site.monitor()),
        "runs": ("A page of the run history", found),
        "runs/{id}": ("One run", lambda request: runs.as_plain(site.run(request.path_params["id"]), waits=True)),
        "runs/{id}/log": ("What a run wrote", lambda request: site.log(request.path_params["id"])),
        "dead-letters": ("Dead letters", letters),
        "dead-letters/groups": ("Dead letters by task and error", lambda _: site.groups()),
        "schedules": ("The periodic tasks", lambda _: site.schedules(7)),
        "tasks": ("The catalogue", tasks),
        "functions": ("The functions", lambda _: site.functions()),
        "audit": ("Who changed what", lambda _: audit.entries(100)),
    }


def routes(site: Site) -> list[Route]:
    """All of them."""

    def shown(view: Callable[[Request], Any]) -> Callable[[Request], Response]:
        return lambda request: _answer(lambda: view(request))

    async def act(request: Request) -> Response:
        def change(form: Mapping[str, Any]) -> Any:
            outcome = perform(site, request.path_params["action"], form)
            if isinstance(outcome, Plan):
                return {"question": outcome.question, "lines": outcome.lines, "confirmed": False}
            return {"done": outcome, "confirmed": True}

        try:
            form = await read_form(request)
        except Problem as problem:
            return _refused(problem)
        return await run_in_threadpool(lambda: _answer(lambda: change(form)))

    found = views(site)
    return [
        *(Route(f"/api/v1/{path}", shown(view)) for path, (_, view) in found.items()),
        Route("/api/v1/do/{action}", act, methods=["POST"]),
        Route("/api/v1/openapi.json", lambda _: JSONResponse(openapi(found))),
        Route("/metrics", lambda _: Response(metrics(site), media_type=METRICS)),
        Route("/healthz", lambda _: PlainTextResponse("ok\n")),
    ]


def _answer(ask: Callable[[], Any]) -> Response:
    try:
        return Response(output.json_text(ask()), media_type="application/json")
    except Exception as error:
        problem = explained(error)
        if problem is None:
            raise
        return _refused(problem)


def _refused(problem: Problem) -> Response:
    error = {"what": problem.what, "why": problem.why, "do": problem.do, "exit_code": int(problem.code)}
    return Response(output.json_text({"error": error}), STATUS.get(problem.code, 404), media_type="application/json")


def openapi(found: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document."""
    answers = {
        "200": {"description": "As the command's --json"},
        "default": {"description": "What, why, and what to do"},
    }
    paths: dict[str, Any] = {}
    for path, (about, _) in found.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
        asked = {"runs": ("q", "limit", "after"), "dead-letters": ("task", "error", "queue")}.get(path, ())
        parameters += [{"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in asked]
        paths[f"/api/v1/{path}"] = {"get": {"summary": about, "parameters": parameters, "responses": answers}}
    for name, action in ACTIONS.items():
        properties: dict[str, Any] = {field: {} for field in action.fields}
        properties |= {"confirmed": {"type": "boolean"}, "stack": {"type": "string"}}
        body = {"content": {"application/json": {"schema": {"type": "object", "properties": properties}}}}
        about = f"{action.about}; without `confirmed`, what it would do"
        paths[f"/api/v1/do/{name}"] = {"post": {"summary": about, "requestBody": body, "responses": answers}}
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nexus web", "version": VERSION},
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": bearer}},
        "paths": paths,
    }


def metrics(site: Site) -> str:
    """The queues and the attempts of the last day, in OpenMetrics."""
    view, told, health = site.monitor(), site.figures(), site.health()
    oldest = {queue.name: queue.oldest for queue in health.queues}
    families: dict[str, tuple[str, list[tuple[dict[str, str], float]]]] = {
        "nexus_queue_waiting_messages": ("Messages that wait", [({"queue": q.name}, q.waiting) for q in view.queues]),
        "nexus_queue_in_flight_messages": (
            "Messages in flight",
            [({"queue": q.name}, q.in_flight) for q in view.queues],
        ),
        "nexus_queue_dead_letters": ("Dead letters", [({"queue": q.name}, q.dead) for q in view.queues]),
        "nexus_queue_running": ("Runs that have started", [({"queue": q.name}, q.running) for q in view.queues]),
        "nexus_queue_on": (
            "Whether its function takes messages",
            [({"queue": q.name}, int(q.on)) for q in view.queues],
        ),
        "nexus_queue_oldest_seconds": (
            "Age of the oldest message",
            [({"queue": name}, age) for name, age in oldest.items() if age is not None],
        ),
        "nexus_task_attempts_last_day": (
            "Attempts that ended within a day",
            [
                ({"task": one.task, "outcome": outcome}, getattr(one, outcome))
                for one in told.values()
                for outcome in ("success", "failure", "retry", "other")
            ],
        ),
        "nexus_task_duration_seconds": (
            "Durations of attempts within a day",
            [
                ({"task": one.task, "quantile": quantile}, value)
                for one in told.values()
                for quantile, value in (("0.5", one.median), ("0.95", one.p95), ("1", one.longest))
            ],
        ),
        "nexus_findings": (
            "What is wrong",
            [({"severity": s}, sum(f.severity == s for f in health.findings)) for s in ("failed", "warning")],
        ),
    }
    lines = []
    for name, (about, samples) in families.items():
        lines += [f"# HELP {name} {about}.", f"# TYPE {name} gauge"]
        for labels, value in samples:
            shown = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{shown}}} {value}")
    return "\n".join([*lines, "# EOF", ""])


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
