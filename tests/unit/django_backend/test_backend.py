"""This backend fulfils Django's contract for task backends; each task runs through the real worker."""

import asyncio
import json
import pickle
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import django
import pytest
from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.tasks import TaskResultStatus, default_task_backend, task, task_backends
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist, TaskResultMismatch
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.test.utils import override_settings
from django.utils import timezone

from nexus import clock
from nexus import settings as runtime
from nexus.backend.transport import Message
from nexus.builtin import ping
from nexus.client import AsyncResult, send
from nexus.django import Backend, conf, enqueue_many, enqueue_on_commit, policy
from nexus.django.catalogue import discovered
from nexus.django.models import Outbox
from nexus.eager import run_next
from nexus.envelope import Envelope
from nexus.errors import ConfigurationError, SendFailed
from nexus.registry import registry
from nexus.settings import settings as runtime_settings
from nexus.testing import SentTasks, memory_backend
from tests.support.django_project import tasks as project


@pytest.fixture
def signals() -> Iterator[list[tuple[str, Any, Any]]]:
    """(signal, sender, status of its result) of each that was sent."""
    seen: list[tuple[str, Any, Any]] = []
    receivers = []
    for name, signal in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):

        def receive(sender: Any, task_result: Any, name: str = name, **_: Any) -> None:
            seen.append((name, sender, task_result.status))

        signal.connect(receive)
        receivers.append((signal, receive))
    yield seen
    for signal, receive in receivers:
        signal.disconnect(receive)


# --- enqueueing ---


def test_enqueue_returns_a_ready_result_and_the_worker_ends_it(sent: SentTasks) -> None:
    result = project.add.enqueue(2, b=3)
    assert result.status == TaskResultStatus.READY
    assert not result.is_finished
    assert (result.args, result.kwargs) == ([2], {"b": 3})
    assert result.enqueued_at is not None
    assert result.started_at is None
    assert result.finished_at is None
    assert result.attempts == 0
    assert result.backend == "default"
    with pytest.raises(ValueError, match="Task has not finished yet"):
        _ = result.return_value

    sent.run()

    assert project.calls == [(2, 3)]
    assert result.status == TaskResultStatus.READY, "a result is a snapshot until it is refreshed"
    result.refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == 5
    assert result.is_finished
    assert result.attempts == 1
    assert result.errors == []
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at


def test_get_result_finds_it_from_its_id_alone_with_its_arguments(sent: SentTasks) -> None:
    enqueued = project.add.enqueue(2)
    sent.run()
    result = default_task_backend.get_result(enqueued.id)
    assert result.task == project.add
    assert (result.args, result.kwargs) == ([2], {})
    assert result.return_value == 3
    assert project.add.get_result(enqueued.id).id == enqueued.id


def test_a_result_of_another_task_is_a_mismatch(sent: SentTasks) -> None:
    result = project.add.enqueue(2)
    with pytest.raises(TaskResultMismatch, match=r"tests\.support\.django_project\.tasks\.add"):
        project.send_mail.get_result(result.id)


@pytest.mark.parametrize("result_id", ["018f0000-0000-7000-8000-000000000000", "no uuid", ""])
def test_an_unknown_id_does_not_exist(result_id: str, sent: SentTasks) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(result_id)
    with pytest.raises(TaskResultDoesNotExist):
        asyncio.run(default_task_backend.aget_result(result_id))


def test_a_run_of_another_kind_of_task_does_not_exist_for_django(sent: SentTasks) -> None:
    handle = send(ping.s(text="x"), queue="default")
    with pytest.raises(TaskResultDoesNotExist, match="not in one of the modules"):
        default_task_backend.get_result(handle.id)


def test_another_queue_is_used_and_its_function_serves_the_task(sent: SentTasks) -> None:
    result = project.add.using(queue_name="emails").enqueue(1)
    ((queue, _),) = [(message.queue, message) for message in sent.transport.sent]
    assert queue == "emails"
    sent.run()
    result.refresh()
    assert result.return_value == 2


def test_run_after_is_recorded_as_the_eta_of_a_pending_run(sent: SentTasks) -> None:
    due = timezone.now() + timedelta(minutes=10)
    result = project.add.using(run_after=due).enqueue(1)
    record = AsyncResult[Any](result.id).record()
    assert record.eta == pytest.approx(due.timestamp(), abs=0.01)
    assert record.status == "PENDING"


def test_run_after_must_be_aware_with_time_zones_and_may_be_naive_without(sent: SentTasks) -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001
    with pytest.raises(InvalidTask, match="aware"):
        project.add.using(run_after=naive)
    with override_settings(USE_TZ=False):
        result = project.add.using(run_after=naive).enqueue(1)
        with timezone.override("Asia/Tokyo"):  # of the request; a naive time is the project's
            another = project.add.using(run_after=naive).enqueue(1)
    for sent_to_run in (result, another):
        eta = AsyncResult[Any](sent_to_run.id).record().eta
        assert eta == pytest.approx(timezone.make_aware(naive).timestamp())


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_results_times_are_those_of_the_run_and_aware_as_use_tz_says(use_tz: bool, sent: SentTasks) -> None:
    zone = ZoneInfo("Europe/Berlin")
    now = datetime(2030, 7, 1, 9, 0, tzinfo=zone)
    signalled: list[Any] = []

    def receive(task_result: Any, **_: Any) -> None:
        signalled.append(task_result)

    with (
        clock.use_everywhere(clock.FrozenClock(now.timestamp())),
        override_settings(USE_TZ=use_tz, TIME_ZONE="Europe/Berlin"),
    ):
        task_finished.connect(receive)
        try:
            result = project.add.enqueue(1)
            enqueued_at = result.enqueued_at
            sent.run()
            result.refresh()
        finally:
            task_finished.disconnect(receive)
        assert timezone.is_aware(enqueued_at) == timezone.is_aware(timezone.now())
    expected = now if use_tz else now.replace(tzinfo=None)
    for one in (result, *signalled):
        times = (enqueued_at, one.enqueued_at, one.started_at, one.last_attempted_at, one.finished_at)
        assert times == (expected,) * 5


@pytest.mark.parametrize("value", [object(), {1, 2}, b"\xff", datetime(2030, 1, 1)])  # noqa: DTZ001
def test_arguments_that_are_not_json_are_refused_and_nothing_is_sent(value: Any, sent: SentTasks) -> None:
    with pytest.raises((TypeError, ValueError), match="Unsupported"):
        project.add.enqueue(value)
    assert sent.calls == []


@pytest.mark.parametrize(
    ("args", "kwargs", "fault"),
    [
        ((), {}, r"tasks\.add: missing a required argument: 'a'"),
        ((1, 2, 3), {}, r"tasks\.add: too many positional arguments"),
        ((1,), {"colour": 2}, r"tasks\.add: got an unexpected keyword argument 'colour'"),
        ((1, object()), {}, r"tasks\.add: argument 2 is not JSON .*object"),
        ((1,), {"b": [object()]}, r"tasks\.add: argument b is not JSON .*object"),
    ],
)
def test_a_call_that_cannot_run_is_refused_with_the_task_and_the_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], fault: str, sent: SentTasks
) -> None:
    with pytest.raises(TypeError, match=fault):
        project.add.enqueue(*args, **kwargs)
    assert sent.calls == []


def test_a_task_that_takes_its_context_is_called_without_it(sent: SentTasks) -> None:
    with pytest.raises(TypeError, match="too many positional arguments"):
        project.attempt.enqueue(*range(9))
    assert sent.calls == []


def test_tuples_become_lists_as_in_djangos_backends(sent: SentTasks) -> None:
    result = project.attempt.enqueue(answer=("a", ("b",)))
    assert result.kwargs == {"answer": ["a", ["b"]]}
    sent.run()
    result.refresh()
    assert result.return_value["answer"] == ["a", ["b"]]


def test_an_asynchronous_caller_enqueues_and_reads_the_result(sent: SentTasks) -> None:
    async def whole() -> Any:
        result = await project.add.aenqueue(2, 3)
        found = await project.add.aget_result(result.id)
        assert found.status == TaskResultStatus.READY
        await asyncio.to_thread(sent.run)
        await result.arefresh()
        return result.return_value

    assert asyncio.run(whole()) == 5


def test_an_asynchronous_task_runs(sent: SentTasks) -> None:
    result = project.later.enqueue(0.01)
    sent.run()
    result.refresh()
    assert result.return_value == "done"


def test_a_task_sees_its_context(sent: SentTasks) -> None:
    result = project.attempt.enqueue(answer="42")
    sent.run()
    result.refresh()
    assert result.return_value == {"attempt": 1, "id": result.id, "answer": "42"}


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django's own tasks can be pickled from 6.1 on")
def test_a_task_and_a_result_survive_pickling(sent: SentTasks) -> None:
    result = project.add.enqueue(1)
    assert pickle.loads(pickle.dumps(project.add)) == project.add
    assert pickle.loads(pickle.dumps(result)).id == result.id


def test_a_task_is_sent_within_a_transaction_and_not_after_it(sent: SentTasks, database: None) -> None:
    with transaction.atomic():
        result = project.add.enqueue(1)
        assert result.enqueued_at is not None
        assert len(sent.calls) == 1


def test_a_task_that_the_function_could_not_import_is_refused_by_enqueue(sent: SentTasks, database: None) -> None:
    with pytest.raises(InvalidTask, match=r"tasks\.plain is not a task: a task must have the name of its function"):
        project.by_another_name.enqueue()
    with override_settings(NEXUS={"STACK": "s", "MODULES": ["users.tasks"]}):
        for refused in (project.add.enqueue, lambda n: Outbox.add(project.add, n)):
            with pytest.raises(InvalidTask, match=r"tasks\.add is in no module that may contain tasks"):
                refused(1)
    assert sent.calls == []
    assert not Outbox.objects.exists()


def test_a_task_changed_by_an_importing_module_is_registered_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"from {project.__name__} import flaky\nflaky = flaky.using(queue_name='emails')\n"
    (tmp_path / "earlier_tasks.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(NEXUS={"STACK": "s", "MODULES": ["earlier_tasks", project.__name__]}):
        assert [one.queue_name for one in discovered() if one.name == "flaky"] == ["default"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_queue_removed_from_the_settings_is_refused_by_enqueue(asynchronous: bool, sent: SentTasks) -> None:
    changed = project.add.using(queue_name="emails")
    settings = {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": ["default"]}}
    enqueue = (lambda n: asyncio.run(changed.aenqueue(n))) if asynchronous else changed.enqueue
    with override_settings(TASKS=settings), pytest.raises(InvalidTask, match="Queue 'emails' is not valid for backend"):
        enqueue(1)
    assert sent.calls == []


def test_a_backend_that_the_settings_do_not_have_is_djangos_error() -> None:
    with pytest.raises(InvalidTaskBackend, match="unknown"):
        project.add.using(backend="unknown")


def test_using_returns_a_changed_copy_of_the_task(sent: SentTasks) -> None:
    same, due = project.add.using(), timezone.now()
    assert same == project.add
    assert same is not project.add
    chained = project.add.using(run_after=due).using(queue_name="emails")
    assert (chained.run_after, chained.queue_name) == (due, "emails")
    assert (project.add.run_after, project.add.queue_name) == (None, "default")


def test_a_task_can_be_called_without_a_queue() -> None:
    assert project.add.call(1, b=2) == 3
    assert asyncio.run(project.add.acall(1, b=2)) == 3
    assert project.later.call(0.0) == "done"
    assert asyncio.run(project.later.acall(0.0)) == "done"


def test_results_are_compared_as_djangos(sent: SentTasks) -> None:
    result = project.add.enqueue(1)
    assert project.add.get_result(result.id) == result
    assert asyncio.run(project.add.aget_result(result.id)) == result
    before = asdict(result)
    result.refresh()
    asyncio.run(result.arefresh())
    assert asdict(result) == before, "nothing has happened meanwhile"
    assert result != "a result"


def test_djangos_log_has_each_step(sent: SentTasks, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "django.tasks"):
        result = project.fail.enqueue("on purpose")
        sent.run()
    said = [record.getMessage() for record in caplog.records if record.name == "django.tasks"]
    assert all(result.id in line for line in said)
    assert [line for line in said if "None" in line] == []
    for line, word in zip(said, ("enqueued", "state=RUNNING", "state=FAILED"), strict=True):
        assert word in line


# --- failures ---


def test_a_failure_has_its_exception_and_traceback_and_is_a_dead_letter(sent: SentTasks) -> None:
    result = project.fail.enqueue("on purpose")
    sent.run()
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    (error,) = result.errors
    assert error.exception_class is project.Broken
    assert error.traceback.endswith("Broken: on purpose\n")
    assert "in fail" in error.traceback
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    assert result.attempts == 1, "once, unless the task says otherwise"
    ((_, letter),) = sent.dead_letters
    assert letter.attributes["ErrorType"] == "Broken"


def test_a_task_that_is_tried_again_is_ready_between_its_attempts(sent: SentTasks, signals: list[Any]) -> None:
    result = project.flaky.enqueue(2)
    run_next(sent.transport)
    result.refresh()
    assert result.status == TaskResultStatus.READY
    assert result.errors[0].exception_class is project.Broken
    assert result.attempts == 1
    sent.run()
    result.refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.attempts == 3
    assert len(set(result.worker_ids)) == 3
    assert [name for name, _, _ in signals] == ["enqueued", "started", "started", "started", "finished"]


def test_a_task_that_exits_has_failed(sent: SentTasks, signals: list[Any]) -> None:
    result = project.leave.enqueue()
    sent.run()
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is SystemExit
    assert [name for name, _, _ in signals] == ["enqueued", "started", "finished"]


def test_a_task_that_raises_reject_is_not_retried(sent: SentTasks, signals: list[Any]) -> None:
    result = project.give_up.enqueue()
    sent.run()
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert result.attempts == 1
    assert [name for name, _, _ in signals] == ["enqueued", "started", "finished"]


@pytest.mark.skipif(django.VERSION < (6, 1), reason="@task takes a backend's own options from Django 6.1 on")
def test_the_decorator_takes_the_policies() -> None:
    decorated = task(max_attempts=4, backoff=(1.0, 8.0), time_limit=30.0, unique=True, rate_limit=2.0, secret=())(
        project.plain
    )
    retry = decorated.definition.retry
    assert (retry.max_retries, retry.base, retry.cap) == (3, 1.0, 8.0)
    assert decorated.definition.time_limit == 30.0
    assert decorated.definition.unique is not None
    assert decorated.definition.rate_limit is not None


def test_a_task_whose_result_is_not_json_fails(sent: SentTasks) -> None:
    result = project.no_json.enqueue()
    sent.run()
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is TypeError
    assert "Unsupported type" in result.errors[0].traceback


def test_a_revoked_run_has_failed_and_shows_the_reason(sent: SentTasks) -> None:
    result = project.add.enqueue(1)
    AsyncResult[Any](result.id).revoke("not wanted")
    sent.run()
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert "not wanted" in result.errors[0].traceback
    assert issubclass(result.errors[0].exception_class, Exception)
    assert project.calls == []


def test_a_message_cannot_name_a_function_that_is_not_a_task(sent: SentTasks) -> None:

    for name in ("os.system", "tests.support.django_project.tasks.plain", "tests.support.django_project.tasks.nobody"):
        envelope = Envelope.of(id=str(uuid.uuid4()), task=name, args={"args": ["x"]})
        sent.transport.send("default", [Message.of(envelope)])
    sent.run()
    assert [letter.attributes["ErrorType"] for _, letter in sent.dead_letters] == ["UnknownTask"] * 3


# --- secret arguments ---


@pytest.mark.parametrize(
    ("args", "kwargs", "called", "shown"),
    [
        (
            ("ada", "xyzzy", "plugh"),
            {},
            ("ada", "xyzzy", "plugh"),
            {"args": ["ada", "(secret)", "(secret)"], "kwargs": {}},
        ),
        (("ada",), {"password": "xyzzy"}, ("ada", "xyzzy"), {"args": ["ada"], "kwargs": {"password": "(secret)"}}),
        ((), {"user": "ada"}, ("ada", ""), {"args": [], "kwargs": {"user": "ada"}}),
    ],
)
def test_secret_arguments_reach_the_task_and_no_record(
    args: Any, kwargs: Any, called: Any, shown: dict[str, Any], sent: SentTasks
) -> None:
    result = project.secretive.enqueue(*args, **kwargs)
    assert AsyncResult[Any](result.id).record().args == shown
    sent.run()
    assert project.calls == [called]
    assert "xyzzy" not in str(sent.store.items)
    assert default_task_backend.get_result(result.id).args == shown["args"]


def test_a_process_that_only_sends_hides_secret_arguments_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web process imports no catalogue."""
    monkeypatch.delenv("NEXUS_CATALOGUE", raising=False)
    monkeypatch.setattr(registry, "_declared", {})
    monkeypatch.setattr(registry, "_loaded", set())
    with memory_backend() as sent:
        project.secretive.enqueue("ada", "xyzzy")
        (record,) = sent.store.items.values()
    assert record["args"] == '{"args":["ada","(secret)"],"kwargs":{}}'


def test_secret_names_must_be_parameters() -> None:
    with pytest.raises(InvalidTask, match="secret"):
        policy(secret=("c",))(project.add)


# --- signals ---


def test_signals_of_a_success(sent: SentTasks, signals: list[Any]) -> None:
    project.add.enqueue(1)
    assert signals == [("enqueued", Backend, TaskResultStatus.READY)]
    sent.run()
    assert signals[1:] == [
        ("started", Backend, TaskResultStatus.RUNNING),
        ("finished", Backend, TaskResultStatus.SUCCESSFUL),
    ]


def test_signals_of_a_failure(sent: SentTasks, signals: list[Any]) -> None:
    project.fail.enqueue()
    sent.run()
    assert [(name, status) for name, _, status in signals] == [
        ("enqueued", TaskResultStatus.READY),
        ("started", TaskResultStatus.RUNNING),
        ("finished", TaskResultStatus.FAILED),
    ]


def test_a_receiver_that_fails_after_the_task_changes_nothing_for_it(
    sent: SentTasks, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def receive(task_result: Any, **_: Any) -> None:
        seen.append(task_result.status)
        raise OSError("the metrics server is away")

    task_finished.connect(receive)
    try:
        results: list[Any] = [project.flaky.enqueue(0), project.fail.enqueue()]
        sent.run()
    finally:
        task_finished.disconnect(receive)
    for result in results:
        result.refresh()
    assert seen == ["SUCCESSFUL", "FAILED"], "flaky would have four attempts"
    assert results[0].return_value == "at last"
    assert results[1].errors[0].exception_class is project.Broken
    assert caplog.text.count("send_robust() (the metrics server is away)") == 2


def test_a_failed_send_emits_no_signal(sent: SentTasks, signals: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(sent.transport), "send", lambda *_: {"x": "full"})
    with pytest.raises(SendFailed):
        project.add.enqueue(1)
    assert signals == []


# --- what a backend refuses ---


def test_a_queue_that_the_backend_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidTask, match=r"Queue 'nowhere' is not valid for backend default: QUEUES has .*emails"):
        project.add.using(queue_name="nowhere")


def test_a_priority_is_refused_because_queues_have_the_priorities() -> None:
    assert not default_task_backend.supports_priority
    with pytest.raises(InvalidTask, match="priority"):
        project.add.using(priority=5)


def test_a_function_within_a_function_is_refused() -> None:
    with pytest.raises(InvalidTask, match="module level"):

        @task
        def inner() -> None:
            pass


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"max_attempts": 0}, "max_attempts must be"),
        ({"max_attempts": 102}, "from 1 to 101"),
        ({"max_attempts": "4"}, "max_attempts must be"),
        ({"max_attempts": float("nan")}, "max_attempts must be"),
        ({"time_limit": 901.0}, "time_limit must be"),
        ({"time_limit": "60"}, "time_limit must be"),
        ({"backoff": (10.0, 1.0)}, "backoff must be"),
        ({"backoff": 10}, "backoff must be"),
        ({"backoff": (10,)}, "backoff must be"),
        ({"backoff": (10.0, float("inf"))}, "backoff must be"),
        ({"rate_limit": 0.0}, "rate_limit must be"),
        ({"rate_limit": "5/s"}, "rate_limit must be"),
    ],
)
def test_an_invalid_policy_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidTask, match=fault):
        policy(**options)(project.add)


def test_a_policy_on_something_else_than_a_task_of_this_backend_is_refused() -> None:
    wrong: Any = project.plain
    with pytest.raises(TypeError, match="is not a task: @policy goes above @task"):
        policy(max_attempts=2)(wrong)
    with override_settings(TASKS={"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}):
        made = task(project.plain)
        with pytest.raises(TypeError, match=r"tasks\.plain: ImmediateBackend has no policies: TASKS must name nexus"):
            policy(max_attempts=2)(made)


def test_the_backend_states_which_features_it_supports() -> None:
    assert isinstance(task_backends["default"], Backend)
    assert default_task_backend.supports_defer
    assert default_task_backend.supports_get_result
    assert default_task_backend.supports_async_task


# --- many, and after the transaction ---


def test_many_are_enqueued_at_once_in_their_order(sent: SentTasks) -> None:
    results = enqueue_many([(project.add, (n,), {}) for n in range(25)] + [(project.send_mail, ("a",), {})])
    assert len(results) == 26
    sent.run()
    for n, result in enumerate(results[:25]):
        result.refresh()
        assert result.return_value == n + 1
    results[25].refresh()
    assert results[25].return_value == "sent to a"


def test_on_commit_sends_nothing_of_a_transaction_that_is_rolled_back(sent: SentTasks, database: None) -> None:
    with transaction.atomic():
        enqueue_on_commit(project.add, 1)
        transaction.set_rollback(True)
    assert sent.calls == []
    with transaction.atomic():
        enqueue_on_commit(project.add, 1, b=2)
        assert sent.calls == []
    assert [json.dumps(args) for _, args in sent.calls] == ['{"args": [1], "kwargs": {"b": 2}}']


def test_on_commit_refuses_a_wrong_call_before_the_commit(sent: SentTasks, database: None) -> None:
    with transaction.atomic():
        with pytest.raises(TypeError, match="argument 1 is not JSON"):
            enqueue_on_commit(project.add, object())
        with pytest.raises(TypeError, match="unexpected keyword argument 'task'"):
            enqueue_on_commit(project.add, 1, task=2)
        with pytest.raises(InvalidTask, match="must have the name of its function"):
            enqueue_on_commit(project.by_another_name)
        with pytest.raises(TypeError, match="unexpected keyword argument 'task'"):
            Outbox.add(project.add, 1, task=2)
    assert sent.calls == []
    assert not Outbox.objects.exists()


def test_on_commit_waits_for_the_named_database_and_by_default_for_the_default_one(
    sent: SentTasks, database: None
) -> None:
    with transaction.atomic(using="other"):
        enqueue_on_commit(project.add, 1, using="other")
        assert sent.calls == []
        enqueue_on_commit(project.add, 2)
        assert [args["args"] for _, args in sent.calls] == [[2]]
    assert [args["args"] for _, args in sent.calls] == [[2], [1]]
    connections["other"].close()


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"NEXUS": {"STACK": "s", "COLOUR": "red"}}, "nexus.E001"),
        ({"NEXUS": {"STACK": "s", "RUN_DAYS": "soon"}}, "nexus.E001"),
        ({"NEXUS": {"STACK": "s", "MODULES": "users.tasks"}}, "nexus.E001"),
        ({"NEXUS": {}}, "nexus.E002"),
        ({"NEXUS": {"STACK": None}}, "nexus.E002"),
        ({"NEXUS": {"STACK": "s", "MODULES": ["no.such.module"]}}, "nexus.E003"),
        ({"TASKS": {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": ["not a queue"]}}}, "nexus.E004"),
        ({"TASKS": {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": ["café"]}}}, "nexus.E004"),
        ({"TASKS": {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": []}}}, "nexus.E005"),
        ({"TASKS": {"default": {"BACKEND": "nexus.django.Backend", "OPTIONS": {"x": 1}}}}, "nexus.W001"),
    ],
)
def test_a_wrong_setting_is_found_at_start_up(
    settings: dict[str, Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEXUS_STACK", raising=False)
    with override_settings(**settings):
        assert code in [found.id for found in checks.run_checks()]
    assert runtime_settings().stack != "s", "the project's own settings apply again"


def test_an_invalid_setting_is_a_message_of_the_check_and_an_error_of_the_call() -> None:
    with override_settings(NEXUS={"STAK": "s"}):
        assert [found.id for found in checks.run_checks()] == ["nexus.E001"]
        with pytest.raises(ConfigurationError, match="NEXUS has no STAK"):
            project.add.enqueue(1)
        with pytest.raises(ConfigurationError, match="NEXUS has no STAK"):
            default_task_backend.get_result("x")


@pytest.mark.parametrize(("settings", "stack"), [({"STACK": "s"}, "s"), ({"STAK": "s"}, "")])
def test_the_settings_apply_before_any_task_is_imported(
    settings: dict[str, Any], stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For `AsyncResult`, `nexus.periodic` and `social.django.network`, which use no backend of Django's."""
    monkeypatch.delenv("NEXUS_STACK", raising=False)
    with override_settings(NEXUS=settings):
        runtime.configure({})  # as in a new process
        apps.get_app_config("nexus").ready()
        assert runtime_settings().stack == stack


def test_a_setting_of_none_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of `os.environ.get("SOME_VARIABLE")`."""
    monkeypatch.delenv("NEXUS_STACK", raising=False)
    with override_settings(NEXUS={"STACK": "s", "RUN_DAYS": None, "REGION": None, "MODULES": None}):
        assert checks.run_checks() == []
        assert (runtime_settings().run_days, "None" in str(runtime_settings())) == (7, False)


def test_tasks_are_looked_for_in_apps_that_are_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_app.py").write_text("")
    (tmp_path / "package_app").mkdir()
    for name in ("__init__", "tasks"):
        (tmp_path / "package_app" / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    installed = ["nexus.django", "module_app", "package_app"]
    with override_settings(NEXUS={"STACK": "s"}, INSTALLED_APPS=installed):
        assert conf.allows("package_app.tasks.add")
        assert not conf.allows("module_app.tasks.add")


def test_eager_mode_is_refused_in_a_lambda_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "mysite-prod-default")
    with override_settings(NEXUS={"EAGER": True}):
        (found,) = [one for one in checks.run_checks() if one.id == "nexus.E001"]
    assert "NEXUS has EAGER in a Lambda function" in found.msg


def test_eager_mode_without_the_workers_packages_is_found_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus.django.backend.WORKER_PACKAGE", "no_such_package")
    with override_settings(NEXUS={"EAGER": True}):
        (found,) = [one for one in checks.run_checks() if one.id == "nexus.E006"]
    assert "no_such_package" in found.msg
    assert found.hint == 'pip install "./shared[worker]", or name a STACK.'


def test_right_settings_have_no_fault() -> None:
    assert checks.run_checks() == []


def test_a_missing_backend_raises_djangos_error() -> None:
    with override_settings(TASKS={"default": {"BACKEND": "nexus.django.Nobody"}}), pytest.raises(ImproperlyConfigured):
        _ = task_backends["default"]
