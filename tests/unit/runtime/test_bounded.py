"""A producer is never blocked: sends end in time, a coroutine's loop continues, a startup check finds the faults."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError
from botocore.httpsession import URLLib3Session

from nexus import AsyncResult, asend_many, chain, check, group, ping, send_many
from nexus.aws import sdk, usage
from nexus.client import bounded, read_records
from nexus.errors import ConfigurationError, SendFailed, StillRunning, TaskFailed
from nexus.registry import registry
from nexus.settings import Settings, settings
from nexus.testing import SentTasks
from tests.support import own_catalogue as catalogue
from tests.support.forks import in_a_child
from tests.support.patience import PATIENCE, eventually

NOTE: dict[str, Any] = {"user_id": "u-1", "kind": "like", "text": "hello"}


class Silence:
    """An AWS that accepts each request and never responds, until the test releases it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.released = threading.Event()

    def send(self, request: Any) -> Any:
        self.requests.append(request.url)
        self.released.wait()
        raise EndpointConnectionError(endpoint_url="released")


@pytest.fixture
def silence(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    monkeypatch.setenv("NEXUS_SEND_TIMEOUT", "0.05")
    settings.cache_clear()
    silent = Silence()
    monkeypatch.setattr(URLLib3Session, "send", silent.send)
    yield silent
    silent.released.set()
    bounded._threads().shutdown()  # so that no thread of this test uses the next test's credentials
    bounded._threads.cache_clear()


# --- in time ---


def test_a_timeout_error_of_the_send_itself_is_raised_unchanged(
    environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not mean that the bound was exceeded."""

    def times_out() -> None:
        raise TimeoutError("the socket's own")

    monkeypatch.setenv("NEXUS_SEND_TIMEOUT", "60")
    settings.cache_clear()
    with pytest.raises(TimeoutError, match="the socket's own"):
        bounded.bounded(times_out)()
    with pytest.raises(TimeoutError, match="the socket's own"):
        asyncio.run(bounded.asynchronous(times_out)())


@pytest.mark.parametrize(
    "send",
    [
        lambda: catalogue.send_note.delay(**NOTE),
        lambda: catalogue.send_note.apply_async(NOTE, track=False),
        lambda: send_many([catalogue.send_note.s(**NOTE)] * 2),
        lambda: group([catalogue.send_note.s(**NOTE)] * 2).delay(),
        check,
    ],
    ids=["delay", "untracked", "send_many", "group", "check"],
)
def test_a_send_fails_if_aws_never_answers(silence: Silence, send: Callable[[], object]) -> None:
    with pytest.raises(SendFailed, match=r"AWS has not answered within 0.05 s \(NEXUS_SEND_TIMEOUT\)"):
        send()


def test_a_send_given_up_names_its_run_and_makes_no_further_request(silence: Silence) -> None:
    with pytest.raises(SendFailed) as refused:
        catalogue.send_note.delay(**NOTE)
    silence.released.set()
    bounded._threads().shutdown()  # waits for the thread that sends
    bounded._threads.cache_clear()
    assert len(refused.value.failures) == 1
    assert len(silence.requests) <= 1  # none if the thread had not come so far; a second one would be a retry


def test_a_send_of_many_that_was_given_up_names_only_those_that_aws_has_not_accepted(
    cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that is due later takes a request of its own; two are accepted before the caller gives up."""
    boto3.client("scheduler").create_schedule_group(Name=settings().stack)
    scheduler, released, quick = sdk.client("scheduler"), threading.Event(), threading.Semaphore(2)
    create, asked = scheduler.create_schedule, list[str]()

    def slow(**request: Any) -> Any:
        asked.append(request["Name"])
        if not quick.acquire(blocking=False):
            released.wait()
            raise BotoCoreError
        return create(**request)

    monkeypatch.setattr(scheduler, "create_schedule", slow)
    many = [catalogue.send_note.s(**NOTE) for _ in range(5)]
    waiting, future = bounded._start(lambda: send_many(many, countdown=3600))
    try:
        eventually(lambda: (len(asked), len(waiting.run_ids)) == (5, 3), every=0.001)
        given_up = waiting.given_up(4.5)
    finally:
        released.set()  # the threads would wait forever
    with pytest.raises(SendFailed) as refused:
        future.result()

    assert (len(asked), len(given_up.failures)) == (5, 3)
    assert refused.value.failures.keys() == given_up.failures.keys()
    assert given_up.away
    assert {AsyncResult(run_id).status for run_id in given_up.failures} == {"FAILURE"}
    assert {AsyncResult(run_id).status for run_id in set(asked) - given_up.failures.keys()} == {"PENDING"}


def test_the_requests_of_a_send_of_many_are_made_in_parallel(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, those of some thousand messages would take longer than a send may."""
    for service, operation in {"dynamodb": "batch_execute_statement", "sqs": "send_message_batch"}.items():
        client: Any = sdk.client(service)  # type: ignore[call-overload]
        monkeypatch.setattr(client, operation, _three_at_once(getattr(client, operation)))

    handles = send_many([catalogue.send_note.s(**NOTE) for _ in range(75)])

    assert {record.status for record in read_records(handles)} == {"PENDING"}


def _three_at_once(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but no request is carried out before three have begun."""
    begun, three = list[None](), threading.Event()

    def waiting(**request: Any) -> Any:
        begun.append(None)
        if len(begun) >= 3:
            three.set()
        assert three.wait(PATIENCE)
        return call(**request)

    return waiting


def test_a_send_in_one_queue_that_was_given_up_names_only_what_sqs_has_not_accepted(
    cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, released = sdk.client("sqs"), threading.Event()
    send, accepts = sqs.send_message_batch, threading.Semaphore(2)

    def slow(**request: Any) -> Any:
        if not accepts.acquire(blocking=False):
            released.wait()
            raise BotoCoreError
        return send(**request)

    monkeypatch.setattr(sqs, "send_message_batch", slow)
    many = [catalogue.send_note.s(**NOTE) for _ in range(50)]
    waiting, future = bounded._start(lambda: send_many(many))
    try:
        eventually(lambda: len(waiting.run_ids) == 30, every=0.001)
        given_up = waiting.given_up(4.5)
    finally:
        released.set()
    with pytest.raises(SendFailed) as refused:
        future.result()

    assert len(given_up.failures) == 30
    assert refused.value.failures.keys() == given_up.failures.keys()
    assert {AsyncResult(run_id).status for run_id in given_up.failures} == {"FAILURE"}


@pytest.mark.parametrize("track", [True, False])
def test_throttling_is_a_failed_send(cloud: None, monkeypatch: pytest.MonkeyPatch, track: bool) -> None:
    def refuse(**request: Any) -> Any:
        answer: Any = {"Error": {"Code": "ThrottlingException", "Message": "no"}, "ResponseMetadata": {}}
        answer["ResponseMetadata"]["RetryAttempts"] = 0
        raise ClientError(answer, "any")

    operations: dict[Any, str] = {"dynamodb": "update_item", "sqs": "send_message"}
    for service, operation in operations.items():
        monkeypatch.setattr(sdk.client(service), operation, refuse)
    with pytest.raises(SendFailed) as refused:
        catalogue.send_note.apply_async(NOTE, track=track)
    assert len(refused.value.failures) == 1


def test_a_function_waits_as_long_as_its_own_time_limit_lets_it() -> None:
    function = Settings.read({"NEXUS_QUEUE": "default"})
    producer = Settings.read({})
    assert (function.connect_timeout, function.read_timeout, function.attempts, function.send_timeout) == (5, 30, 5, 0)
    assert (producer.connect_timeout, producer.read_timeout, producer.attempts, producer.send_timeout) == (1, 2, 2, 4.5)


def test_each_timeout_setting_reaches_the_client(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CONNECT_TIMEOUT": "0.5", "READ_TIMEOUT": "7", "ATTEMPTS": "3", "SEND_TIMEOUT": "9"}.items():
        monkeypatch.setenv(f"NEXUS_{name}", value)
    settings.cache_clear()
    config: Any = sdk.client("sqs").meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries) == (
        0.5,
        7,
        {"mode": "standard", "total_max_attempts": 3},
    )
    assert settings().send_timeout == 9


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NEXUS_READ_TIMEOUT", "soon"),
        ("NEXUS_CONNECT_TIMEOUT", "0"),
        ("NEXUS_SEND_TIMEOUT", "nan"),
        ("NEXUS_ATTEMPTS", "2.5"),
    ],
)
def test_an_invalid_timeout_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable} is '{value}'"):
        Settings.read({variable: value})


def test_a_send_after_a_fork_uses_its_own_threads(cloud: None) -> None:
    catalogue.send_note.delay(**NOTE)
    assert in_a_child(lambda: catalogue.send_note.delay(**NOTE)) == 0


def test_a_child_shares_no_connection_with_its_parent(cloud: None) -> None:
    """Two processes that share a connection would read each other's responses."""
    catalogue.send_note.delay(**NOTE)
    before = [sdk.client("sqs"), sdk.client("dynamodb")]

    def others() -> None:
        assert sdk.client("sqs") is not before[0]
        assert sdk.client("dynamodb") is not before[1]

    assert in_a_child(others) == 0
    assert [sdk.client("sqs"), sdk.client("dynamodb")] == before, "the parent keeps its own"


@pytest.mark.parametrize("lock", [lambda: sdk._making, lambda: usage.lock], ids=["makes a client", "counts requests"])
def test_a_child_forked_while_a_thread_holds_a_lock_finds_it_free(
    cloud: None, lock: Callable[[], threading.Lock]
) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_a_child(lambda: catalogue.send_note.delay(**NOTE)) == 0
    finally:
        done.set()
        thread.join()


OUTLIVES = """
import asyncio, threading, time
from nexus.errors import SendFailed
from tests.support import own_catalogue as catalogue

def work():
    while not threading._SHUTTING_DOWN:
        time.sleep(0.001)
    note = catalogue.send_note.s(user_id="u-1", kind="like", text="hello")
    for send in (note.delay, lambda: asyncio.run(note.adelay())):
        try:
            send()
        except SendFailed as error:
            print(error)

threading.Thread(target=work).start()
"""


def test_a_thread_that_outlives_the_main_one_can_send(environment: None) -> None:
    """The interpreter waits for it, but no pool of threads takes work any more."""
    variables = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", OUTLIVES], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.count("Could not connect to the endpoint URL") == 2, done.stderr


# --- coroutines ---


@pytest.mark.parametrize(
    "send",
    [
        lambda: catalogue.send_note.adelay(**NOTE),
        lambda: catalogue.send_note.aapply_async(NOTE, countdown=5),
        lambda: asend_many([catalogue.send_note.s(**NOTE)]),
        lambda: group([catalogue.send_note.s(**NOTE)]).adelay(),
        lambda: chain(catalogue.send_note.s(**NOTE), ping.s()).aapply_async(countdown=5),
    ],
    ids=["adelay", "aapply_async", "asend_many", "group", "chain"],
)
def test_the_event_loop_continues_while_aws_does_not_respond(
    silence: Silence, monkeypatch: pytest.MonkeyPatch, send: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """The loop itself releases the request: a blocked loop would never do so."""
    monkeypatch.setenv("NEXUS_SEND_TIMEOUT", "600")
    settings.cache_clear()

    async def serve() -> None:
        sending = asyncio.ensure_future(send())
        while not silence.requests:  # noqa: ASYNC110 - it is a thread that adds to them
            await asyncio.sleep(0)
        silence.released.set()
        with pytest.raises(SendFailed, match="released"):
            await sending

    asyncio.run(serve())


def test_an_asynchronous_send_fails_if_aws_never_answers(silence: Silence) -> None:
    with pytest.raises(SendFailed, match="AWS has not answered within"):
        asyncio.run(catalogue.send_note.adelay(**NOTE))


def test_a_coroutine_reads_and_revokes_through_a_handle(tasks: SentTasks) -> None:
    async def ask(handle: AsyncResult[Any]) -> tuple[Any, ...]:
        with pytest.raises(StillRunning, match=r"is PENDING after 0.01 s"):
            await handle.aget(timeout=0.01)
        tasks.run()
        asked = await handle.astatus(), await handle.aready(), await handle.asuccessful(), await handle.aprogress()
        return *asked, (await handle.aget()), (await handle.aresult())

    async def revoke() -> None:
        handle = await ping.adelay()
        assert await handle.arevoke() == "REVOKED"
        with pytest.raises(TaskFailed):
            await handle.aget()
        assert await handle.aget(propagate=False) is None

    handle = ping.delay(text="hello")
    answer = asyncio.run(ask(handle))
    assert answer == ("SUCCESS", True, True, (0, 0), handle.result, handle.result)
    asyncio.run(revoke())


# --- the startup check ---


@pytest.fixture
def queues(cloud: None) -> None:
    """The template has the network's queues; these are the tests' own."""
    for queue in registry.queues():
        boto3.client("sqs").create_queue(QueueName=settings().queue_name(queue))


def test_the_check_passes_for_a_complete_deployment(queues: None) -> None:
    check()


def test_tasks_in_memory_need_no_deployment(tasks: SentTasks) -> None:
    check()


def test_every_fault_of_the_settings_is_named_at_once(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NEXUS_STACK", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEXUS_ACCOUNT_ID", "1234")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    settings.cache_clear()
    sdk.reset()
    with pytest.raises(ConfigurationError) as refused:
        check()
    for fault in ("NEXUS_STACK is not set", "NEXUS_ACCOUNT_ID is '1234'", "no region", "no credentials"):
        assert fault in str(refused.value)


def test_the_check_reports_a_missing_catalogue(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "queues", list)
    with pytest.raises(ConfigurationError, match="no catalogue is loaded: import it, or name it in NEXUS_CATALOGUE"):
        check()


def test_a_profile_that_does_not_exist_is_a_fault(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    sdk.reset()
    with pytest.raises(ConfigurationError, match="no-such-profile"):
        check()
    monkeypatch.delenv("AWS_PROFILE")
    sdk.reset()


def test_the_check_names_a_backend_that_cannot_be_imported(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_BACKEND", "no.such.backend")
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match=r"no\.such\.backend"):
        check()


def test_a_stack_that_is_not_there_is_named(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_STACK", "nexus-prdo")
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match="the stack nexus-prdo is missing or incomplete in eu-west-1"):
        check()


def test_another_account_is_named(queues: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_ACCOUNT_ID", "999999999999")
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match="NEXUS_ACCOUNT_ID is 999999999999, but the queues belong to"):
        check()


@pytest.mark.parametrize(
    ("code", "error"), [("AccessDeniedException", ConfigurationError), ("ThrottlingException", SendFailed)]
)
def test_the_check_reports_a_refused_request_but_no_throttling(
    cloud: None, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
) -> None:
    def refuse(**request: Any) -> Any:
        answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"RetryAttempts": 0}}
        raise ClientError(answer, "GetItem")

    monkeypatch.setattr(sdk.client("dynamodb"), "get_item", refuse)
    with pytest.raises(error, match=r"AccessDeniedException|get_item"):
        check()
