"""The end-to-end tests on a real account: what they check before they begin, and that nothing is left."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from moto import mock_aws

from dev import e2e_aws
from dev.e2e_aws import Report
from ops.checkout import ROOT
from ops.cli.output import plain
from ops.health import Finding
from ops.validation import SENDER_CHECK, Check
from tests.support import moto_cloud
from tests.support.template import template

STACK = "nexus-e2e-abcdef"
OTHER = "nexus-prod"
KEPT = ("uploads", "media", "archive")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An account with what these tests leave when their stack goes, and the same of another stack."""
    with moto_cloud.environment(), mock_aws():
        session = boto3.Session(region_name="eu-west-1")
        where: Any = {"LocationConstraint": "eu-west-1"}
        for stack in (STACK, OTHER):
            key: Any = {"AttributeName": "id"}
            session.client("dynamodb").create_table(
                TableName=f"{stack}-users",
                KeySchema=[key | {"KeyType": "HASH"}],
                AttributeDefinitions=[key | {"AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            for bucket in KEPT:
                s3, name = session.client("s3"), f"{stack}-{bucket}-123456789012"
                s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
                s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
                for body in (b"one", b"two"):
                    s3.put_object(Bucket=name, Key="k", Body=body)
                s3.delete_object(Bucket=name, Key="k")
            session.client("secretsmanager").create_secret(Name=f"{stack}-mail-signing", SecretString="s")
            session.client("logs").create_log_group(logGroupName=f"/aws/lambda/{stack}-media")
        yield session


@pytest.fixture
def cloudformation(session: Any, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A minimal CloudFormation, since moto's is too heavy; there is no stack of SAM's packages."""
    fake = Mock()
    fake.get_paginator("describe_stacks").paginate.return_value = [{"Stacks": []}]
    real = session.client
    monkeypatch.setattr(session, "client", lambda name: fake if name == "cloudformation" else real(name))
    return fake


def names(session: Any, stack: str) -> set[str]:
    tables = session.client("dynamodb").list_tables()["TableNames"]
    buckets = [one["Name"] for one in session.client("s3").list_buckets()["Buckets"]]
    found = [*tables, *buckets, *(one["Name"] for one in session.client("secretsmanager").list_secrets()["SecretList"])]
    return {name for name in found if name.startswith(stack)}


def test_retained_resources_are_deleted_and_none_of_another_stack(session: Any) -> None:
    before = names(session, OTHER)
    assert len(list(e2e_aws.left(session, STACK))) == len(KEPT) + 3

    e2e_aws.delete_kept(session, STACK)

    assert list(e2e_aws.left(session, STACK)) == []
    assert names(session, OTHER) == before


def test_a_resource_that_is_left_fails_the_report(session: Any, cloudformation: Mock) -> None:
    session.client("sqs").create_queue(QueueName=f"{STACK}-media")
    report = Report(STACK)

    e2e_aws.clean(session, STACK, report, keep_packages=True)

    cloudformation.delete_stack.assert_called_once_with(StackName=STACK)
    assert report.failed
    assert f"sqs https://sqs.eu-west-1.amazonaws.com/123456789012/{STACK}-media" in report.lines[-1]


@pytest.mark.parametrize("stack", ["nexus-prod", "nexus-e2e", ""])
def test_no_other_stack_is_ever_looked_for(session: Any, stack: str) -> None:
    with pytest.raises(e2e_aws.Refused):
        e2e_aws.delete_kept(session, stack)


def test_the_tests_start_only_if_the_account_is_named() -> None:
    e2e_aws.confirmed("123456789012", {"E2E_ACCOUNT": "123456789012"})
    for environment in ({}, {"E2E_ACCOUNT": "yes"}, {"E2E_ACCOUNT": "999999999999"}):
        with pytest.raises(e2e_aws.Refused, match="E2E_ACCOUNT=123456789012 make e2e-aws"):
            e2e_aws.confirmed("123456789012", environment)


def test_a_deployment_that_fails_is_reported_and_cleaned_up(session: Any, cloudformation: Mock) -> None:
    report = Report(STACK)
    e2e_aws.run(session, "123456789012", STACK, ["false"], report)
    assert names(session, STACK) == set()
    assert (report.failed, [line.split(":")[0] for line in report.lines]) == (True, ["- **FAILED**", "- ok"])
    assert "failed" in report.text("eu-west-1")


def test_the_outcome_is_read_from_pytests_report(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(
        '<testsuites><testsuite><testcase name="one"/><testcase name="two"><failure/></testcase>'
        '<testcase name="three"><error/></testcase></testsuite></testsuites>'
    )
    assert e2e_aws.outcome(path) == (3, ["two", "three"])


def test_an_unverified_sender_is_no_fault_of_the_stack() -> None:
    check = Check(SENDER_CHECK, (Finding("failed", "emails", "SES has not verified the sender a@b.example", "-"),))
    other = Check("run records expire", (Finding("failed", "runs", "TTL is off", "-"), Finding("note", "x", "y", "-")))
    assert e2e_aws.faults(json.dumps(plain({"checks": [check, other]}))) == ["runs: TTL is off"]


def test_the_stack_has_the_templates_parameters_and_none_of_the_environments() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ne2e-aws:")[2].partition("\n\n")[0]
    assert "--parameter-overrides Stage=dev $(OPTIONS)" in recipe  # OPTIONS may name others: SAM takes the last list
    assert template()["Parameters"]["SenderAddress"]["Default"].endswith("@example.com"), "which nobody can verify"


def test_the_tests_to_run_exist() -> None:
    assert [name for name in e2e_aws.TESTS if not (ROOT / name).is_file()] == []
