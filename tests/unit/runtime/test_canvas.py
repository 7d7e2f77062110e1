"""Groups, chains and chords in the forms that Celery users write: what is sent, what each run gets, how it fails."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus import backend, clock
from nexus.backend import Backend
from nexus.backend.memory import MemoryStore
from nexus.backend.store import Outcome, Refused, Write
from nexus.backend.transport import Message
from nexus.client import (
    AsyncResult,
    Canvas,
    Failure,
    chain,
    chord,
    group,
    result_of,
    results_of,
    send_many,
    the_failure,
    then,
)
from nexus.clock import FrozenClock
from nexus.eager import run_next
from nexus.envelope import decode
from nexus.errors import InvalidMessage, Reject, Retry, SendFailed, TaskFailed, UnknownTask
from nexus.ids import derived_id, made_by_producer, new_id
from nexus.registry import Implementation, registry
from nexus.runs.record import RunError
from nexus.runs.transitions import failure, revoke_fan_out, send_again
from nexus.settings import settings as run_settings
from nexus.tasks import Arguments, Result, RetryPolicy, Task
from nexus.testing import SentTasks
from nexus.worker import Run
from tests.support.mortal import Fuse, MortalStore, Queue
from tests.unit.runtime.conftest import MORNING, before_write

pytestmark = pytest.mark.usefixtures("environment")


class Word(Arguments):
    """A word, what came before it, and a failure."""

    word: str = "x"
    before: str | dict[str, Any] | None = None
    words: Sequence[Any] = ()
    failure: Failure | None = None


class Said(Result):
    """Everything that was said."""

    text: str


say = Task(
    name="say",
    queue="default",
    arguments=Word,
    result=Said,
    summary="Says a word after what came before it.",
    sends_to=("analytics",),
    retry=RetryPolicy(max_retries=0),
)
mutter = Task(name="mutter", queue="default", arguments=Word, result=Said, summary="Says it, and sends nowhere else.")
whisper = Task(name="whisper", queue="default", arguments=Word, result=Said, summary="Says a secret.", secret=("word",))
tell = Task(
    name="tell", queue="analytics", arguments=Word, result=Said, summary="Says it elsewhere.", retry=RetryPolicy(0)
)

back = Task(name="back", queue="analytics", arguments=Word, result=Said, summary="Sends back.", sends_to=("default",))


def text_of(value: Any) -> str:
    """A result as text: lists in brackets, failures as a dash."""
    match value:
        case None:
            return "-"
        case list():
            return f"[{' '.join(map(text_of, value))}]"
        case dict():
            return str(value["text"])
    return str(value)


class Speaker:
    """What the tasks do: the words that fail, for how many days one is to be tried again, and those that were said."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.waits: dict[str, int] = {}
        self.said: list[str] = []

    def __call__(self, args: Word, run: Run) -> Said:
        if args.word in self.bad:
            raise Reject(f"{args.word} cannot be said")
        if self.waits.get(args.word):
            self.waits[args.word] -= 1
            raise Retry("tomorrow", after=86_400)
        parts = [args.word]
        if args.before is not None:
            parts.append(text_of(args.before))
        if args.words:
            parts.append(text_of(list(args.words)))
        if args.failure is not None:
            parts.append(f"{args.failure.task}/{args.failure.type}/{args.failure.message}")
        self.said.append(args.word)
        return Said(text="<".join(parts))


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Speaker:
    speaker = Speaker()
    install(speaker, monkeypatch.setitem)
    return speaker


def install(speaker: Speaker, put: Callable[[Any, str, Any], None]) -> None:
    for task in (say, mutter, whisper, tell, back):
        put(registry._declared, task.name, (task, "test"))
        put(registry._implementations, task.name, Implementation(task, speaker))


def unchecked(value: Any) -> Any:
    """Code that a type checker would reject."""
    return value


def s(word: str) -> Any:
    return say.s(word=word)


def after(word: str) -> Any:
    """A link that takes the result before it."""
    return then(say, before=result_of(say), word=word)


def body(word: str) -> Any:
    """A chord's body."""
    return then(say, words=results_of(say), word=word)


def result(handle: AsyncResult[Any]) -> str:
    value = handle.get()
    return text_of(value) if isinstance(value, list) else value.text


FORMS: dict[str, tuple[Callable[[], Canvas[Any]], str]] = {
    "a chain": (lambda: chain(s("a"), after("b")), "b<a"),
    "a chain of one": (lambda: chain(s("a")), "a"),
    "a chain of twelve": (lambda: chain([s("a"), *map(after, "bcdefghijkl")]), "l<k<j<i<h<g<f<e<d<c<b<a"),
    "bars": (lambda: s("a") | after("b") | after("c"), "c<b<a"),
    "a chain of a list": (lambda: chain([s("a"), after("b")]), "b<a"),
    "a chain in a chain": (lambda: chain(s("a"), chain(after("b"), after("c")), after("d")), "d<c<b<a"),
    "a link that takes nothing": (lambda: chain(s("a"), say.si(word="b")), "b"),
    "a group of arguments": (lambda: group(s("a"), s("b")), "[a b]"),
    "a group of a list": (lambda: group([s("a"), s("b")]), "[a b]"),
    "a group of a generator": (lambda: group(s(word) for word in "abc"), "[a b c]"),
    "a group of one": (lambda: group(s("a")), "[a]"),
    "a group in a group": (lambda: group(s("a"), group(s("b"), s("c"))), "[a b c]"),
    "a group with a callback in a group": (
        lambda: group(s("a"), group(s("b"), s("c")).on_error(s("z"))),
        "[a [b c]]",
    ),
    "a group of chains": (lambda: group(chain(s("a"), after("b")), s("c"), s("d") | after("e")), "[b<a c e<d]"),
    "a chord": (lambda: chord([s("a"), s("b")], body("c")), "c<[a b]"),
    "a chord of a generator": (lambda: chord((s(word) for word in "ab"), body("c")), "c<[a b]"),
    "a chord of a group": (lambda: chord(group(s("a"), s("b")), body("c")), "c<[a b]"),
    "a group and a bar": (lambda: group(s("a"), s("b")) | body("c"), "c<[a b]"),
    "a chain that begins with a group": (lambda: chain(group(s("a"), s("b")), body("c"), after("d")), "d<c<[a b]"),
    "a chord whose body is a chain": (lambda: chord([s("a"), s("b")], chain(body("c"), after("d"))), "d<c<[a b]"),
    "a chain that ends with a group": (lambda: chain(s("a"), group(after("b"), s("c"))), "[b<a c]"),
    "a group between": (lambda: s("a") | group(after("b"), after("c")) | body("d"), "d<[b<a c<a]"),
    "a group after a group": (lambda: group(s("a"), s("b")) | group(body("c"), s("d")) | body("e"), "e<[c<[a b] d]"),
    "a chord in a chord": (lambda: chord([chord([s("a"), s("b")], body("c")), s("d")], body("e")), "e<[c<[a b] d]"),
    "a chord in a chain": (lambda: chain(s("a"), chord([after("b"), s("c")], body("d")), after("e")), "e<d<[b<a c]"),
    "a chain in a group in a chain": (
        lambda: chain(s("a"), group(chain(after("b"), after("c")), s("d")), body("e")),
        "e<[c<b<a d]",
    ),
    "a group that ends a group's member": (lambda: group(chain(s("a"), group(s("b"), s("c"))), s("d")), "[[b c] d]"),
    "another queue": (lambda: chain(s("a"), then(tell, before=result_of(say), word="b")), "b<a"),
    "chunks": (lambda: say.chunks([{"word": word} for word in "abcde"], 2), "[[a b] [c d] [e]]"),
    "chunks of one": (lambda: say.chunks([{"word": word} for word in "ab"], 1), "[[a] [b]]"),
    "chunks and a body": (lambda: say.chunks([{"word": word} for word in "abc"], 2) | body("d"), "d<[[a b] [c]]"),
}
EACH_FORM = pytest.mark.parametrize(("make", "expected"), FORMS.values(), ids=FORMS)


@EACH_FORM
def test_each_form_of_canvas_has_the_result_that_celery_gives(
    tasks: SentTasks, speaker: Speaker, make: Callable[[], Canvas[Any]], expected: str
) -> None:
    handle = make().delay()
    assert handle.status in ("PENDING", "STARTED"), "it is known from the moment it is sent"

    tasks.run()

    assert result(handle) == expected
    assert not tasks.dead_letters


@EACH_FORM
def test_a_canvas_sent_twice_under_one_id_runs_once(
    tasks: SentTasks, speaker: Speaker, make: Callable[[], Canvas[Any]], expected: str
) -> None:
    run_id = new_id()
    for _ in range(2):
        assert make().apply_async(task_id=run_id).id == run_id
        run_next(tasks.transport)

    tasks.run()

    assert result(AsyncResult(run_id, Said) if expected[0] != "[" else AsyncResult(run_id)) == expected
    assert sorted(speaker.said) == sorted(set(speaker.said))


@EACH_FORM
def test_a_canvas_fails_with_any_of_its_runs_and_a_redrive_completes_it(
    tasks: SentTasks, speaker: Speaker, make: Callable[[], Canvas[Any]], expected: str
) -> None:
    for word in [word for word in expected if word.isalpha()]:
        speaker.bad = {word}
        handle = make().delay()
        tasks.run()
        assert handle.status == "FAILURE", word
        with pytest.raises(TaskFailed, match=f"{word} cannot be said"):
            handle.get()

        speaker.bad = set()
        redrive(tasks)
        tasks.run()
        assert result(handle) == expected, word


@EACH_FORM
def test_revoking_any_form_of_canvas_ends_it_without_running_the_rest(
    tasks: SentTasks, speaker: Speaker, make: Callable[[], Canvas[Any]], expected: str
) -> None:
    handle = make().delay()
    handle.revoke()

    tasks.run()

    assert handle.status == "REVOKED"
    last = expected.partition("<")[0]
    if last.isalpha():
        assert last not in speaker.said


def redrive(tasks: SentTasks) -> None:
    """Sends the dead letters again, like `nexus dlq retry`."""
    letters = list(tasks.transport.dead)
    tasks.transport.dead.clear()
    for queue, letter in letters:
        envelope = decode(letter.body)
        tasks.store.apply(send_again(envelope.id))
        tasks.transport.send(queue, [Message.of(envelope)])


@settings(max_examples=150)
@given(data=st.data())
def test_duplicates_and_deaths_at_any_request_leave_the_exact_result(data: st.DataObject) -> None:
    """Delivers in any order, some messages twice, with sandboxes that die at any request; then the rest normally."""
    name = data.draw(st.sampled_from(sorted(FORMS)))
    make, expected = FORMS[name]
    fuse, inner, speaker = Fuse(), MemoryStore(), Speaker()
    queue = Queue(fuse)
    with pytest.MonkeyPatch.context() as patch, backend.use(Backend(MortalStore(inner, fuse), queue)):
        install(speaker, patch.setitem)
        handle = make().delay()
        for _ in range(data.draw(st.integers(3, 20))):
            pick, dies = data.draw(st.integers(0, 50)), data.draw(st.none() | st.integers(0, 12))
            queue.deliver(inner, pick, dies, twice=data.draw(st.booleans()))
        for _ in range(500):
            if not queue.messages:
                break
            queue.deliver(inner)
        assert not queue.messages
        assert result(handle) == expected


@pytest.mark.parametrize("second", [lambda: after("b"), lambda: group(after("b"))], ids=["a task", "a group"])
def test_the_id_of_a_chains_first_run_says_that_it_is_recorded(
    tasks: SentTasks, speaker: Speaker, second: Callable[[], Any]
) -> None:
    chain(s("a"), second()).delay()

    (sent,) = tasks.transport.sent
    assert made_by_producer(sent.message.id)


def test_only_a_tracked_run_has_an_id_that_says_that_it_is_recorded(tasks: SentTasks, speaker: Speaker) -> None:
    tracked, untracked = say.apply_async({}), say.apply_async({}, track=False)
    (of_many,), (untracked_of_many,) = send_many([s("a")]), send_many([s("a")], track=False)

    recorded = [handle.id for handle in (tracked, untracked, of_many, untracked_of_many) if handle.status == "PENDING"]
    assert recorded == [tracked.id, of_many.id]
    assert [made_by_producer(handle.id) for handle in (tracked, untracked)] == [True, False]
    assert [made_by_producer(handle.id) for handle in (of_many, untracked_of_many)] == [True, False]


@pytest.mark.parametrize("make", [lambda: s("a"), lambda: s("a") | after("b")], ids=["a task", "a chain"])
def test_a_canvas_that_was_not_sent_fails_unless_its_caller_chose_its_id(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
) -> None:
    """A caller that chose the id sends again with it; for any other the run is lost, and its record says so."""

    def refuse(_: object, __: str, messages: Sequence[Message]) -> dict[str, str]:
        return {message.id: "InternalError" for message in messages}

    monkeypatch.setattr(type(tasks.transport), "send", refuse)
    run_id = new_id()
    with pytest.raises(SendFailed):
        make().apply_async(task_id=run_id)
    assert {item["status"] for item in tasks.store.items.values()} == {"PENDING"}
    tasks.store.items.clear()

    with pytest.raises(SendFailed):
        make().apply_async()

    assert {item["status"] for item in tasks.store.items.values()} == {"FAILURE"}


def test_members_that_were_not_sent_fail_at_once_if_they_have_a_record(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that is due at once has none, so a write for each of thousands would change nothing."""

    def refuse(_: object, __: str, messages: Sequence[Message]) -> dict[str, str]:
        return {message.id: "InternalError" for message in messages}

    monkeypatch.setattr(type(tasks.transport), "send", refuse)
    apply, settled = tasks.store.apply, list[str]()

    def noted(write: Write) -> Outcome:
        if write.set.get("status") == "FAILURE":
            settled.append(str(write.key))
        return apply(write)

    monkeypatch.setattr(tasks.store, "apply", noted)
    with pytest.raises(SendFailed) as refused:
        group(s("a"), s("b").set(countdown=60), s("c")).delay()

    _, late, _ = refused.value.failures
    assert settled == [late]
    assert AsyncResult(late).status == "FAILURE"


def test_calling_a_canvas_sends_it_as_in_celery(tasks: SentTasks, speaker: Speaker) -> None:
    handles = [
        group(s("a"), s("b"))(),
        chain(s("a"), after("b"))(),
        chord([s("a"), s("b")])(body("c")),
        group(s("a"), s("b"))(body("c"), countdown=5),
    ]

    tasks.run()

    assert [result(handle) for handle in handles] == ["[a b]", "b<a", "c<[a b]", "c<[a b]"]


# --- options ---


@pytest.mark.parametrize("send", [lambda one, eta: one.set(eta=eta).delay(), lambda one, eta: one.apply_async(eta=eta)])
def test_an_eta_alone_delays_a_run(
    tasks: SentTasks, speaker: Speaker, send: Callable[[Any, datetime], AsyncResult[Any]]
) -> None:
    eta = datetime.now(UTC) + timedelta(minutes=5)

    assert send(s("a"), eta).record().eta == pytest.approx(eta.timestamp(), abs=0.001)

    (sent,) = tasks.transport.sent
    assert 0 < sent.message.delay <= 300


def test_options_keep_those_that_were_set_before(tasks: SentTasks, speaker: Speaker) -> None:
    one = s("a").set(countdown=60).set(group="tenant-7")
    one.delay()
    one.apply_async(group="tenant-8")
    send_many([one], group="tenant-9")
    group(one).on_error(s("z")).set(always=False).delay()

    assert [(sent.message.delay, sent.message.group) for sent in tasks.transport.sent] == [
        (60, "tenant-7"),
        (60, "tenant-8"),
        (60, "tenant-9"),
        (60, "tenant-7"),
    ]
    speaker.bad = {"a"}
    tasks.run()
    assert speaker.said == ["z"], "the callback of the group, whose other option was set later"


def test_options_of_a_signature_hold_for_its_run(tasks: SentTasks, speaker: Speaker) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    one = s("a").set(countdown=60, expires=until, queue="default", group="tenant-7", retry=RetryPolicy(max_retries=1))

    handle = one.delay()

    (sent,) = tasks.transport.sent
    assert (sent.message.delay, sent.message.group) == (60, "tenant-7")
    assert decode(sent.message.body).expires_at == until
    assert '"retry"' not in sent.message.body
    assert tasks.store.items[handle.id]["retry"] == "[1,60.0,900.0,[]]"
    with pytest.raises(UnknownTask, match="analytics"):
        one.set(queue="analytics").delay()


def test_a_later_links_options_apply_when_it_is_sent(tasks: SentTasks, speaker: Speaker, now: FrozenClock) -> None:
    chain(s("a"), after("b").set(countdown=30, expires=90, group="tenant-7")).delay()
    run_next(tasks.transport)

    (sent,) = tasks.transport.sent
    envelope = decode(sent.message.body)
    assert (sent.message.delay, sent.message.group) == (30, "tenant-7")
    assert envelope.expires_at is not None
    assert envelope.expires_at - envelope.sent_at == timedelta(seconds=90)
    tasks.run()


def test_a_canvas_has_one_countdown_and_one_expiry_for_all_its_runs(tasks: SentTasks, speaker: Speaker) -> None:
    handle = chord([s("a"), s("b") | after("c")], body("d")).apply_async(countdown=45, expires=600, group="tenant-7")

    assert [sent.message.delay for sent in tasks.transport.sent] == [45, 45]
    ends = {decode(sent.message.body).expires_at for sent in tasks.transport.sent}
    run_next(tasks.transport)
    run_next(tasks.transport)
    ends |= {decode(sent.message.body).expires_at for sent in tasks.transport.sent}
    assert {sent.message.group for sent in tasks.transport.sent} == {"tenant-7"}
    assert len(ends) == 1
    tasks.run()
    assert result(handle) == "d<[a c<b]"


def test_a_member_with_a_countdown_has_a_record_that_says_when(tasks: SentTasks, speaker: Speaker) -> None:
    handle = group(s("a").set(countdown=60), s("b")).delay()

    assert [member.status for member in handle.results] == ["PENDING", "UNKNOWN"]
    assert handle.results[0].record().eta is not None


def test_send_many_takes_options_for_all_and_each_keeps_its_own(tasks: SentTasks, speaker: Speaker) -> None:
    handles = send_many((s("a"), s("b").set(countdown=30)), queue="default", group="tenant-7")

    assert [sent.message.group for sent in tasks.transport.sent] == ["tenant-7", "tenant-7"]
    assert [sent.message.delay for sent in tasks.transport.sent] == [0, 30]
    tasks.run()
    assert [result(handle) for handle in handles] == ["a", "b"]
    with pytest.raises(UnknownTask, match="analytics"):
        send_many([s("a")], queue="analytics")


# --- time to live ---


LATE: dict[str, tuple[Callable[[float], Canvas[Any]], str]] = {
    "a chain": (lambda wait: chain(s("a"), after("b"), after("c")).set(countdown=wait), "c<b<a"),
    "a chain whose second link is late": (lambda wait: chain(s("a"), after("b").set(countdown=wait)), "b<a"),
    "a chain whose links are all late": (
        lambda wait: chain(s("a").set(countdown=wait), after("b").set(countdown=wait), after("c")),
        "c<b<a",
    ),
    "a chord": (lambda wait: chord([s("a"), s("b")], body("c")).set(countdown=wait), "c<[a b]"),
    "a chord with one late member": (lambda wait: chord([s("a").set(countdown=wait), s("b")], body("c")), "c<[a b]"),
    "a chord with a member by its eta": (
        lambda wait: chord([s("a").set(eta=clock.date(MORNING + wait)), s("b")], body("c")),
        "c<[a b]",
    ),
    "a chord of chains": (
        lambda wait: chord([s("a") | after("b").set(countdown=wait) | after("c"), s("d")], body("e")),
        "e<[c<b<a d]",
    ),
    "a chord in a chord": (
        lambda wait: chord([chord([s("a").set(countdown=wait), s("b")], body("c")), s("d")], body("e")),
        "e<[c<[a b] d]",
    ),
    "a chord in a chain": (
        lambda wait: chain(s("a"), chord([after("b"), s("c")], body("d")).set(countdown=wait), after("e")),
        "e<d<[b<a c]",
    ),
    "a group that ends a chain": (lambda wait: chain(s("a"), group(after("b"), s("c")).set(countdown=wait)), "[b<a c]"),
}
EACH_LATE = pytest.mark.parametrize(("make", "expected"), LATE.values(), ids=LATE)


def test_a_step_must_fit_into_a_schedule_if_it_waits_longer_than_a_queue_can(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.say", replace(say, sends_later=True))
    large = "b" * 257_000
    chain(s("a"), s(large).set(countdown=900)).delay()
    with pytest.raises(InvalidMessage, match="due in more than 900 s"):
        chain(s("a"), s(large).set(countdown=901)).delay()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, now: FrozenClock) -> FrozenClock:
    """The time; and `say` may be sent much later."""
    monkeypatch.setattr(f"{__name__}.say", replace(say, sends_later=True))
    return now


def a_day_passes(tasks: SentTasks, now: FrozenClock) -> None:
    """What is due runs, and TTL removes what has expired."""
    while due := [place for place, one in enumerate(tasks.transport.sent) if one.due <= now.now()]:
        run_next(tasks.transport, due[0])
    now.sleep(86_400)
    for key, item in list(tasks.store.items.items()):
        if int(str(item["expires"])) <= now.now():
            del tasks.store.items[key]


@EACH_LATE
def test_a_canvas_due_after_the_retention_keeps_its_records_until_it_ends(
    tasks: SentTasks, speaker: Speaker, now: FrozenClock, make: Callable[[float], Canvas[Any]], expected: str
) -> None:
    days = run_settings().run_days + 1
    handle = make(days * 86_400.0).delay()

    for _ in range(3 * days):
        if not handle.ready():
            a_day_passes(tasks, now)

    assert result(handle) == expected


@EACH_LATE
def test_a_canvas_with_retries_beyond_the_retention_ends_normally(
    tasks: SentTasks,
    speaker: Speaker,
    now: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    make: Callable[[float], Canvas[Any]],
    expected: str,
) -> None:
    monkeypatch.setitem(registry._declared, say.name, (replace(say, retry=RetryPolicy(20)), "test"))
    days = run_settings().run_days
    speaker.waits = {"a": days + 1}
    handle = make(0.0).delay()

    for _ in range(3 * days):
        if not handle.ready():
            a_day_passes(tasks, now)

    assert speaker.waits == {"a": 0}
    assert now.now() >= MORNING + (days + 1) * 86_400
    assert result(handle) == expected


@pytest.mark.parametrize("fails_first", [False, True], ids=["after a long wait", "after its predecessor's redrive"])
def test_a_link_that_is_sent_late_is_kept_until_it_is_due(
    tasks: SentTasks, speaker: Speaker, now: FrozenClock, fails_first: bool
) -> None:
    days = run_settings().run_days
    handle = chain(s("a"), after("b").set(countdown=days * 86_400.0)).delay()
    if fails_first:
        speaker.bad = {"a"}
        run_next(tasks.transport)
        speaker.bad = set()
        now.sleep((days - 1) * 86_400)
        redrive(tasks)
    else:
        now.sleep((days + 1) * 86_400)
    run_next(tasks.transport)

    assert handle.status == "PENDING"
    assert tasks.store.items[handle.id]["expires"] == now.now() + 2 * days * 86_400


@pytest.mark.parametrize("word", ["good", "bad"])
@pytest.mark.parametrize("more", [0, 1])
def test_a_member_that_ends_long_before_the_last_is_kept_as_long_as_its_group(
    tasks: SentTasks, speaker: Speaker, now: FrozenClock, more: int, word: str
) -> None:
    """Long: more than half of the time for which records are kept."""
    speaker.bad = {"bad"}
    wait = run_settings().run_days * 43_200 + more
    handle = group(s(word), s("z").set(countdown=wait)).delay()
    first, last = handle.results

    run_next(tasks.transport, 1)
    assert first.ready()
    assert (tasks.store.items[first.id]["expires"] == tasks.store.items[handle.id]["expires"]) is bool(more)
    assert tasks.store.items[last.id]["expires"] == tasks.store.items[handle.id]["expires"]


@EACH_LATE
def test_a_revoked_canvas_stays_revoked_until_it_would_be_due(
    tasks: SentTasks, speaker: Speaker, now: FrozenClock, make: Callable[[float], Canvas[Any]], expected: str
) -> None:
    days = run_settings().run_days + 1
    handle = make(days * 86_400.0).delay()
    assert handle.revoke() == "REVOKED"

    for _ in range(3 * days):
        a_day_passes(tasks, now)

    assert expected.lstrip("[")[0] not in speaker.said
    assert tasks.transport.sent == []


# --- failures ---


def test_an_error_callback_is_sent_once_with_the_failure(tasks: SentTasks, speaker: Speaker) -> None:
    speaker.bad = {"a"}
    oops = then(say, failure=the_failure(), word="oops")

    failing = say.apply_async({"word": "a"}, link_error=oops)
    tasks.run()

    error = AsyncResult(failing.id).error
    assert error is not None
    assert speaker.said == ["oops"]
    said = [
        item for item in tasks.store.items.values() if "oops<say/Reject/a cannot be said" in str(item.get("result"))
    ]
    assert len(said) == 1
    redrive(tasks)
    tasks.run()
    assert speaker.said == ["oops"]
    speaker.bad = set()
    say.apply_async({"word": "a"}, link_error=oops)
    tasks.run()
    assert speaker.said == ["oops", "a"]


@pytest.mark.parametrize("word", ["a", "b", "c"])
@pytest.mark.parametrize("way", ["set", "on_error", "apply_async"])
def test_an_error_callback_of_a_canvas_comes_whichever_part_failed(
    tasks: SentTasks, speaker: Speaker, word: str, way: str
) -> None:
    speaker.bad = {word}
    oops = [then(say, failure=the_failure(), word="oops"), s("and")]
    canvas = chord([s("a"), s("b")], s("c"))
    match way:
        case "set":
            canvas.set(link_error=oops).delay()
        case "on_error":
            canvas.on_error(oops).delay()
        case _:
            canvas.apply_async(link_error=oops)

    tasks.run()

    assert sorted(set(speaker.said) & {"oops", "and"}) == ["and", "oops"]
    (reported,) = [
        text for item in tasks.store.items.values() if (text := str(item.get("result"))).startswith('{"text":"oops')
    ]
    assert f"{word} cannot be said" in reported


def test_a_groups_error_callback_comes_when_a_member_fails(tasks: SentTasks, speaker: Speaker) -> None:
    speaker.bad = {"b"}
    group(s("a"), s("b")).on_error(s("oops")).delay()

    tasks.run()

    assert speaker.said == ["a", "oops"]


def test_an_always_body_gets_none_for_each_failed_member(tasks: SentTasks, speaker: Speaker) -> None:
    speaker.bad = {"b"}
    handle = chord([s("a"), s("b"), s("c")], body("d").set(always=True)).delay()

    tasks.run()

    assert result(handle) == "d<[a - c]"


def test_a_later_link_that_always_runs_is_not_the_body_of_a_group_that_failed(
    tasks: SentTasks, speaker: Speaker
) -> None:
    speaker.bad = {"a"}
    handle = (group(s("a"), s("b")) | body("c") | after("d").set(always=True)).delay()

    tasks.run()

    assert result(handle) == "d"
    assert speaker.said == ["b", "d"]


def test_an_error_callback_that_was_not_sent_is_revoked_when_the_failed_part_succeeds(
    tasks: SentTasks, speaker: Speaker
) -> None:
    """The process that should have sent it died; a caller that waits for its handle learns that nothing will come."""
    speaker.bad = {"b"}
    handle = group(s("a"), s("b")).on_error(chain(s("y"), s("z"))).delay()
    run_next(tasks.transport)
    run_next(tasks.transport)
    (unsent,) = tasks.transport.sent
    tasks.transport.sent.clear()

    speaker.bad = set()
    redrive(tasks)
    tasks.run()

    assert (handle.status, AsyncResult[Any](unsent.message.id).status) == ("SUCCESS", "REVOKED")
    assert speaker.said == ["a", "b"]


def test_a_link_that_always_runs_follows_links_that_are_skipped(tasks: SentTasks, speaker: Speaker) -> None:
    speaker.bad = {"a"}
    handle = chain(s("a"), after("b"), after("c").set(always=True), after("d")).delay()

    tasks.run()

    assert result(handle) == "d<c"
    assert speaker.said == ["c", "d"]
    speaker.bad = set()
    redrive(tasks)
    tasks.run()
    assert speaker.said == ["c", "d", "a", "b"], "what has run does not run again"


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_the_members_of_a_group_that_was_not_sent_fail_in_batches(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """One after the other, those of a large group may take longer than the function has, at each delivery."""
    speaker.bad = {"a"}
    members = [s("b") | s("c") for _ in range(100)]
    together = unchecked((s("a") | group(members) | s("d")).delay().parent)
    asked: list[int] = []
    store, apply = type(tasks.store), type(tasks.store).apply

    def one(store: Any, write: Any) -> Any:
        asked.append(1)
        return apply(store, write)

    def many(store: Any, writes: Any) -> Any:
        asked.append(len(writes))
        return [apply(store, write) for write in writes]

    monkeypatch.setattr(store, "apply", one)
    monkeypatch.setattr(store, "apply_all", many)
    (message,) = tasks.transport.sent
    tasks.run()
    if again:
        asked.clear()
        tasks.transport.sent.append(message)
        tasks.run()

    assert max(asked) == 202, "the group, its members' steps and the last link"
    assert len(asked) < 20
    assert {(member.status, unchecked(member.error).type) for member in together.results} == {
        ("FAILURE", "UpstreamFailed")
    }


def test_a_failure_reaches_the_members_of_a_group_that_was_not_sent(tasks: SentTasks, speaker: Speaker) -> None:
    speaker.bad = {"a"}
    handle = chain(s("a"), group(after("b"), after("c") | after("d"))).delay()

    tasks.run()

    assert {member.status for member in handle.results} == {"FAILURE"}
    with pytest.raises(TaskFailed, match=r"UpstreamFailed: say .* a cannot be said"):
        handle.results[1].get()


def test_nothing_of_a_group_that_was_not_sent_runs_until_it_is(tasks: SentTasks, speaker: Speaker) -> None:
    """A link that ran before its group began could not be counted when the group begins after all."""
    speaker.bad = {"a"}
    handle = chain(s("a"), group(after("b") | after("c").set(always=True), after("d"))).delay()

    tasks.run()

    assert speaker.said == []
    assert {member.status for member in handle.results} == {"FAILURE"}
    speaker.bad = set()
    redrive(tasks)
    tasks.run()
    assert speaker.said == ["a", "b", "d", "c"]
    assert [said["text"] for said in handle.get(0)] == ["c<b<a", "d<a"]


def test_revoking_a_group_stops_the_first_runs_of_its_members(tasks: SentTasks, speaker: Speaker) -> None:
    handle = group(s("a") | after("b"), s("c")).delay()

    assert handle.revoke() == "REVOKED"
    tasks.run()

    assert speaker.said == []


def test_the_members_of_a_revoked_group_that_have_ended_are_read_together(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for each of ten thousand would hold up the caller for minutes."""
    handle, asked = group(s("a") for _ in range(50)).delay(), list[int]()
    for _ in range(49):
        run_next(tasks.transport)
    store, get = type(tasks.store), type(tasks.store).get

    def read(store: Any, keys: Sequence[str]) -> Any:
        asked.append(len(keys))
        return get(store, keys)

    monkeypatch.setattr(store, "get", read)

    assert handle.revoke() == "REVOKED"
    tasks.run()

    assert asked[:2] == [1, 49]
    assert len(asked) < 10
    assert len(speaker.said) == 49


def test_the_members_of_a_revoked_group_that_wait_with_a_record_are_revoked_together(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a chain has one from the start, for what follows it."""
    handle, asked = group(s("a") | s("b") for _ in range(50)).delay(), list[Any]()
    store, get, apply = type(tasks.store), type(tasks.store).get, type(tasks.store).apply

    def read(store: Any, keys: Sequence[str]) -> Any:
        asked.append(keys)
        return get(store, keys)

    def one(store: Any, write: Write) -> Outcome:
        asked.append(write)
        return apply(store, write)

    monkeypatch.setattr(store, "apply_all", lambda store, writes: [apply(store, write) for write in writes])
    monkeypatch.setattr(store, "get", read)
    monkeypatch.setattr(store, "apply", one)

    assert handle.revoke() == "REVOKED"
    assert len(asked) < 10
    tasks.run()

    assert speaker.said == []
    assert {member.status for member in handle.results} == {"REVOKED"}


def test_a_group_that_is_begun_again_reads_its_members_together(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB's refusal of a batch does not contain the items."""
    last, asked = (s("a") | group(s("b") for _ in range(50)) | s("c")).delay(), list[int]()
    (message,) = tasks.transport.sent
    tasks.run()
    store, get, apply = type(tasks.store), type(tasks.store).get, type(tasks.store).apply

    def read(store: Any, keys: Sequence[str]) -> Any:
        asked.append(len(keys))
        return get(store, keys)

    def refuse(store: Any, writes: Sequence[Write]) -> list[Outcome]:
        outcomes = [apply(store, write) for write in writes]
        return [Refused(None) if isinstance(outcome, Refused) else outcome for outcome in outcomes]

    monkeypatch.setattr(store, "get", read)
    monkeypatch.setattr(store, "apply_all", refuse)
    tasks.store.items[unchecked(last.parent).id]["status"] = "STARTED"
    tasks.transport.sent.append(message)
    tasks.run()

    assert asked.count(50) == 1
    assert len(asked) < 10
    assert sorted(speaker.said) == ["a", *["b"] * 50, "c"]


def test_one_member_that_has_not_started_can_be_revoked(tasks: SentTasks, speaker: Speaker) -> None:
    handle = chord([s("a"), s("b") | after("c"), s("d")], body("e").set(always=True)).delay()
    together = handle.parent
    assert together is not None

    assert [member.revoke() for member in together.results[:2]] == ["REVOKED", "REVOKED"]
    tasks.run()

    assert result(handle) == "e<[- - d]"
    assert sorted(speaker.said) == ["b", "d", "e"]


def test_an_untracked_run_can_be_revoked(tasks: SentTasks, speaker: Speaker) -> None:
    handle = say.apply_async({"word": "a"}, track=False)

    assert handle.revoke() == "REVOKED"
    tasks.run()

    assert (handle.status, speaker.said) == ("REVOKED", [])


def test_a_step_after_a_revoked_run_ends_at_once_although_that_was_due_in_hours(
    tasks: SentTasks, speaker: Speaker
) -> None:
    handle = chain(s("a"), after("b")).apply_async(countdown=7200)
    first = handle.parent
    assert first is not None

    assert first.revoke() == "REVOKED"
    tasks.run()

    assert (handle.status, speaker.said) == ("FAILURE", [])


def test_a_chords_handle_has_its_group_as_parent(tasks: SentTasks, speaker: Speaker) -> None:
    handle = chord([s("a"), s("b")], body("c")).delay()

    together = handle.parent
    assert together is not None
    assert (together.status, together.progress) == ("STARTED", (0, 2))
    run_next(tasks.transport)
    assert together.completed_count() == 1
    tasks.run()
    assert [result(member) for member in together.results] == ["a", "b"]
    assert together.join() == [{"text": "a"}, {"text": "b"}]


def test_a_step_that_cannot_carry_its_argument_fails_with_all_that_follow(
    tasks: SentTasks, monkeypatch: pytest.MonkeyPatch, speaker: Speaker
) -> None:
    def long(args: Word, run: Run) -> Said:
        monkeypatch.setattr("nexus.envelope.MAX_BYTES", 100)  # not even by reference
        return Said(text="x" * 1_100_000)

    monkeypatch.setitem(registry._implementations, "say", Implementation(say, long))
    handle = chain(s("a"), group(after("b"), s("c")), body("d")).delay()

    tasks.run()

    assert handle.error is not None
    assert "pass a key, not the data" in handle.error.message


def test_a_chain_that_an_earlier_version_sent_continues(tasks: SentTasks, speaker: Speaker) -> None:
    """Its record has only the links, whose ids follow from the run's."""
    handle = say.delay(word="a")
    links = [
        {"task": "say", "queue": "default", "args": {"word": "b"}, "result_as": "before"},
        {"task": "say", "queue": "default", "args": {"word": "c"}, "result_as": "before"},
    ]
    tasks.store.apply(Write(handle.id, {"then": json.dumps(links)}))

    tasks.run()

    last = derived_id(derived_id(handle.id, "then"), "then")
    assert result(AsyncResult(last, Said)) == "c<b<a"


# --- what another sandbox leaves, or does at the same time ---


def test_a_duplicate_of_the_last_member_sends_the_body_that_a_crash_left_unsent(
    tasks: SentTasks, speaker: Speaker
) -> None:
    handle = chord([s("a"), s("b")], body("c")).delay()
    run_next(tasks.transport)
    (last,) = tasks.transport.sent
    run_next(tasks.transport)
    tasks.transport.sent.clear()

    tasks.transport.send("default", [last.message])
    tasks.run()

    assert result(handle) == "c<[a b]"


def test_a_stale_failure_does_not_overwrite_a_groups_success(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given that the failed member was sent again and succeeded, and that this sandbox died before it sent the body."""
    speaker.bad = {"b"}
    handle = (group(s("a"), s("b")).on_error(s("z")) | body("c")).delay()
    together = handle.parent
    assert together is not None
    said = {"status": "SUCCESS", "result": '[{"text":"a"},{"text":"b"}]'}
    before_write(
        monkeypatch, tasks, together.id, {"status": "FAILURE"}, lambda: tasks.store.apply(Write(together.id, said))
    )

    tasks.run()

    assert result(handle) == "c<[a b]"
    assert speaker.said == ["a", "c"]


def test_a_group_succeeds_although_a_stale_failure_was_written(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = chord([s("a"), s("b")], body("c")).delay()
    together = handle.parent
    assert together is not None
    failed = {**failure(together.id, RunError.own("SegmentsFailed", "1 of 2 failed: 1"), 1.0), "waits": True}
    before_write(
        monkeypatch, tasks, together.id, {"status": "SUCCESS"}, lambda: tasks.store.apply(Write(together.id, failed))
    )

    tasks.run()

    assert together.status == "SUCCESS"
    assert result(handle) == "c<[a b]"


@pytest.mark.parametrize("bad", [set(), {"b"}], ids=["succeeds", "fails"])
def test_a_body_ends_with_a_group_revoked_while_its_last_member_ends(
    tasks: SentTasks, speaker: Speaker, monkeypatch: pytest.MonkeyPatch, bad: set[str]
) -> None:
    speaker.bad = bad
    handle = chord([s("a"), s("b")], body("c")).delay()
    together = handle.parent
    assert together is not None
    ending = {"status": "FAILURE" if bad else "SUCCESS"}
    before_write(monkeypatch, tasks, together.id, ending, together.revoke)

    tasks.run()

    assert (together.status, handle.status) == ("REVOKED", "FAILURE")
    assert handle.error is not None
    assert handle.error.message == f"group {together.id} is REVOKED: Revoked: revoked"


def test_a_group_revoked_by_a_process_that_died_ends_the_group_that_it_belongs_to(
    tasks: SentTasks, speaker: Speaker
) -> None:
    handle = group(s("a"), group(s("b"), s("c")).on_error(s("z"))).delay()
    inner = handle.results[1]
    tasks.store.apply(revoke_fan_out(inner.id, "revoked", 1.0))

    tasks.run()

    assert handle.error is not None
    assert handle.error.message == f"1 of 2 failed: 1 (group {inner.id} is REVOKED: Revoked: revoked)"


# --- what is allowed and what is refused, before anything is sent ---

ALLOWED: dict[str, Callable[[], Canvas[Any]]] = {
    "an error callback of three links": lambda: s("a").on_error(chain([s("b")] * 3)),
    "what may not send on, before the end of a member": lambda: group(mutter.s() | s("a")) | tell.s(),
    "what may not send on, before the end of a long member": lambda: group(mutter.s() | mutter.s() | s("a")) | tell.s(),
    "an error callback of a link before one that could not send it": lambda: chain(s("a").on_error(s("b")), tell.s()),
    "a link as late as a message can be": lambda: chain(s("a"), s("b").set(countdown=900)),
}


@pytest.mark.parametrize("make", ALLOWED.values(), ids=ALLOWED)
def test_every_supported_canvas_is_sent_and_succeeds(
    tasks: SentTasks, speaker: Speaker, make: Callable[[], Canvas[Any]]
) -> None:
    handle = make().delay()

    tasks.run()

    assert handle.status == "SUCCESS"


def test_a_group_has_up_to_ten_thousand_members(environment: None, speaker: Speaker) -> None:
    members = [s("a")] * 10_001
    assert len(group(members[1:]).step(new_id()).members) == 10_000
    with pytest.raises(ValueError, match="a group of 10001 members: 1 to 10000 are allowed"):
        group(members).delay()


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a handle": (lambda: group([unchecked(say.delay)]), TypeError, r"write task\.s\(name=value\), without delay\(\)"),
    "a task": (lambda: chain(unchecked(say), s("a")), TypeError, r"write task\.s\("),
    "an empty group": (lambda: chain(group([]), s("a")).delay(), ValueError, "a group of 0 members: 1 to 10000"),
    "an empty chain": (lambda: chain().delay(), ValueError, "a chain of 0 links: 1 to 12 are allowed"),
    "a group of an empty chain": (lambda: group(chain()).delay(), ValueError, "a chain of 0 links: 1 to 12"),
    "too long": (lambda: chain(*[s("a")] * 7, group(chain(*[s("b")] * 6), s("c"))).delay(), ValueError, "of 13 links"),
    "chunks of nothing": (lambda: say.chunks([{}], 0), ValueError, "chunks of 0: the size must be 1 or more"),
    "two lists": (lambda: unchecked(group)([s("a")], [s("b")]), TypeError, r"is not a signature"),
    "what cannot be a list": (lambda: group(unchecked(7)), TypeError, r"group: 7 is not a signature"),
    "a long error callback": (
        lambda: s("a").on_error(chain([s("b")] * 4)).delay(),
        ValueError,
        "an error callback of 4 links: 1 to 3 are allowed",
    ),
    "a link that takes nothing": (lambda: then(say, word="a"), TypeError, r"write then\(say, argument=result_of"),
    "a link that takes two results": (
        lambda: then(say, before=result_of(say), words=results_of(say)),
        TypeError,
        r"write then\(say, argument=result_of",
    ),
    "a link with an argument that has no name": (
        lambda: unchecked(then)(say, "a", before=result_of(say)),
        TypeError,
        r"write then\(say, argument=result_of",
    ),
    "a link that takes a result as what it does not have": (
        lambda: unchecked(then)(say, after=result_of(say)),
        InvalidMessage,
        "say: after: no such argument",
    ),
    "a result of nothing": (lambda: after("a").delay(), InvalidMessage, "before: there is no step before it"),
    "in a group": (lambda: group(after("a")).delay(), InvalidMessage, "before: there is no step before it"),
    "a result of another": (
        lambda: chain(s("a"), then(say, before=result_of(tell))).delay(),
        InvalidMessage,
        "say: before takes the result of tell, but the step before it runs say",
    ),
    "a result of another, in a group after a member that takes none": (
        lambda: chain(s("a"), group(s("b"), then(say, before=result_of(tell)))).delay(),
        InvalidMessage,
        "say: before takes the result of tell, but the step before it runs say",
    ),
    "a result of what is not the end of a member": (
        lambda: chain(group(mutter.s() | s("a")), then(say, words=results_of(mutter))).delay(),
        InvalidMessage,
        "say: words takes the result of mutter, but the step before it runs say",
    ),
    "one result of a group": (
        lambda: chain(group(s("a"), s("b")), then(say, before=result_of(say))).delay(),
        InvalidMessage,
        r"say: before: the step before it is a group: write results_of\(say\)",
    ),
    "the results of a task": (
        lambda: chain(s("a"), then(say, words=results_of(say))).delay(),
        InvalidMessage,
        r"say: words: the step before it is a single task: write result_of\(say\)",
    ),
    "a failure in a chain": (
        lambda: chain(s("a"), then(say, failure=the_failure())).delay(),
        InvalidMessage,
        r"only an error callback can take the_failure\(\)",
    ),
    "a result in an error callback": (
        lambda: s("a").on_error(after("b")).delay(),
        InvalidMessage,
        r"an error callback can take the_failure\(\)",
    ),
    "a secret that would be stored": (
        lambda: chain(s("a"), whisper.s(word="b")).delay(),
        InvalidMessage,
        "whisper has secret arguments and cannot follow another run",
    ),
    "a queue out of reach": (lambda: chain(tell.s(), s("a")).delay(), InvalidMessage, "may not send to default"),
    "out of reach within": (
        lambda: chain(group(s("a"), s("a") | tell.s()), s("b")).delay(),
        InvalidMessage,
        "may not send to default",
    ),
    "an error callback of one task out of reach": (
        lambda: tell.s().on_error(s("b")).delay(),
        InvalidMessage,
        "tell: say cannot follow it",
    ),
    "an error callback out of reach": (
        lambda: chain(s("a"), tell.s()).on_error(s("b")).delay(),
        InvalidMessage,
        "tell: say cannot follow it",
    ),
    "a body that always runs out of reach of what fails": (
        lambda: chain(group(s("a"), tell.s() | back.s()), s("b").set(always=True)).delay(),
        InvalidMessage,
        "tell: say cannot follow it",
    ),
    "a schedule without the right": (
        lambda: chain(s("a"), s("b").set(countdown=901)).delay(),
        InvalidMessage,
        "Set the task's sends_later",
    ),
    "a time without the right": (
        lambda: chain(s("a"), s("b").set(eta=datetime.now(UTC))).delay(),
        InvalidMessage,
        "Set the task's sends_later",
    ),
    "a plan too large": (
        lambda: chain(s("a"), group(s("b" * 3000) for _ in range(100))).delay(),
        InvalidMessage,
        "let a task fan out",
    ),
    "a later member too large": (
        lambda: chain(s("a"), group(s("b" * 1_100_000))).delay(),
        InvalidMessage,
        "pass a key",
    ),
    "a later link too large": (lambda: chain(s("a"), s("b" * 1_100_000)).delay(), InvalidMessage, "pass a key"),
    "an unknown option": (lambda: s("a").set(colour="red"), TypeError, r"set\(\) has no colour; it has countdown"),
    "priority": (
        lambda: unchecked(chain(s("a"), s("b"))).apply_async(priority=3),
        TypeError,
        r"apply_async\(\) has no priority",
    ),
    "link": (lambda: s("a").apply_async(link=s("b")), TypeError, r"link \(write first \| callback"),
    "link of a task": (lambda: say.apply_async({}, link=s("b")), TypeError, r"link \(write first \| callback"),
    "priority of a task": (
        lambda: unchecked(say).apply_async({}, priority=3),
        TypeError,
        r"apply_async\(\) has no priority \(write another queue= .*\); it has countdown, eta, .*, task_id, track",
    ),
    "a task's own Celery name": (
        lambda: unchecked(say).delay_on_commit(word="a"),
        AttributeError,
        r"'Task' object has no attribute 'delay_on_commit': write transaction.on_commit",
    ),
    "two times": (lambda: s("a").set(countdown=1, eta=datetime.now(UTC)).delay(), ValueError, "give countdown or eta"),
    "get of what was not sent": (lambda: unchecked(group(s("a"))).get(), AttributeError, r"write \.delay\(\)\.get\(\)"),
    "link of a signature": (lambda: s("a").link(s("b")), AttributeError, r"write first \| callback"),
    "send_many of a canvas": (lambda: send_many([unchecked(group(s("a")))]), TypeError, r"write group\(...\)"),
    "a fair queue's group": (lambda: say.apply_async({}, group="two words"), InvalidMessage, "group: "),
    "untracked and an error callback": (
        lambda: say.apply_async({}, track=False, link_error=s("b")),
        ValueError,
        "track=True",
    ),
    "many untracked with a policy of their own": (
        lambda: send_many([s("a")], track=False, retry=RetryPolicy(max_retries=1)),
        ValueError,
        "track=True",
    ),
    "many untracked with an error callback": (
        lambda: send_many([s("a").on_error(s("b"))], track=False),
        ValueError,
        "track=True",
    ),
}


@pytest.mark.parametrize(("make", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_an_unsupported_canvas_is_refused_before_anything_is_sent(
    tasks: SentTasks, speaker: Speaker, make: Callable[[], object], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        make()
    assert tasks.transport.sent == []
    assert tasks.store.items == {}
