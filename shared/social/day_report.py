"""The report of a day: figures, four charts of the last month and the most popular posts, as HTML, JSON and CSV.

The HTML is one file without scripts, fonts or external images: the charts are inline SVG with their values in a table
below, and light and dark mode follow the reader's system. Every text from the network is cleaned, escaped, and runs in
the direction of its own letters.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from html import escape
from io import StringIO

from nexus.aws.table import Meter
from social.data import analytics, objects
from social.data.analytics import ContentDay, PopularPost, ReportFormat
from social.data.days import add_days
from social.text import direction, one_line, shortened

DAYS_SHOWN = 30
EXCERPT = 140
NAME = 40
NOBODY = "a deleted user"
"""Replaces the name of an author who was deleted."""

type _Value = Callable[[ContentDay], int]

_MEASURES: Sequence[tuple[str, _Value]] = (
    ("Posts", lambda day: day.total_of_posts),
    ("Comments", lambda day: day.comments),
    ("Active users", lambda day: day.active_users),
    ("New users", lambda day: day.new_users),
)
_VISIBLE_TO = {"public": "public", "followers": "for followers", "private": "private"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #515b6b; --line: #d9dee6; --paper: #f6f7f9; --card: #fff;
  --mark: #2f6fde; --today: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #a3adbc; --line: #333b48; --paper: #14181f;
  --card: #1d232d; --mark: #6fa1ff; --today: #ff8a4c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 1rem; margin: 0 0 8px; }
p.note { color: var(--soft); margin: 0 0 24px; }
.tiles, .charts { display: grid; gap: 12px; grid-template-columns: repeat(2, minmax(0, 1fr)); margin: 0 0 12px; }
.charts { grid-template-columns: minmax(0, 1fr); }
@media (min-width: 800px) { .tiles { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .charts { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; min-width: 0; }
.tiles b { display: block; font-size: 1.25rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.tiles span { display: block; color: var(--soft); font-size: .875rem; }
.plot { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 2px 8px; font-size: .8125rem;
  line-height: 1; color: var(--soft); }
.scale { display: flex; flex-direction: column; justify-content: space-between; text-align: right; }
.dates { grid-column: 2; display: flex; justify-content: space-between; padding-top: 4px; }
svg { width: 100%; height: 160px; display: block; } svg line { stroke: var(--line); vector-effect: non-scaling-stroke; }
rect.day { fill: var(--mark); } rect.today { fill: var(--today); }
details { margin-top: 12px; } summary { cursor: pointer; font-size: .875rem; color: var(--soft); padding: 4px 0; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; margin-bottom: 8px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
th { font-weight: 600; font-size: .875rem; } .number { text-align: right; font-variant-numeric: tabular-nums; }
.text { overflow-wrap: anywhere; width: 100%; } .text > div[dir] { text-align: start; }
.by { color: var(--soft); font-size: .875rem; }
"""


def excerpt(text: str) -> str:
    """A post's text as the report shows it."""
    return shortened(one_line(text), EXCERPT)


def _cleaned(post: PopularPost) -> PopularPost:
    """Removes everything that a page, a terminal or a spreadsheet's cell would interpret."""
    return replace(post, text=excerpt(post.text), author=one_line(post.author))


@dataclass(frozen=True, slots=True)
class _Month:
    """The days from the first counted one to the reported one, in order; None for a day that was not counted."""

    days: Sequence[tuple[str, ContentDay | None]]

    @classmethod
    def of(cls, history: Sequence[ContentDay]) -> "_Month":
        counted = {content.day: content for content in history}
        day, days = history[0].day, []
        while day <= history[-1].day:
            days.append((day, counted.get(day)))
            day = add_days(day, 1)
        return cls(days)

    @property
    def today(self) -> ContentDay:
        content = self.days[-1][1]
        assert content is not None
        return content

    def before(self, days: int) -> ContentDay | None:
        """The day this many days before the reported one, if it was counted."""
        return self.days[-1 - days][1] if days < len(self.days) else None


def publish(content: ContentDay, *, meter: Meter | None = None) -> None:
    """Writes a day's report to the archive bucket in all its formats. Idempotent for the same figures."""
    first, last = add_days(content.day, 1 - DAYS_SHOWN), add_days(content.day, -1)
    history = [*analytics.content_days(first, last, meter=meter), content]
    for form, (write, content_type) in FORMS.items():
        key = analytics.report_key(content.day, form)
        objects.put("archive", key, write(history).encode(), f"{content_type}; charset=utf-8")


def as_html(history: Sequence[ContentDay]) -> str:
    """The report of the last of these days; the others are for charts and comparison. At least one day, in order."""
    month = _Month.of(history)
    today = month.today
    by_visibility = ", ".join(f"{count:,} {_VISIBLE_TO.get(name, name)}" for name, count in sorted(today.posts.items()))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Content on {today.day}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{date.fromisoformat(today.day):%A %-d %B %Y}</h1>
<p class="note">Days are UTC. Posts of the day: {escape(by_visibility) or "none"}.
{_totals(today)}</p>
<section class="tiles" aria-label="Figures of the day">{"".join(_tile(month, *one) for one in _MEASURES)}</section>
<section class="charts" aria-label="The last month">{"".join(_chart(month, *one) for one in _MEASURES)}</section>
<section class="card">{_popular(today)}</section>
</main>
</body>
</html>
"""


def as_json(history: Sequence[ContentDay]) -> str:
    """The same report for programs: the day's figures and posts, and the month's figures by day (null: not counted)."""
    month = _Month.of(history)
    figures = {day: content and _figures(content) for day, content in month.days}
    report = {
        "day": month.today.day,
        "counted_at": month.today.counted_at,
        "totals_at": month.today.totals_at,
        "figures": figures[month.today.day],
        "popular": [asdict(_cleaned(post)) for post in month.today.popular],
        "days": figures,
    }
    return json.dumps(report, ensure_ascii=False, indent=2) + "\n"


def as_csv(history: Sequence[ContentDay]) -> str:
    """The month's figures for a spreadsheet, one row per day; a day that was not counted has only its date."""
    month = _Month.of(history)
    names = list(_figures(month.today))

    def row(day: str, content: ContentDay | None) -> Sequence[str | int]:
        return [day, *_figures(content).values()] if content else [day, *([""] * len(names))]

    return _table(["day", *names], [row(*one) for one in month.days])


def popular_csv(history: Sequence[ContentDay]) -> str:
    """The day's most popular posts for a spreadsheet, best first."""
    header = ["place", "post_id", "author_id", "author", "engagement_score", "text"]
    rows: list[Sequence[str | int]] = [
        [place, post.post_id, post.author_id, post.author, post.engagement_score, post.text]
        for place, post in enumerate(map(_cleaned, history[-1].popular), 1)
    ]
    return _table(header, rows)


def _figures(content: ContentDay) -> dict[str, int]:
    by_visibility = {f"posts_{name}": content.posts.get(name, 0) for name in _VISIBLE_TO}
    return {
        "posts": content.total_of_posts,
        **by_visibility,
        "comments": content.comments,
        "active_users": content.active_users,
        "new_users": content.new_users,
        "total_users": content.total_users,
        "total_posts": content.total_posts,
        "total_follows": content.total_follows,
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return out.getvalue()


def _cell(value: str | int) -> str | int:
    """A spreadsheet treats text that begins with one of these as a formula, and posts may contain anything.

    The full-width forms too, in the languages that have them.
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULAS else value


_FORMULAS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


# --- the page --------------------------------------------------------------------------------------------------------


def _totals(day: ContentDay) -> str:
    """The size of the network, and the time of each figure: the two counts were made at different times."""
    counted, rows = (f"{datetime.fromtimestamp(at, UTC):%-d %B %H:%M}" for at in (day.counted_at, day.totals_at))
    return (
        f"In all: {day.total_users:,} users as of {counted}, "
        f"{day.total_posts:,} posts and {day.total_follows:,} follows as of {rows}."
    )


def _tile(month: _Month, name: str, value: _Value) -> str:
    now = value(month.today)
    notes = (
        _change(now, month.before(1), value, "the day before"),
        _change(now, month.before(7), value, "a week before"),
    )
    notes_html = "".join(f"<span>{note}</span>" for note in notes)
    return f'<div class="card"><b>{now:,}</b>{escape(name)}{notes_html}</div>'


def _change(now: int, content: ContentDay | None, value: _Value, period: str) -> str:
    if content is None:
        return f"{period}: not counted"
    before = value(content)
    if before == 0:
        return f"{period}: 0"
    return f"{(now - before) / before:+.0%} on {period} ({before:,})"


def _chart(month: _Month, name: str, value: _Value) -> str:
    """A bar per counted day, gaps for the others; the axis begins at zero. The values are in a table below."""
    title = f"{name} a day"
    top = _round_up(max(value(content) for _, content in month.days if content))
    places = max(len(month.days), 7)
    bars = []
    for place, (day, content) in enumerate(month.days):
        if content is not None:
            height = 100 * value(content) / top
            kind = "today" if content is month.today else "day"
            bars.append(
                f'<rect class="{kind}" x="{place * 10 + 1}" y="{100 - height:.2f}" width="8" height="{height:.2f}">'
                f"<title>{day}: {value(content):,}</title></rect>"
            )
    lines = "".join(f'<line x1="0" x2="{places * 10}" y1="{y}" y2="{y}"/>' for y in (0, 50, 100))
    scale = "".join(f"<span>{_short(top * share)}</span>" for share in (1.0, 0.5, 0.0))
    first, last = month.days[0][0], month.days[-1][0]
    # A short history does not fill the axis, so its last day is not at the end of the axis.
    dates = f"<span>{_day(first)}</span>" + (f"<span>{_day(last)}</span>" if len(month.days) >= 7 else "")
    label = f"{title}, {first} to {last}: {value(month.today):,} on {last}"
    return (
        f'<figure class="card" style="margin:0"><h2>{escape(title)}</h2>'
        f'<div class="plot"><div class="scale" aria-hidden="true">{scale}</div>'
        f'<svg viewBox="0 0 {places * 10} 100" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'{lines}{"".join(bars)}</svg><div class="dates" aria-hidden="true">{dates}</div></div>'
        f"<details><summary>Every value: {escape(title.lower())}</summary>{_values(month, title, value)}</details>"
        "</figure>"
    )


def _values(month: _Month, title: str, value: _Value) -> str:
    rows = "".join(
        f'<tr><td>{day}</td><td class="number">{"not counted" if content is None else f"{value(content):,}"}</td></tr>'
        for day, content in reversed(month.days)
    )
    return (
        f'<table><caption>{escape(title)}</caption><thead><tr><th scope="col">Day (UTC)</th>'
        f'<th scope="col" class="number">{escape(title)}</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _day(day: str) -> str:
    return f"{date.fromisoformat(day):%-d %b}"


def _round_up(value: int) -> int:
    """The end of the axis: 2, 4 or 10 times a power of ten, so that the middle line is a round number too."""
    scale = 1
    while True:
        for factor in (2, 4, 10):
            if factor * scale >= value:
                return factor * scale
        scale *= 10


def _short(number: float) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _popular(day: ContentDay) -> str:
    if not day.popular:
        return "<p>No public posts.</p>"
    rows = "".join(
        f'<tr><td class="number">{place}</td><td class="text">{_quoted(excerpt(post.text)) or "(no text)"}'
        f'<div class="by">by {_named(post.author)}</div></td><td class="number">{post.engagement_score:,}</td></tr>'
        for place, post in enumerate(day.popular, 1)
    )
    return (
        '<table><caption>Most popular public posts of the day</caption><thead><tr><th scope="col">Place</th>'
        '<th scope="col">Post</th><th scope="col" class="number">Engagement</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _quoted(text: str) -> str:
    return f'<div dir="{direction(text) or "ltr"}">{escape(text)}</div>' if text else ""


def _named(name: str) -> str:
    shown = shortened(one_line(name), NAME)
    return f"<bdi>{escape(shown)}</bdi>" if shown else NOBODY


FORMS: Mapping[ReportFormat, tuple[Callable[[Sequence[ContentDay]], str], str]] = {
    "json": (as_json, "application/json"),
    "csv": (as_csv, "text/csv"),
    "popular": (popular_csv, "text/csv"),
    "html": (as_html, "text/html"),
}
