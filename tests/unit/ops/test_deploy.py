"""The checks before a deployment begins."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from dev import deploy
from nexus.settings import Settings
from ops.checkout import ROOT
from social.catalogue import QUEUES
from tests.support import network
from tests.support.patience import PATIENCE
from tests.support.template import template


@pytest.mark.parametrize("name", ["nexus-prod", "n", "a" * deploy.LONGEST_NAME])
def test_a_stack_name_that_fits_every_resources_name_is_accepted(name: str) -> None:
    assert deploy.faults_of_name(name) == []


@pytest.mark.parametrize("name", ["Nexus-Prod", "9lives", "nexus_prod", "nexus-", "a" * (deploy.LONGEST_NAME + 1), ""])
def test_a_stack_name_that_a_bucket_or_rule_could_not_have_is_refused(name: str) -> None:
    (fault,) = deploy.faults_of_name(name)
    assert f"stack_name is {name!r}" in fault


def test_the_longest_name_is_the_longest_that_fits() -> None:
    stack = "a" * deploy.LONGEST_NAME
    names = Settings(stack=stack, account_id="1" * 12)
    rules = [f"{stack}-{name}" for name, task in network.tasks().items() if task.schedule]
    assert max(map(len, rules)) == 64
    assert max(len(names.bucket(purpose)) for purpose in ("uploads", "media", "archive")) <= 63
    assert max(len(names.function_name(queue)) for queue in QUEUES) <= 64
    assert len(f"{stack}-scheduler") <= 64


def test_an_account_that_is_too_small_is_reported_before_the_deployment() -> None:
    at_once = deploy.concurrency()
    assert at_once == QUEUES
    (few,) = deploy.faults_of_concurrency(10, at_once, 0)
    assert f"10 unreserved concurrent executions and the queues may use {sum(QUEUES.values())}" in few
    (reserved,) = deploy.faults_of_concurrency(149, at_once, 50)
    assert "MediaReservedConcurrency is 50" in reserved
    assert deploy.faults_of_concurrency(150, at_once, 50) == []


@pytest.mark.parametrize("reserved", range(11))
def test_a_reserve_that_throttles_the_media_queue_is_refused_by_the_check_and_the_template(reserved: int) -> None:
    serves = reserved == 0 or reserved >= QUEUES["media"]
    assert (deploy.faults_of_concurrency(1000, deploy.concurrency(), reserved) == []) is serves
    pattern = template()["Parameters"]["MediaReservedConcurrency"]["AllowedPattern"]
    assert (re.fullmatch(pattern, str(reserved)) is not None) is serves


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("unreserved", "deployed", "refused"),
    [
        (149, None, True),
        (150, None, False),
        (100, "50", False),  # an update: the stack's own reserve is given back
        (100, "0", True),
        (99, "50", True),
    ],
)
def test_concurrency_reserved_by_this_stack_counts_as_available_and_by_others_not(
    unreserved: int, deployed: str | None, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudformation = boto3.client("cloudformation", region_name="eu-west-1")
    lambda_ = boto3.client("lambda", region_name="eu-west-1")
    clients = {"cloudformation": cloudformation, "lambda": lambda_}
    monkeypatch.setattr("boto3.client", lambda name, **_: clients[name])
    monkeypatch.delenv("NEXUS_FEW_SANDBOXES", raising=False)
    limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": unreserved}
    parameter = {"ParameterKey": "MediaReservedConcurrency", "ParameterValue": deployed or ""}
    stack = {"StackName": "nexus-prod", "CreationTime": "2026-11-28", "StackStatus": "UPDATE_COMPLETE"}
    with Stubber(cloudformation) as stacks, Stubber(lambda_) as account:
        if deployed is None:
            stacks.add_client_error("describe_stacks", "ValidationError", "Stack nexus-prod does not exist")
        else:
            stacks.add_response("describe_stacks", {"Stacks": [{**stack, "Parameters": [parameter]}]})
        account.add_response("get_account_settings", {"AccountLimit": limit})
        assert deploy.main(["prod"]) == int(refused)


def test_the_variables_of_the_local_cloud_are_not_taken_for_an_account(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("boto3.client", lambda *_, **__: pytest.fail("nothing was to be asked"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert deploy.main(["prod"]) == 1
    shown = capsys.readouterr()
    assert "AWS_ENDPOINT_URL is http://127.0.0.1:4566, an emulator on this machine" in shown.err
    assert shown.out == ""


def test_the_stack_and_its_region_are_read_from_samconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = (ROOT / "samconfig.toml").read_text().replace('"nexus-dev"', '"forum"').replace("eu-west-1", "us-east-1")
    (tmp_path / "samconfig.toml").write_text(own)
    monkeypatch.setattr(deploy, "ROOT", tmp_path)
    assert [deploy.main(["dev", flag]) for flag in ("--stack", "--region")] == [0, 0]
    assert capsys.readouterr().out == "forum\nus-east-1\n"


def test_make_deploy_deletes_the_old_versions_of_the_stack_that_it_has_deployed(tmp_path: Path) -> None:
    for name, does in (
        ("python", 'case "$*" in *--stack) echo forum;; *--region) echo us-east-1;; esac'),
        ("nexus", f'echo "$@" >> {tmp_path}/asked'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    command = ["make", "-C", str(ROOT), "-o", "package", "deploy", "ENV=dev", f"DEV={tmp_path}", "SAM=true"]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    assert (tmp_path / "asked").read_text() == "--stack forum --region us-east-1 versions --prune\n"


@pytest.mark.parametrize("status", [None, "CREATE_FAILED", "UPDATE_FAILED"])
def test_a_first_deployment_stops_where_it_fails_and_continues_there_however_often_it_fails(status: str | None) -> None:
    assert deploy.options({"StackStatus": status} if status else {}) == ["--disable-rollback"]
    assert deploy.faults_of_state(status, "nexus-prod") == []


@pytest.mark.parametrize("status", ["UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "CREATE_COMPLETE", "UPDATE_FAILED"])
def test_every_later_deployment_rolls_back(status: str) -> None:
    outputs = [{"OutputKey": "Version", "OutputValue": "0.1.0"}]
    assert deploy.options({"StackStatus": status, "Outputs": outputs}) == []
    assert deploy.faults_of_state(status, "nexus-prod") == []


@pytest.mark.parametrize(
    "status",
    ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED"],
)
def test_a_stack_status_that_prevents_an_update_is_reported(status: str) -> None:
    (fault,) = deploy.faults_of_state(status, "nexus-prod")
    assert status in fault


def environment(name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "samconfig.toml").read_text())[name]
    return found


def test_sam_deploy_without_a_name_is_the_dev_environment() -> None:
    assert environment("default") == environment("dev")


@pytest.mark.parametrize("name", ["default", "local", "dev", "prod"])
def test_an_environment_sets_only_existing_parameters(name: str) -> None:
    given = [one.split("=", 1)[0] for one in environment(name)["deploy"]["parameters"]["parameter_overrides"]]
    assert [one for one in given if one not in template()["Parameters"]] == []
    assert "Architecture" not in given, "the packages are built for template.yaml's default"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("name", "asked"), [("prod", 1), ("dev", 0)])
def test_only_prod_is_protected_from_deletion(name: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("cloudformation", region_name="eu-west-1")
    monkeypatch.setattr("boto3.client", lambda *_, **__: client)
    with Stubber(client) as stubbed:
        expected = {"StackName": f"nexus-{name}", "EnableTerminationProtection": True}
        for _ in range(asked):
            stubbed.add_response("update_termination_protection", {"StackId": "1"}, expected)
        assert deploy.main([name, "--protect"]) == 0
        stubbed.assert_no_pending_responses()
