"""The run that sends tasks: the worker sets it, and the client records it as the parent of what is sent meanwhile."""

from contextvars import ContextVar


class Sender:
    """A run, and the ids of the runs that it sends: the first hundred."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.children: list[str] = []


current: ContextVar[Sender | None] = ContextVar("current", default=None)


def parent() -> str | None:
    """The id of the run that sends now; None outside of a task."""
    sender = current.get()
    return sender.run_id if sender else None


def note_child(run_id: str) -> None:
    """Records a run among the children of the run that sends it."""
    sender = current.get()
    if sender is not None and len(sender.children) < 100:
        sender.children.append(run_id)
