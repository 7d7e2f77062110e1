"""`nexus doctor`: every check, and one message and one upload through the deployed stack.

All that `status` and `validate` check, plus a ping through each queue, the walks that an application adds (the
network's is an upload), alarms against what they watch, quotas, the clock, and the versions of client and stack.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial

from nexus.settings import settings
from ops import catalogue, health, pinging, validation
from ops.aws import client, in_parallel
from ops.deployment import Deployment
from ops.health import Finding
from ops.problems import REPAIR
from ops.validation import Check, Finder, checked

SKEW, SKEW_REFUSED = 5.0, 300.0
"""Seconds of clock skew for a warning and for a failure: AWS rejects a quarter of an hour."""

NEARLY = 0.8
"""The used share of a quota at which it is reported."""

now = time.time
"""This machine's clock; tests replace it."""

type Walk = Callable[[float], tuple[str, list[Finding]]]
"""Sends something through the stack, within this many seconds. Returns the outcome in a line, and findings."""


def examine(deployment: Deployment, walks: dict[str, Walk], patience: float) -> list[Check]:
    """Runs every check. Errors of AWS become findings."""
    found = health.check(deployment)
    counts = f"{len(found.queues)} queues, {len(found.rules)} rules, {len(found.alarms)} alarms"
    checks: list[tuple[str, Finder]] = [
        ("alarms watch existing queues, and notify someone", alarms),
        ("quotas have room", quotas),
        ("this machine's clock is correct", clock),
        ("the client is not older than the stack", health.of_version),
    ]
    return [
        Check("`nexus status` finds no fault", found.findings, counts),
        *validation.validate(deployment),
        *in_parallel(lambda walk: _walk(*walk, patience), [("each queue responds to a ping", ping), *walks.items()]),
        *(checked(name, partial(finder, deployment)) for name, finder in checks),
    ]


def _walk(name: str, walk: Walk, patience: float) -> Check:
    detail = ""

    def find() -> list[Finding]:
        nonlocal detail
        detail, findings = walk(patience)
        return findings

    return replace(checked(name, find), detail=detail)


def ping(patience: float) -> tuple[str, list[Finding]]:
    """Sends one message through each queue."""
    pongs = pinging.ping(catalogue.queues(), patience)
    detail = ", ".join(f"{p.queue} {(p.round_trip or 0) * 1000:.0f} ms" for p in pongs if p.answered)
    return detail, [Finding("failed", p.queue, f"a ping has {p.status}", p.why) for p in pongs if not p.answered]


def alarms(deployment: Deployment) -> Iterator[Finding]:
    """Finds alarms that watch nothing, that notify no one, or that should be in ALARM and are not."""
    dead = {settings().dead_letter_queue_name(queue): queue for queue in deployment.queues}
    there = {settings().queue_name(queue) for queue in deployment.queues} | set(dead)
    for alarm in health.described_alarms(deployment.queues):
        name = alarm["AlarmName"]
        watched = [d["Value"] for d in alarm.get("Dimensions", []) if d["Name"] == "QueueName"]
        for queue in watched:
            if queue not in there:
                yield Finding(
                    "failed", name, f"it watches {queue}, which is not a queue of the stack", validation.DEPLOY
                )
            elif queue in dead and alarm.get("StateValue") == "OK" and _dead(queue):
                what = f"{_dead(queue)} dead letters, but it is not in ALARM"
                severity: health.Severity = "unchecked" if deployment.stage == "local" else "warning"
                yield Finding(severity, name, what, "CloudWatch takes some minutes; the local cloud raises no alarms.")
        if not alarm.get("ActionsEnabled", True) or not alarm.get("AlarmActions"):
            yield Finding("warning", name, "it notifies no one: its actions are off", REPAIR)
    topic = deployment.outputs.get("AlarmTopicArn")
    if topic and not deployment.parameters.get("AlarmEmail"):
        do = "Set AlarmEmail in samconfig.toml and deploy, or subscribe to the topic."
        yield Finding("unchecked", topic.rpartition(":")[2], "the alarms have no subscriber", do)


def _dead(queue: str) -> int:
    counts = health.queue_counts(queue)
    return counts.total if counts else 0


def quotas(deployment: Deployment) -> Iterator[Finding]:
    """Compares concurrent sandboxes with the account's concurrency, and mail with SES's daily quota."""
    from nexus.aws.sdk import client as runtime_client

    limits = client("lambda").get_account_settings().get("AccountLimit", {})
    room = limits.get("UnreservedConcurrentExecutions") or limits.get("ConcurrentExecutions", 0)
    sources = in_parallel(health.event_source, deployment.queues)
    wanted = sum((source or {}).get("ScalingConfig", {}).get("MaximumConcurrency", 0) for source in sources)
    if wanted > room:
        what = f"the queues may use {wanted} sandboxes at once, the account has {room} for functions without a reserve"
        do = (
            "Ask AWS for more concurrent executions (Service Quotas, L-B99A9384), or lower `nexus concurrency QUEUE N`."
        )
        yield Finding("warning", deployment.stack, what, do)
    if "SenderAddress" in deployment.parameters:
        quota = runtime_client("sesv2").get_account().get("SendQuota", {})
        most, sent = quota.get("Max24HourSend", -1.0), quota.get("SentLast24Hours", 0.0)
        if most > 0 and sent >= NEARLY * most:
            do = "Ask AWS for a higher quota, or wait: the day is the last 24 hours."
            yield Finding("warning", "emails", f"SES has sent {sent:,.0f} of {most:,.0f} mails of the day", do)


def clock(deployment: Deployment) -> Iterator[Finding]:
    """Compares this machine's clock with AWS's, from the Date header of a response."""
    before = now()
    response = client("cloudformation").describe_stacks(StackName=deployment.stack)
    here = (before + now()) / 2
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        yield Finding("unchecked", "the clock", "AWS's response has no date", "Nothing to do: the emulator omits it.")
        return
    off = here - parsedate_to_datetime(date).timestamp()
    if abs(off) > SKEW:
        word = "ahead" if off > 0 else "behind"
        what = f"it is {abs(off):.0f} s {word} of AWS's"
        do = "Set it by NTP: AWS rejects requests signed more than 15 minutes off."
        yield Finding("failed" if abs(off) > SKEW_REFUSED else "warning", "the clock", what, do)
