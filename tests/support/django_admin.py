"""The admin of the test project: its stack in moto, the staff who open its pages, the worker."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from nexus.aws.sdk import client as aws_client
from nexus.backend.transport import queue_url
from nexus.django import conf
from nexus.eager import Context
from nexus.registry import registry
from nexus.settings import settings
from nexus.worker.entry import serve
from ops import logs
from ops.deployment import Deployment
from ops.django_admin import pages
from tests.support import moto_cloud
from tests.support.django_project import tasks as project

EVIL = "<script>alert(1)</script>"


class World:
    """The deployment as CloudFormation describes it; a test sets `stage` and `error`."""

    stage = "dev"
    error: Exception | None = None

    def describe(self, stack: str, *, named: bool = False) -> Deployment:
        if self.error is not None:
            raise self.error
        outputs = {"Catalogue": conf.CATALOGUE} | {
            f"{queue.capitalize()}QueueUrl": f"https://sqs/1/{stack}-{queue}" for queue in ("default", "emails")
        }
        return Deployment(stack, "UPDATE_COMPLETE", "eu-west-1", "1", {"Stage": self.stage}, outputs=outputs)


@pytest.fixture
def world(deployment: None, database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The project's stack in moto, empty, as the admin sees it."""
    moto_cloud.clear()
    project.calls.clear()
    made = World()
    line = logs.Line("1", 1.8e9, "default", f"it wrote {EVIL}", "ERROR")
    monkeypatch.setattr("ops.deployment.describe", made.describe)
    monkeypatch.setattr(logs, "of_run", lambda *_, **__: iter([line]))
    monkeypatch.setattr("ops.waiting.reasons", lambda _: [])
    pages.site.cache_clear()
    yield made
    pages.site.cache_clear()


def browser(*permissions: str, **more: Any) -> Client:
    """A staff user with these permissions, or a superuser if none are given."""
    name = f"user-{User.objects.count()}"
    user = User.objects.create_user(name, is_staff=True, is_superuser=not permissions)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(**more)
    client.force_login(user)
    return client


def text(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content.decode()
    return str(response.content.decode())


def run_everything(queue: str = "default") -> None:
    """Runs the queue's messages with the worker."""
    registry.load((conf.CATALOGUE,))
    url = queue_url(settings().queue_name(queue))
    while messages := aws_client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages"):
        (message,) = messages
        record = {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": {"ApproximateReceiveCount": "1"},
            "eventSource": "aws:sqs",
        }
        serve(queue, registry.served_by(queue), {"Records": [record]}, Context())
        aws_client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
