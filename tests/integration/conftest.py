"""Integration tests: the runtime on SQS and DynamoDB as they behave, in the deployed stack."""

from tests.support.stack import outputs, post, stack

__all__ = ["outputs", "post", "stack"]
