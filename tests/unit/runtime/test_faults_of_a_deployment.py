"""A fault of a deployment, a catalogue or a declaration is named where it is first noticed."""

import pkgutil
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

import nexus
from nexus import backend as backends
from nexus.aws import sdk
from nexus.backend import Backend
from nexus.backend.transport import Message, SqsTransport
from nexus.client import chain, result_of, then
from nexus.eager import find_functions
from nexus.envelope import Envelope
from nexus.errors import ConfigurationError, InvalidMessage, Reject, StillRunning, UnknownTask
from nexus.ids import new_id
from nexus.registry import Registry, registry
from nexus.runs import payloads
from nexus.runs.payloads import ResultExpired
from nexus.settings import settings
from nexus.tasks import Budget
from nexus.testing import SentTasks, run_task
from nexus.worker import Run
from tests.support import own_catalogue as catalogue

pytestmark = pytest.mark.usefixtures("environment")


# --- settings ---


@pytest.mark.parametrize(
    ("variable", "read"),
    [
        ("NEXUS_STACK", lambda: settings().queue_name("default")),
        ("NEXUS_STACK", lambda: settings().table("posts")),
        ("NEXUS_QUEUE", lambda: settings().served_queue),
        ("NEXUS_ACCOUNT_ID", lambda: settings().bucket("uploads")),
    ],
)
def test_a_missing_variable_is_named_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, variable: str, read: Callable[[], object]
) -> None:
    monkeypatch.delenv(variable, raising=False)
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match=f"^{variable} is not set: "):
        read()


def test_a_folder_of_functions_without_a_queue_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_FUNCTIONS", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match="it contains no queue's folder"):
        find_functions()


# --- the catalogue ---


def test_a_task_that_the_deployment_does_not_serve_is_not_sent(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = types.ModuleType("other_catalogue")
    monkeypatch.setitem(sys.modules, "other_catalogue", other)
    monkeypatch.setenv("NEXUS_CATALOGUE", "other_catalogue")
    settings.cache_clear()
    with pytest.raises(UnknownTask, match=r"send_note is in no catalogue .*NEXUS_CATALOGUE=other_catalogue"):
        catalogue.send_note.delay(**catalogue.NOTE)
    assert tasks.calls == []


def test_a_name_that_two_catalogues_declare_is_refused() -> None:
    own = Registry()
    own.declare("first", [catalogue.send_note])
    own.declare("first", [replace(catalogue.send_note)])
    with pytest.raises(ConfigurationError, match="task send_note is declared twice: in first and in second"):
        own.declare("second", [replace(catalogue.send_note)])


def test_a_module_that_does_not_implement_its_task_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "send_note", types.ModuleType("send_note"))
    monkeypatch.delitem(registry._implementations, "send_note", raising=False)
    with pytest.raises(ConfigurationError, match=r"module send_note has no function marked @implements\(send_note\)"):
        registry.implementation("send_note")


def test_a_function_that_implements_no_task_cannot_be_run_as_one() -> None:
    def work(args: Any, run: Run) -> None: ...

    with pytest.raises(ConfigurationError, match=r"work is not marked @implements\(\.\.\.\)"):
        run_task(work)


@pytest.mark.parametrize("limits", [{"dollars": -0.01}, {"runs": -1}, {"dollars": float("inf")}])
def test_a_budget_that_cannot_be_kept_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="numbers must be 0 or more"):
        Budget(**limits)


# --- what is sent ---


def test_a_step_of_a_chain_has_its_other_arguments_checked_when_the_chain_is_sent(tasks: SentTasks) -> None:
    first = catalogue.welcome.s(user_id="u-1")
    with pytest.raises(InvalidMessage, match=r"^send_note: text: String should have at least 1 character"):
        chain(first, then(catalogue.send_note, user_id="u-1", text="", kind=result_of(catalogue.welcome))).delay()
    assert tasks.calls == []


@pytest.mark.parametrize("segments", [0, 10_001])
def test_a_fan_out_has_1_to_10000_segments(segments: int) -> None:
    run = Run(id="r", task="make_report", attempt=1, deadline=0.0, limit=1.0, token="t", sent_at=0.0)
    with pytest.raises(Reject, match=rf"^a fan-out of {segments} segments: 1 to 10000 are allowed"):
        run.fan_out([catalogue.ReportPart(day="2026-01-01")] * segments)


def test_the_trace_of_an_invocation_travels_with_its_messages() -> None:
    envelope = Envelope.of(id=new_id(), task="ping", trace="Root=1-67891233-abcdef012345678912345678")
    assert Message.of(envelope).entry()["MessageSystemAttributes"] == {
        "AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-67891233-abcdef012345678912345678"}
    }
    assert "MessageSystemAttributes" not in Message.of(envelope.model_copy(update={"trace": None})).entry()


# --- what is read ---


def test_the_advice_to_run_tasks_is_given_only_in_tests(tasks: SentTasks) -> None:
    handle = catalogue.send_note.delay(**catalogue.NOTE)
    assert repr(handle) == f"<AsyncResult {handle.id}>"
    with pytest.raises(StillRunning, match="call that first"):
        handle.get(0)
    with backends.use(Backend(tasks.store, SqsTransport())), pytest.raises(StillRunning) as running:
        handle.get(0)
    assert "call that first" not in str(running.value)


@pytest.mark.usefixtures("cloud")
def test_a_result_that_has_left_s3_has_expired_and_a_refused_bucket_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = payloads.dump("r-1", "x" * (payloads.INLINE_BYTES + 1))
    bucket = settings().bucket("archive")
    assert payloads.load_text(where) == "x" * (payloads.INLINE_BYTES + 1)
    boto3.client("s3").delete_object(Bucket=bucket, Key=where.removeprefix("s3:"))
    with pytest.raises(ResultExpired, match="has been deleted, or may not be read"):
        payloads.load_text(where)

    monkeypatch.setenv("NEXUS_ACCOUNT_ID", "999999999999")
    settings.cache_clear()
    with pytest.raises(sdk.client("s3").exceptions.ClientError, match="NoSuchBucket"):
        payloads.load_text(where)


def test_dir_lists_the_packages_public_names() -> None:
    assert dir(nexus) == sorted(nexus.__all__)
    with pytest.raises(AttributeError, match="module 'nexus' has no attribute 'no_such'"):
        nexus.no_such  # noqa: B018


def test_no_public_name_is_also_a_module_whose_import_would_replace_it() -> None:
    modules = {module.name for module in pkgutil.iter_modules(nexus.__path__)}
    assert modules.isdisjoint(nexus.__all__)
