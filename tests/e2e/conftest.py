"""End-to-end tests: the deployed stack from the outside."""

from tests.support.stack import outputs, post, stack

__all__ = ["outputs", "post", "stack"]
