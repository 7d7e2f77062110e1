"""Running tasks: the Lambda handler of every queue, and what a task sees of its own run.

Belongs here: decoding events, claiming, running and settling runs, fan-outs, time limits, log lines. Does not belong
here: what a producer needs (`nexus.client`), and the rules of the run record (`nexus.runs`).
"""

from nexus.errors import Reject, Retry
from nexus.registry import implements, implements_part
from nexus.worker.entry import handler, handler_for
from nexus.worker.run import Continuation, Continued, FannedOut, Run

__all__ = [
    "Continuation",
    "Continued",
    "FannedOut",
    "Reject",
    "Retry",
    "Run",
    "handler",
    "handler_for",
    "implements",
    "implements_part",
]
