"""How long a test waits for what must come."""

from typing import Final

PATIENCE: Final = 240.0
"""Seconds after which a wait for a condition fails: a guard against hangs, not a measure."""
