"""Shared by the jobs over the data: counting their work, skipping bad rows, planning segments."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus.aws.rows import BadRow
from nexus.aws.table import Meter, Table
from social.catalogue import SweepReport

if TYPE_CHECKING:
    from nexus.worker import Run

SEGMENT_BYTES = 256 * 1024 * 1024
"""The size of one segment of a scan: 256 requests, 10 to 20 seconds."""

MAX_SEGMENTS = 3_000
"""The most segments of one scan. A job scans up to three tables, and a fan-out has at most 10,000 segments. Segments of
larger tables are larger, and are continued.
"""

BAD_ROWS_LOGGED = 100


@dataclass(slots=True)
class Tally:
    """A job's counts so far. `skipped` rows were changed by another writer meanwhile, `failed` cannot be read."""

    run: "Run"
    rows_read: int = 0
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    meter: Meter = field(default_factory=Meter)
    _before: SweepReport = field(default_factory=SweepReport)
    _started: float = field(default_factory=time.monotonic)
    _logged: int = 0

    @classmethod
    def resumed(cls, run: "Run") -> "Tally":
        """The tally of a run that may have been continued: starts from the sums in its cursor."""
        before = (run.cursor or {}).get("report")
        return cls(run, _before=SweepReport.model_validate(before) if before else SweepReport())

    def bad(self, row: BadRow) -> None:
        """Counts a row that cannot be read, and logs its key and fault; after a hundred it only counts."""
        self.failed += 1
        if self._logged < BAD_ROWS_LOGGED:
            self._logged += 1
            self.run.logger.warning("bad row skipped", key=row.key[:200], reason=row.reason[:200])

    def written(self, outcomes: Sequence[bool]) -> None:
        """Counts conditional writes: changed if made, skipped if another writer was faster."""
        made = sum(outcomes)
        self.changed += made
        self.skipped += len(outcomes) - made

    def report(self) -> SweepReport:
        """The counts as a report, including earlier invocations of the same run."""
        now = SweepReport(
            rows_read=self.rows_read,
            changed=self.changed,
            skipped=self.skipped,
            failed=self.failed,
            requests=self.meter.requests,
            read_units=round(self.meter.read_units, 1),
            write_units=round(self.meter.write_units, 1),
            seconds=round(time.monotonic() - self._started, 3),
        )
        return self._before.add(now)

    def numbers(self) -> dict[str, Any]:
        """The report as keyword arguments of a report with more fields."""
        return self.report().model_dump()

    def cursor(self, **place: Any) -> Mapping[str, Any]:
        """A cursor with the sums so far, from which `resumed` continues."""
        return {**place, "report": self.report().model_dump()}


def segments(table: Table, index: str | None = None, *, meter: Meter | None = None) -> int:
    """The number of segments for a scan of the table, or of one of its indexes."""
    _, size = table.size(index, meter=meter)
    return max(1, min(MAX_SEGMENTS, -(-size // SEGMENT_BYTES)))
