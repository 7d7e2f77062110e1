"""What programs send and what operators do, chosen by a seed."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from nexus.client import AsyncResult, Group, chain, chord, group, result_of, results_of, send, send_many, then
from nexus.envelope import Envelope
from nexus.errors import InvalidMessage, NexusError, SendFailed
from nexus.ids import derived_id, new_id
from nexus.registry import registry
from ops import control, dead_letters
from tests.simulation import aws, catalogue
from tests.simulation.world import INLINE_BYTES, STACK, TIMEOUT, Faults, World

KINDS = {
    "kill": 3.0,
    "kill after": 3.0,
    "lost": 3.0,
    "again": 1.0,
    "unanswered": 1.0,
    "outage": 1.0,
    "refused": 1.0,
    "partial": 1.0,
    "stall": 2.0,
    "jump": 1.0,
    "twice": 2.0,
}
GOOD: Sequence[tuple[str, ...]] = ((), (), (), (), ("fails",), ("fails", "fails"), ("again",))
BAD: Sequence[tuple[str, ...]] = (
    ("fails",) * 3,
    ("rejects",),
    ("exits",),
    ("exits",) * 3,
    ("surrogate",) * 3,
    ("control",) * 3,
    ("unprintable",) * 3,
    ("talks",) * 3,
    ("overruns",),
    ("dies",),
    ("dies",) * 3,
    ("later",),
)
BUDGETS_AT = 11
"""Seeds with this remainder by twenty also have a task with a budget; the stories of the others stay the same."""

MIXED_AT = 13
"""The same for a canvas of all tasks and options."""

LARGE = "x" * 2 * INLINE_BYTES
GARBAGE = ("no json", "{}", "[" * 20_000, '{"v":1,"id":"x","task":"step\\u0007"}', "x" * 3000, "null")


@dataclass(eq=False, slots=True)
class Accepted:
    """The handle of an accepted send, and its expected result."""

    what: str
    handle: AsyncResult[Any]
    expected: Any = None
    revocable: bool = False
    """The run may end as REVOKED: it expires, or another run of a unique task is live."""


@dataclass(eq=False, slots=True)
class Story:
    """Everything that programs and operators do in a world."""

    world: World
    accepted: list[Accepted] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    garbage: list[str] = field(default_factory=list)
    programs: list[Any] = field(default_factory=list)
    broken_sends: int = 0
    small: bool = False

    def count(self, chance: random.Random, least: int, most: int) -> int:
        """A number, at most two in a small story."""
        return chance.randint(least, max(least, min(most, 2)) if self.small else most)

    def program(self, name: str, body: Callable[[], None], *, after: float = 0.0, at: str = "") -> None:
        """Adds a program that begins after some seconds or at an event. If its sends fail, nothing was accepted."""

        def guarded() -> None:
            try:
                body()
            except SendFailed:
                self.broken_sends += 1
            except NexusError:
                raise

        self.programs.append(self.world.add(name, guarded, after=after, at=at))


type Scenario = Callable[[Story, random.Random, str], None]


def _does(chance: random.Random, poison: float) -> tuple[str, ...]:
    return chance.choice(BAD if chance.random() < poison else GOOD)


def _step(chance: random.Random, name: str, poison: float = 0.3, task: Any = None) -> Any:
    task = task or chance.choice((catalogue.step, catalogue.step, catalogue.solo))
    return task.s(name=name, does=_does(chance, poison), takes=chance.choice((0.0, 0.1, 0.1, 5.0)))


def _then(before: Any, name: str, does: tuple[str, ...] = ()) -> Any:
    return then(catalogue.step, given=_given(before), name=name, does=does)


def _given(before: Any) -> Any:
    """What the link after this canvas may take."""
    end: Any = before.parts[-1]
    given: Any = result_of
    while isinstance(end, Group):
        end, given = end.members[0][-1], results_of
    return given(end.task)


def _says(name: str, *given: str) -> dict[str, Any]:
    return {"text": f"{name}({','.join(given)})"}


def sends(story: Story, chance: random.Random, name: str) -> None:
    """Single sends, with options of apply_async."""
    signatures = [_step(chance, f"{name}{n}") for n in range(story.count(chance, 1, 4))]
    options: list[dict[str, Any]] = [
        chance.choice(({}, {}, {"countdown": 5}, {"countdown": 5000}, {"expires": 20}, {"task_id": new_id()}))
        for _ in signatures
    ]

    def body() -> None:
        for signature, also in zip(signatures, options, strict=True):
            handle = send(signature, **also)
            if "task_id" in also:
                handle = send(signature, **also)
            expected = _says(signature.args["name"])
            if "expires" in also:
                story.world.expires[handle.id] = story.world.clock.now + also["expires"]
            story.accepted.append(Accepted("send", handle, expected, revocable="expires" in also))

    story.program(f"sends {name}", body)


def sends_many(story: Story, chance: random.Random, name: str) -> None:
    """A batch, tracked or not."""
    signatures = [_step(chance, f"{name}{n}") for n in range(story.count(chance, 2, 12))]
    track = chance.random() < 0.7

    def body() -> None:
        for signature, handle in zip(signatures, send_many(signatures, track=track), strict=True):
            story.accepted.append(Accepted("send_many", handle, _says(signature.args["name"])))

    story.program(f"sends many {name}", body)


def rules(story: Story, chance: random.Random, name: str) -> None:
    """EventBridge fires a rule, and delivers the event twice."""
    signature = _step(chance, name)
    run_id = derived_id("rule", name, story.world.seed)
    sent_at = datetime.fromtimestamp(story.world.clock.now, UTC)
    body = Envelope(id=run_id, task=signature.task.name, args=dict(signature.args), sent_at=sent_at).encode()

    def fire() -> None:
        for _ in range(chance.randint(1, 2)):
            story.world.sqs.send_message(QueueUrl=f"{STACK}-{signature.queue}", MessageBody=body)
        story.accepted.append(Accepted("rule", AsyncResult(run_id), _says(name)))

    story.program(f"rule {name}", fire)


def garbage(story: Story, chance: random.Random, name: str) -> None:
    """Someone sends a foreign message to a queue."""
    body = chance.choice(GARBAGE)
    queue = chance.choice(list(TIMEOUT))

    def throw() -> None:
        story.world.sqs.send_message(QueueUrl=f"{STACK}-{queue}", MessageBody=body)
        story.garbage.append(body)

    story.program(f"garbage {name}", throw)


def chains(story: Story, chance: random.Random, name: str) -> None:
    """A chain of two to four, each taking the last one's result."""
    count = story.count(chance, 2, 4)
    first = _step(chance, f"{name}0", 0.15)
    text = f"{name}0()"
    links = [first]
    for n in range(1, count):
        links.append(_then(links[-1], f"{name}{n}", _does(chance, 0.15)))
        text = f"{name}{n}({text})"

    def body() -> None:
        story.accepted.append(Accepted("chain", chain(*links).delay(), {"text": text}))

    story.program(f"chain {name}", body)


def nested(chance: random.Random, name: str, before: tuple[Any, str] | None, depth: int) -> tuple[Any, str]:
    """Nested canvases, and their result given that of what came `before`, a canvas and its result."""
    kind = chance.choice(("task", "chain", "group")) if depth else "task"
    if kind == "task":
        step = catalogue.step.s(name=name, does=_does(chance, 0.1))
        if before is None:
            return step, f"{name}()"
        return _then(before[0], name, step.args.get("does", ())), f"{name}({before[1]})"
    parts, texts = [], []
    for n in range(chance.randint(2, 3)):
        part, text = nested(chance, f"{name}{n}", before, depth - 1)
        parts.append(part)
        texts.append(text)
        if kind == "chain":
            before = part, text
    return (chain(parts), texts[-1]) if kind == "chain" else (group(parts), ",".join(texts))


def groups(story: Story, chance: random.Random, name: str) -> None:
    """A group, a chord, or nested canvases."""
    own = random.Random(f"{story.world.seed} {name}")
    if not story.small and own.random() < 0.4:
        canvas, text = nested(own, f"{name}n", None, 2)
        canvas |= _then(canvas, name)
        if own.random() < 0.5:
            canvas = canvas.on_error(catalogue.step.s(name=f"{name}e"))
        story.program(
            f"nested {name}", lambda: story.accepted.append(Accepted("nested", canvas.delay(), _says(name, text)))
        )
        return
    count = story.count(chance, 1, 4)
    members = [_step(chance, f"{name}{n}", 0.15) for n in range(count)]
    texts = [f"{name}{n}()" for n in range(count)]
    is_chord = chance.random() < 0.6

    def body() -> None:
        if is_chord:
            together = group(members)
            last = _then(together, name)
            story.accepted.append(Accepted("chord", chord(together, last).delay(), _says(name, *texts)))
        else:
            story.accepted.append(Accepted("group", group(members).delay(), [{"text": text} for text in texts]))

    story.program(f"group {name}", body)


def fan_outs(story: Story, chance: random.Random, name: str) -> None:
    """A fan-out, with a second phase or without."""
    task = chance.choice((catalogue.spread, catalogue.single))
    does = chance.choice((*GOOD, ("fails",) * 3, ("dies",), ("continue",)))
    parts, second = story.count(chance, 1, 4), chance.random() < 0.5
    signature = task.s(name=name, parts=parts, does=does, then=second)

    def body() -> None:
        expected = {"done": parts + (100 if second else 0)}
        story.accepted.append(Accepted("fan-out", send(signature), expected))

    story.program(f"fans out {name}", body)


def large_results(story: Story, chance: random.Random, name: str) -> None:
    """A chain or a chord of results that are too large for a record."""
    members = [catalogue.step.s(name=f"{name}{n}", does=("big",)) for n in range(chance.randint(1, 4))]
    before = members[0] if len(members) == 1 else group(members)

    def body() -> None:
        handle = (before | _then(before, name)).delay()
        story.accepted.append(Accepted("large", handle, _says(name, *(LARGE for _ in members))))

    story.program(f"large {name}", body)


def uniques(story: Story, chance: random.Random, name: str) -> None:
    """Runs of a unique task with one key, from several programs."""
    task = chance.choice((catalogue.only, catalogue.queued))
    for n in range(story.count(chance, 2, 3)):
        signature = _step(chance, name, 0.2, task)

        def body(signature: Any = signature) -> None:
            story.accepted.append(Accepted(task.name, send(signature), _says(name), revocable=True))

        story.program(f"unique {name}{n}", body, after=chance.choice((0.0, 0.0, 3.0, 40.0)))


def rates(story: Story, chance: random.Random, name: str) -> None:
    """More runs than their rate allows at once."""
    task, most = chance.choice(((catalogue.paced, 12), (catalogue.rare, 6)))
    signatures = [task.s(name=f"{name}{n}", does=chance.choice(GOOD)) for n in range(story.count(chance, 2, most))]

    def body() -> None:
        for signature, handle in zip(signatures, send_many(signatures), strict=True):
            story.accepted.append(Accepted(task.name, handle, _says(signature.args["name"])))

    story.program(f"rate {name}", body)


def budgets(story: Story, chance: random.Random, name: str) -> None:
    """More runs than a day's budget allows."""
    count = chance.randint(4, 8)
    signatures = [catalogue.rationed.s(name=f"{name}{n}", does=chance.choice(GOOD)) for n in range(count)]

    def body() -> None:
        for signature, handle in zip(signatures, send_many(signatures), strict=True):
            story.accepted.append(Accepted("rationed", handle, _says(signature.args["name"])))

    story.program(f"budget {name}", body)


def mixed(story: Story, chance: random.Random, name: str) -> None:
    """A canvas of all tasks with all options, perhaps sent twice. Some of its runs may expire or give way."""
    canvas = _chain_of_all(chance, name, None, 2)
    task_id = chance.choice((None, None, new_id(), derived_id("mixed", story.world.seed)))
    story.revoked.add(name)  # what comes of it is not known

    def body() -> None:
        handle = canvas.apply_async(task_id=task_id)
        if task_id is not None:
            handle = canvas.apply_async(task_id=task_id)
        story.accepted.append(Accepted("mixed", handle, revocable=True))

    story.program(f"mixed {name}", body)


def _chain_of_all(chance: random.Random, name: str, before: Any, depth: int) -> Any:
    """A chain of tasks and groups. `before` is the canvas that it follows, if any."""
    links: list[Any] = []
    for n in range(chance.randint(1, 3)):
        if depth > 1 and chance.random() < 0.4:
            members = range(chance.randint(1, 3))
            before = group(_chain_of_all(chance, f"{name}{n}{m}", before, depth - 1) for m in members)
        else:
            before = _link_of_all(chance, f"{name}{n}", before)
        links.append(before)
    return chain(links)


def _link_of_all(chance: random.Random, name: str, before: Any) -> Any:
    task, does = chance.choice(catalogue.STEPS), _does(chance, 0.15)
    name = chance.choice((name, "same"))
    takes = before is not None and chance.random() < 0.6
    link = then(task, given=_given(before), name=name, does=does) if takes else task.s(name=name, does=does)
    options: dict[str, Any] = {
        "countdown": chance.choice((5, 60, 800)),
        "expires": chance.choice((1, 20, 1000, 90_000)),
        "link_error": catalogue.step.s(name=f"{name}e"),
        "group": "tenant",
        "always": before is not None,
    }
    return link.set(**{option: value for option, value in options.items() if chance.random() < 0.15})


SENDERS: Sequence[Scenario] = (
    sends,
    large_results,
    sends_many,
    rules,
    garbage,
    chains,
    groups,
    fan_outs,
    fan_outs,
    uniques,
    rates,
)


# --- operators -------------------------------------------------------------------------------------------------------


def revokes(story: Story, chance: random.Random, name: str) -> None:
    """An operator revokes an accepted run."""
    nth = chance.random()

    def body() -> None:
        if story.accepted:
            one = story.accepted[int(nth * len(story.accepted))]
            # The second one finds it revoked, and its schedule not yet deleted.
            first = one.handle.id not in story.revoked
            story.revoked.add(one.handle.id)
            status = one.handle.revoke("not wanted")
            left = [name for name in story.world.scheduler.schedules if name.startswith(one.handle.id)]
            # What waits for the next day's budget comes back then, and is found revoked.
            if first and status == "REVOKED" and left and one.what not in ("rationed", "mixed"):
                story.world.violation(f"{one.handle.id} is revoked, and its schedule stays")

    story.program(f"revokes {name}", body, **_when(chance, "a claim"))


def _when(chance: random.Random, event: str) -> dict[str, Any]:
    """At some time, or in the middle of a delivery: at a claim, or when a message is given up."""
    return {"at": event} if chance.random() < 0.5 else {"after": chance.choice((0.0, 0.1, 1.0, 30.0, 600.0))}


def redrives(story: Story, chance: random.Random, name: str) -> None:
    """An operator sends all dead letters again while the rest continues."""
    by_sqs = chance.random() < 0.3
    story.program(f"redrives {name}", lambda: redrive(story.world, by_sqs=by_sqs), **_when(chance, "a dead letter"))


def edits(story: Story, chance: random.Random, name: str) -> None:
    """An operator edits dead letters so that their runs succeed, and sends them again."""
    story.program(f"edits {name}", lambda: redrive(story.world, edit=True), **_when(chance, "a dead letter"))


def purges(story: Story, chance: random.Random, name: str) -> None:
    """An operator purges the receivable messages of a queue."""
    queue = chance.choice(list(TIMEOUT))

    def body() -> None:
        sqs, url = story.world.clients["sqs"], f"{STACK}-{queue}"
        jobs = set[str]()
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            story.revoked.add(name)
            story.garbage = [body for body in story.garbage if body not in {one["Body"] for one in messages}]
            control.purge_page(queue, messages, jobs)

    story.program(f"purges {name}", body, after=chance.choice((0.0, 0.1, 20.0)))


def redrive(world: World, *, by_sqs: bool = False, edit: bool = False) -> None:
    """Sends dead letters again with the code of `nexus dlq retry` and `nexus dlq edit`, or as SQS does."""
    for queue in TIMEOUT:
        letters = world.sqs.queues[f"{STACK}-{queue}-dead"]
        for stored in list(letters.messages):
            envelope = envelope_of(stored.body)
            if envelope is None:
                continue
            if by_sqs:
                world.sqs.move(stored, letters, world.sqs.queues[f"{STACK}-{queue}"])
                continue
            letter = dead_letters._letter(queue, aws.as_received(stored), dead_letters._Rules())
            if edit:
                # The edit removes the failures and keeps the expected result.
                args = dict(envelope.args)
                if "does" in args:
                    args["does"] = [what for what in args["does"] if what == "big"]
                letter = replace(letter, body=envelope.model_copy(update={"args": args}).encode())
            refused = dead_letters._send_again(queue, [letter])
            if not refused and stored in letters.messages:
                letters.messages.remove(stored)


def envelope_of(body: str) -> Envelope | None:
    """The envelope in a letter, if it has one that can run."""
    try:
        value = json.loads(body)
        return Envelope.model_validate(value) if value["task"] in registry.tasks() else None
    except (ValueError, RecursionError, TypeError, KeyError, InvalidMessage):
        return None


def pauses(story: Story, chance: random.Random, name: str) -> None:
    """An operator pauses a queue, and resumes it."""
    queue = chance.choice(list(TIMEOUT))

    def body() -> None:
        story.world.paused.add(queue)
        story.world.sleep(chance.choice((5.0, 500.0, 20_000.0)))
        story.world.paused.discard(queue)

    story.program(f"pauses {name}", body, after=chance.choice((0.0, 1.0, 20.0)))


def deploys(story: Story, chance: random.Random, name: str) -> None:
    """A deployment whose catalogue lacks a task, and the next one that has it again."""
    task = chance.choice((catalogue.step, catalogue.solo, catalogue.only, catalogue.spread))

    def body() -> None:
        declared = registry._declared.pop(task.name, None)
        story.world.sleep(chance.choice((1.0, 60.0, 4000.0)))
        if declared:
            registry._declared[task.name] = declared

    story.program(f"deploys {name}", body, after=chance.choice((0.0, 0.5, 20.0)))


OPERATORS: Sequence[Scenario] = (revokes, revokes, redrives, redrives, edits, purges, pauses, deploys)


def draw(seed: int, *, trace: bool = False) -> Story:
    """The world and the story of a seed."""
    chance = random.Random(f"story {seed}")
    kinds = {kind: weight for kind, weight in KINDS.items() if chance.random() < 0.4}
    quiet = not kinds or chance.random() < 0.15
    faults = Faults(kinds, chance.choice((8, 20, 50)), 0 if quiet else chance.randint(1, 4))
    world = World(seed, faults, trace=trace)
    return Story(world)


def tell(story: Story, seed: int) -> None:
    """Adds the programs and the operators of a seed. The world must be the current one."""
    chance = random.Random(f"programs {seed}")
    story.small = chance.random() < 0.85
    for n in range(1 if story.small else chance.choice((1, 1, 2, 3))):
        chance.choice(SENDERS)(story, chance, "abc"[n])
    if seed % 20 == BUDGETS_AT:
        budgets(story, random.Random(f"budget {seed}"), "r")
    if seed % 20 == MIXED_AT:
        mixed(story, random.Random(f"mixed {seed}"), "m")
    for n in range(chance.choice((0, 0, 1, 1 if story.small else 2))):
        chance.choice(OPERATORS)(story, chance, "xy"[n])
