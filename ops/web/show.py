"""Formats values for a page: times, ages, sizes, small charts. All text is untrusted."""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nexus.values import compact
from ops.budgets import in_words
from ops.cli import output
from ops.cost import PARTS, dollars
from ops.dead_letters import Letter
from ops.timeline import Bar, TimeLine

HERE = Path(__file__).parent
LINE: Final = 500


def _visible(value: Any) -> Any:
    """Text without characters that reverse the line or are invisible; Jinja then escapes it.

    That is for reading. What a form or a filter sends back is the text itself: `{{ value|e }}`.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return output.safe(value)


def age(seconds: float | None) -> str:
    """A duration; below ten seconds with a fraction."""
    if seconds is None:
        return "-"
    return f"{seconds:.2f}s" if 0 <= seconds < 10 else output.age(seconds)


def whole(number: float | None) -> str:
    """A whole number with thousands separators; None is a dash."""
    return "-" if number is None else f"{number:,.0f}"


def ago(at: float | datetime | None) -> Markup:
    """How long ago, with the exact time as a tooltip and for the script that updates it."""
    moment = output.moment(at)
    if moment is None:
        return Markup("-")
    stamp, away = moment.timestamp(), time.time() - moment.timestamp()
    text = f"{output.age(away)} ago" if away >= 0 else f"in {output.age(-away)}"
    return Markup('<time datetime="{}" data-at="{}" title="{} UTC">{}</time>').format(
        moment.isoformat(), f"{stamp:.0f}", output.time_of(moment), text
    )


def clock(at: float | datetime | None) -> str:
    """A time in UTC."""
    return output.time_of(at)


def words(args: Mapping[str, Any] | None) -> str:
    """Arguments on one line, cut at LINE characters: a dead letter's may be a megabyte."""
    return _cut(output.arguments(args))


def _cut(line: str) -> str:
    return line if len(line) <= LINE else f"{line[:LINE]}…"


def contents(letter: Letter) -> str:
    """A dead letter's arguments on one line, or its body if that has none."""
    if letter.args is not None:
        return words(letter.shown_args)
    body = letter.shown_body
    return _cut(body if isinstance(body, str) else compact(body))


_DONE_AT: Final = (
    (r"nexus (?:result|logs|dlq \w+) ([0-9a-f-]{8,36})\b.*", "/runs/{}"),
    (r"nexus dlq .*", "/dead-letters"),
    (r"nexus schedule \w+ (\w+).*", "/schedules#{}"),
    (r"nexus budget .*", "/cost"),
    (r"nexus (?:resume|concurrency) .*", "/"),
    (r"nexus inspect stats.*", "/tasks"),
)
"""Commands, and the pages that do the same."""


def commands(text: str) -> Markup:
    """Text with `commands` highlighted. The first that a page does is a link to that page."""
    parts = output.safe(text).split("`")
    shown, linked = Markup(""), set[str]()
    for n, part in enumerate(parts):
        code = Markup("<code>{}</code>").format(part) if n % 2 else escape(part)
        page = _page(part) if n % 2 else None
        shown += code if page is None or page in linked else Markup('<a href="{}">{}</a>').format(page, code)
        linked.update([page] if page else [])
    return shown


def _page(command: str) -> str | None:
    """The page that does the same as a command; None if there is none."""
    found = ((re.fullmatch(pattern, command), page) for pattern, page in _DONE_AT)
    return next((page.format(*match.groups()) for match, page in found if match), None)


def pretty(value: Any) -> str:
    """A value as indented JSON, for people: floats are rounded."""
    return exact(output.rounded(value))


def exact(value: Any) -> str:
    """A value as indented JSON that `json.loads` reads as the same value: arguments to edit and send again."""
    return output.json_text(value, indent=2)


def made_of(parts: Mapping[str, float]) -> str:
    """The parts of a sum, largest first, without zeros."""
    named = sorted(((value, PARTS[name]) for name, value in parts.items() if value), reverse=True)
    return ", ".join(f"{name} {dollars(value)}" for value, name in named)


def spark(values: Sequence[float], label: str, *, bars: bool = False) -> Markup:
    """A sparkline of numbers with an accessible label."""
    if len(values) == 1 and not bars:
        values = [*values, *values]  # a level line, and not one that falls to nothing
    top = max([*values, 1])
    step = 120 / max(1, len(values) if bars else len(values) - 1)
    heights = [26 - 24 * value / top for value in values]
    if bars:
        shapes = [
            Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1"/>').format(
                n * step, height, max(1.0, step - 1.2), 28 - height
            )
            for n, height in enumerate(heights)
            if values[n]
        ]
        drawn = Markup("").join(shapes)
    else:
        points = " ".join(f"{n * step:.1f},{height:.1f}" for n, height in enumerate(heights))
        drawn = Markup('<polygon points="0,28 {0} 120,28"/><polyline points="{0}"/>').format(points)
    return Markup('<svg class="spark" viewBox="0 0 120 28" role="img" aria-label="{}">{}</svg>').format(label, drawn)


def strip(bars: Sequence[Bar], line: TimeLine) -> Markup:
    """The bars of a run's timeline, to scale; overlapping ones are stacked."""
    lanes: list[float] = []
    drawn = []
    span = max(line.end - line.start, 0.001)
    for bar in bars:
        if bar.start is None:
            continue
        end = line.end if bar.end is None else bar.end
        lane = next((n for n, free in enumerate(lanes) if free <= bar.start), len(lanes))
        lanes[lane : lane + 1] = [end]
        width = max(3.0, 1000 * (end - bar.start) / span)
        left = min(1000 - width, 1000 * (bar.start - line.start) / span)
        about = f"{bar.label}{f', {bar.status}' if bar.status else ''}: {age(end - bar.start)}"
        rect = Markup('<rect class="{} {}" x="{:.1f}" y="{}" width="{:.1f}"><title>{}</title></rect>').format(
            bar.kind, bar.status, left, lane * 14, width, about
        )
        if bar.run:
            rect = Markup('<a href="/runs/{}" tabindex="-1" aria-label="{}">{}</a>').format(bar.run, about, rect)
        drawn.append(rect)
    height = max(1, len(lanes)) * 14 - 4
    return Markup('<svg class="strip lanes-{}" viewBox="0 0 1000 {}" preserveAspectRatio="none">{}</svg>').format(
        min(max(1, len(lanes)), 20), height, Markup("").join(drawn)
    )


def templates() -> Environment:
    """The pages' templates. An undefined name is an error, not empty text."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.filters |= {"age": age, "ago": ago, "clock": clock, "whole": whole, "words": words, "pretty": pretty}
    made.filters |= {"exact": exact, "commands": commands, "contents": contents}
    made.filters |= {"dollars": dollars, "made_of": made_of, "limits": in_words}
    made.globals |= {"spark": spark, "strip": strip}
    return made
