"""End-to-end tests: the deployed stack from the outside."""

from tests.support.command import nexus
from tests.support.stack import outputs, post, stack

__all__ = ["nexus", "outputs", "post", "stack"]
