"""/metrics: the queues now, and attempts that ended since this process started, in OpenMetrics 1.0.

`ops/grafana` has a dashboard and alert rules for these names.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from ops import catalogue
from ops.counting import BOUNDS
from ops.problems import Problem
from ops.web import money
from ops.web.views import Site

MEDIA_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

type Labels = Mapping[str, str]


def text(site: Site) -> str:
    """All metric families. Raises botocore's errors."""
    return "\n".join([*_queues(site), *_attempts(site), *_money(site), "# EOF", ""])


def _queues(site: Site) -> Iterator[str]:
    view, health = site.monitor(), site.health()
    oldest = {queue.name: queue.oldest for queue in health.queues if queue.oldest is not None}
    gauges: Mapping[str, tuple[str, Mapping[str, float]]] = {
        "waiting_messages": ("Messages that wait", {q.name: q.waiting for q in view.queues}),
        "delayed_messages": ("Messages that are not due yet", {q.name: q.delayed for q in view.queues}),
        "in_flight_messages": ("Messages in flight", {q.name: q.in_flight for q in view.queues}),
        "dead_letters": ("Dead letters", {q.name: q.dead for q in view.queues}),
        "running": ("Runs that have started", {q.name: q.running for q in view.queues}),
        "on": ("1 when its function takes messages", {q.name: int(q.on) for q in view.queues}),
        "oldest_seconds": ("Age of the oldest message", oldest),
    }
    for name, (about, values) in gauges.items():
        yield from _family(f"nexus_queue_{name}", "gauge", about)
        yield from (_sample(f"nexus_queue_{name}", {"queue": queue}, value) for queue, value in values.items())
    yield from _family("nexus_findings", "gauge", "Faults that nexus status reports")
    for severity in ("failed", "warning"):
        count = sum(finding.severity == severity for finding in health.findings)
        yield _sample("nexus_findings", {"severity": severity}, count)


def _attempts(site: Site) -> Iterator[str]:
    counted = site.attempts.update(catalogue.queues())
    created = site.attempts.start
    yield from _family("nexus_task_attempts", "counter", "Attempts that ended")
    for (task, queue), one in counted.items():
        for outcome, count in sorted(one.outcomes.items()):
            labels = {"task": task, "queue": queue, "outcome": outcome}
            yield _sample("nexus_task_attempts_total", labels, count)
            yield _sample("nexus_task_attempts_created", labels, created)
    yield from _family("nexus_task_duration_seconds", "histogram", "How long attempts took")
    for (task, queue), one in counted.items():
        labels = {"task": task, "queue": queue}
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), one.cumulative, strict=True):
            yield _sample("nexus_task_duration_seconds_bucket", {**labels, "le": bound}, count)
        yield _sample("nexus_task_duration_seconds_count", labels, one.cumulative[-1])
        yield _sample("nexus_task_duration_seconds_sum", labels, round(one.seconds, 6))
        yield _sample("nexus_task_duration_seconds_created", labels, created)


def _money(site: Site) -> Iterator[str]:
    """Cost metrics; none if no run history is kept, so that the other metrics still work."""
    try:
        families = list(money.gauges(site))
    except Problem:
        return
    for name, about, samples in families:
        yield from _family(name, "gauge", about)
        yield from (_sample(name, labels, value) for labels, value in samples)


def _family(name: str, kind: str, about: str) -> tuple[str, ...]:
    unit = tuple(f"# UNIT {name} {one}" for one in ("seconds", "dollars") if name.endswith(f"_{one}"))
    return (f"# TYPE {name} {kind}", *unit, f"# HELP {name} {about}.")


def _sample(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
    number = f"{value:.9f}".rstrip("0").rstrip(".")
    return f"{name}{{{shown}}} {number}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
