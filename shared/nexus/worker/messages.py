"""What happens to the messages whose runs an invocation does not end: each is delivered again later, is replaced by
another one, or is given up as a dead letter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import ceil

from nexus import clock
from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.store import Item
from nexus.backend.transport import MAX_DELAY, DeadLetter, Message, schedule_name
from nexus.envelope import Envelope
from nexus.errors import SendFailed, UnknownTask
from nexus.runs.record import RunError, clean
from nexus.worker import fanout, observe
from nexus.worker.delivery import Received

LONGEST_HIDING = 11 * 3600.0
"""The longest time in seconds to hide a message: SQS's twelve hours, less a margin for the run itself."""

AFTER_TROUBLE = 30.0
"""Seconds until redelivery after an error of AWS that concerns one message."""

UNSERVED_AFTER = 600.0
"""Seconds until redelivery if a deployment lacks the message's task: SQS gives up after twenty receives, over three
hours.
"""

LEASE_GRACE = 1.0
"""Seconds after the end of a lease, which the clocks of two sandboxes may see at different times."""

ATTRIBUTE_LIMIT = 1024
"""Characters of an error's message in a dead letter's attributes."""


class Messages:
    """The messages of one invocation. `later` has the deliveries to redeliver, with their delays in seconds.

    `log` is where the invocation's log lines are.
    """

    def __init__(self, queue: str, log: str) -> None:
        self.later: list[tuple[Received, float]] = []
        self.log = log
        self._queue = queue

    def come_back(self, received: Received, due: float, item: Item) -> None:
        """Has the run's message delivered again at `due`.

        SQS hides a message for at most twelve hours, counted from its receive; for longer waits a one-off schedule
        sends another one. Without the right to create one it comes back in steps: a run is not claimed before its time.
        A message that SQS would soon give up or delete is replaced by another one. `item` is the run's record.
        """
        now, message = clock.now(), received.message
        if due > now + MAX_DELAY:
            with self.on_failure(received):
                fanout.outlive(received.envelope, item, due)
        back = min(due, now + LONGEST_HIDING)
        if message is not None and due > back and self.replaced(received, due):
            return
        if message is not None and message.wears_out(back) and self.replaced(received, min(due, now + MAX_DELAY)):
            return
        self.later.append((received, max(0.0, due - now)))

    def wait_for_lease(self, received: Received, until: float) -> None:
        """Has this very message delivered again when the lease of the attempt at work ends.

        A redriven message may need its mark then, which another one would not have.
        """
        self.later.append((received, max(1.0, until - clock.now() + LEASE_GRACE)))

    def replaced(self, received: Received, due: float) -> bool:
        """Sends another message of the run, to arrive at `due`. False if AWS did not accept it: this one is needed."""
        envelope, transport, delay = received.envelope, backend().transport, due - clock.now()
        try:
            if delay > MAX_DELAY:
                name = schedule_name(envelope.id, due, delivered=True)
                transport.send_at(self._queue, replace(Message.of(envelope), id=name), clock.date(due))
                return True
            refused = transport.send(self._queue, [Message.of(envelope, max(0, ceil(delay)))])
        except Exception as error:  # noqa: BLE001 - the message itself still exists and will be redelivered
            reason = RunError.of(error)
        else:
            if not refused:
                return True
            reason = RunError.of(SendFailed(refused))
        observe.not_sent_again(envelope.id, reason)
        return False

    @contextmanager
    def on_failure(self, received: Received) -> Iterator[None]:
        """Within the block, an error fails only this message, which is redelivered. Raises what fails all of them."""
        try:
            yield
        except Exception as error:
            if sdk.is_outage(error):
                raise
            self.leave_for_later(received, error)

    def leave_for_later(self, received: Received, error: Exception) -> None:
        """Has the message delivered again after a while, because of this error."""
        observe.left_for_later(received.envelope.id, RunError.of(error))
        self.later.append((received, UNSERVED_AFTER if isinstance(error, UnknownTask) else AFTER_TROUBLE))

    def dead_letter(self, body: str, error: RunError, envelope: Envelope | None, attempts: int) -> None:
        """Sends a message that is given up to the dead-letter queue, with its reason."""
        run_id, task = (envelope.id, envelope.task) if envelope else ("", "")
        attributes = {
            "ErrorType": error.type,
            "ErrorMessage": error.message[:ATTRIBUTE_LIMIT],
            "Task": task,
            "RunId": run_id,
            "Attempts": str(attempts),
            "Log": self.log,
            "FailedAt": f"{clock.date(clock.now()):%Y-%m-%dT%H:%M:%SZ}",
        }
        cleaned = {name: clean(value) for name, value in attributes.items()}
        backend().transport.dead_letter(self._queue, DeadLetter(clean(body) or "(empty)", cleaned, clean(task)))
        observe.dead_lettered(self._queue, error, run_id or None, task or None)
