"""The budgets of an invocation's tasks: attempts are booked before a batch is claimed, and charged when they end."""

from collections import Counter

from nexus.definitions import Budget
from nexus.runs import budget
from nexus.runs.budget import Purse
from nexus.runs.spent import Spent
from nexus.worker.delivery import Claimed, Readable


class Bookings:
    """The attempts that an invocation has booked, by task."""

    def __init__(self) -> None:
        self._purses: dict[str, Purse] = {}
        self._unused: dict[str, int] = {}
        self._uncharged = ""
        """The run whose attempt has begun and is not yet in its task's account."""

    def book(self, batch: list[Readable]) -> tuple[list[Readable], list[Readable]]:
        """Books an attempt for each run whose task has a budget. Returns the runs that may begin today, and the others.

        Runs of tasks without a budget may always begin.
        """
        budgets = {one.task.name: one.task.budget for one in batch if one.task.budget is not None}
        if not budgets:
            return batch, []
        wanted = Counter(one.task.name for one in batch)
        self._purses = {name: _purse(name, declared) for name, declared in budgets.items()}
        for name, purse in self._purses.items():
            self._unused[name] = purse.take(wanted[name])
        left = dict(self._unused)
        affordable, waiting = [], []
        for readable in batch:
            name = readable.task.name
            if left.get(name) == 0:
                waiting.append(readable)
                continue
            if name in left:
                left[name] -= 1
            affordable.append(readable)
        return affordable, waiting

    def begin(self, claimed: Claimed) -> None:
        """Uses a booked attempt."""
        if claimed.task.name in self._unused:
            self._unused[claimed.task.name] -= 1
            self._uncharged = claimed.envelope.id

    def charge(self, claimed: Claimed, spent: Spent) -> None:
        """Charges the attempt that has begun, if it is this run's. `spent` is the usage of all the run's attempts."""
        if self._uncharged == claimed.envelope.id:
            self._uncharged, before = "", Spent.of(claimed.item)
            self._purses[claimed.task.name].spent(spent.dollars - (before.dollars if before else 0.0))

    def give_back(self) -> None:
        """Returns the booked attempts that did not begin."""
        for task, unused in self._unused.items():
            self._purses[task].give_back(unused)


_purses: dict[str, Purse] = {}


def _purse(task: str, declared: Budget) -> Purse:
    return _purses.setdefault(budget.key(task), Purse(task, declared))
