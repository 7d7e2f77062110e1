"""The deployment's health: queues, functions, event sources, rules, alarms, and findings about them.

All requests run concurrently. Times are in seconds; a value that AWS does not report is None.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from nexus.settings import settings
from ops import catalogue, cloudwatch, diagnosis, figures, versions
from ops.aws import Threads, client, in_parallel
from ops.cloudwatch import Metric
from ops.deployment import Deployment
from ops.lookup import short
from ops.problems import REPAIR
from ops.spans import At

if TYPE_CHECKING:
    from concurrent.futures import Future

THREADS = 32


type Severity = Literal["failed", "warning", "unchecked", "note"]
"""The last two are not faults: what a check cannot cover, and what is worth a look."""
SEVERITIES: Final[tuple[Severity, ...]] = ("failed", "warning", "unchecked", "note")
"""The worst first."""
WRONG: Final = SEVERITIES[:2]


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault and its remedy."""

    severity: Severity
    where: str
    what: str
    do: str

    @property
    def is_wrong(self) -> bool:
        return self.severity in WRONG


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue with its function and event source.

    `oldest` is CloudWatch's age of the oldest message, delayed by minutes; None if it has none. `source` is the event
    source's state: Enabled, Disabled, a state between them, or missing. `present` and `dead_present` are whether the
    queue and its dead-letter queue exist; `version` is the function's that is live, and `changed_at` its last change
    (seconds since 1970).
    """

    name: str
    priority: int | None
    waiting: int
    in_flight: int
    delayed: int
    oldest: float | None
    dead: int
    source: str
    concurrency: int | None
    function: str
    reserved: int | None
    present: bool = True
    dead_present: bool = True
    changed_at: At | None = None
    version: str = ""

    @property
    def paused(self) -> bool:
        return self.source in ("Disabled", "Disabling")


@dataclass(frozen=True, slots=True)
class RuleState:
    """An EventBridge rule; `expression` is empty if an event triggers it, not a schedule."""

    task: str
    expression: str
    on: bool


@dataclass(frozen=True, slots=True)
class AlarmState:
    """A CloudWatch alarm; `state` is OK, ALARM or INSUFFICIENT_DATA."""

    name: str
    state: str
    description: str


@dataclass(frozen=True, slots=True)
class Health:
    """The whole deployment, with findings, worst first."""

    deployment: Deployment
    queues: tuple[QueueState, ...]
    rules: tuple[RuleState, ...]
    alarms: tuple[AlarmState, ...]
    findings: tuple[Finding, ...]

    @property
    def schedules(self) -> tuple[RuleState, ...]:
        """The rules that fire by a clock, not by an event."""
        return tuple(rule for rule in self.rules if rule.expression)

    @property
    def is_well(self) -> bool:
        return not any(finding.is_wrong for finding in self.findings)


def check(deployment: Deployment) -> Health:
    """Sends all requests concurrently. Raises botocore's errors."""
    names = catalogue.queues()
    with Threads(THREADS) as pool:
        counts = {q: pool.submit(queue_counts, settings().queue_name(q)) for q in names}
        dead = {q: pool.submit(queue_counts, settings().dead_letter_queue_name(q)) for q in names}
        sources = {q: pool.submit(event_source, q) for q in names}
        functions = {q: pool.submit(_function, q) for q in names}
        oldest = pool.submit(_oldest, names)
        rules = pool.submit(rule_states)
        alarms = pool.submit(_alarms, names)
        parts = pool.submit(_of_parts, deployment)
        money = pool.submit(_of_budgets)
    queues = tuple(
        _queue_state(q, counts[q], dead[q], sources[q], functions[q], oldest=oldest.result().get(q)) for q in names
    )
    findings = [
        *of_stack(deployment),
        *of_version(deployment),
        *parts.result(),
        *(finding for queue in queues for finding in _of_queue(queue)),
        *inside({queue.name: queue for queue in queues}),
        *_of_rules(rules.result(), deployment),
        *_of_alarms(alarms.result(), queues),
        *money.result(),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Health(deployment, queues, tuple(rules.result()), tuple(alarms.result()), tuple(findings))


@dataclass(frozen=True, slots=True)
class Counts:
    """SQS's counts of a queue's messages, which it calls approximate."""

    waiting: int
    in_flight: int
    delayed: int

    @property
    def total(self) -> int:
        return self.waiting + self.in_flight + self.delayed


_COUNTS: tuple[Any, ...] = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


def queue_counts(name: str) -> Counts | None:
    """A queue's counts; None if there is no such queue."""
    from botocore.exceptions import ClientError

    from nexus.aws.sdk import client as runtime_client
    from nexus.aws.sdk import is_missing
    from nexus.backend.transport import queue_url

    sqs = runtime_client("sqs")
    try:
        found = sqs.get_queue_attributes(QueueUrl=queue_url(name), AttributeNames=list(_COUNTS))["Attributes"]
    except ClientError as error:
        if not is_missing(error):
            raise
        return None
    waiting, in_flight, delayed = (int(found.get(attribute, 0)) for attribute in _COUNTS)
    return Counts(waiting, in_flight, delayed)


def event_source(queue: str) -> Mapping[str, Any] | None:
    """The event source mapping from a queue to its function's alias; None if there is none."""
    lambda_ = client("lambda")
    try:
        mappings = lambda_.list_event_source_mappings(FunctionName=versions.alias(queue))
    except lambda_.exceptions.ResourceNotFoundException:
        return None
    wanted = f":{settings().queue_name(queue)}"
    found = [m for m in mappings["EventSourceMappings"] if m.get("EventSourceArn", "").endswith(wanted)]
    return found[0] if found else None


def _function(queue: str) -> tuple[str, int | None, float, str]:
    """A function's state (Active, Pending, Failed: why, missing), reserved concurrency, last change, and version."""
    lambda_ = client("lambda")
    try:
        configuration = versions.configuration(queue)
    except lambda_.exceptions.ResourceNotFoundException:
        return "missing", None, 0.0, ""
    reserved = lambda_.get_function_concurrency(FunctionName=settings().function_name(queue))
    state = str(configuration.get("State", "Active"))
    if configuration.get("LastUpdateStatus") == "Failed":
        state = f"Failed: {configuration.get('LastUpdateStatusReason', 'its last update')}"
    elif state not in ("Active", "Inactive"):
        state = f"{state}: {configuration.get('StateReason', '')}".rstrip(": ")
    changed = configuration.get("LastModified")
    changed_at = datetime.fromisoformat(changed).timestamp() if changed else 0.0
    return state, reserved.get("ReservedConcurrentExecutions"), changed_at, str(configuration.get("Version", ""))


def reserved_concurrency(queue: str) -> int | None:
    """The reserved concurrency of a queue's function; None if it has none."""
    return _function(queue)[1]


def live_version(queue: str) -> tuple[float, str]:
    """When the version of a queue's function that is live was made, in seconds since 1970, and its number; 0 and empty
    if there is none."""
    return _function(queue)[2:]


def _oldest(queues: Sequence[str]) -> dict[str, float]:
    """The age of each queue's oldest message, as CloudWatch last reported it within a quarter of an hour."""
    wanted = {
        queue: Metric(
            "AWS/SQS", "ApproximateAgeOfOldestMessage", "Maximum", {"QueueName": settings().queue_name(queue)}
        )
        for queue in queues
    }
    found = cloudwatch.read(wanted, timedelta(minutes=15))
    return {queue: next(iter(values.values())) for queue, values in found.items()}


def rule_states() -> list[RuleState]:
    """The stack's rules, by task.

    A name with a hyphen that is not a task's belongs to another stack: `nexus-dev-ada` beside `nexus-dev`.
    """
    prefix = f"{settings().stack}-"
    pages = client("events").get_paginator("list_rules").paginate(NamePrefix=prefix)
    tasks = () if catalogue.missing() else catalogue.tasks()
    found = [
        RuleState(r["Name"].removeprefix(prefix), r.get("ScheduleExpression", ""), r.get("State") == "ENABLED")
        for page in pages
        for r in page["Rules"]
    ]
    return sorted((r for r in found if r.task in tasks or "-" not in r.task), key=lambda rule: rule.task)


def described_alarms(queues: Sequence[str]) -> Iterator[Any]:
    """The alarms of a stack with these queues, as CloudWatch describes them.

    Leaves out those of another stack whose name begins with this one's: they watch what is not this stack's.
    """
    stack = settings().stack
    names = (settings().queue_name, settings().dead_letter_queue_name, settings().function_name)
    own = {stack, *(name(queue) for queue in queues for name in names)}
    for page in client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{stack}-"):
        for alarm in page["MetricAlarms"]:
            watched = {d["Value"] for d in alarm.get("Dimensions", ()) if d["Name"] in _WATCHED}
            elsewhere = any(name.startswith(f"{stack}-") for name in watched - own)
            if not elsewhere or alarm["AlarmName"].startswith(tuple(f"{stack}-{queue}-" for queue in queues)):
                yield alarm


_WATCHED = ("QueueName", "FunctionName", "ScheduleGroup")


def _alarms(queues: Sequence[str]) -> list[AlarmState]:
    return [
        AlarmState(a["AlarmName"], a.get("StateValue", "INSUFFICIENT_DATA"), a.get("AlarmDescription", ""))
        for a in described_alarms(queues)
    ]


def _queue_state(
    queue: str,
    counts: "Future[Counts | None]",
    dead: "Future[Counts | None]",
    source: "Future[Mapping[str, Any] | None]",
    function: "Future[tuple[str, int | None, float, str]]",
    *,
    oldest: float | None,
) -> QueueState:
    there, dead_there, mapping = counts.result(), dead.result(), source.result()
    state, reserved, changed_at, version = function.result()
    return QueueState(
        name=queue,
        priority=catalogue.priority(queue),
        waiting=there.waiting if there else 0,
        in_flight=there.in_flight if there else 0,
        delayed=there.delayed if there else 0,
        oldest=oldest if there and there.waiting else None,
        dead=dead_there.total if dead_there else 0,
        source=str(mapping.get("State", "missing")) if mapping else "missing",
        concurrency=(mapping or {}).get("ScalingConfig", {}).get("MaximumConcurrency"),
        function=state,
        reserved=reserved,
        present=there is not None,
        dead_present=dead_there is not None,
        changed_at=changed_at or None,
        version=version,
    )


# --- findings ---


def of_stack(deployment: Deployment) -> list[Finding]:
    """Findings from the stack's CloudFormation status, and from its outputs if it is complete."""
    status, stack = deployment.status, deployment.stack
    reason = f" ({deployment.status_reason})" if deployment.status_reason else ""
    if status == "REVIEW_IN_PROGRESS":
        what = "the stack has nothing but a change set that was not executed"
        return [Finding("failed", stack, what, "Deploy it: `make deploy ENV=...`.")]
    if status.endswith("_IN_PROGRESS"):
        return [Finding("warning", stack, f"the stack is {status}", "Wait for the deployment to end.")]
    if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"):
        if deployment.queues:
            return []
        do = "Is another --stack meant? Else add outputs <Queue>QueueUrl to its template."
        return [Finding("failed", stack, "none of the stack's outputs names a queue", do)]
    if status == "UPDATE_ROLLBACK_COMPLETE":
        do = "The previous version is running. Fix the template and deploy again."
        return [Finding("warning", stack, f"the last deployment failed and was rolled back{reason}", do)]
    if status == "CREATE_FAILED" or (status == "UPDATE_FAILED" and not deployment.outputs):
        # Without outputs no deployment has succeeded yet: CloudFormation would roll the stack back by deleting it.
        do = "Fix the cause and deploy again: a first deployment continues where it stopped."
    elif status == "UPDATE_FAILED":
        do = "`nexus repair` returns to the previous deployment. Then fix the template and deploy."
    elif status == "UPDATE_ROLLBACK_FAILED":
        do = f"`aws cloudformation continue-update-rollback --stack-name {stack}` ends the rollback; then deploy."
    elif deployment.stage == "local":
        do = "`nexus down --yes` deletes it, `nexus up` makes a new one."
    else:
        do = f"It cannot be updated: `sam delete --stack-name {stack}`, then deploy."
    return [Finding("failed", stack, f"the stack is {status}{reason}", do)]


def of_version(deployment: Deployment) -> list[Finding]:
    """A finding if the client is older than the deployment."""
    from nexus.version import VERSION

    deployed = deployment.outputs.get("Version", VERSION)
    if _parts_of(deployed) <= _parts_of(VERSION):
        return []
    what = f"the stack has version {deployed}, this client {VERSION}: it may not know all features of the stack"
    return [Finding("warning", deployment.stack, what, "Update this checkout to the deployed version: `git pull`.")]


def _parts_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _of_queue(queue: QueueState) -> list[Finding]:
    name = queue.name
    findings = []
    if not queue.present:
        findings.append(Finding("failed", name, "the queue is missing", REPAIR))
    if not queue.dead_present:
        findings.append(Finding("failed", name, "its dead-letter queue is missing", REPAIR))
    if queue.function == "missing":
        findings.append(Finding("failed", name, "the function is missing", REPAIR))
    elif queue.function not in ("Active", "Inactive"):
        findings.append(Finding("failed", name, f"the function is {queue.function}", f"`nexus logs --queue {name}`."))
    if queue.source == "missing":
        findings.append(Finding("failed", name, "no event source feeds the function", REPAIR))
    elif queue.paused:
        waiting = f", {queue.waiting} waiting" if queue.waiting else ""
        findings.append(Finding("warning", name, f"the queue is paused{waiting}", f"`nexus resume {name}`"))
    elif queue.reserved == 0:
        what = "the function's reserved concurrency is 0: nothing runs"
        findings.append(Finding("failed", name, what, f"`nexus resume {name}`"))
    if queue.dead:
        what = f"{queue.dead} dead letter{'s' if queue.dead != 1 else ''}"
        do = f"`nexus dlq list {name}` shows why; then `nexus dlq retry {name}` or `nexus dlq drop {name}`."
        findings.append(Finding("failed", name, what, do))
    return findings


def _of_parts(deployment: Deployment) -> list[Finding]:
    """The tables, buckets and schedule group that the stack's outputs name but that do not exist."""
    named = [
        (kind, name)
        for kind in ("Table", "Bucket", "ScheduleGroup")
        for output, name in deployment.outputs.items()
        if output.endswith(f"{kind}Name")
    ]
    found = in_parallel(lambda part: _missing(*part), named)
    return [finding for finding in found if finding is not None]


def _missing(kind: str, name: str) -> Finding | None:
    """A finding if a part of the stack cannot be seen; None if it is there."""
    from botocore.exceptions import ClientError

    from nexus.aws.sdk import client as runtime_client

    try:
        if kind == "Table":
            runtime_client("dynamodb").describe_table(TableName=name)
        elif kind == "Bucket":
            runtime_client("s3").head_bucket(Bucket=name)
        else:
            runtime_client("scheduler").get_schedule_group(Name=name)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        word = {"Table": "table", "Bucket": "bucket", "ScheduleGroup": "schedule group"}[kind]
        if code in ("ResourceNotFoundException", "404", "NoSuchBucket", "NotFound"):
            return Finding("failed", name, f"the {word} is missing", REPAIR)
        return Finding(
            "warning", name, f"it cannot be checked whether the {word} exists: {code}", "See docs/operations.md."
        )
    return None


# --- faults inside the functions ---


def inside(queues: Mapping[str, QueueState]) -> list[Finding]:
    """Functions that die before they start a run, tasks whose every attempt fails, and tasks most of whose runs fall
    short. Raises botocore's errors."""
    now = time.time()
    there = [queue for queue in queues.values() if queue.function != "missing"]
    checks: list[Any] = [
        partial(look, queue.name, now, queue.changed_at or 0.0, queue.version)
        for look in (diagnosis.dying, diagnosis.failing, diagnosis.falling_short)
        for queue in there
    ]
    changed = {queue.name: queue.changed_at or 0.0 for queue in there}
    checks.append(lambda: diagnosis.silent_deaths(list(changed), now, changed))
    *seen, silent = in_parallel(lambda examine: examine(), checks)
    dying = {one.queue: one for one in seen[: len(there)] if one is not None}
    silent = [one for one in silent if not diagnosis.of_another_version(one, queues[one.queue].version)]
    dying = {one.queue: one for one in silent if not diagnosis.started_since(one)} | dying
    failing = [one for found in seen[len(there) : 2 * len(there)] for one in found]
    short = [one for found in seen[2 * len(there) :] for one in found]
    return [
        *(_of_dying(one, queues[one.queue]) for one in dying.values()),
        *(_of_failing(one) for one in failing if one.queue not in dying),
        *map(_of_falling_short, short),
    ]


def _of_dying(one: diagnosis.Dying, queue: QueueState) -> Finding:
    since = f"{datetime.fromtimestamp(one.since, UTC):%H:%M:%S}"
    times = "once, at" if one.times == 1 else f"{one.times} times since"
    when = "in the middle of a run" if one.in_a_run else "before it starts a run"
    error = one.error or "its log does not say why; Lambda counts an error for every invocation"
    held = diagnosis.unclaimed(queue.name, queue.in_flight) if queue.in_flight and not one.in_a_run else 0
    waits = f". {held} message{'s' if held != 1 else ''} in flight that no run has claimed" if held else ""
    do = f"`nexus logs --queue {one.queue} --since 15m` shows the log. `nexus repair` undoes a manual change, "
    do += "`nexus rollback` a deployment; otherwise fix the code and deploy it. "
    do += f"`nexus inspect ping {one.queue}` shows whether it works."
    return Finding("failed", one.queue, f"the function died {when} {times} {since} UTC: {error}{waits}", do)


def _of_failing(one: diagnosis.Failing) -> Finding:
    what = f"the last {one.times} attempts of {one.task} failed: {one.reason}"
    do = f"`nexus result {short(one.run_id)}` shows the last. `nexus repair` undoes a manual change, `nexus rollback` "
    do += "a deployment; otherwise fix the code and deploy it. Runs in RETRY continue automatically."
    return Finding("failed", one.queue, what, do)


def _of_falling_short(one: diagnosis.FallingShort) -> Finding:
    which = f"{one.times} of the last {one.runs} runs" if one.runs > 1 else "the last run"
    what = f"{which} of {one.task} succeeded without effect: {figures.in_words(one.reasons)}"
    do = f"`nexus result {one.run_id}` shows the last: did the sender write the rows before it sent the task? "
    do += "`nexus inspect stats` counts the reasons."
    return Finding("note", one.queue, what, do)


def _of_rules(rules: list[RuleState], deployment: Deployment) -> list[Finding]:
    if (problem := catalogue.missing()) is not None:
        what = f"it cannot be checked whether all its schedules exist: {problem.what} ({problem.why})"
        findings = [Finding("warning", deployment.stack, what, problem.do)]
    else:
        there = {rule.task for rule in rules}
        findings = [
            Finding("failed", name, "its schedule's rule is missing", REPAIR)
            for name, task in catalogue.tasks().items()
            if task.schedule and name not in there
        ]
    return findings + [
        Finding("warning", rule.task, "its rule is off", f"`nexus schedule enable {rule.task}`")
        for rule in rules
        if not rule.on
    ]


def _of_budgets() -> list[Finding]:
    """Tasks that have spent their daily budget; none if no catalogue or no run table is available."""
    from botocore.exceptions import ClientError

    from nexus.aws.sdk import is_missing
    from ops import budgets

    try:
        spent = [] if catalogue.missing() else [one for one in budgets.read_all() if one.spent]
    except ClientError as error:
        if not is_missing(error):
            raise
        return []  # the check of the stack's own resources names the table
    return [
        Finding(
            "warning",
            one.task,
            f"it has spent today's budget ({one.summary()}): its messages wait until 00:00 UTC, and none is lost",
            f"`nexus budget {one.task} --dollars N --runs N` changes it for new messages.",
        )
        for one in spent
    ]


def _of_alarms(alarms: list[AlarmState], queues: tuple[QueueState, ...]) -> list[Finding]:
    """Alarms in ALARM, except those for dead letters that are already reported."""
    reported = {f"{settings().dead_letter_queue_name(queue.name)}" for queue in queues if queue.dead}
    return [
        Finding("failed", alarm.name, "the alarm is in ALARM", alarm.description)
        for alarm in alarms
        if alarm.state == "ALARM" and alarm.name not in reported
    ]
