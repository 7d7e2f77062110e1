"""The Django example: its @task functions run on the deployed function, over its models in a real PostgreSQL.

A registration, an upload, the feed and the admin in a browser, against the web server that `make example-django` starts
behind its own page; `manage.py shell` and `manage.py nexus` as a developer types them.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dev.postgres import running
from tests.support.browser import Page, browser
from tests.support.patience import PATIENCE, eventually

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "examples" / "django"
PICTURES = Path(os.environ.get("NEXUS_SCREENSHOTS", ".local/screenshots"))


def environment() -> dict[str, str]:
    """The project's environment: its database and the AWS credentials; its settings name the stack."""
    server = running()
    assert server is not None, "PostgreSQL does not run: `make django-network` starts it"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}
    patience = {name: os.environ[name] for name in ("NEXUS_SEND_TIMEOUT", "NEXUS_READ_TIMEOUT") if name in os.environ}
    database = {"DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": str(server.port)}
    return {**kept, **patience, **database, "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}", "DJANGO_DEBUG": "1"}


def manage(*words: str, code: int = 0, **variables: str) -> str:
    """Runs `manage.py` in its own process; its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        env=environment() | variables, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the project's web server, which runs in its own process."""
    log = tmp_path_factory.mktemp("django") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "network.wsgi", "--bind", "127.0.0.1:0", "--threads", "4"],
            env=environment(), cwd=PROJECT, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        said = eventually(lambda: re.search(r"Listening at: (http://127\.0\.0\.1:\d+)", log.read_text()))
        yield said[1]
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture(scope="module")
def admin(site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A superuser, as the example's README makes one, who has signed in to the admin."""
    name = f"admin-{uuid.uuid4().hex[:6]}"
    manage("createsuperuser", "--noinput", "--username", name, "--email", "", DJANGO_SUPERUSER_PASSWORD="correct horse")
    with browser(tmp_path_factory.mktemp("admin") / "profile") as page:
        page.open(f"{site}/admin/")
        page.fill("[name=username]", name)
        page.fill("[name=password]", "correct horse")
        submit(page, "Log in")
        page.wait_for("document.body?.innerText.includes('Site administration')")
        yield page


@pytest.fixture(scope="module")
def periodic(site: str, admin: Page) -> str:
    """A periodic task that fires each minute, made in the admin some tests before the one that waits for a firing."""
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    admin.open(f"{site}/admin/nexus/periodictask/add/")
    admin.fill("[name=name]", name)
    admin.evaluate("document.querySelector('[name=task]').value = 'users.tasks.update_user_statistics'")
    admin.fill("[name=expression]", "cron(* * * * ? *)")
    submit(admin, "Save and continue editing")
    admin.wait_for("document.body?.innerText.includes('was added successfully')")
    assert "in step" in admin.text()
    return name


def submit(page: Page, button: str) -> None:
    page.evaluate(f"[...document.querySelectorAll('button, input[type=submit]')].find(b => (b.textContent || b.value)"
                  f".trim() === {json.dumps(button)}).click()")  # fmt: skip


DOUBLE_CLICK = """(() => {
  let sent = 0;
  addEventListener("submit", (event) => { sent += !event.defaultPrevented; });
  const button = document.querySelector("form[data-once] [type=submit]");
  button.click();
  button.click();
  return sent;
})()"""
"""Clicks twice on the button of a confirmation; how often its form is sent."""


def test_a_registration_is_welcomed_and_a_picture_gets_its_thumbnail(site: str, page: Page, tmp_path: Path) -> None:
    name = f"ann-{uuid.uuid4().hex[:6]}"
    page.open(f"{site}/register")
    page.fill("[name=username]", name)
    page.fill("[name=password1]", "correct horse battery")
    page.fill("[name=password2]", "correct horse battery")
    submit(page, "Register")
    page.wait_for("document.title === 'Feed'")

    # The welcome was written with the account: the outbox's sender sends it, and the function writes the notification.
    assert "sent 1" in manage("nexus_outbox")

    def welcomed() -> bool:
        page.open(site)
        return f"Welcome, {name}!" in page.text()

    eventually(welcomed, every=1.0)

    picture = tmp_path / "hills.jpg"
    Image.effect_mandelbrot((1200, 800), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(picture)
    page.fill("[name=text]", "Hills")
    page.choose_files("[name=picture]", [picture])
    submit(page, "Post")
    page.wait_for("document.body?.innerText.includes('Hills')")

    def shown() -> bool:
        page.open(site)
        return bool(page.evaluate("document.querySelector('article img').naturalWidth === 320"))

    eventually(shown, every=1.0)

    manage("shell", "-v0", "-c", "from users.tasks import update_user_statistics as u; u.enqueue()")

    def counted() -> bool:
        page.open(site)
        return "1 posts" in page.text()

    eventually(counted, every=1.0)
    page.look(width=900)
    page.screenshot(PICTURES / "django-feed.png")
    page.errors[:] = [error for error in page.errors if "404" not in error]  # a thumbnail that was not there yet
    assert page.errors == []


def test_a_file_that_is_not_a_picture_is_rejected_with_a_sentence(site: str, page: Page, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no picture")
    page.open(site)
    page.fill("[name=text]", "Notes")
    page.choose_files("[name=picture]", [file])
    submit(page, "Post")
    page.wait_for("document.body?.innerText.includes('Notes')")

    def rejected() -> bool:
        page.open(site)
        return "This file is not a supported picture." in page.text()

    eventually(rejected, every=1.0)


@pytest.mark.usefixtures("periodic")
def test_the_shell_of_the_project_enqueues_and_reads_the_result() -> None:
    said = manage(
        "shell", "-v0", "-c",
        "import time\n"
        "from users.tasks import welcome\n"
        "result = welcome.enqueue(987654321)\n"
        "while not result.is_finished:\n"
        "    time.sleep(0.2); result.refresh()\n"
        "print(result.status, result.attempts, result.errors[0].exception_class.__name__)",
    )  # fmt: skip
    assert said.split() == ["FAILED", "1", "Reject"]


def test_the_operators_command_uses_the_projects_stack() -> None:
    listed = json.loads(manage("nexus", "inspect", "registered", "--json"))
    names = [task["task"] for task in listed]
    assert sorted(names) == sorted({*names})
    assert {"users.tasks.welcome", "users.tasks.update_user_statistics", "posts.tasks.make_thumbnail"} <= {*names}
    assert "there is no user 987654321" in manage("nexus", "dlq", "list", "--json")
    manage("nexus", "dlq", "drop", "default", "--yes")


def test_the_admin_shows_a_failed_run_and_sends_it_again(site: str, admin: Page) -> None:
    run_id = manage(
        "shell", "-v0", "-c", "from users.tasks import welcome as w; print(w.enqueue(987654320).id)"
    ).strip()
    eventually(lambda: "there is no user 987654320" in manage("nexus", "dlq", "list", "--json"))
    admin.open(f"{site}/admin/")
    for name in ("Runs", "Dead letters", "Periodic tasks", "Outbox"):
        assert name in admin.text()
    admin.look(width=1300)
    admin.screenshot(PICTURES / "django-admin-index.png")

    admin.open(f"{site}/admin/nexus/run/?status=FAILURE&task=users.tasks.welcome")
    assert "there is no user 987654320" in admin.text()
    admin.screenshot(PICTURES / "django-admin-runs.png")
    admin.open(f"{site}/admin/nexus/run/?q={run_id}")

    def whole() -> bool:
        """The log comes a moment later than the rest."""
        admin.open(f"{site}/admin/nexus/run/{run_id}/change/")
        wanted = ("users.tasks.welcome", "987654320", "Reject", "in welcome", "run started")
        return all(text in admin.text() for text in wanted)

    eventually(whole, every=1.0)
    admin.screenshot(PICTURES / "django-admin-run.png")
    admin.look(width=1300, dark=True)
    admin.screenshot(PICTURES / "django-admin-run-dark.png")
    admin.look(width=420)
    admin.screenshot(PICTURES / "django-admin-run-narrow.png")
    admin.look(width=1300)

    submit(admin, "Retry")
    admin.wait_for("document.body?.innerText.includes('Send 1 run of django-network again')")
    admin.screenshot(PICTURES / "django-admin-confirm.png")
    assert admin.evaluate(DOUBLE_CLICK) == 1
    admin.wait_for("document.body?.innerText.includes('1 sent again.')")
    eventually(lambda: run_id in manage("nexus", "dlq", "list", "--json"))
    noted = manage("nexus", "audit", "--json")
    assert "in Django's admin" in noted


def test_the_admin_drops_dead_letters_by_error(site: str, admin: Page) -> None:
    def grouped() -> bool:
        admin.open(f"{site}/admin/nexus/deadletter/?queue=default&task=users.tasks.welcome&error=Reject")
        return "987654320" in admin.text()

    eventually(grouped, every=1.0)
    admin.screenshot(PICTURES / "django-admin-letters.png")
    submit(admin, "Drop")
    admin.wait_for("document.body?.innerText.includes('for good?')")
    submit(admin, "Yes, I’m sure")
    admin.wait_for("document.body?.innerText.includes('dropped.')")


def test_a_periodic_task_made_in_the_admin_fires_and_shows_its_run(site: str, admin: Page, periodic: str) -> None:
    def fired() -> bool:
        admin.open(f"{site}/admin/nexus/periodictask/{periodic}/change/")
        return "SUCCESS" in admin.text()

    eventually(fired, every=1.0)  # at the next full minute
    admin.screenshot(PICTURES / "django-admin-periodic.png")
    admin.open(f"{site}/admin/nexus/periodictask/?q={periodic}")
    admin.screenshot(PICTURES / "django-admin-periodics.png")
    admin.evaluate("document.querySelector('[name=_selected_action]').click()")
    admin.evaluate("document.querySelector('select[name=action]').value = 'run_now'")
    assert admin.evaluate(DOUBLE_CLICK.replace("form[data-once]", "#changelist-form .actions")) == 1
    admin.wait_for("document.body?.innerText.includes('was sent')")
    admin.open(f"{site}/admin/nexus/periodictask/{periodic}/delete/")
    submit(admin, "Yes, I’m sure")
    admin.wait_for("document.body?.innerText.includes('was deleted successfully')")
    assert manage("nexus_periodic") == ""
    assert [error for error in admin.errors if "favicon" not in error] == []


def test_check_finds_nothing_wrong() -> None:
    assert "no issues" in manage("check")
