"""A value either arrives as it was sent, or is refused when it is sent, with its field; large ones go by reference."""

import io
import json
import math
import ssl
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, ResponseStreamingError
from botocore.response import StreamingBody
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, SecretStr
from urllib3.response import HTTPResponse

from nexus import outbox
from nexus.aws import sdk
from nexus.client import Signature, chain, chord, group, result_of, results_of, the_failure, then
from nexus.envelope import Envelope
from nexus.errors import InvalidMessage, Retry
from nexus.registry import Implementation, registry
from nexus.runs import payloads
from nexus.runs.payloads import ResultExpired
from nexus.tasks import Arguments, RateLimit, Result, RetryPolicy, Task
from nexus.testing import SentTasks
from nexus.values import described, plain, unsendable
from nexus.worker import Continuation, Run
from tests.support import own_catalogue as catalogue
from tests.support.own_catalogue import Counted, ReportPart

pytestmark = pytest.mark.usefixtures("environment")


class Anything(Arguments):
    """Values of any kind, and of some."""

    value: Any = None
    number: float = 1.0
    entries: Mapping[Any, Any] = Field(default_factory=dict)
    data: bytes = b""
    secret: SecretStr | None = None


class Kept(Result):
    """The received value."""

    value: Any = None
    number: float = 1.0


class Strict(Arguments):
    """Does not accept text as a time."""

    model_config = ConfigDict(strict=True)
    at: datetime


keep: Any = Task(name="keep", queue="default", arguments=Anything, result=Kept, summary="Gives back what came.")
strict: Any = Task(name="strict", queue="default", arguments=Strict, result=Kept, summary="Takes a time.")


@pytest.fixture(autouse=True)
def returned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The value that `keep` returns, if not the received one."""
    instead: list[Any] = []

    def work(args: Anything, run: Run) -> Kept:
        return Kept(value=instead[-1]) if instead else Kept(value=args.value, number=args.number)

    for task in (keep, strict):
        monkeypatch.setitem(registry._declared, task.name, (task, __name__))
        monkeypatch.setitem(registry._implementations, task.name, Implementation(task, work))
    return instead


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


TAKEN: dict[str, tuple[Any, Any]] = {
    "an integer beyond 2^53": (2**53 + 1, 2**53 + 1),
    "an integer beyond 64 bits": (-(10**300), -(10**300)),
    "deep nesting": (nested(90), nested(90)),
    "a generator": ((n for n in range(3)), [0, 1, 2]),
    "a tuple and a set": (({"a"}, (1, 2)), [["a"], [1, 2]]),
    "a key that is a number": ({7: "seven"}, {"7": "seven"}),
    "U+FFFE, which SQS refuses as it is": ("a\ufffeb\uffff", "a\ufffeb\uffff"),
    "control characters": ("a\x00\x1b[2J", "a\x00\x1b[2J"),
    "a UUID": (uuid.UUID(int=7), str(uuid.UUID(int=7))),
    "minus zero and tiny": ([-0.0, 5e-324], [-0.0, 5e-324]),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"number": float("nan")}, "number: not a finite number"),
    "an infinity within": ({"value": {"rows": [1.0, float("-inf")]}}, "value.rows.1: not a finite number"),
    "a lone surrogate": ({"value": ["file \udcff"]}, "value.0: a lone surrogate"),
    "a lone surrogate in a key": ({"value": {"\ud800": 1}}, "value: a (key with a )?lone surrogate"),
    "two keys that are one text": ({"entries": {1: "a", "1": "b"}}, "entries: two of its keys"),
    "two such keys further in": ({"value": {"x": [{1: "a", "1": "b"}]}}, "value.x.0: two of its keys"),
    "deeper than is read": ({"value": nested(150)}, "value: nested more than 100 deep"),
    "much deeper": ({"value": nested(100_000)}, "value: nested more than 100 deep"),
    "what contains itself": ({"value": itself()}, "value: it contains itself"),
    "bytes that are not UTF-8": ({"data": b"\xff"}, "data: bytes that are not UTF-8"),
    "a secret": ({"secret": "hunter2"}, "secret: a secret"),
    "an object": ({"value": object()}, "value: its type"),
    "more digits than Python reads": ({"value": 10**5000}, "value: a number with more digits"),
    "more such digits in a key": ({"entries": {10**5000: 1}}, "entries: a number with more digits"),
}
SENDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "delay": lambda args: keep.delay(**args),
    "apply_async": keep.apply_async,
    "apply_async of a model": lambda args: keep.apply_async(Anything(**args)),
    "a group": lambda args: group([keep.s(**args)]).delay(),
    "a chain's later link": lambda args: chain(
        catalogue.welcome.s(user_id="u"), then(keep, **{**args, "value": result_of(catalogue.welcome)})
    ),
    "the outbox": lambda args: outbox.add(None, keep.s(**args)),
}


@pytest.mark.parametrize("what", TAKEN)
def test_each_accepted_value_arrives_unchanged(tasks: SentTasks, what: str) -> None:
    value, arrives = TAKEN[what]
    handle = keep.delay(value=value)

    tasks.run()

    result = handle.get()
    assert result.value == arrives
    assert repr(result.value) == repr(arrives)


@pytest.mark.parametrize(
    ("what", "send"),
    [
        (what, send)
        for what, (args, _) in REFUSED.items()
        for send in SENDS
        # Its value is what comes before it, and a secret a text until its model is asked.
        if send != "a chain's later link" or not {"value", "secret"} & args.keys()
    ],
)
def test_each_refused_value_is_named_by_field_before_anything_is_sent(tasks: SentTasks, what: str, send: str) -> None:
    args, fault = REFUSED[what]
    with pytest.raises(InvalidMessage, match=f"^keep: {fault}") as refused:
        SENDS[send](args)

    assert "hunter2" not in refused.value.fault
    assert tasks.calls == []
    assert tasks.store.items == {}


class Rows(Arguments):
    """Rows that pydantic checks only when they are read, once."""

    rows: Iterable[int]


@pytest.mark.parametrize(
    ("given_rows", "fault"),
    [(["a", "b"], "rows: 1: int_parsing"), (["a"], "(whole): not representable as JSON")],
)
def test_lazily_validated_rows_are_refused_when_they_are_sent(given_rows: Any, fault: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        plain(Rows(rows=given_rows), "keep")
    assert refused.value.fault == fault


def test_a_key_with_a_lone_surrogate_is_named_where_it_is() -> None:
    assert unsendable({"rows": {"\ud800": 1}}) == "rows: a key with a lone surrogate, which is not valid Unicode"


def test_an_error_about_a_value_too_large_to_show_names_its_type() -> None:
    with pytest.raises(InvalidMessage, match=r"user_id: Input should be a valid string \(got int\)"):
        catalogue.send_note.check({**catalogue.NOTE, "user_id": 10**5000})


def test_an_envelope_with_a_lone_surrogate_is_not_sent() -> None:
    with pytest.raises(InvalidMessage, match=r"^keep: args: not valid Unicode"):
        Envelope(id=str(uuid.UUID(int=7)), task="keep", args={"value": "\ud800"}).encode()


def test_a_value_that_a_strict_model_rejects_as_json_is_refused_when_it_is_sent(tasks: SentTasks) -> None:
    with pytest.raises(InvalidMessage, match="strict: at: Input should be a valid datetime"):
        strict.delay(at=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("what", [what for what, (args, _) in REFUSED.items() if "value" in args])
def test_an_unreadable_result_fails_its_run_by_name(tasks: SentTasks, returned: list[Any], what: str) -> None:
    returned.append(REFUSED[what][0]["value"])
    handle = keep.delay()

    tasks.run()

    assert handle.status == "FAILURE"
    assert handle.error is not None
    assert handle.error.message.startswith("result: value")
    assert handle.attempts == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@example({0: math.inf})
@given(JSON)
def test_any_accepted_value_is_read_by_the_worker_as_it_was_sent(value: Any) -> None:
    try:
        signature = Signature.of(keep, {"value": value})
    except InvalidMessage:
        assume(False)
    envelope = Envelope.of(id=str(uuid.uuid4()), task="keep", args=dict(signature.args))

    read = keep.check(json.loads(envelope.encode())["args"]).value

    assert read == json.loads(json.dumps(value, allow_nan=False))


# --- fields besides the arguments ---


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"countdown": float("nan")}, "countdown"),
        ({"countdown": float("inf")}, "countdown"),
        ({"countdown": 1e15}, "countdown"),
        ({"expires": float("nan")}, "expires"),
        ({"task_id": "7"}, "task_id"),
        ({"task_id": 7}, "task_id"),
    ],
)
def test_an_invalid_option_is_refused_by_its_name(tasks: SentTasks, options: dict[str, Any], named: str) -> None:
    with pytest.raises((ValueError, InvalidMessage), match=named):
        keep.apply_async({}, **options)
    assert tasks.store.items == {}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 1e12])
def test_an_invalid_number_in_a_retry_is_refused_in_its_declaration(number: float) -> None:
    with pytest.raises(ValueError, match="after"):
        Retry("later", after=number)
    with pytest.raises(ValueError, match="RetryPolicy"):
        RetryPolicy(cap=number)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0])
def test_an_invalid_rate_is_refused_in_its_declaration(number: float) -> None:
    with pytest.raises(ValueError, match="RateLimit"):
        RateLimit(number)


@pytest.mark.parametrize("given_id", [uuid.UUID(int=5), str(uuid.UUID(int=5)).upper(), uuid.UUID(int=5).hex])
def test_a_task_id_is_a_uuid_in_any_form(tasks: SentTasks, given_id: Any) -> None:
    assert keep.apply_async({}, task_id=given_id).id == str(uuid.UUID(int=5))


@pytest.mark.usefixtures("cloud")
def test_an_id_sent_twice_with_a_long_countdown_is_one_run() -> None:
    run_id = uuid.uuid4()

    sdk.client("scheduler").create_schedule_group(Name="nexus-test")

    first = keep.apply_async({"value": 1}, task_id=run_id, countdown=100_000)
    second = keep.apply_async({"value": 1}, task_id=run_id, countdown=100_000)

    assert first.id == second.id
    assert second.status == "PENDING"
    assert [one["Name"] for one in sdk.client("scheduler").list_schedules()["Schedules"]] == [str(run_id)]


# --- large values ---


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize(("members", "size"), [(300, 1000), (50, 100_000)], ids=["300 of 1 KB", "5 MB"])
def test_a_chords_results_of_any_size_arrive(tasks: SentTasks, returned: list[Any], members: int, size: int) -> None:
    notes = (catalogue.send_note.s(**{**catalogue.NOTE, "text": str(n)}) for n in range(members))
    handle = chord(notes, _last()).delay()
    with _notes(size):
        tasks.run()

    result = handle.get()
    assert [len(one["notification_id"]) for one in result.value] == [size] * members


@pytest.mark.usefixtures("cloud")
def test_a_chains_result_of_any_size_arrives_and_travels_by_reference(tasks: SentTasks) -> None:
    last = then(keep, value=result_of(catalogue.send_note))
    handle = chain(catalogue.send_note.s(**catalogue.NOTE), last).delay()
    with _notes(5_000_000):
        _one(tasks)
    (sent,) = tasks.transport.sent
    assert len(sent.message.body) < 1000

    tasks.run()

    assert len(handle.get().value["notification_id"]) == 5_000_000


@pytest.mark.usefixtures("cloud")
def test_a_small_result_beside_large_arguments_goes_by_reference_too(tasks: SentTasks) -> None:
    handle = chain(
        catalogue.send_note.s(**catalogue.NOTE),
        then(keep, value=result_of(catalogue.send_note), entries={"text": "y" * 140_000}),
    ).delay()
    with pytest.MonkeyPatch.context() as patch, _notes(100_000):
        patch.setattr("nexus.envelope.MAX_BYTES", 200_000)
        tasks.run()

    assert len(handle.get().value["notification_id"]) == 100_000


def test_a_message_with_a_long_countdown_must_fit_into_a_schedule(tasks: SentTasks) -> None:
    """Scheduler takes a quarter of what SQS takes: "The maximum size of the Input field is 256 KB"."""
    note = catalogue.send_note.s(**{**catalogue.NOTE, "text": "x" * 255_000})
    keywords = catalogue.send_note.s(**{**catalogue.NOTE, "text": "<aws.scheduler.x>" * 14_500})
    for late in (note, keywords):
        late.apply_async(countdown=900)
    note.apply_async(countdown=901)
    refused = r"args: \d{3},\d{3} bytes as a message that is due in more than 900 s, over the limit of 256,000"
    for late in (keywords, catalogue.send_note.s(**{**catalogue.NOTE, "text": "x" * 256_000})):
        with pytest.raises(InvalidMessage, match=refused):
            late.apply_async(countdown=901)
        first = Signature.of(replace(catalogue.send_note, sends_later=True), catalogue.NOTE)
        with pytest.raises(InvalidMessage, match=refused):
            chain(first, late.set(countdown=901)).delay()
    assert len(tasks.transport.sent) == 3


@pytest.mark.usefixtures("cloud")
def test_a_result_that_does_not_fit_into_a_schedule_goes_by_reference(tasks: SentTasks) -> None:
    last = then(keep, value=result_of(catalogue.send_note), entries={"text": "y" * 140_000}).set(countdown=3600)
    first = Signature.of(replace(catalogue.send_note, sends_later=True), catalogue.NOTE)
    with _notes(180_000):
        chain(first, last).delay()
        _one(tasks)
    (sent,) = tasks.transport.sent
    assert len(sent.message.body) < 150_000


@pytest.mark.usefixtures("cloud")
def test_a_reference_that_has_expired_is_that_runs_failure_and_no_neighbours(tasks: SentTasks) -> None:
    handle = chain(catalogue.send_note.s(**catalogue.NOTE), then(keep, value=result_of(catalogue.send_note))).delay()
    with _notes(300_000):
        _one(tasks)
    tasks.store.objects.clear()
    neighbour = keep.delay(value=1)

    tasks.run()

    assert neighbour.get().value == 1
    assert handle.status == "FAILURE"
    assert handle.error is not None
    assert handle.error.type == "ResultExpired"


@pytest.mark.usefixtures("cloud")
def test_a_reference_to_anything_but_a_result_is_not_fetched(tasks: SentTasks) -> None:
    """Otherwise the writer of a record would choose which object its reader fetches."""
    tasks.store.objects["users/u-1"] = '"private"'
    with pytest.raises(ResultExpired, match="users/u-1 is not a result"):
        payloads.load(payloads._POINTER + "users/u-1")


def test_a_result_whose_download_breaks_off_raises_an_outage(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(io.RawIOBase):
        def read(self, *_: Any) -> Any:
            raise ssl.SSLEOFError("EOF occurred in violation of protocol")

    body = StreamingBody(HTTPResponse(Cut(), preload_content=False), 10)  # type: ignore[arg-type]
    monkeypatch.setattr(sdk.client("s3"), "get_object", lambda **_: {"Body": body})
    monkeypatch.setattr(payloads, "_in_memory", lambda: None)

    with pytest.raises(ResponseStreamingError, match="EOF") as broken:
        payloads.load(payloads._POINTER + "results/default/r-1.json")
    assert sdk.is_of_aws(broken.value)


def test_a_reference_that_s3_throttles_is_read_at_the_retry(tasks: SentTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = chain(catalogue.send_note.s(**catalogue.NOTE), then(keep, value=result_of(catalogue.send_note))).delay()
    with _notes(300_000):
        _one(tasks)
    real, refused = payloads.load, list[str]()

    def load(text: str) -> Any:
        if not refused:
            refused.append(text)
            raise ClientError({"Error": {"Code": "SlowDown"}}, "GetObject")
        return real(text)

    monkeypatch.setattr(payloads, "load", load)
    tasks.run()

    assert refused
    assert len(handle.get().value["notification_id"]) == 300_000


@pytest.mark.usefixtures("cloud")
def test_a_fan_outs_segments_and_its_second_phase_may_be_large(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    day = "2026-01-01" + " " * 20_000

    def plan(args: Any, run: Run) -> Continuation:
        return run.fan_out([ReportPart(day=day)] * 30, then=ReportPart(day=day * 15, last=True))

    def part(args: ReportPart, run: Run) -> Counted:
        seen.append(len(args.day))
        return Counted(rows_read=1)

    task = catalogue.make_report
    monkeypatch.setitem(registry._implementations, task.name, Implementation(task, plan, part))
    handle = task.delay()

    tasks.run()

    assert handle.get().rows_read == 31
    assert sorted(seen) == [len(day)] * 30 + [len(day) * 15]
    assert max(len(json.dumps(item, default=sorted)) for item in tasks.store.items.values()) < 400 * 1024


def test_a_chain_too_large_for_its_record_is_refused_when_it_is_sent(tasks: SentTasks) -> None:
    first = catalogue.send_note.s(**catalogue.NOTE)
    large = {"text": "y" * 150_000}
    later = then(keep, value=result_of(catalogue.send_note), entries=large)
    body = then(keep, value=results_of(catalogue.send_note), entries=large)
    failed = then(keep, value=the_failure(), entries={"text": "y" * 150_000})

    again = keep.s(entries={"text": "y" * 150_000})
    for canvas in (first | later | again, chord([first], body) | again, first.set(link_error=failed) | later):
        with pytest.raises(InvalidMessage, match=r"3\d\d,\d\d\d bytes, over 262,144"):
            canvas.delay()

    assert tasks.store.items == {}


def test_a_large_result_beside_a_large_plan_fits_into_the_record(tasks: SentTasks) -> None:
    later = then(keep, value=result_of(catalogue.send_note), entries={"text": "y" * 250_000})
    handle = (catalogue.send_note.s(**catalogue.NOTE) | later).delay()
    with _notes(199_000):
        tasks.run()

    assert len(handle.get().value["notification_id"]) == 199_000
    assert max(len(json.dumps(item, default=sorted)) for item in tasks.store.items.values()) < 400 * 1024


def _last() -> Any:
    return then(keep, value=results_of(catalogue.send_note))


def _notes(size: int) -> Any:
    """Within the block, send_note's results have this many bytes."""
    patch = pytest.MonkeyPatch()

    class Notes:
        def __enter__(self) -> None:
            task = catalogue.send_note
            work = Implementation(task, lambda args, run: catalogue.NoteSent(notification_id="x" * size))
            patch.setitem(registry._implementations, task.name, work)

        def __exit__(self, *_: object) -> None:
            patch.undo()

    return Notes()


def _one(tasks: SentTasks) -> None:
    from nexus.eager import run_next

    run_next(tasks.transport)


def test_an_error_about_several_arguments_quotes_none_if_one_is_secret() -> None:
    faults = [{"type": "value_error", "loc": (), "msg": "one is too few", "input": {"code": 4711}}]
    assert described(faults) == "(whole): one is too few (got \"{'code': 4711}\")"
    assert described(faults, ("code",)) == "(whole): one is too few"
