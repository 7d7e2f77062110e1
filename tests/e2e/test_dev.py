"""`nexus dev` on its own terminal, with a copy of the code that the test changes as a developer does."""

import os
import re
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from nexus.settings import Settings
from social import application
from social.catalogue import send_notification, update_user_statistics
from tests.support.patience import PATIENCE, eventually
from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "default"
READY = "Ctrl-C gives them back"
GUARD = "    if not _exists(args.user_id, run):\n"
NEXUS = "import sys; from ops.main import main; sys.exit(main())"


class Session(Terminal):
    """A session of `nexus dev`."""

    def __init__(self, code: Path, *options: str, queue: str = QUEUE) -> None:
        variables = {"PYTHONPATH": f"{code}:{code / 'shared'}", "TERM": "dumb", "TMPDIR": str(code)}
        super().__init__([sys.executable, "-c", NEXUS, "dev", queue, *options], variables, code)
        self._seen = 0

    def up_to(self, words: str, typed: str = "") -> str:
        """Types, and reads until the words come; what came since the words before."""
        self.press(typed)
        self.read(words, lambda: words in self.shown[self._seen :])
        found = self.shown.index(words, self._seen)
        before, self._seen = self.shown[self._seen : found], found + len(words)
        return before

    def end(self) -> int:
        """Ctrl-C, and the exit code."""
        self.press("\x03")
        self.up_to(" again.")
        return self.wait()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name in ("functions", "shared"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def edit(code: Path) -> Callable[..., None]:
    """Puts lines at the beginning of send_notification's work."""
    file = code / "functions" / "default" / "send_notification.py"
    text = file.read_text()
    assert text.count(GUARD) == 1

    def put(*lines: str) -> None:
        file.write_text(text.replace(GUARD, "".join(f"    {line}\n" for line in lines) + GUARD))

    return put


@pytest.fixture
def nexus_dev(stack: Settings, code: Path) -> Iterator[Callable[..., Session]]:
    started: list[Session] = []

    def start(*options: str, queue: str = QUEUE) -> Session:
        started.append(Session(code, *options, queue=queue))
        return started[-1]

    yield start
    for session in started:
        try:
            os.kill(session.pid, signal.SIGTERM)
            session.wait()
        except (ProcessLookupError, ChildProcessError):
            continue


def mapping(stack: Settings) -> str:
    """The state of the queue's event source."""
    listed = boto3.client("lambda").list_event_source_mappings(FunctionName=f"{stack.function_name(QUEUE)}:live")
    (found,) = listed["EventSourceMappings"]
    return found["State"]


def user() -> str:
    name = f"u-{uuid.uuid4().hex[:12]}"
    application.register(f"{name}@example.com", "Ada", user_id=name)
    return name


def returns(reason: str) -> str:
    return f'return NotificationSent(reason="{reason}")'


def test_a_change_runs_the_message_again_and_ctrl_c_gives_the_queue_back(
    stack: Settings, nexus_dev: Callable[..., Session], edit: Callable[..., None]
) -> None:
    # Given code with a fault
    edit('raise ValueError("a fault")')
    session = nexus_dev()
    session.up_to(READY)
    assert mapping(stack) == "Disabled"

    # When a message comes, its run fails here, where the fault can be seen
    handle = send_notification.delay(user_id="u-dev", kind="like", text="hi")
    session.up_to(f'user_id="u-dev" kind="like" text="hi" {handle.id}')
    assert "send_notification.py" in session.up_to("RETRY ValueError: a fault")

    # Then a change runs it again at once: the same run, although its retry was due later
    edit(returns("repaired"))
    session.up_to(handle.id)
    session.up_to('SUCCESS {"notification_id": null, "reason": "repaired"}')
    assert handle.get(timeout=PATIENCE).reason == "repaired"

    # And the next change runs its task as another run: the ended run stays
    edit(returns("better"))
    again = re.search(r" ([0-9a-f-]{36})\s+\d", session.up_to('"reason": "better"'))
    assert again is not None
    assert again[1] != handle.id
    assert handle.get().reason == "repaired"

    # A file with a fault of another kind is shown, and the next change works again
    edit("this = is not Python")
    session.up_to("SyntaxError")
    edit(returns("best"))
    session.up_to('"reason": "best"')

    # When the session ends, then the deployed function continues
    assert session.end() == 0
    assert mapping(stack) == "Enabled"
    later = send_notification.delay(user_id=user(), kind="like", text="deployed")
    assert later.get(timeout=PATIENCE).notification_id == later.id


def test_a_run_is_replayed_with_its_arguments(nexus_dev: Callable[..., Session], edit: Callable[..., None]) -> None:
    handle = send_notification.delay(user_id=user(), kind="like", text="again")
    handle.get(timeout=PATIENCE)
    edit('return NotificationSent(reason=f"here: {args.text}")')

    for options in ((), ("--from", os.environ["NEXUS_STACK"])):
        session = nexus_dev("--replay", handle.id, *options)

        session.up_to(READY)
        session.up_to('"reason": "here: again"')
        assert session.end() == 0


def test_a_breakpoint_stops_in_the_terminal(nexus_dev: Callable[..., Session], edit: Callable[..., None]) -> None:
    edit("breakpoint()")
    session = nexus_dev()
    session.up_to(READY)
    handle = send_notification.delay(user_id=user(), kind="like", text="look at me")

    session.up_to("(Pdb)")
    session.up_to("'look at me'", typed="p args.text\n")
    session.up_to(f'SUCCESS {{"notification_id": "{handle.id}"', typed="c\n")
    assert session.end() == 0


def test_an_upload_is_processed_by_the_session(stack: Settings, nexus_dev: Callable[..., Session], post: str) -> None:
    session = nexus_dev(queue="media")
    session.up_to(READY)

    key = f"uploads/u-e2e/{post}/a.txt"
    boto3.client("s3").put_object(Bucket=stack.bucket("uploads"), Key=key, Body=b"not a picture")

    session.up_to("media: process_media_upload")
    session.up_to('"status": "rejected"')
    assert session.end() == 0


def test_the_end_of_a_job_is_shown_when_its_last_part_ends(nexus_dev: Callable[..., Session]) -> None:
    session = nexus_dev(queue="analytics")
    session.up_to(READY)

    handle = update_user_statistics.delay()

    session.up_to(f"analytics: update_user_statistics {handle.id}")
    session.up_to("waits for ")
    session.up_to(f"analytics: update_user_statistics {handle.id} SUCCESS")
    assert session.end() == 0


def test_a_run_that_ctrl_c_interrupts_continues_in_the_deployed_function(
    nexus_dev: Callable[..., Session], edit: Callable[..., None]
) -> None:
    edit("import time", 'print("sleeping")', "time.sleep(600)")
    session = nexus_dev()
    session.up_to(READY)
    handle = send_notification.delay(user_id=user(), kind="like", text="interrupted")
    session.up_to("sleeping")

    assert session.end() == 0

    assert handle.get(timeout=PATIENCE).notification_id == handle.id


def test_a_queue_that_a_killed_session_paused_is_resumed_by_the_next_session(
    stack: Settings, nexus_dev: Callable[..., Session]
) -> None:
    killed = nexus_dev()
    killed.up_to(READY)
    other = nexus_dev()
    other.up_to("Another `nexus dev` runs on")
    other.wait()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()  # its workers end too: none has the terminal any more
    assert mapping(stack) == "Disabled"

    session = nexus_dev()
    session.up_to(READY)
    assert session.end() == 0

    eventually(lambda: mapping(stack) == "Enabled")
