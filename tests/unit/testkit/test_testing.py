"""An application's tests: what was sent, running it with its effects, time, and what goes wrong."""

import asyncio
import os
import subprocess
import sys
import time
import unittest
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus import clock
from nexus.client import AsyncResult
from nexus.errors import ConfigurationError, SendFailed, TaskFailed
from nexus.registry import Implementation, registry
from nexus.testing import Tasks, TasksMixin, in_memory
from social import application, mail_links
from social.catalogue import (
    NotificationSent,
    process_media_upload,
    refresh_user_statistics,
    send_notification,
    send_welcome_email,
    update_post_engagement_scores,
)
from social.data import notifications, posts, users
from social.uploads import presigned_post
from tests.support.stills import gradient, still

ROOT = Path(__file__).parents[3]
PHOTO = still("jpeg", gradient(64, 48))
FIRST_LINE = (
    "send_notification(user_id='7', text='Hello Ada') was not sent. It was sent with other arguments "
    "(- expected, + sent):"
)
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "NEXUS_"))]:
        monkeypatch.delenv(name)


def register_view(email: str) -> str:
    """As a web application's view: writes the user and sends the welcome."""
    user = application.register(email, "Ada Lovelace")
    send_welcome_email.delay(user_id=user.user_id)
    return user.user_id


# --- what was sent ---


def test_a_view_can_be_tested_without_any_set_up(nexus_tasks: Tasks) -> None:
    user_id = register_view("ada@example.com")

    sent = nexus_tasks.assert_sent(send_welcome_email, user_id=user_id)

    assert (sent.queue, sent.due, sent.handle.status) == ("emails", nexus_tasks.now, "PENDING")
    nexus_tasks.assert_not_sent(send_welcome_email, user_id="somebody else")
    nexus_tasks.assert_not_sent(send_notification)
    with pytest.raises(AssertionError, match=rf"sent: send_welcome_email\(user_id='{user_id}'\)"):
        nexus_tasks.assert_not_sent(send_welcome_email)


def test_each_test_starts_without_tasks_and_data(nexus_tasks: Tasks) -> None:
    assert nexus_tasks.sent == []
    assert users.by_email("ada@example.com") == []


def test_arguments_that_are_not_named_may_be_anything_and_defaults_count(nexus_tasks: Tasks) -> None:
    send_notification.delay(user_id="7", kind="like", text="Hello Ada")
    nexus_tasks.assert_sent(send_notification, user_id="7")
    nexus_tasks.assert_sent(send_notification, text="Hello Ada", link=None)


def test_a_failed_assertion_shows_what_was_sent(nexus_tasks: Tasks) -> None:
    with pytest.raises(AssertionError) as nothing:
        nexus_tasks.assert_sent(send_notification, user_id="7")
    assert str(nothing.value) == "send_notification(user_id='7') was not sent. Nothing was."

    send_welcome_email.delay(user_id="8")
    with pytest.raises(AssertionError) as other:
        nexus_tasks.assert_sent(send_notification)
    assert str(other.value) == ("send_notification() was not sent. Sent were:\n    send_welcome_email(user_id='8')")

    send_notification.delay(user_id="7", kind="like", text="Hello Bob")
    with pytest.raises(AssertionError) as differing:
        nexus_tasks.assert_sent(send_notification, user_id="7", text="Hello Ada")
    assert str(differing.value).splitlines() == [
        FIRST_LINE,
        "  1.",
        "    text",
        "    - 'Hello Ada'",
        "    + 'Hello Bob'",
    ]
    with pytest.raises(TypeError, match="send_notification has no argument user: it takes user_id, kind"):
        nexus_tasks.assert_sent(send_notification, user="7")


def test_tasks_sent_by_a_coroutine_are_recorded_too(nexus_tasks: Tasks) -> None:
    async def view() -> None:
        await send_welcome_email.adelay(user_id="7")

    asyncio.run(view())
    nexus_tasks.assert_sent(send_welcome_email, user_id="7")


# --- running it ---


def test_drain_runs_what_was_sent_with_its_effects(nexus_tasks: Tasks) -> None:
    user_id = register_view("ada@example.com")

    nexus_tasks.drain()

    (mail,) = nexus_tasks.mails
    assert mail.to == ("ada@example.com",)
    assert "Ada" in mail.text
    assert "Ada" in mail.html
    token = mail.headers["List-Unsubscribe"].strip("<>").rpartition("token=")[2]
    mail_links.unsubscribe(token)
    assert (found := users.get(user_id)) is not None
    assert not found.digest
    result = nexus_tasks.assert_sent(send_welcome_email).handle.result
    assert result is not None
    assert result.outcome == "sent"


def test_drain_shows_why_a_run_was_given_up(nexus_tasks: Tasks) -> None:
    refresh_user_statistics.delay(user_id="nobody")
    given_up = "refresh_user_statistics was given up after 1 attempt: Reject: no user nobody"
    with pytest.raises(AssertionError, match=given_up):
        nexus_tasks.drain()


def test_drain_can_leave_failures_to_the_test(nexus_tasks: Tasks) -> None:
    handle = refresh_user_statistics.delay(user_id="nobody")
    nexus_tasks.drain(raising=False)
    with pytest.raises(TaskFailed, match="no user nobody"):
        handle.get()
    assert [queue for queue, _ in nexus_tasks.dead_letters] == ["users"]


def test_an_upload_is_processed(nexus_tasks: Tasks) -> None:
    post = application.new_post("7", "From the #train")
    form = presigned_post("7", post.post_id, "holiday.jpg", content_type="image/jpeg")

    nexus_tasks.upload(form.key, PHOTO, task=process_media_upload)
    nexus_tasks.drain()

    assert (found := posts.get(post.post_id)) is not None
    assert found.media is not None
    assert found.media.status == "ready"
    stored = {key for bucket, key in nexus_tasks.services.s3.objects if bucket.startswith("memory-media")}
    assert stored == {rendition.key for rendition in found.media.renditions.values()}


def test_an_upload_without_its_post_is_quarantined_after_its_retries(nexus_tasks: Tasks) -> None:
    nexus_tasks.upload("uploads/7/p-1/holiday.jpg", PHOTO, task=process_media_upload)
    nexus_tasks.drain()
    assert [key for _, key in nexus_tasks.services.s3.objects] == ["quarantine/uploads/7/p-1/holiday.jpg"]


# --- time ---


def test_a_countdown_runs_when_it_is_due_and_not_before(nexus_tasks: Tasks) -> None:
    user = application.register("ada@example.com", "Ada")
    note = {"user_id": user.user_id, "kind": "reminder", "text": "Your trial ends tomorrow"}
    soon = send_notification.apply_async(note, countdown=600)
    late = send_notification.apply_async(note, eta=nexus_tasks.now + timedelta(days=3))

    nexus_tasks.advance(timedelta(minutes=9))
    assert soon.status == "PENDING"
    nexus_tasks.advance(timedelta(minutes=1))
    assert (soon.status, late.status) == ("SUCCESS", "PENDING")
    nexus_tasks.advance(timedelta(days=3))
    assert late.status == "SUCCESS"
    first, last = sorted(note.created_at for note in notifications.latest(user.user_id))
    assert last - first == 3 * 86_400 - 600


@given(st.floats(0, 1e9), st.lists(st.integers(1, 1000), min_size=1, max_size=5))
def test_a_task_due_at_the_end_of_a_span_runs_however_the_span_is_cut(start: float, minutes: list[int]) -> None:
    with in_memory(at=clock.date(start)) as tasks:
        user = application.register("ada@example.com", "Ada")
        tip = {"user_id": user.user_id, "kind": "tip", "text": "x"}
        handle = send_notification.apply_async(tip, countdown=60 * sum(minutes))
        for part in minutes:
            assert handle.status == "PENDING"
            tasks.advance(timedelta(minutes=part))
        assert handle.status == "SUCCESS"


def test_drain_advances_the_clock_through_the_backoff(nexus_tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def unlucky(_args: object, _run: object) -> NotificationSent:
        seen.append(clock.now())
        if len(seen) < 3:
            raise OSError("not yet")
        return NotificationSent()

    implement(monkeypatch, unlucky)
    handle = send_notification.delay(user_id="7", kind="like", text="x")
    nexus_tasks.advance(timedelta(0))
    assert (handle.status, len(seen)) == ("RETRY", 1)

    nexus_tasks.drain()

    assert (handle.status, len(seen)) == ("SUCCESS", 3)
    assert seen[0] < seen[1] < seen[2] <= seen[0] + 60 + 120


def implement(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    stand_in = Implementation(send_notification, function)  # type: ignore[arg-type]
    monkeypatch.setitem(registry._implementations, "send_notification", stand_in)


def test_schedules_fire_as_time_passes(nexus_tasks: Tasks) -> None:
    nexus_tasks.freeze(datetime(2026, 11, 23, 4, 30, tzinfo=UTC))
    post = application.new_post("7", "From the #train")
    application.count(post.post_id, likes=2)

    nexus_tasks.advance(timedelta(hours=1), schedules=True)

    fired = [one for one in nexus_tasks.sent if one.task is update_post_engagement_scores]
    assert [one.due for one in fired] == [datetime(2026, 11, 23, 5, tzinfo=UTC)]
    assert fired[0].handle.status == "SUCCESS"
    assert (scored := posts.get(post.post_id)) is not None
    assert scored.engagement_score == 6
    assert nexus_tasks.now == datetime(2026, 11, 23, 5, 30, tzinfo=UTC)


def test_advance_without_schedules_sends_no_scheduled_task(nexus_tasks: Tasks) -> None:
    nexus_tasks.advance(timedelta(days=7))
    assert nexus_tasks.sent == []


def test_the_tests_time_applies_in_every_thread() -> None:
    from threading import Thread

    seen: list[str] = []
    with in_memory(at=NEW_YEAR):
        thread = Thread(target=lambda: seen.append(application.register("a@example.com", "A").last_active_day))
        thread.start()
        thread.join()
    assert seen == ["2027-01-01"]
    assert abs(clock.now() - time.time()) < 60


# --- what goes wrong ---


def test_a_test_can_make_sends_fail(nexus_tasks: Tasks) -> None:
    with nexus_tasks.sends_failing(), pytest.raises(SendFailed, match="AWS cannot be reached"):
        register_view("ada@example.com")
    with nexus_tasks.sends_failing(), pytest.raises(SendFailed):
        send_welcome_email.apply_async({"user_id": "7"}, countdown=3600)
    assert nexus_tasks.sent == []
    register_view("bob@example.com")
    nexus_tasks.assert_sent(send_welcome_email)


def test_a_sandbox_that_dies_after_its_work_is_repeated_and_sends_no_second_mail(nexus_tasks: Tasks) -> None:
    before = nexus_tasks.now
    register_view("ada@example.com")
    nexus_tasks.kill_sandbox(send_welcome_email)

    assert nexus_tasks.drain() == 2

    assert len(nexus_tasks.mails) == 1
    record = nexus_tasks.assert_sent(send_welcome_email).handle.record()
    assert (record.status, record.attempts) == ("SUCCESS", 2)
    assert nexus_tasks.now - before >= timedelta(minutes=15), "its lease ends with the invocation"


def test_a_task_whose_every_sandbox_dies_is_given_up(nexus_tasks: Tasks) -> None:
    register_view("ada@example.com")
    nexus_tasks.kill_sandbox(send_welcome_email, times=4)
    with pytest.raises(AssertionError, match="send_welcome_email was given up after 4 attempts: SandboxDied"):
        nexus_tasks.drain()
    assert len(nexus_tasks.mails) == 1


def test_a_message_that_comes_twice_is_one_run(nexus_tasks: Tasks) -> None:
    register_view("ada@example.com")
    nexus_tasks.duplicate(send_welcome_email)
    assert nexus_tasks.drain() == 2
    nexus_tasks.duplicate(send_welcome_email)
    assert nexus_tasks.drain() == 1
    assert len(nexus_tasks.mails) == 1


def test_tasks_that_send_each_other_endlessly_are_stopped(nexus_tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus.testing.DELIVERIES", 20)

    def endless(_args: object, _run: object) -> NotificationSent:
        send_notification.delay(user_id="7", kind="like", text="again")
        return NotificationSent()

    implement(monkeypatch, endless)
    send_notification.delay(user_id="7", kind="like", text="x")
    with pytest.raises(AssertionError, match="the tasks send each other endlessly"):
        nexus_tasks.drain()


# --- unittest ---


class RegisterTest(TasksMixin, unittest.TestCase):
    """As an application's own."""

    def test_a_user_registers(self) -> None:
        user_id = register_view("ada@example.com")
        self.assert_sent(send_welcome_email, user_id=user_id)
        self.assert_not_sent(refresh_user_statistics)
        self.tasks.drain()
        assert len(self.tasks.mails) == 1

    def test_the_next_one_begins_with_nothing(self) -> None:
        self.assert_not_sent(send_welcome_email)


# --- the package ---


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program in a process that has the layer on its path, and no variables but these."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "shared"), **variables}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


EAGER = {"NEXUS_BACKEND": "nexus.eager", "POWERTOOLS_LOG_LEVEL": "CRITICAL"}
WELCOME = (
    "from social import application\n"
    "from social.catalogue import send_welcome_email\n"
    "user = application.register('ada@example.com', 'Ada')\n"
    "handle = send_welcome_email.delay(user_id=user.user_id)\n"
    "print(handle.result.outcome)\n"
)


def test_eager_mode_needs_no_variable_of_the_functions_and_no_aws() -> None:
    done = run(WELCOME, **EAGER, NEXUS_FUNCTIONS=str(ROOT / "functions"))
    assert (done.stdout, done.stderr) == ("sent\n", "")


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("jinja2", "send_welcome_email needs jinja2, which is not installed: pip install -r functions/emails/"),
        ("aws_lambda_powertools", 'running tasks needs aws_lambda_powertools: pip install "./shared[worker]"'),
    ],
)
def test_eager_mode_says_which_package_is_missing(absent: str, said: str) -> None:
    program = f"import sys; sys.modules[{absent!r}] = None\n{WELCOME}"
    done = run(program, **EAGER, NEXUS_FUNCTIONS=str(ROOT / "functions"))
    assert f"ConfigurationError: {said}" in done.stderr


def test_eager_mode_says_that_it_does_not_know_where_the_code_is() -> None:
    done = run(WELCOME, **EAGER)
    assert "ConfigurationError: send_welcome_email cannot run here: no module send_welcome_email" in done.stderr
    assert "NEXUS_FUNCTIONS" in done.stderr


def test_the_plugin_works_without_the_workers_packages_and_ignores_marked_tests(tmp_path: Path) -> None:
    (tmp_path / "test_view.py").write_text(
        "from social import application\n"
        "from social.catalogue import send_welcome_email\n"
        "def test_view(nexus_tasks):\n"
        "    user = application.register('ada@example.com', 'Ada')\n"
        "    send_welcome_email.delay(user_id=user.user_id)\n"
        "    nexus_tasks.assert_sent(send_welcome_email, user_id=user.user_id)\n"
    )
    (tmp_path / "test_cloud.py").write_text(
        "import pytest\n"
        "from nexus.settings import settings\n"
        "@pytest.mark.nexus_aws\n"
        "def test_on_a_deployment(nexus_tasks):\n"
        "    assert nexus_tasks is None\n"
        "    assert not settings().memory\n"
        "def test_effects_happen_once_in_memory():\n"
        "    assert settings().memory\n"
    )
    absent = ("aws_lambda_powertools", "orjson", "jinja2", "PIL", "av")
    options = ["-q", "--strict-markers", "-p", "nexus.pytest", "-p", "no:cacheprovider", str(tmp_path)]
    program = f"import sys; sys.modules |= dict.fromkeys({absent!r})\nimport pytest\nsys.exit(pytest.main({options!r}))"
    done = run(program)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_record_that_was_never_sent_is_unknown(nexus_tasks: Tasks) -> None:
    assert AsyncResult("0189d6b0-0000-7000-8000-000000000001").status == "UNKNOWN"


def test_the_code_of_the_tasks_is_named_where_it_is_missing(
    nexus_tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(registry._implementations, "process_media_upload", raising=False)
    monkeypatch.setitem(sys.modules, "process_media_upload", None)
    process_media_upload.delay(bucket="b-uploads", key="uploads/7/p/holiday.jpg")
    with pytest.raises(ConfigurationError, match="no module process_media_upload"):
        nexus_tasks.drain()


def test_an_account_is_erased(nexus_tasks: Tasks) -> None:
    user_id = register_view("ada@example.com")
    post = application.new_post(user_id, "From the #train")
    nexus_tasks.upload(presigned_post(user_id, post.post_id, "holiday.jpg").key, PHOTO, task=process_media_upload)
    nexus_tasks.drain()

    erasing = application.delete_user(user_id)
    nexus_tasks.drain()

    assert erasing is not None
    assert erasing.status == "SUCCESS"
    assert users.get(user_id) is None
    assert posts.get(post.post_id) is None
    assert not nexus_tasks.services.s3.objects


def test_the_projects_own_tests_do_not_load_the_plugin_that_an_install_may_have_left(
    pytestconfig: pytest.Config,
) -> None:
    assert pytestconfig.pluginmanager.is_blocked("nexus")
