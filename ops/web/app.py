"""The pages and their parts. A page renders at once, without AWS requests; its parts load separately, and show
errors."""

import asyncio
import csv
import hashlib
import io
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from anyio.to_thread import current_default_thread_limiter
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from nexus.runs import payloads, tallies
from ops import catalogue, history, lookup, previews, runs, waiting
from ops.cli import output
from ops.problems import ExitCode, Problem, explained
from ops.web import api, money, show
from ops.web.actions import ACTIONS, Plan, perform
from ops.web.forms import read as read_form
from ops.web.guard import Guard
from ops.web.views import PAGE, Site, fields

PAGES = ("dead-letters", "schedules", "tasks", "functions", "cost", "audit")
LATEST = 8
COLUMNS = ("task", "status", "sent", "took", "attempts", "queue", "arguments", "error", "parent")
SHOWN = ("task", "status", "sent", "took", "arguments", "error")
EXPORTED = 10_000
RESULT = 100_000
"""Characters of a result that a page shows: it may be an object of many megabytes in S3."""

GROUPS = 19
"""Groups of dead letters shown individually; the twentieth is the rest."""

LOOK_EVERY = 3.0
"""Seconds between two looks at the queues. Each reads every queue's log twice, and CloudWatch Logs takes five such
requests a second of an account, in the regions where it takes fewest."""

THREADS = 400
"""Threads that serve requests at once. Each part of a page has one while AWS does not respond."""

VISIBLE = ("image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "video/mp4", "video/webm")
"""The content types served to a browser: none that can hold a script."""


class Pages:
    """The handlers. Each part is a function from a request to a template's name and values."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._templates = show.templates()

    def render(self, request: Request, name: str, **values: Any) -> HTMLResponse:
        """Renders a template with the values common to all. Makes no request to AWS, so it can show that AWS fails."""
        deployment = self.site.known_deployment
        common = {
            "site": self.site,
            "stack": deployment.stack,
            "stage": deployment.stage,
            "region": deployment.region,
            "prod": deployment.is_prod,
            "token": request.state.token,
            "path": request.url.path,
        }
        return HTMLResponse(self._templates.get_template(name).render(**common, **values))

    def page(self, name: str) -> Callable[[Request], Response]:
        """A page that needs only its path."""

        def show_page(request: Request) -> Response:
            return self.render(request, f"{name}.html")

        return show_page

    def runs_page(self, request: Request) -> Response:
        values = {"columns": COLUMNS, "usual": SHOWN, "chosen": _columns(request)}
        return self.render(request, "runs.html", query=request.query_params, **values)

    def part(self, make: Callable[[Request], tuple[str, dict[str, Any]]]) -> Callable[[Request], Response]:
        """A part of a page; an error is shown in its place."""

        def show_part(request: Request) -> Response:
            try:
                _ = self.site.deployment  # refreshed here: a deployment may have changed the queues and the tasks
                name, values = make(request)
                return self.render(request, name, **values)
            except Exception as error:  # noqa: BLE001 - any error is shown in the part's place
                return self.render(request, "parts/problem.html", problem=_problem(error))

        return show_part

    # --- overview ---

    def health(self, _: Request) -> tuple[str, dict[str, Any]]:
        return "parts/health.html", {"health": self.site.health()}

    def queues(self, _: Request) -> tuple[str, dict[str, Any]]:
        view = self.site.monitor()
        try:
            health = {queue.name: queue for queue in self.site.health().queues}
        except Exception:  # noqa: BLE001 - the part of the health shows it; the queues can be paused all the same
            health = {}
        return "parts/queues.html", {"view": view, "health": health}

    def activity(self, _: Request) -> tuple[str, dict[str, Any]]:
        return "parts/activity.html", {"view": self.site.monitor()}

    def upcoming(self, _: Request) -> tuple[str, dict[str, Any]]:
        return "parts/upcoming.html", {"schedules": [one for one in self.site.schedules() if one.next_at][:5]}

    # --- runs ---

    def runs(self, request: Request) -> tuple[str, dict[str, Any]]:
        asked = request.query_params
        text = asked.get("q", "")
        after = asked.get("after", "")
        before = None
        if text or after:
            found = self.site.runs(text, PAGE, after)
        else:
            before = None if asked.get("now") else self.site.newest_of_late()
            found = before or self.site.newest()
        query = [("q", text), *(("col", name) for name in asked.getlist("col"))]
        more = urlencode([*query, ("after", found.after)]) if found.after else None
        again = urlencode([*query, ("now", "1")]) if before else None
        here = urlencode([*query, ("after", after), ("now", "1")])
        values = {"found": found, "columns": _columns(request), "q": text, "more": more, "again": again, "here": here}
        return "parts/runs.html", {**values, "took": runs.took}

    def run(self, request: Request) -> tuple[str, dict[str, Any]]:
        record = self.site.run(request.path_params["id"])
        task = catalogue.tasks().get(record.task)
        facts = runs.as_plain(record, result=False)
        if record.fanned_out:
            facts["progress"] = tallies.progress(record)
        editable = task is not None and record.args is not None
        values = {"record": record, "facts": facts, "task": task, "editable": editable, "ended": record.ended}
        return "parts/run.html", {**values, "origin": "parent" if record.parent else record.origin}

    def run_waits(self, request: Request) -> tuple[str, dict[str, Any]]:
        record = self.site.run(request.path_params["id"])
        return "parts/waits.html", {"waits": waiting.reasons(record), "ended": record.ended}

    def run_made(self, request: Request) -> tuple[str, dict[str, Any]]:
        record = self.site.run(request.path_params["id"])
        return "parts/made.html", {"id": record.id, "pictures": previews.of(record), "ended": record.ended}

    def run_result(self, request: Request) -> tuple[str, dict[str, Any]]:
        record = self.site.run(request.path_params["id"])
        result = None if record.result is None else payloads.load(record.result)
        return "parts/result.html", {"id": record.id, "result": result, "most": RESULT, "ended": record.ended}

    def run_log(self, request: Request) -> tuple[str, dict[str, Any]]:
        return "parts/log.html", {"lines": self.site.log(request.path_params["id"])[-500:]}

    def run_timeline(self, request: Request) -> tuple[str, dict[str, Any]]:
        line = self.site.time_line(request.path_params["id"])
        return "parts/timeline.html", {"line": line, "final": not line.in_progress}

    def run_parts(self, request: Request) -> tuple[str, dict[str, Any]]:
        return "parts/members.html", {"members": self.site.members(request.path_params["id"])}

    # --- the others ---

    def groups(self, _: Request) -> tuple[str, dict[str, Any]]:
        known = {} if catalogue.missing() else catalogue.tasks()
        return "parts/groups.html", {"groups": self.site.groups(), "most": GROUPS, "tasks": known}

    def letters(self, request: Request) -> tuple[str, dict[str, Any]]:
        asked = request.query_params
        found = self.site.letters(asked.get("task"), asked.get("error"), asked.get("queue"))
        return "parts/letters.html", {"letters": found[:200], "count": len(found), "query": dict(asked)}

    def schedules(self, _: Request) -> tuple[str, dict[str, Any]]:
        found = self.site.schedules()
        times = {one.task: self.site.next_times(one.expression) if one.on else [] for one in found}
        return "parts/schedules.html", {"schedules": found, "times": times}

    def firings(self, request: Request) -> tuple[str, dict[str, Any]]:
        return "parts/firings.html", {"firings": self.site.firings(request.path_params["task"])[-40:]}

    def tasks(self, _: Request) -> tuple[str, dict[str, Any]]:
        back, figures = self.site.figures()
        return "parts/tasks.html", {"tasks": list(catalogue.tasks().values()), "figures": figures, "back": back}

    def task_figures(self, request: Request) -> tuple[str, dict[str, Any]]:
        back, figures = self.site.figures()
        return "parts/figures.html", {"facts": figures.get(request.path_params["task"]), "back": back}

    def latest(self, request: Request) -> tuple[str, dict[str, Any]]:
        found = history.find(history.Query(task=request.path_params["task"]), LATEST)
        return "parts/latest.html", {"found": found, "took": runs.took}

    def functions(self, _: Request) -> tuple[str, dict[str, Any]]:
        return "parts/functions.html", {"functions": self.site.functions()}

    def audit(self, _: Request) -> tuple[str, dict[str, Any]]:
        from ops import audit

        return "parts/audit.html", {"entries": audit.entries(100)}

    # --- pages with their own path ---

    def refuse(self, request: Request, error: Exception) -> HTMLResponse:
        """A page that says why another cannot be shown."""
        response = self.render(request, "problem.html", problem=_problem(error))
        response.status_code = api.status(error)
        return response

    def run_page(self, request: Request) -> Response:
        text = request.path_params["id"]
        if not lookup.is_whole(text):
            try:
                return RedirectResponse(f"/runs/{lookup.run_id(text)}", 303)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
                return self.refuse(request, error)
        return self.render(request, "run.html", id=text)

    def picture(self, request: Request) -> Response:
        """A run's picture, read with the operator's credentials: the page contacts no other host."""
        try:
            found = previews.of(self.site.run(request.path_params["id"]))[request.path_params["name"]]
            body = found.read()
        except LookupError:
            return PlainTextResponse("This picture no longer exists.", 404)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            problem = _problem(error)
            return PlainTextResponse(f"{problem.what}. {problem.why}", api.status(error))
        if found.content_type not in VISIBLE:
            return PlainTextResponse(f"{found.content_type} is not shown here.", 415)
        headers = {"Cache-Control": "private, max-age=600", "Accept-Ranges": "bytes"}
        # Safari plays a clip only in ranges; a server may ignore the kinds that it does not ask for (RFC 9110, 14.2).
        part = re.fullmatch(r"bytes=(\d{1,12})-(\d{0,12})", request.headers.get("range", ""))
        start, end = (int(part[1]), min(int(part[2] or len(body)) + 1, len(body))) if part else (0, 0)
        if start >= end:
            return Response(body, 200, headers, found.content_type)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        return Response(body[start:end], 206, headers, found.content_type)

    def task_page(self, request: Request) -> Response:
        try:
            task = self.site.task(request.path_params["task"])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            return self.refuse(request, error)
        return self.render(request, "task.html", task=task, fields=fields(task))

    def export(self, kind: str) -> Callable[[Request], Response]:
        """Up to EXPORTED runs that match a query, as CSV or JSON."""

        def show_file(request: Request) -> Response:
            try:
                found = history.every(lookup.whole(history.parse(request.query_params.get("q", ""))), EXPORTED)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
                return self.refuse(request, error)
            plain = [output.plain(runs.as_plain(record, result=False)) for record in found]
            if kind == "json":
                text, media = output.json_text(plain, indent=2), "application/json"
            else:
                text, media = _csv(plain), "text/csv; charset=utf-8"
            return Response(text, 200, {"Content-Disposition": f'attachment; filename="runs.{kind}"'}, media)

        return show_file

    # --- actions ---

    async def act(self, request: Request) -> Response:
        """Handles a button: a question first, then the outcome."""
        name = request.path_params["action"]
        try:
            form = await read_form(request)
            outcome = await run_in_threadpool(perform, self.site, name, form)
            return await run_in_threadpool(self._show_outcome, request, name, form, outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            response = self.render(request, "parts/refused.html", problem=_problem(error))
            response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#dialog", "innerHTML"
            return response

    def _show_outcome(self, request: Request, name: str, form: Mapping[str, Any], outcome: Plan | str) -> Response:
        if isinstance(outcome, Plan):
            given = [
                (key, one) for key, value in form.items() for one in (value if isinstance(value, list) else [value])
            ]
            lasting = ACTIONS[name].lasting and self.site.known_deployment.is_prod
            response = self.render(request, "parts/confirm.html", plan=outcome, action=name, given=given, typed=lasting)
            response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#dialog", "innerHTML"
            return response
        run_id = outcome.rpartition(": ")[2]
        response = self.render(
            request, "parts/done.html", done=outcome, run=run_id if lookup.is_whole(run_id) else None
        )
        response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#notices", "afterbegin"
        response.headers["HX-Trigger"] = "nexus:changed"
        return response

    # --- live updates ---

    async def changes(self, request: Request) -> Response:
        """Server-sent events: one whenever the queues or the ended runs change."""

        async def stream() -> AsyncIterator[str]:
            before = ""
            yield "retry: 3000\n\n"
            while not await request.is_disconnected():
                now = await run_in_threadpool(self._fingerprint)
                yield "event: changed\ndata: queues\n\n" if now != before and before else ": nothing new\n\n"
                before = now
                await asyncio.sleep(LOOK_EVERY)

        return StreamingResponse(stream(), media_type="text/event-stream")

    def _fingerprint(self) -> str:
        try:
            view = self.site.monitor()
        except Exception as error:  # noqa: BLE001 - the parts of the page show it
            return repr(type(error))
        seen = repr((view.queues, [run.id for run in view.running], [event.run_id for event in view.ended]))
        return hashlib.sha256(seen.encode()).hexdigest()


def _columns(request: Request) -> list[str]:
    """The columns of the runs that an address names."""
    return [name for name in request.query_params.getlist("col") if name in COLUMNS] or list(SHOWN)


def _problem(error: Exception) -> Problem:
    """An error as the user sees it. The traceback of a bug goes to the terminal."""
    problem = explained(error)
    if problem is None:
        logging.getLogger("nexus.web").error("a page could not be rendered", exc_info=error)
        what = f"This could not be shown: {type(error).__name__}"
        return Problem(what, "A fault of nexus web; the terminal that it runs in shows more.", code=ExitCode.WRONG)
    return problem


def _csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; text that a spreadsheet would read as a formula is escaped."""
    out = io.StringIO()
    names = (
        "id",
        "task",
        "queue",
        "status",
        "sent_at",
        "started_at",
        "ended_at",
        "took",
        "attempts",
        "parent",
        "args",
        "error",
    )
    writer = csv.writer(out)
    writer.writerow(names)
    for row in rows:
        cells = [row[name] if not isinstance(row[name], dict) else output.json_text(row[name]) for name in names]
        writer.writerow(
            [f"'{cell}" if str(cell)[:1] in "=+-@\t\r" and isinstance(cell, str) else cell for cell in cells]
        )
    return out.getvalue()


def make(site: Site, port: int, key: str, once: str = "") -> Starlette:
    """The application. `key` and `once` are as in `Guard`."""
    pages = Pages(site)
    parts = {
        "health": pages.health,
        "queues": pages.queues,
        "activity": pages.activity,
        "upcoming": pages.upcoming,
        "runs": pages.runs,
        "groups": pages.groups,
        "letters": pages.letters,
        "schedules": pages.schedules,
        "tasks": pages.tasks,
        "functions": pages.functions,
        "audit": pages.audit,
        "run/{id}": pages.run,
        "run/{id}/waits": pages.run_waits,
        "run/{id}/made": pages.run_made,
        "run/{id}/result": pages.run_result,
        "run/{id}/log": pages.run_log,
        "run/{id}/timeline": pages.run_timeline,
        "run/{id}/parts": pages.run_parts,
        "firings/{task}": pages.firings,
        "tasks/{task}": pages.task_figures,
        "latest/{task}": pages.latest,
        **money.parts(site),
    }
    routes = [
        Route("/", pages.page("overview")),
        Route("/runs", pages.runs_page),
        *(Route(f"/{name}", pages.page(name)) for name in PAGES),
        *(Route(f"/runs.{kind}", pages.export(kind)) for kind in ("csv", "json")),
        Route("/runs/{id}", pages.run_page),
        Route("/runs/{id}/pictures/{name}", pages.picture),
        Route("/tasks/{task}", pages.task_page),
        *(Route(f"/parts/{name}", pages.part(part)) for name, part in parts.items()),
        Route("/do/{action}", pages.act, methods=["POST"]),
        Route("/changes", pages.changes),
        *api.routes(site),
        Mount("/static", StaticFiles(directory=show.HERE / "static")),
    ]

    @asynccontextmanager
    async def warm(_: Starlette) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        await run_in_threadpool(lambda: site.deployment)
        warming = asyncio.create_task(run_in_threadpool(site.warm))
        yield
        await warming

    return Starlette(routes=routes, middleware=[Middleware(Guard, port=port, key=key, once=once)], lifespan=warm)
