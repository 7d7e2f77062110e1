"""Versions of the functions: which one the alias `live` points at, rollback, and removal of old ones.

A deployment publishes a version of each function that it changes (code, layer and settings together) and moves the
alias to it. Event sources, S3 and callers use the alias, so moving it back undoes a deployment within seconds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from nexus.settings import settings
from ops.aws import client, in_parallel
from ops.problems import Problem

ALIAS: Final = "live"
PATIENCE: Final = 120.0
"""Seconds that Lambda may take to make a function or a version ready."""


@dataclass(frozen=True, slots=True)
class Version:
    """A published version. `changed` is when its content was deployed; `note` is its description."""

    number: int
    changed: datetime
    note: str = ""
    live: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A queue's alias before and after."""

    queue: str
    before: int
    after: int


def alias(queue: str) -> str:
    """The name that callers invoke: the function's name with the alias."""
    return f"{settings().function_name(queue)}:{ALIAS}"


def configuration(queue: str, qualifier: str = ALIAS) -> Any:
    """The settings of the live version, or of another."""
    return client("lambda").get_function_configuration(
        FunctionName=settings().function_name(queue), Qualifier=qualifier
    )


def versions(queue: str) -> list[Version]:
    """All published versions, oldest first. Raises botocore's errors."""
    lambda_, function = client("lambda"), settings().function_name(queue)
    live = lambda_.get_alias(FunctionName=function, Name=ALIAS)["FunctionVersion"]
    pages = lambda_.get_paginator("list_versions_by_function").paginate(FunctionName=function)
    found = [
        Version(
            number=int(one["Version"]),
            changed=datetime.strptime(one["LastModified"], "%Y-%m-%dT%H:%M:%S.%f%z").astimezone(UTC),
            note=one.get("Description", ""),
            live=one["Version"] == live,
        )
        for page in pages
        for one in page["Versions"]
        if one["Version"] != "$LATEST"
    ]
    return sorted(found, key=lambda version: version.number)


def rollback_plan(queues: Sequence[str], before: datetime) -> list[Moved]:
    """Where each alias would move: to the newest version from before that time. Leaves out those that stay.

    A function that is younger stays too: no older code sends to it. Raises Problem if nothing would move.
    """
    moves = []
    for queue, found in zip(queues, in_parallel(versions, queues), strict=True):
        (live,) = (version for version in found if version.live)
        older = [version for version in found if version.changed < before and version.number <= live.number]
        if older and older[-1].number != live.number:
            moves.append(Moved(queue, live.number, older[-1].number))
    if not moves:
        raise Problem(
            f"No function has another version from before {before:%Y-%m-%d %H:%M:%S} UTC",
            do="`nexus versions` lists the existing ones; `--before TIME` names another time.",
        )
    return moves


def move(moves: Sequence[Moved], on_moved: Callable[[Moved], None] = lambda _: None) -> None:
    """Points the aliases at their `after`, and calls back for each."""

    def one(moved: Moved) -> None:
        function = settings().function_name(moved.queue)
        client("lambda").update_alias(FunctionName=function, Name=ALIAS, FunctionVersion=str(moved.after))
        on_moved(moved)

    in_parallel(one, moves)


def prune(queues: Sequence[str], keep: int) -> dict[str, list[int]]:
    """Deletes all but each function's newest `keep` versions and its alias's target. Returns the deleted versions."""

    def one(queue: str) -> list[int]:
        found = versions(queue)
        old = [version.number for version in found[: max(0, len(found) - keep)] if not version.live]
        for number in old:
            client("lambda").delete_function(FunctionName=settings().function_name(queue), Qualifier=str(number))
        return old

    return dict(zip(queues, in_parallel(one, queues), strict=True))


def republish(queue: str, note: str) -> Moved:
    """Publishes the live code as a new version and moves the alias to it, which starts new sandboxes.

    Raises Problem if the function's newest code is not live, as after a rollback: that code would be published.
    """
    lambda_, function = client("lambda"), settings().function_name(queue)
    live, newest = configuration(queue), configuration(queue, "$LATEST")
    what = ("CodeSha256", "Layers", "Environment", "MemorySize", "Timeout")
    if [live.get(name) for name in what] != [newest.get(name) for name in what]:
        raise Problem(
            f"{function} was not restarted",
            f"Version {live['Version']} is live, but its newest code is different: it was rolled back.",
            "Deploy: that publishes a version with fresh sandboxes.",
        )
    lambda_.update_function_configuration(FunctionName=function, Description=note)
    _ready(queue, "$LATEST")
    published = lambda_.publish_version(FunctionName=function, CodeSha256=newest["CodeSha256"], Description=note)
    _ready(queue, published["Version"])
    moved = Moved(queue, int(live["Version"]), int(published["Version"]))
    move([moved])
    return moved


def _ready(queue: str, qualifier: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = configuration(queue, qualifier)
        states = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
        if "Failed" in states:
            reason = found.get("LastUpdateStatusReason") or found.get("StateReason", "")
            raise Problem(f"{queue}: Lambda did not make version {qualifier} ready", reason)
        if states[0] in ("Active", "Inactive") and states[1] == "Successful":
            return
        if time.monotonic() > deadline:
            raise Problem(f"{queue}: version {qualifier} is still not ready", do="`nexus status` shows its state.")
        time.sleep(0.5)
