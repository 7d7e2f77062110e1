"""nexus: background tasks on SQS and Lambda. A catalogue declares tasks, a client sends them, a worker runs them.

This package is generic: it contains no application's tasks, queues or tables. Import what an application needs by name:

    from nexus import Arguments, Result, Task, register

Importing `nexus` costs nothing: each name is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nexus import version

__version__ = version.VERSION

if TYPE_CHECKING:
    from nexus.builtin import ping
    from nexus.client import (
        AsyncResult,
        Canvas,
        Failure,
        Signature,
        asend_many,
        chain,
        check,
        chord,
        group,
        read_records,
        result_of,
        results_of,
        send_many,
        the_failure,
        then,
    )
    from nexus.errors import (
        BudgetSpent,
        ConfigurationError,
        InvalidMessage,
        NexusError,
        Reject,
        Retry,
        Revoked,
        SendFailed,
        StillRunning,
        TaskFailed,
        TimeLimitExceeded,
        UnknownTask,
    )
    from nexus.registry import implements, implements_part, register
    from nexus.tasks import Arguments, Budget, NoArguments, RateLimit, Result, RetryPolicy, Schedule, Task, Unique
    from nexus.worker import Continuation, Run, handler, handler_for

_WHERE = {
    "nexus.builtin": ("ping",),
    "nexus.client": (
        "AsyncResult",
        "Canvas",
        "Failure",
        "Signature",
        "asend_many",
        "chain",
        "check",
        "chord",
        "group",
        "read_records",
        "result_of",
        "results_of",
        "send_many",
        "the_failure",
        "then",
    ),
    "nexus.errors": (
        "BudgetSpent",
        "ConfigurationError",
        "InvalidMessage",
        "NexusError",
        "Reject",
        "Retry",
        "Revoked",
        "SendFailed",
        "StillRunning",
        "TaskFailed",
        "TimeLimitExceeded",
        "UnknownTask",
    ),
    "nexus.registry": ("implements", "implements_part", "register"),
    "nexus.tasks": (
        "Arguments",
        "Budget",
        "NoArguments",
        "RateLimit",
        "Result",
        "RetryPolicy",
        "Schedule",
        "Task",
        "Unique",
    ),
    "nexus.worker": ("Continuation", "Run", "handler", "handler_for"),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Arguments",
    "AsyncResult",
    "Budget",
    "BudgetSpent",
    "Canvas",
    "ConfigurationError",
    "Continuation",
    "Failure",
    "InvalidMessage",
    "NexusError",
    "NoArguments",
    "RateLimit",
    "Reject",
    "Result",
    "Retry",
    "RetryPolicy",
    "Revoked",
    "Run",
    "Schedule",
    "SendFailed",
    "Signature",
    "StillRunning",
    "Task",
    "TaskFailed",
    "TimeLimitExceeded",
    "Unique",
    "UnknownTask",
    "asend_many",
    "chain",
    "check",
    "chord",
    "group",
    "handler",
    "handler_for",
    "implements",
    "implements_part",
    "ping",
    "read_records",
    "register",
    "result_of",
    "results_of",
    "send_many",
    "the_failure",
    "then",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'nexus' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
