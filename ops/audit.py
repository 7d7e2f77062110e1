"""Who changed what, and when: an item of the run table for each change, kept as long as run records.

Each command of `nexus`, each click of `nexus web` and each key of `nexus monitor` runs in a `Change`. Its entry is
written when its first request that is not known to be a reading one is about to go out, whichever code makes it, and
again at the end with what came of it. So no change has to remember its entry, one that was cut short has one, and what
only reads has none. A change whose entry cannot be written is made all the same: somebody who pauses a queue in need
must not be held up by it. Then it says so, with the entry, and a command ends with 1.

The items are in the index `live`, in a partition of their own.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nexus.backend.store import Write
    from ops.problems import Problem

PARTITION: Final = "audit"
UNDER_WAY: Final = "(under way, or cut short)"

_READS: Final = re.compile(
    "(Get|List|Describe|Head|BatchGet|Filter|Simulate|Detect|Lookup)[A-Z].*|Query|Scan|AssumeRole"
    # A look at messages hides them for a moment. A change set is a plan until it is executed.
    "|ReceiveMessage|ChangeMessageVisibilityBatch|(Create|Delete)ChangeSet"
)


def reads(operation: str) -> bool:
    """Whether an operation of AWS's API changes nothing; one that is not known here does."""
    return _READS.fullmatch(operation) is not None


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: `at` in seconds since 1970, `who` by their account, `what` the command or action, with what it was
    about and what came of it."""

    at: float
    who: str
    what: str
    about: Mapping[str, Any]
    outcome: str


class Change:
    """Something that may change the deployment, and its entry once it does. Safe to share between threads.

    `by` whom, where AWS cannot tell. `outcome` is what it says of itself; `missing` is why the entry, or its end, could
    not be written.
    """

    def __init__(self, what: str, about: Mapping[str, Any], by: str = "") -> None:
        self.by = by
        self.what = what
        self.about = about
        self.outcome = ""
        self.missing: Problem | None = None
        self._key = ""
        self._entry: Entry | None = None
        self._lock = threading.Lock()

    @property
    def begun(self) -> bool:
        """Whether something has been changed, or is about to be."""
        return self._entry is not None

    def begin(self) -> None:
        """Writes the entry, once: before the first request that changes something."""
        from nexus import clock
        from nexus.ids import new_id

        with self._lock:
            if self._entry is None:
                self._key = f"audit/{new_id()}"
                self._entry = Entry(clock.moment(), self.by, self.what, self.about, UNDER_WAY)
                self._write()

    def end(self, outcome: str) -> None:
        """Writes the entry whole, with what came of it, if there is one."""
        with self._lock:
            if self._entry is not None:
                self._entry = replace(self._entry, outcome=outcome)
                self._write()

    def _write(self) -> None:
        from nexus.backend import backend
        from ops.problems import explained

        assert self._entry is not None
        outside = _current.set(None)  # these requests are no change of their own
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
        """What is said when the entry could not be written: the entry itself, for who wants to keep it."""
        from nexus.values import compact
        from ops.problems import Problem

        assert self.missing is not None
        assert self._entry is not None
        kept = {name: getattr(self._entry, name) for name in Entry.__slots__}
        why = f"{self.missing.what}. {self.missing.why}".strip()
        return Problem("The change stands, and the audit trail does not have it", why, compact(kept))


_current: ContextVar[Change | None] = ContextVar("change", default=None)


@contextmanager
def changing(made: Change) -> Iterator[None]:
    """What the code within, and the threads that it starts, changes is this change."""
    from ops.problems import explained

    outer = _current.set(made)
    try:
        yield
    except BaseException as error:
        problem = explained(error)
        made.end(made.outcome or (f"failed: {problem.what}" if problem else type(error).__name__))
        raise
    else:
        made.end(made.outcome or "done")
    finally:
        _current.reset(outer)


def begin() -> None:
    """For what changes something by other means than botocore's clients: it is about to."""
    made = _current.get()
    if made is not None:
        made.begin()


def tell(outcome: str) -> None:
    """What came of the change that this code is part of, for its entry."""
    made = _current.get()
    if made is not None:
        made.outcome = outcome


def watch() -> None:
    """Lets every client announce its requests to the change that makes them."""
    from nexus.aws import sdk
    from ops import aws

    sdk.announce(_announced)
    aws.session().register("before-call", _of_botocore, unique_id="nexus.audit")


def _announced(operation: str) -> None:
    if not reads(operation):
        begin()


def _of_botocore(**said: Any) -> None:
    _announced(said["model"].name)


def _note(key: str, entry: Entry) -> "Write":
    """The write of an entry: the same again is the same, and the later one counts."""
    from nexus.backend.store import Value, Write
    from nexus.runs import transitions
    from nexus.values import compact

    values: dict[str, Value] = {"live": PARTITION, "since": entry.at, "who": entry.who, "what": entry.what}
    also: dict[str, Value] = {"about": compact(dict(entry.about))[:4000], "outcome": entry.outcome[:1000]}
    return Write(key, {**values, **also, "expires": transitions.keep_until(entry.at)})


def _who() -> str:
    """The caller as AWS knows it, and the account of this machine."""
    import getpass
    import os

    from ops.aws import client

    try:
        account = getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        account = f"uid {os.getuid()}"
    return f"{client('sts').get_caller_identity()['Arn']} ({account})"


def entries(limit: int = 50, *, who: str = "", what: str = "", since: float = 0.0) -> list[Entry]:
    """The latest changes, the newest first: of those whose who and what have these words in them, in any case."""
    from nexus.backend import backend
    from nexus.backend.store import RUNS

    found: list[Entry] = []
    for page in RUNS.query(PARTITION, index="live", between=(since, 9_999_999_999), newest_first=True):
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
