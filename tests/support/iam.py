"""Evaluates IAM policies without AWS: whether a role's policies in template.yaml allow a request.

Follows AWS's documentation of identity-based policies: a request is allowed if a statement allows it and none denies
it.
A statement applies when its actions, its resources and all of its conditions match. Only conditions that the
templates use are supported; any other is an error.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ops.template import load
from tests.support.template import ACCOUNT, PATH, PSEUDO, REGION, resources, template

ARNS = {
    "AWS::SQS::Queue": ("QueueName", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{}}"),
    "AWS::DynamoDB::Table": ("TableName", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{}}"),
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{}"),
    "AWS::Logs::LogGroup": ("LogGroupName", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{}}:*"),
    "AWS::IAM::Role": ("RoleName", f"arn:aws:iam::{ACCOUNT}:role/{{}}"),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName", f"arn:aws:iam::{ACCOUNT}:policy/{{}}"),
}
"""The ARN of a resource that GetAtt or Ref names, by the property that holds its physical name."""


@dataclass(frozen=True, slots=True)
class Request:
    """One action on one resource: `sqs:SendMessage` on an ARN, with condition keys in `context`."""

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}"


class Templates:
    """A template's policies, with references resolved to names."""

    def __init__(self, text: str, parameters: Mapping[str, str]) -> None:
        self.body = load(text)
        defaults = {name: body.get("Default", "") for name, body in self.body.get("Parameters", {}).items()}
        self.known: dict[str, Any] = {**defaults, **PSEUDO, **parameters}

    def holds(self, condition: str) -> bool:
        """Whether a template condition holds with these parameters."""
        return bool(self.value(self.body["Conditions"][condition]))

    def value(self, value: Any) -> Any:  # noqa: C901 - one case an intrinsic function
        """A value with every reference resolved."""
        match value:
            case {"Ref": "AWS::NoValue"}:
                return None
            case {"Ref": name}:
                return self.known[name] if name in self.known else self._arn(name)
            case {"Fn::GetAtt": str(path)}:
                return self._arn(path.removesuffix(".Arn"))
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([\w:.]+)\}", lambda found: self._put_in(found[1]), text)
            case {"Fn::Sub": [str(text), dict(own)]}:
                return re.sub(
                    r"\$\{([\w:.]+)\}",
                    lambda found: str(self.value(own[found[1]])) if found[1] in own else self._put_in(found[1]),
                    text,
                )
            case {"Fn::Select": [index, values]}:
                return self.value(values)[int(index)]
            case {"Fn::Split": [str(separator), text]}:
                return str(self.value(text)).split(separator)
            case {"Fn::If": [str(condition), then, otherwise]}:
                return self.value(then if self.holds(condition) else otherwise)
            case {"Fn::Equals": [one, other]}:
                return str(self.value(one)) == str(self.value(other))
            case {"Fn::Not": [negated]}:
                return not self.value(negated)
            case {"Condition": str(condition)}:
                return self.holds(condition)
            case dict():
                return {key: self.value(inner) for key, inner in value.items()}
            case list():
                return [self.value(one) for one in value]
        return value

    def _put_in(self, name: str) -> str:
        return str(self.known[name]) if name in self.known else self._arn(name.removesuffix(".Arn"))

    def _arn(self, logical: str) -> str:
        body = self.body["Resources"][logical]
        key, pattern = ARNS[body["Type"]]
        name = self.value(body["Properties"].get(key, {"Fn::Sub": f"${{AWS::StackName}}-{logical}-MADEUP"}))
        return pattern.format(name)

    def of_role(self, logical: str) -> list[dict[str, Any]]:
        """All statements of a role: its own, and those of the template's policies attached to it."""
        properties = self.body["Resources"][logical]["Properties"]
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        managed = [one["Ref"] for one in properties.get("ManagedPolicyArns", []) if isinstance(one, dict)]
        return self.statements(documents) + [one for name in managed for one in self.of_policy(name)]

    def of_policy(self, logical: str) -> list[dict[str, Any]]:
        """The statements of a managed policy of the template."""
        return self.statements([self.body["Resources"][logical]["Properties"]["PolicyDocument"]])

    def statements(self, documents: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        written = [self.value(one) for document in documents for one in document["Statement"]]
        return [one for one in written if isinstance(one, dict) and "Effect" in one]


SENDER = "no-reply@nexus.example"
QUEUES = tuple(
    body["Properties"]["Environment"]["Variables"]["NEXUS_QUEUE"]
    for body in resources("AWS::Serverless::Function").values()
)


@cache
def stack() -> Templates:
    """template.yaml, deployed as nexus-test."""
    return Templates(PATH.read_text(), {"SenderAddress": SENDER})


@cache
def role(queue: str) -> tuple[dict[str, Any], ...]:
    """The statements of the role under which a queue's function runs."""
    assert f"{queue.capitalize()}Role" in template()["Resources"], queue
    return tuple(stack().of_role(f"{queue.capitalize()}Role"))


def allowed(statements: Sequence[Mapping[str, Any]], request: Request) -> bool:
    """Whether the statements allow the request."""
    applying = {statement["Effect"] for statement in statements if applies(statement, request)}
    return "Allow" in applying and "Deny" not in applying


def applies(statement: Mapping[str, Any], request: Request) -> bool:
    return (
        any(matches(action.lower(), request.action.lower()) for action in _list(statement["Action"]))
        and any(matches(resource, request.resource) for resource in _list(statement["Resource"]))
        and all(
            _holds(operator, wanted, request.context.get(key))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def matches(pattern: str, text: str) -> bool:
    """IAM's wildcards: * for any characters, ? for one."""
    return _compiled(pattern).fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    translated = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.compile(translated, re.DOTALL)


def _holds(operator: str, wanted: Any, found: Any) -> bool:
    if operator.endswith("IfExists"):
        return found is None or _holds(operator.removesuffix("IfExists"), wanted, found)
    if operator.startswith("ForAllValues:"):
        return all(_holds(operator.removeprefix("ForAllValues:"), wanted, one) for one in _list(found or []))
    if found is None:
        return False
    match operator:
        case "StringEquals" | "Bool":
            return found in _list(wanted)
        case "StringLike" | "ArnLike" | "ArnEquals":
            return any(matches(one, found) for one in _list(wanted))
    raise AssertionError(f"no test knows the condition {operator}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
