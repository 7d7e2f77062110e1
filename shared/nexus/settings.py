"""The two variables that point at a deployment, and every name that follows from them.

Physical names are a convention over the stack's name, so that a web application, a function and an
operator all find the same queue without asking CloudFormation, and so that no role needs a circular
reference. `nexus env` prints the variables for a shell.
"""

import os
from dataclasses import dataclass
from functools import lru_cache

from nexus.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the deployment is.

    `stack` is the CloudFormation stack's name, `account_id` the twelve digits of the account (bucket names are
    global, so they carry it).
    """

    stack: str
    account_id: str = ""

    def queue_name(self, queue: str) -> str:
        return f"{self.stack}-{queue}"

    def dead_letter_queue_name(self, queue: str) -> str:
        return f"{self.stack}-{queue}-dead"

    def function_name(self, queue: str) -> str:
        return f"{self.stack}-{queue}"

    def table(self, entity: str) -> str:
        return f"{self.stack}-{entity}"

    def bucket(self, purpose: str) -> str:
        if not self.account_id:
            raise ConfigurationError("NEXUS_ACCOUNT_ID is not set: bucket names carry the account's twelve digits")
        return f"{self.stack}-{purpose}-{self.account_id}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The deployment named by NEXUS_STACK and NEXUS_ACCOUNT_ID; read once, when first asked for.

    Raises ConfigurationError when NEXUS_STACK is missing.
    """
    stack = os.environ.get("NEXUS_STACK", "")
    if not stack:
        raise ConfigurationError("NEXUS_STACK is not set: it names the stack that `sam deploy` made, e.g. nexus-prod")
    return Settings(stack=stack, account_id=os.environ.get("NEXUS_ACCOUNT_ID", ""))


def run_days() -> int:
    """How long a run record is kept: NEXUS_RUN_DAYS, 7 when it is not set.

    Apart from the deployment, since runs in memory have records and no stack. Raises ConfigurationError when it is not
    a positive whole number.
    """
    days = os.environ.get("NEXUS_RUN_DAYS", "7")
    if not days.isdecimal() or int(days) < 1:
        raise ConfigurationError(f"NEXUS_RUN_DAYS is {days!r}: a whole number of days, 1 or more")
    return int(days)
