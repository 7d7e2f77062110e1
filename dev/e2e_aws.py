"""The end-to-end tests on a real account, with your own credentials: `make e2e-aws ENV=dev`.

It deploys a temporary stack, nexus-e2e-<six letters>, runs the tests that need no emulator, deletes the stack and its
retained resources, checks for leftovers, and writes a report to paste (.local/e2e-aws.md). It starts only if
E2E_ACCOUNT names the credentials' account. It only touches resources whose names start with the stack's.
"""

import json
import os
import secrets
import string
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import WaiterError

from ops.checkout import ROOT
from ops.health import WRONG
from ops.validation import SENDER_CHECK

TESTS: Final = (
    "tests/integration/test_runtime.py",
    "tests/e2e/test_media.py",
    "tests/e2e/test_jobs.py",
    "tests/e2e/test_versions.py",
)
MINUTES: Final = 45
"""Minutes after which the tests are stopped and their resources deleted."""
BOUND: Final = "0.50 USD"
"""Dollars, at list prices: 45 minutes of all 34 sandboxes would be 0.42 at 2 GB, and the tests keep few busy."""
REPORT: Final = ROOT / ".local" / "e2e-aws.md"
PREFIX: Final = "nexus-e2e-"
SAM_STACK: Final = "aws-sam-cli-managed-default"


class Refused(Exception):
    """The run did not start; the message says why."""


@dataclass
class Report:
    """The report for a person to paste."""

    stack: str
    lines: list[str] = field(default_factory=list)
    failed: bool = False

    def step(self, what: str, passed: bool, detail: str = "") -> None:
        self.failed |= not passed
        self.lines.append(f"- {'ok' if passed else '**FAILED**'}: {what}{f' ({detail})' if detail else ''}")
        print(self.lines[-1], flush=True)

    def text(self, region: str) -> str:
        listed = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        head = f"## End-to-end tests on AWS: {'failed' if self.failed else 'passed'}"
        commit = listed.stdout.strip() or "unknown"
        where = f"Commit {commit}, {region}, {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
        return "\n".join([head, "", where, "", *self.lines, ""])


# --- what is left --------------------------------------------------------------------------------------------------


def left(session: Any, stack: str) -> Iterator[tuple[str, str]]:
    """(kind, name) of each resource named after the stack, whatever created it."""
    if not stack.startswith(PREFIX):
        raise Refused(f"{stack} is not a stack of these tests")
    name = f"{stack}-"
    for kind, operation, key, field_ in (
        ("dynamodb", "list_tables", "TableNames", None),
        ("s3", "list_buckets", "Buckets", "Name"),
        ("sqs", "list_queues", "QueueUrls", None),
        ("lambda", "list_functions", "Functions", "FunctionName"),
        ("events", "list_rules", "Rules", "Name"),
        ("iam", "list_roles", "Roles", "RoleName"),
        ("logs", "describe_log_groups", "logGroups", "logGroupName"),
        ("scheduler", "list_schedule_groups", "ScheduleGroups", "Name"),
        ("sns", "list_topics", "Topics", "TopicArn"),
    ):
        client = session.client(kind)
        pages = (
            client.get_paginator(operation).paginate()
            if client.can_paginate(operation)
            else [getattr(client, operation)()]
        )
        for page in pages:
            for one in page.get(key, []):
                found = one if field_ is None else one[field_]
                short = found.rsplit("/", 1)[-1] if kind in ("sqs", "logs") else found.rsplit(":", 1)[-1]
                if short.startswith(name) or short == stack:
                    yield kind, found
    secret = f"{stack}-mail-signing"
    listed = session.client("secretsmanager").list_secrets(Filters=[{"Key": "name", "Values": [secret]}])["SecretList"]
    yield from (("secretsmanager", one["Name"]) for one in listed)


def delete_kept(session: Any, stack: str) -> None:
    """Deletes what the template retains on stack deletion: tables, buckets with all their versions, the secret."""
    for kind, name in list(left(session, stack)):
        match kind:
            case "dynamodb":
                session.client(kind).delete_table(TableName=name)
                session.client(kind).get_waiter("table_not_exists").wait(TableName=name)
            case "s3":
                empty_bucket(session, name)
                session.client(kind).delete_bucket(Bucket=name)
            case "secretsmanager":
                session.client(kind).delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
            case "logs":
                session.client(kind).delete_log_group(logGroupName=name)


def empty_bucket(session: Any, name: str, prefix: str = "") -> None:
    """Deletes every version of every object whose key starts with `prefix`."""
    s3 = session.client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name, Prefix=prefix):
        versions = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        keys = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions]
        if keys and (failed := s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True}).get("Errors")):
            raise RuntimeError(f"{name}: {failed[0]}")


# --- the run -------------------------------------------------------------------------------------------------------


def outcome(junit: Path) -> tuple[int, list[str]]:
    """(number of tests run, names of the failed ones)."""
    cases = list(ET.parse(junit).getroot().iter("testcase"))  # noqa: S314 - pytest wrote it
    failed = [
        case.get("name", "?") for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    return len(cases), failed


def faults(validated: str) -> list[str]:
    """What `nexus --json validate` found, without the sender: the stack has the template's, which nobody can verify."""
    checks = [check for check in json.loads(validated)["checks"] if check["name"] != SENDER_CHECK]
    found = [finding for check in checks for finding in check["findings"] if finding["severity"] in WRONG]
    return [f"{one['where']}: {one['what']}" for one in found]


def run(session: Any, account: str, stack: str, sam: Sequence[str], report: Report) -> None:
    """Deploys, tests, and always deletes what was created."""
    cloudformation, region = session.client("cloudformation"), session.region_name
    had_bucket = exists(cloudformation, SAM_STACK)
    began = time.monotonic()
    try:
        deployed = (
            subprocess.run([*sam, "--stack-name", stack, "--s3-prefix", stack], cwd=ROOT, check=False).returncode == 0
        )
        report.step(f"`sam deploy` of {stack}", deployed, f"{time.monotonic() - began:.0f} s")
        if deployed:
            test(stack, account, region, report)
    finally:
        clean(session, stack, report, keep_packages=had_bucket)


def test(stack: str, account: str, region: str, report: Report) -> None:
    """Runs the tests, and the operator's own two checks."""
    own = {"NEXUS_STACK": stack, "NEXUS_ACCOUNT_ID": account, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    environment = os.environ | own | {"NEXUS_ON_AWS": "1"}
    nexus = [str(ROOT / ".venv/bin/nexus"), "--stack", stack]
    asked = [*nexus, "--json", "validate"]
    done = subprocess.run(asked, env=environment, cwd=ROOT, check=False, timeout=300, capture_output=True, text=True)
    wrong = faults(done.stdout) if done.stdout else [done.stderr.strip()]
    report.step("`nexus validate`, except that no sender is verified", not wrong, "; ".join(wrong))
    asked = [*nexus, "inspect", "ping"]
    answered = subprocess.run(asked, env=environment, cwd=ROOT, check=False, timeout=300).returncode == 0
    report.step("`nexus inspect ping`", answered)
    junit = ROOT / ".local" / "e2e-aws.xml"
    junit.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junit-xml={junit}",
        "-m",
        "not emulator",
    ]
    began = time.monotonic()
    try:
        subprocess.run([*command, *TESTS], env=environment, cwd=ROOT, check=False, timeout=MINUTES * 60)
    except subprocess.TimeoutExpired:
        report.step("the tests", False, f"ended after {MINUTES} minutes")
        return
    count, failed = outcome(junit)
    report.step(f"{count} tests", count > 0 and not failed, f"{time.monotonic() - began:.0f} s")
    report.lines += [f"  - {name}" for name in failed]


def clean(session: Any, stack: str, report: Report, *, keep_packages: bool) -> None:
    """Deletes the stack, its retained resources and its packages; then checks for leftovers."""
    cloudformation = session.client("cloudformation")
    cloudformation.delete_stack(StackName=stack)
    waiter = cloudformation.get_waiter("stack_delete_complete")
    try:
        waiter.wait(StackName=stack, WaiterConfig={"Delay": 5, "MaxAttempts": 240})
    except WaiterError as error:
        report.step(f"deleting {stack}", False, str(error))
    delete_kept(session, stack)
    if exists(cloudformation, SAM_STACK):
        outputs = cloudformation.describe_stacks(StackName=SAM_STACK)["Stacks"][0]["Outputs"]
        bucket = next(one["OutputValue"] for one in outputs if one["OutputKey"] == "SourceBucket")
        empty_bucket(session, bucket, f"{stack}/" if keep_packages else "")
        if not keep_packages:
            cloudformation.delete_stack(StackName=SAM_STACK)
    remains = sorted({f"{kind} {name}" for kind, name in left(session, stack)})
    report.step("nothing is left behind", not remains, ", ".join(remains))


def exists(cloudformation: Any, stack: str) -> bool:
    """Whether there is such a stack."""
    pages = cloudformation.get_paginator("describe_stacks").paginate()
    return any(one["StackName"] == stack for page in pages for one in page["Stacks"])


def confirmed(account: str, environment: Mapping[str, str]) -> None:
    """Raises Refused unless the user has named the account."""
    if environment.get("E2E_ACCOUNT") != account:
        raise Refused(
            f"your credentials belong to the account {account}. To create and delete a stack there, for less than"
            f" {BOUND}: E2E_ACCOUNT={account} make e2e-aws ENV=dev"
        )


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit code."""
    import boto3

    environment, *sam = arguments
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]
    session = boto3.Session(region_name=settings["global"]["parameters"]["region"])
    account = session.client("sts").get_caller_identity()["Account"]
    stack = PREFIX + "".join(secrets.choice(string.ascii_lowercase) for _ in range(6))
    report = Report(stack)
    try:
        confirmed(account, os.environ)
        run(session, account, stack, sam, report)
    except Refused as refused:
        print(f"Nothing was created: {refused}", file=sys.stderr)
        return 2
    finally:
        if report.lines:
            REPORT.write_text(report.text(session.region_name))
            print(f"\nThe report is in {REPORT.relative_to(ROOT)}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
