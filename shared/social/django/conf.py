"""The setting SOCIAL, and the mirrors that it names.

SOCIAL = {
    "STACK": "nexus-prod",          # the network's stack; left out, that of NEXUS
    "MIRRORS": "mysite.mirrors",    # the module with MIRRORS, and READ_BACKS if there are any
    "BACKEND": "default",           # of TASKS: the one whose function writes to the network
    "QUEUE": "default",
}
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from nexus.settings import another_stack

if TYPE_CHECKING:
    from social.django.mirror import Mirror
    from social.django.reading import ReadBack

NAMES = frozenset({"STACK", "MIRRORS", "BACKEND", "QUEUE"})


def given() -> Mapping[str, Any]:
    """The setting SOCIAL. Raises ImproperlyConfigured if it is not a mapping of the names above, with MIRRORS."""
    value = getattr(django_settings, "SOCIAL", None)
    if not isinstance(value, Mapping) or "MIRRORS" not in value or set(value) - NAMES:
        raise ImproperlyConfigured(f"SOCIAL must be a dictionary with MIRRORS, and may have {', '.join(sorted(NAMES))}")
    return value


def network() -> AbstractContextManager[None]:
    """Within the block, for this thread, tasks go to the network's stack, and tables are the network's."""
    stack = given().get("STACK")
    return another_stack(stack) if stack else nullcontext()


def mirrors() -> "dict[str, Mirror[Any]]":
    """The project's mirrors by kind. Raises ImproperlyConfigured for two of the same kind."""
    listed: Sequence[Mirror[Any]] = import_module(given()["MIRRORS"]).MIRRORS
    found = {mirror.kind: mirror for mirror in listed}
    if len(found) < len(listed):
        raise ImproperlyConfigured(
            f"{given()['MIRRORS']}: MIRRORS has two mirrors of the same kind, whose ids could collide"
        )
    return found


def read_backs() -> "Sequence[ReadBack]":
    """The project's read-backs."""
    found: Sequence[ReadBack] = getattr(import_module(given()["MIRRORS"]), "READ_BACKS", ())
    return found
