"""Measures the time from an upload's event until its post is `ready`, with AWS's latencies simulated.

    python -m bench.media.latency [--before FOLDER] [--rounds 5] [--pictures 4]

A warm function processes 12-megapixel JPEGs (bench/media/sources.py) with the deployed recipes. AWS is simulated in its
process, and each request first waits: 30 ms for a GET of S3, 40 for a PUT, 5 for DynamoDB. The figures are the task's
wall time; the run's claim (5 ms) comes before it. FOLDER is a checkout of an earlier commit: both then process each
picture alternately, and the ratio is the median of the pairs.
"""

import argparse
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Self

from bench import tables
from bench.media.sources import painted
from bench.tables import ROOT

SERVING = """
import sys, time
from pathlib import Path
from nexus.aws import sdk
from nexus.testing import in_memory, run_task
from social import application
from social.data import posts
from social.catalogue import ProcessMediaUpload
from nexus.settings import settings

WAITS = {"GetObject": 0.030, "PutObject": 0.040}

def wait(model, **_):
    time.sleep(WAITS.get(model.name, 0.005) if slow else 0)

set_media = posts.set_media
def timed(post_id, media, order):
    outcome = set_media(post_id, media, order)
    times[media.status] = time.perf_counter()
    return outcome
posts.set_media = timed

with in_memory():
    from process_media_upload import process_media_upload
    for service in ("dynamodb", "s3"):
        sdk.client(service).meta.events.register_first("before-call", wait)
    for number, line in enumerate(sys.stdin):
        slow, times, post = False, {}, f"p-{number}"
        application.new_post("u-1", "look at this", post_id=post)
        bucket, key = settings().bucket("uploads"), f"uploads/u-1/{post}/a.jpg"
        args = ProcessMediaUpload(bucket=bucket, key=key, event_order="0A")
        sdk.client("s3").put_object(Bucket=args.bucket, Key=args.key, Body=Path(line.strip()).read_bytes())
        slow, began = True, time.perf_counter()
        report = run_task(process_media_upload, args)
        assert report.status == "ready", report
        print(times["processing"] - began, times["ready"] - began, flush=True)
"""


class Served:
    """A warm function of one checkout."""

    def __init__(self, root: Path) -> None:
        paths = os.pathsep.join(str(root / folder) for folder in ("functions/media", "shared"))
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVING],
            env={**os.environ, "PYTHONPATH": paths, "MALLOC_ARENA_MAX": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def process(self, picture: Path) -> tuple[float, float]:
        """Milliseconds until the post is `processing`, and until it is `ready`."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{picture}\n")
        self._process.stdin.flush()
        processing, ready = self._process.stdout.readline().split()
        return 1000 * float(processing), 1000 * float(ready)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the time from an upload's event until its post is ready.")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=4)
    options = parser.parse_args()
    sources = painted(options.pictures)
    roots = {"before": options.before, "now": ROOT} if options.before else {"now": ROOT}
    with ExitStack() as stack:
        ways = {name: stack.enter_context(Served(root)) for name, root in roots.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for served in ways.values():
            served.process(sources[0])  # imports, the decoders' server, tables
        for number in range(options.rounds):
            for at, source in enumerate(sources):
                for name in ways if (number + at) % 2 else reversed(ways):
                    times[name].append(ways[name].process(source))
    rows = []
    for name, measured in times.items():
        processing, ready = zip(*measured, strict=True)
        pairs = zip(times["now"], measured, strict=True)
        ratio = median(ours[1] / theirs[1] for ours, theirs in pairs)
        rows.append(
            [name, *(f"{figure:,.0f}" for figure in (median(processing), median(ready), min(ready))), f"{ratio:.2f}"]
        )
    table = tables.markdown(["", "`processing`, ms", "`ready`, ms", "the fastest", "now / it"], rows)
    if options.before:
        tables.show("latency", table)
    else:
        print(table)  # the page's table compares


if __name__ == "__main__":
    main()
