"""Another application's tasks: deployed beside the network and operated by the same command, with no line changed."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = ROOT / "examples" / "own_tasks" / "functions"
STACK = "own-tasks"


def environment() -> dict[str, str]:
    """The environment of the application's process and its operator: the stack and its catalogue's location."""
    account = boto3.client("sts").get_caller_identity()["Account"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}
    mine = {"NEXUS_STACK": STACK, "NEXUS_ACCOUNT_ID": account, "NEXUS_CATALOGUE": "own_tasks.catalogue"}
    return {**kept, **mine, "PYTHONPATH": f"{ROOT / 'shared'}:{FUNCTIONS}"}


def nexus(*arguments: str, code: int = 0) -> Any:
    """Runs the command on that stack, whose outputs name the catalogue; its JSON."""
    variables = {name: value for name, value in environment().items() if not name.startswith("NEXUS_")}
    command = [str(Path(sys.executable).parent / "nexus"), "--stack", STACK, *arguments, "--json"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def application(program: str) -> str:
    """The output of a process of that application."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_its_tasks_are_listed_and_those_of_the_network_are_not() -> None:
    listed = nexus("inspect", "registered")
    assert {"is_prime", "count_primes"} <= {task["task"] for task in listed}
    assert "send_welcome_email" not in json.dumps(listed)
    (queue,) = nexus("inspect", "conf")["queues"]
    assert queue["queue"] == "numbers"


def test_a_task_and_a_fan_out_run_and_return_their_results() -> None:
    said = application(
        "from own_tasks.catalogue import count_primes, is_prime\n"
        "few, many = is_prime.delay(number=91), count_primes.delay(below=250_000)\n"
        f"print(few.get(timeout={PATIENCE}).smallest_factor, many.get(timeout={PATIENCE}).primes, *many.progress)"
    )
    assert said == "7 22044 3 3"


def test_an_unknown_argument_is_refused_before_the_task_is_sent() -> None:
    said = application(
        "from nexus import InvalidMessage\n"
        "from own_tasks.catalogue import count_primes\n"
        "try: count_primes.delay(first=2, end=9)\n"
        "except InvalidMessage as error: print(error)"
    )
    assert "first: Extra inputs are not permitted" in said


def test_a_task_that_the_stack_does_not_serve_is_refused_at_once() -> None:
    said = application(
        "from nexus import UnknownTask\n"
        "from social.catalogue import send_welcome_email\n"
        "try: send_welcome_email.delay(user_id='u')\n"
        "except UnknownTask as error: print(error)"
    )
    assert "send_welcome_email" in said
    assert "own_tasks.catalogue" in said


def test_a_dead_letter_is_shown_and_sent_again() -> None:
    url = boto3.client("sqs").get_queue_url(QueueName=f"{STACK}-numbers")["QueueUrl"]
    run_id = str(uuid.uuid5(uuid.NAMESPACE_OID, uuid.uuid4().hex))
    body = json.dumps({"v": 1, "id": run_id, "task": "is_prime", "args": {"number": 1}})
    boto3.client("sqs").send_message(QueueUrl=url, MessageBody=body, MessageGroupId="is_prime")

    result = nexus("result", run_id, "--follow", code=1)
    assert result["status"] == "FAILURE"
    assert "number: Input should be greater than or equal to 2" in result["error"]["message"]

    nexus("dlq", "edit", run_id, "number=97", "--yes")
    again = nexus("result", run_id, "--follow")
    assert again["result"]["prime"] is True


@pytest.mark.parametrize("command", [("pause",), ("resume",)])
def test_its_queue_is_paused_and_resumed_by_name(command: tuple[str, ...]) -> None:
    nexus(*command, "numbers", "--yes")
