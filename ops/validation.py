"""The deployed stack against template.yaml and the catalogue: what differs, what is missing, and the remedy.

Each check is a function that yields findings; all run concurrently. "failed" stops tasks from running or loses work,
"warning" is something an operator should know, "unchecked" is what a check cannot cover.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nexus.aws.sdk import client as runtime_client
from nexus.settings import settings
from ops import catalogue, configuration, health, template, versions
from ops.aws import Threads, client, in_parallel
from ops.checkout import ROOT
from ops.deployment import Deployment
from ops.health import Finding, Severity
from ops.problems import REPAIR

DRIFT_PATIENCE = 180.0
SENDER_CHECK = "mail may be sent"
BY_HAND = "`nexus repair` undoes a manual change; otherwise:"
DEPLOY = "Deploy it: `make deploy ENV=...`, or `make up` for the local cloud."


@dataclass(frozen=True, slots=True)
class Check:
    """A check by name, and its findings: none means all is well. `detail` says in a line what was checked."""

    name: str
    findings: tuple[Finding, ...]
    detail: str = ""

    @property
    def is_well(self) -> bool:
        return not any(finding.is_wrong for finding in self.findings)


type Finder = Callable[[Deployment], Iterable[Finding]]


def validate(deployment: Deployment, *, drift: bool = True) -> list[Check]:
    """Runs every check. One that lacks a permission reports a warning."""
    checks: list[tuple[str, Finder]] = [
        ("the stack's state", health.of_stack),
        ("the deployed template matches this one", _template),
        ("queues and functions fit together", _queues),
        ("event sources are on, report partial failures and have template.yaml's concurrency", _sources),
        ("schedules send the right task to the right queue", _schedules),
        ("roles have the rights that the runtime needs", _permissions),
        ("uploads reach the function of their task", _uploads),
        ("run records expire", _expiry),
        (SENDER_CHECK, _sender),
    ]
    if drift:
        checks.append(("nothing was changed by hand", _drift))
    with Threads(len(checks)) as pool:
        return list(pool.map(lambda check: checked(check[0], partial(check[1], deployment)), checks))


def checked(name: str, find: Callable[[], Iterable[Finding]]) -> Check:
    """Runs a check. A denied request becomes a finding too."""
    from botocore.exceptions import ClientError

    from ops.problems import ExitCode, Problem, explained

    try:
        return Check(name, tuple(find()))
    except (ClientError, Problem) as error:
        problem = explained(error)
        assert problem is not None
        severity: Severity = (
            "failed" if isinstance(error, ClientError) and problem.code != ExitCode.DENIED else "warning"
        )
        why = f" ({problem.why})" if problem.why else ""
        what = f"could not be checked: {problem.what}{why}"
        return Check(name, (Finding(severity, name, what, problem.do or "`nexus status` shows more."),))


# --- the template ---


def _template(deployment: Deployment) -> Iterator[Finding]:
    deployed = client("cloudformation").get_template(StackName=deployment.stack, TemplateStage="Original")
    body: Any = deployed["TemplateBody"]
    there = body if isinstance(body, Mapping) else template.load(body)
    here = _template_here(deployment)
    if here is None:
        what = "not compared: there is no template.yaml here, or it belongs to another application"
        yield Finding("unchecked", deployment.stack, what, "Run it in the checkout that was deployed.")
        return
    differing = list(template.differences(here, there))
    if differing:
        shown = ", ".join(differing[:8]) + (f" and {len(differing) - 8} more" if len(differing) > 8 else "")
        yield Finding("warning", deployment.stack, f"template.yaml here differs in {shown}", DEPLOY)


def _template_here(deployment: Deployment) -> Mapping[str, Any] | None:
    """template.yaml of the working folder, else of this checkout; None if there is none for this catalogue."""
    path = next((path for path in (Path("template.yaml"), ROOT / "template.yaml") if path.is_file()), None)
    if path is None:
        return None
    here = template.load(path.read_text())
    return (
        here
        if here.get("Outputs", {}).get("Catalogue", {}).get("Value") == deployment.outputs.get("Catalogue")
        else None
    )


def _drift(deployment: Deployment) -> Iterator[Finding]:
    cloudformation = client("cloudformation")
    asked = cloudformation.detect_stack_drift(StackName=deployment.stack)["StackDriftDetectionId"]
    deadline = time.monotonic() + DRIFT_PATIENCE
    while True:
        status = cloudformation.describe_stack_drift_detection_status(StackDriftDetectionId=asked)
        if status["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        if time.monotonic() > deadline:
            yield Finding("warning", deployment.stack, "drift detection takes too long", "Try again, or --no-drift.")
            return
        time.sleep(1.0)
    if status["DetectionStatus"] == "DETECTION_FAILED":
        reason = status.get("DetectionStatusReason", "no reason given")
        yield Finding("warning", deployment.stack, f"drift detection failed for a part ({reason})", "Try again.")
    for drift in _drifts(deployment.stack):
        name = drift["LogicalResourceId"]
        if drift["StackResourceDriftStatus"] == "DELETED":
            yield Finding("failed", name, "it was deleted by hand", REPAIR)
            continue
        changed = [
            f"{d['PropertyPath'].lstrip('/')} is {_cut(d['ActualValue'])} and not {_cut(d['ExpectedValue'])}"
            for d in drift.get("PropertyDifferences", [])
        ]
        do = "`nexus repair` undoes it. To keep it, change template.yaml or samconfig.toml and deploy."
        yield Finding("warning", name, f"it was changed by hand: {'; '.join(changed)}", do)
    resources = [
        resource
        for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=deployment.stack)
        for resource in page["StackResourceSummaries"]
    ]
    if left_out := not_checked(resources):
        do = "CloudFormation compares no resources of these types here; the checks above look at some."
        yield Finding("unchecked", deployment.stack, f"not checked: {left_out}", do)


def _drifts(stack: str) -> Iterator[Any]:
    """The resources that differ from the template, page by page."""
    request: dict[str, Any] = {"StackName": stack, "StackResourceDriftStatusFilters": ["MODIFIED", "DELETED"]}
    while True:
        response = client("cloudformation").describe_stack_resource_drifts(**request)
        yield from response["StackResourceDrifts"]
        if "NextToken" not in response:
            return
        request["NextToken"] = response["NextToken"]


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def not_checked(resources: Iterable[Mapping[str, Any]]) -> str:
    """The resources that drift detection skipped, by type: `12 CloudWatch::Alarm, 1 SNS::Topic`; empty if none."""
    types = Counter(
        resource["ResourceType"].removeprefix("AWS::")
        for resource in resources
        if resource.get("DriftInformation", {}).get("StackResourceDriftStatus") == "NOT_CHECKED"
    )
    return ", ".join(f"{count} {kind}" for kind, count in types.most_common())


# --- queues, functions, event sources ---


def _queues(deployment: Deployment) -> Iterator[Finding]:
    for queue in configuration.of_queues(deployment.queues):
        name = queue.queue
        if queue.visibility_timeout <= queue.timeout:
            what = (
                f"visibility timeout {queue.visibility_timeout} s is not longer than the function's {queue.timeout} s"
            )
            yield Finding(
                "warning",
                name,
                what,
                f"Messages may be redelivered while they run. {BY_HAND} VisibilityTimeout in template.yaml.",
            )
        if queue.time_limit is not None and queue.time_limit > queue.timeout:
            what = f"a task's limit is {queue.time_limit:g} s, but the function's timeout is {queue.timeout} s"
            do = f"{BY_HAND} Timeout in template.yaml, or time_limit in the catalogue."
            yield Finding("failed", name, what, do)
        dead = settings().dead_letter_queue_name(name)
        if not (queue.dead_letters_to or "").endswith(f":{dead}"):
            yield Finding("failed", name, f"it does not redrive to {dead}", REPAIR)
        for variable, wanted in (("NEXUS_QUEUE", name), ("NEXUS_STACK", deployment.stack)):
            if queue.environment.get(variable) != wanted:
                got = queue.environment.get(variable)
                yield Finding("failed", name, f"the function's {variable} is {got!r} and not {wanted!r}", REPAIR)


def _sources(deployment: Deployment) -> Iterator[Finding]:
    here = _template_here(deployment)
    for queue in deployment.queues:
        source = health.event_source(queue)
        if source is None:
            yield Finding("failed", queue, "no event source feeds the function", REPAIR)
            continue
        if source.get("State") not in ("Enabled", "Enabling", "Updating", "Creating"):
            yield Finding("failed", queue, f"the event source is {source.get('State')}", f"`nexus resume {queue}`")
        if "ReportBatchItemFailures" not in source.get("FunctionResponseTypes", []):
            yield Finding("failed", queue, "the event source does not report partial failures", REPAIR)
        if source.get("FilterCriteria", {}).get("Filters"):
            yield Finding(
                "failed", queue, "the event source has a filter: messages that do not match are deleted", REPAIR
            )
        found = source.get("ScalingConfig", {}).get("MaximumConcurrency")
        wanted = None if here is None else template.concurrency(here, queue)
        if wanted is not None and found != wanted:
            do = f"`nexus concurrency {queue} {wanted}` undoes it. To keep it: MaximumConcurrency in template.yaml."
            yield Finding("warning", queue, f"{found or 'no limit'} at once, template.yaml says {wanted}", do)


# --- schedules ---


def _schedules(deployment: Deployment) -> Iterator[Finding]:
    from nexus import cron
    from ops.schedules import parameter

    rules = {rule.task: rule for rule in health.rule_states()}
    tasks = catalogue.tasks()
    for name, task in tasks.items():
        if task.schedule is None:
            continue
        rule = rules.pop(name, None)
        if rule is None:
            yield Finding("failed", name, "its rule is missing", REPAIR)
            continue
        if not rule.on:
            yield Finding("warning", name, "its schedule is off", f"`nexus schedule enable {name}`")
        wanted = deployment.parameters.get(parameter(name))
        if wanted is not None and wanted != rule.expression:
            what = f"its schedule is {rule.expression}, but {wanted} was deployed"
            do = f"`nexus repair` undoes it. To keep it: {parameter(name)} in samconfig.toml, and deploy."
            yield Finding("warning", name, what, do)
        try:
            cron.parse(rule.expression)
        except cron.BadSchedule as error:
            yield Finding("failed", name, str(error), f"`nexus schedule set {name} 'cron(...)'`")
        yield from _targets(name, str(task.queue))
    for name in set(rules) - set(tasks):
        yield Finding("failed", name, "a rule sends a task that the catalogue does not have", DEPLOY)


def _targets(task: str, queue: str) -> Iterator[Finding]:
    targets = client("events").list_targets_by_rule(Rule=f"{settings().stack}-{task}")["Targets"]
    wanted = settings().queue_name(queue)
    to = [target for target in targets if target["Arn"].endswith(f":{wanted}")]
    if not to:
        yield Finding("failed", task, f"its rule does not send to {wanted}", REPAIR)
    elif f'"task":"{task}"' not in to[0].get("InputTransformer", {}).get("InputTemplate", "").replace(" ", ""):
        yield Finding("failed", task, "its rule does not send this task", REPAIR)


# --- rights ---


def _permissions(deployment: Deployment) -> Iterator[Finding]:
    """Checks the rights that the runtime needs of each function's role, with IAM's policy simulator."""
    for findings in in_parallel(lambda queue: list(_rights(deployment, queue)), deployment.queues):
        yield from findings
    yield from _rules_may_send(deployment)


def _rights(deployment: Deployment, queue: str) -> Iterator[Finding]:
    function = versions.configuration(queue)
    where, partition = f"{deployment.region}:{deployment.account_id}", runtime_client("sqs").meta.partition
    own, dead = settings().queue_name(queue), settings().dead_letter_queue_name(queue)
    runs = f"arn:{partition}:dynamodb:{where}:table/{settings().table('task-runs')}"
    receive = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
    needed = (
        (receive, f"arn:{partition}:sqs:{where}:{own}"),
        (["sqs:SendMessage"], f"arn:{partition}:sqs:{where}:{dead}"),
        (["sqs:SendMessage"], f"arn:{partition}:sqs:{where}:{own}"),
        (["dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate"], runs),
        (["logs:PutLogEvents"], f"arn:{partition}:logs:{where}:log-group:/aws/lambda/{own}:log-stream:x"),
    )
    for actions, resource in needed:
        response = client("iam").simulate_principal_policy(
            PolicySourceArn=function["Role"], ActionNames=actions, ResourceArns=[resource]
        )
        denied = [r["EvalActionName"] for r in response["EvaluationResults"] if r["EvalDecision"] != "allowed"]
        if denied:
            yield Finding("failed", queue, f"its role may not {', '.join(denied)} on {resource}", REPAIR)


def _rules_may_send(deployment: Deployment) -> Iterator[Finding]:
    """Checks that queues accept their rules' messages: without that permission a rule fails silently."""
    from nexus.backend.transport import queue_url

    scheduled: dict[str, list[str]] = {}
    for name, task in catalogue.tasks().items():
        if task.schedule:
            scheduled.setdefault(str(task.queue), []).append(name)
    for queue, tasks in scheduled.items():
        response = runtime_client("sqs").get_queue_attributes(
            QueueUrl=queue_url(settings().queue_name(queue)), AttributeNames=["Policy"]
        )
        policy = response.get("Attributes", {}).get("Policy", "{}")
        allowed = json.dumps([s for s in json.loads(policy).get("Statement", []) if s.get("Effect") == "Allow"])
        for scheduled_task in tasks:
            if f"rule/{deployment.stack}-{scheduled_task}" not in allowed:
                yield Finding(
                    "failed", scheduled_task, f"the policy of queue {queue} does not let its rule send", REPAIR
                )


# --- other things the tasks need ---


def _uploads(_: Deployment) -> Iterator[Finding]:
    queue = catalogue.upload_queue()
    if queue is None:
        return
    bucket, function = settings().bucket("uploads"), settings().function_name(queue)
    configured = runtime_client("s3").get_bucket_notification_configuration(Bucket=bucket)
    targets = [c["LambdaFunctionArn"] for c in configured.get("LambdaFunctionConfigurations", [])]
    if not any(arn.endswith(f":{versions.alias(queue)}") for arn in targets):
        yield Finding("failed", bucket, f"its uploads do not invoke {versions.alias(queue)}", REPAIR)
    lambda_ = client("lambda")
    try:
        policy = lambda_.get_policy(FunctionName=function, Qualifier=versions.ALIAS)["Policy"]
    except lambda_.exceptions.ResourceNotFoundException:
        policy = ""
    if "s3.amazonaws.com" not in policy:
        yield Finding("failed", function, "S3 may not invoke it", REPAIR)
    reserved = lambda_.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions")
    if reserved == 0:
        what = "its reserved concurrency is 0: uploads go to the queue and wait there"
        yield Finding("failed", function, what, f"`nexus resume {queue}`")


def _expiry(deployment: Deployment) -> Iterator[Finding]:
    table = settings().table("task-runs")
    described = runtime_client("dynamodb").describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    if described.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING") or described.get("AttributeName") != "expires":
        what = "run records are never deleted: TTL on `expires` is off"
        if deployment.stage == "local":
            yield Finding(
                "unchecked", table, what, "Nothing to do: the local cloud has no TTL, and is deleted by `nexus down`."
            )
        else:
            yield Finding("failed", table, what, REPAIR)


def _unless_local(deployment: Deployment) -> Severity:
    """The severity of something that the emulator lacks: not a fault there."""
    return "unchecked" if deployment.stage == "local" else "failed"


def _sender(deployment: Deployment) -> Iterator[Finding]:
    address = deployment.parameters.get("SenderAddress")
    if address is None:
        return
    ses = runtime_client("sesv2")

    def is_verified(identity: str) -> bool:
        try:
            return bool(ses.get_email_identity(EmailIdentity=identity).get("VerifiedForSendingStatus"))
        except ses.exceptions.NotFoundException:
            return False

    # The digest's default is that of template.yaml. The emulator accepts any sender.
    digest = deployment.parameters.get("DigestSenderAddress") or f"digest@{address.rpartition('@')[2]}"
    for sender in dict.fromkeys((address, digest)):
        if not any(map(is_verified, _identities(sender))):
            do = f"`aws sesv2 create-email-identity --email-identity {sender}`, then follow the link in the mail."
            yield Finding(_unless_local(deployment), "emails", f"SES has not verified the sender {sender}", do)
    account = ses.get_account()
    if not account.get("ProductionAccessEnabled", True) and deployment.is_prod:
        do = "`aws sesv2 put-account-details --production-access-enabled ...` asks AWS to end the sandbox."
        yield Finding("failed", "emails", "SES is in the sandbox: mail reaches only verified addresses", do)
    if not account.get("SendingEnabled", True):
        yield Finding("failed", "emails", "SES has stopped sending for this account", "The SES console shows why.")


def _identities(address: str) -> Iterator[str]:
    """The identities of which SES requires one: the address, its domain, or a domain above that."""
    yield address
    labels = address.rpartition("@")[2].split(".")
    yield from (".".join(labels[n:]) for n in range(len(labels) - 1))
