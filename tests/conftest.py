"""For all tests: no property depends on how long an example takes, and fixtures serve all examples of a property."""

import pytest
from hypothesis import HealthCheck, settings

_unchecked = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("untimed", deadline=None, suppress_health_check=_unchecked)
settings.load_profile("untimed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Says how to repeat the order of a run that failed, which pytest-randomly does not with -q."""
    seed = config.getoption("randomly_seed", None)
    if seed is not None and exitstatus == pytest.ExitCode.TESTS_FAILED:
        again = f"make with ORDER={seed}, or -p pytest_randomly --randomly-seed={seed}"
        terminalreporter.write_line(f"In this order again: {again}")
