"""What Lambda's own lines say of sandboxes."""

from ops.functions import of_reports

COLD = (
    "REPORT RequestId: 1\tDuration: 120.50 ms\tBilled Duration: 821 ms\tMemory Size: 512 MB\tMax Memory Used: 90 MB\t"
    "Init Duration: 700.10 ms\t\nXRAY TraceId: 1-2-3\tSegmentId: 4\tSampled: true"
)
WARM = "REPORT RequestId: 2\tDuration: {} ms\tBilled Duration: 4 ms\tMemory Size: 512 MB\tMax Memory Used: {} MB\t"


def test_cold_starts_memory_and_durations_are_in_the_reports() -> None:
    found = of_reports([COLD, *(WARM.format(n, 100 + n) for n in range(1, 100))], 3600.0)
    assert (found.invocations, found.cold_starts, found.cold_start_median) == (100, 1, 0.7)
    assert (found.memory_median, found.memory_p95) == (150, 195)
    assert (found.durations[0], found.durations[-1]) == (0.001, 0.1205)


def test_figures_that_the_log_lacks_are_none() -> None:
    found = of_reports([WARM.format(7, 0)], 3600.0)
    assert (found.cold_starts, found.cold_start_median, found.memory_median, found.memory_p95) == (0, None, None, None)
    assert of_reports([], 3600.0).durations == ()
