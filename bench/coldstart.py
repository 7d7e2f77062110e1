"""Measures cold starts of the deployed package: each function's init, and the time to its first result.

    make bench-coldstart                                  (or: python -m bench.coldstart [--rounds 15] [--built DIR])

CPU milliseconds in a fresh process, median of the rounds, peak memory beside them; the rows take turns. The function's
folder and the layer's are on the path as in Lambda, and nothing else is.

init       import of the handler's module, nexus.worker
ping       init, and the first event to its end: settings, DynamoDB's client, claim, log lines, settling
task       the same for an event of that task instead: its module is imported, and what that needs. The task itself
           is not run.
floor      boto3's clients of DynamoDB and SQS, a pydantic model of four fields, Powertools' Logger and
           BatchProcessor: what a handler of this kind cannot do without. On the packages as pip installs them,
           compiled; and, second, on the layer that is deployed, which is cut to what is used.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import tables
from nexus.registry import registry
from tests.support.template import ENVIRONMENT, STACK

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / ".aws-sam" / "build"

FLOOR = """
import boto3
from pydantic import BaseModel
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
class Order(BaseModel):
    id: str
    customer: str
    amount: int
    note: str | None = None
logger = Logger(service="floor")
processor = BatchProcessor(event_type=EventType.SQS)
clients = boto3.client("dynamodb"), boto3.client("sqs")
mark("init")
"""

FUNCTION = """
from nexus.worker import handler
mark("init")
class context:
    aws_request_id, log_group_name, log_stream_name = "8f1c2f1e", "/aws/lambda/bench", "bench"
    get_remaining_time_in_millis = staticmethod(lambda: 300_000)
import os
task = os.environ["BENCH_TASK"]
body = '{"id":"c0ffee00-0000-5000-8000-%012x","task":"ping","args":{}}' % os.getpid()
record = {"messageId": "m", "receiptHandle": "r", "body": body, "attributes": {}, "eventSource": "aws:sqs"}
answer = handler({"Records": [record]}, context)
assert answer == {"batchItemFailures": []}, answer
mark("ping")
if task != "ping":
    from nexus.registry import registry
    registry.implementation(task)
    mark("task")
"""

FRAME = """
import sys, time
began = time.process_time()
marks = {}
def mark(name):
    marks[name] = (time.process_time() - began) * 1000
%s
import json, resource
marks["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(marks), file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of process: what it runs, on which path, for which task."""

    name: str
    program: str
    path: tuple[Path, ...]
    queue: str = ""
    task: str = ""


def rows(built: Path) -> Iterator[Row]:
    """The floors, then each function with each of its tasks."""
    layer = built / "NexusLayer" / "python"
    if not layer.is_dir():
        raise SystemExit(f"nothing is built in {built}: make build")
    installed = [Path(path) for path in sys.path if path.endswith("site-packages")]
    yield Row("floor", FLOOR, tuple(installed))
    yield Row("floor, the layer's packages", FLOOR, (layer,))
    for queue in registry.queues():
        folder = built / f"{queue.capitalize()}Function"
        for name in registry.served_by(queue):
            module = (folder / f"{name}.py").is_file()
            if module or name == "ping":
                yield Row(queue, FUNCTION, (folder, layer), queue, name)


def measure(row: Row, interpreter: str, endpoint: str) -> Mapping[str, float]:
    """One fresh process; CPU milliseconds at each mark, and peak megabytes."""
    environment = {
        **ENVIRONMENT,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, row.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_ENDPOINT_URL": endpoint,
        "NEXUS_QUEUE": row.queue,
        "BENCH_TASK": row.task,
        "POWERTOOLS_SERVICE_NAME": STACK,
    }
    done = subprocess.run(
        [interpreter, "-c", FRAME % row.program], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{row.name} {row.task}: {done.stderr}")
    marks: Mapping[str, float] = json.loads(done.stderr.splitlines()[-1])
    return marks


@contextmanager
def stand_in() -> Iterator[str]:
    """Starts a DynamoDB stand-in in a separate process. Yields its endpoint."""
    command = [sys.executable, "-m", "bench.runtime.stand_in"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="Init and first result of each function, beside the floor.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--built", type=Path, default=BUILT)
    options = parser.parse_args()
    # The functions must not see this environment's packages, so its base interpreter runs them.
    interpreter = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
    kinds = list(rows(options.built))
    samples: dict[Row, list[Mapping[str, float]]] = {row: [] for row in kinds}
    with stand_in() as endpoint:
        for row in kinds:
            measure(row, interpreter, endpoint)  # the files are in the page cache from here on
        for _ in range(options.rounds):
            for row in kinds:
                samples[row].append(measure(row, interpreter, endpoint))

    def ratio(row: Row, mark: str) -> float:
        return median(mine[mark] / floor["init"] for mine, floor in zip(samples[row], samples[kinds[0]], strict=True))

    def cells(row: Row) -> Iterator[str]:
        yield f"{row.name}: {row.task}" if row.task else row.name
        yield f"{median(sample['init'] for sample in samples[row]):.0f}"
        for mark in ("init", "ping", "task"):
            yield f"{ratio(row, mark):.2f}" if mark in samples[row][0] else ""
        yield f"{median(sample['peak'] for sample in samples[row]):.0f}"

    print(f"CPU milliseconds, median of {options.rounds} fresh processes, and x the floor's init; peak MB")
    header = ["", "init ms", "init, x floor", "ping, x floor", "task, x floor", "peak MB"]
    tables.show("coldstart", tables.markdown(header, (list(cells(row)) for row in kinds)))
    over = sorted({row.name for row in kinds[2:] if ratio(row, "init") > 1})
    print(f"\ninit at or under the floor: {'MISSED by ' + ', '.join(over) if over else 'every function'}")


if __name__ == "__main__":
    main()
