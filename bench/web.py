"""Measures how long each page of `nexus web` takes until its last part has loaded, with many runs on the local cloud.

    make up && eval "$(nexus env)" && make bench-web        (or python -m bench.web [--runs 100000] [--keep])

The runs are those of bench.history, of the last seven days. They are written into the run table of the local cloud,
with two lines in the functions' logs for each run of the last day, and removed afterwards. A page is requested as a
browser does it: the page itself, then all of its parts at once. `first` is the first request, after the server has
loaded its data at startup; `again` is the median of five. Both are the CPU seconds of `nexus web` and the local cloud
together, which other programs do not change; an idle machine with two processors takes less time.
"""

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import batched
from pathlib import Path
from typing import Any

from bench import history, tables
from bench.processes import cpu_seconds
from nexus.aws.sdk import client
from nexus.settings import settings
from ops import deployment, logs
from ops.aws import client as aws_client
from ops.deployment import Choice

LIMIT = 0.3
STREAM = "bench-web"
DAY = 86_400.0
AGAIN = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the pages of nexus web take.")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--keep", action="store_true", help="leave the runs in the local cloud")
    options = parser.parse_args()
    if deployment.connect(Choice("nexus-local", None, None)).stage != "local":
        sys.exit("This writes made-up runs, so it needs the local cloud")
    now = time.time()
    items = list(history.runs(options.runs, now))
    began = time.monotonic()
    _write([{"PutRequest": {"Item": item}} for item in items])
    lines = _log(items, now)
    print(
        f"\n{options.runs:,} runs and {lines:,} lines of log written in {time.monotonic() - began:.0f} s\n", flush=True
    )
    try:
        with _server() as server:
            slow = _measure(server, items)
    finally:
        if not options.keep:
            _write([{"DeleteRequest": {"Key": {"id": item["id"]}}} for item in items])
            for group in {logs.group(item["queue"]["S"]) for item in items}:
                aws_client("logs").delete_log_stream(logGroupName=group, logStreamName=STREAM)
    print(f"\n{len(slow)} over {LIMIT * 1000:.0f} ms: {', '.join(slow) or 'none'}")


def _write(requests: list[dict[str, Any]]) -> None:
    table = settings().table("task-runs")

    def page(part: tuple[dict[str, Any], ...]) -> None:
        left: Any = {table: list(part)}
        while left:
            left = client("dynamodb").batch_write_item(RequestItems=left).get("UnprocessedItems")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(page, batched(requests, 25, strict=False)))


def _log(items: Iterable[dict[str, Any]], now: float) -> int:
    """The two lines of each run of the last day."""
    by_queue: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        at = float(item["sent_at"]["N"])
        if at > now - DAY:
            fields = {"level": "INFO", "run_id": item["id"]["S"], "task": item["task"]["S"], "attempt": 1}
            outcome = item["status"]["S"].lower()
            for message, more in (("run started", {}), ("run ended", {"outcome": outcome, "duration": 120.0})):
                text = json.dumps({"message": message, **fields, **more}, separators=(",", ":"))
                by_queue.setdefault(item["queue"]["S"], []).append({"timestamp": int(at * 1000), "message": text})
    for queue, events in by_queue.items():
        logs_ = aws_client("logs")
        logs_.create_log_stream(logGroupName=logs.group(queue), logStreamName=STREAM)
        events.sort(key=lambda event: event["timestamp"])
        for page in batched(events, 5000, strict=False):
            logs_.put_log_events(logGroupName=logs.group(queue), logStreamName=STREAM, logEvents=list(page))  # type: ignore[arg-type]
    return sum(map(len, by_queue.values()))


@dataclass(frozen=True, slots=True)
class Server:
    """A running `nexus web`: its address, key and process, and the local cloud's process."""

    address: str
    key: str
    pid: int
    cloud: int

    def get(self, path: str) -> str:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=120) as content:
            return str(content.read().decode())


@contextmanager
def _server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key = secrets.token_urlsafe(8)
    program = "import sys; from ops.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "web", "--no-open", "--port", str(port)],
        env={**os.environ, "NEXUS_WEB_KEY": key, "NEXUS_STACK": "nexus-local"},
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = Path(".local") / os.environ.get("NEXUS_CLOUD_FOLDER", "cloud")
    cloud = int(json.loads((folder / "cloud.json").read_text())["pid"])
    try:
        assert process.stdout is not None
        process.stdout.readline()  # the address: now the port is open
        yield Server(f"http://127.0.0.1:{port}", key, process.pid, cloud)
    finally:
        process.terminate()
        process.wait(20)


def _measure(server: Server, items: list[dict[str, Any]]) -> list[str]:
    """Prints a row for each page; returns the names of those over their limit."""
    user = next(json.loads(item["args"]["S"])["user_id"] for item in items if "args" in item)
    one = items[len(items) // 2]["id"]["S"]
    pages = {
        "Overview": "/",
        "Runs": "/runs",
        "Runs, FAILURE": "/runs?q=status:failure",
        "Runs, by user_id": f"/runs?q=user_id={user}",
        "Run": f"/runs/{one}",
        "Dead letters": "/dead-letters",
        "Schedules": "/schedules",
        "Tasks": "/tasks",
        "A task": "/tasks/send_notification",
        "Functions": "/functions",
        "Audit": "/audit",
    }
    server.get("/parts/runs?now=1")  # waits for what the server requests when it starts
    rows, slow = [], []
    for name, path in pages.items():
        (first, *_), *again = (_page(server, path) for _ in range(AGAIN + 1))
        took, cloud, shell = (statistics.median(one[n] for one in again) for n in (0, 1, 2))
        parts = again[0][3]
        rows.append([name, str(parts), *(f"{value * 1000:.0f}" for value in (first, took, cloud, shell))])
        print(name, *rows[-1][1:], flush=True)
        if took > LIMIT:
            slow.append(name)
    header = ["page", "parts", "first, ms", "again, ms", "of these the local cloud", "itself, ms of the clock"]
    tables.show("web", tables.markdown(header, rows))
    return slow


def _page(server: Server, path: str) -> tuple[float, float, float, int]:
    """(CPU seconds until the page and all its parts are loaded, the local cloud's share of them, wall seconds until the
    page itself is loaded, its number of parts)."""
    before = cpu_seconds(server.pid), cpu_seconds(server.cloud)
    began = time.perf_counter()
    text = server.get(path)
    own = time.perf_counter() - began
    parts, count = loads(text, path.partition("?")[2]), 0
    with ThreadPoolExecutor(6) as pool:
        while parts:
            contents, count = list(pool.map(server.get, parts)), count + len(parts)
            if failed := next((content for content in contents if 'role="alert"' in content), None):
                raise RuntimeError(failed)
            parts = [part for content in contents for part in loads(content)]
    cloud = cpu_seconds(server.cloud) - before[1]
    return cpu_seconds(server.pid) - before[0] + cloud, cloud, own, count


def loads(text: str, query: str = "") -> list[str]:
    """The addresses that htmx requests as soon as it sees this text. `query` is that of the page's search form."""
    found = []

    class Elements(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
            given = {name: value or "" for name, value in attrs}
            if given.get("hx-trigger", "").split(",")[0] == "load":
                found.append(given["hx-get"] + (f"?{query}" if query and "hx-include" in given else ""))

    Elements().feed(text)
    return found


if __name__ == "__main__":
    main()
