"""The mirroring task: it runs on the project's own function, which has access to its database."""

from django.tasks import task

from nexus.django import policy
from nexus.errors import Reject, Retry
from social.django import conf


@policy(max_attempts=15, backoff=(5.0, 900.0), time_limit=100.0)
@task(backend=conf.given().get("BACKEND", "default"), queue_name=conf.given().get("QUEUE", "default"))
def mirror(kind: str, keys: list[list[str]]) -> int:
    """Updates the network from the rows at these keys, whatever changed in them."""
    mirrors = conf.mirrors()
    if kind not in mirrors:
        raise Reject(f"{kind}: {conf.given()['MIRRORS']} has no such mirror")
    faults, later = [], list[Retry]()
    with conf.network():
        for key in keys:
            try:
                mirrors[kind].sync(tuple(key))
            except Reject as error:
                faults.append(str(error))
            except Retry as error:
                later.append(error)
    if later:
        raise later[0]
    if faults:
        raise Reject("; ".join(faults))
    return len(keys)
