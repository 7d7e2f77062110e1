"""What a producer uses: sending tasks, groups and chains of them, and the handles to their results.

Belongs here: what a web application imports to send tasks and read results. Not here: anything that runs a task.
"""

from nexus.client.bounded import asynchronous
from nexus.client.canvas import (
    Canvas,
    Chain,
    Group,
    Signature,
    asend_many,
    chain,
    chord,
    group,
    result_of,
    results_of,
    send,
    send_many,
    the_failure,
    then,
)
from nexus.client.checking import check
from nexus.client.handles import AsyncResult, read_records
from nexus.client.steps import Failure

__all__ = [
    "AsyncResult",
    "Canvas",
    "Chain",
    "Failure",
    "Group",
    "Signature",
    "asend_many",
    "asynchronous",
    "chain",
    "check",
    "chord",
    "group",
    "read_records",
    "result_of",
    "results_of",
    "send",
    "send_many",
    "the_failure",
    "then",
]
