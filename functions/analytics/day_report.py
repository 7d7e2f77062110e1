"""The HTML report of a day: figures, four charts of the last month and the most popular posts, in one file.

No script, no font and no picture from elsewhere: the charts are inline SVG, and light and dark follow the reader's
system. Every text from the network is escaped.
"""

from collections.abc import Callable, Sequence
from datetime import date
from html import escape

from social.data.analytics import ContentDay
from social.data.days import add_days

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 180, 48, 22

_VISIBLE_TO = {"public": "public", "followers": "for followers", "private": "private"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6575; --line: #d9dee6; --paper: #f6f7f9; --card: #fff;
  --mark: #2f6fde; --today: #d9480f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #9aa5b5; --line: #333b48; --paper: #14181f;
  --card: #1d232d; --mark: #6fa1ff; --today: #ff8a4c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; } h2 { font-size: 1rem; margin: 0 0 8px; }
p.note { color: var(--soft); margin: 0 0 24px; }
.tiles, .charts { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(175px, 1fr)); }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); margin-top: 12px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; min-width: 0; }
.card b { display: block; font-size: 1.4rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg line { stroke: var(--line); }
rect.day { fill: var(--mark); } rect.today { fill: var(--today); }
.wide { overflow-x: auto; margin-top: 12px; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; margin-bottom: 8px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } td.text { overflow-wrap: anywhere; }
code { font-size: .85em; color: var(--soft); }
"""


def render(history: Sequence[ContentDay]) -> str:
    """The report of the last of these days, the others for the charts. At least one day."""
    today = history[-1]
    charts: Sequence[tuple[str, Callable[[ContentDay], int]]] = (
        ("Posts a day", lambda day: day.total_of_posts),
        ("Comments a day", lambda day: day.comments),
        ("Active users a day", lambda day: day.active_users),
        ("New users a day", lambda day: day.new_users),
    )
    tiles = (
        ("posts", today.total_of_posts, _change(history, charts[0][1])),
        ("comments", today.comments, _change(history, charts[1][1])),
        ("active users", today.active_users, _change(history, charts[2][1])),
        ("new users", today.new_users, _change(history, charts[3][1])),
        ("users", today.total_users, "in all"),
        ("posts", today.total_posts, "in all"),
        ("follows", today.total_follows, "in all"),
    )
    when = date.fromisoformat(today.day).strftime("%A %-d %B %Y")
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
<h1>{when}</h1>
<p class="note">Days are UTC. Posts: {by_visibility or "none"}. Totals are as of the count.</p>
<section class="tiles">{"".join(_tile(*tile) for tile in tiles)}</section>
<section class="charts">{"".join(_chart(title, history, value) for title, value in charts)}</section>
<section class="card wide">{_popular(today)}</section>
</main>
</body>
</html>
"""


def _tile(name: str, value: int, note: str) -> str:
    return f'<div class="card"><b>{value:,}</b>{escape(name)}<br><span>{escape(note)}</span></div>'


def _change(history: Sequence[ContentDay], value: Callable[[ContentDay], int]) -> str:
    """The change to the day before, where that was counted."""
    if len(history) < 2 or history[-2].day != add_days(history[-1].day, -1) or value(history[-2]) == 0:
        return "no day before"
    before, now = value(history[-2]), value(history[-1])
    return f"{(now - before) / before:+.0%} to the day before"


def _chart(title: str, history: Sequence[ContentDay], value: Callable[[ContentDay], int]) -> str:
    """Bars, one a counted day; the axis begins at zero."""
    values = [value(day) for day in history]
    top = _round_up(max(values))
    inner_width, inner_height = _WIDTH - _LEFT - 4, _HEIGHT - _BOTTOM - 8
    step = inner_width / max(len(values), 7)
    marks = []
    for place, (day, number) in enumerate(zip(history, values, strict=True)):
        height = inner_height * number / top
        kind = "today" if place == len(values) - 1 else "day"
        marks.append(
            f'<rect class="{kind}" x="{_LEFT + place * step + 1:.1f}" y="{8 + inner_height - height:.1f}" '
            f'width="{max(1.0, step - 2):.1f}" height="{height:.1f}"><title>{day.day}: {number:,}</title></rect>'
        )
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = 8 + inner_height * (1 - share)
        lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 4}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(top * share)}</text>')
    labels = f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{history[0].day}</text>'
    if len(history) > 1:
        end = _LEFT + len(values) * step
        anchor = "end" if end > _LEFT + 160 else "start"
        labels += (
            f'<text x="{max(end, _LEFT + 80):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{history[-1].day}</text>'
        )
    name = f"{escape(title)}: {values[-1]:,} on {history[-1].day}"
    drawing = "".join((*lines, *marks, labels))
    return (
        f'<div class="card"><h2>{escape(title)}</h2>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{drawing}</svg></div>'
    )


def _round_up(value: int) -> int:
    """The axis' end: 2, 4 or 10 times a power of ten, for the line in the middle to be a round number too."""
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
        f'<tr><td class="number">{place}</td><td class="text">{escape(post.text) or "(no text)"}<br>'
        f"<code>{escape(post.post_id)} by {escape(post.author_id)}</code></td>"
        f'<td class="number">{post.engagement_score:,}</td></tr>'
        for place, post in enumerate(day.popular, 1)
    )
    return (
        "<table><caption>Most popular public posts of the day</caption>"
        f"<thead><tr><th></th><th>Post</th><th>Engagement</th></tr></thead><tbody>{rows}</tbody></table>"
    )
