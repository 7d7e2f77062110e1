"""The `nexus` command against the deployed stack: each row of the operator's dictionary, in normal and error cases.

Most tests call the command in this process, as its script does, which saves each the start of a fresh one; what a fresh
process shows (pipes, exit codes, tracebacks) is tested with fresh processes.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.backend.transport import queue_url
from nexus.builtin import ping
from nexus.client import AsyncResult, send_many
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.registry import registry
from nexus.runs import transitions
from nexus.runs.record import RunError
from nexus.settings import Settings, settings
from ops import catalogue as served
from ops import health
from ops.problems import ExitCode
from ops.social import trial
from social import application, catalogue
from social.data import posts
from tests.support.command import SCRIPT, Nexus, fresh
from tests.support.patience import PATIENCE, eventually
from tests.support.terminal import Terminal

ROOT = Path(__file__).parents[2]
LETTERS = int(os.environ.get("NEXUS_LOAD_LETTERS", "2000"))
"""Dead letters of the test of many: 10,000 take most of a minute on the local cloud."""
PATIENTLY = ("--timeout", f"{PATIENCE:.0f}")


@pytest.fixture
def paused(nexus: Nexus) -> Iterator[str]:
    """A queue that is paused for the test, and empty before and after."""
    queue = "users"

    def empty() -> bool:
        """Whether the queue is empty. Messages of earlier tests are purged once they become visible."""
        nexus("purge", queue, "--yes")
        counts = health.queue_counts(settings().queue_name(queue))
        assert counts is not None
        return counts.total == 0

    assert nexus("pause", queue).code == 0
    try:
        eventually(empty, within=420)  # the queue's visibility timeout is six minutes
        yield queue
        nexus("purge", queue, "--yes")
    finally:
        assert nexus("resume", queue).code == 0


def bad_ping(queue: str = "default", **also: Any) -> str:
    """The run id of a message that its function gives up at once, because its text is too long."""
    envelope = Envelope(id=str(uuid.uuid4()), task="ping", args={"text": "x" * 201}, **also)
    boto3.client("sqs").send_message(QueueUrl=queue_url(settings().queue_name(queue)), MessageBody=envelope.encode())
    eventually(lambda: AsyncResult[Any](envelope.id).status == "FAILURE")
    return envelope.id


# --- status, ping, validate ---


def test_status_lists_every_queue_and_names_what_is_wrong(nexus: Nexus, paused: str) -> None:
    # Given a paused queue with a waiting message
    handle = catalogue.refresh_user_statistics.delay(user_id="nobody")
    # Then status says so, what to do, and ends with 1
    answer = nexus("status", "--json")
    assert answer.code == ExitCode.WRONG
    queues = {queue["name"]: queue for queue in answer.json["queues"]}
    assert [q["priority"] for q in answer.json["queues"]] == [9, 8, 7, 5, 3, 2]
    assert queues[paused]["source"] == "Disabled"
    assert queues[paused]["waiting"] == 1
    (reported,) = [f for f in answer.json["findings"] if f["where"] == paused and "paused, 1 waiting" in f["what"]]
    assert reported["do"] == f"`nexus resume {paused}`"
    assert all(queue["function"] == "Active" for queue in queues.values())
    handle.revoke()
    text = nexus("status")
    assert text.code == ExitCode.WRONG
    assert f"warning: {paused}: the queue is paused" in text.out


def test_status_in_a_pipe_has_no_colours_and_no_boxes(stack: Settings) -> None:
    answer = fresh("status")
    assert answer.code in (0, 1)
    assert answer.out.startswith(stack.stack)
    assert "\x1b" not in answer.out
    assert not set("─━│┃") & set(answer.out)


def test_ping_goes_through_every_queue_and_back(nexus: Nexus) -> None:
    answer = nexus("inspect", "ping", "--json", *PATIENTLY)
    assert answer.code == 0
    assert {pong["queue"] for pong in answer.json} == set(served.queues())
    assert all(pong["status"] == "SUCCESS" and pong["round_trip"] > 0 for pong in answer.json)


def test_a_queue_that_does_not_respond_to_a_ping_is_reported(nexus: Nexus, paused: str) -> None:
    answer = nexus("inspect", "ping", paused, "--json")
    assert answer.code == ExitCode.WRONG
    assert answer.json[0]["status"] == "not sent"
    assert answer.json[0]["why"] == f"the queue {paused} is paused. `nexus resume {paused}`"
    # And no ping waits there
    assert f"Nothing waits in {paused}" in nexus("purge", paused).out


def test_result_says_what_a_run_waits_for(nexus: Nexus, paused: str) -> None:
    # Given a run in a paused queue, and one that is sent for later
    held = nexus("send", "ping", "--queue", paused, "--json").json["id"]
    later = nexus("send", "ping", "--countdown", "10m", "--json").json["id"]
    # Then each result says what it waits for, and what releases it
    answer = nexus("result", held[:13])
    assert answer.code == 0, answer.err
    shown = answer.out
    assert f"waits for  the queue {paused} is paused" in shown
    assert f"`nexus resume {paused}`" in shown
    both = {run["id"]: run["waits_for"] for run in nexus("result", held, later, "--json").json}
    assert both[later][0]["why"].startswith("it is due at ")
    assert both[later][0]["release"].endswith(f"`nexus revoke {later}` cancels it.")
    # And they are revoked by filter, after a dry run
    looked = nexus("revoke", "--task", "ping", "--queue", paused, "--dry-run", "--json")
    assert held in {run["id"] for run in looked.json}
    assert nexus("revoke", "--queue", paused, "--yes").code == 0
    assert nexus("revoke", later[:18], "--yes").code == 0
    assert {run["status"] for run in nexus("result", held, later, "--json").json} == {"REVOKED"}


def test_a_run_is_found_by_the_first_or_last_eight_characters_of_its_id(nexus: Nexus) -> None:
    run_id = nexus("send", "ping", "text=short", "--wait", "--json").json["id"]
    eventually(lambda: "run ended" in nexus("logs", run_id).out)
    found = eventually(lambda: nexus("result", run_id[:23]).out)
    assert run_id in found
    assert "run ended" in nexus("logs", run_id[:23]).out
    # Runs that were sent within the same minute may share the first eight: then it says so. The last eight are its own
    eight = nexus("result", run_id[:8])
    assert eight.code == 0 or ("matches more than" in eight.err and "ping" in eight.err)
    short = run_id[-8:]
    for words in (("result", short), ("runs", short), ("runs", f"id:{short}"), ("revoke", "--yes", short)):
        assert run_id in nexus(*words).out
    assert "run ended" in nexus("logs", short).out
    assert nexus("result", "00000000").code == ExitCode.WRONG


def test_validate_passes_on_what_was_just_deployed_and_finds_what_was_changed_by_hand(
    nexus: Nexus, stack: Settings
) -> None:
    eventually(lambda: nexus("validate", "--no-drift", "--json").json["well"])
    # Given a user who lowers a visibility timeout, sets a concurrency, and turns a schedule off
    url = queue_url(stack.queue_name("users"))
    boto3.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "30"})
    boto3.client("events").disable_rule(Name=f"{stack.stack}-cleanup_old_posts")
    nexus("concurrency", "users", "3")
    try:
        answer = nexus("validate", "--json")
        assert answer.code == ExitCode.WRONG, "a change by hand is enough"
        reported = {(f["where"], f["what"]): f["do"] for check in answer.json["checks"] for f in check["findings"]}
        assert any(where == "users" and "visibility timeout 30 s" in what for where, what in reported)
        assert reported["cleanup_old_posts", "its schedule is off"] == "`nexus schedule enable cleanup_old_posts`"
        assert any(where == "UsersQueue" and "changed by hand" in what for where, what in reported)
        assert "`nexus concurrency users 7`" in reported["users", "3 at once, template.yaml says 7"]
        # And it does not claim more than drift detection has compared, which is less here than in an account
        assert any("1 Lambda::EventInvokeConfig" in what for where, what in reported if where == stack.stack)
        assert all(reported.values()), "each has its remedy"
    finally:
        boto3.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "360"})
        boto3.client("events").enable_rule(Name=f"{stack.stack}-cleanup_old_posts")
        nexus("concurrency", "users", "7")
    assert "\npartly  nothing was changed by hand" in nexus("validate").out


def test_the_doctor_sends_a_message_through_every_queue_and_finds_no_fault(nexus: Nexus) -> None:
    for queue in served.queues():
        nexus("dlq", "drop", queue, "--yes")  # of earlier tests
    answer = nexus("doctor", *PATIENTLY)
    assert answer.code == 0, answer.out
    lines = answer.out.splitlines()
    (pings,) = [line for line in lines if "each queue responds to a ping" in line]
    assert all(queue in pings for queue in served.queues())
    assert [line for line in lines if "an upload becomes renditions" in line and " renditions in " in line]
    assert lines[-1] == "No faults."


def test_repair_has_nothing_to_do_where_nothing_was_changed(nexus: Nexus, stack: Settings) -> None:
    answer = nexus("repair")
    assert (answer.code, answer.out) == (0, f"Nothing of {stack.stack} was deleted or changed by hand.\n")
    # And if something was changed, it asks first, and discards its plan if it gets no answer
    before = plans(stack)
    function = stack.function_name("users")
    boto3.client("lambda").update_function_configuration(FunctionName=function, MemorySize=1024)
    refused = nexus("repair")
    assert (refused.code, refused.out) == (ExitCode.NOT_CONFIRMED, "UsersFunction (Lambda::Function) was changed\n")
    assert plans(stack) == before
    assert nexus("repair", "--yes", "--json").json["repaired"][0]["name"] == "UsersFunction"
    assert boto3.client("lambda").get_function_configuration(FunctionName=function)["MemorySize"] == 512


def plans(stack: Settings) -> set[str]:
    """The change sets that could be executed."""
    listed = boto3.client("cloudformation").list_change_sets(StackName=stack.stack)["Summaries"]
    return {plan["ChangeSetName"] for plan in listed if plan["ExecutionStatus"] == "AVAILABLE"}


def test_test_runs_every_task_and_leaves_nothing_behind(nexus: Nexus) -> None:
    answer = nexus("test", "--json", *PATIENTLY)
    runs_ = {run["task"]: run for run in answer.json["runs"]}
    assert set(runs_) == set(registry.tasks())
    # A job that another test has started holds its place: that is a valid outcome too.
    wrong = {n: r["summary"] for n, r in runs_.items() if r["status"] != "SUCCESS" and "is unique" not in r["summary"]}
    assert not wrong
    assert runs_["process_media_upload"]["result"]["status"] == "ready"
    user = runs_["refresh_user_statistics"]["result"]["user_id"]
    # Then only the runs are still listed
    dynamodb = boto3.client("dynamodb")
    for table in dynamodb.list_tables()["TableNames"]:
        if table != settings().table("task-runs"):
            pages = dynamodb.get_paginator("scan").paginate(TableName=table)
            assert not [item for page in pages for item in page["Items"] if user in str(item)], table


# --- send, result, revoke ---


def test_send_waits_and_shows_the_result(nexus: Nexus) -> None:
    answer = nexus("send", "ping", "text=hello", "--wait", "--json", *PATIENTLY)
    assert answer.code == 0
    assert answer.json["status"] == "SUCCESS"
    assert answer.json["result"]["text"] == "hello"
    for time_ in ("sent_at", "started_at", "ended_at"):
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer.json[time_])
    again = nexus("result", answer.json["id"])
    assert again.code == 0
    assert '"text": "hello"' in again.out


def test_an_id_sent_twice_is_one_run(nexus: Nexus) -> None:
    run_id = new_id()
    assert nexus("send", "ping", "text=first", "--id", run_id, "--wait").code == 0
    answer = nexus("send", "ping", "text=second", "--id", run_id, "--wait", "--json")
    assert answer.json["result"]["text"] == "first"
    assert answer.json["attempts"] == 1


def test_arguments_come_from_a_pipe_too() -> None:
    done = subprocess.run(
        [*SCRIPT, "send", "ping", "--args", "-", "--wait", "--json"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}"},
        input='{"text": "piped"}',
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert json.loads(done.stdout)["result"]["text"] == "piped"


def test_result_of_a_failure_and_of_an_unknown_run_is_exit_code_1(nexus: Nexus) -> None:
    failed = bad_ping()
    answer = nexus("result", failed, "--json")
    assert answer.code == ExitCode.WRONG
    assert answer.json["error"]["type"] == "InvalidMessage"
    unknown = nexus("result", str(uuid.uuid4()))
    assert unknown.code == ExitCode.WRONG
    assert "is unknown" in unknown.err
    assert nexus("dlq", "drop", failed, "--yes").code == 0


def test_follow_exits_with_6_at_its_timeout_and_with_0_at_the_result(nexus: Nexus, paused: str) -> None:
    run_id = nexus("send", "ping", "--queue", paused).out.strip()
    answer = nexus("result", run_id, "--follow", "--timeout", "1")
    assert answer.code == ExitCode.STILL_RUNNING
    assert "PENDING" in answer.err
    nexus("resume", paused)
    assert nexus("result", run_id, "--follow", *PATIENTLY).code == 0


def test_a_fan_out_is_followed_to_its_reduced_result(nexus: Nexus) -> None:
    def sent() -> Any:
        """The run, unless another one of the job holds the place."""
        reported = nexus("send", "update_user_statistics", "--wait", "--json", *PATIENTLY).json
        return reported if reported["status"] != "REVOKED" else None

    reported = eventually(sent)
    assert reported["status"] == "SUCCESS"
    done, total = reported["progress"]
    assert done == total > 0


def test_a_delayed_run_is_scheduled_and_can_be_revoked(nexus: Nexus) -> None:
    # Given one run that SQS delays, and one that is too far away for SQS
    soon = nexus("send", "ping", "--countdown", "10m", "--json").json["id"]
    far = nexus("send", "ping", "--countdown", "2h", "--json").json["id"]
    listed = {run["id"]: run for run in nexus("inspect", "scheduled", "--json", "--limit", "1000").json["runs"]}
    assert listed[soon]["scheduled_by"] == "SQS"
    assert listed[far]["scheduled_by"] == "Scheduler"
    # When they are revoked, after an unanswered question
    assert nexus("revoke", soon, far).code == ExitCode.NOT_CONFIRMED
    answer = nexus("revoke", soon, far, "--yes", "--json")
    # Then they do not run and are not listed
    assert answer.code == 0
    assert {run["status"] for run in answer.json} == {"REVOKED"}
    left = {run["id"] for run in nexus("inspect", "scheduled", "--json", "--limit", "1000").json["runs"]}
    assert not {soon, far} & left


def test_revoke_reports_runs_that_had_ended_or_never_existed(nexus: Nexus) -> None:
    ended = nexus("send", "ping", "--wait", "--json").json["id"]
    answer = nexus("revoke", ended, str(uuid.uuid4()), "--yes")
    assert answer.code == ExitCode.WRONG
    assert "it had already ended" in answer.out
    assert "no run has this id" in answer.out


# --- inspect ---


def test_active_and_reserved_list_live_runs_and_those_that_were_lost(nexus: Nexus) -> None:
    # Given a run whose sandbox works, one whose sandbox died, and one that waits for its next attempt
    ids = {name: new_id() for name in ("works", "lost", "waits")}
    now, keep = time.time(), int(time.time()) + 7200
    for name, left in (("works", 3600.0), ("lost", -100.0), ("waits", 3600.0)):
        envelope = Envelope(id=ids[name], task="ping", args={"text": name})
        by = transitions.Claim(name, "default", round(now, 3), round(now + left, 3), keep, listed=True)
        claim = transitions.claim(envelope, None, by, 1)
        assert isinstance(claim, Write)
        backend().store.apply(claim)
    backend().store.apply(transitions.retry(ids["waits"], "waits", "default", RunError("E", "m"), round(now + 3600, 3)))
    try:
        # Then each is listed where an operator of Celery expects it
        words = ("default", "--limit", "1000")
        active = {run["id"]: run for run in nexus("inspect", "active", *words, "--json").json["runs"]}
        assert {ids["works"], ids["lost"]} <= set(active)
        assert ids["waits"] not in active
        text = nexus("inspect", "active", *words).out
        assert any(ids["lost"] in line and "lost" in line for line in text.splitlines())
        reserved = {run["id"]: run for run in nexus("inspect", "reserved", *words, "--json").json["runs"]}
        assert reserved[ids["waits"]]["args"] == {"text": "waits"}
    finally:
        for run_id in ids.values():
            boto3.client("dynamodb").delete_item(TableName=settings().table("task-runs"), Key={"id": {"S": run_id}})


def test_inspect_shows_registered_tasks_configuration_and_statistics(nexus: Nexus, stack: Settings) -> None:
    nexus("send", "ping", "--wait")
    tasks = {task["task"]: task for task in nexus("inspect", "registered", "--json").json}
    assert set(tasks) == set(registry.tasks())
    conf = {queue["queue"]: queue for queue in nexus("inspect", "conf", "--json").json["queues"]}
    assert conf["media"]["concurrency"] == 9
    assert conf["emails"]["visibility_timeout"] > conf["emails"]["timeout"]
    assert conf["users"]["environment"]["NEXUS_STACK"] == stack.stack
    counted = eventually(lambda: [t for t in nexus("inspect", "stats", "--json").json["tasks"] if t["task"] == "ping"])
    assert counted[0]["success"] >= 1


def test_a_task_that_does_nothing_is_named_with_its_reason(nexus: Nexus) -> None:
    def welcomes() -> dict[str, Any]:
        rows = nexus("inspect", "stats", "emails", "--json").json["tasks"]
        return next((row for row in rows if row["task"] == "send_welcome_email"), {"success": 0, "shortfalls": {}})

    # Given an application that mostly welcomes users whom it has not written to the user table
    enough = welcomes()["success"] + 1
    handles = send_many(
        [catalogue.send_welcome_email.s(user_id=f"nobody-{uuid.uuid4().hex[:8]}") for _ in range(enough)]
    )
    for handle in handles:
        handle.get(timeout=PATIENCE)
    # Then the figures count the reason
    eventually(lambda: welcomes()["shortfalls"].get("no such user", 0) >= enough)
    assert "no such user" in nexus("inspect", "stats", "emails").out
    # And the status names the task
    reported = [one for one in nexus("status", "--json").json["findings"] if "no such user" in one["what"]]
    assert [one["severity"] for one in reported if "send_welcome_email" in one["what"]] == ["note"]


def test_inspect_says_that_no_run_matches(nexus: Nexus, paused: str) -> None:
    # Given a paused queue, whose last runs end
    eventually(lambda: "No run has taken two seconds yet." in nexus("inspect", "active", paused).out)
    assert "No run is due later." in nexus("inspect", "scheduled", paused).out


# --- queues ---


def test_purge_counts_asks_and_revokes_what_it_removes(nexus: Nexus, paused: str) -> None:
    handles = [ping.apply_async({"text": str(n)}, queue=paused) for n in range(23)]
    refused = nexus("purge", paused)
    assert refused.code == ExitCode.NOT_CONFIRMED
    assert "Remove the 23 messages" in refused.err
    answer = nexus("purge", paused, "--yes", "--json")
    assert answer.json["purged"] == {"messages": 23, "runs": 23, "jobs": 0}
    assert {handle.status for handle in handles} == {"REVOKED"}
    empty = nexus("purge", paused)
    assert empty.code == 0
    assert f"Nothing waits in {paused}" in empty.out


def test_a_paused_queue_keeps_its_messages_and_continues_when_resumed(nexus: Nexus, paused: str) -> None:
    handle = ping.apply_async({}, queue=paused)
    # A message that was sent after it to another queue has run
    ping.delay().get(timeout=PATIENCE)
    assert handle.status == "PENDING"
    assert "was Disabled already" in nexus("pause", paused).out
    assert nexus("resume", paused).code == 0
    assert handle.get(timeout=PATIENCE) is not None


def test_pausing_media_holds_uploads_too(nexus: Nexus, stack: Settings, post: str) -> None:
    lambda_, function = boto3.client("lambda"), stack.function_name("media")
    assert nexus("pause", "media").code == 0
    try:
        assert lambda_.get_function_concurrency(FunctionName=function)["ReservedConcurrentExecutions"] == 0
        before = health.queue_counts(stack.queue_name("media"))
        assert before is not None
        key = f"uploads/u-e2e/{post}/a.txt"
        boto3.client("s3").put_object(Bucket=stack.bucket("uploads"), Key=key, Body=b"not a picture")
        eventually(lambda: (now := health.queue_counts(stack.queue_name("media"))) and now.waiting > before.waiting)
    finally:
        assert nexus("resume", "media").code == 0
    assert "ReservedConcurrentExecutions" not in lambda_.get_function_concurrency(FunctionName=function)
    eventually(lambda: (found := posts.get(post)) and found.media and found.media.status == "rejected")


def test_restart_gives_fresh_sandboxes(nexus: Nexus, stack: Settings) -> None:
    def stream(run_id: str) -> str:
        lines = boto3.client("logs").filter_log_events(
            logGroupName=f"/aws/lambda/{stack.function_name('users')}", filterPattern=f'"{run_id}"'
        )["events"]
        return lines[-1]["logStreamName"] if lines else ""

    before = nexus("send", "ping", "--queue", "users", "--wait", "--json").json["id"]
    assert nexus("restart", "users", "--json").json["note"].startswith("restarted 20")
    after = nexus("send", "ping", "--queue", "users", "--wait", "--json").json["id"]
    assert eventually(lambda: stream(before)) != eventually(lambda: stream(after))


def test_concurrency_is_shown_and_set(nexus: Nexus) -> None:
    assert nexus("concurrency", "users").out == "users: 7 at once\n"
    assert nexus("concurrency", "users", "3", "--json").json["concurrency"] == 3
    assert nexus("concurrency", "users", "7").out == "users: 7 at once\n"


# --- events, logs, monitor ---


def test_events_stream_settled_runs_by_task_and_status(nexus: Nexus) -> None:
    run_id = nexus("send", "ping", "--wait", "--json").json["id"]
    words = ("events", "--task", "ping", "--status", "success", "--since", "5m", "--no-follow", "--json")
    found = eventually(lambda: [event for event in nexus(*words).lines if event["run_id"] == run_id])
    assert (found[0]["outcome"], found[0]["attempt"], found[0]["queue"]) == ("success", 1, "default")
    assert nexus("events", "--task", "ping", "--since", "5m", "--limit", "1", "--json").lines
    empty = nexus("events", "--task", "ping", "--status", "continued", "--since", "5", "--no-follow")
    assert empty.err == "No attempt has ended in the last 5s.\n"


def test_events_are_streamed_as_runs_end() -> None:
    # Given an open stream: it has shown a run that had ended before
    before = ping.delay(text="before")
    before.get(timeout=PATIENCE)
    process = subprocess.Popen(
        [*SCRIPT, "events", "--task", "ping", "--since", "1h", "--json"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(PATIENCE, process.kill)
    guard.start()
    assert process.stdout is not None
    reported = (json.loads(line)["run_id"] for line in process.stdout)
    try:
        assert before.id in reported
        # When a run ends, then the stream shows it
        assert ping.delay(text="seen").id in reported
    finally:
        guard.cancel()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in err


def test_logs_show_a_run_from_its_start_to_its_end(nexus: Nexus) -> None:
    run_id = nexus("send", "ping", "--wait", "--json").json["id"]
    eventually(lambda: "run ended" in nexus("logs", run_id).out)
    lines = nexus("logs", run_id).out.splitlines()
    assert "run started" in lines[0]
    assert "run ended" in lines[-1]
    assert nexus("logs", str(uuid.uuid4())).code == ExitCode.WRONG


def test_monitor_looks_once_in_a_pipe_and_refuses_to_draw_there(nexus: Nexus) -> None:
    nexus("send", "ping", "--wait")
    shown = fresh("monitor", "--once")
    assert shown.code == 0
    for queue in served.queues():
        assert queue in shown.out
    assert nexus("monitor").code == ExitCode.USAGE
    assert {queue["name"] for queue in nexus("monitor", "--json").json["queues"]} == set(served.queues())


def _monitor(columns: int, lines: int) -> Terminal:
    """`nexus monitor` on a terminal of this size."""
    size = {"LINES": str(lines), "COLUMNS": str(columns)}
    variables = {"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "TERM": "xterm-256color", **size}
    return Terminal([*SCRIPT, "monitor", "--every", "0.5"], variables)


def test_monitor_draws_on_a_terminal_until_ctrl_c(stack: Settings) -> None:
    shown = _monitor(140, 40)
    shown.until("maintenance")
    shown.until(stack.stack)
    os.kill(shown.pid, signal.SIGINT)
    assert shown.wait() == ExitCode.INTERRUPTED
    assert "Traceback" not in shown.shown


def test_a_failed_run_is_found_opened_and_retried_at_80_columns(nexus: Nexus, stack: Settings) -> None:
    # Given a run that fails for good
    run_id = nexus("send", "process_media_upload", "bucket=nowhere", "key=uploads/u/p/x.jpg", "--json").json["id"]
    eventually(lambda: nexus("result", run_id, "--json").json["status"] == "FAILURE")
    shown = _monitor(80, 24)
    # When it is filtered by the short id that the view shows, opened and retried
    shown.until(run_id[-8:])
    shown.press(f"/{run_id[-8:]}\r")
    shown.until("1 of")
    shown.press("\r")
    shown.until("is not the upload bucket")
    shown.press("r")
    shown.until(f"Retry process_media_upload {run_id[-8:]}? y/N")
    shown.press("y")
    shown.until("1 sent again.")
    shown.press("qq")
    assert shown.wait() == 0
    # Then it has had another attempt, and the audit trail says by whom
    eventually(lambda: nexus("result", run_id, "--json").json["status"] == "FAILURE")
    (noted,) = [one for one in nexus("audit", "--what", "retry", "--json").json if one["about"] == {"id": run_id}]
    assert noted["outcome"] == "1 sent again."
    assert nexus("dlq", "drop", run_id[-8:], "--yes").code == 0


# --- the audit trail ---


def test_changes_by_commands_are_in_the_audit_trail_with_their_author(nexus: Nexus) -> None:
    # Given commands that change something through Lambda, EventBridge, SQS and DynamoDB, and some that only read
    changing = (
        ("concurrency", "users", "7"),
        ("restart", "users"),
        ("schedule", "enable", "cleanup_old_posts"),
        ("send", "ping", "text=audited"),
        ("pause", "users"),
        ("resume", "users"),
    )
    looking = (("concurrency", "users"), ("schedule", "list", "--since", "0"), ("versions",), ("dlq", "list"))
    for words in (*changing, *looking):
        assert nexus(*words).code == 0
    found = nexus("audit", "--since", "1h", "--json").json
    reported = [(one["what"], one["about"]) for one in reversed(found)]
    sent = {"task": "ping", "arguments": ["text"]}
    expected = [
        ("concurrency", {"queue": "users", "maximum": 7}),
        ("restart", {"queue": "users"}),
        ("schedule enable", {"names": ["cleanup_old_posts"]}),
        ("send", sent),
        ("pause", {"queue": "users"}),
        ("resume", {"queue": "users"}),
    ]
    assert [one for one in reported if one in expected][-6:] == expected
    assert not [what for what, _ in reported if what in ("schedule list", "versions", "dlq list")]
    assert all(one["who"].startswith("arn:aws:") for one in found)


# --- schedules ---


def test_schedules_are_listed_switched_changed_and_run(nexus: Nexus) -> None:
    name = "cleanup_old_posts"
    rows = {row["task"]: row for row in nexus("schedule", "list", "--since", "0", "--json").json}
    assert set(rows) == {task.name for task in registry.tasks().values() if task.schedule}
    assert rows[name]["next_at"].endswith("T01:00:00.000Z")
    try:
        nexus("schedule", "disable", name)
        rows = {row["task"]: row for row in nexus("schedule", "list", "--since", "0", "--json").json}
        assert (rows[name]["on"], rows[name]["next_at"]) == (False, None)
        assert "schedule enable cleanup_old_posts" in nexus("status").out
        refused = nexus("schedule", "set", name, "cron(30 2 ? * SUN *)")
        assert refused.code == ExitCode.NOT_CONFIRMED
        assert refused.out.count("02:30") == 5
        changed = nexus("schedule", "set", name, "cron(30 2 ? * SUN *)", "--yes", "--json").json
        assert (changed["before"], len(changed["next"])) == ("cron(0 1 ? * SUN *)", 5)
        conf = nexus("inspect", "conf")
        assert "cron(30 2 ? * SUN *) (deployed: cron(0 1 ? * SUN *))" in conf.out
        rows = {row["task"]: row for row in nexus("schedule", "list", "--since", "0", "--json").json}
        assert rows[name]["expression"] == "cron(30 2 ? * SUN *)"
        assert not rows[name]["on"], "a change does not turn it on"
    finally:
        nexus("schedule", "set", name, "cron(0 1 ? * SUN *)", "--yes")
        nexus("schedule", "enable", name)
    ended = nexus("schedule", "run", "update_trending_hashtags", "--wait", *PATIENTLY, "--json").json
    assert ended["status"] in ("SUCCESS", "REVOKED")
    # And a manual run is not a firing of the rule
    listed = nexus("schedule", "list", "--json").json
    assert ended["id"] not in {row["last_id"] for row in listed}
    assert "last fired" in nexus("schedule", "list").out


def test_a_firing_of_a_rule_is_its_last_run(nexus: Nexus) -> None:
    def row() -> Any:
        listed = nexus("schedule", "list", "--since", "1d", "--json").json
        return next(r for r in listed if r["task"] == "update_post_engagement_scores")

    # Given a message as a rule sends it: its id is the event's own, which has any digit as its version
    def is_last() -> bool:
        event_id = str(uuid.UUID(bytes=os.urandom(16)))
        body = Envelope(id=event_id, task="update_post_engagement_scores", origin="rule").encode()
        boto3.client("sqs").send_message(QueueUrl=queue_url(settings().queue_name("analytics")), MessageBody=body)
        eventually(lambda: AsyncResult[Any](event_id).ready())
        return bool(row()["last_id"] == event_id)

    # The rule itself may fire meanwhile
    eventually(is_last)
    assert row()["last_status"] in ("SUCCESS", "REVOKED")
    assert row()["runs"] >= 1


# --- dead letters ---


@pytest.fixture
def no_dead_letters(nexus: Nexus) -> Iterator[None]:
    """The queue `users` without dead letters before and after."""
    nexus("dlq", "drop", "users", "--yes")
    yield
    nexus("dlq", "drop", "users", "--yes")


@pytest.mark.usefixtures("no_dead_letters")
def test_a_dead_letter_is_shown_edited_and_succeeds(nexus: Nexus) -> None:
    assert nexus("dlq", "list", "users").out == "users has no dead letters.\n"
    run_id = bad_ping("users")
    (listed,) = nexus("dlq", "list", "--queue", "users", "--json").lines
    assert (listed["id"], listed["error"], listed["attempts"]) == (run_id, "InvalidMessage", 0)
    assert run_id in nexus("dlq", "list", "users").out
    shown = nexus("dlq", "show", run_id[:13], "--json").json
    assert shown["args"] == {"text": "x" * 201}
    assert shown["sent_at"][:19] == shown["body"]["sent_at"][:19]
    assert f"`nexus logs {run_id}`" in nexus("dlq", "show", run_id).err
    # Arguments that do not fit are not sent
    assert nexus("dlq", "edit", run_id, f"text={'y' * 300}", "--yes").code == ExitCode.USAGE
    assert nexus("dlq", "edit", run_id, "text=fixed").code == ExitCode.NOT_CONFIRMED
    assert nexus("dlq", "edit", run_id, "text=fixed", "--yes").code == 0
    # And following it from that moment on shows the new attempt, not the earlier failure
    result = nexus("result", run_id, "--follow", "--json").json
    assert (result["status"], result["result"]["text"], result["args"]) == (
        "SUCCESS",
        "fixed",
        {"text": "fixed"},
    )
    gone = nexus("dlq", "show", run_id)
    assert gone.code == ExitCode.WRONG
    assert f"`nexus result {run_id}`" in gone.err
    # The first part alone would not identify the run to `nexus result`
    assert "nexus result" not in nexus("dlq", "show", run_id[:13]).err


@pytest.mark.usefixtures("no_dead_letters")
def test_an_edited_member_repairs_the_group_that_waits_for_it(nexus: Nexus) -> None:
    # Given a group of two, one of which fails because of its arguments
    from nexus.client import group

    handle = group([catalogue.refresh_user_statistics.s(user_id="nobody"), ping.s(text="fine")]).delay()
    bad = AsyncResult[Any](handle.children[0].id)
    eventually(lambda: bad.status == "FAILURE")
    eventually(lambda: handle.status == "FAILURE")
    # The record says where it was raised, which a dead letter's attributes have no room for
    result, letter = nexus("result", bad.id, "--json").json, nexus("dlq", "show", bad.id, "--json").json
    assert result["error"]["path"] == letter["path"]
    assert result["error"]["traceback"] == letter["traceback"]
    assert "refresh_user_statistics.py" in letter["traceback"]
    user = f"u-{uuid.uuid4().hex[:12]}"
    application.register("a@example.com", "A", user_id=user)
    # When the operator corrects its arguments
    assert nexus("dlq", "edit", bad.id, f"user_id={user}", "--yes").code == 0
    # Then the group succeeds after all
    eventually(lambda: handle.status == "SUCCESS")


@pytest.mark.usefixtures("no_dead_letters")
def test_a_retry_of_letters_that_fail_again_ends_and_loses_none(nexus: Nexus) -> None:
    ids = {bad_ping("users") for _ in range(3)}
    answer = nexus("dlq", "retry", "--queue", "users", "--error", "at most 200", "--yes", "--json")
    assert (answer.code, answer.json["done"]) == (0, 3)
    eventually(lambda: {letter["id"] for letter in nexus("dlq", "list", "users", "--json").lines} == ids)
    assert nexus("dlq", "retry", str(uuid.uuid4())).code == ExitCode.WRONG
    assert "None of the 3" in nexus("dlq", "list", "users", "--task", "send_notification").out


@pytest.mark.usefixtures("no_dead_letters")
def test_many_dead_letters_are_counted_listed_and_dropped(nexus: Nexus, stack: Settings) -> None:
    # Given dead letters of two tasks
    url, sqs, count = queue_url(stack.dead_letter_queue_name("users")), sdk.client("sqs"), LETTERS

    def send(page: int) -> None:
        entries: list[Any] = []
        for n in range(page * 10, page * 10 + 10):
            task = "ping" if n % 10 else "refresh_user_statistics"
            attributes = {"Task": task, "ErrorType": "Boom", "ErrorMessage": f"number {n}", "Attempts": "4"}
            entries.append(
                {
                    "Id": str(n),
                    "MessageBody": Envelope(id=new_id(), task=task, args={"text": "x" * 201}).encode(),
                    "MessageAttributes": {k: {"DataType": "String", "StringValue": v} for k, v in attributes.items()},
                }
            )
        sqs.send_message_batch(QueueUrl=url, Entries=entries)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(count // 10)))
    # Then a list shows some and counts all
    shown = nexus("dlq", "list", "users", "--limit", "20")
    assert f"{count} dead letters in all: users {count}. The first 20 are shown" in shown.out
    assert len(shown.out.splitlines()) == 22
    # And a filter finds its thousand among them, and nothing else is touched
    filtered = nexus("dlq", "drop", "--queue", "users", "--task", "refresh_user_statistics", "--yes", "--json").json
    assert (filtered["done"], filtered["queues"]["users"]["examined"]) == (count // 10, count)
    left = nexus("dlq", "drop", "users", "--yes", "--json").json
    assert left["done"] == count - count // 10
    assert nexus("dlq", "list", "users").out == "users has no dead letters.\n"


# --- other commands ---


def test_env_points_any_tool_at_the_stack(nexus: Nexus, stack: Settings) -> None:
    assert nexus("env", "--json").json["NEXUS_STACK"] == stack.stack
    assert f"export NEXUS_STACK={stack.stack}" in nexus("env").out


def test_report_saves_the_report_of_a_day_that_was_counted(nexus: Nexus, tmp_path: Path) -> None:
    missing = nexus("report", "--day", "1999-01-01")
    assert missing.code == ExitCode.WRONG
    assert "generate_content_analytics day=1999-01-01" in missing.err
    made = nexus("send", "generate_content_analytics", "day=2019-05-05", "--wait", "--json", *PATIENTLY).json
    assert made["status"] == "SUCCESS"
    saved = nexus("report", "--day", "2019-05-05", "--save", str(tmp_path / "r.html"), "--json").json
    assert Path(saved["path"]).read_text().startswith("<!doctype html>")


def test_seed_writes_a_network(nexus: Nexus) -> None:
    answer = nexus("seed", "--users", "20", "--json")
    assert answer.code == 0
    assert answer.json["rows"]["users"] == 20


def test_a_mail_that_was_sent_can_be_read(nexus: Nexus) -> None:
    user = f"u-{uuid.uuid4().hex[:8]}"
    application.register(f"{user}@example.com", "Ada", locale="fr", user_id=user)
    assert nexus("mail", "sent", "--user", user).out == f"No mail was sent to {user}.\n"
    nexus("send", "send_welcome_email", f"user_id={user}", "--wait")
    (sent,) = nexus("mail", "sent", "--user", user, "--json").json
    assert (sent["to"], sent["subject"]) == (f"{user}@example.com", "Bienvenue sur Nexus, Ada")
    assert "<h1" in Path(sent["html"]).read_text()
    assert "Suivez quelques personnes" in Path(sent["text"]).read_text()
    assert sent["html"] in nexus("mail", "sent", "--last", "20").out
    assert nexus("mail", "sent", "--user", "nobody").code == ExitCode.WRONG


def test_upload_shows_a_files_renditions_and_saves_them(nexus: Nexus, tmp_path: Path) -> None:
    # Given a picture, for a user and a post that do not exist yet
    user, post = f"u-{uuid.uuid4().hex[:8]}", f"p-{uuid.uuid4().hex[:8]}"
    picture, page = tmp_path / "own picture.png", tmp_path / "page.jpg"
    picture.write_bytes(trial.picture(600, 400))
    page.write_text("<!doctype html>")
    words = ("--user", user, "--post", post, "--json")
    # When it is uploaded, then it is ready, and its renditions are here
    ready = nexus("upload", str(picture), *words, "--save", str(tmp_path / "out"))
    assert (ready.code, ready.json["status"], ready.json["width"]) == (0, "ready", 600)
    for name, path in ready.json["saved"].items():
        assert Path(path).stat().st_size == ready.json["renditions"][name]["bytes"]
    # And it waits for the next upload to the post, whatever media the post has from the last one
    rejected = nexus("upload", str(page), *words)
    assert (rejected.code, rejected.json["status"]) == (ExitCode.WRONG, "rejected")
    assert "web page" in rejected.json["reason"]
    # And it reports what S3's policy or the post's author forbids
    page.write_text("")
    assert "S3 refuses page.jpg (400)" in nexus("upload", str(page), "--user", user).err
    assert nexus("upload", str(picture), "--user", "demo", "--post", post).code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("variables", "reported"),
    [
        ({"NEXUS_STACK": "nexus-nowhere"}, "There is no stack nexus-nowhere"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "AWS does not respond"),
        (
            {
                "AWS_ACCESS_KEY_ID": None,
                "AWS_SECRET_ACCESS_KEY": None,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
                "AWS_CONFIG_FILE": "/nonexistent",
            },
            "No AWS credentials",
        ),
    ],
)
def test_a_command_without_stack_connection_or_credentials_says_what_to_do(
    variables: dict[str, str | None], reported: str
) -> None:
    with ThreadPoolExecutor() as pool:
        answers = list(
            pool.map(lambda words: fresh(*words, **variables), (["status"], ["send", "ping"], ["dlq", "list"]))
        )
    for answer in answers:
        assert answer.code == ExitCode.UNREACHABLE, answer.err
        assert reported in answer.err
        assert "Traceback" not in answer.err


def test_completion_offers_tasks_queues_and_arguments() -> None:
    def complete(line: str) -> str:
        words = line.split(" ")
        environment = {
            "_NEXUS_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        return fresh(**environment).out

    expected = {
        "nexus send send_w": "send_welcome_email",
        "nexus pause m": "maintenance",
        "nexus dlq retry m": "maintenance",
        "nexus events --status c": "continued",
        "nexus send send_welcome_email u": "user_id=",
        "nexus schedule run cleanup_o": "cleanup_old_posts",
    }
    with ThreadPoolExecutor() as pool:
        offered = dict(zip(expected, pool.map(complete, expected), strict=True))
    assert {line: word for line, word in expected.items() if word not in offered[line]} == {}
