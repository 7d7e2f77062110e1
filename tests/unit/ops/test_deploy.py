"""The checks before a deployment begins."""

import tomllib
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from dev import deploy
from nexus.settings import Settings
from ops.checkout import ROOT
from social.catalogue import QUEUES
from tests.support import network
from tests.support.template import template


@pytest.mark.parametrize("name", ["nexus-prod", "n", "a" * deploy.LONGEST_NAME])
def test_a_name_that_all_names_made_of_it_can_carry_is_taken(name: str) -> None:
    assert deploy.faults_of_name(name) == []


@pytest.mark.parametrize("name", ["Nexus-Prod", "9lives", "nexus_prod", "nexus-", "a" * (deploy.LONGEST_NAME + 1), ""])
def test_a_name_that_a_bucket_or_a_rule_could_not_carry_is_refused(name: str) -> None:
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
    assert at_once == sum(QUEUES.values())
    (few,) = deploy.faults_of_concurrency(10, at_once, 0)
    assert f"10 concurrent executions and the queues may use {at_once}" in few
    (reserved,) = deploy.faults_of_concurrency(100, at_once, 50)
    assert "MediaReservedConcurrency is 50" in reserved
    assert deploy.faults_of_concurrency(1000, at_once, 50) == []


@pytest.mark.parametrize("status", [None, "CREATE_FAILED"])
def test_a_first_deployment_stops_where_it_fails_and_is_gone_on_with(status: str | None) -> None:
    assert deploy.options(status) == ["--disable-rollback"]
    assert deploy.faults_of_state(status, "nexus-prod") == []


@pytest.mark.parametrize("status", ["UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "CREATE_COMPLETE"])
def test_every_later_deployment_rolls_back(status: str) -> None:
    assert deploy.options(status) == []
    assert deploy.faults_of_state(status, "nexus-prod") == []


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "UPDATE_IN_PROGRESS"])
def test_what_cloudformation_would_refuse_is_reported(status: str) -> None:
    (fault,) = deploy.faults_of_state(status, "nexus-prod")
    assert status in fault


def environment(name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "samconfig.toml").read_text())[name]
    return found


def test_sam_deploy_without_a_name_is_the_dev_environment() -> None:
    assert environment("default") == environment("dev")


@pytest.mark.parametrize("name", ["default", "local", "dev", "prod"])
def test_an_environment_sets_parameters_that_there_are(name: str) -> None:
    given = [one.split("=", 1)[0] for one in environment(name)["deploy"]["parameters"]["parameter_overrides"]]
    assert [one for one in given if one not in template()["Parameters"]] == []
    assert "Architecture" not in given, "the packages are built for template.yaml's default"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("name", "asked"), [("prod", 1), ("dev", 0)])
def test_prod_alone_is_protected_from_being_deleted(name: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("cloudformation", region_name="eu-west-1")
    monkeypatch.setattr("boto3.client", lambda *_, **__: client)
    with Stubber(client) as stubbed:
        expected = {"StackName": f"nexus-{name}", "EnableTerminationProtection": True}
        for _ in range(asked):
            stubbed.add_response("update_termination_protection", {"StackId": "1"}, expected)
        assert deploy.main([name, "--protect"]) == 0
        stubbed.assert_no_pending_responses()
