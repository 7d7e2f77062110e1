"""template.yaml as tests and measurements read it: its resources, with names resolved for a stack called nexus-test."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ops.template import load

PATH = Path(__file__).parents[2] / "template.yaml"
STACK, ACCOUNT, REGION = "nexus-test", "123456789012", "eu-west-1"
ENVIRONMENT = {
    "NEXUS_STACK": STACK,
    "NEXUS_ACCOUNT_ID": ACCOUNT,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}
"""The environment variables that point a process at that stack."""


PSEUDO = {
    "AWS::StackName": STACK,
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
}


@lru_cache(maxsize=1)
def template() -> Mapping[str, Any]:
    """The parsed file, intrinsic functions unresolved."""
    return load(PATH.read_text())


def resources(kind: str) -> dict[str, Mapping[str, Any]]:
    """The resources of a type, by logical id."""
    found = template()["Resources"].items()
    return {name: body for name, body in found if body["Type"] == kind}


def resolved(value: Any, parameters: Mapping[str, Any] | None = None) -> Any:
    """A value with Ref and Sub of pseudo parameters, and of parameters (their defaults), put in.

    What refers to another resource is left as it is; conditions count as false.
    """
    defaults = {name: body.get("Default", "") for name, body in template()["Parameters"].items()}
    known = {**defaults, **PSEUDO, **(parameters or {})}
    match value:
        case {"Ref": name} if name in known:
            return known[name]
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: str(known.get(found[1], found[0])), text)
        case {"Fn::If": [_, _, otherwise]}:
            return resolved(otherwise, parameters)
        case dict():
            found = {key: resolved(inner, parameters) for key, inner in value.items()}
            return {key: inner for key, inner in found.items() if inner != {"Ref": "AWS::NoValue"}}
        case list():
            return [resolved(inner, parameters) for inner in value]
    return value
