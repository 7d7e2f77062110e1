"""Measures cold starts of the deployed package: each function's init, and the time to its first result.

    make bench-coldstart            (or: python -m bench.coldstart [--rounds 15] [--built DIR] [--before DIR])

Each row is measured in fresh processes: CPU milliseconds (the median of the rounds) and peak memory. The rows
alternate. As in Lambda, only the folders of the function and of the layer are on the path, and the environment is that
of template.yaml.

init       import of the handler's module
ping       init, then the first event until it is settled: claim, log lines, and everything created on first use
task       the same, and the import of the task's module and its dependencies. The task itself is not run.
worker     nexus.worker's modules alone: without a catalogue, a client and a logger
floor      boto3's clients of DynamoDB and SQS, a pydantic model of four fields, Powertools' Logger and
           BatchProcessor: the minimum for a handler of this kind. Measured twice: with the packages as pip installs
           them, compiled, and with the deployed layer, which is cut to what is used.

`--before` names the build of another commit. Its rows alternate with ours, and a second table compares them.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import tables
from bench.runtime import stand_in
from dev.build import BUILT
from nexus.registry import registry
from nexus.settings import use
from ops.template import load
from tests.support.template import ENVIRONMENT, resolved, template

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

WORKER = """
import nexus.worker
mark("init")
"""

FUNCTION = """
import importlib, os
module, _, name = os.environ["BENCH_HANDLER"].rpartition(".")
handler = getattr(importlib.import_module(module), name)
mark("init")
class context:
    aws_request_id, log_group_name, log_stream_name = "8f1c2f1e", "/aws/lambda/bench", "bench"
    get_remaining_time_in_millis = staticmethod(lambda: 300_000)
task = os.environ["BENCH_TASK"]
body = '{"id":"c0ffee00-0000-5000-8000-%012x","task":"ping","args":{}}' % os.getpid()
record = {"messageId": "m", "receiptHandle": "r", "body": body, "attributes": {}, "eventSource": "aws:sqs"}
response = handler({"Records": [record]}, context)
assert response == {"batchItemFailures": []}, response
mark("ping")
marks["event"] = marks["ping"] - marks["init"]
if task != "ping":
    importlib.import_module(task)
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
    """A kind of process: the program that it runs, its import path and its task."""

    name: str
    program: str
    path: tuple[Path, ...]
    queue: str = ""
    task: str = ""
    handler: str = ""


type Samples = Mapping[Row, Sequence[Mapping[str, float]]]


def floors(built: Path) -> list[Row]:
    """The floor on the packages as pip installs them, and on the layer's."""
    installed = [Path(path) for path in sys.path if path.endswith("site-packages")]
    return [
        Row("floor", FLOOR, tuple(installed)),
        Row("floor, the layer's packages", FLOOR, (_layer(built),)),
    ]


def functions(built: Path) -> Iterator[Row]:
    """The worker's modules alone, then each function with each of its tasks."""
    layer = _layer(built)
    handler = load((built / "template.yaml").read_text())["Globals"]["Function"]["Handler"]
    yield Row("worker: its modules alone", WORKER, (layer,))
    for queue in registry.queues():
        folder = built / f"{queue.capitalize()}Function"
        for name in registry.served_by(queue):
            module = (folder / f"{name}.py").is_file()
            if module or name == "ping":
                yield Row(f"{queue}: {name}", FUNCTION, (folder, layer), queue, name, handler)


def _layer(built: Path) -> Path:
    layer = built / "NexusLayer" / "python"
    if not layer.is_dir():
        raise SystemExit(f"nothing is built in {built}: make build")
    return layer


def deployed() -> dict[str, str]:
    """The variables that template.yaml gives to every function."""
    variables = resolved(template()["Globals"]["Function"]["Environment"]["Variables"])
    return {name: str(value) for name, value in variables.items()}


def measure(row: Row, interpreter: str, port: int) -> Mapping[str, float]:
    """One fresh process; CPU milliseconds at each mark, and peak megabytes."""
    environment = {
        **ENVIRONMENT,
        **deployed(),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, row.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "NEXUS_QUEUE": row.queue,
        "BENCH_TASK": row.task,
        "BENCH_HANDLER": row.handler,
    }
    done = subprocess.run(
        [interpreter, "-c", FRAME % row.program], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{row.name}: {done.stderr}")
    marks: Mapping[str, float] = json.loads(done.stderr.splitlines()[-1])
    return marks


def against_floor(samples: Samples, rows: Sequence[Row]) -> str:
    """A table of all rows, relative to the first row's init."""

    def cells(row: Row) -> Iterator[str]:
        yield row.name
        yield f"{_median(samples[row], 'init'):.0f}"
        for mark in ("init", "ping", "task"):
            yield f"{_ratio(samples[row], mark, samples[rows[0]], 'init'):.2f}" if mark in samples[row][0] else ""
        yield f"{_median(samples[row], 'peak'):.0f}"

    header = ["", "init ms", "init, x floor", "ping, x floor", "task, x floor", "peak MB"]
    return tables.markdown(header, (list(cells(row)) for row in rows))


def against_before(samples: Samples, pairs: Sequence[tuple[Row, Row]]) -> str:
    """A table of all rows and the same rows of the other build: "now / before = ratio"."""

    def cells(now: Row, before: Row) -> Iterator[str]:
        yield now.name
        for mark in ("init", "event", "ping", "task", "peak"):
            if mark in samples[now][0] and mark in samples[before][0]:
                ratio = _ratio(samples[now], mark, samples[before], mark)
                yield f"{_median(samples[now], mark):.0f} / {_median(samples[before], mark):.0f} = {ratio:.2f}"
            else:
                yield ""

    header = ["now / before", "init ms", "first event ms", "both: ping ms", "task ms", "peak MB"]
    return tables.markdown(header, (list(cells(now, before)) for now, before in pairs))


def _median(samples: Iterable[Mapping[str, float]], mark: str) -> float:
    return median(sample[mark] for sample in samples)


def _ratio(
    mine: Iterable[Mapping[str, float]], mark: str, theirs: Iterable[Mapping[str, float]], their_mark: str
) -> float:
    """The ratio of one mark to another, as the median over the rounds."""
    return median(a[mark] / b[their_mark] for a, b in zip(mine, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures each function's init and first result against the floor.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--built", type=Path, default=BUILT)
    parser.add_argument("--before", type=Path, help="the build of another commit, to compare with")
    options = parser.parse_args()
    # The functions must not see this environment's packages, so its base interpreter runs them.
    interpreter = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
    with use(deployed()):
        ours = [*floors(options.built), *functions(options.built)]
        theirs = list(functions(options.before)) if options.before else []
    before = {row.name: row for row in theirs}
    pairs = [(row, before[row.name]) for row in ours if row.name in before]
    samples: dict[Row, list[Mapping[str, float]]] = {}
    for row in ours:
        samples[row] = []
        if row.name in before:
            samples[before[row.name]] = []
    with stand_in.started() as port:
        for row in samples:
            measure(row, interpreter, port)  # the files are in the page cache from here on
        for _ in range(options.rounds):
            for row, found in samples.items():
                found.append(measure(row, interpreter, port))

    print(f"CPU milliseconds, median of {options.rounds} fresh processes; ratios to the floor's init; peak MB")
    tables.show("coldstart", against_floor(samples, ours))
    if pairs:
        tables.show("coldstart-before", against_before(samples, pairs))
    over = [row.name for row in ours[2:] if _ratio(samples[row], "init", samples[ours[0]], "init") > 1]
    print(f"\ninit at or under the floor: {'MISSED by ' + ', '.join(over) if over else 'every function'}")


if __name__ == "__main__":
    main()
