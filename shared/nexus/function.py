"""What a Lambda function names as its handler: `nexus.function.handler`, the worker's, in a sandbox made ready for it.

Lambda imports this module with a whole core; events get the share of one that the memory buys, less than a third for
512 MB. So what the first event needs is made here: the catalogue, DynamoDB's client with its TLS context, the logger.
What cannot be made ends the function before an event arrives, with the reason in its log. Nothing else imports this.
"""

import gc

gc.disable()  # looking for garbage in what is being imported, where there is none, takes a tenth of a function's start

from nexus.aws import sdk  # noqa: E402 - from here on without the collector
from nexus.registry import registry  # noqa: E402
from nexus.settings import settings  # noqa: E402
from nexus.worker import handler, observe  # noqa: E402

__all__ = ["handler"]

registry.served_by(settings().served_queue)
sdk.client("dynamodb")
observe.logger()

gc.freeze()  # all of this stays: no later collection needs to look at it
gc.enable()
