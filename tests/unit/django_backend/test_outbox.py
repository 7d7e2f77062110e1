"""The outbox as a model, its sender, and the project's own command."""

import os
import re
from io import StringIO
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, transaction
from django.test import Client

from nexus import outbox
from nexus.backend.transport import Message
from nexus.django.models import Outbox
from nexus.testing import SentTasks
from tests.support.django_project import tasks as project


def sender() -> str:
    out = StringIO()
    call_command("nexus_outbox", stdout=out)
    return out.getvalue()


def test_committed_rows_are_sent_and_rolled_back_ones_are_not(sent: SentTasks, database: None) -> None:
    with transaction.atomic():
        Outbox.add(project.add, 1)
        transaction.set_rollback(True)
    with transaction.atomic():
        run_id = Outbox.add(project.add.using(queue_name="emails"), 1, b=2)
    assert sent.calls == []

    assert sender() == "sent 1, kept 0\n"

    assert [message.queue for message in sent.transport.sent] == ["emails"]
    assert not Outbox.objects.exists()
    sent.run()
    assert project.add.get_result(run_id).return_value == 3
    assert sender() == "sent 0, kept 0\n"


def test_a_row_whose_task_is_gone_is_kept_with_the_reason(sent: SentTasks, database: None) -> None:
    Outbox.objects.create(id="018f0000-0000-7000-8000-000000000000", task="gone.tasks.task", args="{}", added=0.0)
    assert sender() == "sent 0, kept 1\n"
    (row,) = Outbox.objects.all()
    assert "gone.tasks.task" in str(row.fault)
    row.delete()


def test_rows_stay_in_the_outbox_while_sqs_refuses_them(
    sent: SentTasks, database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Outbox.add(project.add, 1)

    def full(_self: Any, _queue: str, messages: list[Message]) -> dict[str, str]:
        return {message.id: "full" for message in messages}

    with monkeypatch.context() as patch:
        patch.setattr(type(sent.transport), "send", full)
        with pytest.raises(CommandError, match="full"):
            sender()
    assert Outbox.objects.count() == 1
    assert sender() == "sent 1, kept 0\n"


def test_the_sender_continues_after_the_database_was_out_of_reach(
    sent: SentTasks, database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Any] = [OperationalError("the database is restarting"), outbox.Sent(1, 0), ValueError("a fault")]

    monkeypatch.setattr(outbox, "send_pending", Mock(side_effect=results))
    monkeypatch.setattr("time.sleep", lambda _: None)
    out, err = StringIO(), StringIO()
    monkeypatch.setattr(out, "flush", flushed := Mock())
    with pytest.raises(ValueError, match="a fault"):
        call_command("nexus_outbox", "--every=5", stdout=out, stderr=err)

    assert out.getvalue() == "sent 1, kept 0\n"
    assert flushed.called, "a container's log shows each line at once"
    assert err.getvalue() == "the database: OperationalError: the database is restarting\n"


def test_the_outbox_may_be_in_another_database(sent: SentTasks, elsewhere: None) -> None:
    Outbox.add(project.add, 1)
    assert Outbox.objects.using("other").count() == 1
    assert sender() == "sent 1, kept 0\n"


def test_a_corrected_row_is_sent_once_its_fault_is_cleared_in_the_admin(sent: SentTasks, database: None) -> None:
    run_id = Outbox.add(project.add, 1)
    Outbox.objects.update(task="gone.tasks.task", added=0.0)
    assert sender() == "sent 0, kept 1\n"
    person = Client()
    person.force_login(User.objects.create_superuser("ada"))
    corrected = {"id": "another", "task": project.add.module_path, "args": '{"args": [1]}', "queue": "", "fault": ""}
    answer = person.post(f"/admin/nexus/outbox/{run_id}/change/", corrected)
    assert answer.status_code == 302, answer.content
    assert sender() == "sent 1, kept 0\n"
    sent.run()
    assert project.add.get_result(run_id).return_value == 2


def test_the_model_and_the_table_of_the_outbox_have_the_same_columns() -> None:
    columns = re.findall(r"^    (\w+) ", outbox.DDL, re.MULTILINE)
    assert [field.name for field in Outbox._meta.get_fields()] == columns


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_dumpdata_includes_models_without_a_table(options: list[str], database: None) -> None:
    """Some of this application's models have no table."""
    out = StringIO()
    call_command("dumpdata", "nexus", *options, stdout=out)
    assert out.getvalue() == "[]\n"


def test_no_migration_is_missing(database: None) -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_operators_command_has_the_projects_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.management import ManagementUtility

    for name in ("NEXUS_STACK", "NEXUS_ACCOUNT_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", "nexus", "status", "--help"]).execute()
    assert ended.value.code == 0
    assert "nexus status" in capsys.readouterr().out
    assert os.environ["NEXUS_STACK"] == "test"


def complaint_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `manage.py nexus` prints when it cannot run: one line, without a traceback."""
    from django.core.management import ManagementUtility

    with pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", "nexus", *words]).execute()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("ops.main", "needs ops: put a checkout of nexus-tasks on PYTHONPATH"),
        ("yaml", "needs yaml: pip install pyyaml"),
        ("typer", "needs typer: pip install typer"),
    ],
)
def test_the_operators_command_names_the_missing_package(
    missing: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("nexus.django.management.commands.nexus.import_module", refuse)
    assert hint in complaint_of("status", capsys=capsys)


def test_the_operators_command_has_no_stack_in_eager_mode(capsys: pytest.CaptureFixture[str]) -> None:
    from django.test.utils import override_settings

    with override_settings(NEXUS={"EAGER": True}):
        assert "NEXUS has EAGER" in complaint_of("status", capsys=capsys)
