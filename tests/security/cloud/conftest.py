"""The attacker's suite on the deployed stack: `make e2e` runs it."""

from tests.support.stack import outputs, post, stack

__all__ = ["outputs", "post", "stack"]
