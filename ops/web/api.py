"""The same views and actions as JSON, for programs: /api/v1, /metrics, /healthz. The key is a bearer token."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ops import audit, catalogue, dead_letters, runs
from ops.cli import output
from ops.cli.monitor import View
from ops.dead_letters import Group
from ops.functions import Function
from ops.health import Health
from ops.logs import Line
from ops.problems import ExitCode, Problem, explained
from ops.schedules import Scheduled
from ops.timeline import Member, TimeLine
from ops.web import document, metrics, money
from ops.web.actions import Plan, perform
from ops.web.document import Shape, openapi
from ops.web.forms import read as read_form
from ops.web.views import WEEK, Firing, Site, fields

STATUS = {ExitCode.USAGE: 400, ExitCode.NOT_CONFIRMED: 409, ExitCode.DENIED: 403, ExitCode.UNREACHABLE: 503}


def views(site: Site) -> Mapping[str, tuple[Shape, Callable[[Request], Any]]]:
    """The views by path: (shape, handler)."""

    def found(request: Request) -> Any:
        asked = request.query_params
        limit = asked.get("limit", "50")
        if not limit.isdecimal() or not 1 <= int(limit) <= 10_000:
            raise Problem(f"{limit!r} is not a limit", "1 to 10,000.", code=ExitCode.USAGE)
        page = site.runs(asked.get("q", ""), int(limit), asked.get("after"))
        shown = [runs.as_plain(record, result=False) for record in page.runs]
        return {"runs": shown, "next": page.after, "examined": page.examined}

    def letters(request: Request) -> Any:
        asked = request.query_params
        return [
            dead_letters.as_plain(x) for x in site.letters(asked.get("task"), asked.get("error"), asked.get("queue"))
        ]

    def tasks(_: Request) -> Any:
        back, recent = site.figures()
        return [
            {
                "name": task.name,
                "queue": task.queue,
                "summary": task.summary,
                "arguments": fields(task),
                "time_limit": task.time_limit,
                "max_retries": task.retry.max_retries,
                "schedule": task.schedule.expression if task.schedule else None,
                "figures": recent.get(task.name),
                "figures_seconds": back,
            }
            for task in catalogue.tasks().values()
        ]

    def run_id(request: Request) -> str:
        return str(request.path_params["id"])

    def known(request: Request) -> str:
        return str(site.task(request.path_params["task"]).name)

    of_letters = ("task", "error", "queue")
    return {
        "status": (Shape("Health: queues, rules, alarms, and what is wrong", Health), lambda _: site.health()),
        "monitor": (Shape("Live queues, current runs and recent ends", View), lambda _: site.monitor()),
        "runs": (Shape("A page of the run history", document.Runs, ("q", "limit", "after")), found),
        "runs/{id}": (
            Shape("One run, with its result and what it waits for", document.Run),
            lambda request: runs.as_plain(site.run(run_id(request)), waits=True),
        ),
        "runs/{id}/log": (Shape("A run's log", list[Line]), lambda request: site.log(run_id(request))),
        "runs/{id}/timeline": (
            Shape("A run's waits, attempts, parts, and what follows", TimeLine),
            lambda request: site.time_line(run_id(request)),
        ),
        "runs/{id}/parts": (
            Shape("The parts of a fan-out or a group", list[Member]),
            lambda request: site.members(run_id(request)),
        ),
        "dead-letters": (Shape("Dead letters", list[document.DeadLetter], of_letters), letters),
        "dead-letters/groups": (Shape("Dead letters by task and error", list[Group]), lambda _: site.groups()),
        "schedules": (Shape("The periodic tasks", list[Scheduled]), lambda _: site.schedules(time.time() - WEEK)),
        "schedules/{task}/firings": (
            Shape("A schedule's firings of the last seven days", list[Firing]),
            lambda request: site.firings(known(request)),
        ),
        "tasks": (
            Shape(
                "The catalogue, with the figures of the last day, or less where that has many attempts",
                list[document.TaskShown],
            ),
            tasks,
        ),
        "functions": (Shape("The functions", list[Function]), lambda _: site.functions()),
        **money.views(site),
        "audit": (Shape("Who changed what", list[audit.Entry]), lambda _: audit.entries(100)),
    }


def routes(site: Site) -> list[Route]:
    """The API's routes."""

    def shown(view: Callable[[Request], Any]) -> Callable[[Request], Response]:
        return lambda request: _respond(lambda: view(request))

    async def act(request: Request) -> Response:
        def change(form: Mapping[str, Any]) -> Any:
            outcome = perform(site, request.path_params["action"], form)
            if isinstance(outcome, Plan):
                asked = {"question": outcome.question, "lines": outcome.lines, "confirm_with": outcome.confirm_with}
                return {**asked, "confirmed": False}
            return {"done": outcome, "confirmed": True}

        try:
            form = await read_form(request)
        except Problem as problem:
            return _refused(problem, status(problem))
        return await run_in_threadpool(lambda: _respond(lambda: change(form)))

    def measured(_: Request) -> Response:
        try:
            return Response(metrics.text(site), media_type=metrics.MEDIA_TYPE)
        except Exception as error:
            problem = explained(error)
            if problem is None:
                raise
            return PlainTextResponse(f"{problem.what} {problem.why}\n", 503)

    found = views(site)
    return [
        *(Route(f"/api/v1/{path}", shown(view)) for path, (_, view) in found.items()),
        Route("/api/v1/do/{action}", act, methods=["POST"]),
        Route(
            "/api/v1/openapi.json", lambda _: JSONResponse(openapi({path: shape for path, (shape, _) in found.items()}))
        ),
        Route("/metrics", measured),
        Route("/healthz", lambda _: PlainTextResponse("ok\n")),
    ]


def _respond(ask: Callable[[], Any]) -> Response:
    try:
        return Response(output.json_text(ask()), media_type="application/json")
    except Exception as error:
        problem = explained(error)
        if problem is None:
            raise
        return _refused(problem, status(error))


def _refused(problem: Problem, code: int) -> Response:
    error = {"what": problem.what, "why": problem.why, "do": problem.do, "exit_code": int(problem.code)}
    return Response(output.json_text({"error": error}), code, media_type="application/json")


def status(error: Exception) -> int:
    """The HTTP status for an error: 404 is our own "there is no such run", and not a request that AWS throttled."""
    problem = explained(error)
    if problem is None:
        return 500
    return STATUS.get(problem.code, 404 if problem is error else 503)
