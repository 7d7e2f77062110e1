"""The Lambda handlers: pass an event in any of its three forms to a worker, and return its response.

- An SQS batch: the ids of the messages to redeliver.
- S3's own event: nothing, or Retry. Lambda then passes the event to the queue, which retries it.
- {"task", "args"}: the settled run, to a waiting caller.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.transport import MAX_DELAY, Message
from nexus.definitions import TaskDefinition
from nexus.envelope import Envelope, decode
from nexus.errors import InvalidMessage, NexusError, Retry, SendFailed
from nexus.ids import new_id
from nexus.registry import registry
from nexus.runs import payloads
from nexus.runs.record import RunError, RunRecord
from nexus.settings import settings
from nexus.worker import observe
from nexus.worker.delivery import Received, SqsMessage
from nexus.worker.events import foreign, received, upload_envelopes
from nexus.worker.execution import Worker


def handler(event: Any, context: Any) -> Any:
    """The handler of every queue's function; NEXUS_QUEUE says which queue it serves, NEXUS_CATALOGUE its tasks."""
    queue = settings().served_queue
    return _logged(queue, registry.served_by(queue), event, context)


def _logged(queue: str, tasks: Mapping[str, TaskDefinition[Any, Any]], event: Any, context: Any) -> Any:
    """Like `serve`. Lambda logs the text of any exception that leaves a handler, so it has no argument values."""
    try:
        return serve(queue, tasks, event, context)
    except InvalidMessage as error:
        raise InvalidMessage(error.fault or RunError.of(error).shown) from None
    except Exception as error:
        if isinstance(error, NexusError) or sdk.is_outage(error) or sdk.is_refused(error) or sdk.is_missing(error):
            raise
        reason = RunError.of(error)
        observe.invocation_failed(reason)
        raise NexusError(reason.shown) from None


def handler_for(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """A Lambda handler for one task: the last line of each task's file.

    It takes the same events as the queue's function; a direct event may omit "task".
    """
    task = registry.task_of(function)

    def handle(event: Any, context: Any) -> Any:
        if isinstance(event, Mapping) and "Records" not in event and "Event" not in event:
            event = {"task": task.name, **event}
        return _logged(task.queue, {task.name: task}, event, context)

    return handle


def serve(queue: str, tasks: Mapping[str, TaskDefinition[Any, Any]], event: Any, context: Any) -> Any:
    """Handles one invocation, in any of the three forms."""
    if not isinstance(event, Mapping):
        fault = f"an event must be a JSON object, not {type(event).__name__}"
        raise InvalidMessage(fault, fault)
    worker = Worker(queue, tasks, context)
    if "Records" in event:
        if not isinstance(event["Records"], list):
            fault = f"Records: it must be a list, not {type(event['Records']).__name__}"
            raise InvalidMessage(fault, fault)
        records = [record for record in event["Records"] if isinstance(record, Mapping)]
        if records and records[0].get("eventSource") == "aws:sqs":
            return _messages(worker, records)
        foreign(records)
        return _uploads(worker, records)
    if event.get("Event") == "s3:TestEvent":
        return None
    return _invocation(worker, event)


def _messages(worker: Worker, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Handles an SQS batch. Returns the ids to redeliver."""
    deliveries: list[Received] = []
    for message in map(SqsMessage.of, records):
        try:
            deliveries += received(message, worker.upload_task)
        except InvalidMessage as error:
            worker.messages.dead_letter(message.body, RunError.of(error), None, message.receives)
    worker.deliver(deliveries)
    later: dict[SqsMessage, float] = {}
    for delivery, delay in worker.messages.later:
        if delivery.message is not None:
            # The message of an upload's event may carry several runs: it is redelivered for the first of them.
            later[delivery.message] = min(delay, later.get(delivery.message, delay))
    if later:
        seconds = {message.receipt: delay for message, delay in later.items()}
        backend().transport.set_visibility(worker.queue, seconds)
    return {"batchItemFailures": [{"itemIdentifier": message.id} for message in later]}


def _uploads(worker: Worker, records: Sequence[Mapping[str, Any]]) -> None:
    """Handles S3's own event, which reaches the function without a queue.

    Raises Retry if any upload is to be retried: the function's on-failure destination is the queue, whose retries then
    apply.
    """
    worker.deliver(
        [Received(envelope=envelope, source="s3") for envelope in upload_envelopes(records, worker.upload_task)]
    )
    if worker.messages.later:
        runs = ", ".join(delivery.envelope.id for delivery, _ in worker.messages.later)
        raise Retry(f"will be retried through the queue: {runs}")


def _invocation(worker: Worker, event: Mapping[str, Any]) -> dict[str, Any]:
    """Handles {"task", "args"} from a waiting caller: one attempt, and the settled run as the response.

    Raises InvalidMessage or UnknownTask to the caller if it cannot run at all.
    """
    if "v" in event or "id" in event:
        envelope = decode(json.dumps(event, default=str))
    else:
        envelope = Envelope.of(id=new_id(), task=event.get("task"), args=event.get("args", {}))
    delivery = Received(envelope=envelope, source="direct")
    delivery.readable(worker.task_for(envelope))
    worker.deliver([delivery])
    for _, delay in worker.messages.later:
        # A direct invocation is not redelivered: what remains goes to the queue.
        message = Message.of(envelope, delay=min(MAX_DELAY, round(delay)))
        failures = backend().transport.send(worker.queue, [message])
        if failures:
            raise SendFailed(failures)
    record = RunRecord.of(backend().store.get([envelope.id])[envelope.id])
    response: dict[str, Any] = {"id": record.id, "task": record.task, "status": record.status}
    if record.result is not None:
        response["result"] = payloads.load(record.result)
    if record.error is not None:
        response["error"] = {"type": record.error.type, "message": record.error.message}
    return response
