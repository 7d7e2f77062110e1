"""A web application's startup check: whether this process can send."""

import re

from nexus.aws import sdk
from nexus.backend import backend
from nexus.backend.transport import SqsTransport, queue_url
from nexus.client.bounded import bounded
from nexus.errors import ConfigurationError, SendFailed
from nexus.registry import registry
from nexus.settings import settings

NO_RUN = "00000000-0000-0000-0000-000000000000"


def check() -> None:
    """Checks that this process can send, with one read and one request per queue.

    Raises ConfigurationError listing every fault found: a setting, the region, the credentials, a missing stack,
    missing rights. Raises SendFailed if AWS does not respond in time, which may be temporary: an application may log it
    and start anyway. With tasks in memory there is nothing to check.
    """
    queues = registry.queues()
    if not isinstance(backend().transport, SqsTransport):
        return
    faults = _faults_of_settings()
    if not queues:
        faults.append("no catalogue is loaded: import it, or name it in NEXUS_CATALOGUE")
    if faults:
        raise ConfigurationError("; ".join(faults))
    _ask()


def _faults_of_settings() -> list[str]:
    from botocore.exceptions import BotoCoreError

    where, faults = settings(), []
    if not where.stack:
        faults.append("NEXUS_STACK is not set: it names the stack that `sam deploy` made, e.g. nexus-prod")
    if not re.fullmatch(r"\d{12}", where.account_id):
        faults.append(f"NEXUS_ACCOUNT_ID is {where.account_id!r}: the twelve digits of the account")
    try:
        if sdk.region() is None:
            faults.append("no region: set AWS_REGION")
        if sdk.session().get_credentials() is None:
            faults.append("no credentials: give this process an IAM role, a profile or keys")
    except BotoCoreError as error:
        faults.append(str(error))
    return faults


@bounded
def _ask() -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    where = settings()
    try:
        backend().store.get([NO_RUN])
        owners = {queue_url(where.queue_name(queue)).split("/")[-2] for queue in registry.queues()}
    except (BotoCoreError, ClientError, sdk.Throttled) as error:
        if sdk.is_missing(error):
            raise ConfigurationError(
                f"the stack {where.stack} is missing or incomplete in {sdk.region()}: {error}"
            ) from error
        if sdk.is_misconfigured(error) or sdk.is_refused(error):
            raise ConfigurationError(f"AWS cannot be used: {error}") from error
        raise SendFailed({}, str(error)) from error
    if owners != {where.account_id}:
        raise ConfigurationError(f"NEXUS_ACCOUNT_ID is {where.account_id}, but the queues belong to {owners}")
