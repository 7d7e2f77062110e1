"""Deployment faults for the chaos tests: how each is caused, what the operator's command reports, and its remedy.

docs/operations.md has them as a table, which tests/e2e/test_chaos.py generates and compares.
"""

import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from nexus import version
from nexus.client import AsyncResult
from nexus.envelope import Envelope
from nexus.settings import settings
from ops import doctor, versions
from ops.template import load
from social import application
from tests.support.clips import make_clip
from tests.support.patience import eventually
from tests.support.throttling import throttling

QUEUES = ("media", "emails", "users", "analytics", "maintenance", "default")
REPAIR = ("repair", "--yes")
PING = ("inspect", "ping", "--timeout", "4m")
MARK = "chaos"
"""In the arguments of every run that a fault starts."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault. `says` is what `command` must report, as (where, part of the text) pairs.

    `remedy` lists the commands to type, as the finding gives them; `also` is what an operator does besides, such as
    sending the task again to check it. `then` is a step outside `nexus`: a deployment.
    """

    name: str
    make: Callable[[], object]
    says: Sequence[tuple[str, str]]
    remedy: Sequence[Sequence[str]] = (REPAIR,)
    command: Sequence[str] = ("status",)
    also: Sequence[Sequence[str]] = ()
    then: Callable[[], object] = lambda: None


def name_of(queue: str) -> str:
    return settings().queue_name(queue)


def url_of(name: str) -> str:
    found: str = boto3.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]
    return found


def each(make: Callable[[str], object], names: Sequence[str] = QUEUES) -> Callable[[], object]:
    """The fault for each queue, or for each of the given names."""
    return lambda: [make(name) for name in names]


def delete_queue(queue: str) -> None:
    boto3.client("sqs").delete_queue(QueueUrl=url_of(name_of(queue)))


def delete_dead_letter_queue(queue: str) -> None:
    boto3.client("sqs").delete_queue(QueueUrl=url_of(settings().dead_letter_queue_name(queue)))


def source_of(queue: str) -> str:
    from ops.health import event_source

    source = event_source(queue)
    assert source is not None
    found: str = source["UUID"]
    return found


def delete_source(queue: str) -> None:
    boto3.client("lambda").delete_event_source_mapping(UUID=source_of(queue))


def change_source(queue: str, **to: Any) -> Callable[[], object]:
    return lambda: boto3.client("lambda").update_event_source_mapping(UUID=source_of(queue), **to)


def change_function(queue: str, **to: Any) -> None:
    """Changes a function by hand and makes it live: publishes a version and moves the alias to it."""
    lambda_, name = boto3.client("lambda"), name_of(queue)
    lambda_.update_function_configuration(FunctionName=name, **to)
    published = lambda_.publish_version(FunctionName=name)["Version"]
    lambda_.update_alias(FunctionName=name, Name=versions.ALIAS, FunctionVersion=published)


def function_with(queue: str, **to: Any) -> Callable[[], object]:
    """Changes a function by hand, then pings it."""

    def make() -> None:
        change_function(queue, **to)
        send(queue)

    return make


def variables(queue: str, *, ping: bool = True, **to: str | None) -> Callable[[], object]:
    """Changes a function's environment variables, then pings it; None removes one."""

    def make() -> None:
        found = boto3.client("lambda").get_function_configuration(FunctionName=name_of(queue))
        given = {**found["Environment"]["Variables"], **to}
        change_function(queue, Environment={"Variables": {k: v for k, v in given.items() if v is not None}})
        if ping:
            send(queue)

    return make


def send(queue: str, task: str = "ping", **args: Any) -> str:
    """Sends a message without the client. Returns the run's id."""
    envelope = Envelope(id=str(uuid.uuid4()), task=task, args=args or {"text": MARK})
    boto3.client("sqs").send_message(QueueUrl=url_of(name_of(queue)), MessageBody=envelope.encode())
    return envelope.id


def attributes(queue: str, **to: Any) -> Callable[[], object]:
    return lambda: boto3.client("sqs").set_queue_attributes(
        QueueUrl=url_of(name_of(queue)),
        Attributes=to,  # type: ignore[arg-type]
    )


def rule(task: str) -> str:
    return f"{settings().stack}-{task}"


def delete_rule(task: str) -> None:
    events = boto3.client("events")
    targets = [target["Id"] for target in events.list_targets_by_rule(Rule=rule(task))["Targets"]]
    events.remove_targets(Rule=rule(task), Ids=targets)
    events.delete_rule(Name=rule(task))


def drop_targets(task: str) -> Callable[[], object]:
    def make() -> None:
        events = boto3.client("events")
        targets = [target["Id"] for target in events.list_targets_by_rule(Rule=rule(task))["Targets"]]
        events.remove_targets(Rule=rule(task), Ids=targets)

    return make


def role_of(queue: str) -> str:
    arn: str = boto3.client("lambda").get_function_configuration(FunctionName=name_of(queue))["Role"]
    return arn.rpartition("/")[2]


def take_rights(queue: str) -> Callable[[], object]:
    """Removes the inline policy of a function's role."""

    def make() -> None:
        iam, role = boto3.client("iam"), role_of(queue)
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            iam.delete_role_policy(RoleName=role, PolicyName=policy)

    return make


def detach_policies(queue: str) -> Callable[[], object]:
    """Detaches the runtime's policies from a function's role."""

    def make() -> None:
        iam, role = boto3.client("iam"), role_of(queue)
        for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            # The local cloud also attaches another stack's policy, which repairing this stack does not restore.
            if policy["PolicyName"].startswith(f"{settings().stack}-RuntimePolicy"):
                iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])

    return make


def failing_task() -> None:
    """A task that always fails: the function has no access to its tables, and three users wait for it."""
    with suppress(ValueError):
        application.register("chaos@example.com", "Chaos", user_id=MARK)
    take_rights_of_data("users")()
    for _ in range(3):
        send("users", "refresh_user_statistics", user_id=MARK)


def throttled_table() -> None:
    """A table that DynamoDB throttles for the function of the queue `default`; three runs need it.

    The proxy that throttles serves until this process ends: attempts that began before the remedy try for all of the
    task's time, and then write through it that they have failed.
    """
    with suppress(ValueError):
        application.register("chaos@example.com", "Chaos", user_id=MARK)
    server = throttling(boto3.client("dynamodb").meta.endpoint_url, settings().table("blocks"))
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    variables("default", ping=False, AWS_ENDPOINT_URL_DYNAMODB=endpoint)()
    for _ in range(3):
        args = {"user_id": MARK, "kind": "like", "text": "throttled", "actor_id": MARK}
        run: AsyncResult[Any] = AsyncResult(send("default", "send_notification", **args))
        # Each in an invocation of its own: the messages of a batch would run one after the other.
        eventually(lambda run=run: run.status != "UNKNOWN")  # type: ignore[misc]


class FullDisk:
    """A media function with a full /tmp (a one-page file system); three clips are uploaded."""

    def make(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can mount a file system")
        self._folder = tempfile.mkdtemp(prefix="nexus-full-disk-")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", self._folder], check=True)
        variables("media", ping=False, TMPDIR=self._folder)()
        with tempfile.TemporaryDirectory() as folder:
            clip = make_clip(Path(folder) / "clip.mov", size=(320, 240), frames=48).read_bytes()
        for _ in range(3):
            post = uuid.uuid4().hex[:12]
            application.new_post(MARK, "a clip", post_id=post)
            key = f"uploads/{MARK}/{post}/clip.mov"
            boto3.client("s3").put_object(Bucket=settings().bucket("uploads"), Key=key, Body=clip)

    def end(self) -> None:
        # Lazily: an attempt that began before the remedy may still use it.
        subprocess.run(["umount", "--lazy", self._folder], check=True)
        Path(self._folder).rmdir()


def take_rights_of_data(queue: str) -> Callable[[], object]:
    """Removes the statements about tables from a function's role."""

    def make() -> None:
        iam, role = boto3.client("iam"), role_of(queue)
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document: Any = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            kept = [one for one in document["Statement"] if "dynamodb" not in json.dumps(one)]
            document = {**document, "Statement": kept}
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))

    return make


def delete_table(entity: str) -> None:
    boto3.client("dynamodb").delete_table(TableName=settings().table(entity))


def delete_bucket(purpose: str) -> None:
    s3, bucket = boto3.resource("s3"), settings().bucket(purpose)
    s3.Bucket(bucket).object_versions.delete()
    s3.Bucket(bucket).objects.delete()
    s3.Bucket(bucket).delete()


def fail_an_update() -> None:
    """A deployment that stops in the middle because a resource cannot be created."""
    cloudformation, bucket = boto3.client("cloudformation"), settings().bucket("archive")
    body: Any = cloudformation.get_template(StackName=settings().stack, TemplateStage="Original")["TemplateBody"]
    template: Any = load(body) if isinstance(body, str) else body
    settings_of_nobody = {"FunctionName": "nobody", "Qualifier": "$LATEST", "MaximumRetryAttempts": 0}
    template["Resources"]["Broken"] = {"Type": "AWS::Lambda::EventInvokeConfig", "Properties": settings_of_nobody}
    boto3.client("s3").put_object(Bucket=bucket, Key="chaos/template.json", Body=json.dumps(template))
    cloudformation.update_stack(
        TemplateURL=f"{boto3.client('s3').meta.endpoint_url}/{bucket}/chaos/template.json",
        DisableRollback=True,
        **_as_deployed(),
    )


def deploy() -> None:
    """A deployment that succeeds: the same template, with another tag."""
    boto3.client("cloudformation").update_stack(
        UsePreviousTemplate=True, Tags=[{"Key": "chaos", "Value": uuid.uuid4().hex}], **_as_deployed()
    )


def _as_deployed() -> dict[str, Any]:
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=settings().stack)["Stacks"]
    return {
        "StackName": settings().stack,
        "Parameters": [{"ParameterKey": p["ParameterKey"], "UsePreviousValue": True} for p in stack["Parameters"]],
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    }


def poison(queue: str, body: str) -> Callable[[], object]:
    return lambda: boto3.client("sqs").send_message(QueueUrl=url_of(name_of(queue)), MessageBody=body)


def unended() -> list[str]:
    """The ids of the faults' runs that wait for another attempt or are running."""
    pages = boto3.client("dynamodb").get_paginator("scan").paginate(
        TableName=settings().table("task-runs"),
        FilterExpression="#status IN (:pending, :started, :retry) AND contains(args, :mark)",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={
            ":pending": {"S": "PENDING"}, ":started": {"S": "STARTED"}, ":retry": {"S": "RETRY"}, ":mark": {"S": MARK},
        },
    )  # fmt: skip
    return [item["id"]["S"] for page in pages for item in page["Items"]]


def end_runs() -> None:
    """Ends what the faults have started: revokes runs that wait, lets running ones finish, and purges the queues.

    Messages that a broken function could not claim are hidden for the queue's visibility timeout, six minutes or more.
    """

    def ended() -> bool:
        left = unended()
        for run_id in left:
            AsyncResult[Any](run_id).revoke("the fault is over")
        return not left

    eventually(ended)
    for queue in QUEUES:
        boto3.client("sqs").purge_queue(QueueUrl=url_of(name_of(queue)))


def older_client() -> None:
    version.VERSION = "0.0.9"


def client_of_today() -> None:
    version.VERSION = "0.1.0"


def shift_clock(seconds: float) -> None:
    """Shifts this machine's clock for `nexus doctor`."""
    doctor.now = lambda: time.time() + seconds


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault on the operator's side that fails every command: environment variables, or options."""

    name: str
    says: str
    do: str
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def troubles() -> Sequence[Trouble]:
    """All faults of that kind. The remedy is to remove the variables and options again."""
    return (
        Trouble(
            "nothing listens at the endpoint",
            "AWS does not respond",
            "Is AWS_ENDPOINT_URL meant to be set?",
            variables={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        ),
        Trouble(
            "the credentials have expired, or do not exist",
            "AWS rejects the credentials",
            "`nexus up`",
            variables={"AWS_ACCESS_KEY_ID": "AKIAEXPIRED000000000", "AWS_SECRET_ACCESS_KEY": "x"},
        ),
        Trouble(
            "another region is meant",
            "There is no stack nexus-local in us-east-1",
            "Is it under another --region or --profile?",
            options=("--region", "us-east-1"),
        ),
        Trouble(
            "a profile that nobody made",
            "The config profile (nobody) could not be found",
            "`aws configure list-profiles` lists the existing ones.",
            options=("--profile", "nobody", "--stack", "nexus-local"),
        ),
        Trouble(
            "a catalogue that this machine lacks",
            "The catalogue nowhere.catalogue cannot be imported",
            "Run nexus where the application is installed, or add its folder to PYTHONPATH.",
            variables={"NEXUS_CATALOGUE": "nowhere.catalogue"},
        ),
    )


TABLES = (
    "users", "posts", "follows", "blocks", "comments", "hashtags", "sessions", "tokens", "analytics", "notifications",
    "mail-ledger",
)  # fmt: skip
RULES = (
    "cleanup_expired_tokens", "update_user_statistics", "generate_content_analytics",
    "update_post_engagement_scores", "update_trending_hashtags", "cleanup_old_posts", "send_content_digest_email",
)  # fmt: skip


def faults() -> Sequence[Fault]:
    """All faults."""
    scheduled = "cleanup_old_posts"
    disk = FullDisk()
    return (
        # --- queues, functions, event sources
        Fault("each queue is deleted", each(delete_queue), [(q, "the queue is missing") for q in QUEUES]),
        Fault(
            "each dead-letter queue is deleted",
            each(delete_dead_letter_queue),
            [(q, "its dead-letter queue is missing") for q in QUEUES],
        ),
        Fault(
            "each event source is deleted",
            each(delete_source),
            [(q, "no event source feeds the function") for q in QUEUES],
        ),
        Fault(
            "each function names a module that is not there",
            each(lambda q: function_with(q, Handler="nexus.nowhere.handler")()),
            [(q, "Runtime.ImportModuleError: Unable to import module 'nexus.nowhere'") for q in QUEUES],
            also=[PING],
        ),
        Fault(
            "a function names a handler that its module lacks",
            function_with("users", Handler="nexus.worker.nobody"),
            [("users", "Runtime.HandlerNotFound: Handler 'nobody' missing on module 'nexus.worker'")],
            also=[(*PING, "users")],
        ),
        Fault(
            "a function has lost its layer",
            function_with("users", Layers=[]),
            [("users", "Runtime.ImportModuleError: Unable to import module 'nexus.function': No module named 'nexus'")],
            also=[(*PING, "users")],
        ),
        Fault(
            "a function does not know its queue",
            variables("users", NEXUS_QUEUE=None),
            [("users", "ConfigurationError: NEXUS_QUEUE is not set")],
            also=[(*PING, "users")],
        ),
        Fault(
            "a function names a catalogue that is not there",
            variables("users", NEXUS_CATALOGUE="nowhere.catalogue"),
            [("users", "ConfigurationError: NEXUS_CATALOGUE: the catalogue nowhere.catalogue cannot be imported")],
            also=[(*PING, "users")],
        ),
        Fault(
            "a function has a parameter that cannot be",
            variables("users", NEXUS_RUN_DAYS="soon"),
            [("users", "ConfigurationError: NEXUS_RUN_DAYS is 'soon': it must be a whole number of days, 1 or more")],
            also=[(*PING, "users")],
        ),
        Fault(
            "a function works for another stack",
            variables("users", ping=False, NEXUS_STACK="nexus-other"),
            [("users", "the function's NEXUS_STACK is 'nexus-other' and not 'nexus-local'")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "a function may not run at all: its reserved concurrency is 0",
            lambda: boto3.client("lambda").put_function_concurrency(
                FunctionName=name_of("users"), ReservedConcurrentExecutions=0
            ),
            [("users", "the function's reserved concurrency is 0: nothing runs")],
            remedy=[("resume", "users")],
        ),
        Fault(
            "each queue is paused",
            each(lambda q: change_source(q, Enabled=False)()),
            [(q, "the queue is paused") for q in QUEUES],
            remedy=[("resume", q) for q in QUEUES],
        ),
        Fault(
            "a function ends before its tasks may",
            lambda: change_function("users", Timeout=3),
            [("users", "a task's limit is 50 s, but the function's timeout is 3 s")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "a function has little memory",
            lambda: change_function("media", MemorySize=128),
            [("MediaFunction", "it was changed by hand: MemorySize is 128 and not 2048")],
            command=("validate",),
        ),
        Fault(
            "messages come again while they run",
            attributes("users", VisibilityTimeout="30"),
            [("users", "visibility timeout 30 s is not longer than the function's 60 s")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "messages are forgotten after a minute",
            attributes("users", MessageRetentionPeriod="60"),
            [("UsersQueue", "it was changed by hand: MessageRetentionPeriod is 60 and not 345600")],
            command=("validate",),
        ),
        Fault(
            "a queue keeps its poison",
            attributes("users", RedrivePolicy=""),
            [("users", "it does not redrive to nexus-local-users-dead")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "a batch fails as a whole",
            change_source("users", FunctionResponseTypes=[]),
            [("users", "the event source does not report partial failures")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "a queue has another concurrency",
            change_source("users", ScalingConfig={"MaximumConcurrency": 2}),
            [("users", "2 at once, template.yaml says 7")],
            command=("validate", "--no-drift"),
            remedy=[("concurrency", "users", "7")],
        ),
        # --- schedules
        Fault(
            "each rule is deleted",
            each(delete_rule, RULES),
            [(task, "its schedule's rule is missing") for task in RULES],
        ),
        Fault(
            "a rule is off",
            lambda: boto3.client("events").disable_rule(Name=rule(scheduled)),
            [(scheduled, "its rule is off")],
            remedy=[("schedule", "enable", scheduled)],
        ),
        Fault(
            "a rule fires at another time",
            lambda: boto3.client("events").put_rule(Name=rule(scheduled), ScheduleExpression="rate(1 day)"),
            [(scheduled, "its schedule is rate(1 day), but cron(0 1 ? * SUN *) was deployed")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "a rule has no target",
            drop_targets(scheduled),
            [(scheduled, "its rule does not send to nexus-local-maintenance")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "rules may not send to their queue",
            attributes("maintenance", Policy=""),
            [(scheduled, "the policy of queue maintenance does not let its rule send")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "the group of one-off schedules is deleted",
            lambda: boto3.client("scheduler").delete_schedule_group(Name=settings().stack),
            [("nexus-local", "the schedule group is missing")],
        ),
        # --- tables, buckets, secrets, rights
        Fault(
            "each of the network's tables is deleted",
            each(delete_table, TABLES),
            [(f"nexus-local-{table}", "the table is missing") for table in TABLES],
        ),
        Fault(
            "the table of run records is deleted",
            each(delete_table, ["task-runs"]),
            [("nexus-local-task-runs", "the table is missing")],
        ),
        Fault(
            "each bucket is deleted",
            each(delete_bucket, ["uploads", "media", "archive"]),
            [(f"nexus-local-{name}-000000000000", "the bucket is missing") for name in ("uploads", "media", "archive")],
        ),
        Fault(
            "uploads start nothing",
            lambda: boto3.client("s3").put_bucket_notification_configuration(
                Bucket=settings().bucket("uploads"), NotificationConfiguration={}
            ),
            [("nexus-local-uploads-000000000000", "its uploads do not invoke nexus-local-media")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "the key that signs unsubscribe links is deleted",
            lambda: boto3.client("secretsmanager").delete_secret(
                SecretId=f"{settings().stack}-mail-signing", ForceDeleteWithoutRecovery=True
            ),
            [("MailSigningKey", "it was deleted by hand")],
            command=("validate",),
        ),
        Fault(
            "a function's role has lost its own rights",
            take_rights("analytics"),
            [("analytics", "its role may not sqs:ReceiveMessage")],
            command=("validate", "--no-drift"),
        ),
        Fault(
            "a function may not write run records",
            lambda: (detach_policies("analytics")(), send("analytics")),
            [("analytics", "the function died before it starts a run")],
            also=[(*PING, "analytics")],
        ),
        Fault(
            "an alarm is deleted",
            lambda: boto3.client("cloudwatch").delete_alarms(AlarmNames=[f"{settings().stack}-users-dead"]),
            [("UsersDeadLetterAlarm", "it was deleted by hand")],
            command=("validate",),
        ),
        Fault(
            "a function's log group is deleted",
            lambda: boto3.client("logs").delete_log_group(logGroupName=f"/aws/lambda/{name_of('default')}"),
            [("DefaultLogGroup", "it was deleted by hand")],
            command=("validate",),
        ),
        # --- what runs
        Fault(
            "every attempt of a task fails",
            failing_task,
            [("users", "attempts of refresh_user_statistics failed: ")],
            also=[("send", "refresh_user_statistics", "user_id=chaos", "--wait")],
        ),
        Fault(
            "a table is throttled",
            throttled_table,
            [("default", "DynamoDB throttled get_item nexus-local-blocks")],
            also=[("send", "send_notification", f"user_id={MARK}", "kind=like", "text=hello", "--wait")],
        ),
        Fault(
            "a function's disk is full",
            disk.make,
            [("media", "attempts of process_media_upload failed: OSError: [Errno 28] No space left on device")],
            then=disk.end,
        ),
        Fault(
            "a poison message: no envelope",
            poison("default", "not json"),
            [("default", "1 dead letter")],
            remedy=[("dlq", "drop", "default", "--yes")],
        ),
        Fault(
            "a poison message: a task that nobody has",
            lambda: send("default", "nobody_has_this"),
            [("default", "1 dead letter")],
            remedy=[("dlq", "drop", "default", "--yes")],
        ),
        Fault(
            "a poison message: arguments that do not fit",
            lambda: send("default", text="x" * 201),
            [("default", "1 dead letter")],
            remedy=[("dlq", "drop", "default", "--yes")],
        ),
        # --- the stack
        Fault(
            "a deployment stopped in the middle",
            fail_an_update,
            [("nexus-local", "the stack is UPDATE_FAILED (Resource Broken failed")],
            then=deploy,
        ),
        Fault(
            "the stack is newer than the client",
            older_client,
            [("nexus-local", "the stack has version 0.1.0, this client 0.0.9")],
            remedy=(),
            then=client_of_today,
        ),
        Fault(
            "this machine's clock is ten minutes ahead",
            lambda: shift_clock(600),
            [("the clock", "s ahead of AWS's")],
            command=("doctor",),
            remedy=(),
            then=lambda: shift_clock(0),
        ),
    )
