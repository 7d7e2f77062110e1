"""Calls a function for each AWS request of this process, made by botocore or the runtime's own client, once its outcome
is known.

It imports only that client from this project. Tests use it in their own process. The local cloud uses it in its
sandboxes (dev/emulator.py), where it writes the requests to the file that NEXUS_REQUESTS names.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

VARIABLE = "NEXUS_REQUESTS"

type Note = Callable[[str, str, Mapping[str, Any], str], None]
"""Service, operation, parameters, and the code of AWS's error or an empty text."""


def observe(note: Note) -> Callable[[], None]:
    """Starts calling `note`; returns a function that stops it."""
    from botocore.client import BaseClient
    from botocore.exceptions import ClientError

    def watch(kind: type, name: str, service_of: Callable[[Any], str]) -> Callable[[], None]:
        call = getattr(kind, name)

        def called(client: Any, operation: str, parameters: Any) -> Any:
            service = service_of(client)
            try:
                response = call(client, operation, parameters)
            except ClientError as error:
                note(service, operation, parameters, str(error.response["Error"]["Code"]))
                raise
            note(service, operation, parameters, "")
            return response

        setattr(kind, name, called)
        return lambda: setattr(kind, name, call)

    # No botocore event has both the parameters and the outcome.
    ends = [watch(BaseClient, "_make_api_call", lambda client: client.meta.service_model.service_name)]
    with suppress(Exception):  # if a function cannot import it, the function itself fails and reports why
        from nexus.aws.slim import Client

        ends.append(watch(Client, "call", lambda client: client.meta.service))

    def end() -> None:
        for one in ends:
            one()

    return end


def write(service: str, operation: str, parameters: Mapping[str, Any], error: str) -> None:
    """Appends one line of JSON per request, with the function's name, without bodies."""
    asked = {name: value for name, value in parameters.items() if name not in ("Body", "Content")}
    function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
    line = json.dumps([function, service, operation, asked, error], default=str)
    # A single write in append mode, so that sandboxes' lines do not interleave.
    descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


if os.environ.get(VARIABLE) and os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
    observe(write)
