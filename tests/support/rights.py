"""Checks every AWS request made in a test against the role it would run under on AWS.

In the tests' own process the caller is found on the stack. Code of functions/<queue> and a queue's worker run under
that queue's role, what a web application imports under ApplicationPolicy. Requests of a test or an operator's command
belong to no role. Sandboxes of the local cloud write their requests to a file (dev/recorder.py). Rights are named as
in AWS's Service Authorization Reference.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from botocore import signers

from dev import recorder
from nexus.settings import settings
from tests.support import iam
from tests.support.iam import QUEUES, Request
from tests.support.template import ACCOUNT, REGION, STACK

ROOT = str(Path(__file__).parents[2])
APPLICATION = "application"


# --- the rights a request needs -----------------------------------------------------------------------------------


def requests(service: str, operation: str, asked: Mapping[str, Any], error: str = "") -> list[Request]:
    """The rights that a request needs; `error` is the code with which it was refused."""
    match service:
        case "dynamodb":
            return list(_dynamodb(operation, asked))
        case "sqs":
            name = asked["QueueName"] if operation == "GetQueueUrl" else asked["QueueUrl"].rsplit("/", 1)[-1]
            return [Request(f"sqs:{operation.removesuffix('Batch')}", _arn("sqs", name))]
        case "s3":
            return list(_s3(operation, asked, error))
        case "sesv2" if operation == "GetAccount":
            return [Request("ses:GetAccount", "*")]
        case "sesv2" if operation == "SendEmail":
            return list(_mail(asked))
        case "scheduler" if operation == "ListSchedules":
            return [Request("scheduler:ListSchedules", "*")]
        case "scheduler" if operation in ("CreateSchedule", "UpdateSchedule", "GetSchedule", "DeleteSchedule"):
            return list(_schedule(operation, asked))
        case "secretsmanager" if operation == "GetSecretValue":
            context = {"secretsmanager:VersionStage": asked.get("VersionStage", "AWSCURRENT")}
            # Secrets Manager adds six letters of its own to a secret's ARN.
            return [
                Request(
                    "secretsmanager:GetSecretValue",
                    _arn("secretsmanager", f"secret:{asked['SecretId']}-AbC123"),
                    context,
                )
            ]
    raise AssertionError(f"no test knows which rights {service} {operation} takes")


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


_PARTIQL = re.compile(r'^(INSERT|UPDATE|DELETE|SELECT).*?"([^"]+)"(?:\."([^"]+)")?', re.DOTALL)
_NAME = re.compile(r"(?<![#:\w])[A-Za-z_]\w*")
_WORDS = frozenset(
    {"SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "BETWEEN", "IN"}
    | {"attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size"}
    | {"if_not_exists", "list_append"}
)
_EXPRESSIONS = (
    "UpdateExpression",
    "ConditionExpression",
    "ProjectionExpression",
    "FilterExpression",
    "KeyConditionExpression",
)


def _dynamodb(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    """The parts of a transaction need the rights of their operations, a PartiQL statement that of its verb, a batch its
    own."""
    match operation:
        case "BatchGetItem" | "BatchWriteItem":
            for name in asked["RequestItems"]:
                yield Request(f"dynamodb:{operation}", _arn("dynamodb", f"table/{name}"))
        case "ExecuteStatement" | "BatchExecuteStatement":
            for one in asked.get("Statements", [asked]):
                found = _PARTIQL.match(one["Statement"])
                assert found, one
                index = f"/index/{found[3]}" if found[3] else ""
                names = frozenset(re.findall(r"[\"']([\w-]+)[\"']", one["Statement"])) - {found[2], found[3]}
                context = {"dynamodb:Attributes": sorted(names)}
                yield Request(
                    f"dynamodb:PartiQL{found[1].capitalize()}", _arn("dynamodb", f"table/{found[2]}{index}"), context
                )
        case "TransactWriteItems" | "TransactGetItems":
            for action in asked["TransactItems"]:
                ((kind, one),) = action.items()
                name = "ConditionCheckItem" if kind == "ConditionCheck" else f"{kind}Item"
                yield from _dynamodb(name, one)
        case (
            "DescribeTable"
            | "Query"
            | "Scan"
            | "GetItem"
            | "PutItem"
            | "UpdateItem"
            | "DeleteItem"
            | "ConditionCheckItem"
        ):
            index = f"/index/{asked['IndexName']}" if "IndexName" in asked else ""
            context = {
                "dynamodb:Attributes": sorted(_attributes(asked)),
                "dynamodb:ReturnValues": asked.get("ReturnValues", "NONE"),
            }
            yield Request(f"dynamodb:{operation}", _arn("dynamodb", f"table/{asked['TableName']}{index}"), context)
        case _:
            raise AssertionError(f"no test knows which rights dynamodb {operation} takes")


def _attributes(asked: Mapping[str, Any]) -> set[str]:
    """The top-level attributes that a request names: of its key, its item and its expressions."""
    names = (
        set(asked.get("Key", ())) | set(asked.get("Item", ())) | set(asked.get("ExpressionAttributeNames", {}).values())
    )
    for expression in _EXPRESSIONS:
        names |= set(_NAME.findall(asked.get(expression, ""))) - _WORDS
    return names


def _s3(operation: str, asked: Mapping[str, Any], error: str) -> Iterator[Request]:
    bucket = f"arn:aws:s3:::{asked['Bucket']}"
    version = "Version" if asked.get("VersionId") else ""
    match operation:
        case "GetObject" | "HeadObject":
            yield Request(f"s3:GetObject{version}", f"{bucket}/{asked['Key']}")
            # Without ListBucket, S3 denies a missing key: every reader treats both alike (nexus.aws.sdk.is_no_object).
        case "PutObject":
            yield Request("s3:PutObject", f"{bucket}/{asked['Key']}")
        case "DeleteObject":
            yield Request(f"s3:DeleteObject{version}", f"{bucket}/{asked['Key']}")
        case "CopyObject":
            source = asked["CopySource"]
            if isinstance(source, str):
                name, _, key = source.partition("/")
                source = {"Bucket": name, "Key": key}
            yield from _s3("GetObject", source, error)
            yield Request("s3:PutObject", f"{bucket}/{asked['Key']}")
        case "DeleteObjects":
            for one in asked["Delete"]["Objects"]:
                yield from _s3("DeleteObject", {"Bucket": asked["Bucket"], **one}, error)
        case "ListObjectVersions":
            yield Request("s3:ListBucketVersions", bucket, {"s3:prefix": asked["Prefix"]} if "Prefix" in asked else {})
        case "ListObjectsV2":
            context = {"s3:prefix": asked["Prefix"]} if "Prefix" in asked else {}
            yield Request("s3:ListBucket", bucket, context)
        case _:
            raise AssertionError(f"no test knows which rights s3 {operation} takes")


def _mail(asked: Mapping[str, Any]) -> Iterator[Request]:
    """A mail needs the right on the sender's identity and on the configuration set."""
    sender = asked["FromEmailAddress"]
    address = found[1] if (found := re.search(r"<([^<>]+)>\s*$", sender)) else sender
    context = {"ses:FromAddress": address, "ses:Recipients": asked["Destination"]["ToAddresses"]}
    yield Request("ses:SendEmail", _arn("ses", f"identity/{address.rpartition('@')[2]}"), context)
    # In SES's sandbox, on the recipient's identity too, which has to be verified there.
    yield Request("ses:SendEmail", _arn("ses", f"identity/{context['ses:Recipients'][0]}"), context)
    if "ConfigurationSetName" in asked:
        yield Request("ses:SendEmail", _arn("ses", f"configuration-set/{asked['ConfigurationSetName']}"), context)


def _schedule(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    yield Request(f"scheduler:{operation}", _arn("scheduler", f"schedule/{asked['GroupName']}/{asked['Name']}"))
    if operation in ("CreateSchedule", "UpdateSchedule"):
        context = {"iam:PassedToService": "scheduler.amazonaws.com"}
        yield Request("iam:PassRole", asked["Target"]["RoleArn"], context)


# --- the caller ---------------------------------------------------------------------------------------------------

_APPLICATIONS = tuple(
    f"{ROOT}/shared/{name}"
    for name in (
        "nexus/client/",
        "nexus/outbox.py",
        "social/application.py",
        "social/uploads.py",
        "social/mail_links.py",
    )
)
_submitted = threading.local()
"""For a pool's thread: the caller that submitted its work."""


def caller(frame: FrameType | None) -> str | None:
    """The principal of a request: a queue, an application, or None if template.yaml grants it no rights."""
    found: str | None = None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(f"{ROOT}/tests/") and name != __file__:
            return found
        if name.startswith(f"{ROOT}/ops/"):
            return None
        if found is None or found == APPLICATION:
            if name.startswith(f"{ROOT}/functions/"):
                found = name.removeprefix(f"{ROOT}/functions/").split("/")[0]
            elif name.endswith("/nexus/worker/entry.py") and frame.f_code.co_name == "serve":
                found = frame.f_locals["queue"]
            elif name.startswith(_APPLICATIONS):
                found = APPLICATION
        frame = frame.f_back
    return getattr(_submitted, "caller", None) if found is None else found


@cache
def statements(principal: str) -> Sequence[Mapping[str, Any]]:
    """The statements that template.yaml grants to a queue's function or an application."""
    return iam.stack().of_policy("ApplicationPolicy") if principal == APPLICATION else iam.role(principal)


# --- the record ---------------------------------------------------------------------------------------------------

type Right = tuple[str, str, str, str]
"""The principal, the statement's Sid, and an action and a resource of the statement, as written there."""


@dataclass
class Rights:
    """The rights that were used, and the requests that AWS would have denied."""

    used: set[Right] = field(default_factory=set)
    denied: list[str] = field(default_factory=list)

    def note(self, principal: str, request: Request) -> None:
        used = _used(principal, request.action, request.resource, json.dumps(request.context))
        if used is None:
            context = f" with {dict(request.context)}" if request.context else ""
            self.denied.append(f"{principal} may not {request}{context}")
        else:
            self.used |= used

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"used": sorted(self.used), "denied": self.denied}, indent=1))

    def load(self, path: Path) -> None:
        """Adds the rights that another process has saved."""
        found = json.loads(path.read_text())
        self.add(Rights({(who, sid, action, on) for who, sid, action, on in found["used"]}, found["denied"]))

    def add(self, other: "Rights") -> None:
        self.used |= other.used
        self.denied += other.denied


@lru_cache(maxsize=10_000)
def _used(principal: str, action: str, resource: str, context: str) -> frozenset[Right] | None:
    """The rights that allow a request, or None if none does. Cached: tests repeat few requests many thousand times."""
    granted, request = statements(principal), Request(action, resource, json.loads(context))
    if not iam.allowed(granted, request):
        return None
    return frozenset(
        (principal, statement["Sid"], allowed, on)
        for statement in granted
        if statement["Effect"] == "Allow" and iam.applies(statement, request)
        for allowed, on in _each(statement)
        if iam.matches(allowed.lower(), action.lower()) and iam.matches(on, resource)
    )


def granted() -> set[Right]:
    """Every right of the template's functions and of its application, one by one."""
    return {
        (principal, statement["Sid"], action, resource)
        for principal in (*QUEUES, APPLICATION)
        for statement in statements(principal)
        for action, resource in _each(statement)
        if "/index/" not in resource or action in _OF_INDEXES
    }


_OF_INDEXES = frozenset({"dynamodb:Query", "dynamodb:Scan", "dynamodb:PartiQLSelect"})
"""The only rights that apply to an index, when a statement names a table and its indexes."""


def _each(statement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    actions, resources = statement["Action"], statement["Resource"]
    for action in actions if isinstance(actions, list) else [actions]:
        for resource in resources if isinstance(resources, list) else [resources]:
            yield action, resource


type Note = Callable[..., None]
"""Service, operation and parameters of a request, and the code with which it was refused."""


@contextmanager
def watched(rights: Rights) -> Iterator[Note]:
    """Records this process's requests within the block. Yields a function to record one that botocore did not make."""

    def note(service: str, operation: str, asked: Mapping[str, Any], error: str = "") -> None:
        if settings().memory:
            return  # an application test's in-memory backend needs no rights
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(f"{ROOT}/tests/"):
            frame = frame.f_back  # a stand-in that records its requests
        principal = caller(frame)
        if principal is not None and principal in (APPLICATION, *QUEUES):
            for request in requests(service, operation, asked, error):
                rights.note(principal, request)

    submit = ThreadPoolExecutor.submit
    presigned_url, presigned_post = signers.generate_presigned_url, signers.generate_presigned_post

    def submit_as(pool: ThreadPoolExecutor, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        principal = caller(sys._getframe(1))

        def working() -> Any:
            _submitted.caller = principal
            return work(*args, **kwargs)

        return submit(pool, working)

    def url(client: Any, method: str, **asked: Any) -> Any:
        meta = client.meta
        note(meta.service_model.service_name, meta.method_to_api_mapping[method], asked.get("Params", {}))
        return presigned_url(client, method, **asked)

    def post(client: Any, **asked: Any) -> Any:
        note("s3", "PutObject", asked)
        return presigned_post(client, **asked)

    end = recorder.observe(note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "submit", submit_as)
        patch.setattr(signers, "generate_presigned_url", url)
        patch.setattr(signers, "generate_presigned_post", post)
        try:
            yield note
        finally:
            end()


def of_sandboxes(path: Path, stack: str, account: str) -> Rights:
    """The requests that a stack's functions in the local cloud have written to the file."""
    rights = Rights()
    for line in path.read_text().splitlines():
        function, service, operation, asked, error = json.loads(line.replace(stack, STACK).replace(account, ACCOUNT))
        queue = function.removeprefix(f"{STACK}-")
        if queue in QUEUES and function != queue:
            for request in requests(service, operation, asked, error):
                rights.note(queue, request)
    return rights


# --- in a process of tests ----------------------------------------------------------------------------------------

_asked = Rights()


@contextmanager
def checked() -> Iterator[Note]:
    """Like watched(). Raises AssertionError at the end of the block if AWS would have denied a request."""
    before = len(_asked.denied)
    with watched(_asked) as note:
        yield note
    denied = sorted(set(_asked.denied[before:]))
    assert not denied, "\n".join(["By the roles in template.yaml, AWS would deny:", *denied])


def save(suite: str) -> None:
    """Saves this process's rights to the folder that NEXUS_RIGHTS names, if any."""
    if folder := os.environ.get("NEXUS_RIGHTS"):
        _asked.save(Path(folder) / f"{suite}-{os.getpid()}.json")
