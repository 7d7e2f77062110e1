"""Who changed what, and when: one item in the run table for each change, kept as long as run records.

Each command of `nexus`, each click of `nexus web` and each key of `nexus monitor` runs in a `Change`. Its entry is
written just before its first request that is not known to be read-only, whichever code makes it, and again at the end
with the outcome. So no change has to remember its entry, an interrupted change has one, and a command that only reads
has none. A change goes ahead even if its entry cannot be written: the audit trail must not block an operator who
pauses a queue in an emergency. It then prints the entry, and the command exits with 1.

The items are in the index `live`, in a separate partition.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ops.spans import At

if TYPE_CHECKING:
    from nexus.backend.store import Write
    from ops.problems import Problem

PARTITION: Final = "audit"
UNDER_WAY: Final = "(in progress, or interrupted)"

_READS: Final = re.compile(
    "(Get|List|Describe|Head|BatchGet|Filter|Simulate|Detect|Lookup)[A-Z].*|Query|Scan|AssumeRole"
    # Receiving messages only hides them for a moment. A change set is only a plan until it is executed.
    "|ReceiveMessage|ChangeMessageVisibilityBatch|(Create|Delete)ChangeSet"
)


def reads(operation: str) -> bool:
    """Whether an AWS API operation is read-only. An operation not known here counts as a change."""
    return _READS.fullmatch(operation) is not None


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: `at` in seconds since 1970, `who` by their account, `what` the command or action, the subject and the
    outcome."""

    at: At
    who: str
    what: str
    about: Mapping[str, Any]
    outcome: str


class Change:
    """Something that may change the deployment, and its entry once it does. Safe to use from several threads.

    `by` is the person, where AWS does not know. `outcome` is what the change reports, `so_far` what it has done if it
    does not get to its end; `missing` is why the entry, or its end, could not be written.
    """

    def __init__(self, what: str, about: Mapping[str, Any], by: str = "") -> None:
        self.by = by
        self.what = what
        self.about = about
        self.outcome = ""
        self.so_far = ""
        self.missing: Problem | None = None
        self._key = ""
        self._entry: Entry | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Writes the entry, once, before the first request that changes something."""
        from nexus import clock
        from nexus.ids import new_id

        with self._lock:
            if self._entry is None:
                self._key = f"audit/{new_id()}"
                self._entry = Entry(clock.moment(), self.by, self.what, self.about, UNDER_WAY)
                self._write()

    def end(self, outcome: str) -> None:
        """Writes the complete entry with the outcome, if the change has begun."""
        with self._lock:
            if self._entry is not None:
                self._entry = replace(self._entry, outcome=outcome)
                self._write()

    def _write(self) -> None:
        from nexus.backend import backend
        from ops.problems import explained

        assert self._entry is not None
        outside = _current.set(None)  # these requests are not a change of their own
        try:
            if not self._entry.who:
                self._entry = replace(self._entry, who=_who())
            backend().store.apply(_note(self._key, self._entry))
        except Exception as error:
            self.missing = explained(error)
            if self.missing is None:
                raise
        else:
            self.missing = None
        finally:
            _current.reset(outside)

    def complaint(self) -> "Problem":
        """The message when the entry could not be written. It includes the entry, so that the operator can keep it."""
        from nexus.values import compact
        from ops.problems import Problem

        assert self.missing is not None
        assert self._entry is not None
        kept = {name: getattr(self._entry, name) for name in Entry.__slots__}
        why = f"{self.missing.what}. {self.missing.why}".strip()
        return Problem("The change was made, but the audit trail has no entry for it", why, compact(kept))


_current: ContextVar[Change | None] = ContextVar("change", default=None)


@contextmanager
def changing(made: Change) -> Iterator[None]:
    """Attributes everything that the block and its threads change to this change."""
    from ops.problems import explained

    outer = _current.set(made)
    try:
        yield
    except BaseException as error:
        problem = explained(error)
        how = made.outcome or (f"failed: {problem.what}" if problem else type(error).__name__)
        made.end(f"{how}; before that: {made.so_far}" if made.so_far else how)
        raise
    else:
        made.end(made.outcome or "done")
    finally:
        _current.reset(outer)


def begin() -> None:
    """Marks the change as begun, for code that changes something without a botocore client."""
    made = _current.get()
    if made is not None:
        made.begin()


def note_outcome(outcome: str) -> None:
    """Records the outcome of the current change, for its entry."""
    made = _current.get()
    if made is not None:
        made.outcome = outcome


def note_progress(so_far: str) -> None:
    """Records what the current change has done so far, for when it is interrupted or fails."""
    made = _current.get()
    if made is not None:
        made.so_far = so_far


def watch() -> None:
    """Hooks every client so that it announces its requests to the current change."""
    from nexus.aws import sdk
    from ops import aws

    sdk.announce(_announced)
    aws.session().register("before-call", _on_botocore_call, unique_id="nexus.audit")


def _announced(operation: str) -> None:
    if not reads(operation):
        begin()


def _on_botocore_call(**event: Any) -> None:
    _announced(event["model"].name)


def _note(key: str, entry: Entry) -> "Write":
    """The write of an entry. It is idempotent, and the later write wins."""
    from nexus.backend.store import Value, Write
    from nexus.runs import transitions
    from nexus.values import compact

    values: dict[str, Value] = {"live": PARTITION, "since": entry.at, "who": entry.who, "what": entry.what}
    also: dict[str, Value] = {"about": compact(dict(entry.about))[:4000], "outcome": entry.outcome[:1000]}
    return Write(key, {**values, **also, "expires": transitions.keep_until(entry.at)})


def _who() -> str:
    """The caller as AWS knows it, and the user account on this machine."""
    import getpass
    import os

    from ops.aws import client

    try:
        account = getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        account = f"uid {os.getuid()}"
    return f"{client('sts').get_caller_identity()['Arn']} ({account})"


def entries(limit: int = 50, *, who: str = "", what: str = "", since: float = 0.0) -> list[Entry]:
    """The latest changes, newest first, whose `who` and `what` contain these words, ignoring case."""
    from nexus.backend import backend
    from nexus.backend.store import RUNS

    found: list[Entry] = []
    times = (since, 9_999_999_999)
    for page in RUNS.query(PARTITION, index="live", between=times, newest_first=True, limit=max(limit, 100)):
        ids = [str(item["id"]["S"]) for item in page.items]
        kept = backend().store.get(ids) if ids else {}
        for item in (kept[one] for one in ids if one in kept):
            entry = _entry(item)
            if who.lower() in entry.who.lower() and what.lower() in entry.what.lower():
                found.append(entry)
                if len(found) == limit:
                    return found
    return found


def _entry(item: Mapping[str, Any]) -> Entry:
    try:
        about = json.loads(str(item["about"]))
    except ValueError:
        about = {"cut": str(item["about"])}
    return Entry(float(item["since"]), str(item["who"]), str(item["what"]), about, str(item["outcome"]))
