"""template.yaml and the catalogue say the same: queues, functions, rules, schedules, allow-lists, limits, outputs."""

import json
import re
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from dev.deploy import LONGEST_NAME
from nexus.backend.transport import MAX_RECEIVES, RETENTION
from nexus.settings import Settings
from nexus.tasks import Task
from nexus.worker import observe
from ops.functions import WANTED
from ops.template import load
from social.catalogue import QUEUES
from tests.support import iam, network
from tests.support.template import ACCOUNT, PATH, REGION, STACK, resolved, resources, template

ROOT = Path(__file__).parents[2]
NAMES = Settings(stack=STACK, account_id=ACCOUNT)
FOURTEEN_DAYS = 14 * 86_400
TEMPLATES = [PATH, *sorted((ROOT / "examples").glob("*/template.yaml"))]


def named(kind: str, key: str) -> dict[str, dict[str, Any]]:
    """The resources of a kind by their physical name."""
    found = (resolved(body["Properties"]) for body in resources(kind).values())
    return {properties[key]: properties for properties in found}


def logical(kind: str, key: str, name: str) -> str:
    """The logical id of the resource of that physical name."""
    found = [i for i, body in resources(kind).items() if resolved(body["Properties"])[key] == name]
    assert len(found) == 1, f"template.yaml has {len(found)} resources {kind} called {name}"
    return found[0]


@pytest.fixture(scope="module")
def queues() -> dict[str, dict[str, Any]]:
    return named("AWS::SQS::Queue", "QueueName")


@pytest.fixture(scope="module")
def functions() -> dict[str, dict[str, Any]]:
    found = (resolved(body["Properties"]) for body in resources("AWS::Serverless::Function").values())
    return {function["Environment"]["Variables"]["NEXUS_QUEUE"]: function for function in found}


def messages(function: dict[str, Any]) -> dict[str, Any]:
    """The function's SQS event source."""
    (source,) = [event["Properties"] for event in function["Events"].values() if event["Type"] == "SQS"]
    found: dict[str, Any] = source
    return found


def test_each_priority_has_a_queue_a_dead_letter_queue_and_a_function(
    queues: dict[str, Any], functions: dict[str, Any]
) -> None:
    wanted = {NAMES.queue_name(q) for q in QUEUES} | {NAMES.dead_letter_queue_name(q) for q in QUEUES}
    assert set(queues) == wanted
    assert set(functions) == set(QUEUES)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_queue_is_wired_to_its_function(queue: str, queues: dict[str, Any], functions: dict[str, Any]) -> None:
    function, properties = functions[queue], queues[NAMES.queue_name(queue)]
    source = messages(function)
    own = logical("AWS::SQS::Queue", "QueueName", NAMES.queue_name(queue))
    dead = logical("AWS::SQS::Queue", "QueueName", NAMES.dead_letter_queue_name(queue))

    assert source["Queue"] == {"Fn::GetAtt": f"{own}.Arn"}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["ScalingConfig"]["MaximumConcurrency"] == QUEUES[queue]
    assert properties["VisibilityTimeout"] == min(6 * function["Timeout"], max(360, function["Timeout"] + 60))
    assert properties["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": f"{dead}.Arn"}
    assert properties["RedrivePolicy"]["maxReceiveCount"] == MAX_RECEIVES
    assert properties["MessageRetentionPeriod"] == RETENTION
    assert queues[NAMES.dead_letter_queue_name(queue)]["MessageRetentionPeriod"] == FOURTEEN_DAYS
    assert function["FunctionName"] == NAMES.function_name(queue)
    assert function["CodeUri"].rstrip("/") == f"functions/{queue}"


@pytest.mark.parametrize("example", ["django", "own_tasks"])
def test_an_examples_queue_has_the_limits_that_the_worker_knows(example: str) -> None:
    found = load((ROOT / "examples" / example / "template.yaml").read_text())
    queues = [body["Properties"] for body in found["Resources"].values() if body["Type"] == "AWS::SQS::Queue"]
    own = [queue for queue in queues if "RedrivePolicy" in queue]
    assert {queue["RedrivePolicy"]["maxReceiveCount"] for queue in own} == {MAX_RECEIVES}
    assert {queue.get("MessageRetentionPeriod", RETENTION) for queue in own} == {RETENTION}  # SQS's default


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.parent.name))
def test_a_new_layer_publishes_a_version_of_every_function(path: Path) -> None:
    """Otherwise `live` stays on the old layer: SAM names a version by the function's own code and properties."""
    layers = [r for r in load(path.read_text())["Resources"].values() if r["Type"] == "AWS::Serverless::LayerVersion"]
    assert [layer["Properties"].get("PublishLambdaVersion") for layer in layers] == [True]


def test_each_function_has_its_own_role(functions: dict[str, Any]) -> None:
    roles = [json.dumps(function["Role"]) for function in functions.values()]
    assert len(set(roles)) == len(functions)


def test_no_statement_allows_every_action_and_only_tracing_every_resource() -> None:
    managed = resources("AWS::IAM::ManagedPolicy").values()
    policies = [
        policy["PolicyDocument"]
        for body in resources("AWS::IAM::Role").values()
        for policy in body["Properties"].get("Policies", [])
    ] + [body["Properties"]["PolicyDocument"] for body in managed]
    assert len(policies) > len(QUEUES)
    for policy in policies:
        for statement in policy["Statement"]:
            if "Fn::If" in statement:
                statement = statement["Fn::If"][1]  # noqa: PLW2901 - the key's, where there is one
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not [action for action in actions if "*" in action], statement
            if statement["Resource"] == "*":
                # These actions do not support resource-level permissions.
                whole = ("ses:GetAccount", "scheduler:ListSchedules")
                assert all(a.startswith("xray:") or a in whole for a in actions), statement


def statements_of(queue: str) -> dict[str, dict[str, Any]]:
    """The statements of a function's own role, by Sid."""
    role = resources("AWS::IAM::Role")[f"{queue.capitalize()}Role"]["Properties"]
    return {one["Sid"]: one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]}


@pytest.mark.parametrize("queue", QUEUES)
def test_a_role_sends_to_its_own_queue_and_to_those_that_its_tasks_name(queue: str) -> None:
    """A task that sends elsewhere, or later than SQS can, says so in the catalogue; or has a budget."""
    tasks = [task for task in network.tasks().values() if task.queue == queue]
    elsewhere = {name for task in tasks for name in task.sends_to}
    wanted = {f"{name.capitalize()}Queue.Arn" for name in {queue, *elsewhere}} | {
        f"{queue.capitalize()}DeadLetterQueue.Arn"
    }
    sends, later = set(), False
    managed = resources("AWS::IAM::ManagedPolicy")["RuntimePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    for one in [*statements_of(queue).values(), *(s for s in managed if "Sid" in s)]:
        actions = one["Action"] if isinstance(one["Action"], list) else [one["Action"]]
        if "sqs:SendMessage" in actions:
            places = one["Resource"] if isinstance(one["Resource"], list) else [one["Resource"]]
            sends |= {place["Fn::GetAtt"] for place in places}
        later = later or any(action.startswith("scheduler:") or action == "iam:PassRole" for action in actions)
    assert sends == wanted
    assert later == any(task.sends_later or task.budget is not None for task in tasks)


def test_no_role_lists_the_archive_or_writes_anothers_results() -> None:
    """A condition that a missing prefix satisfies lets everything be listed."""
    for queue in QUEUES:
        for one in statements_of(queue).values():
            text = json.dumps(one)
            if "s3:ListBucket" in text and "ArchiveBucket" in text:
                assert set(one["Condition"]) == {"StringLike"}, one
            if "s3:PutObject" in text and "/results/" in text:
                assert one["Resource"] == {"Fn::Sub": f"${{ArchiveBucket.Arn}}/results/{queue}/*"}


@pytest.mark.parametrize("queue", QUEUES)
def test_only_media_has_reserved_concurrency(queue: str) -> None:
    function = resources("AWS::Serverless::Function")[f"{queue.capitalize()}Function"]["Properties"]
    assert ("ReservedConcurrentExecutions" in function) == (queue == "media")


@pytest.mark.parametrize("rule", resources("AWS::Events::Rule"))
def test_an_event_that_a_rule_cannot_deliver_goes_to_its_queues_dead_letters(rule: str) -> None:
    (target,) = resources("AWS::Events::Rule")[rule]["Properties"]["Targets"]
    queue = target["Arn"]["Fn::GetAtt"].removesuffix("Queue.Arn")
    assert target["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": f"{queue}DeadLetterQueue.Arn"}
    policy = resources("AWS::SQS::QueuePolicy")[f"{queue}QueuePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert {"Fn::GetAtt": f"{queue}DeadLetterQueue.Arn"} in policy["Resource"]
    assert {"Fn::GetAtt": f"{rule}.Arn"} in policy["Condition"]["ArnEquals"]["aws:SourceArn"]


def test_tables_buckets_and_secrets_are_retained_except_after_a_failed_first_deployment() -> None:
    kept = [
        body
        for kind in ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret")
        for body in resources(kind).values()
    ]
    assert len(kept) == 16
    policies = {(body["DeletionPolicy"], body["UpdateReplacePolicy"]) for body in kept}
    assert policies == {("RetainExceptOnCreate", "Retain")}


@pytest.mark.parametrize("queue", resources("AWS::SQS::Queue"))
def test_every_queue_is_encrypted_and_accepts_only_tls(queue: str) -> None:
    assert resources("AWS::SQS::Queue")[queue]["Properties"]["SqsManagedSseEnabled"]["Fn::If"][2] is True
    policies = [body["Properties"] for body in resources("AWS::SQS::QueuePolicy").values()]
    (policy,) = [one for one in policies if {"Ref": queue} in one["Queues"]]
    assert "aws:SecureTransport" in json.dumps(policy)


@pytest.mark.parametrize("queue", QUEUES)
def test_the_allow_list_of_a_queue_is_the_files_of_its_folder(queue: str) -> None:
    """A task's file ends in a handler; other modules of the folder do not."""
    files = {
        path.stem
        for path in (ROOT / "functions" / queue).glob("*.py")
        if path.read_text().rstrip().splitlines()[-1].startswith("handler = ")
    }
    assert files == set(network.served_by(queue)) - {"ping"}, f"functions/{queue}/ and the catalogue differ"


def test_no_two_functions_have_a_module_of_the_same_name() -> None:
    """Each folder is an import root of its own in Lambda, and all of them are in the tests."""
    modules = [path.stem for path in (ROOT / "functions").glob("*/*.py")]
    assert [name for name, times in Counter(modules).items() if times > 1] == []


@pytest.mark.parametrize("task", [t for t in network.tasks().values() if t.queue], ids=lambda task: task.name)
def test_a_task_fits_into_its_function(task: Task[Any, Any], functions: dict[str, Any]) -> None:
    assert task.time_limit < functions[task.queue]["Timeout"]


SCHEDULED = [task for task in network.tasks().values() if task.schedule]


def test_exactly_the_scheduled_tasks_have_a_rule() -> None:
    rules = named("AWS::Events::Rule", "Name")
    scheduled = {name for name, rule in rules.items() if "ScheduleExpression" in rule}
    assert scheduled == {f"{STACK}-{task.name}" for task in SCHEDULED}


@pytest.mark.parametrize("task", SCHEDULED, ids=lambda task: task.name)
def test_a_rule_sends_the_envelope_of_its_task_to_the_tasks_queue(task: Task[Any, Any]) -> None:
    rule = named("AWS::Events::Rule", "Name")[f"{STACK}-{task.name}"]
    assert task.schedule is not None
    assert rule["ScheduleExpression"] == task.schedule.expression

    (target,) = rule["Targets"]
    own = logical("AWS::SQS::Queue", "QueueName", NAMES.queue_name(task.queue))
    assert target["Arn"] == {"Fn::GetAtt": f"{own}.Arn"}
    paths = target["InputTransformer"]["InputPathsMap"]
    text = target["InputTransformer"]["InputTemplate"]
    event = {"id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "time": "2026-11-22T02:00:00Z"}
    for name, path in paths.items():
        text = text.replace(f"<{name}>", json.dumps(event[path.removeprefix("$.")])).replace('""', '"')
    from nexus.envelope import decode

    envelope = decode(text)
    assert (envelope.id, envelope.task, envelope.args) == (event["id"], task.name, {})
    assert envelope.origin == "rule", "the firings of the schedule are found by it"
    task.check(envelope.args)


@pytest.mark.parametrize("task", SCHEDULED, ids=lambda task: task.name)
def test_a_schedule_is_a_parameter_that_an_environment_may_set(task: Task[Any, Any]) -> None:
    assert task.schedule is not None
    parameter = "".join(part.capitalize() for part in task.name.split("_")) + "Schedule"
    own = logical("AWS::Events::Rule", "Name", f"{STACK}-{task.name}")
    rule = resources("AWS::Events::Rule")[own]["Properties"]
    groups = template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    assert rule["ScheduleExpression"] == {"Ref": parameter}
    assert rule["Description"] == task.schedule.meaning
    assert parameter in [name for group in groups for name in group["Parameters"]]


@pytest.mark.parametrize("queue", sorted({task.queue for task in SCHEDULED}))
def test_a_queue_of_jobs_delivers_one_message_at_a_time(queue: str, functions: dict[str, Any]) -> None:
    """A segment uses its time limit. Those behind it in a batch would have no time left."""
    assert messages(functions[queue])["BatchSize"] == 1


@pytest.mark.parametrize("queue", sorted({task.queue for task in SCHEDULED}))
def test_a_queue_lets_the_rules_of_its_tasks_send(queue: str) -> None:
    """EventBridge does not learn that a queue refused its message, so a rule left out here would fail in silence."""
    own = logical("AWS::SQS::Queue", "QueueName", NAMES.queue_name(queue))
    (policy,) = [
        body["Properties"]
        for body in resources("AWS::SQS::QueuePolicy").values()
        if {"Ref": own} in body["Properties"]["Queues"]
    ]
    rules = [logical("AWS::Events::Rule", "Name", f"{STACK}-{task.name}") for task in SCHEDULED if task.queue == queue]
    senders = [
        statement["Condition"]["ArnEquals"]["aws:SourceArn"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement.get("Sid") == "RulesSend"
    ]

    allowed = {source["Fn::GetAtt"] for sources in senders for source in sources}
    assert [rule for rule in rules if f"{rule}.Arn" not in allowed] == [], f"missing in the policy of {own}"


def test_every_name_that_others_rely_on_is_an_output() -> None:
    wanted = {"UploadBucketName", "MediaBucketName", "ArchiveBucketName"}
    for queue in QUEUES:
        prefix = queue.capitalize()
        wanted |= {f"{prefix}QueueUrl", f"{prefix}DeadLetterQueueUrl", f"{prefix}FunctionName"}
    for table in named("AWS::DynamoDB::Table", "TableName"):
        entity = table.removeprefix(f"{STACK}-")
        wanted.add("".join(part.capitalize() for part in entity.split("-")) + "TableName")
    assert wanted <= set(template()["Outputs"])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_a_function_may_send_to_its_own_queue_any_number_of_times(path: Path) -> None:
    """Otherwise Lambda stops a chain of runs after 16 invocations of one function."""
    written = load(path.read_text())
    usual = written.get("Globals", {}).get("Function", {})
    functions = [one for one in written["Resources"].values() if one["Type"] == "AWS::Serverless::Function"]
    assert {(usual | one["Properties"]).get("RecursiveLoop") for one in functions} <= {"Allow"}


@pytest.mark.parametrize("bucket", ["uploads", "media", "archive"])
def test_buckets_are_private_encrypted_and_tidied(bucket: str) -> None:
    properties = named("AWS::S3::Bucket", "BucketName")[NAMES.bucket(bucket)]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert properties["BucketEncryption"]
    assert properties["LifecycleConfiguration"]["Rules"]


@pytest.mark.parametrize("bucket", ["uploads", "media", "archive"])
def test_an_expired_object_of_a_versioned_bucket_is_deleted_a_day_later(bucket: str) -> None:
    """Expiration leaves the version behind a delete marker: it stays until a rule expires noncurrent versions."""
    properties = named("AWS::S3::Bucket", "BucketName")[NAMES.bucket(bucket)]
    rules = [rule for rule in properties["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in rule]
    assert (bucket == "media") == (rules == [])
    for rule in rules:
        assert "VersioningConfiguration" in properties
        assert rule.get("NoncurrentVersionExpiration") == {"NoncurrentDays": 1}, rule["Id"]


@pytest.mark.parametrize("bucket", ["uploads", "media", "archive"])
def test_no_two_rules_of_a_bucket_do_the_same_under_overlapping_prefixes(bucket: str) -> None:
    """S3 refuses such rules unless they are written with a filter, for which CloudFormation has no property."""
    properties = named("AWS::S3::Bucket", "BucketName")[NAMES.bucket(bucket)]
    rules = properties["LifecycleConfiguration"]["Rules"]
    for one, other in permutations(rules, 2):
        if one.get("Prefix", "").startswith(other.get("Prefix", "")):
            assert not actions(one) & actions(other), f"{one['Id']} and {other['Id']}"


def actions(rule: dict[str, Any]) -> set[str]:
    """What a lifecycle rule does, as S3 compares it."""
    expires = {"ExpirationInDays", "ExpiredObjectDeleteMarker"}
    return {"Expiration" if name in expires else name for name in set(rule) - {"Id", "Status", "Prefix"}}


def test_an_upload_invokes_the_media_function_and_failures_continue_in_its_queue(functions: dict[str, Any]) -> None:
    failed = functions["media"]["EventInvokeConfig"]
    own = logical("AWS::SQS::Queue", "QueueName", NAMES.queue_name("media"))
    assert failed["DestinationConfig"]["OnFailure"] == {"Type": "SQS", "Destination": {"Fn::GetAtt": f"{own}.Arn"}}
    uploads = named("AWS::S3::Bucket", "BucketName")[NAMES.bucket("uploads")]
    (notification,) = uploads["NotificationConfiguration"]["LambdaConfigurations"]
    assert notification["Event"] == "s3:ObjectCreated:*"
    assert {"Name": "prefix", "Value": "uploads/"} in notification["Filter"]["S3Key"]["Rules"]
    (permission,) = resources("AWS::Lambda::Permission").values()
    assert notification["Function"] == permission["Properties"]["FunctionName"] == {"Ref": "MediaFunction.Alias"}


def test_an_upload_that_is_retried_sets_off_no_alarm(functions: dict[str, Any]) -> None:
    """Anyone with an upload form can cause one. As Lambda itself does not retry, it counts each as a dropped event."""
    assert functions["media"]["EventInvokeConfig"]["MaximumRetryAttempts"] == 0
    alarms = resources("AWS::CloudWatch::Alarm").values()
    assert "AsyncEventsDropped" not in {body["Properties"]["MetricName"] for body in alarms}


def test_the_dashboards_metrics_are_those_that_something_emits(monkeypatch: pytest.MonkeyPatch) -> None:
    (dashboard,) = resources("AWS::CloudWatch::Dashboard").values()
    body = json.loads(resolved(dashboard["Properties"])["DashboardBody"])
    alarms = [resolved(one["Properties"]) for one in resources("AWS::CloudWatch::Alarm").values()]
    of_aws = {(one["Namespace"], one["MetricName"], one["Dimensions"][0]["Name"]) for one in alarms}
    of_aws |= {("AWS/Lambda", metric, "FunctionName") for metric, _ in WANTED.values()}
    # What a run's end writes, CloudWatch reads as a metric of each of these names.
    log = MagicMock()
    monkeypatch.setattr(observe, "logger", lambda: log)
    for outcome in ("success", "failure"):
        observe.run_ended(outcome, 1.0)
    written = [call.kwargs["_aws"]["CloudWatchMetrics"][0] for call in log.info.call_args_list]
    own = {(one["Namespace"], metric["Name"]) for one in written for metric in one["Metrics"]}
    by_queue = Counter[str]()
    for widget in body["widgets"]:
        before: list[str] = []
        for metric in widget["properties"]["metrics"]:
            whole = before[: 1 - len(metric)] + metric[1:] if metric[0] == "..." else metric
            before = whole
            namespace, name, dimensions = whole[0], whole[1], dict(zip(whole[2::2], whole[3::2], strict=True))
            if namespace == "nexus":
                assert (namespace, name) in own
                assert list(dimensions) in written[0]["Dimensions"]
                assert dimensions["stack"] == STACK
                by_queue[dimensions["queue"]] += 1
            else:
                ((dimension, value),) = dimensions.items()
                assert (namespace, name, dimension) in of_aws
                by_queue[value.removeprefix(f"{STACK}-").removesuffix("-dead")] += 1
    assert by_queue == dict.fromkeys(QUEUES, len(body["widgets"]))


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws", "ap-southeast-1"), ("aws-us-gov", "us-gov-east-1"), ("aws-cn", "cn-northwest-1")],
)
def test_policies_are_within_iams_limits_with_the_longest_names(partition: str, region: str) -> None:
    """IAM counts a managed policy's characters, up to 6,144, and those of a role's own policies together, up to 10,240,
    without white space."""
    names = {
        "AWS::StackName": "a" * LONGEST_NAME,
        "AWS::Partition": partition,
        "AWS::Region": region,
        "KmsKeyArn": f"arn:{partition}:kms:{region}:{ACCOUNT}:key/mrk-{'1' * 32}",
        "SenderAddress": f"no-reply@{'a' * 55}.example",
    }
    stack = iam.Templates(PATH.read_text(), names)

    def size(document: Any) -> int:
        text = json.dumps(stack.value(document), separators=(",", ":"))
        text = text.replace(f":{REGION}:", f":{region}:").replace("arn:aws:", f"arn:{partition}:")
        return len(re.sub(r"\s", "", text))

    managed = {
        name: size(body["Properties"]["PolicyDocument"]) for name, body in resources("AWS::IAM::ManagedPolicy").items()
    }
    own = {
        name: sum(size(policy["PolicyDocument"]) for policy in body["Properties"].get("Policies", ()))
        for name, body in resources("AWS::IAM::Role").items()
    }
    assert managed["ApplicationPolicy"] > 5_000
    assert {name: characters for name, characters in managed.items() if characters > 6_144} == {}
    assert {name: characters for name, characters in own.items() if characters > 10_240} == {}
