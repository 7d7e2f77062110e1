"""The handler of the Lambda functions, `nexus.function.handler`: the worker's, in a sandbox that is prepared in init.

During init Lambda gives a whole core; events get a share in proportion to the memory, less than a third of a core for
512 MB. So this module creates what the first event needs: the catalogue, DynamoDB's client with its TLS context, the
logger. If that fails, the function ends before an event arrives, with the reason in its log. No other module imports
this one.
"""

import gc

gc.disable()  # imports create no garbage, and collecting during them takes a tenth of a function's start

from nexus.aws import sdk  # noqa: E402 - imported with the collector off
from nexus.registry import registry  # noqa: E402
from nexus.settings import settings  # noqa: E402
from nexus.worker import handler, observe  # noqa: E402

__all__ = ["handler"]

registry.served_by(settings().served_queue)
sdk.client("dynamodb")
observe.logger()

gc.freeze()  # these objects live as long as the process: later collections skip them
gc.enable()
