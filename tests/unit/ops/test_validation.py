"""What `nexus validate` calls a difference between two templates, and what not; and that every task has a trial."""

from copy import deepcopy
from typing import Any

import pytest

from ops import template as templates
from ops import validation
from ops.social import trial
from social.catalogue import QUEUES
from tests.support import network
from tests.support.template import PATH


@pytest.fixture(scope="module")
def template() -> Any:
    return templates.load(PATH.read_text())


def test_what_sam_packages_is_no_difference(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaFunction"]["Properties"]["CodeUri"] = "s3://bucket/key"
    deployed["Resources"]["NexusLayer"]["Metadata"] = {"SamResourceId": "NexusLayer"}
    assert list(templates.differences(template, deployed)) == []


def test_long_and_short_forms_are_the_same(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaQueue"]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"] = {
        "Fn::GetAtt": ["MediaDeadLetterQueue", "Arn"]
    }
    seconds = template["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"]
    deployed["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"] = str(seconds)
    assert list(templates.differences(template, deployed)) == []


def test_changed_missing_and_foreign_parts_are_named(template: Any) -> None:
    deployed = deepcopy(template)
    deployed["Resources"]["MediaQueue"]["Properties"]["VisibilityTimeout"] = 30
    del deployed["Resources"]["EmailsQueue"]
    deployed["Resources"]["Extra"] = {"Type": "AWS::SQS::Queue"}
    found = list(templates.differences(template, deployed))
    assert found == ["EmailsQueue (not deployed)", "Extra (only deployed)", "MediaQueue"]


def test_the_template_gives_each_queues_concurrency(template: Any) -> None:
    assert {queue: templates.concurrency(template, queue) for queue in QUEUES} == QUEUES


def test_what_drift_detection_leaves_out_is_counted_by_type() -> None:
    types = ["AWS::CloudWatch::Alarm", "AWS::SQS::QueuePolicy", "AWS::CloudWatch::Alarm", "AWS::SQS::Queue"]
    resources = [
        {"ResourceType": kind, "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"}} for kind in types[:3]
    ]
    resources.append({"ResourceType": types[3], "DriftInformation": {"StackResourceDriftStatus": "IN_SYNC"}})
    assert validation.not_checked(resources) == "2 CloudWatch::Alarm, 1 SQS::QueuePolicy"
    assert validation.not_checked(resources[3:]) == ""


@pytest.mark.usefixtures("environment")
def test_every_task_has_safe_arguments_for_its_trial() -> None:
    stage = trial.Stage("nexus-test-u", "nexus-test-p", "uploads/nexus-test-u/nexus-test-p/test.png")
    for name in network.tasks():
        network.tasks()[name].check(trial.arguments(name, stage))


def test_the_trial_does_nothing_that_lasts() -> None:
    stage = trial.Stage("u", "p", "k")
    assert trial.arguments("cleanup_old_posts", stage) == {"mode": "review"}
    assert trial.arguments("send_content_digest_email", stage) == {"week": "2015-W01"}
    assert trial.ADDRESS.endswith("@simulator.amazonses.com")
