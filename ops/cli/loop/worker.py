"""One queue's worker: receives its messages and passes them to the function's handler, as Lambda does.

A child of `server`. It imports the project's code when its first message arrives. One message at a time over all
queues: a worker holds the lock of the file `turn` while it runs one. The file `last.json` has what a changed worker
runs again.
"""

import fcntl
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ops.cli import output
from ops.cli.loop.lifeline import RERUN, SIGNALS, ended

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

    from nexus.backend.store import Write
    from nexus.envelope import Envelope
    from nexus.runs.record import RunRecord

HELD: Final = 3600
"""Seconds for which a message and its run are held, for example at a breakpoint."""

POLL: Final = 2
"""Seconds of a receive. A worker that should end waits for its receive: a message in the response would be lost."""

BACK: Final = 60
"""Seconds until redelivery after an invocation failed, because the catalogue has a fault or AWS cannot be reached."""

NO_LIMIT: Final = 1e7

SHOWN: Final = ("run started", "run ended", "attempt failed")
"""The runtime's log lines that the worker's own lines replace."""


def work(queue: str, folder: Path, served: Mapping[str, Any], sqs: "SQSClient", pipe: int, *, again: bool) -> None:
    """Works until it is replaced or stopped, or the session ends."""
    Worker(queue, folder, served, sqs).work(pipe, again=again)


@dataclass(slots=True)
class Context:
    """The part of Lambda's context that the runtime reads."""

    seconds: float = HELD
    aws_request_id: str = "nexus dev"

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


class Worker:
    """`served` has the function's `environment`, `handler`, `url`, `arn` and the `path` of its code."""

    def __init__(self, queue: str, folder: Path, served: Mapping[str, Any], sqs: "SQSClient") -> None:
        self._queue = queue
        self._folder = folder
        self._served = served
        self._sqs = sqs
        self._ending = False

    def work(self, pipe: int, *, again: bool) -> None:
        """See the function of that name."""
        self._enter()
        if again and not ended(pipe):
            with self._turn():
                try:
                    self._again()
                except Exception:  # noqa: BLE001 - a file with a fault: the next change runs it again
                    output.line(traceback.format_exc().rstrip(), "red")
        while not self._is_ending() and not ended(pipe):
            for message in self._receive():
                with self._turn():
                    if self._is_ending():
                        self._give_back(message["ReceiptHandle"], 0)
                    else:
                        self._message(_record(message, str(self._served["arn"])))

    def _enter(self) -> None:
        """Makes this process the function's: its variables, its code's path, its log on the terminal."""
        signal.signal(RERUN, self._end)
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # The runtime sets no time limit while an application's alarm is set, so none interrupts a breakpoint.
        signal.setitimer(signal.ITIMER_REAL, NO_LIMIT)
        os.environ.update(self._served["environment"])
        sys.path[:0] = self._served["path"]
        sys.stderr = Readable(sys.stderr)

    def _end(self, _signal: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _is_ending(self) -> bool:
        return self._ending

    def _stop(self, _signal: int, frame: FrameType | None) -> None:
        """Ends the task that is running, if any, so that the deployed function runs it again."""
        self._ending = True
        while frame is not None:
            if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("nexus.worker.execution", "_call"):
                from nexus.errors import Retry

                raise Retry("`nexus dev` was ended", after=1)
            frame = frame.f_back

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with (self._folder / "turn").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- messages ---

    def _receive(self) -> Sequence[Any]:
        try:
            response = self._sqs.receive_message(
                QueueUrl=self._served["url"],
                MaxNumberOfMessages=1,
                WaitTimeSeconds=POLL,
                VisibilityTimeout=HELD,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except Exception as error:  # noqa: BLE001 - a network outage must not end the session
            output.note(f"{self._queue} cannot be read: {error}")
            time.sleep(POLL)
            return []
        return response.get("Messages", [])

    def _give_back(self, receipt: str, seconds: int) -> None:
        self._sqs.change_message_visibility(
            QueueUrl=self._served["url"], ReceiptHandle=receipt, VisibilityTimeout=seconds
        )

    def _message(self, record: Mapping[str, Any]) -> None:
        """Passes one message to the handler, and deletes it or leaves it for later, as the response says."""
        event = {"Records": [record]}
        try:
            envelopes = self._envelopes(record)
            self._keep(event, envelopes)
            for envelope in envelopes:
                self._announce(envelope)
            response = self._handler(event)
        except Exception:  # noqa: BLE001 - a file with a fault, or AWS cannot be reached
            self._keep(event, ())
            output.line(traceback.format_exc().rstrip(), "red")
            output.note(f"The message comes back in {BACK} s; a change runs it at once.")
            self._give_back(record["receiptHandle"], BACK)
            return
        if not response["batchItemFailures"]:
            self._sqs.delete_message(QueueUrl=self._served["url"], ReceiptHandle=record["receiptHandle"])
        for envelope in envelopes:
            self._show(envelope)

    def _envelopes(self, record: Mapping[str, Any]) -> "Sequence[Envelope]":
        from nexus.errors import InvalidMessage
        from nexus.registry import registry
        from nexus.worker.delivery import SqsMessage
        from nexus.worker.events import received

        tasks = registry.served_by(self._queue)
        upload = next((name for name, task in tasks.items() if task.on_upload), None)
        try:
            return [delivery.envelope for delivery in received(SqsMessage.of(record), upload)]
        except InvalidMessage as error:
            output.line(f"{self._queue}: {error}", "red")
            return ()

    def _handler(self, event: Any) -> Any:
        module, _, name = self._served["handler"].rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)(event, Context())
        finally:
            # A debugger that was continued leaves these set: it would stop in the worker's code, or at Ctrl-C.
            sys.settrace(None)
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    # --- again ---

    def _keep(self, event: Mapping[str, Any], envelopes: "Sequence[Envelope]") -> None:
        """Saves what to run again after a change: the job itself, and not its last segment."""
        if any(envelope.is_part for envelope in envelopes):
            return
        runs = [envelope.model_dump(mode="json", exclude_none=True) for envelope in envelopes]
        kept = {"queue": self._queue, "event": event, "runs": runs}
        written = self._folder / "last.json.new"
        written.write_text(json.dumps(kept))
        written.rename(self._folder / "last.json")  # the session may be reading it

    def _again(self) -> None:
        """Runs what is in last.json, if it is this queue's.

        A run that waits for its retry continues now, with its own message. If the run has ended, its record stays and
        its task runs under another id, as an invocation that is not retried.
        """
        file = self._folder / "last.json"
        last = json.loads(file.read_text()) if file.exists() else {}
        if last.get("queue") != self._queue or self._is_ending():
            return
        if last["event"] and (not last["runs"] or self._open(last["runs"])):
            self._message(last["event"]["Records"][0])
            return
        for run in last["runs"]:
            self._replay(run)

    def _open(self, runs: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a run of the message has not ended. Makes its retry due now, if it waits for one."""
        from nexus.backend import backend
        from nexus.client import AsyncResult

        found = [AsyncResult[Any](str(run["id"])).record() for run in runs]
        for record in found:
            if record.status == "RETRY":
                backend().store.apply(due_now(record.id))
        return any(record.status in ("UNKNOWN", "PENDING", "RETRY") for record in found)

    def _replay(self, run: Mapping[str, Any]) -> None:
        from nexus.envelope import Envelope
        from nexus.errors import NexusError
        from nexus.ids import new_id

        given = {name: run[name] for name in ("task", "args", "refs", "group") if name in run}
        envelope = Envelope.of(id=new_id(), **given)
        self._announce(envelope, again=True)
        try:
            self._handler(envelope.model_dump(mode="json", exclude_none=True))
        except NexusError as error:
            output.line(f"{type(error).__name__}: {error}", "red")
        else:
            self._show(envelope)

    # --- what is shown ---

    def _announce(self, envelope: "Envelope", *, again: bool = False) -> None:
        from nexus.registry import registry

        task = registry.known(envelope.task)
        args = task.without_secrets(envelope.args) if task else envelope.args
        arguments = " ".join(f"{name}={output.json_text(value)}" for name, value in args.items())
        mark = " again" if again else ""
        parts = (f"{_now()} {self._queue}{mark}:", envelope.task, arguments, envelope.id)
        output.line(" ".join(part for part in parts if part))

    def _show(self, envelope: "Envelope") -> None:
        """Prints the run's result, or why it has none; then the same for the runs that waited for it and have ended."""
        from nexus.client import AsyncResult

        output.line(*_outcome(AsyncResult[Any](envelope.id).record()))
        above = envelope.parent if envelope.segment else None
        while above is not None:
            record = AsyncResult[Any](above).record()
            if not record.ended:
                break
            output.line(*_outcome(record, f"{record.queue}: {record.task} {record.id} "))
            above = record.parent if record.segment is not None else None


def _outcome(record: "RunRecord", which: str = "") -> tuple[str, str | None]:
    """A run's outcome as text, and its style."""
    from nexus.runs import payloads

    arguments, frames = str(record.status), ""
    if record.result is not None:
        arguments += f" {output.json_text(payloads.load(record.result))}"
    elif record.waits and not record.ended:
        arguments = f"waits for {record.total} run{'s' if record.total > 1 else ''}"
    elif record.error is not None:
        frames = record.error.traceback.rstrip()
        arguments += f" {record.error}"
    if record.status == "RETRY" and record.eta is not None:
        arguments += f" (due at {output.time_of(record.eta)[11:]}, or at once after a change)"
    return (f"{frames}\n" if frames else "") + f"{_now()} {which}{arguments}", output.STYLES.get(record.status)


def due_now(run_id: str) -> "Write":
    """Makes a run's retry due now."""
    from nexus import clock
    from nexus.aws.dynamodb import equals
    from nexus.backend.store import Write

    now = clock.moment()
    return Write(run_id, set={"eta": now, "since": now}, when=(equals("status", "RETRY"),))


def _record(message: Any, arn: str) -> Mapping[str, Any]:
    """A received message as Lambda passes it to a function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {
            name: {f"{key[0].lower()}{key[1:]}": value for key, value in attribute.items()}
            for name, attribute in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": arn.split(":")[3],
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%H:%M:%S")


class Readable:
    """A stream that shows the runtime's JSON log lines as `nexus logs` does, without those whose content the worker
    prints itself.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text, and a line of JSON in readable form."""
        from ops.logs import Line

        try:
            fields = json.loads(text) if text.startswith("{") else None
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or "message" not in fields:
            self._stream.write(text)
        elif fields["message"] not in SHOWN:
            line = Line("", time.time(), "", str(fields["message"]), str(fields.get("level", "")), fields=fields)
            self._stream.write(output.safe(line.text) + "\n")
        self._stream.flush()
        return len(text)
