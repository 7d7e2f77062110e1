"""What Django's own tests of its backends check beyond `test_backend`, for this one, on Django 6.0 and 6.1."""

import asyncio
import pickle
import traceback
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.tasks import TaskResultStatus, default_task_backend, task, task_backends
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultMismatch
from django.tasks.signals import task_enqueued
from django.test.utils import override_settings
from django.utils import timezone
from django.utils.module_loading import import_string

from nexus.django import Backend
from nexus.django.tasks import Task
from nexus.testing import SentTasks
from tests.support.django_project import tasks as project

from_6_1 = pytest.mark.skipif(django.VERSION < (6, 1), reason="Django has it from 6.1 on")


@pytest.fixture
def eager() -> Iterator[None]:
    """NEXUS["EAGER"]: each task runs in this process when it is enqueued."""
    project.calls.clear()
    with override_settings(NEXUS={"EAGER": True, "MODULES": settings.NEXUS["MODULES"]}):
        yield


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The level and the text of each line of Django's log of tasks."""
    return [(one.levelname, one.getMessage()) for one in caplog.records if one.name == "django.tasks"]


# --- declaring a task ---


def test_the_decorator_makes_a_task_with_and_without_parentheses() -> None:
    for made in (task(project.plain), task()(project.plain)):
        assert isinstance(made, Task)
        assert (made.priority, made.queue_name, made.backend, made.run_after) == (0, "default", "default", None)
        assert (made.takes_context, made.max_attempts, made.secret) == (False, 1, ())


def test_a_task_has_its_functions_name_and_is_found_by_its_path() -> None:
    for one in (project.add, project.later):
        assert one.name == one.func.__name__
        assert one.module_path == f"tests.support.django_project.tasks.{one.name}"
        assert import_string(one.module_path) is one


@pytest.mark.parametrize("function", [any, project.add.using, SentTasks.run, lambda: None])
def test_only_a_function_defined_in_the_module_is_a_task(function: Any) -> None:
    with pytest.raises(InvalidTask, match="Task function must be defined at a module level"):
        task(function)


def test_a_task_has_a_name_that_a_message_can_have() -> None:
    with pytest.raises(InvalidTask, match="café must be ASCII"):
        task(project.café)


def test_a_task_that_takes_its_context_must_have_the_argument() -> None:
    for function in (project.plain, project.add.func):
        with pytest.raises(InvalidTask, match="does not have a first argument of 'context'"):
            task(takes_context=True)(function)


def test_run_after_is_refused_in_a_declaration() -> None:
    with pytest.raises(TypeError, match="run_after"):
        task(run_after=timezone.now())(project.plain)
    assert project.add.run_after is None


def test_the_decorator_takes_nothing_that_a_task_does_not_have() -> None:
    with pytest.raises(TypeError, match="colour"):
        task(colour="red")(project.plain)


@from_6_1
def test_the_decorator_takes_djangos_words_beside_the_policies() -> None:
    made = task(queue_name="emails", max_attempts=4)(project.plain)
    assert (made.queue_name, made.max_attempts, made.time_limit) == ("emails", 4, 60.0)


@pytest.mark.parametrize("priority", [-101, -100, -1, 3.1, 5, 100, 101])
def test_a_priority_other_than_0_is_refused_where_it_is_given(priority: Any) -> None:
    with pytest.raises(InvalidTask, match=r"^Backend does not support setting priority of tasks\.$"):
        project.add.using(priority=priority)
    with pytest.raises(InvalidTask, match="does not support setting priority"):
        task(priority=priority)(project.plain)
    assert project.add.using(priority=0) == project.add


@pytest.mark.parametrize("priority", [-101, 3.1, 101])
def test_an_invalid_priority_raises_djangos_error(priority: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "supports_priority", True)
    with pytest.raises(InvalidTask, match="priority must be a whole number between -100 and 100"):
        project.add.using(priority=priority)


def test_a_feature_that_the_backend_does_not_support_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    due = project.add.using(run_after=timezone.now())
    monkeypatch.setattr(Backend, "supports_async_task", False)
    monkeypatch.setattr(Backend, "supports_defer", False)
    with pytest.raises(InvalidTask, match="does not support async"):
        default_task_backend.validate_task(project.later)
    with pytest.raises(InvalidTask, match="does not support run_after"):
        default_task_backend.validate_task(due)


# --- backends ---


def test_the_default_backend_is_the_settings() -> None:
    assert default_task_backend == task_backends["default"] == project.add.get_backend()
    assert (default_task_backend.alias, default_task_backend.options) == ("default", {})
    assert default_task_backend.check() == []


def test_enqueue_and_read_are_refused_without_a_backend(sent: SentTasks) -> None:
    result = project.add.enqueue(1)
    with override_settings(TASKS={}):
        for attempt in (project.add.enqueue, project.add.get_result, lambda _: result.refresh()):
            with pytest.raises(InvalidTaskBackend, match="'default' doesn't exist"):
                attempt(result.id)
        with pytest.raises(InvalidTaskBackend, match="'default' doesn't exist"):
            task(project.plain)
    assert len(sent.calls) == 1


def test_a_task_may_use_another_backend(sent: SentTasks) -> None:
    backend = {"BACKEND": "nexus.django.Backend", "QUEUES": ["default"]}
    both = {"default": backend, "second": backend, "missing": {"BACKEND": "does.not.exist"}}
    with override_settings(TASKS=both):
        changed = project.add.using(backend="second")
        assert changed.get_backend() is task_backends["second"]
        result = changed.enqueue(1)
        assert result.backend == "second"
        sent.run()
        result.refresh()
        assert (result.status, project.add.backend) == (TaskResultStatus.SUCCESSFUL, "default")
        with pytest.raises(InvalidTaskBackend, match=r"Could not find backend 'does\.not\.exist'"):
            project.add.using(backend="missing")


def test_a_backend_without_a_list_of_queues_takes_any() -> None:
    with override_settings(TASKS={"default": {"BACKEND": "nexus.django.Backend", "QUEUES": []}}):
        assert project.add.using(queue_name="anywhere").queue_name == "anywhere"


# --- results ---


def test_the_backend_takes_a_call_as_the_task_does(sent: SentTasks) -> None:
    results = [default_task_backend.enqueue(project.add, (1,), {"b": 2})]
    results.append(asyncio.run(default_task_backend.aenqueue(project.add, (1,), {"b": 2})))
    sent.run()
    for result in results:
        assert (result.args, result.kwargs) == ([1], {"b": 2})
        asyncio.run(result.arefresh())
        assert (result.status, result.return_value, result.attempts) == (TaskResultStatus.SUCCESSFUL, 3, 1)


def test_arguments_that_the_caller_changes_after_enqueue_reach_the_task_unchanged(sent: SentTasks) -> None:
    answer = ["a"]
    result = project.attempt.enqueue(answer=answer)
    answer.append("b")
    sent.run()
    result.refresh()
    assert result.kwargs == {"answer": ["a"]}
    assert result.return_value["answer"] == ["a"]


def test_results_are_compared_by_all_fields_and_cannot_be_sorted(sent: SentTasks) -> None:
    result = project.add.enqueue(1)
    assert deepcopy(result) == replace(result) == result
    changes: list[dict[str, Any]] = [
        {"id": "another"},
        {"status": TaskResultStatus.SUCCESSFUL},
        {"last_attempted_at": timezone.now()},
    ]
    for change in changes:
        assert replace(result, **change) != result
    assert result not in ("a result", 6.2, None)
    with pytest.raises(TypeError, match="not supported"):
        _ = sorted([result, replace(result)])


def test_tasks_are_compared_and_hashed_by_all_their_fields() -> None:
    assert {project.add, project.add.using(), deepcopy(project.add)} == {project.add}
    changed = project.add.using(queue_name="emails")
    assert {changed: "changed", project.add: "first"}[changed] == "changed"


def test_an_asynchronous_caller_is_refused_what_a_synchronous_one_is(sent: SentTasks) -> None:
    async def whole() -> None:
        with pytest.raises(TypeError, match="Unsupported type"):
            await project.add.aenqueue(datetime(2030, 1, 1))  # noqa: DTZ001
        assert sent.calls == []
        result = await project.later.aenqueue(0.0)
        with pytest.raises(TaskResultMismatch, match="Task does not match"):
            await project.add.aget_result(result.id)
        with pytest.raises(ValueError, match="Task has not finished yet"):
            _ = result.return_value
        assert (result.is_finished, result.attempts, result.errors) == (False, 0, [])

    asyncio.run(whole())


def test_an_asynchronous_caller_is_signalled_and_logged(sent: SentTasks, caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    async def receive(sender: Any, task_result: Any, **_: Any) -> None:
        seen.append((sender, task_result.id))

    task_enqueued.connect(receive)
    try:
        with caplog.at_level("DEBUG", "django.tasks"):
            result = asyncio.run(project.add.aenqueue(1))
    finally:
        task_enqueued.disconnect(receive)
    assert seen == [(Backend, result.id)]
    assert lines(caplog) == [("DEBUG", f"Task id={result.id} path={project.add.module_path} enqueued backend=default")]


@pytest.mark.parametrize(
    ("module", "name", "fault", "said"),
    [
        ("subprocess", "run", ValueError, "'subprocess.run' does not reference a valid exception"),
        ("builtins", "int", ValueError, "'builtins.int' does not reference a valid exception"),
        ("does.not", "exist", ImportError, "No module named 'does'"),
    ],
)
def test_the_class_of_an_error_must_exist_and_be_an_exception(
    module: str, name: str, fault: type[Exception], said: str, sent: SentTasks
) -> None:
    result = project.raise_unlike.enqueue(module, name)
    sent.run()
    result.refresh()
    (error,) = result.errors
    assert error.exception_class_path == f"{module}.{name}"
    assert error.traceback.endswith(f"{name}: it broke\n")
    with pytest.raises(fault, match=said):
        _ = error.exception_class


# --- pickles ---


@from_6_1
def test_a_pickled_task_keeps_its_policies_and_changes() -> None:
    changed = project.flaky.using(queue_name="emails", run_after=timezone.now())
    found = pickle.loads(pickle.dumps(changed))
    assert found == changed
    assert (found.func, found.max_attempts, found.backoff) == (project.flaky.func, 4, (0.0, 0.0))


@from_6_1
@pytest.mark.parametrize("path", ["does.not.exist", "builtins.any", "tests.support.django_project.tasks.plain"])
def test_a_pickle_can_name_nothing_but_a_task(path: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected '{path}' to point to a Task instance"):
        Task._reconstruct({"func": path})  # type: ignore[attr-defined] # django-stubs has 6.0's


# --- in this process ---


@pytest.mark.parametrize("call", ["enqueue", "aenqueue"])
@pytest.mark.parametrize(
    ("given", "args", "answer"), [(project.add, [1], 2), (project.later, [0.0], "done"), (project.one_query, [], 42)]
)
def test_an_eager_task_has_run_when_it_is_enqueued(
    given: Any, args: list[Any], answer: Any, call: str, eager: None
) -> None:
    result = given.enqueue(*args) if call == "enqueue" else asyncio.run(given.aenqueue(*args))
    result.refresh()
    assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, answer)
    assert result.is_finished
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert (result.task, result.args, result.kwargs, result.attempts) == (given, args, {}, 1)


@pytest.mark.parametrize(
    ("given", "error", "last"),
    [
        (project.fail, project.Broken, "Broken: it broke\n"),
        (project.leave, SystemExit, "SystemExit: over\n"),
        (project.fail_of_a_failure, ValueError, "ValueError: it broke\n"),
    ],
)
def test_an_eager_task_that_fails_or_exits_has_failed_and_its_caller_continues(
    given: Any, error: type[BaseException], last: str, eager: None, caplog: pytest.LogCaptureFixture
) -> None:
    result = given.enqueue()
    result.refresh()
    assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.FAILED, True, 1)
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    (found,) = result.errors
    assert found.exception_class is error
    assert found.traceback.endswith(last)
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    (record,) = [one for one in caplog.records if one.name == "django.tasks" and one.levelname == "ERROR"]
    assert record.exc_info is not None
    assert "".join(traceback.format_exception(record.exc_info[1])).endswith(last)


def test_an_interrupt_during_an_eager_task_reaches_the_caller(eager: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "django.tasks"), pytest.raises(KeyboardInterrupt, match="by hand"):
        project.interrupted.enqueue()
    assert [level for level, _ in lines(caplog)] == ["INFO"], "it was started, and has not failed"


def test_an_eager_task_leaves_its_callers_cursor_open(eager: None, database: None) -> None:
    for name in ("ada", "grace", "lin"):
        User.objects.create_user(name)
    for user in User.objects.order_by("pk").iterator(chunk_size=1):
        project.count_users.enqueue()
        project.add.enqueue(user.pk)
    assert len(project.calls) == 3


def test_an_eager_task_sees_what_the_transaction_of_an_asynchronous_caller_has_written(
    eager: None, database: None
) -> None:
    with transaction.atomic():
        User.objects.create_user("ada")
        result = async_to_sync(project.count_users.aenqueue)()
        result.refresh()
    assert result.return_value == 1


def test_djangos_log_of_a_success(sent: SentTasks, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "django.tasks"):
        result = project.add.enqueue(1)
        sent.run()
    name = f"Task id={result.id} path={project.add.module_path}"
    assert lines(caplog) == [
        ("DEBUG", f"{name} enqueued backend=default"),
        ("INFO", f"{name} state=RUNNING"),
        ("INFO", f"{name} state=SUCCESSFUL"),
    ]
    assert [one.exc_info for one in caplog.records if one.name == "django.tasks"] == [None, None, None]
