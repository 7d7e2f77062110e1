"""A task's daily budget (UTC), shared by all sandboxes: an item of the run table counts attempts booked and their cost.

A sandbox books the attempts of a batch before it claims them, in one write that also reports the cost of its earlier
attempts. The response has the total booked by all sandboxes: attempts beyond the limits do not run. So attempts never
exceed their limit, not even by one. Dollars are estimated: the known costs, plus the mean cost of the day (or of the
day before) for each attempt whose cost is not known yet; if the last attempts cost more than the mean, dollars can
exceed their limit. Attempts booked by a sandbox that dies stay booked, which reduces the day's budget.
"""

import math
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from nexus import clock
from nexus.aws.dynamodb import Condition, equals
from nexus.backend import backend
from nexus.backend.store import Applied, Item, Store, Value, Write, number
from nexus.definitions import Budget

LOOK_AGAIN = 60.0
"""Seconds after which a sandbox that found a budget spent checks whether it has been raised."""

UNKNOWN = 6_000
"""Estimated nanodollars of an attempt when none has run yet: the runtime's own cost."""

UNLIMITED = 1_000_000_000
"""Attempts that a task without a limit may book."""

KEPT = 400 * 86_400
NANO = 1_000_000_000


def key(task: str) -> str:
    """The key of a task's account."""
    return f"budget/{task}"


@dataclass(frozen=True, slots=True)
class Account:
    """A task's day: `runs` are booked, `done` are those whose cost is known, `nano` their nanodollars.

    `mean` is the previous day's, in nanodollars; `limits` are an operator's, in place of the declared ones.
    """

    day: str = ""
    runs: int = 0
    done: int = 0
    nano: int = 0
    mean: float = 0.0
    limits: Budget | None = None

    @classmethod
    def of(cls, item: Item) -> Self:
        limits = Budget(number(item, "limit_dollars"), _whole(item, "limit_runs")) if "limited" in item else None
        return cls(
            day=str(item.get("day", "")),
            runs=_whole(item, "runs") or 0,
            done=_whole(item, "done") or 0,
            nano=_whole(item, "nano") or 0,
            mean=number(item, "mean") or 0.0,
            limits=limits,
        )

    def on(self, day: str) -> "Account":
        """The account of this day, or of a later one if another sandbox's clock is ahead."""
        return self if self.day >= day else Account(day, mean=self.each, limits=self.limits)

    @property
    def each(self) -> float:
        """The estimated nanodollars of an attempt."""
        return self.nano / self.done if self.done > 0 else self.mean or UNKNOWN

    @property
    def dollars(self) -> float:
        """What has been spent, as far as known, and what is booked."""
        return (self.nano + max(0, self.runs - self.done) * self.each) / NANO

    def room(self, limits: Budget) -> int:
        """How many more attempts the limits allow; negative if too many are booked."""
        room = UNLIMITED if limits.runs is None else limits.runs - self.runs
        if limits.dollars is not None:
            left = (limits.dollars - self.dollars) * NANO / self.each
            # Even if one attempt may cost more than the budget, one runs each day: otherwise its cost would never be
            # known.
            first = limits.dollars > 0 and self.runs <= 1
            room = min(room, max(1 - self.runs, math.floor(left)) if first else math.floor(left))
        return room


def _whole(item: Item, name: str) -> int | None:
    value = number(item, name)
    return None if value is None else int(value)


def today(now: float) -> str:
    """The day as an account names it."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"


def tomorrow(now: float) -> float:
    """The start of the next day, in seconds since 1970."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day + timedelta(days=1)).timestamp()


class Purse:
    """A sandbox's access to a task's account: `declared` limits apply unless an operator has set others."""

    def __init__(self, task: str, declared: Budget) -> None:
        self._key, self._declared = key(task), declared
        self._store: Store | None = None
        self._forget()

    def _forget(self) -> None:
        self._account: Account | None = None
        self._shut_until = 0.0
        self._day = ""
        self._spare = self._done = self._nano = 0

    def take(self, wanted: int) -> int:
        """Books up to this many attempts for the caller. Returns how many it may run."""
        if self._store is not backend().store:
            self._store = backend().store
            self._forget()
        now = clock.now()
        if now < self._shut_until:
            return 0
        if self._account is None or self._shut_until:
            self._account, self._shut_until = Account.of(self._store.get([self._key]).get(self._key, {})), 0.0
        granted = self._take(self._account, today(now), wanted)
        if granted < wanted:
            self._shut_until = min(now + LOOK_AGAIN, tomorrow(now))
        return granted

    def _take(self, known: Account, day: str, wanted: int) -> int:
        account = self._mine(known).on(day)
        granted = min(wanted, max(0, account.room(self._limits(account))))
        if not granted and not self._done and not self._spare:
            return 0
        self._account = after = self._book(account, granted)
        # Other sandboxes have booked attempts in the meantime; those come first.
        self._spare = min(granted, max(0, -after.room(self._limits(after))))
        return granted - self._spare

    def _mine(self, known: Account) -> Account:
        """The account with what this sandbox knows of the day and has not written yet."""
        if self._day != known.day:
            return known
        done, nano = known.done + self._done, known.nano + self._nano
        return replace(known, runs=known.runs - self._spare, done=done, nano=nano)

    def _limits(self, account: Account) -> Budget:
        return account.limits or self._declared

    def give_back(self, unused: int) -> None:
        """Returns this many booked attempts that did not run."""
        self._spare += unused

    def spent(self, dollars: float) -> None:
        """Notes the cost of one attempt."""
        self._done += 1
        self._nano += round(dollars * NANO)

    def _book(self, account: Account, granted: int) -> Account:
        """Adds this many attempts and the costs known since; begins the day if no sandbox has."""
        known = self._account or Account()
        while True:
            if self._day != account.day:  # the unwritten counts belong to a day that is over
                self._spare = self._done = self._nano = 0
                self._day = account.day
            # A repeat of a request whose response was lost finds its own nonce, and does not count twice.
            nonce = uuid.uuid4().hex
            values: dict[str, Value] = {"by": nonce, "expires": int(clock.now()) + KEPT}
            if account.day == known.day:
                added = {"runs": granted - self._spare, "done": self._done, "nano": self._nano}
                unrepeated = Condition("by", "missing or <>", nonce)
                write = Write(self._key, values, add=added, when=(equals("day", account.day), unrepeated))
            else:
                values |= {"day": account.day, "runs": granted, "done": 0, "nano": 0, "mean": account.mean}
                write = Write(self._key, values, when=(equals("day", known.day or None),))
            outcome = backend().store.apply(write)
            known = Account.of(outcome.item or {})
            if isinstance(outcome, Applied):
                self._spare = self._done = self._nano = 0
                return known
            account = known.on(account.day)
