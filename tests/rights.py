"""Lists denied requests and unused rights, over the requests of all tests: `python -m tests.rights FOLDER`.

`make test` ends with it. Each process of unit tests leaves a file *.json in the folder, and the sandboxes of the local
cloud one called requests.jsonl. Fails if AWS would deny a request, or if template.yaml grants a right that no test used
and that is not below, with its reason.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ops.checkout import ACCOUNT_ID
from ops.checkout import STACK as LOCAL_STACK
from tests.support.rights import APPLICATION, Right, Rights, granted, of_sandboxes

BY_LAMBDA: Final = frozenset(
    {
        ("OwnQueue", "sqs:ReceiveMessage"),
        ("OwnQueue", "sqs:DeleteMessage"),
        ("OwnQueue", "sqs:GetQueueAttributes"),
        ("OwnLog", "logs:CreateLogStream"),
        ("OwnLog", "logs:PutLogEvents"),
        ("Trace", "xray:PutTraceSegments"),
        ("Trace", "xray:PutTelemetryRecords"),
    }
)
"""Lambda itself uses these under the function's role: it polls the queue, and writes the log and the trace."""

OWN_CODE: Final = frozenset(
    {
        "ReadPeopleAndPosts",
        "ShowRenditions",
        "LargeResults",
        "ImportPosts",
        "KeepPeriodicTasks",
        "ListPeriodicTasks",
    }
)
"""The application's own code uses these: its pages read data, and its users manage periodic tasks."""


def unused(rights: Rights) -> list[Right]:
    """Rights that no test, AWS itself or application used. Use by any role counts for a shared policy."""
    shared = {right[1:] for right in rights.used if right[0] != APPLICATION}
    return sorted(
        right
        for right in granted() - rights.used
        if right[1:3] not in BY_LAMBDA
        and not (right[0] == APPLICATION and right[1] in OWN_CODE)
        and not (right[0] != APPLICATION and right[1:] in shared)
    )


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit code."""
    (folder,) = map(Path, arguments)
    rights = Rights()
    for path in sorted(folder.glob("*.json")):
        rights.load(path)
    sandboxes = folder / "requests.jsonl"
    if not rights.used or not sandboxes.exists():
        print(f"{folder} has nothing of the unit tests or of the local cloud: `make test` fills it", file=sys.stderr)
        return 2
    rights.add(of_sandboxes(sandboxes, LOCAL_STACK, ACCOUNT_ID))
    for denied in sorted(set(rights.denied)):
        print(f"AWS would deny: {denied}", file=sys.stderr)
    left = unused(rights)
    for who, statement, action, resource in left:
        print(f"No test uses: {who}, {statement}: {action} on {resource}", file=sys.stderr)
    return 1 if rights.denied or left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
