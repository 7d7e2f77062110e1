"""The setting NEXUS, which replaces the runtime's environment variables.

NEXUS = {
    "STACK": "myapp-prod",          # the stack that `sam deploy` made
    "ACCOUNT_ID": "123456789012",   # for results that are too large for a run record
    "REGION": "eu-west-1",
    "EAGER": False,                 # run each task in this process when it is enqueued
    "MODULES": ["users.tasks"],     # where tasks may be found; by default the module `tasks` of each installed app
    "WEB": "http://127.0.0.1:8765", # where `nexus web` runs, for the admin's links to it
    "RUN_DAYS": 7, "CONNECT_TIMEOUT": 1, "READ_TIMEOUT": 2, "ATTEMPTS": 2, "SEND_TIMEOUT": 4.5,
}

None is the same as leaving a name out. An environment variable overrides the setting: a function's variables say which
stack and queue it serves.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.tasks import task_backends
from django.utils.module_loading import module_has_submodule

from nexus import backend
from nexus import settings as runtime
from nexus.aws import sdk
from nexus.errors import ConfigurationError

CATALOGUE = "nexus.django.catalogue"
VARIABLES = {
    "STACK": "NEXUS_STACK",
    "ACCOUNT_ID": "NEXUS_ACCOUNT_ID",
    "REGION": "AWS_REGION",
    "RUN_DAYS": "NEXUS_RUN_DAYS",
    "CONNECT_TIMEOUT": "NEXUS_CONNECT_TIMEOUT",
    "READ_TIMEOUT": "NEXUS_READ_TIMEOUT",
    "ATTEMPTS": "NEXUS_ATTEMPTS",
    "SEND_TIMEOUT": "NEXUS_SEND_TIMEOUT",
}
OTHERS = ("EAGER", "MODULES", "WEB")
EAGER = "nexus.eager"


def given() -> Mapping[str, Any]:
    """The setting NEXUS, without the names whose value is None.

    Raises ConfigurationError if it is not a mapping of the names above, or MODULES is not a list.
    """
    value = getattr(django_settings, "NEXUS", {})
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"NEXUS is a {type(value).__name__}: it must be a dictionary")
    known = {*VARIABLES, *OTHERS}
    if unknown := sorted(set(value) - known):
        raise ConfigurationError(f"NEXUS has no {', '.join(unknown)}: it takes {', '.join(sorted(known))}")
    if isinstance(value.get("MODULES"), str):
        raise ConfigurationError(f"NEXUS: MODULES is {value['MODULES']!r}: it must be a list of modules")
    return {name: one for name, one in value.items() if one is not None}


def apply() -> None:
    """Applies NEXUS as the runtime's settings. Idempotent. Raises ConfigurationError."""
    values = given()
    variables = {VARIABLES[name]: str(value) for name, value in values.items() if name in VARIABLES}
    if values.get("EAGER"):
        if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
            raise ConfigurationError("NEXUS has EAGER in a Lambda function: name the STACK instead, and deploy again")
        variables |= {"NEXUS_BACKEND": EAGER, "NEXUS_CATALOGUE": CATALOGUE}
    if runtime.configure(variables):
        backend.reset()
        sdk.reset()


@receiver(setting_changed)
def _follow(*, setting: str, **_: Any) -> None:
    """Within a test's `override_settings(NEXUS=...)` the runtime has those settings, after it the project's own again.

    An invalid setting does not end the test here: Django makes its backends again, which report it, as does the check.
    """
    modules.cache_clear()
    if setting != "NEXUS":
        return
    for made in task_backends.all(initialized_only=True):
        del task_backends[made.alias]
    with suppress(ConfigurationError):
        apply()


@cache
def modules() -> Sequence[str]:
    """The modules that may contain tasks: NEXUS["MODULES"], or the module `tasks` of each installed app."""
    named = given().get("MODULES")
    if named is not None:
        return tuple(named)
    return tuple(f"{app.name}.tasks" for app in apps.get_app_configs() if module_has_submodule(app.module, "tasks"))


def allows(path: str) -> bool:
    """Whether the dotted path of a task is in one of those modules or their submodules."""
    return path.startswith(tuple(f"{module}." for module in modules()))
