"""Compares what a no-op message costs the machine that processes it: our worker and Celery's, in the same run.

    make bench-runtime                                    (or: python -m bench.runtime [--rounds 5] [--messages 1000])

The figures are CPU microseconds (user and system) and AWS requests per message. Our side is the queue's handler from
event to response, including claim, start and end line, metrics and settling; it uses the real client over loopback HTTP
to a stand-in in another process. Celery's side is the worker and its pool process (prefork, concurrency 1) on its own
Redis, over loopback TCP, and once its fastest setup, the solo pool with hiredis. Redis and DynamoDB are not counted,
and log lines go to /dev/null. Each round runs every row once, in a new order; the printed values are the medians of the
rounds, and of the ratios within each round.
"""

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import tables
from bench.processes import cpu_seconds
from bench.runtime import stand_in
from bench.tables import ROOT

PEERS = ROOT / ".venv-bench" / "bin"

OURS = (
    "batches of 10",
    "one a batch",
    "batches of 10, AWS answered in process",
    "one a batch, AWS answered in process",
    "batches of 10, NEXUS_CLIENT=boto3",
    "one a batch, NEXUS_CLIENT=boto3",
)
CELERY = {
    "celery, no results": {"RESULTS": "0", "LATE": "0"},
    "celery, results": {"RESULTS": "1", "LATE": "0"},
    "celery, results, acks late": {"RESULTS": "1", "LATE": "1"},
    "celery, results, acks late, task lines": {"RESULTS": "1", "LATE": "1", "LEVEL": "INFO"},
    "celery solo with hiredis, results, acks late": {"RESULTS": "1", "LATE": "1", "POOL": "solo", "HIREDIS": "1"},
}
PEER = "celery, results, acks late"
"""The peer with the same guarantees: a result, and a message that survives its worker. It logs nothing per task."""

REQUEST = "one GetItem by the same client"
PRODUCERS = ("celery, no results", "celery, results")
TARGETS = {"batches of 10": 0.22, "one a batch": 0.75, "send one": 1.2}


@dataclass
class Rows:
    """CPU microseconds per message for each row, one value per round; AWS requests per message where there are any."""

    microseconds: dict[str, list[float]] = field(default_factory=dict)
    requests: dict[str, float] = field(default_factory=dict)

    def add(self, row: str, microseconds: float, requests: float | None = None) -> None:
        self.microseconds.setdefault(row, []).append(microseconds)
        if requests is not None:
            self.requests[row] = requests

    def ratio(self, row: str, peer: str) -> float:
        """The median over the rounds of this row's cost relative to another's."""
        pairs = zip(self.microseconds[row], self.microseconds[peer], strict=True)
        return median(mine / theirs for mine, theirs in pairs)


# --- ours ---


def ours(rows: Rows, row: str, messages: int) -> None:
    """One run of our side: the worker's row, and the producer's."""
    kind, _, how = row.partition(", ")
    batch = "10" if kind == "batches of 10" else "1"
    environment = {**os.environ, "NEXUS_CLIENT": how.partition("=")[2]}
    if "in process" in how:
        figures = _nexus(0, messages, batch, environment)
    else:
        with stand_in.started() as port:
            figures = _nexus(port, messages, batch, environment)
        if batch == "1" and not how:
            rows.add(REQUEST, figures["read"]["microseconds"])
        elif batch == "10":
            rows.add(f"send one, {how}" if how else "send one", **figures["send"])
            if not how:
                rows.add("send_many, tens", **figures["send_many"])
    rows.add(row, **figures["work"])


def _nexus(port: int, messages: int, batch: str, environment: Mapping[str, str]) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "bench.runtime.nexus_side", str(port), str(messages), batch]
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=quiet, stderr=pipe, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, dict[str, float]] = json.loads(done.stderr.splitlines()[-1])
    return figures


# --- Celery's ---


def celery(rows: Rows, row: str, messages: int) -> None:
    """One run of Celery: its worker warms up on a full queue, then is measured while messages arrive."""
    with _redis() as port:
        environment = {**os.environ, **CELERY[row], "BROKER": f"redis://127.0.0.1:{port}/0"}
        produced = _produce(environment, messages)
        if row in PRODUCERS:
            rows.add(f"{row}: send", produced)
        level = CELERY[row].get("LEVEL", "WARNING")
        command = [
            *(str(PEERS / "celery"), "-A", "bench.runtime.celery_side", "--quiet", "worker", "--loglevel", level),
            *("--pool", CELERY[row].get("POOL", "prefork"), "--concurrency", "1"),
            *("--without-gossip", "--without-mingle"),
        ]
        with _process(command, environment) as worker:
            _until(lambda: _waiting(port) == 0, "the worker's warm-up")
            time.sleep(0.5)
            before = _cpu_of_tree(worker.pid)
            _produce(environment, messages)
            _until(lambda: _waiting(port) == 0, "the worker")
            time.sleep(0.5)
            seconds = _cpu_of_tree(worker.pid) - before
    rows.add(row, seconds / (messages + 50) * 1e6)


def _produce(environment: Mapping[str, str], messages: int) -> float:
    command = [str(PEERS / "python"), "-m", "bench.runtime.celery_side", str(messages)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["microseconds"])


@contextmanager
def _redis() -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is missing: apt-get install redis-server")
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        free.close()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with _process(command):
            _until(lambda: _ask(port, "PING") == "+PONG", "redis-server")
            yield port


def _waiting(port: int) -> int:
    """Messages in Celery's queue, plus those a worker has received and not acknowledged."""
    return int(_ask(port, "LLEN celery")[1:]) + int(_ask(port, "HLEN unacked")[1:])


def _ask(port: int, command: str) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(100).decode().strip()
    except ConnectionRefusedError:
        return ""


def _until(done: Callable[[], bool], what: str, patience: float = 120.0) -> None:
    ends = time.monotonic() + patience
    while not done():
        if time.monotonic() > ends:
            raise SystemExit(f"{what} did not finish within {patience:.0f} s")
        time.sleep(0.05)


def _cpu_of_tree(root: int) -> float:
    """CPU seconds of a process and all its descendants, from /proc."""
    pids = [root]
    for pid in pids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):  # a list for each thread
            pids += map(int, children.read_text().split())
    return sum(map(cpu_seconds, pids))


@contextmanager
def _process(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            yield process
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares a no-op message's CPU time: our worker and Celery's.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1000, help="per round and row (default: 1000)")
    options = parser.parse_args()
    rows = Rows()
    order = [*OURS, *CELERY]
    for number in range(options.rounds):
        random.Random(number).shuffle(order)
        for row in order:
            (ours if row in OURS else celery)(rows, row, options.messages)
    print(f"CPU microseconds a no-op message, median of {options.rounds} rounds; ratios to the peer, of each round")
    producers = ["send one", "send one, NEXUS_CLIENT=boto3", "send_many, tens", *(f"{p}: send" for p in PRODUCERS)]
    lines = [_line(rows, name, PEER) for name in (*OURS, REQUEST, *CELERY)]
    lines += [_line(rows, name, f"{PRODUCERS[1]}: send") for name in producers]
    tables.show("runtime", tables.markdown(["no-op message", "CPU us", "x Celery", "at most", "AWS requests"], lines))
    missed = [line[0] for line in lines if line[3] and float(line[2]) > float(line[3])]
    print(f"\ntargets missed: {', '.join(missed) or 'none'}")


def _line(rows: Rows, name: str, peer: str) -> list[str]:
    requests = f"{rows.requests[name]:.1f}" if name in rows.requests else ""
    most = f"{TARGETS[name]:.2f}" if name in TARGETS else ""
    return [name, f"{median(rows.microseconds[name]):,.0f}", f"{rows.ratio(name, peer):.2f}", most, requests]


if __name__ == "__main__":
    main()
