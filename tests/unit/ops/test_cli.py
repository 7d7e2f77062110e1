"""The command without a stack: quick help, suggestions for wrong words, exit codes, questions."""

import dataclasses
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import typer
from botocore.exceptions import (
    ClientError,
    DataNotFoundError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
    TokenRetrievalError,
)
from botocore.session import get_session

import ops
from nexus.errors import ConfigurationError, SendFailed
from nexus.registry import registry
from nexus.runs.record import RunRecord
from ops import catalogue, control, deployment, schedules, spans, validation
from ops.cli import common, output
from ops.cli.commands import stack, tasks
from ops.dead_letters import Outcome
from ops.health import Finding, Severity
from ops.live import LiveRun
from ops.logs import Event, Line
from ops.main import app, main
from ops.problems import ExitCode, Problem, explained
from ops.validation import Check
from social.catalogue import QUEUES
from tests.unit.ops.conftest import Tty

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack named, no local cloud, whatever this machine has."""
    for name in (
        "NEXUS_CATALOGUE",
        "NEXUS_STACK",
        "NEXUS_ACCOUNT_ID",
        "AWS_ENDPOINT_URL",
        "AWS_PROFILE",
        "NEXUS_DEBUG",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ops.checkout.running", lambda: None)


def nexus(*words: str) -> int:
    return main(list(words))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment of the social network, as far as a command asks which one it is."""

    def connect(_: deployment.Choice) -> deployment.Deployment:
        catalogue.use("social.catalogue", tuple(QUEUES))
        return where("dev")

    monkeypatch.setattr(deployment, "connect", connect)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    """Checks that no heavy module is imported, which keeps it under 0.3 s; measuring the time itself would be flaky."""
    program = (
        "import sys, ops.main; code = ops.main.main(['--help']);"
        "heavy = {'boto3', 'botocore', 'rich', 'social.catalogue', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in typer.main.get_group(app).commands:
        assert f"\n  {name} " in done.stdout


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["frobnicate"], "No such command"),
        (["send", "pong"], "Did you mean ping?"),
        (["send", "ping", "txt=1"], "Did you mean text?"),
        (["send", "ping", "text"], "name=value"),
        (["send", "ping", "text=[1"], "looks like JSON"),
        (["send", "ping", "--args", "[]"], "JSON object"),
        (["send", "send_welcome_email"], "user_id: Field required"),
        (["send", "ping", "--countdown", "soon"], "not a duration"),
        (["send", "ping", "--wait", "--timeout", "soon"], "not a duration"),
        (["schedule", "run", "cleanup_old_posts", "--timeout", "soon"], "not a duration"),
        (["send", "ping", "--eta", "tomorrow"], "not a time"),
        (["send", "ping", "--countdown", "1s", "--eta", "2030-01-01"], "cannot be combined"),
        (["send", "ping", "--countdown", "9999999999"], "countdown is 9999999999.0: it must be"),
        (["send", "ping", "--expires", "2930-01-01"], "expires is "),
        (["result", "42"], "not a run id"),
        (["revoke", "42", "--yes"], "not a run id"),
        (["revoke"], "Which runs?"),
        (["revoke", "--status", "done", "--dry-run"], "not a status of a live run"),
        (["send", "ping", "--id", "01a203f2"], "not a run id"),
        (["logs"], "Whose log?"),
        (["pause", "mdia"], "Did you mean media?"),
        (["concurrency", "media", "1"], "2 to 1000"),
        (["inspect", "active", "all"], "There are: media"),
        (["schedule", "enable", "ping"], "has no schedule"),
        (["schedule", "set", "cleanup_old_posts", "0 3 * * *"], "is not of the form cron"),
        (["schedule", "set", "cleanup_old_posts", "cron(0 3 * * * *)"], "exactly one"),
        (["events", "--status", "done"], "not an outcome"),
        (["dlq", "retry"], "Which dead letters?"),
        (["dlq", "drop", "xyz"], "neither a run id nor a queue"),
        (["dlq", "show", "media"], "`nexus dlq list media` shows the ids"),
        (["dlq", "list", "media", "--queue", "users"], "Give one."),
        (["report", "--day", "2026-13-01"], "is not a day"),
        (["report", "--day", "yesterday"], "is not a day"),
        (["up", "--stack", "prod"], "starts the local cloud"),
        (["mail", "preview", "welcome", "--locale", "xx"], "There are: ar, de, en, fr, ja"),
        (["upload", "no-such-file.jpg"], "does not exist"),
        (["upload", __file__], "neither a picture nor a clip"),
        (["upload", __file__, "--no-wait", "--save", "x"], "cannot be combined with --no-wait"),
    ],
)
def test_a_wrong_word_is_exit_code_2_with_the_right_one(
    words: list[str], reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nexus(*words) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert reported in captured.err
    assert "Traceback" not in captured.err


ENDLESS = """
import sys
from ops import main
from ops.cli import common, output

def endless() -> int:
    while True:
        output.line("x" * 100)

common.command(main.app, "endless")(endless)
sys.exit(main.main(["endless"]))
"""


def test_a_reader_that_closes_the_pipe_ends_a_stream_without_an_error() -> None:
    """As in `nexus events | head`."""
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        assert started.stdout.readline() == b"x" * 100 + b"\n"
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 0


@contextmanager
def unread() -> Iterator[None]:
    """Within the block, stdout is a pipe that nothing reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, redirect_stdout(pipe):
        yield


@pytest.mark.usefixtures("network")
def test_a_change_that_a_closed_pipe_prevents_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in `nexus schedule set ... | true`: the next five times are written before the change."""
    changed: list[str] = []
    monkeypatch.setattr(schedules, "expression", lambda _: "rate(1 day)")
    monkeypatch.setattr(schedules, "change", lambda task, _: changed.append(task))
    with unread():
        assert nexus("schedule", "set", "cleanup_old_posts", "rate(2 days)", "--yes") == ExitCode.WRONG
    assert changed == []
    assert "Nothing reads this command's output" in capsys.readouterr().err


@pytest.mark.usefixtures("network")
def test_a_change_that_prints_into_a_closed_pipe_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    paused = control.Switched("users", "Enabled", "Disabled", 2)
    monkeypatch.setattr(control, "pause", lambda _: paused)
    with unread():
        assert nexus("pause", "users", "--yes") == ExitCode.DONE


@pytest.mark.usefixtures("network")
def test_a_dry_run_into_a_closed_pipe_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_live", lambda *_: [RunRecord("r-1", "PENDING")])
    with unread():
        assert nexus("revoke", "--queue", "users", "--dry-run") == ExitCode.DONE


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), ExitCode.INTERRUPTED), (EOFError(), ExitCode.INTERRUPTED)],
)
@pytest.mark.usefixtures("network")
def test_a_command_that_is_interrupted_says_so_by_its_code(
    error: BaseException, code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise error

    monkeypatch.setattr(common, "connect", interrupted)
    assert nexus("env") == code


def test_ctrl_c_before_the_command_has_begun_causes_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ops.main.app", interrupted)
    assert nexus("status") == ExitCode.INTERRUPTED


def test_a_bug_has_its_traceback_and_a_commands_own_exit_is_kept(
    network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (ValueError("a bug"), SystemExit(7)):

        def broken(error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(common, "connect", broken)
        with pytest.raises(type(error)):
            nexus("env")


def test_a_command_without_a_stack_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert nexus("status") == ExitCode.UNREACHABLE
    assert "nexus up" in capsys.readouterr().err


def test_errors_are_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert nexus("status", "--json") == ExitCode.UNREACHABLE
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["what"] == "Which stack?"
    assert error["exit_code"] == 3


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("words", "what", "do"),
    [
        (["statsu"], "No such command 'statsu'. Did you mean 'status', 'restart'?", "`nexus --help` shows"),
        (["pause"], "Missing argument 'QUEUE'.", "`nexus pause --help` shows"),
        (["events", "--limit", "0"], "Invalid value for '--limit'", "`nexus events --help` shows"),
        (["dlq"], "Missing command.", "`nexus dlq --help` shows"),
        (["pause", "mdia"], "There is no queue 'mdia'", "Did you mean media?"),
    ],
)
def test_wrong_words_are_json_for_programs(
    words: list[str], what: str, do: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nexus(*words, "--json") == ExitCode.USAGE
    captured = capsys.readouterr()
    error = json.loads(captured.err)["error"]
    assert what in error["what"]
    assert do in error["do"]
    assert (error["exit_code"], captured.out) == (2, "")


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("severity", "code"),
    [("failed", ExitCode.WRONG), ("warning", ExitCode.WRONG), ("unchecked", ExitCode.DONE), ("note", ExitCode.DONE)],
)
def test_validate_fails_where_status_and_doctor_do(
    severity: Severity, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A change by hand is a warning: tasks still run, but not as they were deployed."""
    found = Finding(severity, "UsersQueue", "it was changed by hand: VisibilityTimeout is 30 and not 360", "Undo it.")
    checks = [Check("the stack's state", ()), Check("nothing was changed by hand", (found,))]
    monkeypatch.setattr(validation, "validate", lambda *_, **__: checks)

    assert nexus("validate") == code
    assert "UsersQueue: it was changed by hand" in capsys.readouterr().out
    assert nexus("validate", "--json") == code
    assert json.loads(capsys.readouterr().out)["well"] == (code == ExitCode.DONE)


def test_a_finding_that_sets_exit_code_1_is_not_called_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    severities: tuple[Severity, ...] = ("failed", "warning", "unchecked", "note")
    stack.print_findings(tuple(Finding(severity, "users", "so it is", "Do this.") for severity in severities))
    words = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert words == ["wrong", "warning", "partly", "note"]


def test_common_options_may_stand_on_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def connect(choice: deployment.Choice) -> None:
        seen.append(choice)
        raise Problem("far enough")

    monkeypatch.setattr(deployment, "connect", connect)
    nexus("--stack", "a", "--region", "r", "status")
    nexus("status", "--stack", "a", "--region", "r")
    nexus("dlq", "--stack", "a", "list", "--region", "r")
    assert seen[0] == seen[1] == seen[2] == deployment.Choice(stack="a", region="r")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("3d", 259_200), ("0.5", 0.5)],
)
def test_a_span_of_time_is_parsed_to_seconds(text: str, expected: float) -> None:
    assert spans.seconds(text) == expected


def test_a_time_of_day_has_its_date_unless_it_is_todays(monkeypatch: pytest.MonkeyPatch) -> None:
    midnight = datetime(2026, 11, 28, tzinfo=UTC).timestamp()
    monkeypatch.setattr("time.time", lambda: midnight + 30)
    assert spans.of_day(midnight) == "00:00:00"
    assert spans.of_day(midnight - 1) == "2026-11-27 23:59:59"
    assert Line("i", midnight - 0.5, "users", "said", "INFO").text == "2026-11-27 23:59:59.500 INFO    said"
    assert Line("i", midnight, "users", "said", "INFO").text == "00:00:00.000 INFO    said"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (59.4, "59s"), (200, "3m 20s"), (7500, "2h 5m"), (349_200, "4d 1h"), (None, "-")],
)
def test_ages_are_shown_in_two_units(seconds: float | None, expected: str) -> None:
    assert output.age(seconds) == expected


def test_times_in_json_are_rfc_3339_with_milliseconds_and_other_numbers_stay() -> None:
    at, text = 1_795_374_101.0516906, "2026-11-22T19:01:41.051Z"
    event = output.plain(Event(at, "q", "t", "i", "success", 1, 0.5))
    assert (event["at"], event["seconds"]) == (text, 0.5)
    run = output.plain(LiveRun("i", "t", "q", "STARTED", at, lease_until=None, args={"since": at}))
    assert (run["since"], run["lease_until"], run["args"]) == (text, None, {"since": at})
    assert output.plain(Outcome(examined=3))["examined"] == 3
    assert output.plain(datetime(2026, 11, 22, 3, tzinfo=timezone(timedelta(hours=1)))) == "2026-11-22T02:00:00.000Z"


def test_a_field_that_is_named_as_a_time_is_one_in_json() -> None:
    modules = [
        importlib.import_module(one.name)
        for one in pkgutil.walk_packages(ops.__path__, "ops.")
        if "django" not in one.name
    ]
    found = {
        f"{kind.__name__}.{field.name}": field.type
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__.startswith("ops.")
        for field in dataclasses.fields(kind)
        if field.name.endswith("_at")
    }
    assert len(found) > 5
    assert {name for name, hint in found.items() if hint in (float, float | None)} == set()


def test_floats_are_rounded_for_people() -> None:
    assert output.rounded({"a": [9.459999999999997, 3, True], "b": {"c": "0.1234567"}}) == {
        "a": [9.46, 3, True],
        "b": {"c": "0.1234567"},
    }


def test_outcomes_are_completed_after_a_comma_too() -> None:
    assert common.complete_outcome("re") == ["retry", "revoked"]
    assert common.complete_outcome("failure,re") == ["failure,retry", "failure,revoked"]


# --- questions ---


def where(stage: str, *, named: bool = False) -> deployment.Deployment:
    return deployment.Deployment(
        "nexus-x", "CREATE_COMPLETE", "eu-west-1", "1" * 12, {"Stage": stage}, datetime.now(UTC), named=named
    )


@pytest.mark.parametrize(
    ("stage", "typed", "goes_on"),
    [
        ("dev", "y", True),
        ("dev", "yes", True),
        ("dev", "", False),
        ("dev", "n", False),
        ("prod", "y", False),
        ("prod", "nexus-y", False),
        ("prod", "nexus-x", True),
    ],
)
def test_a_destructive_change_is_confirmed_and_in_prod_by_typing_the_stacks_name(
    stage: str, typed: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Tty(f"{typed}\n"))
    if goes_on:
        common.confirm(where(stage), "Really?", yes=False)
    else:
        with pytest.raises(Problem) as refusal:
            common.confirm(where(stage), "Really?", yes=False)
        assert refusal.value.code == ExitCode.NOT_CONFIRMED


def test_yes_confirms_but_in_prod_only_together_with_the_stacks_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    common.confirm(where("dev"), "Really?", yes=True)
    common.confirm(where("prod", named=True), "Really?", yes=True)
    with pytest.raises(Problem, match="Nothing was changed"):
        common.confirm(where("prod"), "Really?", yes=True)


def test_a_reversible_action_is_confirmed_only_in_prod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    common.confirm(where("dev"), "Really?", yes=False, lasting=False)
    with pytest.raises(Problem):
        common.confirm(where("prod"), "Really?", yes=False, lasting=False)


def test_sent_mail_can_be_read_only_on_the_local_cloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(_: deployment.Choice) -> deployment.Deployment:
        catalogue.use("social.catalogue", tuple(QUEUES))
        return where("prod")

    monkeypatch.setattr(deployment, "connect", connect)
    assert nexus("mail", "sent") == ExitCode.USAGE
    assert "SES keeps no copy" in capsys.readouterr().err


# --- another application's stack ---


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A deployment with two queues of its own, whose catalogue this machine may lack."""

    def connect(_: deployment.Choice) -> deployment.Deployment:
        catalogue.use("letters.catalogue", ("post", "print"))
        return deployment.Deployment("letters", "CREATE_COMPLETE", "eu-west-1", "1" * 12, {})

    monkeypatch.setattr(deployment, "connect", connect)


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["pause", "media"], "There are: post, print."),
        (["pause", "pots"], "Did you mean post?"),
        (["inspect", "registered"], "The catalogue letters.catalogue cannot be imported"),
        (["send", "frank"], "The catalogue letters.catalogue cannot be imported"),
        (["mail", "unknown"], "letters is not a stack of the social network"),
        (["seed"], "letters is not a stack of the social network"),
    ],
)
def test_another_application_has_its_own_queues_and_tasks(
    words: list[str], reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nexus(*words) in (ExitCode.USAGE, ExitCode.WRONG)
    assert reported in capsys.readouterr().err


def test_only_the_deployments_tasks_count_whatever_else_is_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "parcels.py").write_text(
        "from nexus.registry import register\n"
        "from nexus.tasks import NoArguments, Result, Task\n"
        "parcel = Task(name='parcel', queue='post', arguments=NoArguments, result=Result, summary='Sends one')\n"
        "register(__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))
    importlib.import_module("social.catalogue")
    catalogue.use("parcels", ("post",))
    try:
        assert set(catalogue.tasks()) == {"parcel", "ping"}
    finally:
        catalogue.use("social.catalogue", tuple(QUEUES))


def test_a_stacks_queues_are_those_of_its_outputs() -> None:
    base = "http://127.0.0.1:4566/000000000000"
    outputs = {
        "PostQueueUrl": f"{base}/letters-post",
        "PostDeadLetterQueueUrl": f"{base}/letters-post-dead",
        "PrintFastQueueUrl": f"{base}/letters-print-fast",
        "PostFunctionName": "letters-post",
    }
    made = deployment.Deployment("letters", "CREATE_COMPLETE", "eu-west-1", "1" * 12, {}, outputs=outputs)
    assert made.queues == ("post", "print-fast")


def test_without_a_catalogue_in_the_stack_the_error_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(_: deployment.Choice) -> deployment.Deployment:
        catalogue.use("", tuple(QUEUES))
        return where("dev")

    monkeypatch.setattr(deployment, "connect", connect)
    monkeypatch.setattr(catalogue, "_named", ())  # as the Django admin's tests may have left it
    assert nexus("send", "ping") == ExitCode.WRONG
    assert "export NEXUS_CATALOGUE=" in capsys.readouterr().err
    monkeypatch.setenv("NEXUS_CATALOGUE", "social.catalogue")
    assert nexus("send", "pong") == ExitCode.USAGE
    assert "Did you mean ping?" in capsys.readouterr().err


# --- which deployment ---


def test_a_profile_on_the_command_line_goes_before_credentials_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = WORK\naws_secret_access_key = x\n")
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))  # as in a pod of EKS, or a pipeline
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111111111111:role/pipeline")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("NEXUS_STACK", "before")
    import os

    assert deployment.choose(deployment.Choice("nexus-prod", "work", "us-east-1")) == "nexus-prod"
    credentials = get_session().get_credentials()
    assert credentials is not None
    assert credentials.access_key == "WORK"
    assert "AWS_ENDPOINT_URL" not in os.environ
    assert (os.environ["AWS_PROFILE"], os.environ["AWS_REGION"]) == ("work", "us-east-1")


def test_the_local_cloud_is_the_default_when_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from ops.checkout import Cloud

    for name in Cloud(1, 4999).exports():
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("ops.checkout.running", lambda: Cloud(1, 4999))
    import os

    assert deployment.choose(deployment.Choice()) == "nexus-local"
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4999"


def test_a_running_local_cloud_is_not_reported_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from ops.checkout import Cloud

    monkeypatch.setattr("ops.checkout.running", lambda: Cloud(1, 4999))
    # Given variables that point at it, as `nexus env` prints them, except the stack's name
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4999")
    monkeypatch.setenv("NEXUS_STACK", "")
    assert deployment.choose(deployment.Choice()) == "nexus-local"
    # And those that point elsewhere
    monkeypatch.setenv("NEXUS_STACK", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Problem) as refusal:
        deployment.choose(deployment.Choice())
    assert "is not this checkout's local cloud (http://127.0.0.1:4999)" in refusal.value.why


def _client_error(code: str, message: str = "m") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "DescribeStacks")


NO_CONNECTION = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("cause", "code", "what"),
    [
        (NO_CONNECTION, ExitCode.UNREACHABLE, "AWS does not respond"),
        (TimeoutError("the limit of 4 s"), ExitCode.WRONG, "not sent: r-1: the limit of 4 s"),
    ],
)
def test_a_failed_send_is_explained_by_its_cause(cause: Exception, code: ExitCode, what: str) -> None:
    failed = SendFailed({"r-1": "the limit of 4 s"})
    failed.__cause__ = cause

    problem = explained(failed)

    assert problem is not None
    assert (problem.what, problem.code) == (what, code)


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">/dev/full", 1, "nexus: No space left on device\n"),
        ("--json >/dev/full", 1, '{"error": {"what": "No space left on device"'),
        (">&-", 0, ""),
    ],
)
def test_a_full_or_closed_stream_causes_no_traceback(
    streams: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # unbuffered, nothing is left to write at the end
    command = f"{sys.executable} -c 'from ops.main import main; raise SystemExit(main())' cost --plan {streams}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert "Traceback" not in done.stderr


def test_an_unexpected_error_is_not_explained() -> None:
    assert explained(ValueError("a bug")) is None


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (SendFailed({"r-1": "SQS took it twice"}), ExitCode.WRONG, "SQS took it twice"),
        (ConfigurationError("NEXUS_STACK is not set"), ExitCode.UNREACHABLE, "NEXUS_STACK is not set"),
    ],
)
def test_an_error_of_the_runtime_is_explained(error: Exception, code: ExitCode, what: str) -> None:
    problem = explained(error)
    assert problem is not None
    assert (problem.code, what in problem.what) == (code, True)


@pytest.mark.parametrize(
    ("error", "code", "reported"),
    [
        (TokenRetrievalError(provider="sso", error_msg="expired"), 3, "Run `aws sso login`."),
        (ProfileNotFound(profile="ada"), 3, "`aws configure list-profiles`"),
        (NoRegionError(), 3, '`eval "$(nexus env)"`'),
        (DataNotFoundError(data_path="x"), 3, "The request to AWS failed"),
        (_client_error("AWS.SimpleQueueService.NonExistentQueue"), 1, "A part of the stack is missing"),
        (_client_error("ResourceNotFoundException"), 1, "`nexus repair` restores it"),
        (_client_error("InternalFailure", "try later"), 1, "failed: InternalFailure"),
        (NoCredentialsError(), 3, "No AWS credentials"),
        (NO_CONNECTION, 3, "does not respond"),
        (_client_error("InvalidClientTokenId"), 3, "rejects the credentials"),
        (_client_error("ExpiredToken"), 3, "Sign in again (`aws sso login`)"),
        (_client_error("ResourceInUseException"), 1, "an earlier change is in progress"),
        (_client_error("AccessDenied"), 4, "was denied"),
        (_client_error("ValidationError", "Stack with id x does not exist"), 3, "There is no stack"),
        (_client_error("Throttling"), 1, "throttles"),
    ],
)
def test_an_error_of_aws_is_explained(
    error: Exception,
    code: int,
    reported: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Refusing:
        meta: Any = type("meta", (), {"region_name": "eu-west-1"})

        def describe_stacks(self, **_: str) -> Mapping[str, Any]:
            raise error

    monkeypatch.setenv("NEXUS_STACK", "x")
    monkeypatch.setattr(deployment, "client", lambda service: Refusing())
    assert nexus("status", "--stack", "x") == code
    assert reported in capsys.readouterr().err
