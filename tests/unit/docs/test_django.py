"""docs/django.md, step by step: its files and commands, in order, in a new project of `django-admin startproject`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dev import postgres
from nexus import periodic
from ops import template
from tests.support.pages import Block, blocks
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[3]
PAGE = list(blocks("django.md"))

pytestmark = pytest.mark.programs


def run(words: list[str], folder: Path, *, script: str | None = None) -> str:
    """Runs a command in its own process, without the runtime's variables; its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NEXUS_", "AWS_", "DJANGO_"))}
    done = subprocess.run(
        words,
        env={**kept, "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder, input=script, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(line: str, folder: Path) -> Path:
    """Runs a line of a shell; the folder that the next one runs in."""
    words = line.split()
    if words[0] == "cd":
        return folder / words[1]
    program = [sys.executable, "-m", "django"] if words[0] == "django-admin" else [sys.executable]
    run([*program, *words[1:]], folder)
    return folder


def test_the_page_makes_a_project_whose_tasks_run(tmp_path: Path) -> None:
    folder, session, said = tmp_path, list[str](), list[str]()

    def shell() -> None:
        """Runs what was typed into the shell so far, because the next block changes the settings."""
        said.extend(run([sys.executable, "manage.py", "shell", "-v0", "-c", "\n".join(session)], folder).splitlines())
        session.clear()

    for block in PAGE:
        match block:
            case Block("sh", ()) if not session:
                for line in block.text.splitlines():
                    folder = command(line, folder)
            case Block("sh", ()):  # a separate process's sends would not be in this one's memory
                words = [line.removeprefix("python manage.py ").split() for line in block.text.splitlines()]
                session += [f"from django.core.management import call_command as c; c(*{line})" for line in words]
            case Block("python", ("settings",)):
                if session:
                    shell()
                with (folder / "mysite" / "settings.py").open("a") as file:
                    file.write(f"{block.text}\n")
            case Block("python", ("mirrors",)):
                (folder / "mysite" / "mirrors.py").write_text(block.text)
            case Block("python", ("tasks",)):
                (folder / "users" / "tasks.py").write_text(block.text)
            case Block("python", ("shell",)):
                session.append(block.text)
            case Block("python", ()):
                (folder / "users" / "tests.py").write_text(block.text)
    shell()
    assert said == ["SUCCESSFUL Welcome, ada!", "sent 1, kept 0", "SUCCESSFUL", "sent 1, kept 0", "['3']"]
    run([sys.executable, "manage.py", "test", "-v0"], folder)


def test_the_pages_project_runs_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tasks, and its tests in a database of their own."""
    files = {block.words[0]: block.text for block in reversed(PAGE) if block.language == "python" and block.words}
    run([sys.executable, "-m", "django", "startproject", "mysite", "."], tmp_path)
    run([sys.executable, "manage.py", "startapp", "users"], tmp_path)
    with (tmp_path / "mysite" / "settings.py").open("a") as file:
        file.write(f"{files['settings']}\n{files['database']}\n")
    (tmp_path / "users" / "tasks.py").write_text(files["tasks"])
    (tests,) = [block.text for block in PAGE if block.language == "python" and not block.words]
    (tmp_path / "users" / "tests.py").write_text(tests)
    with postgres.temporary() as server:
        monkeypatch.setenv("DATABASE_HOST", server.folder)
        run([sys.executable, "manage.py", "migrate", "-v0"], tmp_path)
        said = run([sys.executable, "manage.py", "shell", "-v0", "-c", files["shell"]], tmp_path)
        run([sys.executable, "manage.py", "test", "-v0", "--buffer"], tmp_path)
    assert said == "SUCCESSFUL Welcome, ada!\n"


def test_a_new_value_of_a_parameter_reaches_the_examples_function() -> None:
    """A deployment that changes nothing else publishes a version only if the version's description changes."""
    resources = template.load((ROOT / "examples" / "django" / "template.yaml").read_text())
    function = resources["Resources"]["DefaultFunction"]["Properties"]
    read = set(re.findall(r"Database\w+|SocialStack", json.dumps(function["Environment"])))
    assert len(read) == 6
    assert set(re.findall(r"Database\w+|SocialStack", json.dumps(function["VersionDescription"]))) == read


def test_the_page_installs_what_running_a_task_needs() -> None:
    (install,) = [block.text for block in PAGE if block.words == ("install",)]
    assert install == "pip install './shared[django,worker]'"


def test_the_periodic_tasks_of_the_page_are_python_and_its_names_exist() -> None:
    examples = [block for block in PAGE if block.words == ("example",)]
    for block in examples:
        block.compiled("django.md")
    names = re.findall(r"periodic\.(\w+)\(", "".join(block.text for block in examples))
    assert {"create", "update", "delete", "every"} <= {*names}
    for name in names:
        assert callable(getattr(periodic, name))


def test_the_pages_admin_settings_show_the_runs_page(tmp_path: Path) -> None:
    run([sys.executable, "-m", "django", "startproject", "mysite", "."], tmp_path)
    settings, *_ = [block.text for block in PAGE if block.words == ("settings",)]
    (admin,) = [block.text for block in PAGE if block.words == ("admin",)]
    with (tmp_path / "mysite" / "settings.py").open("a") as file:
        file.write(settings.replace(', "users"', "") + "\n" + admin)
    look = """
from django.contrib.auth.models import User
from django.test import Client
user = User.objects.get_or_create(username="ada", is_staff=True, is_superuser=True)[0]
client = Client(headers={"host": "localhost"})
client.force_login(user)
answer = client.get("/admin/nexus/run/")
print(answer.status_code, b"Tasks run in this process" in answer.content)
"""
    run([sys.executable, "manage.py", "migrate", "-v0"], tmp_path)
    said = run([sys.executable, "manage.py", "shell", "-v0", "-c", look], tmp_path)
    assert said == "200 True\n"


def test_the_examples_function_is_as_the_page_says() -> None:
    template = (ROOT / "examples" / "django" / "template.yaml").read_text()
    for line in ("NEXUS_CATALOGUE: nexus.django.catalogue", "DJANGO_SETTINGS_MODULE: network.settings", "NEXUS_QUEUE:"):
        assert line in template


def test_the_examples_mirrors_fit_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCIAL_STACK", "nexus-prod")
    assert "no issues" in run([sys.executable, "manage.py", "check"], ROOT / "examples" / "django")
    monkeypatch.setenv("SOCIAL_STACK", "")
    assert "no issues" in run([sys.executable, "manage.py", "check"], ROOT / "examples" / "django")
