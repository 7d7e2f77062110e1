"""Runs ministack with hooks: six add AWS features that it lacks, three make it faster, two serve the tests.

    .venv-cloud/bin/python dev/emulator.py

A function that dies logs the reason as Lambda does; an asynchronous invocation through an alias uses the alias's
configuration; IAM policies can restrict the attributes of a DynamoDB write; a schedule's input contains its scheduled
time; an event's id has any digit where a UUID has its version; and a change set with the deployment mode REVERT_DRIFT
restores what was deleted or changed by hand.
NEXUS_CLOUD_SANDBOXES limits the number of concurrent sandboxes, a query over a time range parses its condition once,
not for each item, and schedules fire within a second. With NEXUS_REQUESTS, sandboxes write their requests to that file;
with NEXUS_COVERAGE they record the lines that they execute. The hooks need a pinned version (requirements/cloud.txt);
startup fails if a hook does not find its target. This runs in the local cloud's own environment and imports nothing
from this project.
"""

import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from ministack import app
from ministack.core import iam_actions, lambda_runtime
from ministack.services import cloudwatch, dynamodb, eventbridge, iam, lambda_svc, s3, scheduler, sqs
from ministack.services.cloudformation import _change_sets, _stacks, changesets, drift, handlers, provisioners, stacks

# --- log lines of a dying function ------------------------------------------------------------------------------------

INIT_ANSWER = '{"status": "error", "error": str(e)}'
NAMED_INIT_ANSWER = '{"status": "error", "error": type(e).__name__ + ": " + str(e)}'
INIT_FAILED = "Worker init failed: "


def write_what_kills_functions() -> None:
    """Writes Lambda's log lines for a failed import, a missing handler, an exception and a killed sandbox."""
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(INIT_ANSWER) != 1:
        raise RuntimeError("ministack's worker does not report a failed import as expected")
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(INIT_ANSWER, NAMED_INIT_ANSWER)
    execute = lambda_svc._execute_function_warm

    def execute_and_write(func: Any, event: Any, request_id: str) -> dict[str, Any]:
        result: dict[str, Any] = execute(func, event, request_id)
        if "[Errno 2]" in (message := _message(result)) and "ministack-lambda-" in message:
            # The function was changed while its sandbox was created: the folder was deleted with the old code.
            result = execute(func, event, request_id)
        if result.get("error"):
            line = last_words(result, (func.get("config") or func).get("Handler", ""), request_id)
            result["log"] = "\n".join(part for part in (result.get("log", ""), line) if part)
        return result

    lambda_svc._execute_function_warm = execute_and_write


def _message(result: Mapping[str, Any]) -> str:
    """An invocation's error; empty if it has none."""
    body = result.get("body")
    return str(body.get("errorMessage", "")) if result.get("error") and isinstance(body, dict) else ""


def last_words(result: Mapping[str, Any], handler: str, request_id: str) -> str:
    """Lambda's line for what ended an invocation; empty if the log already has it."""
    message = _message(result)
    module, _, name = handler.rpartition(".")
    if message.startswith(INIT_FAILED):
        kind, _, why = message.removeprefix(INIT_FAILED).partition(": ")
        if kind in ("ModuleNotFoundError", "ImportError"):
            return f"[ERROR] Runtime.ImportModuleError: Unable to import module '{module}': {why}"
        if kind == "AttributeError" and why.endswith(f"has no attribute '{name}'"):
            return f"[ERROR] Runtime.HandlerNotFound: Handler '{name}' missing on module '{module}'"
        return f"[ERROR] {kind}: {why}"
    if "timed out after" in message:
        return ""
    if "process died" in message or "exited immediately" in message:
        return f"RequestId: {request_id} Error: Runtime exited with error: signal: killed Runtime.ExitError"
    raised = re.findall(r"^([\w.]+(?:Error|Exception|Exit|\w*)): ", str(result.get("log", "")), re.MULTILINE)
    return f"[ERROR] {raised[-1] if raised else 'Exception'}: {message}"


# --- queries ----------------------------------------------------------------------------------------------------------

RANGE = re.compile(r"(\w+) = (:\w+) AND (\w+) BETWEEN (:\w+) AND (:\w+)")


def check_ranges_quickly() -> None:
    """Parses a key condition on a number range once. ministack parses it for each item of the partition, so a search of
    a hundred thousand runs would take a minute."""
    evaluate, parsed = dynamodb._evaluate_condition, lru_cache(RANGE.fullmatch)

    def evaluate_range(text: str, item: Any, values: Any, names: Any, slot: str = "ConditionExpression") -> Any:
        found = parsed(text) if slot == "KeyConditionExpression" else None
        if found is None or any("N" not in values.get(found[n], {}) for n in (4, 5)):
            return evaluate(text, item, values, names, slot)
        key, wanted, sort, low, high = found.groups()
        if item.get(key) != values[wanted] or "N" not in item.get(sort, {}):
            return False
        return Decimal(values[low]["N"]) <= Decimal(item[sort]["N"]) <= Decimal(values[high]["N"])

    dynamodb._evaluate_condition = evaluate_range


# --- a limit on sandboxes ---------------------------------------------------------------------------------------------

FOR_QUEUES = 4
"""Sandboxes that asynchronous invocations leave to queues and synchronous callers."""

_asynchronous: ContextVar[bool] = ContextVar("asynchronous", default=False)


def bound_sandboxes(most: int) -> None:
    """Limits concurrent sandboxes, each of which unpacks its function's code; invocations wait for a free one.

    AWS throttles above a thousand, and a throttled asynchronous invocation waits in Lambda's own queue for up to hours.
    ministack would count it as a failure, so no invocation is throttled here.
    """
    free, free_for_events = threading.BoundedSemaphore(most), threading.BoundedSemaphore(max(1, most - FOR_QUEUES))
    there: set[Any] = set()  # sandboxes with a folder, including those being killed
    changed = threading.Condition()
    execute, invoke = lambda_svc._execute_function_warm, lambda_svc.invoke_async_with_retry
    acquire, release = lambda_svc.acquire_worker, lambda_svc.release_worker
    discard = lambda_runtime.Worker._discard_tmpdir

    def execute_in_turn(func: Any, event: Any, request_id: str) -> dict[str, Any]:
        with free_for_events if _asynchronous.get() else nullcontext(), free:
            result: dict[str, Any] = execute(func, event, request_id)
        return result

    def acquire_and_make_room(*given: Any, **named: Any) -> Any:
        with changed:
            worker, how = acquire(*given, **named)
            if how == "spawn":
                there.add(worker)
                while len(there) > most:
                    if idle := _longest_idle():
                        lambda_runtime.kill_workers([idle])
                    else:
                        changed.wait(1.0)  # for those that another thread is killing
        return worker, how

    def release_and_end(worker: Any) -> None:
        release(worker)
        with lambda_runtime._lock:
            pooled = worker is None or any(worker in pool for pool in lambda_runtime._workers.values())
        if not pooled:  # its function was changed or deleted meanwhile, and nothing else would end it
            lambda_runtime.kill_workers([worker])

    def discard_and_note(worker: Any) -> None:
        discard(worker)
        with changed:
            there.discard(worker)
            changed.notify_all()

    def invoke_as_event(func: Any, event: Any) -> None:
        token = _asynchronous.set(True)  # the thread that invokes it starts with a copy of this context
        try:
            invoke(func, event)
        finally:
            _asynchronous.reset(token)

    lambda_svc._execute_function_warm = execute_in_turn
    lambda_svc.acquire_worker = acquire_and_make_room
    lambda_svc.release_worker = release_and_end
    lambda_runtime.Worker._discard_tmpdir = discard_and_note
    lambda_svc.invoke_async_with_retry = invoke_as_event


def _longest_idle() -> Any:
    """Takes the sandbox that has been idle longest out of its pool; None if all are busy."""
    with lambda_runtime._lock:
        pools = lambda_runtime._workers
        idle = [(worker.last_used, key, worker) for key, pool in pools.items() for worker in pool if not worker.in_use]
        if not idle:
            return None
        _, key, worker = min(idle, key=lambda one: one[0])
        pools[key].remove(worker)
        return worker


# --- the sandboxes' requests ------------------------------------------------------------------------------------------


RECORDER = Path(__file__).with_name("recorder.py")
IMPORTS = "    try:\n        mod = importlib.import_module(module_name)\n"


def record_requests() -> None:
    """Makes every sandbox record its AWS requests (dev/recorder.py), if a variable names a file for them."""
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(IMPORTS) != 1:
        raise RuntimeError("ministack's worker does not import its function as expected")
    recorder = f"    exec(compile({RECORDER.read_text()!r}, 'recorder.py', 'exec'), {{'__name__': 'recorder'}})\n"
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(IMPORTS, recorder + IMPORTS)


# --- the lines that sandboxes execute ---------------------------------------------------------------------------------

MEASURE = Path(__file__).with_name("measure.py")
NEXT_EVENT = "    while True:\n        line = sys.stdin.readline()\n"


def measure_lines() -> None:
    """Makes every sandbox record the lines that it executes (dev/measure.py), and save them after each event."""
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(IMPORTS) != 1 or script.count(NEXT_EVENT) != 1:
        raise RuntimeError("ministack's worker does not import its function or wait for events as expected")
    begin = f"    measure = {{}}\n    exec(compile({MEASURE.read_text()!r}, 'measure.py', 'exec'), measure)\n"
    begin += "    save_lines = measure['start']()\n"
    script = script.replace(IMPORTS, begin + IMPORTS)
    save = NEXT_EVENT.replace("        line", "        save_lines()\n        line")
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(NEXT_EVENT, save)


# --- asynchronous invocations through an alias ------------------------------------------------------------------------


def follow_the_aliases_configuration() -> None:
    """Applies an alias's retries and on-failure destination, and its function's reserved concurrency; ministack reads
    only those of $LATEST. At a concurrency of 0, Lambda sends the event to the destination at once; ministack loses it.
    """
    invoke = lambda_svc.invoke_async_with_retry

    def invoke_by_alias(func: Any, event: Any) -> None:
        config = func.get("config") or func
        whole = lambda_svc._functions.get(config["FunctionName"]) or {"aliases": {}}
        aliases = [name for name, alias in whole["aliases"].items() if alias["FunctionVersion"] == config["Version"]]
        configured = [found for name in aliases if (found := lambda_svc._event_invoke_config(whole, name))]
        with_settings = {**func, "event_invoke_config": configured[0]} if configured else func
        if whole.get("concurrency") == 0:
            never = {**with_settings.get("event_invoke_config", {}), "MaximumRetryAttempts": 0}
            with_settings = {**with_settings, "concurrency": 0, "event_invoke_config": never}
        invoke(with_settings, event)

    lambda_svc.invoke_async_with_retry = invoke_by_alias


# --- the attributes of a DynamoDB write -------------------------------------------------------------------------------

_PATH = re.compile(r"(?<![:\w#.])(#?[A-Za-z_]\w*)(?:\.#?\w+|\[\d+\])*(?!\w*\s*\()")
_WORDS = frozenset({"SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "BETWEEN", "IN"})


def name_the_attributes_of_writes() -> None:
    """Sets the condition keys dynamodb:Attributes and dynamodb:ReturnValues for writes, as ministack does for reads."""
    context = iam_actions.dynamodb_service_context

    def context_of_writes(body: bytes) -> dict[str, Any]:
        found: dict[str, Any] = context(body)
        data = json.loads(body or b"{}")
        if attributes := written_attributes(data):
            found["dynamodb:Attributes"] = sorted({*found.get("dynamodb:Attributes", ()), *attributes})
        if "ReturnValues" in data:
            found["dynamodb:ReturnValues"] = data["ReturnValues"]
        return found

    iam_actions.dynamodb_service_context = context_of_writes


def written_attributes(data: Mapping[str, Any]) -> set[str]:
    """The top-level attributes that a request names in its key, its item and its expressions."""
    names = data.get("ExpressionAttributeNames", {})
    text = " ".join(
        data.get(field, "") for field in ("UpdateExpression", "ConditionExpression", "KeyConditionExpression")
    )
    heads = {head for head in _PATH.findall(text) if head.upper() not in _WORDS}
    return {names.get(head, head) for head in heads} | set(data.get("Key", ())) | set(data.get("Item", ()))


# --- a schedule's context attribute -----------------------------------------------------------------------------------

SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"


def name_the_scheduled_time() -> None:
    """Replaces Scheduler's context attribute in a target's input with the time; ministack passes the name on."""
    invoke = eventbridge._invoke_target

    def invoke_at(target: Any, event: Any, rule: Any, *rest: Any) -> Any:
        if event.get("Source") == "aws.scheduler" and SCHEDULED_TIME in target.get("Input", ""):
            at = scheduler._at_time_epoch(rule.get("ScheduleExpression", "")) or event["Time"]
            named = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            target = {**target, "Input": target["Input"].replace(SCHEDULED_TIME, named)}
        return invoke(target, event, rule, *rest)

    eventbridge._invoke_target = invoke_at


def give_events_ids_of_any_version() -> None:
    """Gives events ids as EventBridge's: of a UUID's form, but with any digit as the version."""
    if not hasattr(eventbridge, "new_uuid"):
        raise RuntimeError("ministack has no eventbridge.new_uuid")
    eventbridge.new_uuid = lambda: str(uuid.UUID(bytes=os.urandom(16)))


TICK = 1.0
"""Seconds between two checks for due schedules and rules; ministack waits ten."""


def fire_schedules_promptly() -> None:
    """Fires schedules and scheduled rules within a second of their time."""
    for service, name in ((scheduler, "_SCHEDULE_TICK_INTERVAL"), (eventbridge, "_SCHEDULER_TICK_INTERVAL")):
        if not hasattr(service, name):
            raise RuntimeError(f"ministack has no {name}")
        setattr(service, name, TICK)


# --- detecting and reverting drift ------------------------------------------------------------------------------------


def _event_source(physical_id: str, _: Any) -> Any:
    found = lambda_svc._esms.get(physical_id)
    return found and {
        name: found[name] for name in ("BatchSize", "FunctionResponseTypes", "ScalingConfig") if name in found
    }


def _rule(physical_id: str, props: Any) -> Any:
    key = eventbridge._rule_key(physical_id, provisioners._eb_rule_bus_name(props))
    found = eventbridge._rules.get(key)
    if found is None:
        return None
    wanted = {target["Id"]: target for target in props.get("Targets", [])}
    there = {target["Id"]: target["Arn"] for target in eventbridge._targets.get(key, [])}
    return {
        "ScheduleExpression": found.get("ScheduleExpression", ""),
        "Targets": [wanted[name] for name, arn in there.items() if name in wanted and wanted[name]["Arn"] == arn],
    }


def _queue_policy(_: str, props: Any) -> Any:
    queues = [sqs._queues.get(url) for url in props.get("Queues", [])]
    policies = [queue["attributes"].get("Policy") for queue in queues if queue]
    return {"PolicyDocument": json.loads(policies[0])} if policies and all(policies) else None


def _role(physical_id: str, props: Any) -> Any:
    found = iam._roles.get(physical_id)
    if found is None:
        return None
    inline = found.get("InlinePolicies", {})
    named = [policy["PolicyName"] for policy in props.get("Policies", [])]
    return {
        "AssumeRolePolicyDocument": drift._json_or(found.get("AssumeRolePolicyDocument")),
        "ManagedPolicyArns": [arn for arn in props.get("ManagedPolicyArns", []) if arn in found["AttachedPolicies"]],
        "Policies": [
            {"PolicyName": name, "PolicyDocument": drift._json_or(inline[name])} for name in named if name in inline
        ],
    }


def _bucket(physical_id: str, props: Any) -> Any:
    found = drift._read_s3_bucket(physical_id, props)
    if found is not None and "NotificationConfiguration" in props:
        there = physical_id in s3._bucket_notifications and b"Configuration>" in _bytes(
            s3._bucket_notifications[physical_id]
        )
        found["NotificationConfiguration"] = props["NotificationConfiguration"] if there else {}
    return found


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, default=str).encode()


def _function(physical_id: str, props: Any) -> Any:
    found = drift._read_lambda_function(physical_id, props)
    if found is not None:
        config = lambda_svc._functions[physical_id]["config"]
        found["Layers"] = [one["Arn"] if isinstance(one, dict) else one for one in config.get("Layers", [])]
    return found


def _alias(_: str, props: Any) -> Any:
    function, *_rest = provisioners._lambda_function_for_cfn_ref(props.get("FunctionName", ""))
    found = function["aliases"].get(props.get("Name")) if function else None
    return found and {"FunctionVersion": found["FunctionVersion"]}


def _permission(physical_id: str, props: Any) -> Any:
    function, *_ = provisioners._lambda_function_for_cfn_ref(props.get("FunctionName", ""))
    statements = function["policy"]["Statement"] if function else []
    return {} if any(statement.get("Sid") == physical_id for statement in statements) else None


def _there(store: Callable[[], Any]) -> Callable[[str, Any], Any]:
    return lambda physical_id, _: {} if physical_id in store() else None


def _readers() -> Mapping[str, tuple[Callable[[str, Any], Any], frozenset[str]]]:
    """Resource types that ministack's drift detection lacks: for each a reader, and the properties it reads."""
    return {
        "AWS::Lambda::EventSourceMapping": (
            _event_source,
            frozenset({"BatchSize", "FunctionResponseTypes", "ScalingConfig"}),
        ),
        "AWS::Events::Rule": (_rule, frozenset({"ScheduleExpression", "Targets"})),
        "AWS::SQS::QueuePolicy": (_queue_policy, frozenset({"PolicyDocument"})),
        "AWS::IAM::Role": (_role, frozenset({"AssumeRolePolicyDocument", "ManagedPolicyArns", "Policies"})),
        "AWS::Lambda::Function": (
            _function,
            drift._DRIFT_READERS["AWS::Lambda::Function"][1] | {"Layers"},
        ),
        "AWS::Lambda::Alias": (_alias, frozenset({"FunctionVersion"})),
        "AWS::Lambda::Permission": (_permission, frozenset()),
        "AWS::IAM::ManagedPolicy": (_there(lambda: iam._policies), frozenset()),
        "AWS::S3::Bucket": (
            _bucket,
            frozenset({"BucketName", "VersioningConfiguration", "NotificationConfiguration"}),
        ),
        "AWS::CloudWatch::Alarm": (_there(lambda: cloudwatch._alarms), frozenset()),
        "AWS::Scheduler::ScheduleGroup": (_there(lambda: scheduler._schedule_groups), frozenset()),
    }


_reverting: dict[str, dict[str, Any]] = {}
"""The drift of each resource that an executing change set reverts, by stack."""


def _drifted(stack: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, record in stack.get("_resources", {}).items():
        if drift.supports_drift(record.get("ResourceType", "")):
            state = drift.detect_resource_drift(stack, name, record, "")
            if state["StackResourceDriftStatus"] in ("DELETED", "MODIFIED"):
                found[name] = state
    return found


def put_drift_back() -> None:
    """Implements the deployment mode REVERT_DRIFT of CreateChangeSet."""
    drift._DRIFT_READERS.update(_readers())
    create, execute, update = changesets._create_change_set, changesets._execute_change_set, stacks._update_resource

    def create_change_set(params: Any) -> Any:
        response = create(params)
        if changesets._p(params, "DeploymentMode") != "REVERT_DRIFT":
            return response
        made = next(
            (one for one in _change_sets.values() if one["ChangeSetName"] == changesets._p(params, "ChangeSetName")),
            None,
        )
        if made is not None and (drifted := _drifted(_stacks[made["StackName"]])):
            made |= {"Status": "CREATE_COMPLETE", "ExecutionStatus": "AVAILABLE", "StatusReason": ""}
            made["_drifted"] = drifted
            made["Changes"] = [
                {
                    "Type": "Resource",
                    "ResourceChange": {
                        "Action": "Add" if state["StackResourceDriftStatus"] == "DELETED" else "Modify",
                        "LogicalResourceId": name,
                        "PhysicalResourceId": state["PhysicalResourceId"],
                        "ResourceType": state["ResourceType"],
                    },
                }
                for name, state in drifted.items()
            ]
        return response

    def execute_change_set(params: Any) -> Any:
        _, found = changesets._find_change_set(
            changesets._p(params, "ChangeSetName"), changesets._p(params, "StackName")
        )
        if found:
            _reverting[found["StackName"]] = found.get("_drifted", {})
        return execute(params)

    def update_resource(*given: Any) -> Any:
        kind, physical_id, old, new, stack, name, _ = given
        state = _reverting.get(stack, {}).pop(name, None)
        if state is None:
            return update(*given)
        if state["StackResourceDriftStatus"] == "DELETED":
            made, attributes = provisioners._provision_resource(kind, name, new, stack)
            # A queue policy's id is generated. With a new id, deleting the old one would remove the policy again.
            return physical_id if kind == "AWS::SQS::QueuePolicy" else made, attributes
        # Drifted properties are treated as if the stack had not set them yet.
        changed = {one["PropertyPath"].split("/")[1] for one in state["PropertyDifferences"]}
        handler = provisioners._RESOURCE_HANDLERS[kind]
        which = (name,) if handler.get("update_with_logical_id") else ()
        before = {key: value for key, value in old.items() if key not in changed}
        return handler["update"](physical_id, before, new, stack, *which)

    hooks = {"CreateChangeSet": create_change_set, "ExecuteChangeSet": execute_change_set}
    found = [
        table
        for table in vars(handlers).values()
        if isinstance(table, dict)
        and table.get("CreateChangeSet") is create
        and table.get("ExecuteChangeSet") is execute
    ]
    if len(found) != 1:
        raise RuntimeError("ministack does not dispatch change sets as expected")
    found[0].update(hooks)
    stacks._update_resource = update_resource


if __name__ == "__main__":
    write_what_kills_functions()
    follow_the_aliases_configuration()
    name_the_attributes_of_writes()
    bound_sandboxes(int(os.environ.pop("NEXUS_CLOUD_SANDBOXES")))
    name_the_scheduled_time()
    give_events_ids_of_any_version()
    fire_schedules_promptly()
    check_ranges_quickly()
    if os.environ.get("NEXUS_REQUESTS"):
        record_requests()
    if os.environ.get("NEXUS_COVERAGE"):
        measure_lines()
    put_drift_back()
    app.main()
