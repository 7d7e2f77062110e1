"""What `nexus validate` calls a difference between two templates, and what not; and that every task has a trial."""

from copy import deepcopy
from typing import Any

import pytest

from nexus import catalogue
from ops import trial, validation
from tests.support.template import PATH


@pytest.fixture(scope="module")
def template() -> Any:
    return validation.load_template(PATH.read_text())


def test_what_sam_packages_is_no_difference(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaFunction"]["Properties"]["CodeUri"] = "s3://bucket/key"
    deployed["Resources"]["NexusLayer"]["Metadata"] = {"SamResourceId": "NexusLayer"}
    assert list(validation.differences(template, deployed)) == []


def test_long_and_short_forms_are_the_same(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaQueue"]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"] = {
        "Fn::GetAtt": ["MediaDeadLetterQueue", "Arn"]
    }
    deployed["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"] = "1800"
    assert list(validation.differences(template, deployed)) == []


def test_changed_missing_and_foreign_parts_are_named(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"] = 30
    del deployed["Resources"]["EmailsQueue"]
    deployed["Resources"]["Extra"] = {"Type": "AWS::SQS::Queue"}
    found = list(validation.differences(template, deployed))
    assert found == ["EmailsQueue (not deployed)", "Extra (only deployed)", "MediaQueue"]


@pytest.mark.usefixtures("environment")
def test_every_task_has_safe_arguments_for_its_trial() -> None:
    stage = trial.Stage("nexus-test-u", "nexus-test-p", "uploads/nexus-test-u/nexus-test-p/test.png")
    for name in trial.names():
        catalogue.TASKS[name].check(trial.arguments(name, stage))


def test_the_trial_does_nothing_that_lasts() -> None:
    stage = trial.Stage("u", "p", "k")
    assert trial.arguments("cleanup_old_posts", stage) == {"mode": "review"}
    assert trial.arguments("send_content_digest_email", stage) == {"week": "2015-W01"}
    assert trial.ADDRESS.endswith("@simulator.amazonses.com")
