"""What the pages share: the deployment, bounded requests, error pages, and actions with confirmation."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from nexus.client import AsyncResult, read_records
from nexus.django import conf
from nexus.settings import settings
from ops import audit, aws, catalogue, dead_letters, deployment, retrying
from ops.deployment import Choice, Deployment
from ops.problems import ExitCode, Problem, explained, usage
from ops.web.actions import ACTIONS, Plan, perform
from ops.web.views import Site

if TYPE_CHECKING:
    _Base = admin.ModelAdmin[Any]
else:
    _Base = admin.ModelAdmin

MOST_LETTERS: Final = 1_000
"""The most dead letters of a queue that a page reads and an action may look through: a user waits for it."""

_FIELDS: Final = ("id", "queue", "task", "error", "until", "expression", "confirmed", "stack")
_AWAY: Final = (ExitCode.UNREACHABLE, ExitCode.DENIED)


@cache
def site() -> Site:
    """The deployment that settings.NEXUS names. Its requests have timeouts short enough for a web request."""
    aws.hurry(connect_timeout=2, read_timeout=8, attempts=1)
    return Site(Choice(), connect=_connect, most_letters=MOST_LETTERS, log_patience=4.0)


def _connect(_: Choice) -> Deployment:
    conf.apply()
    if settings().backend:
        raise Problem("Tasks run in this process", "NEXUS has EAGER.", "Set STACK to see its runs.")
    audit.watch()
    found = deployment.describe(settings().deployment)
    catalogue.use_within(found.outputs.get("Catalogue", ""), found.queues)
    return found


def explaining[T](make: Callable[[], T]) -> T | Problem:
    """Returns what `make` returns, or a Problem for an error of AWS or the user. Raises other errors."""
    try:
        return make()
    except Exception as error:
        problem = explained(error)
        if problem is None:
            raise
        return problem


class Pages(_Base):
    """Admin pages for data in AWS instead of a table. `may` maps each action to its permission."""

    may: ClassVar[Mapping[str, str]] = {}
    web = "runs"
    """The `nexus web` page that shows the same."""

    def get_urls(self) -> list[Any]:
        """The list, the pages of `more`, and actions."""
        view, name = self.admin_site.admin_view, f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("", view(self.changelist_view), name=f"{name}_changelist"),
            path("do/<slug:action>/", view(require_POST(self.act)), name=f"{name}_act"),
            *(path(route, view(page), name=f"{name}_change") for route, page in self.more()),
        ]

    def more(self) -> Sequence[tuple[str, Callable[..., HttpResponse]]]:
        """Further pages, as (route, view)."""
        return ()

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's
        """False: nothing is added by hand."""
        return False

    def page(
        self, request: HttpRequest, name: str, title: str, make: Callable[[], Mapping[str, Any]], about: str = ""
    ) -> HttpResponse:
        """A page with what `make` returns, or the error and its remedy if AWS fails."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context: dict[str, Any] = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        context["may"] = {action for action in self.may if self._may(request, action)}
        if web := conf.given().get("WEB"):
            context["web"] = f"{str(web).rstrip('/')}/{self.web}{about}"
        request.current_app = self.admin_site.name  # the templates resolve links by it

        def whole() -> Mapping[str, Any]:
            where = site().deployment
            return {"subtitle": f"{where.stack}, {where.region}", **make()}

        found = explaining(whole)
        away = isinstance(found, Problem) and found.code in _AWAY
        context |= {"problem": found} if isinstance(found, Problem) else found
        return TemplateResponse(request, f"nexus_admin/{name}.html", context, status=503 if away else 200)

    def _may(self, request: HttpRequest, action: str) -> bool:
        allowed: bool = getattr(self, f"has_{self.may[action]}_permission")(request)
        return allowed

    def act(self, request: HttpRequest, action: str) -> HttpResponse:
        """Handles a button: asks first, and acts once confirmed."""
        if action not in self.may:
            raise Http404
        if not self._may(request, action):
            raise PermissionDenied
        form = {name: given if len(given) > 1 else given[0] for name, given in _given(request)}
        listed = reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist", current_app=self.admin_site.name
        )

        def ask_or_do() -> Plan | str:
            _ = site().deployment
            _check_size(action, form)
            return perform(site(), action, form, by=f"{request.user.get_username()} in Django's admin")

        outcome = explaining(ask_or_do)
        if isinstance(outcome, Plan):
            return self._question(request, action, outcome, listed)
        if isinstance(outcome, Problem):
            self.message_user(request, _in_words(outcome), messages.ERROR)
            return redirect(listed)
        self.message_user(request, outcome, messages.SUCCESS)
        for about in _subjects(form):
            self.log_change(request, self.model(pk=about), f"{action}: {outcome}")
        return redirect(listed)

    def _question(self, request: HttpRequest, action: str, plan: Plan, back: str) -> HttpResponse:
        given = [(name, one) for name, values in _given(request) for one in values]
        where, about = site().deployment, ACTIONS[action]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": about.about,
            "plan": plan,
            "given": given,
            "back": back,
            "typed": where.stack if about.lasting and where.is_prod else "",
        }
        return TemplateResponse(request, "nexus_admin/confirm.html", context)


def _given(request: HttpRequest) -> list[tuple[str, list[str]]]:
    return [(name, [str(one) for one in values]) for name, values in request.POST.lists() if name in _FIELDS]


def _in_words(problem: Problem) -> str:
    return " ".join(filter(None, (f"{problem.what}.", problem.why, problem.do)))


def _subjects(form: Mapping[str, Any]) -> list[str]:
    ids = form.get("id") or form.get("task") or ""
    return [str(one)[:100] for one in (ids if isinstance(ids, list) else [ids])]


def _check_size(action: str, form: Mapping[str, Any]) -> None:
    """Raises Problem if an action would have to look through more dead letters than a page may."""
    given = form.get("id") or []
    ids = given if isinstance(given, list) else [given]
    if form.get("queue"):
        queues = {form["queue"]}
    elif action == "retry":  # a job's or a group's members may be in other queues
        queues = {record.queue for record in retrying.failed(ids).runs} if ids else set()
    else:
        queues = {record.queue for record in read_records([AsyncResult[Any](one) for one in ids])}
    for queue, count in dead_letters.counts(sorted(queues & set(catalogue.queues()))).items():
        if count > MOST_LETTERS:
            do = f"`manage.py nexus dlq retry {queue}` and `dlq drop` take as many as there are."
            raise usage(f"{queue} has {count:,} dead letters: too many for a page", do=do)
