"""What AWS charges: a price table, and the cost of a run by its usage. Dollars, before taxes and free tiers.

List prices of us-east-1, on demand, from AWS's pages on DATE (Lambda on arm64, DynamoDB standard tables,
SQS standard queues, S3 Standard). Other regions cost up to a third more: us-west-2 the same, eu-west-1 up to a tenth.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nexus.runs.spent import Spent

REGION: Final = "us-east-1"
DATE: Final = "2026-11-01"
SOURCES: Final = tuple(
    f"https://aws.amazon.com/{service}/pricing/"
    for service in ("lambda", "dynamodb/on-demand", "sqs", "s3", "cloudwatch", "ses", "eventbridge", "secrets-manager")
)

MILLION: Final = 1_000_000
GB: Final = 2**30
MONTH: Final = 30.4
"""Days."""

# What a run uses.
GB_SECOND: Final = 0.0000133334
INVOCATION: Final = 0.20 / MILLION
READ_UNIT: Final = 0.125 / MILLION
WRITE_UNIT: Final = 0.625 / MILLION
SQS_REQUEST: Final = 0.40 / MILLION
S3_PUT: Final = 5.00 / MILLION
"""Copies and lists too; deletions are free."""

S3_GET: Final = 0.40 / MILLION
LOG_BYTE: Final = 0.50 / GB
MAIL: Final = 100.0 / MILLION
SCHEDULE: Final = 1.00 / MILLION

# What is stored, per month.
ALARM: Final = 0.10
SECRET: Final = 0.40
TABLE_GB: Final = 0.25
LOG_GB: Final = 0.03
OBJECT_GB: Final = 0.023


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars by purpose. `requests` are those of DynamoDB, SQS and Scheduler."""

    requests: float = 0.0
    compute: float = 0.0
    s3: float = 0.0
    logs: float = 0.0
    mail: float = 0.0

    @property
    def total(self) -> float:
        return self.requests + self.compute + self.s3 + self.logs + self.mail

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def times(self, factor: float) -> "Cost":
        """This cost multiplied."""
        return Cost(*(getattr(self, one.name) * factor for one in fields(self)))


def cost(spent: "Spent") -> Cost:
    """The cost of a run with this usage."""
    return Cost(
        requests=spent.reads * READ_UNIT
        + spent.writes * WRITE_UNIT
        + spent.messages * SQS_REQUEST
        + spent.schedules * SCHEDULE,
        compute=spent.gb_seconds * GB_SECOND + spent.invocations * INVOCATION,
        s3=spent.puts * S3_PUT + spent.gets * S3_GET,
        logs=spent.log_bytes * LOG_BYTE,
        mail=spent.mails * MAIL,
    )
