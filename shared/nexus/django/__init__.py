"""Django's tasks on Lambda: a backend for `django.tasks` (Django 6.0 and later) whose worker is this runtime.

    TASKS = {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": ["default", "emails"]}}
    INSTALLED_APPS = [..., "nexus.django"]
    NEXUS = {"STACK": "myapp-prod", "ACCOUNT_ID": "123456789012", "REGION": "eu-west-1"}

Belongs here: the translation between Django's tasks, settings, checks and database, and the runtime's. Does not belong
here: anything that runs a task, which is `nexus.worker`. Only this package of `nexus` imports Django.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexus.django.backend import Backend
    from nexus.django.sending import enqueue_many, enqueue_on_commit
    from nexus.django.tasks import policy
    from nexus.django.test import NexusTestCase

__all__ = ["Backend", "NexusTestCase", "enqueue_many", "enqueue_on_commit", "policy"]

_WHERE = {
    "Backend": "nexus.django.backend",
    "NexusTestCase": "nexus.django.test",
    "enqueue_many": "nexus.django.sending",
    "enqueue_on_commit": "nexus.django.sending",
    "policy": "nexus.django.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'nexus.django' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
